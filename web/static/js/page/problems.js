/** Problem documents as Errors, in the page's language if it has a text for their code. */

import { knows, t } from "./i18n.js";

/** An Error with the message and the members of a problem document. */
export function refusal(problem) {
  const { status, code, params, position, expected } = problem;
  const key = `problem.${code}`;
  return Object.assign(new Error(said(problem)), {
    status,
    code,
    params,
    position,
    expected: knows(key) ? t(key, params) : expected, // without its place
  });
}

function said({ code, params, position, detail, title }) {
  const key = `problem.${code}`;
  if (!knows(key)) return detail ?? title;
  const text = t(key, params);
  const isPlace = Number.isInteger(position);
  return isPlace ? t("problem.query", { position: position + 1, expected: text }) : text;
}
