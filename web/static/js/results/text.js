/** The text in a picture, in the picture view: its lines to read and copy, and where they are. */

import { copyText } from "../page/clipboard.js";
import { element, printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { emit } from "../page/store.js";

const SVG = "http://www.w3.org/2000/svg";

let isMarking = false; // stays as it was from picture to picture

/** Fill the section of the view, or hide it where no text is known. */
export function showText(parts, lines) {
  clearText(parts);
  parts.text.closest("section").hidden = !lines.length;
  if (!lines.length) return;
  const marks = drawn(lines);
  parts.picture.append(marks);
  const list = element("ol", { class: "detail-lines", tabIndex: 0, "aria-labelledby": "detail-text" }, ...lines.map((line, at) => lineItem(line, marks, at)));
  parts.text.replaceChildren(element("p", { class: "detail-text-actions" }, copyButton(lines), markButton(marks)), list);
}

/** Take the marks of the picture before from the stage. */
export function clearText(parts) {
  for (const marks of parts.picture.querySelectorAll(".detail-marks")) marks.remove();
}

function copyButton(lines) {
  const copy = () =>
    copyText(lines.map((line) => line.text).join("\n")).then(
      () => emit("toast", { text: t("detail.text_copied") }),
      () => emit("toast", { text: t("copy.refused"), kind: "error" }),
    );
  return element("button", { type: "button", class: "link", onclick: copy }, t("detail.text_copy"));
}

function markButton(marks) {
  const button = element("button", { type: "button", class: "link", onclick: turn }, t("detail.text_mark"));
  const show = () => {
    marks.classList.toggle("is-on", isMarking);
    button.setAttribute("aria-pressed", String(isMarking));
  };
  function turn() {
    isMarking = !isMarking;
    show();
  }
  show();
  return button;
}

/** A line; its place on the picture stands out while the pointer is on it. */
function lineItem(line, marks, at) {
  const point = (isOn) => () => marks.children[at].classList.toggle("is-pointed", isOn);
  return element(
    "li",
    { onpointerenter: point(true), onpointerleave: point(false) },
    element("bdi", {}, printable(line.text)),
  );
}

/** The outlines of the lines, over the whole picture, whatever its size. */
function drawn(lines) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "detail-marks");
  made.setAttribute("viewBox", "0 0 1 1");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  for (const { corners } of lines) {
    const shape = document.createElementNS(SVG, "polygon");
    shape.setAttribute("points", corners.join(" "));
    made.append(shape);
  }
  return made;
}
