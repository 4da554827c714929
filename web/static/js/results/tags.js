/** The tags of a picture in the picture view: shown, corrected and taught. */

import * as api from "../page/api.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { inLanguage, t } from "../page/i18n.js";
import { showNames } from "../tagging/names.js";
import { quoted } from "../query/querytext.js";

/** Show the tags in the `parts` of the view, from the document of an image. */
export function showTags(parts, { image_id: id, tags = [] }) {
  const part = parts.tags;
  part.dataset.imageId = id;
  part.closest("section").hidden = isReadOnly() && tags.length === 0;
  part.replaceChildren(...tags.map((tag) => item(id, part, tag)));
  const form = parts.teach;
  form.hidden = isReadOnly();
  form.elements.tag.onfocus = showNames;
  form.onsubmit = (event) => {
    event.preventDefault();
    const name = form.elements.tag.value.trim();
    if (name) say(part, id, name, "yes").then((done) => done && form.reset());
  };
}

function item(id, part, { name, name_zh: chinese, probability, proven, said }) {
  const shown = printable(inLanguage(name, chinese));
  const query = `tag:${quoted(name)}`;
  const href = `?${new URLSearchParams({ q: query })}`;
  const link = element("a", { class: "link", href, dataset: { query }, title: query }, shown);
  const sure = element("span", { class: "tag-sure" }, said === null ? (proven ? format.percent(probability) : t("tags.unproven")) : "");
  const isSaid = (is) => String(said === is);
  const button = (is, key) => {
    const made = element(
      "button",
      {
        class: "button tag-button",
        type: "button",
        "aria-pressed": isSaid(is),
        "aria-label": t(`tags.${key}_label`, { name: shown }),
      },
      t(`tags.${key}`),
    );
    made.addEventListener("click", () => say(part, id, name, said === is ? "neither" : key));
    return made;
  };
  const buttons = isReadOnly() ? [] : [button(true, "yes"), button(false, "no")];
  return element("li", { class: said === false ? "is-not" : "" }, link, sure, ...buttons);
}

/** Tell the server whether the picture has a tag, and show its tags anew; whether that was done. */
async function say(part, id, name, what) {
  const problem = document.getElementById("tags-problem");
  problem.textContent = "";
  const label = document.activeElement?.getAttribute?.("aria-label");
  try {
    await api.teach(name, { [what]: [id] });
    const about = await api.image(id);
    if (part.dataset.imageId !== String(id)) return false; // another picture is shown by now
    const teach = part.closest("section").querySelector("form");
    showTags({ tags: part, teach }, about);
    if (label) [...part.querySelectorAll("button")].find((one) => one.ariaLabel === label)?.focus();
    return true;
  } catch (error) {
    problem.textContent = error.message;
    return false;
  }
}
