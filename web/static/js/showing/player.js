/** Videos in the picture view: the player, from the moment that matches, and stills of all moments. */

import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { addressIn } from "../query/picture.js";

const NEVER_PLAYED = new Set(["AVI", "WMV", "FLV", "MTS", "MPEG"]); // by any browser

export const isVideo = (hit) => hit?.duration !== null && hit?.duration !== undefined;

/** Whether this browser may play it; what it cannot play after all is shown as a still. */
const mayPlay = (hit) => !NEVER_PLAYED.has(hit.format ?? "");

export class Player {
  /** `showStill(moment)` shows a still where the browser does not play the video. */
  constructor({ stage, video, moments, problem }, showStill) {
    Object.assign(this, { stage, video, moments, problem, showStill });
    this.hit = null;
    this.start = 0;
    video.addEventListener("error", () => this.failed());
    video.addEventListener("loadedmetadata", () => this.loaded());
    video.addEventListener("timeupdate", () => this.mark());
    // The stage zooms and swipes pictures; a player has gestures and keys of its own.
    for (const kind of ["pointerdown", "pointermove", "pointerup", "wheel", "dblclick"]) {
      video.addEventListener(kind, (event) => event.stopPropagation());
    }
  }

  get isShown() {
    return !this.video.hidden;
  }

  /** The time that is shown, in seconds; null without a video. */
  get time() {
    if (!this.hit) return null;
    return this.isShown ? this.video.currentTime : this.start;
  }

  /** Show a hit, from its best moment on; hide the player if it is a picture. */
  show(hit) {
    this.clear();
    if (!isVideo(hit)) return;
    this.hit = hit;
    this.start = hit.time ?? 0;
    if (!mayPlay(hit)) return this.failed();
    this.video.poster = addressIn("preview", hit);
    this.video.setAttribute("aria-label", printable(hit.name));
    this.video.src = addressIn("original", hit);
    this.video.hidden = false;
    this.stage.classList.add("is-video");
  }

  clear() {
    this.hit = null;
    this.video.pause();
    this.video.removeAttribute("poster");
    if (this.video.hasAttribute("src")) {
      this.video.removeAttribute("src");
      this.video.load(); // or it would go on loading
    }
    this.video.hidden = true;
    this.stage.classList.remove("is-video");
    this.moments.closest("section").hidden = true;
    this.moments.replaceChildren();
  }

  loaded() {
    if (!this.video.videoWidth) return this.failed(); // it would only be heard
    if (this.start) this.video.currentTime = this.start;
  }

  /** Show a still instead. */
  failed() {
    if (!this.hit || (this.isShown && !this.video.hasAttribute("src"))) return;
    this.video.hidden = true;
    this.stage.classList.remove("is-video");
    this.problem.textContent = t("detail.no_player");
    this.problem.hidden = false;
  }

  toggle() {
    if (!this.isShown) return;
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  }

  /** Offer the moments of a video, from the document of its image. */
  offer({ moments = [] }) {
    this.moments.closest("section").hidden = moments.length === 0;
    this.moments.replaceChildren(...moments.map((moment) => this.item(moment)));
    this.mark();
  }

  item(moment) {
    const time = format.clock(moment.time);
    const picture = element("img", {
      src: `${moment.thumbnail}&size=256`,
      alt: "",
      loading: "lazy",
      decoding: "async",
    });
    const label = t("detail.moment", { time });
    const button = element(
      "button",
      { type: "button", "aria-label": label, title: label, onclick: () => this.jump(moment) },
      picture,
      element("span", {}, time),
    );
    return element("li", { dataset: { time: moment.time } }, button);
  }

  jump(moment) {
    this.start = moment.time;
    if (this.isShown) {
      this.video.currentTime = moment.time;
      this.video.play().catch(() => {}); // where it may not: it shows the frame
    } else {
      this.showStill(moment);
    }
    this.mark(moment.time);
  }

  /** Mark the moment that is shown. */
  mark(time = this.time ?? 0) {
    const items = [...this.moments.children];
    const now = items.findLast((item) => Number(item.dataset.time) <= time + 0.05) ?? items[0];
    for (const item of items) {
      if (item === now) item.firstElementChild.setAttribute("aria-current", "true");
      else item.firstElementChild.removeAttribute("aria-current");
    }
  }
}
