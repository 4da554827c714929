/** The large picture of the picture view: the thumbnail at once, then the file itself over it. */

import { printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { Zoom } from "../results/zoom.js";

const SHOWN_BY_BROWSERS = new Set(["JPEG", "MPO", "PNG", "WEBP", "GIF", "AVIF"]);

export class Picture {
  /** `parts` are the elements of the view; the callbacks are those of Zoom. */
  constructor(parts, { onSwipe, onChange }) {
    this.parts = parts;
    this.zoom = new Zoom(parts.stage, { onSwipe, onChange });
    this.hit = null;
    this.ahead = new Map(); // address -> Image, loaded in advance
    parts.small.addEventListener("error", () => (parts.small.hidden = true));
    parts.large.addEventListener("load", () => this.loaded());
    parts.large.addEventListener("error", () => this.failed());
  }

  clear() {
    this.hit = null;
    for (const picture of [this.parts.small, this.parts.large]) picture.removeAttribute("src");
    this.parts.picture.hidden = true;
    this.parts.picture.classList.remove("is-sharp");
    this.parts.problem.hidden = true;
  }

  /** Show a hit, or the document of an image, which has the same fields. */
  show(hit) {
    this.hit = hit;
    this.parts.small.hidden = false;
    this.parts.small.src = `${hit.thumbnail}&size=512`;
    this.parts.large.alt = printable(hit.name);
    this.parts.large.src = addressOf(hit);
    this.parts.picture.hidden = false;
    this.zoom.show(this.parts.picture, hit.width, hit.height);
  }

  /** Load the pictures of these hits, and drop all others. */
  preload(hits) {
    const wanted = new Set(hits.map(addressOf));
    for (const address of this.ahead.keys()) if (!wanted.has(address)) this.ahead.delete(address);
    for (const address of wanted) {
      if (this.ahead.has(address)) continue;
      const loading = new Image();
      loading.src = address;
      this.ahead.set(address, loading);
    }
  }

  loaded() {
    this.parts.picture.classList.add("is-sharp");
    const { naturalWidth, naturalHeight } = this.parts.large;
    if (this.hit && !this.hit.width) {
      this.zoom.show(this.parts.picture, naturalWidth, naturalHeight);
    }
  }

  /** Fall back to the converted preview; if that fails too, the file is out of reach. */
  failed() {
    if (!this.hit) return;
    const preview = addressIn("preview", this.hit);
    if (this.parts.large.getAttribute("src") !== preview) this.parts.large.src = preview;
    else this.complain(t("detail.unreachable"));
  }

  complain(text) {
    this.parts.problem.textContent = text;
    this.parts.problem.hidden = false;
  }
}

function addressOf(hit) {
  const canShow = SHOWN_BY_BROWSERS.has((hit.format ?? "").toUpperCase());
  return addressIn(canShow ? "original" : "preview", hit);
}

/** The address of a picture's `shape`, "original" or "preview", derived from its thumbnail's. */
export const addressIn = (shape, { thumbnail }) => thumbnail.replace(/thumbnail(\?.*)?$/, shape);
