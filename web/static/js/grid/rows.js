/** The rows of one block of pictures, each picture in its own shape; see layout.js. */

import { t } from "../page/i18n.js";

export const GAP = 6; // between pictures
export const HEADING = 52; // height
const DAY_GAP = 4 * GAP; // between days in one row
const NARROWEST_DAY = 148; // room for a date and its checkbox
const NARROWEST = 0.4; // width by height; narrower or wider pictures are cropped to these
const WIDEST = 4;
const MARK = 22; // width of the line between pictures of a row
const SPARSE = 0.6; // of the width: a row with less is not stretched
const JOINED = 0.4; // of the width: pictures that fill less join the row before
const TALLEST = 2; // times the usual height, for a row that is stretched

/** The width of a picture divided by its height, within the bounds that tiles keep. */
export function shapeOf(hit) {
  if (!hit.width || !hit.height) return 4 / 3;
  return Math.min(Math.max(hit.width / hit.height, NARROWEST), WIDEST);
}

const widthOf = (days) => days.reduce((sum, day) => sum + day.width + DAY_GAP, -DAY_GAP);

export class Rows {
  /**
   * `hits` are those of the block, the first at the place `first` of the answer; `before` and
   * `after` lie beside it, null if there is none, or if it is not loaded and not `isLast`.
   * `headingOf` says what a hit stands under; null without headings.
   */
  constructor(block) {
    Object.assign(this, block);
    this.height = 0; // of all rows
    /**
     * Pictures: {top, height, first, last, tiles: [{left, width}], headings, mark}, with
     * `headings` [{at, text, left, width, first}] where days share a row; their tiles lie below
     * them.
     * `mark` is {at, text, left, width}, the line in a row: before its tile number `at`, or
     * after the last one.
     * Headings: {top, height, heading, kind, first}, with the place at which a day begins.
     */
    this.rows = [];
    this.fill();
  }

  fill() {
    let days = []; // that share a row
    const flush = () => {
      if (days.length) this.addDays(days);
      days = [];
    };
    const count = this.hits.length;
    for (let start = 0, end; start < count; start = end) {
      end = this.endOfStretch(start);
      const line = this.hits
        .slice(start, end)
        .map((hit, at) => ({ place: this.first + start + at, ratio: shapeOf(hit), fixed: 0 }));
      const text = this.textAt(start);
      const goesOn = end === count && this.goesOn(end);
      const width = Math.max(this.usualWidth(line), NARROWEST_DAY);
      if (this.isLine(start)) {
        flush();
        this.addLineHeading(start);
      }
      if (text && width <= this.width && !goesOn) {
        if (widthOf([...days, { width }]) > this.width) flush();
        days.push({ line, text, width });
        continue;
      }
      flush();
      if (text) this.addHeading(text, "day", this.first + start);
      const mark = line.findIndex(({ place }) => place && place === this.likely);
      if (mark > 0) line.splice(mark, 0, { ratio: 0, fixed: MARK });
      if (goesOn) this.addFilled(line);
      else this.addLines(line);
    }
    flush();
  }

  /** Whether the line between likely matches and others has a row of its own above a hit. */
  isLine(start) {
    if (this.first + start !== this.likely) return false;
    return Boolean(this.headingOf) || start === 0;
  }

  addLineHeading(start) {
    const none = this.headingOf ? "hits.line_none_sorted" : "hits.line_none";
    this.addHeading(t(this.first + start ? "hits.line" : none), "line");
  }

  /** Where hits stop belonging together: at another heading, or where the likely ones end. */
  endOfStretch(start) {
    let end = start + 1;
    while (end < this.hits.length && this.goesOn(end)) end += 1;
    return end;
  }

  /** Whether the hit before a number in the block and the one at it belong together. */
  goesOn(number) {
    const hit = number < this.hits.length ? this.hits[number] : this.after;
    const before = number ? this.hits[number - 1] : this.before;
    if (!before) return false;
    if (!hit) return !this.isLast; // not loaded
    if (!this.headingOf) return true;
    return this.first + number !== this.likely && this.headingOf(hit) === this.headingOf(before);
  }

  /** The heading of what begins at a hit; null where nothing does. */
  textAt(start) {
    return this.headingOf && !this.goesOn(start) ? this.headingOf(this.hits[start]) : null;
  }

  usualWidth(line) {
    return Math.ceil(
      line.reduce((sum, { ratio, fixed }) => sum + ratio * this.usual + fixed + GAP, -GAP),
    );
  }

  /** The height at which a line of pictures fills the width. */
  fullHeight(line) {
    const ratios = line.reduce((sum, { ratio }) => sum + ratio, 0);
    const fixed = line.reduce((sum, item) => sum + item.fixed, 0);
    return ratios ? (this.width - fixed - GAP * (line.length - 1)) / ratios : Infinity;
  }

  /** Break items into lines that fill the width at the usual height or less, and what is left. */
  broken(items) {
    const lines = [];
    let line = [];
    for (const item of items) {
      line.push(item);
      if (this.fullHeight(line) > this.usual) continue;
      lines.push(line);
      line = [];
    }
    return { lines, rest: line };
  }

  addLines(items) {
    const { lines, rest } = this.broken(items);
    for (const line of lines) this.addRow(line, true);
    if (rest.length) this.addRow(rest, false);
  }

  /** Rows that all fill the width, for hits that go on in the next block. */
  addFilled(items) {
    const { lines, rest } = this.broken(items);
    if (rest.length) {
      const filled = this.usualWidth(rest) / this.width;
      if (!lines.length && filled < SPARSE) return this.addRow(rest, false);
      const last = [...(lines.pop() ?? []), ...rest];
      lines.push(...(filled < JOINED || last.length === rest.length ? [last] : this.halved(last)));
    }
    for (const line of lines) this.addRow(line, true);
  }

  halved(items) {
    const half = this.usualWidth(items) / 2;
    let start = 0;
    const at = items.findIndex(({ ratio, fixed }) => {
      const width = ratio * this.usual + fixed + GAP;
      start += width;
      return start - width / 2 > half;
    });
    return [items.slice(0, Math.max(at, 1)), items.slice(Math.max(at, 1))];
  }

  /** A full row fills the width; the last one of a stretch keeps the usual height. */
  addRow(items, isFull) {
    const line = items.filter(({ place }, number) => number || place !== undefined);
    if (line.length < items.length) this.addHeading(t("hits.line"), "line");
    const most = isFull ? TALLEST * this.usual : this.usual;
    const exact = Math.min(this.fullHeight(line), most);
    const tall = Math.round(exact);
    const places = [];
    let mark = null;
    let end = 0; // of the item before, not rounded, so that the last one ends at the width
    line.forEach(({ place, ratio, fixed }, number) => {
      const start = end;
      end += ratio * exact + fixed;
      const left = Math.round(start) + GAP * number;
      const across = { left, width: Math.round(end) + GAP * number - left };
      if (place === undefined) mark = { at: places.length, text: t("hits.line_within"), ...across };
      else places.push({ place, across });
    });
    if (!places.length) return;
    const [first, last] = [places[0].place, places.at(-1).place];
    const tiles = places.map(({ across }) => across);
    this.rows.push({ top: this.height, height: tall, first, last, tiles, mark });
    this.height += tall + GAP;
  }

  /** Days with few pictures stand side by side, each under its own heading. */
  addDays(days) {
    const tiles = [];
    const headings = [];
    let start = 0;
    for (const { line, text, width: wide } of days) {
      const width = days.length > 1 ? wide : this.width;
      headings.push({ at: tiles.length, text, left: start, width, first: line[0].place });
      let left = start;
      for (const { ratio } of line) {
        const tile = { left, width: Math.round(ratio * this.usual) };
        tiles.push(tile);
        left += tile.width + GAP;
      }
      start += wide + DAY_GAP;
    }
    const first = days[0].line[0].place;
    const last = first + tiles.length - 1;
    const tall = HEADING + this.usual;
    this.rows.push({ top: this.height, height: tall, first, last, tiles, headings });
    this.height += tall + GAP;
  }

  addHeading(text, kind, first) {
    this.rows.push({ top: this.height, height: HEADING, heading: text, kind, first });
    this.height += HEADING;
  }
}
