/** Lists of the files that are not indexed: unreadable and ignored ones. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

/** One list, loaded page by page once it is opened; `attempt(work)` reports errors. */
export class Failures {
  constructor(section, attempt) {
    this.section = section;
    this.state = section.dataset.state;
    this.list = section.querySelector("ul");
    this.more = section.querySelector("button");
    this.cursor = null;
    section.addEventListener("toggle", () => section.open && attempt(() => this.fill()));
    this.more.addEventListener("click", () => attempt(() => this.next()));
  }

  /** Show how many files there are; reload an open list, unless the counts are `isLive` ones. */
  async show(count, { isLive = false } = {}) {
    this.section.hidden = count === 0;
    const text = t(`library.${this.state}`, { count: format.number(count) });
    this.section.querySelector("summary").textContent = text;
    if (this.section.open && !isLive) await this.fill();
  }

  async fill() {
    this.cursor = null;
    this.list.replaceChildren();
    await this.next();
  }

  async next() {
    const page = await api.failures(this.state, this.cursor);
    this.cursor = page.cursor;
    this.list.append(...page.failures.map(item));
    this.more.hidden = !this.cursor;
  }
}

function item({ path, reason }) {
  return element(
    "li",
    {},
    element("bdi", { class: "failure-path" }, printable(path)),
    element("span", { class: "failure-reason" }, printable(reason ?? "")),
  );
}
