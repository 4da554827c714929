/** The search box, the address and the answer, kept in step. */

import * as api from "../page/api.js";
import * as chips from "./chips.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import * as filters from "./filters.js";
import * as format from "../page/format.js";
import * as grid from "../results/grid.js";
import { t } from "../page/i18n.js";
import { refusal } from "../page/problems.js";
import { isFilter, items } from "./querytext.js";
import * as own from "../page/own.js";
import { emit, on } from "../page/store.js";

const PAUSE = 180; // milliseconds without a keystroke before a search
const MERCY = 800; // milliseconds before an error is shown to somebody who is typing
const SETTLED = 1500; // milliseconds before a typed query gets a history entry of its own
const KEPT = 12; // answers cached for going back
const SETS = 24; // sets of pictures cached for going back
const QUIET = 1500; // milliseconds between a change of the library and a new search

let box;
let status;
let problem;
let pictures = []; // [{file, address, weight}]
let running = null; // AbortController of the running search
let pause = 0;
let settle = 0;
let complaint = 0; // timer of an error that will be shown
let isReturning = false; // scrolling to the position in the history
let isTyping = false; // the latest history entry still changes with the text
const sets = new Map(); // id in history entries -> pictures; of this tab only
const kept = new Map(); // set and text -> answer
let scan = null; // the newest scan
let newest = {}; // the newest event of a changed library

export function start(first) {
  box = document.querySelector("input[name=q]");
  status = document.getElementById("status");
  problem = document.getElementById("problem");
  history.scrollRestoration = "manual";
  chips.start({ onText: commit, onPictures: searchPictures });
  filters.start(commit);
  box.addEventListener("input", typed);
  box.form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(pause);
    follow();
    settleNow();
    showTools();
    run();
  });
  addEventListener("popstate", wentBack);
  addEventListener("pagehide", rememberPlace);
  addEventListener("scroll", debounced(rememberPlace, 200), { passive: true });
  on("open", settleNow);
  on("pictures", ({ files }) => addPictures(files));
  on("more-like", addLike);
  on("library", (event) => {
    newest = event;
    heardOfChange();
  });
  on("own-change", () => kept.clear());
  on("again", () => run({ y: scrollY }));
  on("changed", (answer) => {
    showEmpty(textNow(), answer);
    status.textContent = summary(answer);
  });
  on("saved", ({ text }) => (pictures.length ? location.assign(addressOf(text)) : commit(text)));
  on("scan", (newest) => {
    scan = newest;
    if (!document.getElementById("empty").hidden) showEmpty(textNow(), { hits: [] });
  });
  document.getElementById("refresh").addEventListener("click", () => refresh());
  showTools();
  if (first) receive(box.value, first, history.state?.y ?? 0);
  else run({ y: history.state?.y ?? 0 });
}

const textNow = () => box.value.trim();

function showTools() {
  emit("asked", { pictures: pictures.length });
  chips.show(textNow(), pictures);
  filters.show(textNow(), pictures.length > 0);
}

// Typing, and the address that follows

function typed() {
  clearTimeout(pause);
  clearTimeout(complaint);
  pause = setTimeout(() => {
    follow();
    showTools();
    run({ isTyped: true });
  }, PAUSE);
}

/** Update the address; typing makes one history entry, however many keystrokes it takes. */
function follow() {
  const address = addressOf(textNow());
  if (address === location.pathname + location.search) return;
  const state = { y: 0, set: history.state?.set };
  if (isTyping) history.replaceState(state, "", address);
  else history.pushState(state, "", address);
  isTyping = true;
  clearTimeout(settle);
  settle = setTimeout(settleNow, SETTLED);
}

function settleNow() {
  clearTimeout(settle);
  isTyping = false;
}

const addressOf = (text) =>
  location.pathname + (text ? `?${new URLSearchParams({ q: text })}` : "");

/** Search for a text written by a chip or a menu. */
function commit(text) {
  clearTimeout(pause);
  settleNow();
  box.value = text;
  follow();
  settleNow();
  showTools();
  run();
}

const placeNow = () => `${history.state?.set ?? ""} ${location.search}`;
let lastPlace = placeNow();

function wentBack(event) {
  if (placeNow() === lastPlace) return; // only the picture view opened or closed
  clearTimeout(pause);
  settleNow();
  box.value = new URLSearchParams(location.search).get("q") ?? "";
  pictures = sets.get(history.state?.set) ?? [];
  showTools();
  run({ y: event.state?.y ?? 0, fromKept: true });
}

function rememberPlace() {
  if (isReturning || document.querySelector("dialog:modal")) return;
  history.replaceState({ ...history.state, y: scrollY }, "");
}

// Pictures

function addPictures(files) {
  const added = files.map((file) => ({ file, address: URL.createObjectURL(file), weight: 1 }));
  searchPictures([...pictures, ...added]);
}

/** Search by other pictures, as a new history entry. */
function searchPictures(next) {
  clearTimeout(pause);
  settleNow();
  pictures = next;
  history.pushState({ y: 0, set: next.length ? keepSet(next) : undefined }, "", addressOf(textNow()));
  showTools();
  run();
}

/** Keep a set of pictures; return its id, which is unique across reloads. */
function keepSet(set) {
  const id = performance.timeOrigin + performance.now();
  sets.set(id, set);
  if (sets.size > SETS) forgetSet(sets.keys().next().value);
  return id;
}

function forgetSet(id) {
  const gone = sets.get(id);
  sets.delete(id);
  const used = new Set([...sets.values()].flat().map(({ address }) => address));
  for (const { address } of gone) if (!used.has(address)) URL.revokeObjectURL(address);
}

/** Add a picture as a term (negative if `weight` is), or replace its term if there is one. */
function addLike({ image_id, weight }) {
  const term = `${weight < 0 ? "-" : ""}like:${image_id}`;
  const others = items(textNow()).filter((item) => item.key !== "like" || item.value !== `${image_id}`);
  scrollTo({ top: 0 });
  commit([...others.map((item) => item.text), term].join(" "));
}

// Searching

async function run({ y = 0, fromKept = false, isTyped = false } = {}) {
  running?.abort();
  clearTimeout(complaint);
  const text = textNow();
  lastPlace = placeNow();
  const known = kept.get(keyOf(text));
  if (fromKept && known) return present(text, known, y);
  const mine = (running = new AbortController());
  grid.pause();
  const late = setTimeout(() => {
    status.textContent = t("hits.searching");
  }, 400);
  try {
    const { signal } = mine;
    const found = pictures.length
      ? await api.searchWithPictures(text, pictures, { signal })
      : await api.search(text, { signal });
    if (mine === running) receive(text, found, y);
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return;
    const isPatient = isTyped && document.activeElement === box && problem.hidden;
    complaint = setTimeout(complain, isPatient ? MERCY : 0, text, error);
  } finally {
    clearTimeout(late);
    if (mine === running) running = null;
  }
}

/** Show an answer; the one in the page itself may be a problem instead. */
function receive(text, found, y) {
  if (found.problem) {
    complain(text, refusal(found.problem));
    return;
  }
  let { cursor } = found;
  const answer = {
    hits: found.hits,
    total: found.total,
    likely: found.likely,
    kind: found.kind,
    order: found.order,
    byDay: !items(text).some((item) => item.key === "sort"),
    more: (limit) =>
      cursor
        ? api.more(cursor, { limit }).then((next) => {
            cursor = next.cursor;
            return next.hits;
          })
        : null,
  };
  keep(text, answer);
  present(text, answer, y);
}

const keyOf = (text) => `${pictures.length ? history.state?.set : ""} ${text}`;

function keep(text, answer) {
  kept.delete(keyOf(text));
  kept.set(keyOf(text), answer);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function present(text, answer, y) {
  problem.hidden = true;
  document.getElementById("grid").classList.remove("is-stale");
  box.removeAttribute("aria-invalid");
  document.getElementById("refresh").hidden = true;
  document.title = text ? `${text} – fovea` : "fovea";
  if (chips.learn(text, answer.hits)) chips.show(textNow(), pictures);
  grid.show(answer);
  showEmpty(text, answer);
  status.textContent = summary(answer);
  if (y) scrollDeep(y);
  else if (scrollY) scrollTo({ top: 0 });
}

/** Scroll back to a position, loading further pages first, unless somebody scrolls meanwhile. */
async function scrollDeep(y) {
  scrollTo({ top: 0 });
  isReturning = true;
  const isThere = await grid.loadTo(y + innerHeight);
  isReturning = false;
  if (isThere && scrollY === 0) scrollTo({ top: y });
}

function summary({ total, likely, order, hits }) {
  const count = format.number(total);
  const isRated = likely !== null && likely !== undefined;
  if (!total || (!isRated && order !== "nearest")) return t("hits.all", { count });
  if (!likely) return t(hits.some((hit) => hit.by_name) ? "hits.named" : "hits.nearest", { count });
  return t("hits.likely", { likely: format.number(likely), count });
}

function showEmpty(text, { hits }) {
  const empty = document.getElementById("empty");
  empty.hidden = hits.length > 0;
  if (hits.length) return;
  const isFiltered = items(text).some(isFilter);
  const isFilling = scan?.state === "running";
  if (isFiltered) empty.replaceChildren(element("p", {}, t("hits.empty")));
  else empty.replaceChildren(...(isFilling ? filling() : invitation()));
}

function invitation() {
  const add = element("button", { class: "button primary", type: "button" }, t("hits.add"));
  add.addEventListener("click", () => emit("add-folder"));
  if (isReadOnly()) return [element("h2", {}, t("hits.empty_library"))];
  return [
    element("h2", {}, t("hits.empty_library")),
    element("p", {}, t("hits.empty_hint")),
    add,
  ];
}

/** What the page shows while a scan has not found pictures yet. */
function filling() {
  const { found, done } = scan;
  const counts = { found: format.number(found), done: format.number(done) };
  return [
    element("h2", {}, t("hits.filling")),
    element("p", { class: "empty-counts" }, t(done ? "scan.counts" : "scan.counting", counts)),
    element("p", {}, t("hits.filling_hint")),
  ];
}

/** The message of an error; the server does not know the names of pictures, the page does. */
function worded({ code, params, message }) {
  const picture = code === "picture" && pictures[params.number - 1];
  return picture ? t("hits.bad_picture", { name: printable(picture.file.name) }) : message;
}

/** Show an error below the search box, and mark its place. The last answer stays, faded. */
function complain(text, error) {
  grid.resume();
  document.getElementById("grid").classList.add("is-stale");
  const hasPlace = Number.isInteger(error.position);
  const isRefused = error.status >= 400 && error.status < 500; // and would be refused again
  const parts = [isRefused ? worded(error) : t("hits.failed", { message: error.message })];
  if (hasPlace && text) {
    const characters = [...text];
    const before = characters.slice(0, error.position).join("");
    const place = characters.slice(error.position, error.position + 12).join("") || " ";
    parts.push(element("code", { class: "problem-place" }, before, element("mark", {}, place)));
  }
  if (!isRefused) {
    const again = element("button", { class: "button small", type: "button" }, t("hits.retry"));
    again.addEventListener("click", () => run());
    parts.push(again);
  }
  problem.replaceChildren(...parts);
  problem.hidden = false;
  box.setAttribute("aria-invalid", hasPlace ? "true" : "false");
  status.textContent = "";
}

// A library that changes

const heardOfChange = throttled(libraryChanged, QUIET);

/** Refresh the answer at the top of the page; further down, offer to. */
function libraryChanged() {
  if (running) return heardOfChange(); // let it finish first
  kept.clear();
  if (own.isAll(newest)) return;
  const isBusy = document.querySelector("#detail[open]") || scrollY > 100;
  if (isBusy && grid.count()) document.getElementById("refresh").hidden = false;
  else refresh();
}

function refresh() {
  document.getElementById("refresh").hidden = true;
  run();
}

function debounced(work, time) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, time);
  };
}

/** Do the work `time` after the first call; ignore the calls until then. */
function throttled(work, time) {
  let timer = 0;
  return () => {
    timer ||= setTimeout(() => {
      timer = 0;
      work();
    }, time);
  };
}
