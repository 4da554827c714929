/**
 * Which pictures are selected: some by their numbers, or all of an answer but for exceptions.
 *
 * Nothing here touches the page; every change is announced by a "select" event. Pictures stay
 * selected when another search follows. All of an answer are then listed by their numbers.
 */

import * as api from "../page/api.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const LONGEST_RANGE = 10_000; // pictures
const MOST = 100_000; // pictures that the server lists

const picked = new Map(); // image id -> path, null where it is not known; in the order of selecting
let whole = null; // {query, total, except}: all that the present answer finds, but for a Set of ids
const aside = new Set(); // exceptions that have left the answer
let coming = null; // {count, done}: pictures of an earlier answer that the server is listing
let answer = null; // the present one
let range = null; // {anchor, end, held}: indexes, and for each id whether it was selected before
let latest = null; // the last range that was asked for

export function start() {
  on("hits", (next) => {
    answer = next;
    range = null; // its indexes were those of another list
    if (whole && isSame(next)) whole.total = next.total;
    else if (whole) list();
    else return;
    changed();
  });
  on("changed", (next) => {
    range = null;
    if (!whole) return;
    whole.total = next.total;
    changed();
  });
}

/** Whether all of the present answer is selected, but for exceptions. */
export const isWhole = () => whole !== null;

const isSame = ({ text, pictures }) => !pictures && text === whole.query;

/** Whether a picture of the present answer is selected. */
export const has = (id) => (whole ? !whole.except.has(id) : picked.has(id));

export const size = () =>
  whole ? Math.max(0, whole.total - whole.except.size) : picked.size + (coming?.count ?? 0);

/** What to send to the server for the selection: its `ids`, or a `query` and what to `except`. */
export async function choice() {
  await coming?.done;
  return whole ? { query: whole.query, except: [...whole.except] } : { ids: [...picked.keys()] };
}

/** The paths of the selected pictures, in the order of selecting; null if the page lacks some. */
export function paths() {
  const known = [...picked.values()];
  return whole || coming || known.includes(null) ? null : known;
}

/** How many pictures the present answer has, and how many likely ones; null where it has no line. */
export const offered = () => ({ total: answer?.total ?? 0, likely: answer?.likely ?? null });

function put({ image_id: id, path = null }, isOn) {
  if (whole) isOn ? whole.except.delete(id) : whole.except.add(id);
  else if (!isOn) picked.delete(id);
  else if (!picked.get(id)) picked.set(id, path);
}

/** Select a hit, or deselect it; the next range begins at its `index`. */
export async function toggle(hit, index) {
  const isOn = !has(hit.image_id);
  if (whole && index < 0) await list(); // it may be none of the answer
  put(hit, isOn);
  if (index >= 0) range = begun(index);
  changed();
}

const begun = (index) => ({ anchor: index, end: index, held: new Map() });

/**
 * Select everything from the hit where the range began, the one toggled last, to the one at
 * `index`, and restore what an earlier end of this range had selected beyond it.
 */
export async function extend(index) {
  range ??= begun(index);
  const mine = (latest = range);
  const end = Math.min(Math.max(index, mine.anchor - LONGEST_RANGE), mine.anchor + LONGEST_RANGE);
  mine.end = index;
  const isWanted = () => mine === latest && mine === range && mine.end === index; // no newer one
  const hits = await between(Math.min(mine.anchor, end), Math.max(mine.anchor, end), isWanted);
  if (!hits || !isWanted()) return;
  if (end !== index) say(t("selection.range", { count: format.number(LONGEST_RANGE) }));
  const within = new Set(hits.map((hit) => hit.image_id));
  for (const [id, { hit, was }] of mine.held) {
    if (within.has(id)) continue;
    put(hit, was);
    mine.held.delete(id);
  }
  for (const hit of hits) {
    const id = hit.image_id;
    if (!mine.held.has(id)) mine.held.set(id, { hit, was: has(id) });
    put(hit, true);
  }
  changed();
}

/** Extend the range that ends at the index `from`, or one that begins there, to the index `to`. */
export function reach(from, to) {
  if (range?.end !== from) range = begun(from);
  return extend(to);
}

/** All hits of a range; null once it is not wanted any more, or if one cannot be loaded. */
async function between(first, last, isWanted) {
  const hits = [];
  for (let place = first; place <= last; place += 1) {
    const hit = grid.hitAt(place) ?? (await grid.load(place));
    if (!hit || !isWanted()) return null;
    hits.push(hit);
  }
  return hits;
}

/** Select or deselect many pictures, given by {image_id, path}. */
export function putAll(hits, isOn) {
  for (const hit of hits) put(hit, isOn);
  range = null;
  changed();
}

/** Select all pictures of the present answer, loaded or not, and no others. */
export async function all() {
  if (!answer?.total) return;
  const { text, total, pictures } = answer;
  const known = loaded(total);
  if (known) return only(known);
  if (pictures) return ask({ cursor: answer.cursor });
  only([]);
  aside.clear();
  whole = { query: text, total, except: new Set() };
  changed();
}

/** Select the likely matches of the present answer, and no others. */
export async function likely() {
  const { text, likely: count, pictures, cursor } = answer ?? {};
  if (!count) return;
  const known = loaded(count);
  if (known) return only(known);
  return ask({ ...(pictures ? { cursor } : { query: text }), likely_only: true });
}

/** The first `count` hits, or null if some are not loaded. */
function loaded(count) {
  const hits = [];
  for (let index = 0; index < count; index += 1) {
    const hit = grid.hitAt(index);
    if (!hit) return null;
    hits.push(hit);
  }
  return hits;
}

/** Select what the server finds. */
async function ask(wanted) {
  const asked = answer;
  try {
    const { ids } = await api.measure(wanted);
    if (asked === answer) only(ids.map((image_id) => ({ image_id })));
  } catch (error) {
    complain(error);
  }
}

function only(hits) {
  whole = coming = null;
  picked.clear();
  putAll(hits, true);
}

export function clear() {
  if (size()) only([]);
}

/** Forget exceptions that leave the answer, as they do when they are hidden, until they return. */
export function setAside(ids, isAway) {
  if (!whole) return;
  const [from, to] = isAway ? [whole.except, aside] : [aside, whole.except];
  for (const id of ids) if (from.delete(id)) to.add(id);
}

/** List all of the answer that another one follows by their numbers, if they are not too many. */
function list() {
  const { query, except } = whole;
  const count = size();
  whole = null;
  if (count > MOST) {
    emit("toast", { text: t("selection.dropped", { count: format.number(count) }) });
    return Promise.resolve();
  }
  const mine = (coming = { count });
  mine.done = api
    .measure({ query, except: [...except] })
    .catch((error) => {
      if (error.status !== 404) complain(error); // that finds nothing any more
      return { ids: [] };
    })
    .then(({ ids }) => {
      if (coming !== mine) return; // cleared
      coming = null;
      for (const id of ids) put({ image_id: id }, true);
      changed();
    });
  return mine.done;
}

const say = (text) => emit("toast", { text });
const complain = (error) => emit("toast", { text: error.message, kind: "error" });

const changed = () => emit("select");
