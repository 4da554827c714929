/**
 * The query in two parts: what is in the search box, and its filters, which are chips beside it.
 *
 * Filters that somebody types stay in the box until `fold` moves them.
 */

import { items, split } from "./querytext.js";

let input;
let beside = []; // the texts of the filters, and of the order, that are not in the box

export function start() {
  input = document.querySelector("input[name=q]");
}

export const typed = () => input.value.trim();
export const filters = () => beside;

/** The text of the whole query, as in the address. */
export const whole = () => joined(typed(), beside);

const joined = (text, more) => [text, ...more].filter(Boolean).join(" ");

/** Show another query. */
export function put(text) {
  const parts = split(text);
  input.value = parts.typed;
  beside = parts.filters;
}

/** Move the filters in the box beside it; return whether there was one. */
export function fold() {
  const parts = split(input.value);
  if (!parts.filters.length) return false;
  input.value = parts.typed;
  beside = [...beside, ...parts.filters];
  return true;
}

/** Take a filter back into the box, as `text` if it is to be written otherwise; select its value. */
export function unfold(filter, text = filter) {
  const place = beside.indexOf(filter);
  if (place < 0) return false;
  beside = beside.toSpliced(place, 1);
  input.value = joined(typed(), [text]);
  input.focus();
  const [{ value }] = items(text);
  const start = text.endsWith(value) ? input.value.length - value.length : input.value.length;
  input.setSelectionRange(start, input.value.length);
  return true;
}

/** A query as `whole` writes it: words and terms before filters. */
export function ordered(text) {
  const parts = split(text);
  return joined(parts.typed, parts.filters);
}
