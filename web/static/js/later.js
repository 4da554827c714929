/**
 * Loads the parts that the first view does without (`rest.js`): once its pictures are there, or as
 * soon as somebody acts. What is pressed before waits for them.
 */

import { t } from "./page/i18n.js";
import { catchUp, emit, on } from "./page/store.js";

const PATIENCE = 1500; // milliseconds, at most, for the first pictures
const CONTROLS = "#open-library, #open-saved, #open-slideshow, .tile-open, #empty button";

let loading = null; // a promise of the parts
let isReady = false;

export function start() {
  addEventListener("click", clicked, true);
  addEventListener("keydown", pressed, true);
  for (const act of ["pointerdown", "input"]) addEventListener(act, load, { capture: true, once: true });
  on("settled", load);
  on("hits", ({ hits }) => hits.length || load());
  const isGrid = !document.body.dataset.view; // others open pictures of their own
  setTimeout(load, location.hash || !isGrid ? 0 : PATIENCE); // the address may name a picture to open
}

function load() {
  loading ??= import("./rest.js").then(startRest, () => {
    loading = null;
    emit("toast", { text: t("problem.silent"), kind: "error" });
  });
  return loading;
}

function startRest({ start: startAll }) {
  catchUp(startAll);
  isReady = true;
  document.documentElement.dataset.ready = ""; // for programs that look at the page
  removeEventListener("click", clicked, true);
  removeEventListener("keydown", pressed, true);
}

function clicked(event) {
  const control = event.target.closest(CONTROLS);
  if (control && !isModified(event)) hold(event, () => control.click());
}

function pressed(event) {
  load();
  const { target, key } = event;
  const isPrint = (event.ctrlKey || event.metaKey) && key.toLowerCase() === "p";
  const isOpening = key === "Enter" && target.closest(".tile-open");
  const isShow = key === "s" && !target.closest("input, textarea, select");
  if (isPrint || (!isModified(event) && (isOpening || isShow))) {
    hold(event, () => target.dispatchEvent(new KeyboardEvent("keydown", event)));
  }
}

const isModified = (event) => event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;

/** Do it `again` once the parts are there that it is meant for. */
function hold(event, again) {
  event.preventDefault();
  event.stopImmediatePropagation();
  load().then(() => isReady && again());
}
