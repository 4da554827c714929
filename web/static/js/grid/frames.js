/** The elements of the blocks near the window; an empty one stands for hits that are not loaded. */

import { element } from "../page/dom.js";

export class Frames {
  constructor(box) {
    this.box = box;
    this.made = new Map(); // number of the block -> its element
  }

  /** The element of a block, made if there is none: in their order, for Tab and screen readers. */
  of(number, { top, height }) {
    let frame = this.made.get(number);
    if (!frame) {
      frame = element("div", { class: "grid-block" });
      const next = Math.min(...[...this.made.keys()].filter((other) => other > number));
      this.box.insertBefore(frame, this.made.get(next) ?? null);
      this.made.set(number, frame);
    }
    frame.style.top = `${top}px`;
    frame.style.height = `${height}px`;
    return frame;
  }

  isFilled(number) {
    return Boolean(this.made.get(number)?.firstChild);
  }

  /** Put all where the layout has them now. */
  put({ blocks, height }) {
    this.box.style.height = `${height}px`;
    for (const number of this.made.keys()) if (blocks[number]) this.of(number, blocks[number]);
  }

  /** Remove empty ones outside of the blocks from `first` to `last`. */
  keep(first, last) {
    for (const number of [...this.made.keys()]) {
      if ((number < first || number > last) && !this.isFilled(number)) this.remove(number);
    }
  }

  remove(number) {
    this.made.get(number).remove();
    this.made.delete(number);
  }

  clear() {
    for (const number of [...this.made.keys()]) this.remove(number);
  }
}
