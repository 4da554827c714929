/** One picture of the grid, and the headings between the pictures, as elements. */

import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { standIn } from "../page/standin.js";
import { foundBy } from "../grid/hits.js";
import { shapeOf } from "../grid/rows.js";
import { emit, on } from "../page/store.js";

const FEW_NAMED = 6; // hits that are marked although nothing points at them
const NARROW = [5, 7, 8]; // rem: widths below which a tile has no room for some of its buttons
const REM = parseFloat(getComputedStyle(document.documentElement).fontSize); // CSS pixels

/** Where many names match, as in a folder of that name, a mark on each of them says little. */
export function start() {
  on("hits", ({ hits }) => {
    const named = hits.filter((hit) => hit?.by_name).length;
    document.getElementById("grid").classList.toggle("has-many-names", named > FEW_NAMED);
  });
}

/** The tile of a hit at `place`, {left, top, width, height}. */
export function tile(hit, index, place) {
  const name = printable(hit.name);
  const link = element(
    "a",
    {
      class: "tile-open",
      href: `${location.search || "?q="}#image-${hit.image_id}`,
      tabindex: -1,
      "aria-label": described(hit, name),
      title: name,
    },
    picture(hit, place.width, name),
    badges(hit),
  );
  const check = element("button", {
    class: "tile-check",
    type: "button",
    role: "checkbox",
    tabindex: -1,
    "aria-checked": "false",
    "aria-label": t("hits.select", { name }),
  });
  const data = { index, imageId: hit.image_id };
  const narrow = NARROW.filter((width) => place.width < width * REM).map((width) => `is-below-${width}`);
  const made = element("div", { class: ["tile", ...narrow].join(" "), dataset: data }, link, check);
  return put(made, place);
}

/** A heading of a `kind`, "day" or "line", at `place`, which says where a day begins: `first`. */
export function heading(text, kind, place) {
  const data = place.first === undefined ? {} : { first: place.first };
  const made = element("h2", { class: `grid-${kind}`, dataset: data }, element("span", {}, text));
  emit("heading", made);
  return put(made, place);
}

function picture(hit, wide, name) {
  const sized = (size) => `${hit.thumbnail}&size=${size}`;
  const times = Math.max(1, shapeOf(hit)); // a thumbnail's size is that of its short side
  return element("img", {
    src: sized(256),
    srcset: [256, 512].map((size) => `${sized(size)} ${Math.round(size * times)}w`).join(", "),
    sizes: `${Math.ceil(wide)}px`,
    alt: "",
    decoding: "async",
    draggable: false,
    onerror: (event) => standIn(event.target, element("bdi", { class: "tile-name" }, name)),
  });
}

const isRated = (hit) => hit.likelihood !== null && hit.likelihood !== undefined;

/** What is known about a hit: how likely it matches, whether it is offline, whether its name matches. */
function badges(hit) {
  const badge = (text, kind) => element("span", { class: `tile-badge ${kind}` }, text);
  return element(
    "span",
    { class: "tile-badges" },
    isRated(hit) ? badge(format.percent(hit.likelihood), "is-likelihood") : null,
    hit.offline ? badge(t("hits.offline"), "is-mark") : null,
    ...foundBy(hit).map((field) => badge(t(`hits.${field}`), `is-mark is-${field.replace("_", "-")}`)),
    isVideo(hit) ? timed(hit) : null,
  );
}

const isVideo = ({ duration }) => duration !== null && duration !== undefined;

/** The time of a video's moment and its length, "▶ 1:23 / 4:05", less of it on narrow tiles. */
function timed({ time, duration }) {
  const part = (text, name) => element("span", { class: name }, text);
  const length = format.clock(duration);
  const said = time === null || time === undefined ? [length] : [format.clock(time), part(` / ${length}`, "tile-length")];
  return element("span", { class: "tile-badge is-video" }, part("▶ ", "tile-play"), ...said);
}

/** The same in words. */
function spoken({ time, duration }) {
  const length = format.clock(duration);
  if (time === null || time === undefined) return t("hits.video", { length });
  return t("hits.moment", { time: format.clock(time), length });
}

function described(hit, name) {
  const parts = [name];
  if (isRated(hit)) parts.push(t("hits.likelihood", { percent: format.percent(hit.likelihood) }));
  parts.push(...foundBy(hit).map((field) => t(`hits.${field}`)));
  if (isVideo(hit)) parts.push(spoken(hit));
  if (hit.offline) parts.push(t("hits.offline"));
  return parts.join(", ");
}

function put(made, place) {
  made.style.transform = `translate(${place.left}px, ${place.top}px)`;
  made.style.width = `${place.width}px`;
  made.style.height = `${place.height}px`;
  return made;
}
