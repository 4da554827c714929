/** Search by picture: files that are dropped, pasted or chosen. */

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

function enter(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth += 1;
  overlay.hidden = false;
  const dialog = document.querySelector("dialog:modal");
  (dialog ?? document.body).append(overlay); // also above an open dialog
}

function over(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
}

function leave(event) {
  if (!carriesFiles(event)) return;
  depth -= 1;
  if (depth <= 0) hide();
}

function drop(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault(); // otherwise the browser opens the file
  hide();
  offer([...event.dataTransfer.files]);
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
  const refused = files.find((file) => !isPicture(file));
  const large = files.find((file) => isPicture(file) && file.size > LARGEST);
  if (refused) complain("drop.not_picture", { name: refused.name });
  if (large) complain("drop.too_large", { name: large.name });
  if (pictures.length > MOST) complain("drop.too_many", { count: MOST });
  if (!pictures.length) return;
  for (const dialog of document.querySelectorAll("dialog:modal")) dialog.close();
  emit("pictures", { files: pictures.slice(0, MOST) });
}

const isPicture = (file) => file.type.startsWith("image/") || NAMES.test(file.name);

const complain = (key, params) => emit("toast", { text: t(key, params), kind: "error" });
