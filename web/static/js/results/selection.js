/** Selected pictures, which may come from several searches, and what can be done with them. */

import { copyText } from "../page/clipboard.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const LONG_PRESS = 450; // milliseconds: before the system's own, which may drag the link
const STILL = 10; // CSS pixels that a pressing finger may move
const LONGEST_RANGE = 10_000; // pictures

const selected = new Map(); // image id -> path, in the order of selecting
let anchor = -1; // the index at which a range begins
let bar;
let press = null; // a finger on a tile: where it came down, and the timer of a long press
let wasLong = false; // the latest press was long, and has selected a picture

export function start() {
  bar = document.getElementById("selection");
  document.addEventListener("click", clicked, true); // before the grid opens what was clicked
  for (const kind of ["down", "move", "up", "cancel"]) {
    document.addEventListener(`pointer${kind}`, pressing[kind], { passive: true });
  }
  document.addEventListener("contextmenu", (event) => press && event.preventDefault());
  bar.addEventListener("click", acted);
  on("hits", () => (anchor = -1)); // it was an index into another list
  on("changed", () => (anchor = -1));
  on("tile", dress);
}

export const has = (id) => selected.has(id);
export const size = () => selected.size;
export const ids = () => [...selected.keys()];

/** Select a hit, or deselect it; the next range begins at its `index`. */
export function toggle(hit, index) {
  if (selected.has(hit.image_id)) selected.delete(hit.image_id);
  else selected.set(hit.image_id, hit.path);
  if (index >= 0) anchor = index;
  changed();
}

/** Select everything from the hit that was toggled last to the one at `index`. */
export async function extend(index) {
  if (anchor < 0) anchor = index;
  const first = Math.max(Math.min(anchor, index), index - LONGEST_RANGE);
  const last = Math.min(Math.max(anchor, index), index + LONGEST_RANGE);
  for (let place = first; place <= last; place += 1) {
    const hit = grid.hitAt(place) ?? (await grid.load(place));
    if (hit) selected.set(hit.image_id, hit.path);
  }
  changed();
}

/** Select all hits that are loaded. */
export function all() {
  for (let index = 0; index < grid.count(); index += 1) {
    const { image_id: id, path } = grid.hitAt(index);
    selected.set(id, path);
  }
  changed();
}

export function clear() {
  if (!selected.size) return;
  selected.clear();
  anchor = -1;
  changed();
}

/** Show on a tile whether its picture is selected. */
function dress(tile) {
  const isSelected = selected.has(Number(tile.dataset.imageId));
  tile.classList.toggle("is-selected", isSelected);
  tile.querySelector(".tile-check")?.setAttribute("aria-checked", String(isSelected));
}

function changed() {
  for (const tile of document.querySelectorAll(".tile")) dress(tile);
  document.body.classList.toggle("has-selection", selected.size > 0);
  bar.hidden = selected.size === 0;
  bar.querySelector("[data-part=count]").textContent = t("selection.count", {
    count: format.number(selected.size),
  });
  emit("select", { ids: ids() });
}

/** A click on the checkmark selects one picture, Shift and a click anywhere on it a range. */
function clicked(event) {
  const tile = event.target.closest(".tile");
  const onCheck = event.target.closest(".tile-check");
  if (!tile || !(onCheck || event.shiftKey || wasLong)) return;
  event.preventDefault();
  event.stopPropagation();
  if (wasLong) wasLong = false; // the finger was lifted
  else if (event.shiftKey) extend(Number(tile.dataset.index));
  else toggleTile(tile);
}

function toggleTile({ dataset }) {
  const index = Number(dataset.index);
  toggle({ image_id: Number(dataset.imageId), path: grid.hitAt(index)?.path }, index);
}

/** A finger that rests on a picture selects it; lifting the finger is not a click then. */
const pressing = {
  down: ({ target, pointerType, clientX: x, clientY: y }) => {
    pressing.cancel();
    wasLong = false;
    const tile = pointerType === "touch" && target.closest(".tile");
    if (tile) press = { x, y, timer: setTimeout(() => pressedLong(tile), LONG_PRESS) };
  },
  move: ({ clientX, clientY }) => {
    if (press && Math.hypot(clientX - press.x, clientY - press.y) > STILL) pressing.cancel();
  },
  up: () => pressing.cancel(),
  cancel: () => {
    clearTimeout(press?.timer);
    press = null;
  },
};

function pressedLong(tile) {
  wasLong = true;
  toggleTile(tile);
}

const actions = {
  "copy-paths": copyPaths,
  zip: () => download("zip"),
  csv: () => download("csv"),
  json: () => download("json"),
  clear: () => clear(),
};

function acted(event) {
  actions[event.target.closest("[data-action]")?.dataset.action]?.();
}

async function copyPaths() {
  const count = format.number(selected.size);
  try {
    await copyText([...selected.values()].join("\n"));
    emit("toast", { text: t("selection.copied", { count }) });
  } catch {
    emit("toast", { text: t("copy.refused"), kind: "error" });
  }
}

/** A form, because its download goes straight to disk; a script would hold it in memory first. */
function download(kind) {
  const form = bar.querySelector("form");
  form.elements.ids.value = ids().join(",");
  form.elements.format.value = kind;
  form.submit();
  bar.querySelector("details")?.removeAttribute("open");
  emit("toast", { text: t("selection.download", { count: format.number(selected.size) }) });
}
