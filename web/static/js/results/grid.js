/**
 * The grid of pictures. Only the rows near the window exist as elements.
 *
 * An answer comes in pages, which are laid out as they arrive. Every new tile is announced by a
 * "tile" event.
 */

import { LARGEST_PAGE } from "../page/api.js";
import { printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { GAP, HEADING, Layout } from "./layout.js";
import { emit } from "../page/store.js";
import { heading, tile } from "./tile.js";

const AHEAD = 1200; // CSS pixels beyond the window in which rows exist
const NEAR = 200; // the same while pictures in the window are still loading
const WANTED_AHEAD = 2400; // CSS pixels from the end at which the next page is requested

let box; // the element that contains the rows
let answer = null; // {hits, total, likely, kind, byDay, more}: `more` requests the next page
let layout = null;
let waiting = null; // the request for the next page
let ahead = NEAR;
let focused = 0; // the hit that Tab leads to
let likes; // the "more like" and "less like" buttons, on the tile under the pointer
const paused = new Map(); // picture -> the addresses that were taken from it
const shown = new Map(); // number of the row -> its elements
const elements = new Map(); // index of the hit -> its tile

export function start() {
  box = document.getElementById("grid");
  likes = document.getElementById("tile-likes").content.firstElementChild;
  box.addEventListener("click", opened);
  box.addEventListener("focusin", (event) => {
    const under = event.target.closest(".tile");
    if (!under) return;
    moveTab(Number(under.dataset.index));
    offerLikes(under);
  });
  box.addEventListener("pointerover", (event) => {
    const under = event.target.closest(".tile");
    if (under) offerLikes(under);
  });
  likes.addEventListener("click", ({ target }) => {
    const index = Number(likes.parentElement.dataset.index);
    searchLike(index, Number(target.closest("button")?.dataset.weight));
  });
  for (const end of ["load", "error"]) box.addEventListener(end, arrived, true);
  addEventListener("scroll", () => requestAnimationFrame(render), { passive: true });
  new ResizeObserver(() => {
    if (layout && box.clientWidth !== layout.width) layOut();
  }).observe(box);
}

/** Show an answer from its beginning. */
export function show(next) {
  const isSame = answer && looksLike(next);
  const holder = hitAt(focusedIndex());
  answer = next;
  waiting = null;
  if (isSame) {
    layout.answer = next;
    resume();
  } else {
    ahead = NEAR;
    focused = 0;
    layOut();
    if (holder) keepFocus(holder.image_id);
  }
  emit("hits", answer);
}

/** Stop loading pictures outside the window: connections are few, and a search needs one now. */
export function pause() {
  for (const picture of box.querySelectorAll("img")) {
    const { top, bottom } = picture.getBoundingClientRect();
    if (picture.complete || (bottom > 0 && top < innerHeight)) continue;
    paused.set(picture, { src: picture.src, srcset: picture.srcset });
    picture.removeAttribute("srcset");
    picture.removeAttribute("src");
  }
}

/** Load the pictures that were paused. */
export function resume() {
  for (const [picture, addresses] of paused) Object.assign(picture, addresses);
  paused.clear();
}

/** Load pictures further away once nothing is loading any more. */
function arrived() {
  const isLoading = [...box.querySelectorAll("img")].some((picture) => !picture.complete);
  if (isLoading || ahead === AHEAD) return;
  ahead = AHEAD;
  render();
}

/** Whether an answer would look the same as the present one: its tiles can stay. */
function looksLike(next) {
  const isLaidOutSo = ["total", "likely", "kind", "byDay"].every((key) => next[key] === answer[key]);
  const marks = ["image_id", "day", "likelihood", "offline", "thumbnail", "hidden"];
  return (
    isLaidOutSo &&
    next.hits.length === answer.hits.length &&
    next.hits.every((hit, index) => marks.every((mark) => hit[mark] === answer.hits[index][mark]))
  );
}

/** Take pictures out of the answer; return them and their places for `putBack`. */
export function drop(ids) {
  const { likely } = answer;
  const taken = [];
  answer.hits.forEach((hit, index) => ids.has(hit.image_id) && taken.push({ hit, index }));
  const isLikely = ({ index }) => index < (likely ?? 0);
  change(
    answer.hits.filter((hit) => !ids.has(hit.image_id)),
    -taken.length,
    -taken.filter(isLikely).length,
  );
  return { from: answer, taken, likely: taken.filter(isLikely).length };
}

/** Put pictures back where they were; false if the page has another answer now. */
export function putBack({ from, taken, likely }) {
  if (from !== answer) return false;
  const hits = [...answer.hits];
  for (const { hit, index } of taken) hits.splice(index, 0, hit);
  change(hits, taken.length, likely);
  return true;
}

/** Show the answer with other hits, leaving the window and, as far as possible, the focus. */
function change(hits, count, likely) {
  if (!count) return;
  const place = focusedIndex();
  const holder = hitAt(place);
  answer.hits = hits;
  answer.total += count;
  if (answer.likely) answer.likely += likely;
  layOut();
  if (holder && hits.length) {
    const same = hits.findIndex((hit) => hit.image_id === holder.image_id);
    focusIndex(same < 0 ? Math.min(place, hits.length - 1) : same);
  }
  emit("changed", answer);
}

/** Return the focus to the picture that had it, or to the first one if it is gone. */
function keepFocus(id) {
  const index = Math.max(0, answer.hits.findIndex((hit) => hit.image_id === id));
  const row = layout.rowOf(index);
  if (!elements.has(index) && row >= 0) insert(row);
  focusTile(index);
}

function focusTile(index) {
  moveTab(index);
  elements.get(index)?.querySelector(".tile-open").focus({ preventScroll: true });
}

/** Load hits until the page reaches down to `y`, or to the last; false if another answer came. */
export async function loadTo(y) {
  const asked = answer;
  const top = box.getBoundingClientRect().top + scrollY;
  while (top + layout.height < y && (await nextPage(LARGEST_PAGE)) && asked === answer);
  return asked === answer;
}

// For other parts of the page

export const count = () => answer?.hits.length ?? 0;
export const hitAt = (index) => answer?.hits[index] ?? null;

export const focusedIndex = () =>
  Number(document.activeElement?.closest?.("#grid .tile")?.dataset.index ?? -1);

/** The hit at an index, loaded if it is not there yet; null beyond the last. */
export async function load(index) {
  while (answer && index >= answer.hits.length && (await nextPage()));
  return hitAt(index);
}

/** Scroll to a picture and give it the focus. */
export function focusIndex(index) {
  const row = layout?.rows[layout.rowOf(index)];
  if (!row) return;
  reveal(row);
  render();
  focusTile(index);
}

/** The index that a step from another one leads to. */
export function step(index, direction) {
  const last = count() - 1;
  if (direction === "left") return Math.max(index - 1, 0);
  if (direction === "right") return Math.min(index + 1, last);
  if (direction === "home") return 0;
  if (direction === "end") return last;
  const far = direction.startsWith("page") ? innerHeight - 2 * HEADING : 0;
  return layout.beside(index, direction === "down" || direction === "pagedown" ? 1 : -1, far);
}

/** Search for more (weight 1) or less (-1) like the hit at an index. */
export function searchLike(index, weight) {
  const hit = hitAt(index);
  if (hit && weight) emit("more-like", { image_id: hit.image_id, weight });
}

function offerLikes(under) {
  if (likes.parentElement === under) return;
  const name = printable(hitAt(Number(under.dataset.index)).name);
  for (const button of likes.children) {
    const key = Number(button.dataset.weight) > 0 ? "hits.more_like" : "hits.less_like";
    button.setAttribute("aria-label", t(key, { name }));
  }
  under.append(likes);
}

// Rows

function layOut() {
  for (const made of shown.values()) made.forEach((child) => child.remove());
  shown.clear();
  elements.clear();
  paused.clear();
  layout = new Layout(answer, box.clientWidth);
  draw();
}

function draw() {
  box.style.height = `${layout.height}px`;
  render();
}

/** Insert the rows near the window, and remove the others. */
function render() {
  if (!layout?.rows.length) return;
  const { rows } = layout;
  const above = -box.getBoundingClientRect().top;
  const [from, to] = [above - ahead, above + innerHeight + ahead];
  for (const [number, made] of shown) {
    const { top, height } = rows[number];
    const hasFocus = made.some((one) => one.contains(document.activeElement));
    if (!hasFocus && (top + height <= from || top >= to)) remove(number);
  }
  for (let number = layout.firstBelow(from); rows[number]?.top < to; number += 1) {
    if (!shown.has(number)) insert(number);
  }
  if (above + innerHeight + WANTED_AHEAD > layout.height) nextPage();
}

function remove(number) {
  shown.get(number).forEach((child) => child.remove());
  shown.delete(number);
  const { first, last } = layout.rows[number];
  for (let index = first; index <= last; index += 1) elements.delete(index);
}

/** Rows stand in the page in their order, so that Tab and screen readers follow it. */
function insert(number) {
  const row = layout.rows[number];
  const { width } = layout;
  const made = row.heading
    ? [heading(row.heading, row.kind, { ...row, left: 0, width })]
    : members(row);
  const next = Math.min(...[...shown.keys()].filter((other) => other > number));
  for (const child of made) box.insertBefore(child, shown.get(next)?.[0] ?? null);
  shown.set(number, made);
}

/** The tiles of a row, each day's heading before its first one. */
function members(row) {
  const below = row.headings ? HEADING : 0;
  const place = { top: row.top + below, height: row.height - below };
  return row.tiles.flatMap((across, number) => {
    const index = row.first + number;
    const made = tile(answer.hits[index], index, { ...place, ...across });
    elements.set(index, made);
    if (index === focused) moveTab(index);
    emit("tile", made);
    const day = row.headings?.find(({ at }) => at === number);
    return day ? [heading(day.text, "day", { ...day, top: row.top, height: HEADING }), made] : made;
  });
}

/** Tab reaches one picture at a time; arrow keys go on from it. */
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

/** Request the next `limit` hits, one page at a time; false at the end. */
function nextPage(limit) {
  if (waiting) return waiting;
  const asked = answer;
  const coming = asked?.more?.(limit);
  if (!coming) return Promise.resolve(false);
  waiting = coming
    .then((hits) => {
      if (asked !== answer) return false;
      waiting = null;
      add(hits);
      return hits.length > 0;
    })
    .catch(() => {
      if (asked === answer) waiting = null;
      return false;
    });
  return waiting;
}

/** Lay out more hits; a last row that was not full is laid out again with them. */
function add(hits) {
  const holder = hitAt(focusedIndex());
  const first = layout.firstUnfinished();
  for (const number of [...shown.keys()]) if (number >= first) remove(number);
  const from = layout.removeFrom(first);
  answer.hits.push(...hits);
  layout.append(from);
  draw();
  if (holder && focusedIndex() < 0) keepFocus(holder.image_id);
}

function opened(event) {
  const link = event.target.closest(".tile-open");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const index = Number(link.closest(".tile").dataset.index);
  emit("open", { image_id: answer.hits[index].image_id, index });
}
