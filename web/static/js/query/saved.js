/** Saved searches: the star beside the box, and the dialog that lists, saves and changes them. */

import * as api from "../page/api.js";
import { ordered, whole } from "./box.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const LONGEST = 100; // characters of a name

let star;
let box;
let dialog;
let parts;
let searches = []; // [{id, name, query}], in their order
let editing = null; // the id of the search whose form is shown
let hasPictures = false; // among what is searched for, which only this tab has

export function start() {
  box = document.querySelector("input[name=q]");
  star = document.getElementById("open-saved");
  dialog = document.getElementById("saved");
  parts = Object.fromEntries(
    [...dialog.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  star.addEventListener("click", open);
  dialog.addEventListener("click", clicked);
  dialog.addEventListener("close", () => (editing = null));
  parts.new.addEventListener("submit", save);
  parts.file.addEventListener("change", importFile);
  box.addEventListener("input", showStar);
  on("hits", showStar);
  on("asked", ({ pictures }) => {
    hasPictures = pictures > 0;
    showStar();
  });
  on("library", () => editing === null && load());
  (window.requestIdleCallback ?? setTimeout)(() => load());
}

const textNow = () => ordered(whole());

async function load() {
  const found = await api.savedSearches().catch(() => null);
  if (!found) return; // keep the list as it is
  searches = found;
  showStar();
  if (dialog.open && editing === null) showList();
}

/** Fill the star where the present query is saved. */
function showStar() {
  const known = hasPictures ? null : searches.find((search) => ordered(search.query) === textNow());
  const text = known ? t("saved.known", { name: known.name }) : t("saved.open");
  star.classList.toggle("is-saved", Boolean(known));
  star.title = text;
  star.setAttribute("aria-label", text);
}

function open() {
  editing = null;
  dialog.showModal();
  showNew();
  showList();
  load();
  if (!parts.new.hidden) {
    parts.name.focus();
    parts.name.select();
  }
}

/** The form for the present query, or why there is none. */
function showNew() {
  const text = textNow();
  const known = searches.some((search) => ordered(search.query) === text);
  const isOffered = Boolean(text) && !hasPictures && !known && !isReadOnly();
  parts.new.hidden = !isOffered;
  parts.query.textContent = printable(text);
  parts.name.value = [...text].slice(0, LONGEST).join("");
  complain("");
  const why = hasPictures ? "saved.pictures" : text ? "saved.already" : "saved.empty";
  parts.note.hidden = isOffered || isReadOnly();
  parts.note.textContent = t(why);
}

function complain(text) {
  parts.problem.textContent = text;
  parts.name.setAttribute("aria-invalid", String(Boolean(text)));
}

async function save(event) {
  event.preventDefault();
  const name = parts.name.value.trim();
  try {
    await api.saveSearch({ name, query: textNow() });
    await load();
    showNew();
    parts.title.focus(); // the field that had the focus is gone
    emit("toast", { text: t("saved.done", { name }) });
  } catch (error) {
    complain(error.message);
    parts.name.focus();
  }
}

// The list

function showList() {
  const ready = [
    [t("saved.favourites"), "is:favourite"],
    [t("saved.hidden"), "is:hidden"],
  ].map(([name, query]) => element("li", { class: "saved-item" }, link(name, query)));
  parts.list.replaceChildren(...ready, ...searches.map((search, at) => item(search, at)));
}

const addressOf = (query) => `${location.pathname}?${new URLSearchParams({ q: query })}`;

function link(name, query) {
  return element(
    "a",
    { class: "saved-link", href: addressOf(query), dataset: { query } },
    element("bdi", { class: "saved-name" }, printable(name)),
    element("code", { class: "saved-query" }, printable(query)),
  );
}

function item(search, at) {
  const { id, name, query } = search;
  if (id === editing) return element("li", { class: "saved-item" }, form(search, at));
  const change = (action, key) =>
    element(
      "button",
      {
        class: "button small",
        type: "button",
        dataset: { action, id },
        "aria-label": t(`saved.${key}_this`, { name }),
      },
      t(`saved.${key}`),
    );
  const actions = element(
    "span",
    { class: "saved-actions" },
    change("edit", "edit"),
    change("delete", "delete"),
  );
  return element("li", { class: "saved-item" }, link(name, query), isReadOnly() ? null : actions);
}

/** The form that changes a search, in its place in the list. */
function form({ id, name, query }, at) {
  const field = (key, label, value, longest) =>
    element(
      "label",
      {},
      element("span", {}, t(label)),
      element("input", {
        name: key,
        value,
        maxLength: longest,
        autocomplete: "off",
        spellcheck: false,
      }),
    );
  const button = (action, key, isOff = false) =>
    element(
      "button",
      { class: "button small", type: "button", dataset: { action, id }, disabled: isOff },
      t(`saved.${key}`),
    );
  const problem = element("p", { class: "field-problem", role: "alert" });
  const made = element(
    "form",
    { class: "saved-form", noValidate: true, "aria-label": t("saved.edit_this", { name }) },
    field("name", "saved.name", name, LONGEST),
    field("query", "saved.query", query, box.maxLength),
    problem,
    element(
      "span",
      { class: "saved-actions" },
      element("button", { class: "button small primary", type: "submit" }, t("saved.save")),
      button("cancel", "cancel"),
      button("up", "up", at === 0),
      button("down", "down", at === searches.length - 1),
    ),
  );
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { name: newName, query: newQuery } = made.elements;
    try {
      await api.editSearch(id, { name: newName.value.trim(), query: newQuery.value.trim() });
      await finish(id);
    } catch (error) {
      problem.textContent = error.message;
    }
  });
  return made;
}

const actions = {
  close: () => dialog.close(),
  edit: ({ id }) => edit(Number(id)),
  cancel: ({ id }) => finish(Number(id)),
  delete: ({ id }) => remove(Number(id)),
  up: ({ id }) => move(Number(id), -1),
  down: ({ id }) => move(Number(id), 1),
};

function clicked(event) {
  const place = event.target.closest(".saved-link");
  if (place && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    dialog.close();
    emit("search", { text: place.dataset.query });
    return;
  }
  const button = event.target.closest("[data-action]");
  if (button && button.dataset.action in actions) actions[button.dataset.action](button.dataset);
}

function edit(id) {
  editing = id;
  showList();
  parts.list.querySelector("form input").select();
}

/** Show the list again, with the focus where the form was. */
async function finish(id) {
  editing = null;
  await load();
  showList();
  showNew();
  (parts.list.querySelector(`[data-action=edit][data-id="${id}"]`) ?? parts.title).focus();
}

async function move(id, by) {
  const at = searches.findIndex((search) => search.id === id);
  const { name, query } = searches[at];
  await attempt(async () => {
    await api.editSearch(id, { name, query, place: at + by });
    searches = await api.savedSearches();
    showList();
    const button = parts.list.querySelector(`[data-action=${by < 0 ? "up" : "down"}]`);
    (button.disabled ? parts.list.querySelector("form input") : button).focus();
  });
}

async function remove(id) {
  const place = searches.findIndex((search) => search.id === id);
  const { name, query } = searches[place];
  await attempt(async () => {
    await api.deleteSearch(id);
    await load();
    showList();
    showNew();
    parts.title.focus();
    const undo = () =>
      attempt(async () => {
        await api.saveSearch({ name, query, place });
        await load();
      });
    const action = { text: t("marks.undo"), run: undo };
    emit("toast", { text: t("saved.deleted", { name }), action });
  });
}

/** Add what another library has exported. */
async function importFile() {
  const [file] = parts.file.files;
  parts.file.value = "";
  if (!file) return;
  await attempt(async () => {
    const text = await file.text();
    const { favourites, hidden, searches: added } = await api.importMarks(text);
    await load();
    emit("toast", { text: t("saved.imported", { favourites, hidden, searches: added }) });
  });
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}
