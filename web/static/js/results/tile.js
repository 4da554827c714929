/** One picture of the grid, and the headings between the pictures, as elements. */

import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { shapeOf } from "./layout.js";

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
  return put(element("div", { class: "tile", dataset: data }, link, check), place);
}

/** A heading of a `kind`, "day" or "line", at `place`. */
export const heading = (text, kind, place) =>
  put(element("h2", { class: `grid-${kind}` }, element("span", {}, text)), place);

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
    onerror: (event) => event.target.replaceWith(element("bdi", { class: "tile-name" }, name)),
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
    hit.by_name ? badge(t("hits.by_name"), "is-mark") : null,
  );
}

function described(hit, name) {
  const parts = [name];
  if (isRated(hit)) parts.push(t("hits.likelihood", { percent: format.percent(hit.likelihood) }));
  if (hit.by_name) parts.push(t("hits.by_name"));
  if (hit.offline) parts.push(t("hits.offline"));
  return parts.join(", ");
}

function put(made, place) {
  made.style.transform = `translate(${place.left}px, ${place.top}px)`;
  made.style.width = `${place.width}px`;
  made.style.height = `${place.height}px`;
  return made;
}
