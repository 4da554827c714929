/** The facts beside a picture in the picture view. */

import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { inLanguage, t } from "../page/i18n.js";
import { foundBy } from "../grid/hits.js";
import { copyPath } from "./file.js";
import { quoted } from "../query/querytext.js";
import { showTags } from "./tags.js";

/**
 * Fill the `parts` of the view from the document of an image, and from its `hit` in a search, if
 * any; `jump(id, hits)` shows a similar picture.
 */
export function showFacts(parts, about, { jump, hit }) {
  const folder = about.folder ?? "";
  parts.folder.replaceChildren(linkTo(folder && `in:${quoted(folder)}`, printable(folder)));
  parts.offline.hidden = !about.offline;
  parts.facts.replaceChildren(...matchRows(hit), ...rows(about), ...nearRows(about), ...placeRows(about));
  showTags(parts, about);
  fill(parts.labels, about.labels ?? [], labelItem);
  fill(parts.copies, (about.paths ?? []).slice(1), copyItem);
  fill(parts.similar, about.similar ?? [], (hit, hits) =>
    neighbourItem(hit, () => jump(hit.image_id, hits)),
  );
}

/** Fill the list of a section, or hide the section if it is empty. */
function fill(list, items, made) {
  list.closest("section").hidden = items.length === 0;
  list.replaceChildren(...items.map((item) => made(item, items)));
}

const row = (name, ...values) => [element("dt", {}, t(name)), element("dd", {}, ...values)];

const LONGEST = 1000; // characters of a query that fits into the search box
const UNWRITABLE = /[\ud800-\udfff\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/u; // in a query, or an address

/** A link to the pictures that a query finds; mere text where no query names them. */
function linkTo(query, text, data = {}) {
  if (!query || query.length > LONGEST || UNWRITABLE.test(query)) return element("span", {}, text);
  const href = `?${new URLSearchParams({ q: query })}`;
  return element("a", { class: "link", href, dataset: { query, ...data } }, text);
}

/** How likely the picture matches the search. */
function matchRows(hit) {
  const isRated = hit?.likelihood !== null && hit?.likelihood !== undefined;
  const words = foundBy(hit).map((field) => t(`hits.${field}`));
  const text = [...(isRated ? [format.percent(hit.likelihood)] : []), ...words].join(" · ");
  return text ? row("fact.match", text) : [];
}

function rows(about) {
  const size = [
    about.width && format.pixels(about.width, about.height),
    about.bytes && format.bytes(about.bytes),
  ];
  const values = [
    ["fact.changed", about.changed_at && format.date(about.changed_at)],
    ["fact.size", joined(size)],
    ["fact.format", about.format],
    ["fact.duration", about.duration && format.clock(about.duration)],
    ["fact.damaged", about.damaged && damage(about.damaged)],
    ["fact.camera", about.camera, "camera"],
    ["fact.lens", about.lens, "lens"],
    ["fact.exposure", exposure(about)],
  ];
  const shown = values
    .filter(([, value]) => value)
    .flatMap(([name, value, filter]) => row(name, fact(value, filter)));
  return [...dateRows(about), ...shown];
}

const SHORT = 24; // characters that have room in one line

/** A value, unbroken if it is short, and a link to the other pictures that have it. */
function fact(value, filter) {
  const text = printable(value);
  const shown = text.length > SHORT ? text : format.unbroken(text);
  return filter ? linkTo(`${filter}:${quoted(value)}`, shown) : shown;
}

/** Where a date comes from, by the end of the tag's name. */
const SOURCES = {
  taken: ["DateTimeOriginal", "DateCreated", "Creation Time", "creationdate", "creation_time"],
  digitised: ["DateTimeDigitized", "CreateDate", "DigitalCreationDate"],
  edited: ["DateTime", "ModifyDate", "tIME", "date"],
  gps: ["GPSDateStamp", "GPSTimeStamp"],
  name: ["file name"],
  file: ["file time"],
};

/** The date that the picture is sorted by, and in words where it comes from. */
function dateRows({ date, date_source: source }) {
  const text = date && format.date(date);
  if (!text) return [];
  const query = `on:${date.slice(0, 10)}`;
  const link = linkTo(query, text);
  const timeline = linkTo(query, t("detail.timeline"), { date: date.slice(0, 10) });
  timeline.title = `${t("detail.timeline")} (t)`;
  if (!source) return row("fact.date", link, timeline);
  const name = source.replace(/^(XMP|IPTC|PNG) /, "");
  const [kind] = Object.entries(SOURCES).find(([, names]) => names.includes(name)) ?? ["metadata"];
  const isTag = !["name", "file", "metadata"].includes(kind);
  const origin = element("small", isTag ? { title: source } : {}, t(`dated.${kind}`));
  return row("fact.date", link, origin, timeline);
}

const damages = {
  "its fine detail is missing": "damage.coarse",
  "its colours are missing": "damage.colours",
  "its end could not be read in time": "damage.unread",
  "its end is missing": "damage.end",
  "its later frames are missing": "damage.frames",
  "its later pages are missing": "damage.pages",
  "its palette is damaged; colours may be wrong": "damage.palette",
};

/** What is missing of a picture, which the library says in English. */
function damage(said) {
  const found = /^(?:the (lower|upper|left|right) )?(.+?)(?: of it)? is missing$/.exec(said);
  if (damages[said] || !found) return damages[said] ? t(damages[said]) : said;
  const [, edge = "part", share] = found;
  return t(`damage.${edge}`, { share: share.startsWith("less") ? t("damage.less") : share });
}

/** Values in one line, which breaks only between them, behind the dot. */
const joined = (values) => values.filter(Boolean).join("\u00a0· ");

function exposure({ exposure: seconds, f_number: stop, iso, focal_length: length }) {
  const said = [
    format.exposureTime(seconds),
    stop && `f/${format.number(stop)}`,
    length && format.unbroken(`${format.number(length)} mm`),
    iso && format.unbroken(`ISO ${iso}`),
  ];
  return joined(said);
}

/** The nearest town, in words, and a link to the other pictures from there. */
function nearRows({ place }) {
  if (!place) return [];
  const { town, country } = place;
  const query = `place:${quoted([...new Set([town, country])].join(", "))}`;
  return row("fact.near", linkTo(query, t("fact.near_place", place)));
}

/** Coordinates. A map service would learn them, so its link appears only on request. */
function placeRows({ latitude, longitude, altitude }) {
  if (latitude === null || latitude === undefined) return [];
  const high = altitude ? t("fact.metres", { count: format.number(Math.round(altitude)) }) : "";
  const query = `near:${latitude.toFixed(5)},${longitude.toFixed(5)},1km`;
  const place = linkTo(query, format.coordinates(latitude, longitude));
  const ask = element(
    "button",
    { type: "button", class: "link", onclick: reveal },
    t("detail.map_ask"),
  );
  function reveal() {
    const link = mapLink(latitude, longitude);
    ask.replaceWith(link, element("small", {}, t("detail.map_note")));
    link.focus();
  }
  return row("fact.place", place, high ? element("span", {}, format.unbroken(high)) : null, ask);
}

function mapLink(latitude, longitude) {
  const [north, east] = [latitude.toFixed(5), longitude.toFixed(5)];
  const href = `https://www.openstreetmap.org/?mlat=${north}&mlon=${east}#map=15/${north}/${east}`;
  const properties = { class: "link", href, target: "_blank", rel: "noopener noreferrer" };
  return element("a", properties, "openstreetmap.org");
}

function labelItem({ label, label_zh: chinese, probability }) {
  const bar = element("span", { class: "label-bar", "aria-hidden": "true" });
  bar.style.transform = `scaleX(${probability})`;
  const href = `?${new URLSearchParams({ q: label })}`;
  const link = element("a", { href, dataset: { query: label } }, inLanguage(label, chinese));
  return element("li", {}, bar, link, element("span", {}, format.percent(probability)));
}

function copyItem(path) {
  const name = printable(path);
  const label = t("detail.copy_this", { path: name });
  const button = element(
    "button",
    { type: "button", class: "link", "aria-label": label, onclick: () => copyPath(path) },
    t("detail.copy"),
  );
  return element("li", {}, element("bdi", {}, name), button);
}

function neighbourItem(hit, show) {
  const picture = element("img", {
    src: `${hit.thumbnail}&size=256`,
    alt: printable(hit.name ?? hit.path),
    loading: "lazy",
    decoding: "async",
  });
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
    event.preventDefault();
    show();
  };
  return element(
    "li",
    {},
    element("a", { href: `#image-${hit.image_id}`, onclick: press }, picture),
  );
}
