/**
 * Where the pictures of an answer lie: rows of one height, each picture in its own shape.
 *
 * Nothing here touches the page. Day headings and the line below the likely matches are rows too.
 * Lengths are CSS pixels, and whole ones: an edge between two pixels would show as a line.
 */

import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

export const GAP = 6; // between pictures
export const HEADING = 52; // height
const DAY_GAP = 4 * GAP; // between days in one row
const NARROWEST_DAY = 116; // room for a date
const NARROWEST = 0.4; // width by height; narrower or wider pictures are cropped to these
const WIDEST = 4;

/** The width of a picture divided by its height, within the bounds that tiles keep. */
export function shapeOf(hit) {
  if (!hit.width || !hit.height) return 4 / 3;
  return Math.min(Math.max(hit.width / hit.height, NARROWEST), WIDEST);
}

const widthOf = (days) => days.reduce((sum, day) => sum + day.width + DAY_GAP, -DAY_GAP);

export class Layout {
  /** `answer` is {hits, likely, kind, byDay}; its list of hits may grow. */
  constructor(answer, width) {
    this.answer = answer;
    this.width = width;
    this.usual = width < 640 ? 130 : width < 1400 ? 200 : 230; // height of a row of pictures
    this.height = 0; // of all rows
    /**
     * Pictures: {top, height, first, last, tiles: [{left, width}], headings, isFull}, with
     * `headings` [{at, text, left, width}] where days share a row; their tiles lie below them.
     * Headings: {top, height, heading, kind}.
     */
    this.rows = [];
    this.append(0);
  }

  /** Lay out the hits from index `from` on; the rows before it stay. */
  append(from) {
    const { hits, likely } = this.answer;
    let days = []; // that share a row
    const flush = () => {
      if (days.length) this.addDays(days);
      days = [];
    };
    for (let first = from, end; first < hits.length; first = end) {
      end = this.endOfStretch(first);
      const line = hits.slice(first, end).map((hit, place) => ({
        index: first + place,
        ratio: shapeOf(hit),
      }));
      const wide = Math.max(this.usualWidth(line), NARROWEST_DAY);
      const day = { line, text: this.dayAt(first), width: wide };
      if (day.text && day.width <= this.width) {
        if (widthOf([...days, day]) > this.width) flush();
        days.push(day);
      } else {
        flush();
        if (first === likely) this.addHeading(t(first ? "hits.line" : "hits.line_none"), "line");
        if (day.text) this.addHeading(day.text, "day");
        this.addLines(line);
      }
    }
    flush();
  }

  /** The number of the first row that further hits may change: a last one that is not full. */
  firstUnfinished() {
    let number = this.rows.length;
    if (!number || this.rows[number - 1].isFull) return number;
    number -= 1;
    while (this.rows[number - 1]?.heading) number -= 1;
    return number;
  }

  /** Remove the rows from a number on; return the index to append from. */
  removeFrom(number) {
    const removed = this.rows.splice(number);
    if (!removed.length) return this.answer.hits.length;
    this.height = removed[0].top;
    return removed.find((row) => !row.heading).first;
  }

  /** The number of the row that shows the hit at `index`; -1 where there is none. */
  rowOf(index) {
    return this.rows.findIndex((row) => !row.heading && row.first <= index && index <= row.last);
  }

  /** The first row that ends below `y`, by bisection: there may be thousands. */
  firstBelow(y) {
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].top + this.rows[middle].height > y) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /**
   * The index of the hit under (`sign` 1) or over (-1) another one, in the next row or in one at
   * least `far` away.
   */
  beside(index, sign, far) {
    const { rows } = this;
    const from = this.rowOf(index);
    const { left, width } = rows[from].tiles[index - rows[from].first];
    const middle = left + width / 2;
    let best = index;
    for (let number = from + sign; rows[number]; number += sign) {
      const row = rows[number];
      if (row.heading) continue;
      const place = row.tiles.findIndex((tile) => middle <= tile.left + tile.width + GAP);
      best = row.first + (place < 0 ? row.tiles.length - 1 : place);
      if (Math.abs(row.top - rows[from].top) >= far) break;
    }
    return best;
  }

  isByDay() {
    return this.answer.kind === "browse" && this.answer.byDay;
  }

  /** Where hits stop belonging together: at another day, or where the likely ones end. */
  endOfStretch(first) {
    const { hits, likely } = this.answer;
    let end = first + 1;
    const goesOn = () => end !== likely && !(this.isByDay() && hits[end].day !== hits[first].day);
    while (end < hits.length && goesOn()) end += 1;
    return end;
  }

  /** The heading of the day that begins at a hit; null where none does. */
  dayAt(first) {
    const { hits } = this.answer;
    const { day } = hits[first];
    if (!this.isByDay() || (first && hits[first - 1].day === day)) return null;
    return day ? format.day(day) : t("hits.undated");
  }

  usualWidth(line) {
    return Math.ceil(line.reduce((sum, { ratio }) => sum + ratio * this.usual + GAP, -GAP));
  }

  /** The height at which a line of pictures fills the width. */
  fullHeight(line) {
    const ratios = line.reduce((sum, { ratio }) => sum + ratio, 0);
    return (this.width - GAP * (line.length - 1)) / ratios;
  }

  addLines(tiles) {
    let line = [];
    for (const tile of tiles) {
      line.push(tile);
      if (this.fullHeight(line) > this.usual) continue;
      this.addRow(line, true);
      line = [];
    }
    if (line.length) this.addRow(line, false);
  }

  /** A full row fills the width; the last one of a stretch keeps the usual height. */
  addRow(line, isFull) {
    const exact = isFull ? this.fullHeight(line) : Math.min(this.fullHeight(line), this.usual);
    const tall = Math.round(exact);
    let end = 0; // of the tile before, not rounded, so that the last one ends at the width
    const tiles = line.map(({ ratio }, place) => {
      const start = end;
      end += ratio * exact;
      const left = Math.round(start) + GAP * place;
      return { left, width: Math.round(end) + GAP * place - left };
    });
    const [first, last] = [line[0].index, line.at(-1).index];
    this.rows.push({ top: this.height, height: tall, first, last, tiles, isFull });
    this.height += tall + GAP;
  }

  /** Days with few pictures stand side by side, each under its own heading. */
  addDays(days) {
    const tiles = [];
    const headings = [];
    let start = 0;
    for (const { line, text, width: wide } of days) {
      const width = days.length > 1 ? wide : this.width;
      headings.push({ at: tiles.length, text, left: start, width });
      let left = start;
      for (const { ratio } of line) {
        const tile = { left, width: Math.round(ratio * this.usual) };
        tiles.push(tile);
        left += tile.width + GAP;
      }
      start += wide + DAY_GAP;
    }
    const first = days[0].line[0].index;
    const last = first + tiles.length - 1;
    const tall = HEADING + this.usual;
    this.rows.push({ top: this.height, height: tall, first, last, tiles, headings, isFull: false });
    this.height += tall + GAP;
  }

  addHeading(text, kind) {
    this.rows.push({ top: this.height, height: HEADING, heading: text, kind });
    this.height += HEADING;
  }
}
