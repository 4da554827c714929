/**
 * The points of the map in typed arrays, in the order of the cells of a grid, so that those of a
 * part of the map lie together.
 */

const MAGIC = 0x504d5646; // "FVMP", little-endian
const CELLS = 128; // along each side of the map
const SIDE = 65_535;

export class Points {
  /** `buffer` is what /api/map/points sends. */
  constructor(buffer) {
    const head = new DataView(buffer);
    const count = buffer.byteLength >= 8 ? head.getUint32(4, true) : 0;
    if (buffer.byteLength !== 8 + 14 * count || (count && head.getUint32(0, true) !== MAGIC)) {
      throw new Error("these are not the points of a map");
    }
    const ids = new Uint32Array(buffer, 8, count);
    const marks = new Uint8Array(buffer, 8 + 4 * count, 4 * count);
    const [across, down, leaves] = [0, 1, 2].map((part) => new Uint16Array(buffer, 8 + (8 + 2 * part) * count, count));
    this.count = count;
    this.start = new Uint32Array(CELLS * CELLS + 1); // of each cell's points
    const cells = new Uint16Array(count);
    for (let at = 0; at < count; at += 1) {
      cells[at] = (down[at] >> 9) * CELLS + (across[at] >> 9);
      this.start[cells[at] + 1] += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell += 1) this.start[cell + 1] += this.start[cell];
    const next = this.start.slice();
    this.x = new Float32Array(count); // 0 to 1, from the left
    this.y = new Float32Array(count); // from the top
    this.ids = new Uint32Array(count);
    this.leaves = new Uint16Array(count); // finest clusters
    this.marks = new Uint8Array(4 * count); // of the contents, for the addresses of thumbnails
    this.order = new Uint32Array(count); // by chance, always the same for a picture
    this.known = ids; // ascending
    this.places = new Uint32Array(count); // of the known ids
    for (let at = 0; at < count; at += 1) {
      const place = next[cells[at]]++;
      this.x[place] = across[at] / SIDE;
      this.y[place] = down[at] / SIDE;
      this.ids[place] = ids[at];
      this.order[place] = Math.imul(ids[at], 2654435761);
      this.leaves[place] = leaves[at];
      this.marks.set(marks.subarray(4 * at, 4 * at + 4), 4 * place);
      this.places[at] = place;
    }
  }

  /** Call `visit(from, to)` for runs of points that may lie in a part of the map. */
  runs(left, top, right, bottom, visit) {
    const [x0, y0, x1, y1] = [left, top, right, bottom].map((at) =>
      Math.min(CELLS - 1, Math.max(0, Math.floor((at * SIDE) / 512))),
    );
    for (let row = y0; row <= y1; row += 1) {
      const from = this.start[row * CELLS + x0];
      const to = this.start[row * CELLS + x1 + 1];
      if (from < to) visit(from, to);
    }
  }

  /** How many points may lie there. */
  countIn(left, top, right, bottom) {
    let count = 0;
    this.runs(left, top, right, bottom, (from, to) => (count += to - from));
    return count;
  }

  /** The point nearest to a place and at most `reach` away that `fits`; -1 for none. */
  nearest(x, y, reach, fits = () => true) {
    let found = -1;
    let best = reach * reach;
    this.runs(x - reach, y - reach, x + reach, y + reach, (from, to) => {
      for (let at = from; at < to; at += 1) {
        const away = (this.x[at] - x) ** 2 + (this.y[at] - y) ** 2;
        if (away <= best && fits(at)) [found, best] = [at, away];
      }
    });
    return found;
  }

  /** Up to `most` points, those nearest to one of them first, that one included. */
  around(at, most) {
    const away = new Float32Array(this.count);
    const [x, y] = [this.x[at], this.y[at]];
    for (let other = 0; other < this.count; other += 1) {
      away[other] = (this.x[other] - x) ** 2 + (this.y[other] - y) ** 2;
    }
    let reach = 0.02;
    let near = [];
    while (near.length < Math.min(most, this.count) && reach < 4) {
      near = [];
      for (let other = 0; other < this.count; other += 1) if (away[other] <= reach * reach) near.push(other);
      reach *= 2;
    }
    return near.sort((one, other) => away[one] - away[other]).slice(0, most);
  }

  /** The point of an image; -1 if it is not on the map. */
  find(id) {
    let [low, high] = [0, this.count - 1];
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (this.known[middle] === id) return this.places[middle];
      if (this.known[middle] < id) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  /** The path of a point's thumbnail on the server. */
  thumbnail(at) {
    let mark = "";
    for (let part = 0; part < 4; part += 1) mark += this.marks[4 * at + part].toString(16).padStart(2, "0");
    return `/api/images/${this.ids[at]}/thumbnail?v=${mark}&size=256`;
  }
}
