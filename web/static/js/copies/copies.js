/** Groups of copies and bursts in the place of the grid, from which all but the best can be selected. */

import * as api from "../page/api.js";
import * as chosen from "../results/chosen.js";
import { areSplit, copyComing } from "../page/clipboard.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";
import * as groups from "./group.js";
import * as keys from "./keys.js";

const PAGE = 40; // groups that are loaded at a time
const AHEAD = "1500px"; // below the window
const AGAIN = 1000; // milliseconds between two looks at how far a search is

const kind = new URLSearchParams(location.search).get("kind") === "bursts" ? "bursts" : "copies";

let parts; // the elements of the section, by their data-part
let state = 0; // of the groups that are shown
let total = 0;
let loaded = 0; // groups
let isLoading = false;
let end; // watches whether the end of the groups is near

export function start() {
  const section = document.getElementById("copies");
  parts = Object.fromEntries([...section.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  for (const link of parts.kinds.children) {
    if (link.dataset.kind === kind) link.setAttribute("aria-current", "page");
  }
  section.addEventListener("click", clicked);
  document.getElementById("selection").addEventListener("click", inBar);
  groups.start(parts.groups);
  keys.start(parts.groups, { selectAll });
  searchElsewhere();
  on("server-back", again);
  end = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && load(), { rootMargin: AHEAD });
  load();
}

/** What is searched for is shown in the grid. */
function searchElsewhere() {
  const box = document.querySelector("input[name=q]");
  const leave = ({ text, pictures }) => {
    if (text || pictures) location.replace(api.at(`/${location.search}`));
  };
  document.addEventListener("input", (event) => event.target === box && event.stopImmediatePropagation(), true);
  on("hits", leave);
}

async function load() {
  if (isLoading || (state && loaded >= total)) return;
  isLoading = true;
  parts.groups.setAttribute("aria-busy", "true");
  try {
    const answer = await api.duplicates({ kind, state, offset: loaded, limit: PAGE });
    if (answer.ready) show(answer);
    else wait(answer);
  } catch (error) {
    if (error.status === 410) again();
    else fail(error);
  }
  parts.groups.setAttribute("aria-busy", "false");
  isLoading = false;
  end.unobserve(parts.end); // and tell it anew, where it is near again by now
  if (state && parts.trouble.hidden) end.observe(parts.end);
}

/** Begin with the first groups. */
function again() {
  [state, total, loaded] = [0, 0, 0];
  parts.groups.replaceChildren();
  setTimeout(load);
}

function wait({ progress }) {
  parts.working.hidden = false;
  parts.bar.value = progress;
  parts.status.textContent = t("copies.looking");
  setTimeout(load, AGAIN);
}

function show(answer) {
  state = answer.state;
  total = answer.total;
  parts.trouble.hidden = parts.working.hidden = true;
  if (!loaded) showSummary(answer);
  for (const group of answer.groups) parts.groups.append(groups.groupOf(group, loaded++, total));
  parts.more.hidden = loaded >= total;
}

function showSummary({ counts, pictures, waiting }) {
  const { groups: count, bytes, same } = counts[kind];
  const said = (key, number, more) => t(key, { count: format.number(number), ...more });
  for (const link of parts.kinds.children) {
    const name = link.dataset.kind;
    link.querySelector("[data-part=count]").textContent = format.number(counts[name].groups);
  }
  const found = { pictures: said("copies.pictures", pictures), size: format.bytes(bytes) };
  parts.status.textContent = count ? said(`copies.found.${kind}`, count, found) : t(`copies.none.${kind}`, found);
  parts.actions.hidden = !count;
  parts.same.hidden = !same;
  parts["same-text"].textContent = said("copies.same", same);
  parts.waiting.hidden = !waiting;
  parts.waiting.textContent = said("copies.waiting", waiting);
}

function fail(error) {
  parts.trouble.hidden = false;
  parts["trouble-text"].textContent = error.message;
}

// What is done with all but the best

const actions = {
  more: load,
  retry: load,
  "select-others": selectAll,
  "copy-others": () => copy({}),
  "script-others": () => script({}),
  "copy-same": () => copy({ same: true }),
  "script-same": () => script({ same: true }),
};

function clicked({ target }) {
  actions[target.closest("[data-action]")?.dataset.action]?.();
}

async function inBar({ target }) {
  const { action } = target.closest("[data-action]")?.dataset ?? {};
  if (action === "copy-chosen") copy(chosen.choice());
  if (action === "script") script(await chosen.choice());
}

/** Select all but the best of all groups, loaded or not. */
async function selectAll() {
  try {
    const { count, ids } = await api.duplicateOthers({ kind, state });
    if (!ids.length) return emit("toast", { text: t("copies.only_same") });
    chosen.clear();
    chosen.putAll(ids.map((image_id) => ({ image_id })), true);
    const counts = { count: format.number(ids.length), all: format.number(count) };
    if (ids.length < count) emit("toast", { text: t("copies.most", counts) });
  } catch (error) {
    if (error.status === 410) again();
    else complain(error);
  }
}

/** Copy the paths of a choice, which may be on its way. */
async function copy(choice) {
  const coming = Promise.resolve(choice).then((wanted) => api.duplicatePaths({ kind, ...wanted }));
  const paths = coming.then((text) => text.split("\n").slice(0, -1));
  try {
    await copyComing(paths.then((lines) => lines.join("\n")));
    const lines = await paths;
    emit("toast", { text: areSplit(lines) ? t("copies.copied_split") : t("copies.copied", { count: format.number(lines.length) }) });
  } catch (error) {
    complain(error.status === undefined ? new Error(t("copy.refused")) : error);
  }
}

/** A form, because its download goes straight to disk. A refusal would replace the page. */
async function script(choice) {
  try {
    await api.duplicatePaths({ kind, ...choice });
  } catch (error) {
    return complain(error);
  }
  const values = { format: "script", kind, ...choice };
  for (const field of parts.form.elements) {
    field.disabled = !(field.name in values);
    field.value = values[field.name] ?? "";
  }
  parts.form.submit();
  emit("toast", { text: t("copies.script_said") });
}

const complain = (error) => emit("toast", { text: error.message, kind: "error" });
