/** What pictures hold: how far text, copies, places, videos and labels are, each with a switch. */

import * as api from "../page/api.js";
import { element, isReadOnly } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

const ANALYSES = ["text", "copies"];
const SWITCHED = [...ANALYSES, "places"];

export class Held {
  /** `attempt(work)` reports errors; `changed()` shows the library's state anew. */
  constructor(list, attempt, changed) {
    this.attempt = attempt;
    this.changed = changed;
    this.question = document.getElementById("confirm-off");
    this.rows = new Map([...SWITCHED, "videos", "labels"].map((kind) => [kind, row(kind)]));
    list.append(...[...this.rows.values()].map(({ item }) => item));
    list.addEventListener("click", ({ target }) => {
      if (target.matches("[role=switch]")) this.flip(target);
    });
    this.choice = this.rows.get("labels").control;
    this.choice?.addEventListener("change", () => this.choose());
    this.question.addEventListener("close", () => this.answered());
  }

  /** Show the state; return whether something of it goes on. */
  async show(status) {
    const labels = await api.labels().catch(() => null);
    if (!labels) return false; // the server is silent: the next event looks again
    for (const kind of ANALYSES) this.showAnalysis(kind, status.analyses[kind], status.analysing);
    this.showPlaces(status.places);
    this.showVideos(status.videos);
    this.showLabels(labels, status.tags);
    return status.analysing || labels.working;
  }

  showAnalysis(kind, state, goesOn) {
    this.rows.get(kind).item.hidden = !state; // a library on Milvus has none
    if (!state) return;
    const { done, failed, pending, off, missing } = state;
    const isGoing = goesOn && pending > 0 && !missing;
    this.say(kind, off, missing, done, [
      t("held.done", { count: format.number(done) }),
      failed ? t("held.failed", { count: format.number(failed) }) : null,
      pending ? t("held.waiting", { count: format.number(pending) }) : null,
      isGoing ? t("held.going") : null,
    ]);
  }

  showPlaces(places) {
    const { located = 0, looked_up: done = 0, named = 0, missing = null } = places ?? {};
    const counts = { count: format.number(located), named: format.number(named) };
    const waiting = located - done;
    this.say("places", places === null, missing, done, [
      located ? t("held.places_named", counts) : t("held.no_places"),
      waiting > 0 ? t("held.waiting", { count: format.number(waiting) }) : null,
    ]);
  }

  showVideos({ videos, moments, waiting, missing }) {
    const counts = { count: format.number(videos), moments: format.number(moments) };
    this.say("videos", false, missing, videos, [
      videos ? t("held.videos_known", counts) : t("held.no_videos"),
      waiting ? t("held.waiting_videos", { count: format.number(waiting) }) : null,
    ]);
  }

  showLabels({ labels, available, working, problem }, { pictures }) {
    const isOff = labels === null;
    const { facts } = this.rows.get("labels");
    const counted = t("held.tagged", { count: format.number(pictures) });
    if (working) facts.textContent = t("held.labelling");
    else if (isOff && !available) facts.textContent = t("held.no_labels");
    else facts.textContent = problem ?? (isOff && !this.choice ? t("held.off") : counted);
    if (!this.choice) return;
    this.choice.disabled = working || (isOff && !available);
    this.choice.querySelector("[value=own]").hidden = !Array.isArray(labels);
    this.choice.value = isOff ? "off" : Array.isArray(labels) ? "own" : "shipped";
  }

  /** Show one line: off, or what is known, and what has to be installed for the rest. */
  say(kind, isOff, missing, done, facts) {
    const { facts: line, control } = this.rows.get(kind);
    if (control) {
      control.ariaChecked = String(!isOff);
      control.dataset.done = done;
    }
    if (isOff) line.textContent = t("held.off");
    else line.textContent = facts.filter(Boolean).join(" · ");
    if (isOff || !missing) return;
    line.append(element("br"), `${t("held.needs")} `, element("code", {}, missing));
  }

  flip(control) {
    const { kind, done } = control.dataset;
    const isOn = control.ariaChecked === "true";
    if (!isOn || done === "0") return this.turn(kind, !isOn);
    this.question.querySelector("[data-part=question]").textContent = t(`held.off_${kind}`);
    this.question.returnValue = "";
    this.asked = kind;
    this.question.showModal();
  }

  answered() {
    if (this.question.returnValue === "off") this.turn(this.asked, false);
  }

  turn(kind, on) {
    return this.attempt(async () => {
      await api.switchAnalyses({ [kind]: on });
      await this.changed();
    });
  }

  choose() {
    const { value } = this.choice;
    this.choice.disabled = true;
    return this.attempt(async () => {
      try {
        await (value === "off" ? api.unlabel() : api.label(value));
      } finally {
        await this.changed();
      }
    });
  }
}

/** The line of one kind: its name, what is known, and what switches it; nothing where none can. */
function row(kind) {
  const facts = element("span", { id: `held-${kind}-facts`, class: "held-facts" });
  const control = isReadOnly() || kind === "videos" ? null : controls(kind);
  const name = element("span", { id: `held-${kind}`, class: "held-name" }, t(`held.${kind}`));
  return { item: element("li", { class: "held-row" }, name, control, facts), facts, control };
}

function controls(kind) {
  const named = {
    "aria-labelledby": `held-${kind}`,
    "aria-describedby": `held-${kind}-facts`,
  };
  if (kind !== "labels") {
    const is = { type: "button", role: "switch", class: "switch", dataset: { kind } };
    return element("button", { ...is, ...named, "aria-checked": "true" });
  }
  const option = (value) => element("option", { value }, t(`held.labels_${value}`));
  const own = option("own");
  own.disabled = true; // the page has no way to write them
  const is = { class: "held-choice", "aria-label": t("held.labels") };
  return element("select", is, option("off"), option("shipped"), own);
}
