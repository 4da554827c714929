/** One quiet line under the search box: something to know about the query that was answered. */

import { element, printable } from "../page/dom.js";
import { t } from "../page/i18n.js";
import { on } from "../page/store.js";

let line;

export function start() {
  line = document.getElementById("hint");
  on("hits", ({ hints = [] }) => show(hints.find(({ code }) => code in makers)));
}

function show(hint) {
  line.hidden = !hint;
  if (!hint) return line.replaceChildren();
  const said = makers[hint.code]?.(hint.params) ?? [hint.message];
  line.replaceChildren(...said);
}

const makers = {
  language: ({ language, reads, model, suggested }) => [
    t("hint.language", {
      model: printable(model),
      language: nameOf(language),
      reads: reads.split(" ").map(nameOf).join(t("hint.and")),
    }),
    " ",
    element("code", {}, `fovea models use ${suggested}`),
  ],
};

/** A language's name in the page's language. */
function nameOf(code) {
  try {
    return new Intl.DisplayNames(document.documentElement.lang, { type: "language" }).of(code);
  } catch {
    return code;
  }
}
