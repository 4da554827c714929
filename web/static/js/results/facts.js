/** The facts beside a picture in the picture view. */

import { copyText } from "../page/clipboard.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit } from "../page/store.js";

/**
 * Fill the `parts` of the view from the document of an image, and from its `hit` in a search, if
 * any; `jump(id, hits)` shows a similar picture.
 */
export function showFacts(parts, about, { jump, hit }) {
  parts.folder.textContent = printable(about.folder ?? "");
  parts.offline.hidden = !about.offline;
  parts.facts.replaceChildren(...matchRows(hit), ...rows(about), ...placeRows(about));
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

/** How likely the picture matches the search. */
function matchRows(hit) {
  const isRated = hit?.likelihood !== null && hit?.likelihood !== undefined;
  const said = [isRated && format.percent(hit.likelihood), hit?.by_name && t("hits.by_name")];
  const text = said.filter(Boolean).join(" · ");
  return text ? row("fact.match", text) : [];
}

function rows(about) {
  const size = [
    about.width && format.pixels(about.width, about.height),
    about.bytes && format.bytes(about.bytes),
  ];
  const values = [
    ["fact.changed", about.changed_at && format.date(about.changed_at)],
    ["fact.size", size.filter(Boolean).join(" · ")],
    ["fact.format", about.format],
    ["fact.damaged", about.damaged && damage(about.damaged)],
    ["fact.camera", about.camera],
    ["fact.lens", about.lens],
    ["fact.exposure", exposure(about)],
  ];
  const shown = values
    .filter(([, value]) => value)
    .flatMap(([name, value]) => row(name, printable(value)));
  return [...dateRows(about), ...shown];
}

/** Where a date comes from, by the end of the tag's name. */
const SOURCES = {
  taken: ["DateTimeOriginal", "DateCreated", "Creation Time"],
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
  if (!source) return row("fact.date", text);
  const name = source.replace(/^(XMP|IPTC|PNG) /, "");
  const [kind] = Object.entries(SOURCES).find(([, names]) => names.includes(name)) ?? ["metadata"];
  const isTag = !["name", "file", "metadata"].includes(kind);
  const origin = element("small", isTag ? { title: source } : {}, t(`dated.${kind}`));
  return row("fact.date", text, origin);
}

const damages = {
  "its fine detail is missing": "damage.coarse",
  "its colours are missing": "damage.colours",
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

function exposure({ exposure: seconds, f_number: stop, iso, focal_length: length }) {
  const said = [
    format.exposureTime(seconds),
    stop && `f/${format.number(stop)}`,
    length && `${format.number(length)} mm`,
    iso && `ISO ${iso}`,
  ];
  return said.filter(Boolean).join(" · ");
}

/** Coordinates. A map service would learn them, so its link appears only on request. */
function placeRows({ latitude, longitude, altitude }) {
  if (latitude === null || latitude === undefined) return [];
  const height = altitude
    ? ` · ${t("fact.metres", { count: format.number(Math.round(altitude)) })}`
    : "";
  const place = `${format.coordinates(latitude, longitude)}${height}`;
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
  return row("fact.place", element("span", {}, place), ask);
}

function mapLink(latitude, longitude) {
  const [north, east] = [latitude.toFixed(5), longitude.toFixed(5)];
  const href = `https://www.openstreetmap.org/?mlat=${north}&mlon=${east}#map=15/${north}/${east}`;
  const properties = { class: "link", href, target: "_blank", rel: "noopener noreferrer" };
  return element("a", properties, "openstreetmap.org");
}

function labelItem({ label, probability }) {
  const bar = element("span", { class: "label-bar", "aria-hidden": "true" });
  bar.style.transform = `scaleX(${probability})`;
  const href = `?${new URLSearchParams({ q: label })}`;
  const link = element("a", { href }, label);
  return element("li", {}, bar, link, element("span", {}, format.percent(probability)));
}

function copyItem(path) {
  const name = printable(path);
  const copy = async () => {
    await copyText(path).then(
      () => emit("toast", { text: t("detail.path_copied") }),
      () => emit("toast", { text: t("copy.refused"), kind: "error" }),
    );
  };
  const label = t("detail.copy_this", { path: name });
  const button = element(
    "button",
    { type: "button", class: "link", "aria-label": label, onclick: copy },
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
