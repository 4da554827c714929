/** What the server has of the map: loads it, has it laid out the first time, and says how far that is. */

import * as api from "../page/api.js";
import { isReadOnly } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

const LOOK_MS = 900; // between two looks while it is laid out

export class State {
  /** `show(document)` is called with every new map that is ready. */
  constructor(parts, show) {
    this.parts = parts;
    this.show = show;
    this.timer = 0;
    this.isAsked = false; // the page has had it laid out
    this.points = undefined; // address of those shown
  }

  async look() {
    clearTimeout(this.timer);
    try {
      await this.take(await api.map());
    } catch (error) {
      if (!this.points) this.say(t("map.lost", { message: error.message }), "", { canTry: false });
      this.timer = setTimeout(() => this.look(), 10 * LOOK_MS);
    }
  }

  /** Have the map laid out anew. */
  async layOut() {
    this.isAsked = true;
    try {
      await this.take(await api.layOutMap());
    } catch (error) {
      this.say(t("map.failed"), error.message, { canTry: true });
    }
  }

  async take(found) {
    const { build } = found;
    const isRunning = build?.state === "running";
    if (isRunning) this.timer = setTimeout(() => this.look(), LOOK_MS);
    if (found.state === "ready") {
      if (!isRunning) this.parts.state.hidden = true;
      if (found.points !== this.points) {
        await this.show(found);
        this.points = found.points;
      }
      return this.note(found, isRunning);
    }
    this.parts.note.hidden = true;
    if (!found.model) return this.say(t("map.none"), t("hits.empty_hint"), {});
    if (isRunning) return this.progress(build);
    if (!found.installed) return this.say(t("map.no_reducer"), t("map.advice", { command: 'pip install "fovea[map]"' }), {});
    if (isReadOnly()) return this.say(t("map.none"), t("map.read_only"), {});
    if (build?.state === "failed") return this.say(t("map.failed"), build.message, { canTry: true });
    if (!this.isAsked) return this.layOut();
    this.say(t("map.none"), "", { canTry: true });
  }

  /** What a map that is shown lacks. */
  note({ outgrown, listed, pictures, installed, build }, isRunning) {
    const { parts } = this;
    const texts = [];
    if (isRunning) texts.push(this.step(build));
    else if (this.isAsked && build?.state === "failed") texts.push(t("map.failed"), build.message);
    else if (outgrown) texts.push(t("map.outgrown"));
    if (listed < pictures) texts.push(t("map.not_all", { count: format.number(listed) }));
    parts.note.hidden = !texts.length;
    parts["note-text"].textContent = texts.join(" ");
    parts.anew.hidden = isRunning || !outgrown || !installed || isReadOnly();
  }

  step({ step, done, total }) {
    return t(`map.step.${step}`, { count: format.number(total), done: format.number(done) });
  }

  progress(build) {
    const { bar } = this.parts;
    this.say(t("map.working"), `${this.step(build)} · ${t("map.working_detail")}`, {});
    bar.hidden = false;
    if (build.step === "placing" && build.total) bar.value = build.done / build.total;
    else bar.removeAttribute("value");
  }

  say(title, detail, { canTry = false }) {
    const { parts } = this;
    parts.state.hidden = false;
    parts.bar.hidden = true;
    if (parts["state-title"].textContent !== title) parts["state-title"].textContent = title;
    parts["state-detail"].textContent = detail ?? "";
    parts.try.hidden = !canTry;
  }
}
