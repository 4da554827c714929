/** Menus for filters. They edit the query's filters, and show those it has, however it came by them. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as folders from "./folders.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import * as meaning from "./meaning.js";
import { isFilter, isTerm, items, joined, quoted } from "./querytext.js";
import { on } from "../page/store.js";

let form;
let clear;
let toggle; // shows the form on narrow screens
let current = ""; // the text of the query
let hasPictures = false; // among what is searched for
let change;

/** `onText(text)` is called with a query whose filters were changed here. */
export function start(onText) {
  form = document.getElementById("filters");
  clear = form.querySelector("[type=reset]");
  change = onText;
  form.addEventListener("change", (event) => changed(event.target.name));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    document.querySelector("input[name=q]").focus(); // the button is about to go
    change(joined(items(current).filter((item) => !isFilter(item) && item.key !== "sort")));
  });
  toggle = document.getElementById("show-filters");
  toggle.addEventListener("click", () => {
    const isOpen = form.classList.toggle("is-open");
    toggle.setAttribute("aria-expanded", String(isOpen));
  });
  folders.start((path) => put(isFolder, path && `in:${quoted(path)}`));
  on("library", fill);
  fill();
}

const isFolder = ({ key, sign }) => key === "in" && !sign;

/** Whether a filter is one of the menu's shapes: `is:` also selects favourites and hidden ones. */
const isShape = ({ key, value, sign }) =>
  key === "is" && !sign && !["favourite", "favorite", "hidden"].includes(value.toLowerCase());

/** Which items a menu shows and replaces, and what it writes. */
const menus = {
  camera: [({ key, sign }) => key === "camera" && !sign, (value) => `camera:${quoted(value)}`],
  format: [({ key, sign }) => key === "format" && !sign, (value) => `format:${quoted(value.toLowerCase())}`],
  shape: [isShape, (value) => `is:${value}`],
  sort: [({ key }) => key === "sort", (value) => `sort:${value}`],
};

function changed(name) {
  if (name in menus) {
    const [isShown, text] = menus[name];
    const { value } = form.elements[name];
    put(isShown, value && text(value));
  } else if (name === "from" || name === "to") {
    dated(name);
  }
}

/** Replace the items that a menu shows by `text`, "" for none. */
function put(isShown, text) {
  const kept = items(current).filter((item) => !isShown(item));
  change([...kept.map((item) => item.text), text].filter(Boolean).join(" "));
}

/** From one day to another, inclusive: not before the one and not after the other. */
const limits = {
  from: { end: "first", written: (day) => `-before:${day}` },
  to: { end: "last", written: (day) => `-after:${day}` },
};

/** Change one limit. What also sets the other one, as `on:2019` does, is written as two. */
function dated(name) {
  const other = name === "from" ? "to" : "from";
  const kept = items(current).filter((item) => !meaning.bounds(item)[limits[name].end]);
  const gone = items(current).filter((item) => !kept.some(({ at }) => at === item.at));
  const days = { [name]: form.elements[name].value };
  if (gone.some((item) => meaning.bounds(item)[limits[other].end])) days[other] = form.elements[other].value;
  const added = Object.entries(days).map(([limit, day]) => day && limits[limit].written(day));
  change([...kept.map((item) => item.text), ...added].filter(Boolean).join(" "));
}

/** Show the query's filters in the menus, as far as they can. */
export function show(text, withPictures) {
  current = text;
  hasPictures = withPictures;
  const found = items(text);
  for (const [name, [isShown]] of Object.entries(menus)) {
    const item = found.find(isShown);
    const value = item ? (name === "format" ? meaning.subject(item) : item.value) : "";
    choose(name, ["shape", "sort"].includes(name) ? value.toLowerCase().replace("score", "") : value);
  }
  folders.show(found.find(isFolder) ?? null);
  const bounds = found.map(meaning.bounds);
  form.elements.from.value = bounds.map(({ first }) => first ?? "").sort().pop() ?? "";
  form.elements.to.value = bounds.map(({ last }) => last ?? "").filter(Boolean).sort()[0] ?? "";
  showUsualOrder(hasPictures || found.some(isTerm));
  const active = found.filter((item) => isFilter(item) || item.key === "sort").length;
  clear.disabled = !active;
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
  for (const added of menu.querySelectorAll("[data-typed]")) added.remove();
  const known = [...menu.options].find((option) => alike(option.value) === alike(value));
  if (!known) menu.append(element("option", { value, dataset: { typed: "" } }, printable(value)));
  if (value) menu.hidden = false;
  menu.value = known ? known.value : value;
}

/** The server's comparison: in any Unicode form, in any case. */
const alike = (value) => value.normalize().toLowerCase();

async function fill() {
  const facets = await api.facets().catch(() => null);
  if (!facets) return; // keep the menus as they are
  folders.offer(facets.folders.length > 0);
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
