/** Recent queries, kept by this browser alone: never sent to the server until they are chosen. */

import * as api from "../page/api.js";

const KEY = `fovea.recent${api.at("")}`;
const MOST = 20;
const LONGEST = 200; // characters of a query that is worth keeping

/** All of them, the newest first. */
export function all() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((text) => typeof text === "string").slice(0, MOST) : [];
  } catch {
    return []; // storage is switched off, or holds something else
  }
}

export function remember(text) {
  if (!text || text.length > LONGEST) return;
  write([text, ...all().filter((known) => known !== text)].slice(0, MOST));
}

export const clear = () => write([]);

function write(texts) {
  try {
    if (texts.length) localStorage.setItem(KEY, JSON.stringify(texts));
    else localStorage.removeItem(KEY);
  } catch {
    // Storage is full or switched off: the page works without it.
  }
}

/** Up to `most` that begin with what is typed, whatever its case, but are not the `present` query. */
export function beginning(typed, present, most) {
  const wanted = typed.toLocaleLowerCase();
  return all()
    .filter((text) => text !== present && text.toLocaleLowerCase().startsWith(wanted))
    .slice(0, most);
}
