/**
 * What the parts of a query mean, in words: labels of filters, their days, names of pictures.
 *
 * All of it is learnt from the server's answers. Until one is there, a filter is called by its text.
 */

import * as format from "../page/format.js";
import { printable } from "../page/dom.js";
import { knows, t } from "../page/i18n.js";
import { isFilter, isTerm, items } from "./querytext.js";

const MOST = 1000; // values remembered

const known = new Map(); // key and value as typed -> {value, name} as the server has read them
const days = new Map(); // text of a filter -> {first, last}
const pictures = new Map(); // image id -> file name

/** Learn from the answer to a query; return whether something is new. */
export function learn(text, { filters = [], likes = [] }) {
  let isNew = false;
  const note = (map, key, value) => {
    if (JSON.stringify(map.get(key)) === JSON.stringify(value)) return;
    map.set(key, value);
    if (map.size > MOST) map.delete(map.keys().next().value);
    isNew = true;
  };
  const found = items(text).filter(isFilter);
  if (found.length === filters.length) {
    for (const [index, { value, name, first, last }] of filters.entries()) {
      note(known, nameOf(found[index]), { value, name });
      note(days, found[index].text, { first, last });
    }
  }
  for (const { image_id: id, name } of likes) note(pictures, `${id}`, name);
  return isNew;
}

const nameOf = ({ key, value }) => `${key}:${value}`;

/** The name of the picture with this id, or of a video and a time in it: "12", "12@1:23". */
export function picture(value) {
  const [id, time] = value.split("@");
  const name = pictures.has(id) ? printable(pictures.get(id)) : t("chip.image", { id });
  return time ? `${name} · ${time.split(".")[0]}` : name;
}

/** The first and the last day that a filter leaves pictures of, "2019-07-01" or null. */
export function bounds(item) {
  if (days.has(item.text)) return days.get(item.text);
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(item.value) && item.sign === "-"; // as the menus write it
  return {
    first: isDay && item.key === "before" ? item.value : null,
    last: isDay && item.key === "after" ? item.value : null,
  };
}

/** What a filter is about: the name of a folder or format, otherwise its value. */
export function subject(item) {
  const { name } = known.get(nameOf(item)) ?? { name: item.value };
  return printable(item.key === "in" ? (name.replace(/\/+$/, "").split("/").pop() || name) : name);
}

const SIZES = { ">": "over", ">=": "at_least", "<": "under", "<=": "at_most" };

/** By key: the label of an item whose value the server has read as `value`. */
const labels = {
  in: (value, item) => t("chip.in", { name: subject(item) }),
  place: (value) => t("chip.taken_in", { name: value }),
  tag: (value, item) => t("chip.tag", { name: subject(item) }),
  name: (value) => t("chip.named", { name: value }),
  text: (value) => t("chip.shows", { words: value }),
  on: (value) => dated(value),
  before: (value, { sign }) => t(sign ? "chip.since" : "chip.before", { date: dated(value) }),
  after: (value, { sign }) => t(sign ? "chip.until" : "chip.after", { date: dated(value) }),
  is: (value) => (knows(`chip.is.${value}`) ? t(`chip.is.${value}`) : value),
  size: (value) => {
    const [, sign, number, unit] = value.match(/^([<>]=?)([\d.]+)(\w+)$/) ?? [];
    if (!(sign in SIZES)) return value;
    return t(`chip.${SIZES[sign]}`, { size: `${format.number(Number(number))} ${unit}` });
  },
  longer: (value) => t("chip.longer", { length: format.lengthInWords(value) }),
  near: (value) => {
    const [latitude, longitude, far] = value.split(",");
    const [, number, unit] = far?.match(/^([\d.]+)(k?m)$/) ?? [];
    if (!unit) return value;
    const place = format.coordinates(Number(latitude), Number(longitude), 2);
    return t("chip.near", { far: `${format.number(Number(number))} ${unit}`, place });
  },
};

const isBound = ({ key }) => key === "before" || key === "after";

/** Whether a filter is shown as one that leaves out: "since 2019" is not, although it is negated. */
export const isTurned = (item) => item.sign === "-" && !isBound(item);

/** The short label of a filter, in the page's language. */
export function label(item) {
  const value = known.get(nameOf(item))?.value ?? item.value;
  const said = item.key in labels ? printable(labels[item.key](value, item)) : subject(item);
  return isTurned(item) ? t("chip.not", { filter: said }) : said;
}

/** A year, a month or a day, with the month's name. */
function dated(value) {
  const said = value.length === 10 ? format.day(value) : format.date(value);
  return said || value;
}

/** A query as the title of the page: its terms as they are written, its filters by their labels. */
export function title(text) {
  const found = items(text);
  const terms = found.filter((item) => isTerm(item)).map((item) => item.text).join(" ");
  return [printable(terms), ...found.filter(isFilter).map(label)].filter(Boolean).join(", ") || text;
}
