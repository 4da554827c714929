/** Favourites and hidden pictures: hearts on tiles, and what marks one picture or many. */

import * as api from "../page/api.js";
import { isReadOnly, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import * as own from "../page/own.js";
import * as selection from "./selection.js";
import { setAside } from "./chosen.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const PART = 10_000; // pictures in one request

let template; // of a heart
let said; // the element by which screen readers hear of a heart

export function start() {
  template = document.getElementById("tile-heart").content.firstElementChild;
  said = document.getElementById("marks-said");
  document.getElementById("grid").addEventListener("click", ({ target }) => {
    const tile = target.closest(".tile-heart")?.closest(".tile");
    if (tile) favourite([Number(tile.dataset.imageId)], !grid.hitAt(Number(tile.dataset.index)).favourite);
  });
  document.getElementById("selection").addEventListener("click", ({ target }) => {
    const { action } = target.closest("[data-action]")?.dataset ?? {};
    if (action === "favourite") favouriteSelected();
    if (action === "hide") hideSelected();
  });
  on("tile", dress);
  on("hits", dressAll);
}

/** Show on a tile whether its picture is a favourite. */
function dress(tile) {
  const hit = grid.hitAt(Number(tile.dataset.index));
  if (!hit) return;
  let heart = tile.querySelector(".tile-heart");
  if (!heart) {
    heart = template.cloneNode(true);
    heart.disabled = isReadOnly();
    tile.append(heart);
  }
  heart.setAttribute("aria-pressed", String(hit.favourite));
  heart.setAttribute("aria-label", t("hits.favourite", { name: printable(hit.name) }));
}

function dressAll() {
  for (const tile of document.querySelectorAll("#grid .tile")) dress(tile);
}

/** What the keys f and h do on the picture at an index: to all that are selected, if it is. */
export function pressed(key, index) {
  const hit = grid.hitAt(index);
  const isAll = !hit || selection.has(hit.image_id);
  if (key === "f") isAll ? favouriteSelected() : favourite([hit.image_id], !hit.favourite);
  else isAll ? hideSelected() : hide([hit.image_id], !hit.hidden);
}

/** Mark favourites, at once on the page; take it back if the server refuses. */
export async function favourite(ids, on) {
  if (isReadOnly()) return refuse();
  put(ids, "favourite", on);
  said.textContent = t(on ? "marks.favourite" : "marks.no_favourite");
  try {
    await send({ ids }, { favourite: on });
  } catch (error) {
    put(ids, "favourite", !on);
    complain(error);
  }
}

/** Make all that are selected favourites; if they are already, make them none. */
async function favouriteSelected() {
  if (!selection.size()) return;
  if (isReadOnly()) return refuse();
  try {
    const { changed, on } = await turn(await selection.choice(), "favourite");
    put(changed, "favourite", on);
    tell(on ? "marks.favourites" : "marks.no_favourites", changed.length, async () => {
      await send({ ids: changed }, { favourite: !on });
      put(changed, "favourite", !on);
    });
  } catch (error) {
    complain(error);
  }
}

/** Hide all that are selected; if they are hidden already, show them again. */
async function hideSelected() {
  if (!selection.size()) return;
  if (isReadOnly()) return refuse();
  try {
    const { changed, on } = await turn(await selection.choice(), "hidden");
    selection.clear();
    left(changed, on);
  } catch (error) {
    complain(error);
  }
}

/** Hide pictures or show them again. */
export async function hide(ids, on) {
  if (isReadOnly()) return refuse();
  try {
    left(await send({ ids }, { hidden: on }), on);
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

/** Take pictures that were hidden, or are shown again, out of the present answer. */
function left(changed, on) {
  setAside(changed, true);
  const gone = drop(new Set(changed));
  if (!gone) emit("again");
  tell(on ? "marks.hidden" : "marks.shown", changed.length, async () => {
    await send({ ids: changed }, { hidden: !on });
    setAside(changed, false);
    if (!gone || !grid.putBack(gone)) emit("again");
  });
}

/** Take pictures out of the grid, if all of them are loaded. */
function drop(ids) {
  let missing = ids.size;
  for (let index = 0; index < grid.count(); index += 1) {
    if (ids.has(grid.hitAt(index)?.image_id)) missing -= 1;
  }
  return missing ? null : grid.drop(ids);
}

/** Mark all of a choice; if that changes nothing, take the mark away. Return what was changed. */
async function turn(choice, mark) {
  let changed = await send(choice, { [mark]: true });
  const on = changed.length > 0;
  if (!on) changed = await send(choice, { [mark]: false });
  return { changed, on };
}

/** Send marks for a choice of pictures; return the ids for which that was a change. */
async function send(choice, marks) {
  const changed = [];
  for (const part of parts(choice)) {
    const done = await api.mark(part, marks);
    for (const id of done.changed) changed.push(id); // too many for arguments
    own.note(done);
  }
  emit("own-change");
  return changed;
}

/** A choice in parts that the server takes in one request. */
function parts(choice) {
  if (!choice.ids) return [choice];
  const count = Math.ceil(choice.ids.length / PART);
  return Array.from({ length: count }, (_, number) => ({
    ids: choice.ids.slice(number * PART, (number + 1) * PART),
  }));
}

/** Show a mark on the page. */
function put(ids, mark, on) {
  const among = new Set(ids);
  for (let index = 0; index < grid.count(); index += 1) {
    const hit = grid.hitAt(index);
    if (hit && among.has(hit.image_id)) hit[mark] = on;
  }
  dressAll();
  emit("marked", { ids: among, mark, on });
}

function tell(key, count, undo) {
  const run = () => undo().catch(complain);
  const text = t(key, { count: format.number(count) });
  emit("toast", { text, action: { text: t("marks.undo"), run } });
}

const complain = (error) => emit("toast", { text: error.message, kind: "error" });

function refuse() {
  emit("toast", { text: t("marks.read_only"), kind: "error" });
  return false;
}
