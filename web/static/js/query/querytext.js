/**
 * The items of a query's text, so that chips and menus can change one of them.
 *
 * This is a second lexer of queries, beside search/query/language.py: chips and menus follow the text
 * while somebody types, and have to edit it before the server has answered, or when it cannot. It only
 * finds where items begin and end, and never decides whether a query is valid. A test in
 * tests/web/browser/query/test_chips.py compares it with the parser on generated queries.
 */

const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's
const LEADING_SPACE = new RegExp(`^[${SPACE}]+`);
const WORD = new RegExp(`^[^${SPACE}]+`);
const PREFIX = /^([+-]?)(?:(\.*[0-9][0-9.]*):)?(?:([A-Za-z]+):)?/;
const QUOTED = /^"((?:[^"\\]|\\.)*)"?/s;

export const FILTERS = [
  "in", "name", "on", "after", "before", "camera", "lens", "format", "is", "size", "longer",
  "near", "place", "text", "tag",
];

/**
 * [{text, at, sign, weight, key, value, isPlain, isWhole}]; plain words are one item, whatever filters stand
 * between. `at` is where it begins; what is not whole lacks a quotation mark, or the space behind one.
 */
export function items(text) {
  const found = [];
  let rest = text.replace(LEADING_SPACE, "");
  while (rest) {
    const item = first(rest);
    const last = found.findLast(isTerm);
    if (item.isPlain && last?.isPlain) {
      last.text += ` ${item.text}`;
      last.value += ` ${item.value}`;
    } else {
      found.push({ ...item, at: text.length - rest.length });
    }
    rest = rest.slice(item.length).replace(LEADING_SPACE, "");
  }
  return found;
}

function first(rest) {
  const [word] = rest.match(WORD);
  const isSignAlone = word === "+" || word === "-";
  const [prefix, sign, weight, key] = isSignAlone ? ["", ""] : rest.match(PREFIX);
  const quotes = rest.slice(prefix.length).match(QUOTED);
  const value = quotes ? quotes[1].replace(/\\(.)/gs, "$1") : word.slice(prefix.length);
  const length = prefix.length + (quotes ? quotes[0] : value).length;
  const isClosed = !quotes || quotes[0].length === quotes[1].length + 2;
  return {
    text: rest.slice(0, length),
    length,
    sign: sign ?? "",
    weight: weight ? Number(weight) : 1,
    key: (key ?? "").toLowerCase(),
    value,
    isPlain: !prefix && !quotes,
    isWhole: isClosed && (length === rest.length || LEADING_SPACE.test(rest.slice(length))),
  };
}

export const isFilter = (item) => FILTERS.includes(item.key);
export const isTerm = (item) => !item.key || item.key === "like";

/** The text of a term. Without a sign or weight it would join the words beside it. */
export function written({ sign, weight, key, value }) {
  const number = weight === 1 ? "" : `${weight}:`;
  return `${sign}${number}${key ? `${key}:` : ""}${key === "like" ? value : quoted(value)}`;
}

export const joined = (list) => list.map((item) => item.text).join(" ");

/**
 * The filters and the order of a query, as texts, and what is left of it without them. From an item that is
 * not whole on, it is left as it is.
 */
export function split(text) {
  const end = items(text).find((item) => !item.isWhole)?.at ?? text.length;
  const list = items(text.slice(0, end));
  const isBeside = (item) => isFilter(item) || item.key === "sort";
  return {
    typed: [...list.filter((item) => !isBeside(item)).map((item) => item.text), text.slice(end)]
      .filter(Boolean)
      .join(" "),
    filters: list.filter(isBeside).map((item) => item.text),
  };
}

/** A value as one item: in quotation marks if it would read as something else without them. */
export function quoted(value) {
  const isBare = value.match(WORD)?.[0] === value && !/^["+-]/.test(value) && !value.match(PREFIX)[0];
  return isBare ? value : `"${value.replace(/(["\\])/g, "\\$1")}"`;
}
