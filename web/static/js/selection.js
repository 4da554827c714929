/** Chosen pictures, gathered over as many searches as one likes, and what can be done with them. */

import { copyText } from "./clipboard.js";
import * as format from "./format.js";
import * as grid from "./grid.js";
import { t } from "./i18n.js";
import { emit, on } from "./store.js";

const LONG_PRESS = 450; // milliseconds: before the system's own, which may drag the link
const STILL = 10; // CSS pixels that a pressing finger may move
const LONGEST_RANGE = 10_000; // pictures

const chosen = new Map(); // image id -> path, in the order of choosing
let anchor = -1; // the index that a range begins at
let bar;
let press = null; // a finger on a tile: where it came down, and the timer of a long press
let wasLong = false; // the latest one was, and has chosen

export function start() {
  bar = document.getElementById("selection");
  document.addEventListener("click", clicked, true); // before the grid opens what was clicked
  for (const kind of ["down", "move", "up", "cancel"]) {
    document.addEventListener(`pointer${kind}`, pressing[kind], { passive: true });
  }
  document.addEventListener("contextmenu", (event) => press && event.preventDefault());
  bar.addEventListener("click", acted);
  on("hits", () => (anchor = -1)); // its index was one of another list
}

export const has = (id) => chosen.has(id);
export const size = () => chosen.size;
export const ids = () => [...chosen.keys()];

/** Choose a hit or let it go; later ranges begin at its `index`. */
export function toggle(hit, index) {
  if (chosen.has(hit.image_id)) chosen.delete(hit.image_id);
  else chosen.set(hit.image_id, hit.path);
  if (index >= 0) anchor = index;
  changed();
}

/** Choose all from the last one that was chosen to the one at `index`. */
export async function extend(index) {
  if (anchor < 0) anchor = index;
  const first = Math.max(Math.min(anchor, index), index - LONGEST_RANGE);
  const last = Math.min(Math.max(anchor, index), index + LONGEST_RANGE);
  for (let place = first; place <= last; place += 1) {
    const hit = grid.hitAt(place) ?? (await grid.load(place));
    if (hit) chosen.set(hit.image_id, hit.path);
  }
  changed();
}

/** Choose all hits that are loaded. */
export function all() {
  for (let index = 0; index < grid.count(); index += 1) {
    const { image_id: id, path } = grid.hitAt(index);
    chosen.set(id, path);
  }
  changed();
}

export function clear() {
  if (!chosen.size) return;
  chosen.clear();
  anchor = -1;
  changed();
}

/** Make a tile look as chosen as its picture is. */
export function dress(tile) {
  const isChosen = chosen.has(Number(tile.dataset.imageId));
  tile.classList.toggle("is-selected", isChosen);
  tile.querySelector(".tile-check")?.setAttribute("aria-checked", String(isChosen));
}

function changed() {
  for (const tile of document.querySelectorAll(".tile")) dress(tile);
  document.body.classList.toggle("has-selection", chosen.size > 0);
  bar.hidden = chosen.size === 0;
  bar.querySelector("[data-part=count]").textContent = t("selection.count", {
    count: format.number(chosen.size),
  });
  emit("select", { ids: ids() });
}

/** The checkmark chooses one; a click with Shift, anywhere on a picture, all up to it. */
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

/** A finger that rests on a picture chooses it; what it does when it is lifted is no click. */
const pressing = {
  down: ({ target, pointerType, clientX: x, clientY: y }) => {
    pressing.cancel();
    wasLong = false;
    const tile = pointerType === "touch" && target.closest(".tile");
    if (tile) press = { x, y, timer: setTimeout(() => held(tile), LONG_PRESS) };
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

function held(tile) {
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
  const count = format.number(chosen.size);
  try {
    await copyText([...chosen.values()].join("\n"));
    emit("toast", { text: t("selection.copied", { count }) });
  } catch {
    emit("toast", { text: t("copy.refused"), kind: "error" });
  }
}

/** A form's answer goes to the disk as it comes; a script's would fill the memory first. */
function download(kind) {
  const form = bar.querySelector("form");
  form.elements.ids.value = ids().join(",");
  form.elements.format.value = kind;
  form.submit();
  bar.querySelector("details")?.removeAttribute("open");
  emit("toast", { text: t("selection.download", { count: format.number(chosen.size) }) });
}
