/** The names of the tags there are, offered by fields that take one. */

import * as api from "../page/api.js";
import { element } from "../page/dom.js";

/** Bring the list of names up to date. */
export async function showNames() {
  const found = await api.tags().catch(() => null);
  if (!found) return;
  const options = found.map(({ name }) => element("option", { value: name }));
  document.getElementById("tag-names").replaceChildren(...options);
}
