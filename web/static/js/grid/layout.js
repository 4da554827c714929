/**
 * Where the pictures of an answer lie: in blocks, one below the other, of rows of one height.
 *
 * Nothing here touches the page. A block whose hits are not loaded has an estimated height, so that
 * the page has about its whole height from the beginning. Lengths are CSS pixels, and whole ones:
 * an edge between two pixels would show as a line.
 */

import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { BLOCK } from "./hits.js";
import { GAP, HEADING, Rows } from "./rows.js";

const HIGHEST = 12e6; // of the page: browsers draw nothing beyond some 16 million
const PICTURES_A_DAY = 12; // guessed, for months of which nothing is loaded

/** What a heading says above the hits that belong together: their day, or the letter of a name. */
const headings = {
  date: ({ day }) => (day ? format.day(day) : t("hits.undated")),
  name: ({ name }) => letterOf(name),
};

function letterOf(name) {
  const [first = "#"] = name.normalize("NFKD").replace(/\p{M}/gu, "");
  if (/\p{N}/u.test(first)) return "0–9";
  return /\p{L}/u.test(first) ? first.toLocaleUpperCase() : "#";
}

export class Layout {
  /** `hits` are the answer's; `months` its timeline, [{start, count}], once it is known. */
  constructor(answer, hits, width) {
    this.answer = answer;
    this.hits = hits;
    this.width = width;
    this.usual = width < 640 ? 130 : width < 1400 ? 200 : 230; // height of a row of pictures
    this.months = null;
    this.likeness = null; // of real heights to guessed ones, once a block is laid out
    /** {top, height, rows, known}: rows as in rows.js, null where the hits are not loaded. */
    this.blocks = [];
    this.height = 0;
    this.fit();
  }

  /** Guess by the months' counts. */
  learn(months) {
    this.months = months;
    this.likeness = null;
    const first = this.blocks.findIndex(({ rows }) => rows);
    if (first >= 0) this.compare(first);
    this.fit();
  }

  /** Give all blocks their places: after one was laid out, or their number has changed. */
  fit() {
    const count = Math.ceil(this.hits.length / BLOCK);
    while (this.blocks.length < count) this.blocks.push({ rows: null, known: 0, height: 0, top: 0 });
    this.blocks.length = count;
    const guesses = this.blocks.map((block, number) =>
      block.rows ? 0 : block.known || this.guess(number) * (this.likeness ?? 1),
    );
    const sum = guesses.reduce((total, guess) => total + guess, 0);
    const share = Math.min(1, HIGHEST / (sum || 1));
    let top = 0;
    this.blocks.forEach((block, number) => {
      if (!block.rows) block.height = Math.max(1, Math.round(guesses[number] * share));
      block.top = top;
      top += block.height;
    });
    this.height = top;
  }

  /** Lay out a block whose hits are loaded. */
  layOut(number) {
    const [first, end] = this.hits.bounds(number);
    const hits = [];
    for (let place = first - 1; place <= end; place += 1) hits.push(this.hits.at(place));
    const made = new Rows({
      hits: hits.slice(1, -1),
      first,
      before: hits[0],
      after: hits.at(-1),
      isLast: end >= this.hits.answer.total,
      likely: this.answer.likely,
      headingOf: headings[this.answer.order] ?? null,
      width: this.width,
      usual: this.usual,
    });
    for (const row of made.rows) row.block = number;
    const block = this.blocks[number];
    block.rows = made.rows;
    block.height = block.known = made.height;
    if (this.likeness === null) this.compare(number);
  }

  /** The kind of heading above the first pictures, "" for none. */
  get heading() {
    const [row] = this.blocks[0]?.rows ?? [];
    return row?.kind ?? (row?.headings ? "day" : "");
  }

  /** Forget the rows of a block, but not its height. */
  empty(number) {
    if (this.blocks[number]) this.blocks[number].rows = null;
  }

  /** Forget everything from a block on. */
  reset(from = 0) {
    this.blocks.length = Math.min(this.blocks.length, from);
    this.fit();
  }

  compare(number) {
    const guess = this.guess(number);
    if (guess) this.likeness = Math.min(Math.max(this.blocks[number].height / guess, 0.4), 2.5);
  }

  /** The height that a block will have, about. */
  guess(number) {
    const [first, end] = this.hits.bounds(number);
    const across = Math.max(1, this.width / (this.usual * (4 / 3) + GAP));
    const rows = ((end - first) / across) * (this.usual + GAP);
    return rows + this.daysWithin(first, end) * (HEADING + this.usual / 3);
  }

  daysWithin(first, end) {
    if (this.answer.order !== "date") return 0;
    if (!this.months) return (end - first) / PICTURES_A_DAY;
    let days = 0;
    for (let at = monthAt(this.months, first); at < this.months.length; at += 1) {
      const { start, count } = this.months[at];
      if (start >= end) break;
      const within = Math.min(start + count, end) - Math.max(start, first);
      days += (Math.min(count, 31, 1 + count / PICTURES_A_DAY) * within) / count;
    }
    return days;
  }

  // Looking things up

  /** The number of the block at `y`, by bisection. */
  blockAt(y) {
    let [low, high] = [0, Math.max(0, this.blocks.length - 1)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.blocks[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  topOf(row) {
    return this.blocks[row.block].top + row.top;
  }

  /** The row that shows the hit at a place; null where its block is not laid out. */
  rowOf(place) {
    const { rows } = this.blocks[Math.floor(place / BLOCK)] ?? {};
    return rows?.find((row) => !row.heading && row.first <= place && place <= row.last) ?? null;
  }

  /** The first of these places that lies below `y`. */
  firstBelow(y, places) {
    const below = [...places].filter((place) => this.rowOf(place) && this.topOf(this.rowOf(place)) >= y);
    return below.length ? Math.min(...below) : 0;
  }

  /** What lies at `y`, for `yOf` after the layout has changed: {place, into}. */
  at(y) {
    const number = this.blockAt(y);
    const block = this.blocks[number];
    if (!block) return null;
    const [first, end] = this.hits.bounds(number);
    if (!block.rows) {
      const part = Math.min(Math.max((y - block.top) / block.height, 0), 1);
      return { place: first + Math.min(Math.floor(part * (end - first)), end - first - 1), into: 0 };
    }
    const row =
      block.rows.find((one) => !one.heading && one.top + one.height > y - block.top) ??
      block.rows.at(-1);
    return { place: (row.heading ? null : row.first) ?? first, into: y - this.topOf(row) };
  }

  /** Where a place lies now; the top of its heading if it is the first below one. */
  yOf({ place, into = 0, isHead = false }) {
    const number = Math.floor(place / BLOCK);
    const block = this.blocks[number];
    if (!block) return 0;
    const row = this.rowOf(place);
    if (!row) {
      const [first, end] = this.hits.bounds(number);
      return Math.round(block.top + (block.height * (place - first)) / (end - first || 1));
    }
    if (!isHead || row.first !== place) return this.topOf(row) + into;
    const above = block.rows[block.rows.indexOf(row) - 1];
    return this.topOf(above?.heading ? above : row) + into;
  }

  /**
   * The place of the hit under (`sign` 1) or over (-1) another one, in the next row or in one at
   * least `far` away.
   */
  beside(place, sign, far) {
    const from = this.rowOf(place);
    if (!from) return place;
    const { left, width } = from.tiles[place - from.first];
    const middle = left + width / 2;
    let best = place;
    let number = from.block;
    let rows = this.blocks[number].rows;
    let at = rows.indexOf(from) + sign;
    for (;;) {
      if (!rows[at]) {
        number += sign;
        if (!this.blocks[number]) return best;
        const [first, end] = this.hits.bounds(number);
        rows = this.blocks[number].rows;
        if (!rows) return sign > 0 ? first : end - 1; // not laid out: the nearest there is
        at = sign > 0 ? 0 : rows.length - 1;
      }
      const row = rows[at];
      at += sign;
      if (!row || row.heading) continue;
      const tile = row.tiles.findIndex((one) => middle <= one.left + one.width + GAP);
      best = row.first + (tile < 0 ? row.tiles.length - 1 : tile);
      if (Math.abs(this.topOf(row) - this.topOf(from)) >= far) return best;
    }
  }
}

/** The number of the month, of [{start, count}], that has a place, by bisection. */
export function monthAt(months, place) {
  let [low, high] = [0, Math.max(0, months.length - 1)];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (months[middle].start <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}
