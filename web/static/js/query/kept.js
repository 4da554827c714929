/**
 * The pictures of a search. The server keeps each for a while by its SHA-256, so that the address
 * can name it: a reload, going back and another tab find the same pictures.
 */

import * as api from "../page/api.js";
import { printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { emit } from "../page/store.js";

const MOST = 8; // pictures in one query
const KNOWN = 24; // files and names that are remembered
const NAMES = "picture-names"; // in sessionStorage: [[sha256, name]]
const WRITTEN = /^(-?)(?:([0-9.]+):)?([0-9a-f]{64})$/;

const files = new Map(); // sha256 -> File, of pictures that this page has sent

/** The pictures in the address: [{sha256, file: {name}, address, weight}]. */
export function inAddress() {
  const text = new URLSearchParams(location.search).get("pictures") ?? "";
  const found = text.split(",").map((part) => WRITTEN.exec(part));
  return found.filter(Boolean).map(([, sign, weight, sha256]) => {
    const size = weight ? Number(weight) : 1;
    return picture(sha256, { name: names().get(sha256) ?? t("chip.kept") }, sign ? -size : size);
  });
}

const picture = (sha256, file, weight) => ({
  sha256,
  file,
  weight,
  address: api.at(`/api/pictures?sha256=${sha256}`),
});

/** How the pictures stand in an address and in a request: "HASH,-2:HASH". */
export const written = (pictures) =>
  pictures
    .map(({ sha256, weight }) => {
      const size = Math.abs(weight);
      return `${weight < 0 ? "-" : ""}${size === 1 ? "" : `${size}:`}${sha256}`;
    })
    .join(",");

/** The address of a search by words and pictures. */
export function addressOf(text, pictures) {
  const values = text ? [new URLSearchParams({ q: text }).toString()] : [];
  if (pictures.length) values.push(`pictures=${written(pictures)}`);
  return location.pathname + (values.length ? `?${values.join("&")}` : "");
}

/** Have the server keep `chosen` files beside `count` other pictures; return those it could read. */
export async function keep(chosen, count) {
  const room = MOST - count;
  if (chosen.length > room) complain(t("drop.too_many", { count: MOST }));
  const sent = chosen.slice(0, Math.max(room, 0)).map(async (file) => {
    try {
      const { sha256 } = await api.keepPicture(file);
      remember(sha256, file);
      return picture(sha256, file, 1);
    } catch (error) {
      const isUnreadable = error.code === "picture";
      complain(isUnreadable ? t("drop.unreadable", { name: printable(file.name) }) : error.message);
      return null;
    }
  });
  return (await Promise.all(sent)).filter(Boolean);
}

/** Search; where the server has forgotten a picture that this page still has, send it again. */
export async function search(text, pictures, options) {
  const ask = () => api.search(text, { pictures: written(pictures), ...options });
  try {
    return await ask();
  } catch (error) {
    const known = pictures.map(({ sha256 }) => files.get(sha256));
    if (error.code !== "picture_gone" || !known.every(Boolean)) throw error;
    await Promise.all(known.map(api.keepPicture));
    return ask();
  }
}

/** The message of an error; the server does not know the names of pictures, the page does. */
export function worded({ code, params, message }, pictures) {
  const gone = code === "picture_gone" && pictures[params.number - 1];
  return gone ? t("hits.picture_gone", { name: printable(gone.file.name) }) : message;
}

function remember(sha256, file) {
  files.delete(sha256);
  files.set(sha256, file);
  while (files.size > KNOWN) files.delete(files.keys().next().value);
  const known = [...names()].filter(([other]) => other !== sha256);
  try {
    sessionStorage.setItem(NAMES, JSON.stringify([...known, [sha256, file.name]].slice(-KNOWN)));
  } catch {
    // without storage, a reload shows no names
  }
}

function names() {
  try {
    return new Map(JSON.parse(sessionStorage.getItem(NAMES) ?? "[]"));
  } catch {
    return new Map();
  }
}

const complain = (text) => emit("toast", { text, kind: "error" });
