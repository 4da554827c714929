/** Keyboard shortcuts of the page; open dialogs handle their own. */

import * as days from "./results/days.js";
import * as grid from "./results/grid.js";
import * as help from "./help.js";
import * as marks from "./results/marks.js";
import * as selection from "./results/selection.js";
import { emit } from "./page/store.js";
import * as toast from "./page/toast.js";

const LIKES = { m: 1, l: -1 }; // weights

const MARKS = { f: "favourite", h: "hidden" };

const STEPS = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
  Home: "home",
  End: "end",
  PageUp: "pageup",
  PageDown: "pagedown",
};

let box;

export function start() {
  box = document.querySelector("input[name=q]");
  document.addEventListener("keydown", pressed);
}

const typesText = (target) =>
  target.closest("textarea, select, [contenteditable]") ||
  target.closest("input:not([type=checkbox], [type=radio], [type=range], [type=button])");

function pressed(event) {
  if (event.defaultPrevented || event.isComposing || event.altKey) return;
  if (event.ctrlKey || event.metaKey) return withControl(event);
  if (event.key === "?" && !typesText(event.target)) return done(event, help.toggle());
  if (document.querySelector("dialog:modal")) return;
  if (event.target === box) return inBox(event);
  if (typesText(event.target)) return;
  anywhere(event);
}

/** Ctrl+A on a picture, or once some are selected, selects all; Ctrl+Z takes back what a message offers to. */
function withControl(event) {
  const isUndo = event.key.toLowerCase() === "z" && !event.shiftKey && !typesText(event.target);
  if (isUndo && toast.act()) return done(event);
  const isAll = event.key.toLowerCase() === "a" && !event.shiftKey;
  if (!isAll || typesText(event.target) || document.querySelector("dialog:modal")) return;
  if (grid.focusedIndex() < 0 && !selection.size()) return;
  selection.all();
  done(event);
}

const done = (event) => event.preventDefault();

/** Go to the first picture, or to the map. */
function enter() {
  const map = document.querySelector(".map-over");
  if (map) map.focus();
  else grid.focusIndex(0);
}

/** Arrow down in the search box goes to the first picture. */
function inBox(event) {
  if (event.key === "ArrowDown" && grid.count()) {
    enter();
    done(event);
  }
}

function anywhere(event) {
  const index = grid.focusedIndex();
  if (event.key === "/") {
    box.focus();
    box.select();
    return done(event);
  }
  if (event.key === "Escape" && selection.size()) {
    selection.clear();
    return done(event);
  }
  if (event.key in MARKS && (index >= 0 || selection.size())) {
    marks.pressed(event.key, index);
    return done(event);
  }
  if (event.key === "t" && (index >= 0 || selection.size())) {
    const hit = grid.hitAt(index);
    return done(event, emit("teach", { hit: hit && !selection.has(hit.image_id) ? hit : null }));
  }
  if (event.key === "s") return done(event, emit("slideshow", {}));
  if (index >= 0) onTile(event, index);
  else if (event.key === "ArrowDown" && event.target === document.body && grid.count()) {
    enter();
    done(event);
  }
}

function onTile(event, index) {
  const direction = STEPS[event.key];
  if (direction) {
    done(event);
    const from = grid.currentIndex();
    const next = grid.step(from, direction);
    if (event.shiftKey) selection.reach(from, next);
    grid.focusIndex(next);
    return;
  }
  if (event.key in LIKES) {
    done(event);
    grid.searchLike(index, LIKES[event.key]);
  } else if (event.key === "d") {
    done(event);
    days.pressed(index);
  } else if (event.key === "x" || event.key === " ") {
    done(event);
    const hit = grid.hitAt(index);
    if (event.shiftKey) selection.extend(index);
    else if (hit) selection.toggle(hit, index);
  } else if (event.key === "Enter" && event.target.closest(".tile-open")) {
    done(event);
    const hit = grid.hitAt(index);
    if (hit) emit("open", { image_id: hit.image_id, index });
  }
}
