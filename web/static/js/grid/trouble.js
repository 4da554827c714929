/** What the page says below the pictures when further ones cannot be loaded. */

import { element } from "../page/dom.js";
import { t } from "../page/i18n.js";

let box;
let again; // what Try again does

export function start(retry) {
  box = document.getElementById("grid-trouble");
  again = retry;
  addEventListener("online", () => isSaid() && retry());
}

export const isSaid = () => !box.hidden;

export function say(error) {
  const button = element("button", { class: "button small", type: "button" }, t("hits.retry"));
  button.addEventListener("click", () => again());
  box.replaceChildren(element("span", {}, t("hits.more_failed", { message: error.message })), button);
  box.hidden = false;
}

export function hide() {
  box.hidden = true;
}
