/**
 * Search by picture: files that are dropped, pasted or chosen. What is dragged from another page is
 * an address, which is not opened: the page says so.
 */

import { printable } from "../page/dom.js";
import { emit } from "../page/store.js";
import { t } from "../page/i18n.js";

const MOST = 8; // pictures in one query
const LARGEST = 64 * 1024 * 1024; // bytes
const NAMES =
  /\.(jpe?g|jfif|png|webp|gif|avif|hei[cf]|tiff?|bmp|dng|cr2|cr3|nef|arw|orf|rw2|raf)$/i;

let overlay;
let depth = 0; // elements entered and not left: a drag enters every element it crosses
let ownDrag = false; // a picture of this page is being dragged, not a file

export function start() {
  overlay = document.getElementById("drop");
  document.addEventListener("dragstart", () => (ownDrag = true));
  document.addEventListener("dragend", () => (ownDrag = false));
  document.addEventListener("dragenter", enter);
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", leave);
  document.addEventListener("drop", drop);
  document.addEventListener("paste", paste);
  const input = document.getElementById("picture-file");
  document.getElementById("choose-picture")?.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    offer([...input.files]);
    input.value = ""; // the same file may be chosen again
  });
}

const carriesFiles = (event) => !ownDrag && event.dataTransfer?.types.includes("Files");

/** Whether an address is dragged: a link, or a picture of another page. */
const carriesAddress = (event) => !ownDrag && event.dataTransfer?.types.includes("text/uri-list");

/** Whether a drop is left to the browser: of text, or of a link into a text field. */
const isLeft = (event) =>
  !carriesFiles(event) && !(carriesAddress(event) && !event.target.closest?.("input, textarea"));

function enter(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth += 1;
  overlay.hidden = false;
  const dialog = document.querySelector("dialog:modal");
  (dialog ?? document.body).append(overlay); // also above an open dialog
}

function over(event) {
  if (isLeft(event) && !carriesAddress(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
}

function leave(event) {
  if (!carriesFiles(event)) return;
  depth -= 1;
  if (depth <= 0) hide();
}

function drop(event) {
  const { dataTransfer } = event;
  const isPicture = carriesAddress(event) && /<img\b/i.test(dataTransfer.getData("text/html"));
  if (isLeft(event) && !isPicture) return;
  event.preventDefault(); // otherwise the browser opens the file or the address
  hide();
  const folder = [...dataTransfer.items]
    .map((item) => (item.kind === "file" ? item.webkitGetAsEntry?.() : null))
    .find((entry) => entry?.isDirectory);
  const files = [...dataTransfer.files];
  if (folder) complain("drop.folder", { name: printable(folder.name) });
  if (files.length) offer(files.filter((file) => file.name !== folder?.name));
  else if (!folder) refuseAddress(dataTransfer.getData("text/uri-list"), isPicture);
}

/** Say why an address is no picture to search by. */
function refuseAddress(addresses, isPicture) {
  const [first = ""] = addresses.split(/\r?\n/).filter((line) => line && !line.startsWith("#"));
  const isImage = isPicture || NAMES.test(first.replace(/[?#].*$/, ""));
  if (!first || /^file:/i.test(first)) complain("drop.no_file");
  else complain(isImage ? "drop.from_page" : "drop.link");
}

function hide() {
  depth = 0;
  overlay.hidden = true;
}

/** Take pasted files; leave pasted text to the text field. */
function paste(event) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  offer(files);
}

/** Pass on pictures, and tell which files cannot be used. */
function offer(files) {
  const pictures = files.filter((file) => isPicture(file) && file.size <= LARGEST);
  const refused = files.filter((file) => !isPicture(file));
  const large = files.find((file) => isPicture(file) && file.size > LARGEST);
  if (refused.length) {
    const key = refused.length > 1 ? "drop.not_pictures" : "drop.not_picture";
    complain(key, { name: printable(refused[0].name), count: refused.length });
  }
  if (large) complain("drop.too_large", { name: printable(large.name) });
  if (pictures.length > MOST) complain("drop.too_many", { count: MOST });
  if (!pictures.length) return;
  for (const dialog of document.querySelectorAll("dialog:modal")) dialog.close();
  emit("pictures", { files: pictures.slice(0, MOST) });
}

const isPicture = (file) => file.type.startsWith("image/") || NAMES.test(file.name);

const complain = (key, params) => emit("toast", { text: t(key, params), kind: "error" });
