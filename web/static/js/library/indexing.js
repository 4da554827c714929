/** The library panel: folders, progress of indexing, and files that are not indexed. */

import * as api from "../page/api.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import { Failures } from "./failures.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const RETRY = 15_000; // milliseconds until a refused stream of events is tried again

let panel;
let parts;
let events = null; // the stream, while the page is visible
let retry; // the timer of the next attempt
let scan = null; // the newest document of a scan
let removing = null; // the root that the open question is about
let failures; // lists of files that are not indexed

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
  parts.add.addEventListener("submit", add);
  parts.confirm.addEventListener("close", confirmed);
  document.addEventListener("visibilitychange", follow);
  on("add-folder", addFolder);
  follow();
}

export function open() {
  if (!panel.open) panel.showModal();
  refresh();
}

function addFolder() {
  open();
  parts.path.focus();
}

/**
 * Listen for events while the page is visible. A browser opens few connections to a server, however
 * many tabs there are, so a hidden page closes its own.
 */
function follow() {
  clearTimeout(retry);
  if (document.hidden) {
    events?.close();
    events = null;
  } else if (!events) {
    listen();
  }
}

/** Open the stream of events; if the server has too many listeners, ask it now and then. */
function listen() {
  events = new EventSource(api.at("/api/events"));
  events.addEventListener("scan", (event) => showScan(JSON.parse(event.data)));
  events.addEventListener("model", (event) => emit("model", JSON.parse(event.data)));
  events.addEventListener("library", (event) => emit("library", JSON.parse(event.data)));
  events.addEventListener("error", () => {
    if (events?.readyState !== EventSource.CLOSED) return; // the browser reconnects by itself
    events = null;
    retry = setTimeout(follow, RETRY);
    api.scan().then(showScan, () => null);
    api.model().then((model) => emit("model", model), () => null);
  });
}

async function refresh() {
  try {
    const [roots, status, current] = await Promise.all([api.roots(), api.status(), api.scan()]);
    showRoots(roots);
    showScan(current);
    await showStatus(status);
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}

async function showStatus({ images, model, files = {} }) {
  parts.summary.textContent = t("library.summary", {
    images: format.number(images),
    model: model ?? "–",
  });
  await Promise.all(failures.map((list) => list.show(files[list.state] ?? 0)));
}

function showRoots(roots) {
  parts.empty.hidden = roots.length > 0;
  parts["rescan-all"].hidden = roots.length < 2 || isReadOnly();
  parts.roots.replaceChildren(...roots.map(rootItem));
}

function rootItem(root) {
  const path = printable(root.path);
  const offline = root.state === "offline";
  const facts = [
    t("library.images", { count: format.number(root.images) }),
    root.scanned_at
      ? t("library.scanned", { date: format.day(root.scanned_at) })
      : t("library.never"),
  ];
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
    { class: "root" },
    element("bdi", { class: "root-path" }, path),
    offline ? element("span", { class: "badge" }, t("library.offline")) : null,
    element("span", { class: "root-facts" }, facts.join(" · ")),
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
function showScan(document_) {
  const before = scan?.state;
  scan = document_;
  const running = scan?.state === "running";
  parts.scan.hidden = !running;
  parts.stop.hidden = !running;
  parts["scan-problem"].textContent = scan?.state === "failed" ? failure(scan) : "";
  emit("scan", scan);
  showProgress(running);
  if (running) showCounts();
  if (before === "running" && !running) ended();
}

function showProgress(running) {
  if (!parts.progress) return;
  parts.progress.hidden = !running;
  if (!running) return;
  const part = scan.found ? Math.min(scan.done / scan.found, 1) : 0;
  parts.progress.textContent = format.percent(part);
  parts.progress.title = t("scan.progress", { percent: format.percent(part) });
}

function showCounts() {
  const { found, done, failed, rate, seconds_left: left } = scan;
  parts.bar.max = Math.max(found, 1);
  if (found) parts.bar.value = done;
  else parts.bar.removeAttribute("value"); // still counting
  parts.counts.textContent = t("scan.counts", {
    done: format.number(done),
    found: format.number(found),
  });
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
  if (panel.open) refresh();
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

async function add(event) {
  event.preventDefault();
  const path = parts.path.value.trim();
  if (!path) return;
  parts["add-problem"].textContent = "";
  parts.path.removeAttribute("aria-invalid");
  try {
    await api.addRoot(path);
    parts.path.value = "";
    await refresh();
  } catch (error) {
    parts["add-problem"].textContent = error.message;
    parts.path.setAttribute("aria-invalid", "true");
    parts.path.focus();
  }
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
