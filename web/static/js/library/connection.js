/**
 * The stream of the server's events. A page is told when the server is silent ("server-lost") and
 * when it is back ("server-back"), perhaps as another run of it, which knows nothing of the page.
 */

import * as api from "../page/api.js";
import { emit } from "../page/store.js";

const RETRY = 15_000; // milliseconds until a refused stream of events is tried again

let events = null; // the stream, while the page is visible
let retry; // the timer of the next attempt
let run = null; // which run of the server answers
let generation = null; // of the library, as last heard
let isLost = false;
let showScan;

/** `onScan(scan, {isNew})` is called with each scan; `isNew` if another run of the server has it. */
export function start(onScan) {
  showScan = onScan;
  document.addEventListener("visibilitychange", follow);
  follow();
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
  const hear = (name, work) =>
    events.addEventListener(name, (event) => work(JSON.parse(event.data)));
  hear("server", met);
  hear("scan", (scan) => showScan(scan));
  hear("model", (model) => emit("model", model));
  hear("library", (library) => {
    generation = library.generation;
    emit("library", library);
  });
  events.addEventListener("error", failed);
}

function failed() {
  if (events?.readyState !== EventSource.CLOSED) return lose(); // the browser reconnects by itself
  events = null;
  retry = setTimeout(follow, RETRY);
  api.scan().then((scan) => {
    if (isLost) found(false);
    showScan(scan);
  }, lose);
  api.model().then((model) => emit("model", model), () => null);
}

function lose() {
  if (!isLost) emit("server-lost");
  isLost = true;
}

/** The beginning of a stream: who answers, and how the library is. */
function met(server) {
  const isNew = run !== null && server.run !== run;
  const hasMissed = !isNew && generation !== null && server.generation !== generation;
  [run, generation] = [server.run, server.generation];
  if (isNew) {
    api.scan().then((scan) => showScan(scan, { isNew }), () => null);
    api.model().then((model) => emit("model", model), () => null);
  }
  if (isNew || isLost) found(isNew);
  else if (hasMissed) emit("library", { generation });
}

function found(isNew) {
  isLost = false;
  emit("server-back", { isNew });
}
