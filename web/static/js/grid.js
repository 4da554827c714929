/**
 * Pictures in rows of one height, each in its own shape; only the rows near the window exist.
 *
 * An answer comes in pages. Its hits are laid out as they arrive; day headings and the line where
 * the likely matches end are rows of their own.
 */

import { LARGEST_PAGE } from "./api.js";
import { element, printable } from "./dom.js";
import * as format from "./format.js";
import { t } from "./i18n.js";
import { dress } from "./selection.js";
import { emit } from "./store.js";

const GAP = 6; // CSS pixels between pictures
const HEADING = 52; // CSS pixels
const DAY_GAP = 4 * GAP; // between days in one row
const NARROWEST_DAY = 116; // CSS pixels, for a date
const AHEAD = 1200; // CSS pixels beyond the window in which rows exist
const NEAR = 200; // the same while pictures in the window are still on their way
const WANTED_AHEAD = 2400; // CSS pixels from the end at which the next page is asked for
const NARROWEST = 0.4; // width by height; a narrower or wider picture is cut to this
const WIDEST = 4;

let box; // the element that holds the rows
let answer = null; // {hits, total, likely, kind, more}: `more` asks for the next page
let rows = []; // {top, height, first, last, tiles: [{left, width}], headings?: [{at, text, left,
// width}]}, where tiles lie below the headings of their days, or {top, height, heading, kind}
let height = 0;
let width = 0;
let waiting = null; // the page that is on its way
let ahead = NEAR;
let focused = 0; // the hit that Tab leads to
let likes; // the buttons for more and for less like a picture, on the one that is pointed at
const hushed = new Map(); // picture -> the addresses that were taken from it
const shown = new Map(); // number of the row -> its elements
const elements = new Map(); // index of the hit -> its tile

export function start() {
  box = document.getElementById("grid");
  likes = document.getElementById("tile-likes").content.firstElementChild;
  box.addEventListener("click", opened);
  box.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    moveTab(Number(tile.dataset.index));
    offerLikes(tile);
  });
  box.addEventListener("pointerover", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) offerLikes(tile);
  });
  likes.addEventListener("click", ({ target }) => {
    const index = Number(likes.parentElement.dataset.index);
    searchLike(index, Number(target.closest("button")?.dataset.weight));
  });
  for (const end of ["load", "error"]) box.addEventListener(end, arrived, true);
  addEventListener("scroll", () => requestAnimationFrame(render), { passive: true });
  new ResizeObserver(() => {
    if (box.clientWidth !== width) layOut();
  }).observe(box);
}

/** Show an answer from its beginning. `more()` gives a promise of its next hits, or null. */
export function show(next) {
  const isSame = answer && looksLike(next);
  const holder = hitAt(focusedIndex());
  answer = next;
  waiting = null;
  if (isSame) resume();
  else {
    ahead = NEAR;
    focused = 0;
    layOut();
    if (holder) keepFocus(holder.image_id);
  }
  emit("hits", answer);
}

/** Stop what loads beyond the window: browsers have few connections, and a search needs one now. */
export function hush() {
  for (const picture of box.querySelectorAll("img")) {
    const { top, bottom } = picture.getBoundingClientRect();
    if (picture.complete || (bottom > 0 && top < innerHeight)) continue;
    hushed.set(picture, { src: picture.src, srcset: picture.srcset });
    picture.removeAttribute("srcset");
    picture.removeAttribute("src");
  }
}

/** Let those pictures load after all. */
export function resume() {
  for (const [picture, addresses] of hushed) Object.assign(picture, addresses);
  hushed.clear();
}

/** Once nothing is on its way, more may come. */
function arrived() {
  const isLoading = [...box.querySelectorAll("img")].some((picture) => !picture.complete);
  if (isLoading || ahead === AHEAD) return;
  ahead = AHEAD;
  render();
}

/** Whether an answer would be drawn just as the present one: its tiles can stay. */
function looksLike(next) {
  const isLaidOutSo = ["total", "likely", "kind", "byDay"].every((key) => next[key] === answer[key]);
  const marks = ["image_id", "day", "likelihood", "offline", "thumbnail"];
  return (
    isLaidOutSo &&
    next.hits.length === answer.hits.length &&
    next.hits.every((hit, index) => marks.every((mark) => hit[mark] === answer.hits[index][mark]))
  );
}

/** The picture that had the focus gets it back; where it is gone, the first one does. */
function keepFocus(id) {
  const index = Math.max(0, answer.hits.findIndex((hit) => hit.image_id === id));
  if (!elements.has(index) && rowOf(index) >= 0) insert(rowOf(index));
  moveTab(index);
  elements.get(index)?.querySelector(".tile-open").focus({ preventScroll: true });
}

/** Load hits until the page is as high as `y`, or to the last; false where another answer came. */
export async function loadTo(y) {
  const asked = answer;
  const top = box.getBoundingClientRect().top + scrollY;
  while (top + height < y && (await nextPage(LARGEST_PAGE)) && asked === answer);
  return asked === answer;
}

// What the other parts ask

export const count = () => answer?.hits.length ?? 0;
export const hitAt = (index) => answer?.hits[index] ?? null;
export const elementOf = (index) => elements.get(index) ?? null;

export const focusedIndex = () =>
  Number(document.activeElement?.closest?.("#grid .tile")?.dataset.index ?? -1);

/** The hit at an index, asked for if it is not there yet; null beyond the last. */
export async function load(index) {
  while (answer && index >= answer.hits.length && (await nextPage()));
  return hitAt(index);
}

/** Bring a picture into the window and give it the focus. */
export function focusIndex(index) {
  const row = rows[rowOf(index)];
  if (!row) return;
  reveal(row);
  render();
  moveTab(index);
  elements.get(index)?.querySelector(".tile-open").focus({ preventScroll: true });
}

/** The index that a step from another one leads to. */
export function step(index, direction) {
  const last = count() - 1;
  if (direction === "left") return Math.max(index - 1, 0);
  if (direction === "right") return Math.min(index + 1, last);
  if (direction === "home") return 0;
  if (direction === "end") return last;
  const far = direction.startsWith("page") ? innerHeight - 2 * HEADING : 0;
  return below(index, direction === "down" || direction === "pagedown" ? 1 : -1, far);
}

/** The picture under (or over) another one, in the next row or at least `far` pixels away. */
function below(index, sign, far) {
  const from = rowOf(index);
  const { left, width: wide } = rows[from].tiles[index - rows[from].first];
  const middle = left + wide / 2;
  let best = index;
  for (let number = from + sign; rows[number]; number += sign) {
    const row = rows[number];
    if (row.heading) continue;
    const place = row.tiles.findIndex((tile) => middle <= tile.left + tile.width + GAP);
    best = row.first + (place < 0 ? row.tiles.length - 1 : place);
    if (Math.abs(row.top - rows[from].top) >= far) break;
  }
  return best;
}

/** Search for more (weight 1) or less (-1) like the hit at an index. */
export function searchLike(index, weight) {
  const hit = hitAt(index);
  if (hit && weight) emit("more-like", { image_id: hit.image_id, weight });
}

function offerLikes(tile) {
  if (likes.parentElement === tile) return;
  const name = printable(hitAt(Number(tile.dataset.index)).name);
  for (const button of likes.children) {
    const key = Number(button.dataset.weight) > 0 ? "hits.more_like" : "hits.less_like";
    button.setAttribute("aria-label", t(key, { name }));
  }
  tile.append(likes);
}

// Layout

const wantedHeight = () => (width < 640 ? 130 : width < 1400 ? 200 : 230);

function layOut() {
  width = box.clientWidth;
  rows = [];
  height = 0;
  clear();
  if (answer) append(0);
}

/** Lay out the hits from one on; the rows before it stay. */
function append(from) {
  let days = []; // that share a row
  const flush = () => {
    if (days.length) addDays(days);
    days = [];
  };
  for (let first = from, end; first < answer.hits.length; first = end) {
    end = endOfStretch(first);
    const line = answer.hits.slice(first, end).map((hit, place) => ({
      index: first + place,
      ratio: shapeOf(hit),
    }));
    const day = { line, text: dayAt(first), width: Math.max(usualWidth(line), NARROWEST_DAY) };
    if (day.text && day.width <= width) {
      if (widthOf([...days, day]) > width) flush();
      days.push(day);
    } else {
      flush();
      if (first === answer.likely) addHeading(t(first ? "hits.line" : "hits.line_none"), "line");
      if (day.text) addHeading(day.text, "day");
      addLines(line);
    }
  }
  flush();
  box.style.height = `${height}px`;
  render();
}

const isByDay = () => answer.kind === "browse" && answer.byDay;

/** Where the hits end that stand together: at another day, or where the likely ones end. */
function endOfStretch(first) {
  const { hits, likely } = answer;
  let end = first + 1;
  const goesOn = () => end !== likely && !(isByDay() && hits[end].day !== hits[first].day);
  while (end < hits.length && goesOn()) end += 1;
  return end;
}

/** The heading of the day that begins with a hit; null where none does. */
function dayAt(first) {
  const { day } = answer.hits[first];
  if (!isByDay() || (first && answer.hits[first - 1].day === day)) return null;
  return day ? format.day(day) : t("hits.undated");
}

function addLines(tiles) {
  let line = [];
  for (const tile of tiles) {
    line.push(tile);
    if (rowHeight(line) > wantedHeight()) continue;
    addRow(line, true);
    line = [];
  }
  if (line.length) addRow(line, false);
}

function shapeOf(hit) {
  if (!hit.width || !hit.height) return 4 / 3;
  return Math.min(Math.max(hit.width / hit.height, NARROWEST), WIDEST);
}

const rowHeight = (line) =>
  (width - GAP * (line.length - 1)) / line.reduce((sum, { ratio }) => sum + ratio, 0);

/**
 * A full row fills the width; the last one of a stretch keeps the usual height.
 *
 * All is in whole pixels, for an edge between two would show as a line.
 */
function addRow(line, isFull) {
  const exact = isFull ? rowHeight(line) : Math.min(rowHeight(line), wantedHeight());
  const tall = Math.round(exact);
  let end = 0; // of the tile before, not rounded, so that the last one ends at the width
  const tiles = line.map(({ ratio }, place) => {
    const start = end;
    end += ratio * exact;
    const left = Math.round(start) + GAP * place;
    return { left, width: Math.round(end) + GAP * place - left };
  });
  const [first, last] = [line[0].index, line[line.length - 1].index];
  rows.push({ top: height, height: tall, first, last, tiles, isFull });
  height += tall + GAP;
}

const usualWidth = (line) =>
  Math.ceil(line.reduce((sum, { ratio }) => sum + ratio * wantedHeight() + GAP, -GAP));

const widthOf = (days) => days.reduce((sum, day) => sum + day.width + DAY_GAP, -DAY_GAP);

/** Days of few pictures stand side by side, each under its own heading. */
function addDays(days) {
  const tiles = [];
  const headings = [];
  let start = 0;
  for (const { line, text, width: wide } of days) {
    headings.push({ at: tiles.length, text, left: start, width: days.length > 1 ? wide : width });
    let left = start;
    for (const { ratio } of line) {
      const tile = { left, width: Math.round(ratio * wantedHeight()) };
      tiles.push(tile);
      left += tile.width + GAP;
    }
    start += wide + DAY_GAP;
  }
  const first = days[0].line[0].index;
  const last = first + tiles.length - 1;
  const tall = HEADING + wantedHeight();
  rows.push({ top: height, height: tall, first, last, tiles, headings, isFull: false });
  height += tall + GAP;
}

function addHeading(text, kind) {
  rows.push({ top: height, height: HEADING, heading: text, kind });
  height += HEADING;
}

function rowOf(index) {
  return rows.findIndex((row) => !row.heading && row.first <= index && index <= row.last);
}

// Rows that exist

function clear() {
  for (const made of shown.values()) made.forEach((child) => child.remove());
  shown.clear();
  elements.clear();
  hushed.clear();
}

function render() {
  if (!answer || !rows.length) return;
  const above = -box.getBoundingClientRect().top;
  const [from, to] = [above - ahead, above + innerHeight + ahead];
  for (const [number, made] of shown) {
    const row = rows[number];
    const hasFocus = made.some((one) => one.contains(document.activeElement));
    const isKept = row && (hasFocus || isNear(row, from, to));
    if (!isKept) remove(number, made);
  }
  for (let number = firstAfter(from); number < rows.length && rows[number].top < to; number += 1) {
    if (!shown.has(number)) insert(number);
  }
  if (above + innerHeight + WANTED_AHEAD > height) nextPage();
}

const isNear = (row, from, to) => row.top + row.height > from && row.top < to;

/** The first row that ends beyond a place, by bisection: there may be thousands. */
function firstAfter(place) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height > place) high = middle;
    else low = middle + 1;
  }
  return low;
}

function remove(number, made) {
  made.forEach((child) => child.remove());
  shown.delete(number);
  const { first, last } = rows[number] ?? {};
  for (let index = first; index <= last; index += 1) elements.delete(index);
}

/** Rows stand in the page in their order, so that Tab and screen readers follow the eye. */
function insert(number) {
  const row = rows[number];
  const made = row.heading ? [heading(row.heading, row.kind, row.top)] : members(row);
  let next = null;
  for (const [other, existing] of shown) {
    if (other > number && (next === null || other < next.number)) next = { number: other, existing };
  }
  for (const child of made) box.insertBefore(child, next?.existing[0] ?? null);
  shown.set(number, made);
}

/** The tiles of a row, each day's heading before its first one. */
function members(row) {
  return row.tiles.flatMap((place, number) => {
    const day = row.headings?.find(({ at }) => at === number);
    return [day && heading(day.text, "day", row.top, day), tile(row, place, number)].filter(Boolean);
  });
}

function heading(text, kind, top, place = { left: 0, width }) {
  const made = element("h2", { class: `grid-${kind}` }, element("span", {}, text));
  put(made, { ...place, top, height: HEADING });
  return made;
}

function tile(row, place, number) {
  const index = row.first + number;
  const hit = answer.hits[index];
  const name = printable(hit.name);
  const link = element(
    "a",
    {
      class: "tile-open",
      href: `${location.search || "?q="}#image-${hit.image_id}`,
      tabindex: index === focused ? 0 : -1,
      "aria-label": described(hit, name),
      title: name,
    },
    picture(hit, place.width, name),
    badges(hit),
  );
  const check = element("button", {
    class: "tile-check",
    type: "button",
    role: "checkbox",
    tabindex: -1,
    "aria-checked": "false",
    "aria-label": t("hits.select", { name }),
  });
  const data = { index, imageId: hit.image_id };
  const made = element("div", { class: "tile", dataset: data }, link, check);
  const below = row.headings ? HEADING : 0;
  put(made, { ...place, top: row.top + below, height: row.height - below });
  dress(made);
  elements.set(index, made);
  return made;
}

function picture(hit, wide, name) {
  const sized = (size) => `${hit.thumbnail}&size=${size}`;
  const times = Math.max(1, shapeOf(hit)); // a thumbnail's size is that of its short side
  return element("img", {
    src: sized(256),
    srcset: [256, 512].map((size) => `${sized(size)} ${Math.round(size * times)}w`).join(", "),
    sizes: `${Math.ceil(wide)}px`,
    alt: "",
    decoding: "async",
    draggable: false,
    onerror: (event) => event.target.replaceWith(element("bdi", { class: "tile-name" }, name)),
  });
}

/** What is known of a hit beside its look: a name that matches, and how likely it is on a closer look. */
function badges(hit) {
  const badge = (text, kind) => element("span", { class: `tile-badge ${kind}` }, text);
  const isRated = hit.likelihood !== null && hit.likelihood !== undefined;
  return element(
    "span",
    { class: "tile-badges" },
    isRated ? badge(format.percent(hit.likelihood), "is-likelihood") : null,
    hit.offline ? badge(t("hits.offline"), "is-mark") : null,
    hit.by_name ? badge(t("hits.by_name"), "is-mark") : null,
  );
}

function described(hit, name) {
  const parts = [name];
  if (hit.likelihood !== null && hit.likelihood !== undefined) {
    parts.push(t("hits.likelihood", { percent: format.percent(hit.likelihood) }));
  }
  if (hit.by_name) parts.push(t("hits.by_name"));
  if (hit.offline) parts.push(t("hits.offline"));
  return parts.join(", ");
}

function put(made, place) {
  made.style.transform = `translate(${place.left}px, ${place.top}px)`;
  made.style.width = `${place.width}px`;
  made.style.height = `${place.height}px`;
}

/** One picture at a time can be reached by Tab; arrows go on from it. */
function moveTab(index) {
  elements.get(focused)?.querySelector(".tile-open").setAttribute("tabindex", "-1");
  focused = index;
  elements.get(focused)?.querySelector(".tile-open").setAttribute("tabindex", "0");
}

function reveal(row) {
  const top = box.getBoundingClientRect().top + scrollY + row.top;
  const covered = document.querySelector(".top")?.offsetHeight ?? 0;
  if (top < scrollY + covered + GAP) scrollTo({ top: top - covered - GAP });
  else if (top + row.height > scrollY + innerHeight) {
    scrollTo({ top: top + row.height - innerHeight + GAP });
  }
}

// Pages

/** Ask for the next hits, once at a time; false at the end. `limit` says how many at most. */
function nextPage(limit) {
  if (waiting) return waiting;
  const asked = answer;
  const coming = asked?.more?.(limit);
  if (!coming) return Promise.resolve(false);
  waiting = coming
    .then((hits) => {
      if (asked !== answer) return false;
      const holder = hitAt(focusedIndex());
      const from = lastStretch();
      asked.hits.push(...hits);
      waiting = null;
      append(from);
      if (holder && focusedIndex() < 0) keepFocus(holder.image_id);
      return hits.length > 0;
    })
    .catch(() => {
      if (asked === answer) waiting = null;
      return false;
    });
  return waiting;
}

/** Take back a last row that was not full, its heading too; return where the layout goes on. */
function lastStretch() {
  const last = rows[rows.length - 1];
  if (!last || last.isFull) return answer.hits.length;
  takeBack();
  while (rows[rows.length - 1]?.heading) takeBack();
  return last.first;
}

function takeBack() {
  const made = shown.get(rows.length - 1);
  if (made) remove(rows.length - 1, made);
  height = rows.pop().top;
}

function opened(event) {
  const link = event.target.closest(".tile-open");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const index = Number(link.closest(".tile").dataset.index);
  emit("open", { image_id: answer.hits[index].image_id, index });
}
