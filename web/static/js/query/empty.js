/** Why an answer is empty, in the page's language if it has a text for the hint's code. */

import { element } from "../page/dom.js";
import { knows, t } from "../page/i18n.js";

const MORE = ["near", "without", "first", "off", "unread"]; // what a hint may say besides, by its parameters

/** Paragraphs that say which filter leaves nothing; a general one without `hints`. */
export function reasons(hints = []) {
  const texts = hints.length ? hints.map(said) : [t("hits.empty")];
  return texts.map((text) => element("p", {}, text));
}

function said({ code, message, params }) {
  const key = `hint.${code}`;
  if (!knows(key)) return sentence(message);
  const more = MORE.filter((name) => name in params).map((name) => t(`hint.more.${name}`, params));
  return [t(key, params), ...more].join("");
}

/** A message of the server as a sentence. */
function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.?!]$/.test(text) ? text : `${text}.`;
}
