/** The terms and filters of a query as chips, which change them and remove them. */

import { at } from "../page/api.js";
import { element, printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import * as meaning from "./meaning.js";
import { isFilter, isTerm, items, joined, written } from "./querytext.js";

const WEIGHTS = [0.25, 0.5, 1, 2, 4];

let box;
let change; // called with the new text of the query
let changePictures; // called with the new list of pictures
let edit; // called with a filter that somebody wants to write otherwise

/**
 * `onText(text)` is called with a changed query, `onPictures(pictures)` with changed pictures,
 * `onEdit(item)` with a filter whose text is to be edited.
 */
export function start({ onText, onPictures, onEdit }) {
  box = document.getElementById("chips");
  change = onText;
  changePictures = onPictures;
  edit = onEdit;
}

/**
 * Show the terms of what is `typed`, the `pictures` and the `filters`, texts of those that are not
 * typed. A single plain term has no chip.
 */
export function show({ typed, filters, pictures }) {
  const list = items(typed);
  const beside = filters.flatMap(items);
  const terms = list.filter(isTerm);
  const isPlain = terms.length < 2 && terms.every((item) => item.isPlain) && !pictures.length;
  const chips = isPlain ? [] : terms.map((item) => ofTerm(item, [...list, ...beside]));
  chips.push(...pictures.map((picture) => ofPicture(picture, pictures)));
  chips.push(...beside.filter(isFilter).map((item) => ofFilter(item, [...list, ...beside])));
  const place = placeOfFocus();
  box.replaceChildren(...chips);
  box.hidden = !chips.length;
  if (place) focusAt(place);
}

/** Which control of which chip has the focus; null if none has. */
function placeOfFocus() {
  const { activeElement } = document;
  const index = [...box.children].findIndex((chip) => chip.contains(activeElement));
  return index < 0 ? null : { index, control: activeElement.className };
}

/** Focus the same control of the new chip there, or the search box if no chip is left. */
function focusAt({ index, control }) {
  const chip = box.children[Math.min(index, box.children.length - 1)];
  (chip?.querySelector(`.${control}`) ?? document.querySelector("input[name=q]")).focus();
}

function ofTerm(item, list) {
  const isImage = item.key === "like";
  const name = isImage ? meaning.picture(item.value) : item.value;
  const put = (changes) => {
    item.text = changes ? written({ ...item, sign: item.sign || "+", ...changes }) : "";
    change(joined(list.filter((other) => other.text)));
  };
  const [, id] = (isImage && /^(\d+)(?:@|$)/.exec(item.value)) || [];
  const picture = id ? likeness(id) : null;
  return chip(name, picture, item.sign === "-", item.weight, {
    turn: () => put({ sign: item.sign === "-" ? "+" : "-" }),
    weigh: (weight) => put({ weight }),
    remove: () => put(null),
  });
}

function ofFilter(item, list) {
  const isNegative = item.sign === "-";
  const bare = item.text.slice(item.sign.length);
  const turned = { ...item, sign: isNegative ? "" : "-", text: isNegative ? bare : `-${bare}` };
  const put = (text) => {
    item.text = text;
    change(joined(list.filter((other) => other.text)));
  };
  const name = meaning.label(item);
  const isTurned = meaning.isTurned(item);
  const sign = element(
    "button",
    {
      class: "chip-sign",
      type: "button",
      "aria-label": t("chip.turn", { term: name, other: meaning.label(turned) }),
      title: t("chip.turn", { term: name, other: meaning.label(turned) }),
      onclick: () => put(turned.text),
    },
    isTurned ? "−" : "+",
  );
  const label = element(
    "button",
    {
      class: "chip-name",
      type: "button",
      title: t("chip.edit", { text: printable(item.text) }),
      onclick: () => edit(item),
    },
    element("bdi", {}, name),
  );
  return element(
    "li",
    { class: isTurned ? "chip is-filter is-negative" : "chip is-filter" },
    sign,
    label,
    remover(name, () => put("")),
  );
}

const likeness = (id) =>
  element("img", { src: at(`/api/images/${id}/thumbnail?size=256`), alt: "", class: "chip-picture" });

function ofPicture(picture, pictures) {
  const image = element("img", { src: picture.address, alt: "", class: "chip-picture" });
  image.addEventListener("error", () => image.remove()); // a format that the browser does not support
  const others = pictures.filter((other) => other !== picture);
  const put = (weight) =>
    changePictures(pictures.map((other) => (other === picture ? { ...picture, weight } : other)));
  const weight = Math.abs(picture.weight);
  return chip(printable(picture.file.name || "…"), image, picture.weight < 0, weight, {
    turn: () => put(-picture.weight),
    weigh: (number) => put(Math.sign(picture.weight) * number),
    remove: () => changePictures(others),
  });
}

function chip(name, picture, isNegative, weight, { turn, weigh, remove }) {
  const sign = element(
    "button",
    {
      class: "chip-sign",
      type: "button",
      "aria-label": t("chip.negate", { term: name }),
      "aria-pressed": String(isNegative),
      title: t(isNegative ? "chip.is_less" : "chip.is_more", { term: name }),
      onclick: turn,
    },
    isNegative ? "−" : "+",
  );
  return element(
    "li",
    { class: isNegative ? "chip is-negative" : "chip" },
    sign,
    picture,
    element("bdi", { class: "chip-name" }, name),
    weights(name, weight, weigh),
    remover(name, remove),
  );
}

function remover(name, remove) {
  return element(
    "button",
    {
      class: "chip-remove",
      type: "button",
      "aria-label": t("chip.remove", { term: name }),
      title: t("chip.remove", { term: name }),
      onclick: remove,
    },
    "×",
  );
}

function weights(name, weight, weigh) {
  const known = WEIGHTS.includes(weight) ? WEIGHTS : [...WEIGHTS, weight].sort((a, b) => a - b);
  const options = known.map((number) =>
    element("option", { value: number, selected: number === weight }, `×${number}`),
  );
  return element(
    "select",
    {
      class: "chip-weight",
      "aria-label": t("chip.weight", { term: name }),
      onchange: (event) => weigh(Number(event.target.value)),
    },
    ...options,
  );
}
