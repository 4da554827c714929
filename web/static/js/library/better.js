/** The notice of a better model: offers it, shows how its change goes, and what went wrong. */

import * as api from "../page/api.js";
import * as format from "../page/format.js";
import { knows, t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const DISMISSED = "dismissed-model"; // in localStorage: the name of the model, and of the one in use
const RUNNING = ["starting", "downloading", "embedding"];

let notice;
let parts;
let again; // the button of the library panel that brings the notice back
let state = null; // the server's newest document
let overlooked = ""; // the failed change that was dismissed

export function start() {
  notice = document.getElementById("better");
  parts = Object.fromEntries(
    [...notice.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  again = document.getElementById("show-better");
  parts.start.addEventListener("click", change);
  parts.cancel.addEventListener("click", cancel);
  parts.dismiss.addEventListener("click", dismiss);
  again.addEventListener("click", recall);
  on("model", show);
}

function show(document_) {
  const before = state?.change;
  state = document_;
  const { change } = state;
  if (mark(before) === mark(change) && isRunning(before) && !isRunning(change)) ended(change);
  draw();
}

const isRunning = (change) => RUNNING.includes(change?.state);
const hasFailed = (change) => change?.state === "failed" && mark(change) !== overlooked;

/** What tells a change from all others: ids begin anew with the server. */
const mark = (change) => `${change?.id} ${change?.started_at}`;

const offer = () => JSON.stringify([state.better.name, state.model]);

function draw() {
  const { better, change, model } = state;
  const running = isRunning(change);
  const failed = hasFailed(change) && change.model !== model;
  const offered = better !== null && model !== null;
  const dismissed = offered && localStorage.getItem(DISMISSED) === offer();
  notice.hidden = !running && !failed && (!offered || dismissed);
  again.hidden = !(offered && dismissed && notice.hidden);
  notice.classList.toggle("is-failed", failed && !running);
  parts.bar.hidden = parts.cancel.hidden = !running;
  parts.start.hidden = parts.dismiss.hidden = running;
  parts.detail.title = "";
  if (running) showProgress(change);
  else if (failed) showFailure(change);
  else if (offered) showOffer(better, state.bundled);
}

function showOffer({ name, bytes }, bundled) {
  const here = bundled ? "better.here_bundled" : "better.here";
  const known = bundled === name ? "better.bundled" : here;
  say(parts.title, t("better.offer", { model: name }));
  say(parts.detail, bytes ? t("better.size", { size: format.bytes(bytes) }) : t(known));
  say(parts.start, t(bytes ? "better.start" : "better.use"));
  parts.start.dataset.model = name;
}

function showProgress(change) {
  if (change.state === "starting") {
    say(parts.title, t("better.preparing", { model: change.model }));
    say(parts.detail, "");
    parts.bar.removeAttribute("value");
    return;
  }
  const isDownload = change.state === "downloading";
  const done = isDownload ? change.bytes : change.embedded;
  const total = isDownload ? change.total_bytes : change.images;
  say(parts.title, t(`better.${change.state}`, { model: change.model }));
  say(parts.detail, isDownload ? ofBytes(done, total) : ofPictures(change));
  if (total && !change.message) {
    parts.bar.max = total;
    parts.bar.value = Math.min(done, total);
  } else {
    parts.bar.removeAttribute("value"); // nobody knows how long
  }
}

function ofBytes(done, total) {
  if (!total) return t("better.starting");
  return t("better.bytes", { done: format.bytes(done), total: format.bytes(total) });
}

function ofPictures({ images, embedded, seconds_left: left, message }) {
  if (message) return t("better.waiting");
  const counts = t("better.pictures", {
    done: format.number(embedded),
    total: format.number(images),
  });
  return left ? `${counts} · ${t("scan.left", { time: format.duration(left) })}` : counts;
}

function showFailure({ code, message, model }) {
  say(parts.title, t("better.failed", { model }));
  const known = `better.problem.${code}`;
  say(parts.detail, knows(known) ? t(known) : message);
  parts.detail.title = message;
  say(parts.start, t("better.retry"));
  parts.start.dataset.model = model;
}

/** Change a text only if it differs: screen readers announce every change of the title. */
function say(part, text) {
  if (part.textContent !== text) part.textContent = text;
}

function ended({ state: how, model, code, left_out: count }) {
  const hadFocus = notice.contains(document.activeElement);
  if (how === "done") {
    emit("toast", { text: t(count ? "better.done_without" : "better.done", { model, count }) });
  }
  if (how === "stopped") {
    const isOthers = code === "superseded";
    emit("toast", { text: t(isOthers ? "better.problem.superseded" : "better.stopped") });
  }
  if (hadFocus) requestAnimationFrame(() => (notice.hidden ? focusBox() : parts.start.focus()));
}

/** The button that had the focus is gone. */
function focusBox() {
  document.querySelector("input[name=q]").focus();
}

async function change() {
  await attempt(async () => show(await api.changeModel(parts.start.dataset.model)));
  parts.cancel.focus();
}

async function cancel() {
  await attempt(async () => show(await api.cancelChange()));
}

function dismiss() {
  if (hasFailed(state.change)) overlooked = mark(state.change);
  if (state.better) localStorage.setItem(DISMISSED, offer());
  draw();
  focusBox();
}

function recall() {
  localStorage.removeItem(DISMISSED);
  document.getElementById("library").close();
  draw();
  parts.start.focus();
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}
