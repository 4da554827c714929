/** Start all parts of the page. */

import * as better from "./library/better.js";
import * as detail from "./results/detail.js";
import * as drop from "./query/drop.js";
import * as grid from "./results/grid.js";
import * as help from "./help.js";
import * as indexing from "./library/indexing.js";
import * as keys from "./keys.js";
import * as marks from "./results/marks.js";
import * as saved from "./query/saved.js";
import * as search from "./query/search.js";
import * as selection from "./results/selection.js";
import * as toast from "./page/toast.js";

const first = document.getElementById("first");

grid.start();
const parts = [toast, selection, marks, detail, drop, better, indexing, help, keys, saved];
for (const part of parts) part.start();
search.start(first && JSON.parse(first.textContent));

const language = document.getElementById("language");
language.addEventListener("change", () => {
  const values = new URLSearchParams(location.search);
  values.set("lang", language.value);
  location.assign(`${location.pathname}?${values}`);
});
