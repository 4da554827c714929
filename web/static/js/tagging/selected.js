/** Teaching a tag by the selected pictures: these have it, or these have not. */

import * as api from "../page/api.js";
import * as format from "../page/format.js";
import { isReadOnly, printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";
import { choice, size } from "../results/chosen.js";
import { showNames } from "./names.js";

const PART = 10_000; // pictures in one request

let dialog;
let form;
let problem;
let one = null; // the picture that it is about, where none is selected: {image_id}

export function start() {
  dialog = document.getElementById("teach");
  form = dialog.querySelector("form");
  problem = dialog.querySelector("[data-part=problem]");
  document.getElementById("selection").addEventListener("click", ({ target }) => {
    if (target.closest("[data-action=teach]")) open();
  });
  dialog.addEventListener("click", ({ target }) => {
    if (target.closest("[data-action=cancel]") || target === dialog) dialog.close();
    if (target.closest("[data-action=no]")) teach("no");
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    teach("yes");
  });
  on("teach", open);
}

/** Ask for the tag of the selected pictures, or of one `hit`. */
function open({ hit = null } = {}) {
  if (isReadOnly()) return emit("toast", { text: t("marks.read_only"), kind: "error" });
  one = hit;
  const count = hit ? 1 : size();
  if (!count || dialog.open) return;
  const text = t("teach.title", { count: format.number(count) });
  dialog.querySelector("[data-part=title]").textContent = text;
  problem.textContent = "";
  showNames();
  dialog.showModal();
  form.elements.tag.select();
}

async function teach(what) {
  const { tag } = form.elements;
  const name = tag.value.trim();
  problem.textContent = name ? "" : t("teach.nameless");
  tag.setAttribute("aria-invalid", String(!name));
  if (!name) return tag.focus();
  try {
    const ids = one ? [one.image_id] : await selected();
    const done = await say(name, parts(what, ids));
    dialog.close();
    tell(done, what);
  } catch (error) {
    problem.textContent = error.message;
  }
}

async function selected() {
  const wanted = await choice();
  return wanted.ids ?? (await api.measure(wanted)).ids;
}

function parts(what, ids) {
  const count = Math.ceil(ids.length / PART);
  return Array.from({ length: count }, (_, at) => ({ [what]: ids.slice(at * PART, (at + 1) * PART) }));
}

/** Say what `lessons` say; `before` are those that undo it. */
async function say(name, lessons) {
  const [changed, before] = [[], []];
  let tag;
  for (const lesson of lessons) {
    const done = await api.teach(name, lesson);
    changed.push(...done.changed);
    before.push(...done.before);
    tag = done.tag;
  }
  emit("own-change");
  emit("taught", { name: tag.name });
  return { tag, changed, before };
}

function tell({ tag, changed, before }, what) {
  const text = t(`teach.${what}_done`, { count: format.number(changed.length), name: printable(tag.name) });
  const undo = () =>
    say(tag.name, before).catch((error) => emit("toast", { text: error.message, kind: "error" }));
  emit("toast", { text, action: changed.length ? { text: t("marks.undo"), run: undo } : null });
}
