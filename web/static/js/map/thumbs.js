/** Small pictures for the map, fetched for what is near and forgotten when there are too many. */

import { at as address } from "../page/api.js";

const MOST = 600; // pictures that are kept: some 50 MB
const AT_ONCE = 6; // requests
const SIZE = 128; // pixels of the short side that are kept

export class Thumbs {
  constructor() {
    this.kept = new Map(); // point -> ImageBitmap, or null where there is none; the latest used last
    this.running = new Map(); // point -> AbortController
    this.wanted = []; // points, the most wanted first
    this.arrived = () => {};
  }

  /** The picture of a point; undefined while it is not there. */
  get(point) {
    const found = this.kept.get(point);
    if (found === undefined) return undefined;
    this.kept.delete(point);
    this.kept.set(point, found);
    return found;
  }

  /** Fetch pictures of these points, and no others any more. */
  want(points, list) {
    const wanted = new Set(list);
    this.points = points;
    this.wanted = list.filter((point) => !this.kept.has(point) && !this.running.has(point));
    for (const [point, controller] of this.running) if (!wanted.has(point)) controller.abort();
    this.go();
  }

  go() {
    while (this.running.size < AT_ONCE && this.wanted.length) this.load(this.wanted.shift());
  }

  async load(point) {
    const { points } = this;
    const controller = new AbortController();
    this.running.set(point, controller);
    let picture = null;
    try {
      const response = await fetch(address(points.thumbnail(point)), { signal: controller.signal });
      if (response.ok) picture = await small(await response.blob());
    } catch (error) {
      if (error.name === "AbortError") picture = undefined; // it may be wanted again
    }
    this.running.delete(point);
    if (points === this.points && picture !== undefined) {
      this.kept.set(point, picture);
      while (this.kept.size > MOST) this.forget(this.kept.keys().next().value);
      this.arrived();
    } else picture?.close();
    this.go();
  }

  forget(point) {
    this.kept.get(point)?.close();
    this.kept.delete(point);
  }

  clear() {
    for (const controller of this.running.values()) controller.abort();
    for (const point of [...this.kept.keys()]) this.forget(point);
    this.wanted = [];
  }
}

async function small(blob) {
  const whole = await createImageBitmap(blob);
  const by = SIZE / Math.min(whole.width, whole.height);
  if (by >= 1) return whole;
  const size = { resizeWidth: Math.round(whole.width * by), resizeHeight: Math.round(whole.height * by) };
  const made = await createImageBitmap(whole, { ...size, resizeQuality: "medium" });
  whole.close();
  return made;
}
