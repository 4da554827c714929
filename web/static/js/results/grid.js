/**
 * The grid of pictures. Only the rows near the window exist as elements, and only the hits near it
 * are kept: others are loaded when somebody goes there.
 *
 * Every new tile is announced by a "tile" event, what the window shows by a "view" event.
 */

import { Frames } from "../grid/frames.js";
import { BLOCK, Hits } from "../grid/hits.js";
import { Layout } from "../grid/layout.js";
import * as likes from "../grid/likes.js";
import * as loading from "../grid/loading.js";
import { GAP, HEADING } from "../grid/rows.js";
import { emit } from "../page/store.js";
import { heading, tile } from "./tile.js";
import * as trouble from "../grid/trouble.js";
import { coveredAbove, coveredBelow } from "../grid/window.js";

const AHEAD = 1200; // CSS pixels beyond the window in which rows exist
const NEAR = 200; // the same while pictures in the window are still loading
const WANTED_AHEAD = 2400; // CSS pixels beyond the window in which hits are loaded
const REST = 60; // milliseconds that the window rests before hits far from others are loaded
const RESTLESS = 300; // milliseconds of scrolling after which they are loaded all the same

let box; // the element that contains the blocks
let frames; // their elements
let answer = null; // {hits, total, likely, kind, order, at}
let hits = null; // of the answer
let layout = null;
let ahead = NEAR;
let focused = 0; // the hit that Tab leads to
let toFocus = -1; // the hit that gets the focus once it is there
let target = null; // {place, into, isHead}: what is kept at the window's top until somebody scrolls
let aimed = 0; // where that has scrolled the page to
let months = null; // of the answer's timeline
let resting = 0; // timer
let restless = 0; // since when the window shows hits that are not loaded
const shown = new Map(); // row -> its elements
const elements = new Map(); // place of the hit -> its tile

export function start() {
  box = document.getElementById("grid");
  frames = new Frames(box);
  trouble.start(retry);
  likes.start(searchLike);
  box.addEventListener("click", opened);
  for (const kind of ["focusin", "pointerover"]) {
    box.addEventListener(kind, ({ target: within }) => {
      const under = within.closest(".tile");
      if (!under) return;
      const index = Number(under.dataset.index);
      if (kind === "focusin") moveTab(index);
      likes.offer(under, hitAt(index));
    });
  }
  document.addEventListener("focusin", ({ target: now }) => {
    if (!box.contains(now)) toFocus = -1; // somebody has gone elsewhere
  });
  for (const end of ["load", "error"]) box.addEventListener(end, arrived, true);
  addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(() => {
    if (!layout || box.clientWidth === layout.width) return;
    keeping(rebuild);
    render();
  }).observe(box);
}

/** Show an answer from its beginning. */
export function show(next) {
  const isSame = answer && next !== answer && hits.looksLike(next);
  const place = answer?.text === next.text ? focusedIndex() : 0; // in a newer state of the answer
  const holder = hitAt(focusedIndex());
  hits?.only(-1, -1);
  answer = next;
  hits = answer.loaded ??= new Hits(next);
  hits.changed = (blocks) => answer === next && came(blocks);
  hits.failed = (error) => answer === next && fail(error);
  hits.retry();
  trouble.hide();
  target = null;
  if (isSame) {
    keepFirst();
  } else {
    ahead = NEAR;
    focused = 0;
    toFocus = -1;
    months = null;
    rebuild();
    draw();
    if (holder) keepFocus(holder.image_id, place);
  }
  emit("hits", answer);
}

/** Leave the first tiles as they are: only hits further down may be others. */
function keepFirst() {
  const place = focusedIndex();
  if (place >= BLOCK) toFocus = place;
  layout.answer = answer;
  layout.hits = hits;
  for (const row of [...shown.keys()]) if (row.block) remove(row);
  layout.blocks.forEach((_, number) => number && layout.empty(number));
  layout.fit();
  loading.resume();
  draw();
}

export const pause = () => loading.pause(box);
export const resume = () => loading.resume();

/** Load pictures further away once nothing is loading any more. */
function arrived() {
  const isLoading = [...box.querySelectorAll("img")].some((picture) => !picture.complete);
  if (isLoading || ahead === AHEAD) return;
  ahead = AHEAD;
  render();
  emit("settled");
}

/** Take pictures out of the answer; return them and their places for `putBack`. */
export function drop(ids) {
  const { likely } = answer;
  const from = answer;
  let taken = [];
  let fewer = 0;
  change(() => {
    taken = hits.drop(ids);
    fewer = taken.filter(({ place }) => place < (likely ?? 0)).length;
    if (likely) answer.likely -= fewer;
  });
  return { from, taken, likely: fewer };
}

/** Put pictures back where they were; false if the page has another answer now. */
export function putBack({ from, taken, likely }) {
  if (from !== answer) return false;
  change(() => {
    hits.putBack(taken);
    if (answer.likely !== null) answer.likely += likely;
  });
  return true;
}

/** Change the hits, leaving the window and, as far as possible, the focus where they are. */
function change(work) {
  const place = focusedIndex();
  const holder = hitAt(place);
  keeping(() => {
    work();
    rebuild();
  });
  render();
  if (holder && count()) {
    const same = hits.find(holder.image_id);
    focusIndex(same < 0 ? Math.min(place, count() - 1) : same);
  }
  emit("changed", answer);
}

/** Return the focus to the picture that had it; if that is not loaded, to one at a place. */
function keepFocus(id, otherwise = 0) {
  const found = hits.find(id);
  const place = found < 0 ? Math.min(otherwise, count() - 1) : found;
  if (!hits.at(place)) return (toFocus = place);
  const row = layout.rowOf(place);
  if (!elements.has(place) && row) insert(row);
  focusTile(place);
}

function focusTile(place) {
  toFocus = -1;
  moveTab(place);
  elements.get(place)?.querySelector(".tile-open").focus({ preventScroll: true });
}

/** Load hits until the page reaches down to `y`, or to the last; false if another answer came. */
async function loadTo(y) {
  const asked = answer;
  const top = box.getBoundingClientRect().top + scrollY;
  while (top + layout.height < y && (await hits.more()) && asked === answer);
  return asked === answer;
}

/**
 * Scroll back to where `place` was taken, {y, at}, loading hits first if need be, unless somebody
 * scrolls meanwhile; or to a picture, {image_id}.
 */
export async function returnTo({ y, at, image_id }) {
  if (image_id) return goToImage(image_id);
  scrollTo({ top: 0 });
  const isThere = hits.isAnywhere || (await loadTo(y + innerHeight));
  if (!isThere || scrollY !== 0) return;
  if (at && at.place < count()) goTo(at);
  else scrollTo({ top: y });
}

/** Where the window is, for `returnTo`. */
export function place() {
  const above = aboveNow();
  return { y: scrollY, at: layout && above > 0 ? layout.at(above) : null };
}

/** The index of the picture that has the focus, else of the first in the window. */
export const here = () => (focusedIndex() >= 0 ? focusedIndex() : (place().at?.place ?? 0));

/** Scroll to a place, {place, into}; it stays at the window's top until somebody scrolls. */
export function goTo(at) {
  if (!layout || !count()) return;
  target = at;
  aim();
  render();
}

/** Scroll to a picture, wherever it is in the answer, with its day above it, and focus it. */
async function goToImage(imageId) {
  const asked = answer;
  const found = await locate(imageId);
  if (asked !== answer || found < 0) return;
  toFocus = found;
  goTo({ place: found, into: -HEADING });
}

// For other parts of the page

export const count = () => hits?.length ?? 0;
export const hitAt = (place) => hits?.at(place) ?? null;
export const find = (imageId) => hits?.find(imageId) ?? -1;
export const locate = async (imageId) => hits?.locate(imageId) ?? -1;

export const focusedIndex = () =>
  Number(document.activeElement?.closest?.("#grid .tile")?.dataset.index ?? -1);

/** The same, or the index of the picture that will have the focus once it is there. */
export const currentIndex = () => (toFocus >= 0 ? toFocus : focusedIndex());

/** The hit at an index, loaded if it is not there yet; null beyond the last. */
export const load = async (place) => (hits ? hits.load(place) : null);

/** Scroll to a picture and give it the focus, once it is there. */
export function focusIndex(place) {
  if (!layout || place < 0 || place >= count() || document.body.dataset.view) return;
  if (hits.has(Math.floor(place / BLOCK))) layBlock(Math.floor(place / BLOCK));
  const row = layout.rowOf(place);
  if (!row) {
    toFocus = place;
    return goTo({ place, into: 0 });
  }
  reveal(row);
  render();
  focusTile(place);
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
  if (hit && weight) emit("more-like", { image_id: hit.image_id, time: hit.time, weight });
}

/** Use the timeline of the answer, [{start, count}], for what is not laid out. */
export function learn(known) {
  months = known;
  if (!layout) return;
  keeping(() => layout.learn(months));
  render();
}

// Blocks and rows

/** Lay out what is there anew; blocks that were laid out before keep their heights meanwhile. */
function rebuild() {
  const known = layout?.width === box.clientWidth && layout.answer === answer ? layout.blocks : [];
  for (const row of [...shown.keys()]) remove(row);
  frames.clear();
  layout = new Layout(answer, hits, box.clientWidth);
  layout.blocks.forEach((block, number) => (block.known = known[number]?.known ?? 0));
  if (hits.has(0)) {
    layout.layOut(0);
    box.dataset.top = layout.heading; // for the style
  }
  if (months) layout.learn(months);
  layout.fit();
}

function draw() {
  frames.put(layout);
  render();
}

/** The distance from the grid's top to what the window shows first, below the search box. */
function aboveNow() {
  return coveredAbove() - box.getBoundingClientRect().top;
}

/** Change the layout; what the window shows first, or somebody has gone to, stays where it is. */
function keeping(work) {
  const above = aboveNow();
  const at = layout && above > 0 ? layout.at(above) : null;
  work();
  const kept = target ?? (at && at.place < count() ? at : null);
  if (kept) layAt(kept.place);
  frames.put(layout);
  if (target) aim();
  else if (kept) {
    const by = layout.yOf(kept) - above;
    if (by) scrollBy({ top: by });
  }
}

/** Lay out the block of a place, if its hits are loaded. */
function layAt(place) {
  const number = Math.floor(place / BLOCK);
  if (!layout.blocks[number] || layout.blocks[number].rows || !hits.has(number)) return;
  layout.layOut(number);
  layout.fit();
}

function aim() {
  const by = layout.yOf(target) - aboveNow();
  if (Math.abs(by) >= 1) scrollBy({ top: by });
  aimed = scrollY;
}

function scrolled() {
  if (target && Math.abs(scrollY - aimed) > 1) target = null;
  requestAnimationFrame(render);
}

function layBlock(number) {
  if (!layout.blocks[number]?.rows) keeping(() => layAt(number * BLOCK));
}

/** Hits have come in: of these blocks or, as others have moved, of any. */
function came(blocks) {
  if (!layout) return;
  if (blocks) {
    layout.blocks.forEach(({ rows }, number) => {
      if (rows && !frames.isFilled(number) && !hits.has(number)) layout.empty(number);
    });
    if (!hits.isAnywhere) keeping(() => layout.fit());
    return render();
  }
  const holder = hitAt(focusedIndex());
  keeping(rebuild);
  render();
  if (holder) keepFocus(holder.image_id);
  emit("changed", answer);
}

/** Insert the rows near the window, and remove the others. */
function render() {
  if (!layout || document.body.dataset.view) return; // another view is in its place
  if (!layout.blocks.length) return emit("view", { place: 0 });
  for (let again = true, turns = 0; again && turns < 9; turns += 1) {
    const above = -box.getBoundingClientRect().top;
    again = layBlocks(above - ahead, above + innerHeight + ahead);
  }
  const above = -box.getBoundingClientRect().top;
  const [from, to] = [above - ahead, above + innerHeight + ahead];
  for (const [row, made] of shown) {
    const top = layout.topOf(row);
    const hasFocus = made.some((one) => one.contains(document.activeElement));
    if (!hasFocus && (top + row.height <= from || top >= to)) remove(row);
  }
  const [first, last] = [layout.blockAt(from), layout.blockAt(to)];
  frames.keep(first, last);
  for (let number = first; number <= last; number += 1) {
    const { top, rows } = layout.blocks[number];
    if (!rows) frames.of(number, layout.blocks[number]);
    for (const row of rows ?? []) {
      const isNear = top + row.top + row.height > from && top + row.top < to;
      if (isNear && !shown.has(row)) insert(row);
    }
  }
  if (!elements.has(focused)) moveTab(layout.firstBelow(above, elements.keys()));
  if (toFocus >= 0 && elements.has(toFocus)) focusTile(toFocus);
  ask(above);
  emit("view", { place: (target ?? layout.at(Math.max(0, aboveNow())))?.place ?? 0 });
}

/** Lay out the first block between two heights that can be; false if there is none. */
function layBlocks(from, to) {
  for (let number = layout.blockAt(from); layout.blocks[number]?.top < to; number += 1) {
    if (layout.blocks[number].rows || !hits.has(number)) continue;
    layBlock(number);
    return true;
  }
  return false;
}

/** Load the hits near the window; far from the others, once it rests there. */
function ask(above) {
  clearTimeout(resting);
  if (focusedIndex() >= 0) hits.use(Math.floor(focusedIndex() / BLOCK));
  if (!hits.isAnywhere) {
    if (above + innerHeight + WANTED_AHEAD > layout.height) hits.more();
    return;
  }
  const wanted = [above - WANTED_AHEAD, above + innerHeight + WANTED_AHEAD].map((y) => layout.blockAt(y));
  hits.only(...wanted);
  const [first, last] = [above, above + innerHeight].map((y) => layout.blockAt(y));
  let isThere = true;
  for (let number = first; number <= last; number += 1) isThere &&= hits.has(number);
  restless = isThere ? 0 : restless || performance.now();
  const isWaitedFor = performance.now() - restless > RESTLESS;
  if (isThere && ahead === NEAR) return; // pictures in the window come first
  if (isThere || isWaitedFor) hits.want(...wanted);
  else resting = setTimeout(() => hits.want(...wanted), REST);
}

function remove(row) {
  for (const child of shown.get(row)) {
    loading.drop(child);
    child.remove();
  }
  shown.delete(row);
  if (row.heading) return;
  for (let place = row.first; place <= row.last; place += 1) elements.delete(place);
}

/** Rows stand in the page in their order, so that Tab and screen readers follow it. */
function insert(row) {
  const { width } = layout;
  const frame = frames.of(row.block, layout.blocks[row.block]);
  const made = row.heading
    ? [heading(row.heading, row.kind, { ...row, left: 0, width })]
    : members(row);
  let next = null;
  for (const [other, [first]] of shown) {
    const isBelow = other.block === row.block && other.top > row.top;
    if (isBelow && (!next || other.top < next.top)) next = { top: other.top, first };
  }
  for (const child of made) frame.insertBefore(child, next?.first ?? null);
  shown.set(row, made);
}

/** The tiles of a row, each day's heading before its first one. */
function members(row) {
  const below = row.headings ? HEADING : 0;
  const place = { top: row.top + below, height: row.height - below };
  const line = () => heading(row.mark.text, "mark", { ...place, ...row.mark });
  return row.tiles.flatMap((across, number) => {
    const index = row.first + number;
    const made = tile(hits.at(index), index, { ...place, ...across });
    elements.set(index, made);
    if (index === focused) moveTab(index);
    emit("tile", made);
    const days = (row.headings ?? []).filter(({ at }) => at === number);
    const before = days.map((day) => heading(day.text, "day", { ...day, top: row.top, height: HEADING }));
    if (row.mark?.at === number) before.push(line());
    const isLast = number === row.tiles.length - 1;
    return [...before, made, ...(isLast && row.mark?.at > number ? [line()] : [])];
  });
}

/** Tab reaches one picture at a time; arrow keys go on from it. */
function moveTab(place) {
  elements.get(focused)?.querySelector(".tile-open").setAttribute("tabindex", "-1");
  focused = place;
  elements.get(focused)?.querySelector(".tile-open").setAttribute("tabindex", "0");
}

function reveal(row) {
  const top = box.getBoundingClientRect().top + scrollY + layout.topOf(row);
  const [above, below] = [coveredAbove(), innerHeight - coveredBelow()];
  if (top < scrollY + above - 1) scrollTo({ top: top - above - GAP });
  else if (top + row.height > scrollY + below) scrollTo({ top: top + row.height - below + GAP });
}

/** An answer that the server has forgotten is asked for again. */
function fail(error) {
  if (error.status === 410) emit("again");
  else trouble.say(error);
}

/** Load what could not be loaded. */
export function retry() {
  if (!trouble.isSaid()) return;
  trouble.hide();
  hits?.retry();
  render();
}

function opened(event) {
  const link = event.target.closest(".tile-open");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { index, imageId } = link.closest(".tile").dataset;
  emit("open", { image_id: Number(imageId), index: Number(index) });
}
