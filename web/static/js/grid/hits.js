/**
 * The hits of an answer by their places in it, loaded in pages and forgotten again when far away.
 *
 * Where the order is by date or by name, pages are loaded wherever they are needed. Where it is by
 * likeness, they are added at the end. Hits are laid out in blocks of `BLOCK`; a page also has the
 * hits beside its blocks, so that a block knows whether a day goes on.
 */

import { LARGEST_PAGE } from "../page/api.js";

export const BLOCK = 60;
const AT_ONCE = Math.floor((LARGEST_PAGE - 2) / BLOCK); // blocks in a request
const MOST = 40; // blocks that are kept

/** How the words themselves found a hit, as its fields: its name has them, or the picture shows them. */
export const foundBy = (hit) => ["by_name", "by_text"].filter((field) => hit?.[field]);

export class Hits {
  /**
   * `answer` is {hits, total, order, at}: its first hits, and `at(offset, limit, signal)`, which
   * requests {hits, total} from any offset; null if these are all. `seek(imageId)` requests the
   * page that one picture is.
   */
  constructor(answer) {
    this.answer = answer;
    /** Called when hits have come in, with their blocks, or with null if others have moved. */
    this.changed = () => {};
    this.failed = () => {}; // called with an Error
    this.error = null; // nothing more is requested until `retry`
    this.isAnywhere = answer.order !== "nearest"; // pages can begin anywhere
    this.found = new Map(); // place -> hit
    this.gone = []; // offsets of hits that left the answer since the server ranked it, ascending
    this.requests = new Set(); // {first, last, isKept, controller, done}
    this.used = new Map(); // block -> when it was wanted last
    this.now = 0;
    answer.hits.forEach((hit, place) => this.found.set(place, hit));
    if (!answer.at) answer.total = answer.hits.length;
    this.loaded = answer.hits.length; // from the first hit on, where pages are added at the end
  }

  /** How many places there are to be laid out. */
  get length() {
    const { total } = this.answer;
    if (this.isAnywhere || this.loaded >= total) return total;
    return Math.floor((this.loaded - 1) / BLOCK) * BLOCK || this.loaded;
  }

  at(place) {
    return this.found.get(place) ?? null;
  }

  /** The place of an image among the hits that are loaded; -1 if it is not. */
  find(imageId) {
    for (const [place, hit] of this.found) if (hit.image_id === imageId) return place;
    return -1;
  }

  /** The same for any hit of the answer, which the server is asked for. */
  async locate(imageId) {
    const place = this.find(imageId);
    if (place >= 0 || !this.answer.seek) return place;
    const { hits } = await this.answer.seek(imageId).catch(() => ({ hits: [] }));
    const offset = hits[0]?.image_id === imageId ? hits[0].rank - 1 : -1;
    return offset < 0 || this.gone.includes(offset) ? -1 : this.placeOf(offset);
  }

  /** Whether another answer would look the same: its first tiles can stay. */
  looksLike(next) {
    const isLaidOutSo = ["total", "likely", "kind", "order"].every((key) => next[key] === this.answer[key]);
    const marks = ["image_id", "day", "likelihood", "offline", "thumbnail", "hidden"];
    const isLike = (hit, place) => marks.every((mark) => hit[mark] === this.at(place)?.[mark]);
    return isLaidOutSo && next.total > 0 && next.hits.slice(0, BLOCK + 1).every(isLike);
  }

  bounds(block) {
    return [block * BLOCK, Math.min((block + 1) * BLOCK, this.length)];
  }

  has(block) {
    const [first, end] = this.bounds(block);
    for (let place = first; place < end; place += 1) if (!this.found.has(place)) return false;
    return first < end;
  }

  /** Abort the requests for blocks that nobody waits for any more. */
  only(first, last) {
    for (const request of this.requests) {
      const isNear = request.first <= last && request.last >= first;
      if (!isNear && !request.isKept) request.controller.abort();
    }
  }

  /** Keep a block for longer. */
  use(block) {
    this.used.set(block, (this.now += 1));
  }

  /** Load the blocks from `first` to `last`, as far as they are not there or on their way. */
  want(first, last) {
    this.only(first, last);
    for (let block = first; block <= last; block += 1) this.use(block);
    if (this.error || !this.answer.at) return;
    const isMissing = (block) => block <= last && !this.has(block) && !this.requested(block);
    for (let block = first; block <= last; block += 1) {
      if (!isMissing(block)) continue;
      let end = block;
      while (isMissing(end + 1) && end + 1 - block < AT_ONCE) end += 1;
      this.request(block, end, false);
      block = end;
    }
  }

  /** The hit at a place, loaded if it is not there; null beyond the last. */
  async load(place) {
    if (!this.isAnywhere) while (place >= this.length && (await this.more()));
    if (place < 0 || place >= this.answer.total || this.found.has(place)) return this.at(place);
    if (!this.answer.at) return null;
    const block = Math.floor(place / BLOCK);
    this.use(block);
    const request = this.requested(block) ?? this.request(block, block, true);
    request.isKept = true;
    await request.done;
    return this.at(place);
  }

  /** Add the next page at the end; false if there is none, or if it cannot be had. */
  async more() {
    if (this.isAnywhere || !this.answer.at || this.loaded >= this.answer.total) return false;
    if (this.error) return false;
    const before = this.loaded;
    const [waiting] = this.requests;
    const block = Math.floor(this.loaded / BLOCK);
    await (waiting ?? this.request(block, block + 1, true)).done;
    return this.loaded > before;
  }

  /** Request again what failed. */
  retry() {
    this.error = null;
  }

  requested(block) {
    return [...this.requests].find(({ first, last }) => first <= block && block <= last);
  }

  request(first, last, isKept) {
    const from = this.isAnywhere ? Math.max(first * BLOCK - 1, 0) : this.loaded;
    const start = this.offsetOf(from);
    const end = Math.min((last + 1) * BLOCK + 1, this.answer.total);
    const limit = Math.min(Math.max(this.offsetOf(end - 1) + 1 - start, 1), LARGEST_PAGE);
    const controller = new AbortController();
    const request = { first, last, isKept, controller };
    request.done = this.answer
      .at(start, limit, controller.signal)
      .then(
        (page) => {
          this.requests.delete(request);
          this.take(start, limit, page);
        },
        (error) => {
          this.requests.delete(request);
          if (error.name === "AbortError") return;
          this.error = error;
          this.failed(error);
        },
      );
    this.requests.add(request);
    return request;
  }

  /** Take a page in. What it lacks has left the answer since the server ranked it. */
  take(start, limit, { hits, total }) {
    const there = new Set(hits.map(({ rank }) => rank - 1));
    const stop = Math.min(start + limit, total);
    const lost = [];
    for (let offset = start; offset < stop; offset += 1) {
      if (!there.has(offset) && !this.gone.includes(offset)) lost.push(offset);
    }
    if (!this.isAnywhere) this.answer.total = hits.length ? total - this.gone.length : this.loaded;
    this.lose(lost);
    for (const hit of hits) this.found.set(this.placeOf(hit.rank - 1), hit);
    if (!this.isAnywhere) while (this.found.has(this.loaded)) this.loaded += 1;
    const blocks = new Set(hits.map(({ rank }) => Math.floor(this.placeOf(rank - 1) / BLOCK)));
    for (const block of blocks) this.use(block);
    this.forget();
    this.changed(lost.length ? null : [...blocks]);
  }

  /** Forget the blocks that were wanted longest ago. */
  forget() {
    if (!this.isAnywhere || this.used.size <= MOST) return;
    const latest = [...this.used].sort(([, one], [, other]) => other - one).slice(0, MOST);
    this.used = new Map(latest);
    for (const place of [...this.found.keys()]) {
      const isBeside = [place - 1, place, place + 1].some((near) =>
        this.used.has(Math.floor(near / BLOCK)),
      );
      if (!isBeside) this.found.delete(place);
    }
  }

  // Places count the hits that are in the answer, offsets those that the server ranked.

  placeOf(offset) {
    return offset - this.gone.filter((other) => other < offset).length;
  }

  offsetOf(place) {
    let offset = place;
    for (const other of this.gone) {
      if (other > offset) break;
      offset += 1;
    }
    return offset;
  }

  /** Take pictures out; return them for `putBack`. */
  drop(ids) {
    const taken = [...this.found]
      .filter(([, hit]) => ids.has(hit.image_id))
      .map(([place, hit]) => ({ hit, place, offset: this.offsetOf(place) }));
    this.lose(taken.map(({ offset }) => offset));
    return taken;
  }

  putBack(taken) {
    const offsets = new Set(taken.map(({ offset }) => offset));
    this.move(() => {
      this.gone = this.gone.filter((offset) => !offsets.has(offset));
    });
    for (const { hit, offset } of taken) this.found.set(this.placeOf(offset), hit);
    this.answer.total += taken.length;
    this.loaded += taken.length;
  }

  lose(offsets) {
    if (!offsets.length) return;
    const places = offsets.map((offset) => this.placeOf(offset));
    for (const place of places) this.found.delete(place);
    this.loaded -= places.filter((place) => place < this.loaded).length;
    this.answer.total -= offsets.length;
    this.move(() => {
      this.gone = [...this.gone, ...offsets].sort((one, other) => one - other);
    });
  }

  /** Change which offsets are gone; all hits keep theirs. */
  move(change) {
    const offsets = [...this.found].map(([place, hit]) => [this.offsetOf(place), hit]);
    change();
    this.found = new Map(offsets.map(([offset, hit]) => [this.placeOf(offset), hit]));
  }
}
