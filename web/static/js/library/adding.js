/** The field for the path of a folder to add: a combobox of the folders that the server finds. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

const PAUSE = 120; // milliseconds without a keystroke before folders are asked for
const UNLISTED = ["forbidden", "slow", "unreadable", "relative"];

export class Adding {
  /** `parts` are the form's elements; `add(path)` adds a folder and returns what to say of it. */
  constructor(parts, add) {
    this.parts = parts;
    this.box = parts.path;
    this.list = parts.folders;
    this.addFolder = add;
    this.folders = [];
    this.active = -1; // the option that arrow keys have reached
    this.asked = null; // AbortController
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("focus", () => this.later());
    this.box.addEventListener("blur", () => this.close());
    this.box.addEventListener("keydown", (event) => this.pressed(event));
    this.list.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the focus
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose(this.folders[Number(option.dataset.index)]);
    });
    parts.add.addEventListener("submit", (event) => this.submit(event));
  }

  typed() {
    this.complain("");
    this.mark(-1); // Enter now means the text
    this.later();
  }

  later() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    this.asked?.abort();
    const mine = (this.asked = new AbortController());
    try {
      const found = await api.diskFolders(this.box.value, { signal: mine.signal });
      if (mine === this.asked && document.activeElement === this.box) this.show(found);
    } catch {
      this.close(); // it is only a help
    }
  }

  show({ folders, has_more: hasMore, reason }) {
    this.folders = folders;
    this.active = -1;
    this.list.replaceChildren(...folders.map(option));
    this.parts["add-hint"].textContent = hint(this.box.value.trim(), folders, hasMore, reason);
    this.open(folders.length > 0);
  }

  open(isOpen) {
    this.list.hidden = !isOpen;
    this.box.setAttribute("aria-expanded", String(isOpen));
    this.mark(-1);
  }

  close() {
    clearTimeout(this.pause);
    this.asked?.abort();
    this.parts["add-hint"].textContent = "";
    this.open(false);
  }

  mark(index) {
    this.active = index;
    for (const [place, made] of [...this.list.children].entries()) {
      made.setAttribute("aria-selected", String(place === index));
    }
    const made = this.list.children[index];
    made?.scrollIntoView({ block: "nearest" });
    if (made) this.box.setAttribute("aria-activedescendant", made.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  pressed(event) {
    const isOpen = !this.list.hidden;
    if (event.isComposing || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (isOpen) this.move(event.key === "ArrowDown" ? 1 : -1);
      else this.ask();
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault(); // the panel stays open
      event.stopPropagation();
      this.close();
    } else if (event.key === "Enter" && isOpen && this.active >= 0) {
      event.preventDefault();
      this.choose(this.folders[this.active]);
    } else if (event.key === "Tab" && !event.shiftKey && isOpen && this.complete()) {
      event.preventDefault();
    }
  }

  move(by) {
    const places = this.folders.length + 1; // one more: the text itself
    this.mark(((this.active + 1 + by + places) % places) - 1);
  }

  /** Go on typing from a folder. */
  choose({ typed }) {
    this.box.value = typed;
    this.box.focus();
    this.box.scrollLeft = this.box.scrollWidth;
    this.ask();
  }

  /**
   * Complete the name as far as it is certain; return whether that has changed anything. After a
   * slash Tab goes on to the button, so that nobody is caught in the field.
   */
  complete() {
    if (this.active >= 0) return this.choose(this.folders[this.active]) ?? true;
    const before = this.box.value;
    if (!before.trim() || /[/\\]\s*$/.test(before)) return false;
    if (this.folders.length === 1) return this.choose(this.folders[0]) ?? true;
    const shared = this.folders.map(({ typed }) => typed.slice(0, -1)).reduce(common);
    if (shared.length <= before.length) return false;
    this.box.value = shared;
    this.ask();
    return true;
  }

  async submit(event) {
    event.preventDefault();
    const path = this.box.value;
    this.close();
    if (!path.trim()) return;
    this.complain("");
    this.parts["add-note"].textContent = "";
    try {
      this.parts["add-note"].textContent = (await this.addFolder(path)) ?? "";
      this.box.value = "";
    } catch (error) {
      this.complain(error.message);
      this.box.focus();
      this.close();
    }
  }

  complain(text) {
    this.parts["add-problem"].textContent = text;
    if (text) this.box.setAttribute("aria-invalid", "true");
    else this.box.removeAttribute("aria-invalid");
  }
}

/** What there is to say of the folders that were found for a text. */
function hint(text, folders, hasMore, reason) {
  if (text && UNLISTED.includes(reason)) return t(`library.add_${reason}`);
  if (hasMore) return t("library.add_more");
  const count = folders.length;
  if (count) return t("library.add_count", { count: format.number(count) });
  const isEmpty = !reason && text.endsWith("/");
  return text && !isEmpty ? t("library.add_none") : "";
}

function option({ path, leads_to: target, in_library: isKnown }, index) {
  const notes = [
    target && t("library.add_leads", { path: printable(target) }),
    isKnown && t("library.add_known"),
  ].filter(Boolean);
  return element(
    "li",
    { id: `add-folder-${index}`, role: "option", dataset: { index }, "aria-selected": "false" },
    element("bdi", {}, printable(path)),
    notes.length ? element("span", { class: "add-note-of" }, notes.join(" · ")) : null,
  );
}

/** The beginning that two texts share, in any case. */
function common(one, other) {
  let length = 0;
  while (length < one.length && one[length].toLowerCase() === other[length]?.toLowerCase()) {
    length += 1;
  }
  return one.slice(0, length);
}

/** What is to be said of a folder that was added: that it was there, or in or around others. */
export function told({ path, inside, around }, wasKnown) {
  const names = { path: printable(path) };
  if (wasKnown) return t("library.added_again", names);
  if (inside !== null) return t("library.added_inside", { ...names, other: printable(inside) });
  if (around.length > 1) {
    return t("library.added_around_many", { ...names, count: format.number(around.length) });
  }
  if (around.length) return t("library.added_around", { ...names, other: printable(around[0]) });
  return "";
}
