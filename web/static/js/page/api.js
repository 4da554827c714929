/** The server's JSON API. Failures are Errors with the members of the server's problem document. */

import { t } from "./i18n.js";
import { refusal } from "./problems.js";

const PAGE = 100; // hits
export const LARGEST_PAGE = 200; // hits in one answer of the server

const prefix = document.documentElement.dataset.prefix ?? ""; // a proxy's, such as "/photos"

/** The address of a path of the server, such as "/api/events". */
export const at = (path) => prefix + path;

async function ask(path, options = {}) {
  const response = await fetch(at(path), options).catch(silent);
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await response.json().catch(() => ({}));
  throw refusal({ title: response.statusText, status: response.status, ...problem });
}

/** The server does not answer, or the page has aborted the request. */
function silent(error) {
  throw error.name === "AbortError" ? error : new Error(t("problem.silent"));
}

const send = (method, path, body) =>
  ask(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

function searchPath(q, cursor, limit) {
  const values = new URLSearchParams({ q, limit });
  if (cursor) values.set("cursor", cursor);
  return `/api/search?${values}`;
}

export const search = (q, { cursor, limit = PAGE, signal } = {}) =>
  ask(searchPath(q, cursor, limit), { signal });

/** Search by words and by `pictures`, [{file, weight}]. */
export function searchWithPictures(q, pictures, { limit = PAGE, signal } = {}) {
  const form = new FormData();
  form.set("q", q);
  form.set("limit", limit);
  form.set("weights", JSON.stringify(pictures.map((picture) => picture.weight)));
  for (const { file } of pictures) form.append("picture", file, "picture");
  return ask("/api/search", { method: "POST", body: form, signal });
}

/** The next page of an answer; the cursor also identifies searches by pictures. */
export const more = (cursor, { limit = PAGE, signal } = {}) =>
  ask(`/api/search?${new URLSearchParams({ cursor, limit })}`, { signal });

export const mark = (ids, marks) => send("POST", "/api/marks", { ids, ...marks });
export const savedSearches = async () => (await ask("/api/searches")).searches;
export const saveSearch = (search) => send("POST", "/api/searches", search);
export const editSearch = (id, search) => send("PUT", `/api/searches/${id}`, search);
export const deleteSearch = (id) => send("DELETE", `/api/searches/${id}`);

/** Add the favourites, hidden pictures and searches in the text of an export. */
export const importMarks = (text) =>
  ask("/api/marks", { method: "PUT", headers: { "Content-Type": "application/json" }, body: text });

export const facets = () => ask("/api/facets");
export const image = (id, options) => ask(`/api/images/${id}`, options);
export const roots = async () => (await ask("/api/roots")).roots;
export const addRoot = (path) => send("POST", "/api/roots", { path });
export const removeRoot = (id) => send("DELETE", `/api/roots/${id}`);
export const scan = async () => (await ask("/api/scans")).scan;
export const startScan = async (root) => (await send("POST", "/api/scans", { root })).scan;
export const stopScan = () => send("DELETE", "/api/scans/current");
export const model = () => ask("/api/model");
export const changeModel = (name) => send("POST", "/api/model", { name });
export const cancelChange = () => send("DELETE", "/api/model/change");
export const status = () => ask("/api/status");

/** Files that are not indexed, by `state`: "failed" or "skipped". */
export const failures = (state, cursor) =>
  ask(`/api/failures?${new URLSearchParams({ state, cursor: cursor ?? "" })}`);
