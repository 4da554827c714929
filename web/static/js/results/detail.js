/** The picture view: one picture large, its facts, and similar pictures. */

import { image } from "../page/api.js";
import { copyText } from "../page/clipboard.js";
import { printable } from "../page/dom.js";
import { showFacts } from "./facts.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import * as marks from "./marks.js";
import { t } from "../page/i18n.js";
import { addressIn, Picture } from "../query/picture.js";
import * as selection from "./selection.js";
import { emit, on } from "../page/store.js";

const ADDRESS = /^#image-(\d+)$/;

/** The lists for next and previous: the hits of the grid, or pictures similar to one. */
const results = {
  total: 0,
  count: () => results.total,
  at: async (index) => grid.hitAt(index) ?? (await grid.load(index)),
  find: (id) => {
    for (let index = 0; index < grid.count(); index += 1) {
      if (grid.hitAt(index)?.image_id === id) return index;
    }
    return -1;
  },
};

const neighboursOf = (hits) => ({
  count: () => hits.length,
  at: async (index) => hits[index],
  find: (id) => hits.findIndex((hit) => hit.image_id === id),
  drop: (id) => hits.splice(0, hits.length, ...hits.filter((hit) => hit.image_id !== id)),
});

let dialog;
let parts; // the elements of the dialog, by their data-part
let picture;
let shown = null; // {id, index, list}
let about = null; // the document of the shown image, once it has arrived
let request = null; // the AbortController of that document's request
const walks = [results]; // lists, by the number in the history's entries
let afterwards = null; // called once the view has closed

export function start() {
  dialog = document.getElementById("detail");
  parts = Object.fromEntries(
    [...dialog.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  picture = new Picture(parts, { onSwipe: swiped, onChange: zoomed });
  dialog.addEventListener("close", closed);
  dialog.addEventListener("click", clicked);
  dialog.addEventListener("keydown", pressed);
  on("open", ({ image_id: id, index }) => open(id, index ?? results.find(id), results));
  on("hits", followHits);
  on("select", () => showSelected());
  on("changed", followChange);
  on("marked", ({ ids, mark, on: isOn }) => {
    if (about && ids.has(about.image_id)) about[mark] = isOn;
    showMarks();
  });
  window.addEventListener("popstate", followAddress);
  showInfo(preferredInfo());
  followAddress();
}

export const isOpen = () => dialog.open;

/** Show an image and add an entry to the history, so that back returns to where one was. */
function open(id, index, list) {
  if (!walks.includes(list)) walks.push(list);
  const depth = (history.state?.depth ?? 0) + 1;
  const state = { ...history.state, image: id, index, walk: walks.indexOf(list), depth };
  history.pushState(state, "", `#image-${id}`);
  show(id, index, list);
}

/** Follow the address after back, forward, or loading the page: show its image, or close. */
function followAddress() {
  const [, id] = ADDRESS.exec(location.hash) ?? [];
  if (id) {
    const { index = results.find(Number(id)), walk = 0 } = history.state ?? {};
    show(Number(id), index, walks[walk] ?? results);
  } else if (dialog.open) {
    dialog.close();
  }
}

/** The hits have changed under the open view: keep the picture, and find its new position. */
function followHits({ total }) {
  results.total = total;
  if (!dialog.open || shown?.list !== results) return;
  shown.index = results.find(shown.id);
  showPosition();
}

/** Pictures were hidden or are back: keep the shown one, if it is still there. */
function followChange({ total }) {
  results.total = total;
  if (!dialog.open || shown?.list !== results) return;
  const index = results.find(shown.id);
  if (index < 0) return; // `hide` goes on to another one
  shown.index = index;
  showPosition();
}

const isMarked = (mark) => Boolean((about ?? picture.hit)?.[mark]);

function showMarks() {
  if (!shown) return;
  parts.heart.setAttribute("aria-pressed", String(isMarked("favourite")));
  const [text] = parts.hide.querySelectorAll("span");
  text.textContent = t(isMarked("hidden") ? "detail.unhide" : "detail.hide");
}

/** Hide the picture, or show a hidden one again, and go on to the next: it leaves the answer. */
async function hide() {
  const { id, index, list } = shown;
  const here = shown;
  if (!(await marks.hide([id], !isMarked("hidden"))) || here !== shown) return;
  list.drop?.(id);
  const next = Math.min(index, list.count() - 1);
  const hit = index >= 0 && next >= 0 ? await list.at(next).catch(() => null) : null;
  if (here !== shown) return;
  if (!hit) return leave();
  const state = { ...history.state, image: hit.image_id, index: next };
  history.replaceState(state, "", `#image-${hit.image_id}`);
  await show(hit.image_id, next, list);
}

async function show(id, index, list) {
  shown = { id, index, list };
  about = null;
  if (!dialog.open) {
    dialog.showModal();
    dialog.focus();
  }
  clear();
  const here = shown;
  const hit = index >= 0 ? await list.at(index).catch(() => null) : null;
  if (here !== shown) return;
  showPosition();
  showSelected();
  if (hit?.image_id === id) showPicture(hit);
  await Promise.all([showDocument(here), preloadAround(here)]);
}

async function showDocument(here) {
  request?.abort();
  request = new AbortController();
  try {
    const found = await image(here.id, { signal: request.signal });
    if (here !== shown) return;
    about = found;
    if (!picture.hit) showPicture(found);
    showMarks();
    showFacts(parts, found, { jump, hit: here.list === results ? picture.hit : null });
    dialog.dataset.state = "ready";
  } catch (error) {
    if (here !== shown || error.name === "AbortError") return;
    dialog.dataset.state = "failed";
    picture.complain(error.status === 404 ? t("detail.unknown") : error.message);
  }
}

function clear() {
  dialog.dataset.state = "loading";
  picture.clear();
  parts.info.scrollTop = 0;
}

function showPicture(hit) {
  parts.name.textContent = printable(hit.name);
  parts.spoken.textContent = [parts.name.textContent, parts.position.textContent]
    .filter(Boolean)
    .join(", ");
  picture.show(hit);
  showMarks();
}

/** Load the pictures before and after this one. */
async function preloadAround({ index, list }) {
  if (index < 0) return;
  const near = [index + 1, index - 1].filter((place) => place >= 0 && place < list.count());
  const hits = await Promise.all(near.map((place) => list.at(place).catch(() => null)));
  picture.preload(hits.filter(Boolean));
}

/** Go `by` pictures along the list; the address changes without another history entry. */
async function step(by) {
  const { index, list } = shown;
  const next = index + by;
  if (index < 0 || next < 0 || next >= list.count()) return;
  const hit = await list.at(next).catch(() => null);
  if (!hit || shown.index !== index) return;
  const state = { ...history.state, image: hit.image_id, index: next };
  history.replaceState(state, "", `#image-${hit.image_id}`);
  await show(hit.image_id, next, list);
}

function showPosition() {
  const { index, list } = shown;
  const count = list.count();
  const known = index >= 0 && count > 0;
  parts.position.textContent = known
    ? t("detail.position", { index: format.number(index + 1), count: format.number(count) })
    : "";
  setDisabled(parts.previous, !known || index === 0);
  setDisabled(parts.next, !known || index === count - 1);
}

/** Keep the button in the tab order, so that the focus is not lost at the ends of the list. */
function setDisabled(button, disabled) {
  button.setAttribute("aria-disabled", String(disabled));
}

/** Show a similar picture; next and previous then go through the similar ones. */
function jump(id, hits) {
  const list = neighboursOf(hits);
  dialog.focus(); // the link that has the focus will be removed
  open(id, list.find(id), list);
}

function showSelected() {
  if (!shown) return;
  parts.select.setAttribute("aria-checked", String(selection.has(shown.id)));
}

async function toggleSelected() {
  const { id, index, list } = shown;
  selection.toggle(
    about ?? (await list.at(index)) ?? { image_id: id },
    list === results ? index : -1,
  );
}

const actions = {
  close: () => leave(),
  next: () => step(1),
  previous: () => step(-1),
  "zoom-in": () => picture.zoom.zoomIn(),
  "zoom-out": () => picture.zoom.zoomOut(),
  fit: () => picture.zoom.toggle(),
  info: () => showInfo(parts.info.hidden, true),
  select: () => toggleSelected(),
  favourite: () => shown && marks.favourite([shown.id], !isMarked("favourite")),
  hide: () => hide(),
  "more-like": () => searchBy(1),
  "less-like": () => searchBy(-1),
  "open-original": () => window.open(addressIn("original", picture.hit), "_blank", "noopener"),
  "copy-path": () => copyPath(),
};

function clicked(event) {
  const button = event.target.closest("[data-action]");
  if (!button || button.getAttribute("aria-disabled") === "true") return;
  if (!(button.dataset.action in actions)) return;
  event.preventDefault();
  actions[button.dataset.action]();
}

const keys = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  "+": "zoom-in",
  "=": "zoom-in",
  "-": "zoom-out",
  0: "fit",
  i: "info",
  f: "favourite",
  h: "hide",
  x: "select",
  " ": "select",
  o: "open-original",
  c: "copy-path",
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onControl = event.target.closest("button, a, input, textarea, summary");
  if (onControl && event.key === " ") return; // it presses the control
  if (event.shiftKey && event.key.startsWith("Arrow")) return pan(event);
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  actions[action]();
}

function pan(event) {
  const [right, down] = {
    ArrowLeft: [-0.2, 0],
    ArrowRight: [0.2, 0],
    ArrowUp: [0, -0.2],
    ArrowDown: [0, 0.2],
  }[event.key];
  event.preventDefault();
  picture.zoom.pan(right, down);
}

function swiped(direction) {
  actions[{ left: "next", right: "previous", down: "close" }[direction]]();
}

function zoomed(percent, isZoomed) {
  parts.percent.textContent = format.percent(percent / 100);
  parts.fit.setAttribute("aria-pressed", String(isZoomed));
}

async function copyPath() {
  if (!about) return;
  try {
    await copyText(about.path);
    emit("toast", { text: t("detail.path_copied") });
  } catch {
    emit("toast", { text: t("copy.refused"), kind: "error" });
  }
}

function searchBy(weight) {
  const { id } = shown;
  const like = { image_id: id, weight, name: about?.name, thumbnail: about?.thumbnail };
  leave(() => emit("more-like", like));
}

function showInfo(visible, remember = false) {
  parts.info.hidden = !visible;
  dialog.classList.toggle("has-info", visible);
  parts.toggle.setAttribute("aria-pressed", String(visible));
  if (remember) localStorage.setItem("detail-info", visible ? "shown" : "hidden");
}

/** Whether to show the facts: as last time, at first if there is room beside the picture. */
function preferredInfo() {
  const left = localStorage.getItem("detail-info");
  return left ? left === "shown" : window.matchMedia("(min-width: 60rem)").matches;
}

/** Close, and call `then` when the address is that of the results again. */
function leave(then = null) {
  afterwards = then;
  dialog.close();
}

/** Focus the picture in the grid, and remove it from the address. */
async function closed() {
  const { id, index, list } = shown ?? {};
  const then = afterwards;
  shown = null;
  afterwards = null;
  request?.abort();
  picture.preload([]);
  clear();
  const inGrid = list === results ? index : -1;
  if (inGrid >= 0) grid.focusIndex(inGrid);
  emit("close", { image_id: id, index: inGrid });
  await leaveAddress();
  then?.();
}

/** Go back to the entry before the view was opened; without one, only remove the picture. */
async function leaveAddress() {
  if (!ADDRESS.test(location.hash)) return;
  const depth = history.state?.depth ?? 0;
  if (depth) {
    const gone = new Promise((done) => addEventListener("popstate", done, { once: true }));
    history.go(-depth);
    await gone;
  } else {
    history.replaceState(null, "", location.pathname + location.search);
  }
}
