/**
 * Suggestions under the search box: a combobox with a list, by the ARIA Authoring Practices.
 *
 * The server finds them, and says what the query is afterwards; only recent queries are this
 * browser's own. Nothing is chosen beforehand, so that Enter searches for what was typed.
 */

import * as api from "../page/api.js";
import { filters, whole } from "./box.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { knows, t } from "../page/i18n.js";
import * as meaning from "./meaning.js";
import * as recent from "./recent.js";
import { emit, on } from "../page/store.js";

const PAUSE = 90; // milliseconds without a keystroke before the server is asked
const PATIENCE = 400; // milliseconds that the list of a former text stays
const MOST = 6;
const RECENT = 2; // recent queries beside what the server suggests
const RECENT_ALONE = 4; // under an empty box

let box;
let popup;
let list;
let clear;
let said; // tells how many there are, to those who do not see the list
let shown = []; // the suggestions in the list
let active = -1; // which of them
let pause = 0;
let asking = null; // AbortController of the running request
let isStale = false; // the list is of a former text, and nothing of it can be chosen
let late = 0;
let isWorth = false; // the next answer is to a query that is worth remembering

export function start() {
  box = document.querySelector("input[name=q]");
  popup = document.getElementById("suggestions");
  list = popup.querySelector("[role=listbox]");
  clear = popup.querySelector("[data-part=clear]");
  said = document.getElementById("suggestions-said");
  box.addEventListener("input", typed);
  box.addEventListener("compositionend", typed);
  box.addEventListener("keydown", pressed);
  box.addEventListener("click", clicked);
  box.form.addEventListener("submit", submitted);
  box.form.addEventListener("focusout", left);
  popup.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  list.addEventListener("click", chosen);
  clear.addEventListener("click", forget);
  on("hits", answered);
  on("open", () => recent.remember(queryNow()));
}

const isOpen = () => !popup.hidden;
const queryNow = () => new URLSearchParams(location.search).get("q") ?? "";

// When they are asked for

function typed(event) {
  drop();
  if (isOpen()) {
    isStale = true;
    list.setAttribute("aria-busy", "true");
    point(-1);
    late = setTimeout(hide, PATIENCE);
  }
  if (event.isComposing) return; // unfinished: what it becomes is only known at its end
  pause = setTimeout(ask, PAUSE);
}

/** Under an empty box, a click shows what may be wanted; arrows and typing do elsewhere. */
function clicked() {
  if (!isOpen() && !box.value.trim()) ask();
}

function submitted() {
  isWorth = true;
  close();
}

function left(event) {
  const { relatedTarget } = event;
  if (relatedTarget !== box && !popup.contains(relatedTarget)) close();
}

/** Remember a query that somebody meant, once it has found something. */
function answered({ hits }) {
  if (isWorth && hits.length) recent.remember(queryNow());
  isWorth = false;
}

/** Forget what is under way, so that no late answer shows. */
function drop() {
  clearTimeout(pause);
  clearTimeout(late);
  asking?.abort();
  asking = null;
}

async function ask() {
  drop();
  if (isStale) late = setTimeout(hide, PATIENCE);
  const mine = (asking = new AbortController());
  const text = box.value;
  const at = [...text.slice(0, box.selectionStart ?? text.length)].length; // in characters
  const beside = filters().join(" ");
  let found = [];
  try {
    found = await api.suggest(text, { at, beside, signal: mine.signal });
  } catch (error) {
    if (error.name === "AbortError") return; // otherwise the search says what is wrong
  }
  if (mine !== asking || box.value !== text || document.activeElement !== box) return;
  drop();
  show(merged(text.trim(), found));
}

function merged(text, found) {
  const recents = recent.beginning(text, whole(), text ? RECENT : RECENT_ALONE).map(ofRecent);
  const others = found.filter((one) => one.kind !== "search" || one.words !== text);
  const known = new Set(others.map(({ words, kind }) => (kind === "search" ? words : null)));
  const own = recents.filter(({ words }) => !known.has(words));
  if (!text) return [...own, ...others].slice(0, MOST);
  return [...others.slice(0, MOST - own.length), ...own];
}

function ofRecent(text) {
  const label = meaning.title(text);
  const begun = box.value.trim();
  const isBegun = begun && label.toLocaleLowerCase().startsWith(begun.toLocaleLowerCase());
  const matched = isBegun ? [[0, [...begun].length]] : [];
  return { kind: "recent", label, detail: "", count: null, words: text, filter: "", matched };
}

// The list

function show(suggestions) {
  shown = suggestions;
  isStale = false;
  list.removeAttribute("aria-busy");
  list.replaceChildren(...shown.map(option));
  clear.hidden = !shown.some(({ kind }) => kind === "recent");
  popup.hidden = !shown.length;
  box.setAttribute("aria-expanded", String(isOpen()));
  const count = shown.length;
  said.textContent = count ? t("suggest.count", { count }) : "";
  point(-1);
}

function close() {
  drop();
  hide();
}

function hide() {
  if (isOpen()) show([]);
}

function option(one, index) {
  const count = one.count === null ? "" : format.number(one.count);
  return element(
    "li",
    { id: `suggestion-${index}`, class: "suggestion", role: "option", "aria-selected": "false", dataset: { index } },
    element("span", { class: "suggestion-kind" }, t(`suggest.${one.kind}`)),
    element(
      "span",
      { class: "suggestion-text" },
      element("bdi", { class: "suggestion-label" }, ...marked(one)),
      detail(one),
    ),
    count ? element("span", { class: "suggestion-count" }, count) : null,
    count ? element("span", { class: "visually-hidden" }, t("suggest.pictures")) : null,
  );
}

/** The label, with what was typed marked. */
function marked({ label, matched }) {
  const characters = [...label];
  const parts = [];
  let place = 0;
  const until = (end) => printable(characters.slice(place, end).join(""));
  for (const [start, end] of matched) {
    if (start > place) parts.push(until(start));
    place = Math.max(place, start);
    if (end > place) parts.push(element("mark", {}, until(end)));
    place = Math.max(place, end);
  }
  if (place < characters.length) parts.push(until(characters.length));
  return parts;
}

function detail({ kind, label, detail }) {
  const key = `suggest.key_${label.replace(":", "")}`;
  const text = kind === "filter" && knows(key) ? t(key) : printable(detail);
  if (!text || text === label) return null;
  return element("bdi", { class: "suggestion-detail" }, text);
}

/** Make one of them the active one; none for -1. */
function point(index) {
  list.children[active]?.setAttribute("aria-selected", "false");
  active = index;
  const option = list.children[active];
  if (option) {
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", option.id);
  } else {
    box.removeAttribute("aria-activedescendant");
  }
}

// Keys and clicks

function pressed(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey) return;
  if (event.altKey) {
    if (event.key === "ArrowDown" && !isOpen()) ask();
    else if (event.key === "ArrowUp" && isOpen()) close();
    else return;
    return event.preventDefault();
  }
  if (!isOpen()) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    const places = shown.length + 1; // the list's, and the box itself
    if (!isStale) point(((active + 1 + step + places) % places) - 1);
  } else if (event.key === "Escape") {
    close();
  } else if (active >= 0 && (event.key === "Enter" || (event.key === "Tab" && !event.shiftKey))) {
    choose(active);
  } else {
    return; // Enter searches, Tab goes on, everything else is typed
  }
  event.preventDefault();
  event.stopPropagation(); // arrows and Escape mean something else on the page
}

function chosen(event) {
  const option = event.target.closest("[role=option]");
  if (option && !isStale) choose(Number(option.dataset.index));
}

function choose(index) {
  const { kind, words, filter } = shown[index];
  close();
  if (kind === "filter") {
    box.value = words; // its value is typed next
    box.setSelectionRange(words.length, words.length);
    emit("unfinished");
    ask();
    return;
  }
  isWorth = true;
  if (kind === "search" || kind === "recent") emit("search", { text: words });
  else emit("suggested", { words, filter });
}

function forget() {
  recent.clear();
  box.focus();
  ask();
}
