/**
 * The text of a query as a list of items, to be changed one by one.
 *
 * The server's parser decides what a query means; this only finds where its items begin and end,
 * by the same rules: white space divides them, and quotation marks hold words together.
 */

const PREFIX = /^([+-]?)(?:(\.*[0-9][0-9.]*):)?(?:([A-Za-z]+):)?/;
const QUOTED = /^"(?:[^"\\]|\\.)*"?/s;

export const FILTERS = [
  ...["in", "name", "on", "after", "before", "camera", "format", "is", "size", "near"],
];

/** [{text, sign, weight, key, value}]; words that stand beside each other are one item. */
export function items(text) {
  const found = [];
  let rest = text.trimStart();
  while (rest) {
    const item = first(rest);
    const last = found[found.length - 1];
    if (item.isPlain && last?.isPlain) {
      last.text += ` ${item.text}`;
      last.value += ` ${item.value}`;
    } else {
      found.push(item);
    }
    rest = rest.slice(item.length).trimStart();
  }
  return found;
}

function first(rest) {
  const word = rest.match(/^\S+/)[0];
  const alone = word === "+" || word === "-";
  const [prefix, sign, weight, key] = alone ? ["", ""] : rest.match(PREFIX);
  const value = rest.slice(prefix.length).match(QUOTED)?.[0] ?? word.slice(prefix.length);
  const length = Math.max(prefix.length + value.length, 1);
  return {
    text: rest.slice(0, length),
    length,
    sign: sign ?? "",
    weight: weight ? Number(weight) : 1,
    key: (key ?? "").toLowerCase(),
    value: unquoted(value),
    isPlain: !prefix && !value.startsWith('"'),
  };
}

export const isFilter = (item) => FILTERS.includes(item.key);
export const isTerm = (item) => !item.key || item.key === "like";

/** The text of an item with other weight or sign. */
export function written({ sign, weight, key, value }) {
  const number = weight === 1 ? "" : `${Number(weight.toFixed(3))}:`;
  return `${sign}${number}${key ? `${key}:` : ""}${key === "like" ? value : quoted(value)}`;
}

export const joined = (list) => list.map((item) => item.text).join(" ");

/** The query without its filters of these kinds, and with `added` ones at its end. */
export function withFilters(text, kinds, added) {
  const kept = items(text).filter((item) => !kinds.includes(item.key));
  return [...kept.map((item) => item.text), ...added].join(" ");
}

/** A value as one item: in quotation marks where it would read as something else. */
export function quoted(value) {
  const isBare = /^\S+$/.test(value) && !/^["+-]/.test(value) && !value.match(PREFIX)[0];
  return isBare ? value : `"${value.replace(/(["\\])/g, "\\$1")}"`;
}

function unquoted(value) {
  if (!value.startsWith('"')) return value;
  return value.replace(/^"|(?<!\\)"$/g, "").replace(/\\(.)/gs, "$1");
}
