/** Menus for filters. They edit the text of the query, as typing does. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { isTerm, items, quoted, withFilters } from "./querytext.js";
import { on } from "../page/store.js";

const ISO_DAY = /^\d{4}-\d{2}-\d{2}$/;

let form;
let toggle; // shows the form on narrow screens
let current = ""; // the text of the query
let hasPictures = false; // among what is searched for
let change;

/** `onText(text)` is called with a query whose filters were changed here. */
export function start(onText) {
  form = document.getElementById("filters");
  change = onText;
  form.addEventListener("change", (event) => changed(event.target.name));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change(withFilters(current, Object.keys(kinds).flatMap((name) => kinds[name]), []));
  });
  toggle = document.getElementById("show-filters");
  toggle.addEventListener("click", () => {
    const isOpen = form.classList.toggle("is-open");
    toggle.setAttribute("aria-expanded", String(isOpen));
  });
  on("library", fill);
  fill();
}

const kinds = {
  folder: ["in"],
  from: ["before"],
  to: ["after"],
  camera: ["camera"],
  format: ["format"],
  shape: ["is"],
  sort: ["sort"],
};

/** From one day to another, inclusive: not before the one and not after the other. */
const filterOf = {
  folder: (value) => `in:${quoted(value)}`,
  from: (value) => `-before:${value}`,
  to: (value) => `-after:${value}`,
  camera: (value) => `camera:${quoted(value)}`,
  format: (value) => `format:${quoted(value.toLowerCase())}`,
  shape: (value) => `is:${value}`,
  sort: (value) => `sort:${value}`,
};

/** Whether a filter is one of the menu's shapes: `is:` also selects favourites and hidden ones. */
const isShape = ({ key, value }) =>
  key === "is" && !["favourite", "favorite", "hidden"].includes(value.toLowerCase());

function changed(name) {
  const { value } = form.elements[name];
  const others = name === "shape" ? items(current).filter((item) => item.key === "is" && !isShape(item)) : [];
  const added = value ? [filterOf[name](value)] : [];
  change(withFilters(current, kinds[name], [...others.map((item) => item.text), ...added]));
}

/** Show the query's filters in the menus, as far as they can. */
export function show(text, withPictures) {
  current = text;
  hasPictures = withPictures;
  const found = items(text);
  const value = (key, sign = "") =>
    found.find((item) => item.key === key && item.sign === sign)?.value ?? "";
  choose("folder", value("in"));
  choose("camera", value("camera"));
  choose("format", value("format"));
  const shape = found.find((item) => isShape(item) && !item.sign);
  choose("shape", shape?.value.toLowerCase() ?? "");
  choose("sort", value("sort").toLowerCase().replace("score", ""));
  for (const [name, key] of [["from", "before"], ["to", "after"]]) {
    const day = value(key, "-");
    form.elements[name].value = ISO_DAY.test(day) ? day : "";
  }
  showUsualOrder(hasPictures || found.some(isTerm));
  const active = found.filter((item) => Object.values(kinds).flat().includes(item.key)).length;
  form.querySelector("[type=reset]").hidden = !active;
  toggle.querySelector("[data-part=count]").textContent = active ? `(${format.number(active)})` : "";
}

/** Without a term the newest come first anyway, which needs no option of its own. */
function showUsualOrder(hasMatch) {
  const [usual, newest] = form.elements.sort.options;
  usual.text = t(hasMatch ? "filter.by_match" : "filter.by_date");
  newest.hidden = !hasMatch && !newest.selected;
}

/** Select an option; add it if the menu lacks a typed value. */
function choose(name, value) {
  const menu = form.elements[name];
  const known = [...menu.options].find((option) => alike(option.value) === alike(value));
  if (!known) menu.append(element("option", { value }, printable(value)));
  if (value) menu.hidden = false;
  menu.value = known ? known.value : value;
}

/** The server's comparison: a whole path in any Unicode form, other values in any case too. */
function alike(value) {
  const composed = value.normalize();
  return composed.startsWith("/") ? composed.replace(/(?<=.)\/+$/, "") : composed.toLowerCase();
}

async function fill() {
  const facets = await api.facets().catch(() => null);
  if (!facets) return; // keep the menus as they are
  options("folder", facets.folders.map(({ path, name, count }) => [path, name, count]));
  options("camera", facets.cameras.map(({ name, count }) => [name, name, count]));
  options("format", facets.formats.map(({ name, count }) => [name, name, count]));
  for (const name of ["from", "to"]) {
    if (facets.first) form.elements[name].min = facets.first.slice(0, 10);
    if (facets.last) form.elements[name].max = facets.last.slice(0, 10);
  }
  show(current, hasPictures);
}

function options(name, entries) {
  const menu = form.elements[name];
  const made = entries.map(([value, label, count]) =>
    element("option", { value }, `${printable(label)} (${format.number(count)})`),
  );
  menu.replaceChildren(menu.options[0], ...made);
  menu.hidden = made.length === 0;
}
