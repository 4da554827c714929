/** The search box, the address and the answer, kept in step. */

import * as api from "../page/api.js";
import * as query from "./box.js";
import * as chips from "./chips.js";
import { element, isReadOnly } from "../page/dom.js";
import { reasons } from "./empty.js";
import * as filters from "./filters.js";
import * as format from "../page/format.js";
import * as grid from "../results/grid.js";
import { t } from "../page/i18n.js";
import * as meaning from "./meaning.js";
import { foundBy } from "../grid/hits.js";
import * as timeline from "../grid/timeline.js";
import { refusal } from "../page/problems.js";
import * as keptPictures from "./kept.js";
import { isFilter, items, quoted } from "./querytext.js";
import * as own from "../page/own.js";
import { progress } from "../library/progress.js";
import { emit, on } from "../page/store.js";

const PAUSE = 180; // milliseconds without a keystroke before a search
const MERCY = 800; // milliseconds before an error is shown to somebody who is typing
const SETTLED = 1500; // milliseconds before a typed query gets a history entry of its own
const KEPT = 12; // answers cached for going back
const QUIET = 1500; // milliseconds between a change of the library and a new search
const AWAY = 5000; // milliseconds until a library that is away is asked again

let box;
let status;
let problem;
let pictures = []; // as kept.js has them
let running = null; // AbortController of the running search
let pause = 0;
let settle = 0;
let complaint = 0; // timer of an error that will be shown
let isReturning = false; // scrolling to the position in the history
let isTyping = false; // the latest history entry still changes with the text
let isDraft = false; // somebody types: filters stay in the box
let isPressed = false; // a mouse button or finger is down
let asked = null; // the text of the latest search
let answered = null; // the text of the latest answer
const kept = new Map(); // pictures and text -> answer
let scan = null; // the newest scan
let why = []; // the hints of the answer
let newest = {}; // the newest event of a changed library

export function start(first) {
  box = document.querySelector("input[name=q]");
  status = document.getElementById("status");
  problem = document.getElementById("problem");
  history.scrollRestoration = "manual";
  query.start();
  const written = box.value.trim();
  query.put(written);
  pictures = keptPictures.inAddress();
  chips.start({ onText: commit, onPictures: searchPictures, onEdit: edit });
  filters.start(commit);
  box.addEventListener("input", typed);
  box.form.addEventListener("submit", (event) => {
    event.preventDefault();
    isDraft = false;
    clearTimeout(pause);
    follow();
    settleNow();
    showTools();
    run();
  });
  box.addEventListener("blur", () => whenReleased(left));
  for (const change of ["pointerdown", "pointerup", "pointercancel"]) {
    addEventListener(change, () => (isPressed = change === "pointerdown"), true);
  }
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
  on("again", () => run({ spot: grid.place() }));
  on("changed", (answer) => {
    showEmpty(textNow(), answer);
    status.textContent = summary(answer);
  });
  on("suggested", ({ words, filter }) => commit([words, ...query.filters(), filter].filter(Boolean).join(" ")));
  on("unfinished", () => clearTimeout(pause)); // a filter whose value is typed next
  on("search", ({ text }) => {
    pictures = []; // a link leads to what its address says
    commit(text);
  });
  on("view-in-timeline", ({ image_id, hidden }) => {
    pictures = [];
    commit(hidden ? "is:hidden" : "", { spot: { image_id } });
  });
  on("server-back", ({ isNew }) => {
    kept.clear(); // a new server does not know their cursors
    if (isNew || !problem.hidden) run({ spot: grid.place() });
  });
  on("scan", (newest) => {
    scan = newest;
    if (!document.getElementById("empty").hidden) showEmpty(textNow(), { total: 0 });
  });
  document.getElementById("refresh").addEventListener("click", () => refresh());
  showTools();
  asked = textNow();
  if (first) receive(first.problem ? written : asked, first, history.state);
  else run({ spot: history.state });
}

const textNow = query.whole;

function showTools() {
  emit("asked", { pictures: pictures.length });
  chips.show({ typed: query.typed(), filters: query.filters(), pictures });
  filters.show(textNow(), pictures.length > 0);
}

// Typing, and the address that follows

function typed() {
  isDraft = true;
  clearTimeout(pause);
  clearTimeout(complaint);
  pause = setTimeout(() => {
    follow();
    showTools();
    run({ isTyped: true });
  }, PAUSE);
}

/** Do `work` after the present click, which must not miss what it is meant for. */
function whenReleased(work) {
  if (!isPressed) return setTimeout(work);
  const released = new AbortController();
  const release = () => {
    released.abort();
    setTimeout(work);
  };
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, release, { signal: released.signal });
}

/** The box has lost the focus: what is in it is meant as it stands. */
function left() {
  if (document.activeElement === box || !isDraft) return; // another window has the focus now
  isDraft = false;
  if (asked !== textNow()) commit(textNow(), { isWritten: true });
  else if (answered === asked && beside()) showTools();
}

/** Move the box's filters beside it; return whether there was one. The query stays the same. */
function beside() {
  if (isDraft || !query.fold()) return false;
  history.replaceState(history.state, "", addressOf(textNow()) + location.hash);
  lastPlace = placeNow();
  asked = answered = textNow();
  return true;
}

/** Let somebody write a filter otherwise; a folder without its whole path, where that is enough. */
async function edit({ text, key, sign, value }) {
  let short = null;
  if (key === "in" && value.startsWith("/")) {
    const found = await api.folders({ path: value }).catch(() => null);
    short = found?.folders[0]?.short;
  }
  if (!query.unfold(text, short ? `${sign}in:${quoted(short)}` : text)) return;
  isDraft = true;
  showTools();
}

/** Update the address; typing makes one history entry, however many keystrokes it takes. */
function follow() {
  const address = addressOf(textNow());
  if (address === location.pathname + location.search) return;
  const state = { y: 0 };
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

const addressOf = (text) => keptPictures.addressOf(text, pictures);

/** Search for a text written by a chip, a menu or a suggestion, or as it is written in the box. */
function commit(text, { isWritten = false, spot = null } = {}) {
  isDraft = false;
  clearTimeout(pause);
  settleNow();
  if (!isWritten) query.put(text);
  follow();
  settleNow();
  showTools();
  run({ spot });
}

const placeNow = () => location.search;
let lastPlace = placeNow();

function wentBack(event) {
  if (placeNow() === lastPlace) return; // only the picture view opened or closed
  isDraft = false;
  clearTimeout(pause);
  settleNow();
  query.put(new URLSearchParams(location.search).get("q") ?? "");
  pictures = keptPictures.inAddress();
  showTools();
  run({ spot: event.state, fromKept: true });
}

function rememberPlace() {
  if (isReturning || document.querySelector("dialog:modal")) return;
  history.replaceState({ ...history.state, ...grid.place() }, "");
}

// Pictures

async function addPictures(files) {
  status.textContent = t("hits.searching");
  const added = await keptPictures.keep(files, pictures.length);
  if (added.length) searchPictures([...pictures, ...added]);
  else status.textContent = "";
}

/** Search by other pictures, as a new history entry. */
function searchPictures(next) {
  isDraft = false;
  clearTimeout(pause);
  settleNow();
  pictures = next;
  history.pushState({ y: 0 }, "", addressOf(textNow()));
  showTools();
  run();
}

/** Add a picture, or a moment of a video, as a term (negative if `weight` is), or replace its term. */
function addLike({ image_id, time, weight }) {
  const moment = Number.isFinite(time) ? `@${format.exactClock(time)}` : "";
  const term = `${weight < 0 ? "-" : ""}like:${image_id}${moment}`;
  const isOther = ({ key, value }) => key !== "like" || value.split("@")[0] !== `${image_id}`;
  const others = items(textNow()).filter(isOther);
  scrollTo({ top: 0 });
  commit([...others.map((item) => item.text), term].join(" "));
}

// Searching

/** Search; then scroll to a `spot` of the answer, see `grid.returnTo`, else to its beginning. */
async function run({ spot = null, fromKept = false, isTyped = false } = {}) {
  running?.abort();
  clearTimeout(complaint);
  const text = (asked = textNow());
  lastPlace = placeNow();
  const known = kept.get(keyOf(text));
  if (fromKept && known) return present(text, known, spot);
  const mine = (running = new AbortController());
  grid.pause();
  const late = setTimeout(() => {
    status.textContent = t("hits.searching");
  }, 400);
  try {
    const { signal } = mine;
    const found = await keptPictures.search(text, pictures, { signal });
    if (mine === running) receive(text, found, spot);
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
function receive(text, found, spot) {
  if (found.problem) {
    complain(text, refusal(found.problem));
    return;
  }
  if (meaning.learn(text, found)) showTools();
  const { cursor } = found;
  const answer = {
    text,
    pictures: pictures.length > 0, // without them the same text is another question
    cursor,
    hits: found.hits,
    total: found.total,
    likely: found.likely,
    kind: found.kind,
    order: found.order,
    hints: found.hints,
    filters: found.filters,
    seek: cursor && ((image) => api.seek(cursor, image)),
    at: cursor && ((offset, limit, signal) => api.more(cursor, { offset, limit, signal })),
  };
  keep(text, answer);
  present(text, answer, spot);
}

const keyOf = (text) => `${keptPictures.written(pictures)} ${text}`;

function keep(text, answer) {
  kept.delete(keyOf(text));
  kept.set(keyOf(text), answer);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function present(text, answer, spot) {
  answered = text;
  if (text === textNow() && beside()) {
    text = textNow();
    keep(text, answer);
    showTools();
  }
  problem.hidden = true;
  document.getElementById("grid").classList.remove("is-stale");
  box.removeAttribute("aria-invalid");
  document.getElementById("refresh").hidden = true;
  const view = { map: t("map.title"), duplicates: t("copies.title") }[document.body.dataset.view] ?? "";
  document.title = [text && meaning.title(text), view, "fovea"].filter(Boolean).join(" – ");
  timeline.makeRoom(answer);
  grid.show(answer);
  showEmpty(text, answer);
  status.textContent = summary(answer);
  if (spot?.y || spot?.image_id) scrollBack(spot);
  else if (scrollY) scrollTo({ top: 0 });
}

async function scrollBack(spot) {
  isReturning = true;
  await grid.returnTo(spot);
  isReturning = false;
}

function summary({ total, likely, order, hits }) {
  const count = format.number(total);
  const isRated = likely !== null && likely !== undefined;
  if (!total || (!isRated && order !== "nearest")) return t("hits.all", { count });
  if (!likely && order !== "nearest") return t("hits.all", { count });
  if (!likely) {
    const found = new Set(hits.flatMap(foundBy));
    if (!found.size) return t("hits.nearest", { count });
    return t(found.has("by_text") ? "hits.shown" : "hits.named", { count });
  }
  return t("hits.likely", { likely: format.number(likely), count });
}

function showEmpty(text, { total, hints = why }) {
  why = hints.filter(({ code }) => code !== "language"); // which has its own line
  const empty = document.getElementById("empty");
  empty.hidden = total > 0;
  if (total) return;
  const isFiltered = why.length > 0 || items(text).some(isFilter);
  const isFilling = scan?.state === "running";
  if (isFiltered) empty.replaceChildren(...reasons(why));
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
  return [
    element("h2", {}, t("hits.filling")),
    element("p", { class: "empty-counts" }, progress(scan)),
    element("p", {}, t("hits.filling_hint")),
  ];
}

/** The message of an error, which may begin with a word of the query. */
function worded(error) {
  const said = error.expected ?? keptPictures.worded(error, pictures);
  return /^\p{Ll}+[\s,]/u.test(said) ? said[0].toUpperCase() + said.slice(1) : said;
}

/** Show an error below the search box, and mark its place. The last answer stays, faded. */
function complain(text, error) {
  grid.resume();
  document.getElementById("grid").classList.add("is-stale");
  const hasPlace = Number.isInteger(error.position);
  const isRefused = error.status >= 400 && error.status < 500; // and would be refused again
  const parts = [isRefused ? worded(error) : t("hits.failed", { message: error.message })];
  if (hasPlace && text) parts.push(...marked(text, error.position));
  if (!isRefused) {
    const again = element("button", { class: "button small", type: "button" }, t("hits.retry"));
    again.addEventListener("click", () => run());
    parts.push(again);
  }
  const isSaid = !problem.hidden && problem.textContent === parts.map((part) => part.textContent ?? part).join("");
  if (!isSaid) problem.replaceChildren(...parts); // nothing is read out twice, and the focus stays
  problem.hidden = false;
  if (error.code?.startsWith("away")) complaint = setTimeout(() => run({ spot: grid.place() }), AWAY);
  box.setAttribute("aria-invalid", hasPlace ? "true" : "false");
  status.textContent = "";
}

/** What is wrong in the box, between what is beside it; filters that are wrong come back there. */
function marked(text, position) {
  const before = [...text].slice(0, position).join("").length; // in units of UTF-16
  const wrong = items(text).findLast(({ at }) => at <= before);
  if (wrong && query.unfold(wrong.text)) showTools();
  const typed = query.typed();
  const start = typed.lastIndexOf(wrong?.text ?? text);
  if (start < 0 || wrong.text === typed) return [];
  const place = start + before - wrong.at;
  const end = Math.max(place + 1, Math.min(start + wrong.text.length, place + 40));
  const mark = element("mark", {}, typed.slice(place, end) || " ");
  return [element("code", { class: "problem-place" }, typed.slice(0, place), mark, typed.slice(end))];
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
