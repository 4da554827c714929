/** What is printed: the pictures that are loaded where the window is, with captions, or the one in the picture view. */

import { whole } from "../query/box.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";
import { addressOf } from "../query/picture.js";
import * as grid from "../results/grid.js";

const MOST = 500; // pictures
const PATIENCE = 30_000; // milliseconds for their thumbnails to load
const SILENT = 500; // milliseconds before it is said that they are loading

let sheet = null;
let large = null; // the hit in the picture view

export function start() {
  addEventListener("beforeprint", () => sheet ?? build(false));
  addEventListener("afterprint", remove);
  document.addEventListener("keydown", pressed);
  on("pictured", ({ hit }) => (large = hit));
  on("close", () => (large = null));
}

/** Ctrl+P waits for the thumbnails; the browser's menu prints those that it has already. */
async function pressed(event) {
  const isPrint = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "p";
  if (!isPrint || event.shiftKey || event.altKey) return;
  event.preventDefault();
  build(true);
  if (!sheet) return print();
  const pictures = [...sheet.querySelectorAll("img")];
  const count = format.number(pictures.length);
  const say = () => emit("toast", { text: t("print.preparing", { count }) });
  const late = setTimeout(say, SILENT);
  const loaded = Promise.all(pictures.map((picture) => picture.decode().catch(() => {})));
  await Promise.race([loaded, new Promise((done) => setTimeout(done, PATIENCE))]);
  clearTimeout(late);
  for (const picture of pictures) if (!isThere(picture)) picture.closest("figure").remove();
  print();
}

const isThere = (picture) => picture.complete && picture.naturalWidth > 0;

function build(isPatient) {
  remove();
  const made = (large ? [large] : loadedHits())
    .map((hit) => figure(hit, picture(hit, isPatient)))
    .filter(Boolean);
  if (!made.length) return;
  const query = whole();
  const title = query && !large ? element("h1", {}, printable(query)) : null;
  const list = element("div", { class: "sheet-pictures" }, ...made);
  sheet = element("section", { id: "sheet", class: large ? "is-single" : "" }, title, list);
  document.body.append(sheet);
}

/** The pictures that are loaded around what the window shows, without a gap. */
function loadedHits() {
  const now = grid.place().at?.place ?? 0;
  let first = now;
  while (grid.hitAt(first - 1) && now - first < MOST / 2) first -= 1;
  const hits = [];
  while (grid.hitAt(first + hits.length) && hits.length < MOST) hits.push(grid.hitAt(first + hits.length));
  return hits;
}

/** A hit's picture, at once if the browser has one of its addresses, or else only for the patient. */
function picture(hit, isPatient) {
  const thumbnails = [512, 256].map((size) => `${hit.thumbnail}&size=${size}`);
  const addresses = large ? [addressOf(hit), ...thumbnails] : thumbnails;
  for (const src of addresses) {
    const made = element("img", { src, alt: "" });
    if (isPatient || isThere(made)) return made;
    made.removeAttribute("src"); // do not load what would come too late
  }
  return null;
}

function figure(hit, shown) {
  if (!shown) return null;
  const day = hit.day ?? hit.date?.slice(0, 10);
  const caption = element(
    "figcaption",
    {},
    element("bdi", {}, printable(hit.name)),
    day ? element("span", {}, format.day(day)) : null,
  );
  return element("figure", {}, shown, caption);
}

function remove() {
  sheet?.remove();
  sheet = null;
}
