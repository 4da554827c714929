/** The menu of folders: a tree, level by level, and a field that finds folders by name. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import * as meaning from "./meaning.js";

const PAUSE = 120; // milliseconds without a keystroke before folders are looked for
const FOUND = 100; // most folders found by name

let menu; // the button and the popup
let button;
let popup;
let field;
let tree;
let note; // what the tree leaves out
let choose; // called with a path, or "" for any folder
let current = null; // the item of the query's folder
let pause = 0;
let asked = 0; // the number of the newest request, to ignore answers to older ones

export function start(onPath) {
  menu = document.getElementById("folder-menu");
  button = menu.querySelector("button");
  popup = document.getElementById("folder-popup");
  field = popup.querySelector("input");
  tree = popup.querySelector("[role=tree]");
  note = popup.querySelector("[role=status]");
  choose = onPath;
  button.addEventListener("click", () => (popup.hidden ? open() : close()));
  field.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(fill, PAUSE);
  });
  popup.addEventListener("keydown", pressed);
  tree.addEventListener("click", clicked);
  document.addEventListener("pointerdown", ({ target }) => !menu.contains(target) && close());
  menu.addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !menu.contains(relatedTarget)) close();
  });
}

/** Whether there are folders to choose from. */
export function offer(isAny) {
  menu.hidden = !isAny && !current;
}

/** Show the folder that the query asks for: an item with the key `in`, or null. */
export function show(item) {
  current = item;
  const label = button.querySelector("[data-part=folder-name]");
  label.textContent = item ? meaning.subject(item) : t("filter.any_folder");
  button.title = item ? printable(item.value) : "";
  button.classList.toggle("is-set", Boolean(item));
  if (item) menu.hidden = false;
}

function open() {
  popup.hidden = false;
  button.setAttribute("aria-expanded", "true");
  field.value = "";
  tree.replaceChildren();
  fill();
  field.focus();
}

function close() {
  if (popup.hidden) return;
  const hadFocus = popup.contains(document.activeElement);
  popup.hidden = true;
  button.setAttribute("aria-expanded", "false");
  if (hadFocus) button.focus();
}

// The tree

/** Show the folders that the field names, or all, opened down to the chosen one. */
async function fill() {
  const mine = (asked += 1);
  const q = field.value.trim();
  const found = await api.folders(q ? { q } : {}, q ? { limit: FOUND } : {}).catch(failed);
  if (mine !== asked || !found) return;
  const any = q || !current ? [] : [node({ path: "", label: t("filter.any_folder"), folders: 0 }, 1)];
  tree.replaceChildren(...any, ...found.folders.map((folder) => node(folder, 1, Boolean(q))));
  const nothing = q && !found.folders.length;
  note.textContent = nothing ? t("folders.none") : leftOut(found.left_out);
  settle(nodes()[0]);
  if (q) return;
  if (current?.value.startsWith("/")) await reveal(current.value, mine);
  else if (found.folders.length === 1 && found.folders[0].folders) await expand(nodes().at(-1));
}

const leftOut = (count) => (count ? t("folders.more", { count: format.number(count) }) : "");

function failed(error) {
  note.textContent = error.message;
  return null;
}

/** Open the tree down to a folder. */
async function reveal(path, mine) {
  const isOn = (item) => isWithin(path, item.dataset.path);
  for (let level = tree; level; ) {
    const item = [...level.children].find(isOn);
    if (!item) return;
    settle(item);
    item.scrollIntoView({ block: "nearest" });
    if (alike(item.dataset.path) === alike(path) || !item.hasAttribute("aria-expanded")) return;
    await expand(item);
    if (mine !== asked) return;
    level = item.querySelector("[role=group]");
  }
}

/** The server's comparison of whole paths. */
const alike = (path) => path.normalize().replace(/(?<=.)\/+$/, "");
const isWithin = (path, folder) => folder && `${alike(path)}/`.startsWith(`${alike(folder).replace(/\/$/, "")}/`);

function node({ path, name = "", label, count, folders }, level, isFound = false) {
  const isChosen = current ? path !== "" && alike(path) === alike(current.value) : path === "";
  const above = isFound ? name.slice(0, -label.length).replace(/\/$/, "") : "";
  const pictures = count === undefined ? "" : format.number(count);
  const said = [label, above, count === undefined ? "" : t("library.images", { count: pictures })];
  return element(
    "li",
    {
      role: "treeitem",
      tabIndex: -1,
      dataset: { path },
      "aria-level": level,
      "aria-selected": String(isChosen),
      "aria-expanded": folders && !isFound ? "false" : null,
      "aria-label": said.filter(Boolean).map(printable).join(", "),
    },
    element(
      "div",
      { class: "folder-row" },
      element("span", { class: "folder-twisty", "aria-hidden": "true" }),
      element(
        "span",
        { class: "folder-label" },
        element("bdi", {}, printable(label)),
        above ? element("bdi", { class: "folder-above" }, printable(above)) : null,
      ),
      element("span", { class: "folder-count" }, pictures),
    ),
  );
}

async function expand(item) {
  if (!item.querySelector("[role=group]")) {
    const level = Number(item.getAttribute("aria-level")) + 1;
    const found = await api.folders({ parent: item.dataset.path }).catch(failed);
    if (!found || item.querySelector("[role=group]")) return;
    const rest = leftOut(found.left_out);
    item.append(
      element(
        "ul",
        { role: "group" },
        ...found.folders.map((folder) => node(folder, level)),
        rest ? element("li", { class: "folder-rest", role: "none" }, rest) : null,
      ),
    );
  }
  item.setAttribute("aria-expanded", "true");
}

const collapse = (item) => item.setAttribute("aria-expanded", "false");
const isExpanded = (item) => item.getAttribute("aria-expanded") === "true";

/** The items that can be seen, from top to bottom. */
const nodes = () =>
  [...tree.querySelectorAll("[role=treeitem]")].filter(
    (item) => !item.parentElement.closest("[role=treeitem][aria-expanded=false]"),
  );

/** Make an item the one that Tab reaches. */
function settle(item) {
  for (const other of tree.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
  if (item) item.tabIndex = 0;
}

function focus(item) {
  if (!item) return;
  settle(item);
  item.focus();
}

function take(item) {
  if (!item) return;
  const { path } = item.dataset;
  const isChosen = item.getAttribute("aria-selected") === "true";
  close();
  choose(isChosen ? "" : path); // a second time takes it away
}

function clicked({ target }) {
  const item = target.closest("[role=treeitem]");
  if (!item || !target.closest(".folder-row")) return;
  if (!target.closest(".folder-twisty") || !item.hasAttribute("aria-expanded")) return take(item);
  settle(item);
  if (isExpanded(item)) collapse(item);
  else expand(item);
}

function pressed(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.stopPropagation(); // the page has keys of its own
  const item = event.target.closest("[role=treeitem]");
  const act = event.key === "Escape" ? close : item ? onItem(event, item) : inField(event);
  if (!act) return;
  event.preventDefault();
  act();
}

function inField({ key }) {
  const first = tree.querySelector("[tabindex='0']") ?? nodes()[0];
  if (key === "ArrowDown") return () => focus(first);
  if (key === "Enter") return () => field.value.trim() && take(first);
  return null;
}

/** What a key does on an item of the tree, as in the ARIA Authoring Practices' tree view. */
function onItem({ key }, item) {
  const seen = nodes();
  const place = seen.indexOf(item);
  const actions = {
    ArrowDown: () => focus(seen[place + 1]),
    ArrowUp: () => (place ? focus(seen[place - 1]) : field.focus()),
    Home: () => focus(seen[0]),
    End: () => focus(seen.at(-1)),
    ArrowRight: () => {
      if (isExpanded(item)) focus(item.querySelector("[role=treeitem]"));
      else if (item.hasAttribute("aria-expanded")) expand(item);
    },
    ArrowLeft: () => {
      if (isExpanded(item)) collapse(item);
      else focus(item.parentElement.closest("[role=treeitem]"));
    },
    Enter: () => take(item),
    " ": () => take(item),
  };
  if (key in actions) return actions[key];
  return key.length === 1 ? () => typed(key) : null;
}

/** A letter goes on in the field. */
function typed(letter) {
  field.value += letter;
  field.focus();
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
