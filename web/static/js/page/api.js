/** The server's JSON API. Failures are Errors with the members of the server's problem document. */

import { t } from "./i18n.js";
import { refusal } from "./problems.js";

const PAGE = 121; // hits: two blocks of the grid, and the one after
export const LARGEST_PAGE = 200; // hits in one answer of the server

const prefix = document.documentElement.dataset.prefix ?? ""; // a proxy's, such as "/photos"

/** The address of a path of the server, such as "/api/events". */
export const at = (path) => prefix + path;

async function ask(path, options = {}) {
  const response = await answered(path, options);
  return response.status === 204 ? null : response.json().catch(silent);
}

const text = async (path, options) => (await answered(path, options)).text();

async function answered(path, options) {
  const response = await fetch(at(path), options).catch(silent);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw refusal({ title: response.statusText, status: response.status, ...problem });
}

/** The server does not answer, or the page has aborted the request. */
function silent(error) {
  throw error.name === "AbortError" ? error : new Error(t("problem.silent"));
}

/** Whether the server answers at all. */
export const isThere = () =>
  fetch(at("/health"), { cache: "no-store" }).then(
    ({ status }) => status < 500,
    () => false,
  );

const send = (method, path, body) =>
  ask(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

/** Search by words and by `pictures`, as an address names them. */
export function search(q, { pictures, limit = PAGE, signal } = {}) {
  const values = new URLSearchParams({ q, limit });
  if (pictures) values.set("pictures", pictures);
  return ask(`/api/search?${values}`, { signal });
}

/** Have the server keep a picture to search by; returns {sha256, picture}. */
export function keepPicture(file) {
  const form = new FormData();
  form.set("picture", file, "picture");
  return ask("/api/pictures", { method: "POST", body: form });
}

/** The page of an answer from an `offset` on; the cursor also identifies searches by pictures. */
export const more = (cursor, { offset, limit = PAGE, signal } = {}) =>
  ask(`/api/search?${new URLSearchParams({ cursor, offset, limit })}`, { signal });

/** The page of an answer that is one picture, {hits, total}; an error 404 if that is not in it. */
export const seek = (cursor, image) =>
  ask(`/api/search?${new URLSearchParams({ cursor, image, limit: 1 })}`);

/** How many pictures the filters of a query leave of each month. */
export const timeline = (q, { signal } = {}) =>
  ask(`/api/timeline?${new URLSearchParams({ q })}`, { signal });

/** Suggestions for a text with the caret after `at` characters; `beside` are filters that hold, too. */
export const suggest = async (q, { at, beside, signal }) =>
  (await ask(`/api/suggest?${new URLSearchParams({ q, at, ...(beside && { beside }) })}`, { signal }))
    .suggestions;

/** `choice` is {ids}, or {query, except}: see `chosen.js`. */
export const mark = (choice, marks) => send("POST", "/api/marks", { ...choice, ...marks });
export const tags = async () => (await ask("/api/tags")).tags;
export const tagSuggestions = (id, limit) => ask(`/api/tags/${id}/suggestions?limit=${limit}`);
export const teach = (name, said) => send("POST", "/api/tags", { name, ...said });
export const measure = (choice) => send("POST", "/api/selections", choice);

/** The paths of a choice, one a line. */
export const paths = (choice) =>
  text("/api/exports", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...choice, format: "paths" }),
  });

/** Groups of copies, and all but their best; `wanted` has ids, or else all are wanted. */
export const duplicates = (page) => ask(`/api/duplicates?${new URLSearchParams(page)}`);
export const duplicateOthers = (page) => ask(`/api/duplicates/others?${new URLSearchParams(page)}`);
export const duplicatePaths = (wanted) =>
  text("/api/duplicates/exports", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...wanted, format: "paths" }),
  });

export const savedSearches = async () => (await ask("/api/searches")).searches;
export const saveSearch = (search) => send("POST", "/api/searches", search);
export const editSearch = (id, search) => send("PUT", `/api/searches/${id}`, search);
export const deleteSearch = (id) => send("DELETE", `/api/searches/${id}`);

/** Add the favourites, hidden pictures and searches in the text of an export. */
export const importMarks = (text) =>
  ask("/api/marks", { method: "PUT", headers: { "Content-Type": "application/json" }, body: text });

/** The map: whether there is one, and its clusters. */
export const map = () => ask("/api/map");
export const layOutMap = () => send("POST", "/api/map");
export const mapPictures = (cluster, { offset, limit }) =>
  ask(`/api/map/pictures?${new URLSearchParams({ cluster, offset, limit })}`);

/** The points of the map, by the address that the server names; an ArrayBuffer. */
export const mapPoints = async (address) => (await answered(address.slice(prefix.length))).arrayBuffer();

/** The ids of the pictures on the map that a query finds; an ArrayBuffer of uint32. */
export const mapHits = async (query) => (await answered(`/api/map/hits?${query}`)).arrayBuffer();

export const facets = () => ask("/api/facets");

/** {folders, left_out} for `{parent}`, `{path}` or `{q}`; the topmost for none of these. */
export const folders = (wanted, { limit = 500, signal } = {}) =>
  ask(`/api/folders?${new URLSearchParams({ ...wanted, limit })}`, { signal });
export const image = (id, options) => ask(`/api/images/${id}`, options);
export const showInFolder = (id) => send("POST", `/api/images/${id}/show`);
export const roots = async () => (await ask("/api/roots")).roots;
export const addRoot = (path) => send("POST", "/api/roots", { path });
export const diskFolders = (path, options) =>
  ask(`/api/disk/folders?${new URLSearchParams({ path })}`, options);
export const removeRoot = (id) => send("DELETE", `/api/roots/${id}`);
export const scan = async () => (await ask("/api/scans")).scan;
export const startScan = async (root) => (await send("POST", "/api/scans", { root })).scan;
export const stopScan = () => send("DELETE", "/api/scans/current");
export const model = () => ask("/api/model");
export const changeModel = (name) => send("POST", "/api/model", { name });
export const cancelChange = () => send("DELETE", "/api/model/change");
export const status = () => ask("/api/status");

/** Switch what is looked for in pictures: `{text: false}`. */
export const switchAnalyses = (wanted) => send("PUT", "/api/analyses", wanted);
export const labels = () => ask("/api/labels");
export const label = (wanted) => send("PUT", "/api/labels", { labels: wanted });
export const unlabel = () => send("DELETE", "/api/labels");

/** Files that are not indexed, by `state`: "failed" or "skipped". */
export const failures = (state, cursor) =>
  ask(`/api/failures?${new URLSearchParams({ state, cursor: cursor ?? "" })}`);
