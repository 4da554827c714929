/** The picture view: one picture large, its facts, and similar pictures. */

import { image } from "../page/api.js";
import { printable } from "../page/dom.js";
import { showFacts } from "./facts.js";
import { copyImage, copyPath, showFile, showLinks } from "./file.js";
import { clearText, showText } from "./text.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import * as marks from "./marks.js";
import { t } from "../page/i18n.js";
import { Picture } from "../query/picture.js";
import * as selection from "./selection.js";
import { emit, on } from "../page/store.js";
import { Player, isVideo } from "../showing/player.js";
import { neighboursOf, results } from "./walks.js";

const ADDRESS = /^#image-(\d+)$/;

let dialog;
let parts; // the elements of the dialog, by their data-part
let picture;
let player;
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
  picture = new Picture(parts, { onSwipe: swiped, onChange: zoomed, onConverted: pointLinks });
  player = new Player(parts, ({ thumbnail }) => picture.show({ ...picture.hit, thumbnail }));
  dialog.addEventListener("close", closed);
  dialog.addEventListener("click", clicked);
  dialog.addEventListener("keydown", pressed);
  on("open", ({ image_id: id, index, list = results }) => open(id, index ?? list.find(id), list));
  on("hits", followHits);
  on("select", () => showSelected());
  on("changed", followChange);
  on("slid", follow);
  on("server-back", () => {
    if (dialog.open && dialog.dataset.state === "failed") show(shown.id, shown.index, shown.list);
  });
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
async function followHits({ total }) {
  results.total = total;
  if (!dialog.open || shown?.list !== results) return;
  const here = shown;
  const index = await results.locate(here.id);
  if (here !== shown) return;
  here.index = index;
  history.replaceState({ ...history.state, index }, "");
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
  await replace(hit, next, list);
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
    pointLinks();
    showText(parts, found.text ?? []);
    player.offer(found);
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
  player.clear();
  clearText(parts);
  parts.info.scrollTop = 0;
}

function showPicture(hit) {
  parts.name.textContent = printable(hit.name);
  parts.spoken.textContent = [parts.name.textContent, parts.position.textContent]
    .filter(Boolean)
    .join(", ");
  picture.show(hit);
  player.show(hit);
  emit("pictured", { hit });
  pointLinks();
  showMarks();
}

const pointLinks = () => picture.hit && showLinks(parts, picture.hit, isConverted());
const isConverted = () => picture.isConverted && !isVideo(picture.hit);

/** Load the pictures before and after this one. */
async function preloadAround({ index, list }) {
  if (index < 0) return;
  const near = [index + 1, index - 1].filter((place) => place >= 0 && place < list.count());
  const hits = await Promise.all(near.map((place) => list.at(place).catch(() => null)));
  picture.preload(hits.filter(Boolean));
}

/** Go `by` pictures along the list, or by so many more while the next one is loading. */
async function step(by) {
  const here = shown;
  const { index, list } = here;
  const next = (here.next ?? index) + by;
  if (index < 0 || next < 0 || next >= list.count()) return;
  here.next = next;
  const hit = await list.at(next).catch(() => null);
  if (here !== shown || here.next !== next) return;
  here.next = null;
  if (hit && next !== index) await replace(hit, next, list);
}

/** Show another hit of a list; the address changes without another history entry. */
async function replace(hit, index, list) {
  const state = { ...history.state, image: hit.image_id, index };
  history.replaceState(state, "", `#image-${hit.image_id}`);
  await show(hit.image_id, index, list);
}

/** A slideshow has ended at another hit: go on from there. */
function follow({ hit, index, list }) {
  if (!dialog.open || shown?.list !== list || shown.id === hit.image_id) return;
  replace(hit, index, list);
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
  "open-original": () => parts.open.href && parts.open.click(),
  download: () => parts.download.href && parts.download.click(),
  "copy-path": () => about && copyPath(about.path),
  "copy-image": () => picture.hit && copyImage(picture.hit),
  show: () => parts.show && shown && showFile(shown.id),
  slideshow: () => shown && emit("slideshow", { index: Math.max(0, shown.index), list: shown.list }),
  timeline: () => viewInTimeline(),
  play: () => player.toggle(),
};

function clicked(event) {
  const link = event.target.closest("a[data-query]");
  if (link) return followLink(event, link);
  const button = event.target.closest("[data-action]");
  if (!button || button.getAttribute("aria-disabled") === "true") return;
  if (!(button.dataset.action in actions)) return;
  event.preventDefault();
  actions[button.dataset.action]();
}

const opensElsewhere = (event) => event.ctrlKey || event.metaKey || event.shiftKey;

/** Search for what a link of the facts names, in this page unless another tab is asked for. */
function followLink(event, link) {
  if (opensElsewhere(event)) return;
  event.preventDefault();
  if (link.dataset.date) viewInTimeline();
  else leave(() => emit("search", { text: link.dataset.query }));
}

/** Go to the picture in the list of all by date. */
function viewInTimeline() {
  const { id } = shown;
  const isHidden = isMarked("hidden");
  leave(() => emit("view-in-timeline", { image_id: id, hidden: isHidden }));
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
  d: "download",
  c: "copy-path",
  s: "slideshow",
  t: "timeline",
  k: "play",
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onControl = event.target.closest("button, a, input, textarea, summary");
  if (onControl && event.key === " ") return; // it presses the control
  if (event.target === parts.video && /^( |Arrow.*)$/.test(event.key)) return; // the player's own
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

function searchBy(weight) {
  const { id } = shown;
  const like = { image_id: id, time: player.time, weight, name: about?.name, thumbnail: about?.thumbnail };
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
