/** The large picture of the picture view: the thumbnail at once, then the file itself over it. */

import { isThere } from "../page/api.js";
import { printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { on } from "../page/store.js";
import { Zoom } from "../results/zoom.js";

const PREVIEW = 2048; // pixels of a preview's long side
const SHOWN_BY_BROWSERS = new Set(["JPEG", "MPO", "PNG", "WEBP", "GIF", "AVIF"]);

export class Picture {
  /**
   * `parts` are the elements of the view; `onConverted` is called when the browser turns out not to
   * show the file, and the other callbacks are those of Zoom.
   */
  constructor(parts, { onSwipe, onChange, onConverted }) {
    this.parts = parts;
    this.onConverted = onConverted;
    this.zoom = new Zoom(parts.stage, {
      onSwipe,
      onChange: (percent, isZoomed) => {
        onChange(percent, isZoomed);
        if (isZoomed) this.sharpen(percent);
      },
    });
    this.hit = null;
    this.isConverted = false; // shown is the server's preview, not the file
    this.isWhole = false; // the whole picture has been asked for, as it does not fit into a preview
    this.ahead = new Map(); // address -> Image, loaded in advance
    parts.small.addEventListener("error", () => (parts.small.hidden = true));
    parts.large.addEventListener("load", () => this.loaded());
    parts.large.addEventListener("error", () => this.failed());
    on("server-back", () => this.hit && !parts.problem.hidden && this.show(this.hit));
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
    this.isConverted = !canShow(hit);
    this.isWhole = false;
    this.parts.problem.hidden = true;
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

  /** Fall back to the converted preview; if that fails too, the file or the server is out of reach. */
  async failed() {
    const { hit } = this;
    if (!hit) return;
    const preview = addressIn("preview", hit);
    if (this.parts.large.getAttribute("src") === preview) {
      const text = t((await isThere()) ? "detail.unreachable" : "problem.silent");
      if (hit === this.hit) this.complain(text);
      return;
    }
    this.parts.large.src = preview;
    if (this.isConverted) return;
    this.isConverted = true;
    this.onConverted();
  }

  /** Load the whole converted picture once more of it is looked at than a preview has. */
  sharpen(percent) {
    const { hit } = this;
    const long = Math.max(hit?.width ?? 0, hit?.height ?? 0);
    const wanted = (long * percent * devicePixelRatio) / 100;
    if (!this.isConverted || this.isWhole || Math.min(long, wanted) <= PREVIEW) return;
    this.isWhole = true;
    const loading = new Image();
    loading.src = wholeAddress(hit);
    loading.decode().then(
      () => {
        if (this.hit === hit) this.parts.large.src = loading.src;
      },
      () => {}, // the preview stays
    );
  }

  complain(text) {
    this.parts.problem.textContent = text;
    this.parts.problem.hidden = false;
  }
}

/** Whether browsers show pictures of this format. */
export const canShow = (hit) => SHOWN_BY_BROWSERS.has((hit.format ?? "").toUpperCase());

/** The address of what a browser shows of a hit: its file, or else a preview. */
export const addressOf = (hit) => addressIn(canShow(hit) ? "original" : "preview", hit);

/**
 * The address of a picture's `shape`, "original" or "preview", derived from its thumbnail's; a preview of a
 * video is of the same moment.
 */
export const addressIn = (shape, { thumbnail }) => {
  const moment = shape === "preview" && /[?&](at=\d+)/.exec(thumbnail);
  return thumbnail.replace(/thumbnail(\?.*)?$/, moment ? `${shape}?${moment[1]}` : shape);
};

/** The address of the whole picture as JPEG; it may be cached for good. */
export const wholeAddress = ({ thumbnail }) => thumbnail.replace(/thumbnail(?=\?|$)/, "picture");
