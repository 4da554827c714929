/**
 * One picture in a box, the stage: fit, zoom, pan and swipe it by wheel, pointer and keys.
 *
 * Scale 1 fits the picture to the stage. Offsets are CSS pixels from the centre of the stage.
 */

const FIT_UP = 2; // small pictures are enlarged at most twofold to fit
const MOST_PIXELS = 4; // zoomed in, a pixel of the picture covers at most 4 × 4 CSS pixels
const STEP = 1.5;
const SWIPE = 60; // CSS pixels
const TAP_TIME = 300; // milliseconds
const TAP_REACH = 24; // CSS pixels

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Zoom {
  /**
   * `onSwipe("left" | "right" | "down")` is called for swipes of the fitted picture,
   * `onChange(percent, zoomed)` for every new scale; 100 percent are the picture's own pixels.
   */
  constructor(stage, { onSwipe, onChange }) {
    this.stage = stage;
    this.onSwipe = onSwipe;
    this.onChange = onChange;
    this.picture = null;
    this.pointers = new Map(); // pointer id -> its last position
    this.reset();
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("dblclick", (event) => {
      if (this.pointerType !== "touch") this.toggle(event.clientX, event.clientY); // see tap()
    });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    stage.addEventListener("pointerup", (event) => this.up(event));
    stage.addEventListener("pointercancel", (event) => this.up(event));
    new ResizeObserver(() => this.layOut()).observe(stage);
  }

  /** Show `picture`, an element of the stage whose pixels are `width` × `height`, fitted. */
  show(picture, width, height) {
    this.picture = picture;
    this.width = width || 1;
    this.height = height || 1;
    this.reset();
    this.layOut();
  }

  reset() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.pointers.clear();
    this.start = null; // where the only pointer went down
  }

  get zoomed() {
    return this.scale > 1.001;
  }

  /** The scale at which one pixel of the picture is one CSS pixel. */
  get actual() {
    return 1 / this.fitted;
  }

  get largest() {
    return Math.max(MOST_PIXELS * this.actual, STEP);
  }

  layOut() {
    if (!this.picture) return;
    const { clientWidth, clientHeight } = this.stage;
    const fitted = Math.min(clientWidth / this.width, clientHeight / this.height, FIT_UP);
    this.fitted = fitted || 1;
    this.picture.style.width = `${this.width * this.fitted}px`;
    this.picture.style.height = `${this.height * this.fitted}px`;
    this.paint();
  }

  paint() {
    this.scale = clamp(this.scale, 1, this.largest);
    const reachX = Math.max(
      0,
      (this.width * this.fitted * this.scale - this.stage.clientWidth) / 2,
    );
    const reachY = Math.max(
      0,
      (this.height * this.fitted * this.scale - this.stage.clientHeight) / 2,
    );
    this.x = clamp(this.x, -reachX, reachX);
    this.y = clamp(this.y, -reachY, reachY);
    this.place(this.x, this.y);
    this.stage.classList.toggle("is-zoomed", this.zoomed);
    this.onChange(Math.round(100 * this.scale * this.fitted), this.zoomed);
  }

  place(x, y) {
    this.picture.style.transform = `translate(-50%, -50%) translate(${x}px, ${y}px) scale(${this.scale})`;
  }

  /** Zoom to `scale`, keeping the point (`x`, `y`) of the window fixed. */
  zoomTo(scale, x, y) {
    if (!this.picture) return;
    const box = this.stage.getBoundingClientRect();
    const dx = (x ?? box.x + box.width / 2) - (box.x + box.width / 2);
    const dy = (y ?? box.y + box.height / 2) - (box.y + box.height / 2);
    const next = clamp(scale, 1, this.largest);
    this.x = dx - ((dx - this.x) * next) / this.scale;
    this.y = dy - ((dy - this.y) * next) / this.scale;
    this.scale = next;
    this.paint();
  }

  zoomIn() {
    this.zoomTo(this.scale * STEP);
  }

  zoomOut() {
    this.zoomTo(this.scale / STEP);
  }

  /** Toggle between fitted and the picture's own pixels, or twice the fitted size if larger. */
  toggle(x, y) {
    this.zoomTo(this.zoomed ? 1 : Math.max(this.actual, 2), x, y);
  }

  /** Pan a zoomed picture by fractions of the stage. */
  pan(parts, down) {
    this.x -= parts * this.stage.clientWidth;
    this.y -= down * this.stage.clientHeight;
    this.paint();
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const turned = clamp(event.deltaY * lines, -100, 100);
    const pace = event.ctrlKey ? 0.01 : 0.004; // a pinch on a touchpad comes as a wheel with Ctrl
    this.zoomTo(this.scale * Math.exp(-turned * pace), event.clientX, event.clientY);
  }

  down(event) {
    if (event.button !== 0 || event.target.closest("button, a")) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointerType = event.pointerType;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const alone = this.pointers.size === 1;
    const swipes = !this.zoomed && event.pointerType !== "mouse";
    this.start = alone ? { x: event.clientX, y: event.clientY, swipes } : null;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.picture) return;
    const now = { x: event.clientX, y: event.clientY };
    if (this.pointers.size === 2) {
      this.pinch(event.pointerId, before, now);
    } else if (this.start?.swipes) {
      this.place(now.x - this.start.x, Math.max(0, now.y - this.start.y));
    } else {
      this.x += now.x - before.x;
      this.y += now.y - before.y;
      this.paint();
    }
    this.pointers.set(event.pointerId, now);
  }

  /** Zoom by the distance of two fingers, and move with their midpoint. */
  pinch(id, before, now) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, place]) => place);
    const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
    this.x += (now.x - before.x) / 2;
    this.y += (now.y - before.y) / 2;
    const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
    this.zoomTo((this.scale * apart(now)) / apart(before), middle.x, middle.y);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || !this.picture) return;
    const { start } = this;
    this.start = null;
    if (!start) return;
    this.paint();
    if (event.type === "pointercancel") return;
    const dx = event.clientX - start.x;
    const dy = event.clientY - start.y;
    if (Math.hypot(dx, dy) < TAP_REACH) {
      this.tap(event);
    } else if (!start.swipes) {
      return;
    } else if (Math.abs(dx) > SWIPE && Math.abs(dx) > 1.5 * Math.abs(dy)) {
      this.onSwipe(dx < 0 ? "left" : "right");
    } else if (dy > 2 * SWIPE) {
      this.onSwipe("down");
    }
  }

  /** A double tap zooms, like a double click. */
  tap(event) {
    if (event.pointerType !== "touch") return;
    const last = this.lastTap;
    const again =
      last &&
      event.timeStamp - last.time < TAP_TIME &&
      Math.hypot(event.clientX - last.x, event.clientY - last.y) < TAP_REACH;
    this.lastTap = again ? null : { time: event.timeStamp, x: event.clientX, y: event.clientY };
    if (again) this.toggle(event.clientX, event.clientY);
  }
}
