/** One group: its pictures side by side, the best first, and what the others lack beside it. */

import * as chosen from "../results/chosen.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { neighboursOf } from "../results/walks.js";
import { standIn } from "../page/standin.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const AT_FIRST = 12; // pictures of a group
const WHY = ["whole", "pixels", "date", "camera", "place", "format", "sharpness", "quality"];

const shown = new WeakMap(); // the element of a group -> {best, others, list}

export function start(list) {
  list.addEventListener("click", clicked);
  list.addEventListener("change", ({ target }) => {
    const one = target.closest(".copy");
    if (one) toggle(one);
  });
  on("select", () => {
    for (const group of list.children) dress(group);
  });
}

/** The element of a group, the one at `index` of `total`. */
export function groupOf(group, index, total) {
  const pictures = distinct([group.best, ...group.others]);
  const title = `copies-group-${index}`;
  const hidden = pictures.length - AT_FIRST;
  const rest = group.count - group.others.length;
  const said = t(`copies.group.${group.kind}`, { count: format.number(group.count + 1) });
  const size = format.bytes([...group.others].reduce((sum, { bytes }) => sum + bytes, 0));
  const others = pictures.slice(1);
  const made = element(
    "li",
    { class: "copies-group", "aria-posinset": index + 1, "aria-setsize": total, "aria-labelledby": title },
    element(
      "div",
      { class: "copies-head" },
      element("h3", { id: title }, said, element("span", { class: "copies-size" }, t("copies.others_take", { size }))),
      others.length
        ? element(
            "button",
            { class: "button small", type: "button", dataset: { action: "select-group" }, "aria-pressed": "false", "aria-describedby": title },
            t("copies.select_group"),
          )
        : null,
    ),
    element("ul", { class: "copies-row" }, ...pictures.slice(0, AT_FIRST).map((one) => picture(one, group))),
    hidden > 0
      ? element(
          "button",
          { class: "button small", type: "button", dataset: { action: "show-rest" } },
          t("copies.show_rest", { count: format.number(hidden) }),
        )
      : null,
    rest > 0 ? element("p", { class: "copies-note" }, t("copies.not_shown", { count: format.number(rest) })) : null,
  );
  const list = neighboursOf(pictures.map(({ file }) => file));
  shown.set(made, { group, pictures, others: others.map(({ file }) => file), list });
  dress(made);
  return made;
}

/** Each picture once, {file, paths}: files with the same content are one picture. */
function distinct(files) {
  const found = new Map();
  for (const file of files) {
    const known = found.get(file.image_id);
    if (known) known.paths.push(file.path);
    else found.set(file.image_id, { file, paths: [] });
  }
  return [...found.values()];
}

function picture({ file, paths }, { best, others, kind }) {
  const isBest = file === best;
  const name = printable(file.name);
  const folder = printable(file.path.slice(0, -file.name.length).replace(/(.)[/\\]$/, "$1"));
  const size = file.width && file.height ? format.pixels(file.width, file.height) : null;
  const facts = [size, file.format, format.bytes(file.bytes)].filter(Boolean).join(" · ");
  const why = isBest ? reasons(best, others, kind) : lacks(file);
  return element(
    "li",
    { class: isBest ? "copy is-best" : "copy", dataset: { imageId: file.image_id } },
    element(
      "a",
      { class: "copy-open", href: `#image-${file.image_id}`, "aria-label": `${name}, ${isBest ? t("copies.best") : why}` },
      image(file, name),
    ),
    element(
      "div",
      { class: "copy-facts" },
      element("p", { class: "copy-why" }, isBest ? element("strong", {}, t("copies.best")) : null, isBest ? ` ${why}` : why),
      element("p", { class: "copy-name" }, element("bdi", {}, name)),
      element("p", { class: "copy-folder", title: folder }, element("bdi", {}, folder)),
      element("p", {}, facts),
      file.taken_at ? element("p", {}, format.day(file.taken_at)) : null,
      file.offline ? element("p", {}, t("hits.offline")) : null,
      paths.length ? same(paths) : null,
      element(
        "label",
        { class: "copy-select" },
        element("input", { type: "checkbox", "aria-label": t("hits.select", { name }) }),
        element("span", { "aria-hidden": "true" }, t("copies.select")),
      ),
    ),
  );
}

function image(file, name) {
  return element("img", {
    src: `${file.thumbnail}&size=256`,
    srcset: `${file.thumbnail}&size=256 1x, ${file.thumbnail}&size=512 2x`,
    alt: "",
    width: file.width || 256,
    height: file.height || 256,
    loading: "lazy",
    decoding: "async",
    draggable: false,
    onerror: (event) => standIn(event.target, element("bdi", { class: "copy-name" }, name)),
  });
}

function same(paths) {
  const lines = paths.map((path) => element("li", {}, element("bdi", {}, printable(path))));
  const count = format.number(paths.length);
  return element("details", { class: "copy-same" }, element("summary", {}, t("copies.also", { count })), element("ul", {}, ...lines));
}

const list = new Intl.ListFormat(document.documentElement.lang || "en", { style: "long", type: "unit" });

const lacks = (file) =>
  file.lacks.length ? list.format(file.lacks.map((name) => t(`copies.lacks.${name}`))) : t("copies.as_good");

/** Why the best is the best: what another one lacks. */
function reasons(best, others, kind) {
  const names = WHY.filter((name) => others.some((one) => one.lacks.includes(name)));
  if (names.length) return list.format(names.map((name) => t(`copies.why.${name}`)));
  if (others.every((one) => one.image_id === best.image_id)) return t("copies.why.same");
  return t(kind === "burst" ? "copies.why.sharpness" : "copies.why.bytes");
}

// Selecting

function clicked(event) {
  const { target } = event;
  const group = target.closest(".copies-group");
  const { action } = target.closest("[data-action]")?.dataset ?? {};
  if (action === "select-group") selectOthers(group);
  else if (action === "show-rest") showRest(group, target);
  else if (target.closest(".copy-open") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    const image_id = Number(target.closest(".copy").dataset.imageId);
    emit("open", { image_id, list: shown.get(group).list });
  }
}

/** Select all but the best of a group, and that not; if they are selected, deselect them. */
export function selectOthers(group) {
  const { others, group: whole } = shown.get(group);
  if (!others.length) return;
  const isOn = !areSelected(others);
  if (isOn) chosen.putAll([whole.best], false);
  chosen.putAll(others, isOn);
}

export function toggle(one) {
  const id = Number(one.dataset.imageId);
  const { pictures } = shown.get(one.closest(".copies-group"));
  chosen.toggle(pictures.find(({ file }) => file.image_id === id).file, -1);
}

const areSelected = (files) => files.every((file) => chosen.has(file.image_id));

function dress(group) {
  const { others } = shown.get(group);
  const isAll = others.length > 0 && areSelected(others);
  group.querySelector("[data-action=select-group]")?.setAttribute("aria-pressed", String(isAll));
  for (const one of group.querySelectorAll(".copy")) {
    const isOn = chosen.has(Number(one.dataset.imageId));
    one.classList.toggle("is-selected", isOn);
    one.querySelector("input").checked = isOn;
  }
}

function showRest(group, button) {
  const { pictures, group: whole } = shown.get(group);
  const made = pictures.slice(AT_FIRST).map((one) => picture(one, whole));
  group.querySelector(".copies-row").append(...made);
  dress(group);
  button.remove();
  made[0].querySelector(".copy-open").focus();
}
