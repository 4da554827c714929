/** The library panel: folders, progress of indexing, and files that are not indexed. */

import * as api from "../page/api.js";
import { Adding, told } from "./adding.js";
import * as connection from "./connection.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import { Failures } from "./failures.js";
import * as format from "../page/format.js";
import { Held } from "./held.js";
import { t } from "../page/i18n.js";
import { part, progress } from "./progress.js";
import { emit, on } from "../page/store.js";

const LIVE = 2000; // milliseconds between two looks at the counts while pictures come in

let panel;
let parts;
let scan = null; // the newest document of a scan
let removing = null; // the root that the open question is about
let failures; // lists of files that are not indexed
let held;
let looking = 0; // the timer of the next look at the counts

export function start() {
  panel = document.getElementById("library");
  parts = Object.fromEntries(
    [...panel.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  parts.progress = document.getElementById("library-progress");
  parts.confirm = document.getElementById("confirm-remove");
  document.getElementById("open-library")?.addEventListener("click", open);
  panel.addEventListener("click", clicked);
  failures = [...panel.querySelectorAll(".failures")].map((list) => new Failures(list, attempt));
  held = new Held(parts.held, attempt, refresh);
  new Adding(parts, add);
  parts.confirm.addEventListener("close", confirmed);
  on("add-folder", addFolder);
  on("library", look);
  on("server-lost", showSilence);
  connection.start(showScan);
}

export function open() {
  if (!panel.open) panel.showModal();
  refresh();
}

function addFolder() {
  open();
  parts.path.focus();
}

async function refresh() {
  const before = scan;
  try {
    const [roots, status, current] = await Promise.all([api.roots(), api.status(), api.scan()]);
    showRoots(roots);
    if (scan === before) showScan(current); // else an event has told of a later one
    await showStatus(status);
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}

/** Bring the counts of the open panel up to date, soon and not too often. */
function look() {
  if (!panel.open || looking) return;
  looking = setTimeout(async () => {
    looking = 0; // what changes from now on is looked at again
    const found = await Promise.all([api.roots(), api.status()]).catch(() => null);
    if (!found || !panel.open) return; // the server is silent: the next event looks again
    const [roots, status] = found;
    showRoots(roots);
    await showStatus(status, { isLive: scan?.state === "running" });
  }, LIVE);
}

async function showStatus(status, how) {
  const { images, model, files = {} } = status;
  parts.summary.textContent = t("library.summary", {
    images: format.number(images),
    model: model ?? "–",
  });
  await Promise.all(failures.map((list) => list.show(files[list.state] ?? 0, how)));
  if (await held.show(status)) look();
}

function showRoots(roots) {
  parts.empty.hidden = roots.length > 0;
  parts["rescan-all"].hidden = roots.length < 2 || isReadOnly();
  const known = new Set(roots.map(({ id }) => id));
  const shown = new Map([...parts.roots.children].map((item) => [Number(item.dataset.root), item]));
  for (const [id, item] of shown) if (!known.has(id)) item.remove();
  for (const [place, root] of roots.entries()) {
    const item = shown.get(root.id) ?? rootItem(root); // buttons keep the focus
    item.querySelector(".badge").hidden = root.state !== "offline";
    item.querySelector(".root-facts").textContent = factsOf(root).join(" · ");
    const there = parts.roots.children[place] ?? null;
    if (item !== there) parts.roots.insertBefore(item, there);
  }
}

function factsOf({ images, inside, scan: turn, scanned_at: scanned }) {
  const turns = { running: "library.scanning", waiting: "library.waiting" };
  return [
    t("library.images", { count: format.number(images) }),
    turn
      ? t(turns[turn])
      : scanned
        ? t("library.scanned", { date: format.day(scanned) })
        : t("library.never"),
    inside === null ? null : t("library.inside", { path: printable(inside) }),
  ].filter(Boolean);
}

function rootItem(root) {
  const path = printable(root.path);
  const button = (action, key) =>
    element(
      "button",
      {
        type: "button",
        class: "button small",
        dataset: { action, root: root.id, path },
        "aria-label": t(`library.${key}_this`, { path }),
      },
      t(`library.${key}`),
    );
  return element(
    "li",
    { class: "root", dataset: { root: root.id } },
    element("bdi", { class: "root-path" }, path),
    element("span", { class: "badge" }, t("library.offline")),
    element("span", { class: "root-facts" }),
    isReadOnly()
      ? null
      : element(
          "span",
          { class: "root-actions" },
          button("rescan", "rescan"),
          button("remove", "remove"),
        ),
  );
}

/** Show a scan. Screen readers hear of its start and end only: counts would never stop. */
function showScan(document_, { isNew = false } = {}) {
  const before = scan?.state;
  scan = document_;
  const running = scan?.state === "running";
  parts.scan.hidden = !running;
  parts.stop.hidden = !running;
  parts["scan-problem"].textContent = scan?.state === "failed" ? failure(scan) : "";
  emit("scan", scan);
  showProgress(running);
  if (running) showCounts();
  if (running) look();
  if (before !== "running" || running) return;
  if (isNew) emit("toast", { text: t("scan.cut_off"), kind: "error" });
  else ended();
  if (panel.open) refresh();
}

/** The server is silent, so what is shown of a scan is old. */
function showSilence() {
  if (scan?.state !== "running") return;
  parts.counts.textContent = t("problem.silent");
  parts.rate.textContent = "";
}

function showProgress(running) {
  if (!parts.progress) return;
  parts.progress.hidden = !running;
  if (!running) return;
  const done = part(scan);
  parts.progress.textContent = done === null ? "…" : format.percent(done);
  parts.progress.title =
    done === null ? progress(scan) : t("scan.progress", { percent: format.percent(done) });
}

function showCounts() {
  const { failed, rate, seconds_left: left } = scan;
  if (part(scan) === null) parts.bar.removeAttribute("value"); // still counting
  else parts.bar.value = part(scan);
  parts.counts.textContent = progress(scan);
  parts.rate.textContent = [
    rate ? t("scan.rate", { rate: format.number(Math.round(rate)) }) : null,
    left ? t("scan.left", { time: format.duration(left) }) : null,
    failed ? t("scan.failed", { count: format.number(failed) }) : null,
  ]
    .filter(Boolean)
    .join(" · ");
}

function ended() {
  const { state, unreached = [], ignore_files: rules = [] } = scan ?? {};
  const isBad = state === "failed" || unreached.length + rules.length > 0;
  const text = state === "failed" ? failure(scan) : result(scan ?? {});
  emit("toast", { text, kind: isBad ? "error" : "info" });
}

/** Why a scan has failed; where its process ended unexpectedly, also at which files. */
function failure({ code, message, in_hand: files = [] }) {
  if (code !== "unexpected") return message ?? t("scan.broken");
  if (!files.length) return t("scan.ended");
  return t(files.length > 1 ? "scan.ended_among" : "scan.ended_at", { file: printable(files[0]) });
}

/** The result of a scan, and the folders that it left as they are. */
function result({ state, embedded = 0, failed = 0, unreached = [], ignore_files: rules = [] }) {
  const counts = { count: format.number(embedded), failed: format.number(failed) };
  if (state === "stopped") return t("scan.stopped", counts);
  if (rules.length) {
    const path = rules.map(printable).join(", ");
    return t("scan.ignore_files", { ...counts, path });
  }
  if (unreached.length > 1) {
    return t("scan.unreached_many", { ...counts, folders: format.number(unreached.length) });
  }
  if (unreached.length) return t("scan.unreached", { ...counts, path: printable(unreached[0]) });
  return t(failed ? "scan.done_failed" : "scan.done", counts);
}

const actions = {
  close: () => panel.close(),
  stop: () => attempt(() => api.stopScan()),
  "rescan-all": () => attempt(async () => showScan(await api.startScan(null))),
  rescan: ({ root }) => attempt(async () => showScan(await api.startScan(Number(root)))),
  remove: (data) => ask(data),
};

function clicked(event) {
  const button = event.target.closest("[data-action]");
  if (button && button.dataset.action in actions) actions[button.dataset.action](button.dataset);
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}

/** Add a folder; return what there is to say of it. */
async function add(path) {
  const before = new Set((await api.roots()).map(({ id }) => id));
  const root = await api.addRoot(path);
  await refresh();
  return told(root, before.has(root.id));
}

function ask({ root, path }) {
  removing = root;
  parts.confirm.querySelector("[data-part=question]").textContent = t("library.remove_ask", {
    path,
  });
  parts.confirm.returnValue = "";
  parts.confirm.showModal();
}

async function confirmed() {
  if (parts.confirm.returnValue !== "remove") return;
  await attempt(() => api.removeRoot(Number(removing)));
  await refresh();
  parts.title.focus(); // the button that had the focus is gone
}
