/** Which part of the map the stage shows: its middle, and how large the map is. */

const MARGIN = 0.92; // of the stage's shorter side that the whole map takes
const MOVE_MS = 260; // of a zoom by a button

export class View {
  constructor() {
    this.width = 1; // of the stage, in CSS pixels
    this.height = 1;
    this.x = 0.5; // the middle of what is shown, on the map's scale
    this.y = 0.5;
    this.scale = 1; // CSS pixels of the map's side
    this.most = 1; // the largest scale
    this.changed = () => {};
    this.move = null; // {from, to, since}
  }

  get whole() {
    return Math.max(1, Math.min(this.width, this.height) * MARGIN);
  }

  /** How far it is zoomed in: 1 shows the whole map. */
  get zoom() {
    return this.scale / this.whole;
  }

  resize(width, height, most) {
    const zoom = this.width > 1 ? this.zoom : 1;
    [this.width, this.height, this.most] = [width, height, most];
    this.scale = Math.min(this.largest, this.whole * zoom);
    this.changed();
  }

  get largest() {
    return Math.max(this.whole * 2, this.most);
  }

  toMap(left, top) {
    return [this.x + (left - this.width / 2) / this.scale, this.y + (top - this.height / 2) / this.scale];
  }

  toStage(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (y - this.y) * this.scale + this.height / 2];
  }

  /** What the stage shows, with a margin in CSS pixels: left, top, right, bottom. */
  bounds(margin = 0) {
    const [left, top] = this.toMap(-margin, -margin);
    const [right, bottom] = this.toMap(this.width + margin, this.height + margin);
    return [left, top, right, bottom];
  }

  pan(right, down) {
    this.move = null;
    this.set(this.x - right / this.scale, this.y - down / this.scale, this.scale);
  }

  /** Zoom by a factor; what is at a place of the stage stays there. */
  zoomAt(factor, left = this.width / 2, top = this.height / 2) {
    this.move = null;
    const [x, y] = this.toMap(left, top);
    const scale = Math.min(this.largest, Math.max(this.whole * 0.7, this.scale * factor));
    const by = this.scale / scale;
    this.set(x + (this.x - x) * by, y + (this.y - y) * by, scale);
  }

  set(x, y, scale) {
    this.x = Math.min(1.05, Math.max(-0.05, x));
    this.y = Math.min(1.05, Math.max(-0.05, y));
    this.scale = scale;
    this.changed();
  }

  /** Go somewhere, in some steps unless motion is to be reduced. */
  goTo(x, y, scale) {
    const to = { x, y, scale: Math.min(this.largest, Math.max(this.whole * 0.7, scale)) };
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.move = null;
      return this.set(to.x, to.y, to.scale);
    }
    this.move = { from: { x: this.x, y: this.y, scale: this.scale }, to, since: performance.now() };
    this.changed();
  }

  zoomTo(factor) {
    const { x, y, scale } = this.move?.to ?? this;
    this.goTo(x, y, scale * factor);
  }

  showAll() {
    this.goTo(0.5, 0.5, this.whole);
  }

  /** Show a circle on the map. */
  showCircle(x, y, radius) {
    this.goTo(x, y, Math.min(this.width, this.height) / Math.max(0.002, 2.6 * radius));
  }

  /** Take the next step of a move. */
  step(now) {
    if (!this.move) return;
    const { from, to, since } = this.move;
    const part = Math.min(1, Math.max(0, (now - since) / MOVE_MS));
    const eased = part * (2 - part);
    const scale = from.scale * (to.scale / from.scale) ** eased;
    // The middle moves so that the zoom looks straight.
    const way = to.scale === from.scale ? eased : (1 / from.scale - 1 / scale) / (1 / from.scale - 1 / to.scale);
    const next = part < 1 ? this.move : null;
    this.set(from.x + (to.x - from.x) * way, from.y + (to.y - from.y) * way, scale);
    this.move = next;
  }
}
