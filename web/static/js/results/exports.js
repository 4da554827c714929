/** Copies the paths of the selection, and downloads its originals or their data. */

import * as api from "../page/api.js";
import * as chosen from "./chosen.js";
import { areSplit, copyComing, copyText } from "../page/clipboard.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit } from "../page/store.js";

const LARGE = 100e6; // bytes from which a download asks first

let form;
let dialog; // which asks
let asked = null; // the choice that it asks about

export function start() {
  form = document.querySelector("#selection form");
  dialog = document.getElementById("download");
  document.getElementById("selection").addEventListener("click", ({ target }) => {
    const { action } = target.closest("[data-action]")?.dataset ?? {};
    if (action === "copy-paths") copyPaths();
    if (action === "zip") downloadOriginals();
    if (action === "csv" || action === "json") downloadData(action);
  });
  dialog.addEventListener("click", ({ target }) => {
    const { action } = target.closest("[data-action]")?.dataset ?? {};
    if (action === "start") submit(asked, "zip");
    if (action || target === dialog) dialog.close();
  });
}

async function copyPaths() {
  const count = format.number(chosen.size());
  const known = chosen.paths();
  try {
    const coming = known ? Promise.resolve(known) : listed();
    if (known) await copyText(known.join("\n"));
    else await copyComing(coming.then((paths) => paths.join("\n")));
    emit("toast", { text: t(areSplit(await coming) ? "selection.copied_split" : "selection.copied", { count }) });
  } catch (error) {
    const text = error.status === undefined ? t("copy.refused") : error.message;
    emit("toast", { text, kind: "error" });
  }
}

/** The paths of the selection, which the server knows. */
async function listed() {
  const text = await api.paths(await chosen.choice());
  return text.split("\n").slice(0, -1);
}

/** Download a zip file; if it is large, say so before. */
async function downloadOriginals() {
  const choice = await chosen.choice();
  const found = await measured(choice);
  if (!found) return;
  const counts = { count: format.number(found.count), size: format.bytes(found.bytes) };
  if (found.bytes < LARGE) {
    submit(choice, "zip");
    return emit("toast", { text: t("selection.download_size", counts) });
  }
  asked = choice;
  dialog.querySelector("[data-part=size]").textContent = t("selection.download_ask", counts);
  dialog.showModal();
}

async function downloadData(kind) {
  const choice = await chosen.choice();
  if (!(await measured(choice))) return; // a refusal would replace the page
  submit(choice, kind);
  emit("toast", { text: t("selection.download") });
}

/** What the server finds of a choice; null if it refuses. */
async function measured(choice) {
  try {
    return await api.measure(choice);
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
    return null;
  }
}

/** A form, because its download goes straight to disk; a script would hold it in memory first. */
function submit(choice, kind) {
  const values = { format: kind, ...choice };
  for (const { name } of form.elements) {
    form.elements[name].disabled = !(name in values); // and is not sent
    form.elements[name].value = values[name] ?? ""; // of a list, its members and commas
  }
  form.submit();
}
