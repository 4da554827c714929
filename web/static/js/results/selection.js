/** Selecting pictures by pointer and finger, and the bar of what can be done with them. */

import * as chosen from "./chosen.js";
import * as format from "../page/format.js";
import * as grid from "./grid.js";
import { t } from "../page/i18n.js";
import { on } from "../page/store.js";

export { all, choice, clear, extend, has, reach, size, toggle } from "./chosen.js";

const LONG_PRESS = 450; // milliseconds: before the system's own, which may drag the link
const STILL = 10; // CSS pixels that a pressing finger may move

let bar;
let said; // the element by which screen readers hear how many are selected
let menu; // of further actions, where there is no room for them in the bar
let press = null; // a finger on a tile: where it came down, and the timer of a long press
let wasLong = false; // the latest press was long, and has selected a picture
let isTouch = false; // a finger, not a mouse, pressed last

export function start() {
  bar = document.getElementById("selection");
  said = document.getElementById("selection-said");
  menu = bar.querySelector("[data-part=menu]");
  document.addEventListener("click", clicked, true); // before the grid opens what was clicked
  for (const kind of ["down", "move", "up", "cancel"]) {
    document.addEventListener(`pointer${kind}`, pressing[kind], { passive: true });
  }
  document.addEventListener("contextmenu", (event) => press && event.preventDefault());
  document.addEventListener("click", ({ target }) => {
    if (!target.closest("#selection [data-action=more]")) showMenu(false);
  });
  bar.addEventListener("click", acted);
  bar.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isMenuOpen()) return;
    event.preventDefault(); // it closes the menu only
    showMenu(false);
    part("more").focus();
  });
  new ResizeObserver(([{ target }]) => {
    // The last row and messages stay clear of the bar.
    document.documentElement.style.setProperty("--selection-height", `${target.offsetHeight}px`);
  }).observe(bar);
  chosen.start();
  on("tile", dress);
  on("select", changed);
  on("hits", showOffers);
  on("changed", showOffers);
}

const part = (name) => bar.querySelector(`[data-action=${name}]`);

/** Show on a tile whether its picture is selected. */
function dress(tile) {
  const isSelected = chosen.has(Number(tile.dataset.imageId));
  tile.classList.toggle("is-selected", isSelected);
  tile.querySelector(".tile-check")?.setAttribute("aria-checked", String(isSelected));
}

function changed() {
  const count = chosen.size();
  const text = t("selection.count", { count: format.number(count) });
  const wasShown = !bar.hidden;
  for (const tile of document.querySelectorAll(".tile")) dress(tile);
  document.body.classList.toggle("has-selection", count > 0);
  bar.hidden = count === 0;
  bar.querySelector("[data-part=count]").textContent = text;
  if (count || wasShown) said.textContent = text;
  if (count && !wasShown && document.activeElement.matches(".tile :focus-visible")) {
    grid.focusIndex(grid.focusedIndex()); // not below the bar
  }
  if (bar.hidden) showMenu(false);
  showOffers();
}

/** Offer to select all and all likely ones, where that is not what is selected. */
function showOffers() {
  const { total, likely } = chosen.offered();
  const count = chosen.size();
  offer("all", "selection.all", total, count !== total);
  offer("likely", "selection.likely", likely, likely > 0 && likely < total && count !== likely);
}

function offer(name, key, count, isOffered) {
  const button = part(name);
  const hadFocus = button === document.activeElement;
  button.hidden = !isOffered;
  button.querySelector("span").textContent = t(key, { count: format.number(count ?? 0) });
  if (hadFocus && !isOffered) part("clear").focus();
}

/** A click on the checkmark selects one picture, Shift and a click anywhere on it a range. */
function clicked(event) {
  const tile = event.target.closest(".tile");
  const onCheck = event.target.closest(".tile-check");
  const isTap = isTouch && event.detail > 0 && chosen.size() > 0; // once one is chosen
  if (!tile || !(onCheck || event.shiftKey || wasLong || isTap)) return;
  event.preventDefault();
  event.stopPropagation();
  if (wasLong) wasLong = false; // the finger was lifted
  else if (event.shiftKey) chosen.extend(Number(tile.dataset.index));
  else toggleTile(tile);
}

function toggleTile({ dataset }) {
  const index = Number(dataset.index);
  chosen.toggle({ image_id: Number(dataset.imageId), path: grid.hitAt(index)?.path }, index);
}

/** A finger that rests on a picture selects it; lifting the finger is not a click then. */
const pressing = {
  down: ({ target, pointerType, clientX: x, clientY: y }) => {
    pressing.cancel();
    wasLong = false;
    isTouch = pointerType === "touch";
    const tile = isTouch && target.closest(".tile");
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
  all: chosen.all,
  likely: chosen.likely,
  clear: chosen.clear,
  more: () => showMenu(!isMenuOpen()),
};

function acted(event) {
  actions[event.target.closest("[data-action]")?.dataset.action]?.();
}

const isMenuOpen = () => menu.classList.contains("is-open");

function showMenu(isOpen) {
  menu.classList.toggle("is-open", isOpen);
  part("more").setAttribute("aria-expanded", String(isOpen));
}
