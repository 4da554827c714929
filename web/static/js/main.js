/** Start the parts that the first view needs; `later.js` loads the others. */

import * as days from "./results/days.js";
import * as drop from "./query/drop.js";
import * as grid from "./results/grid.js";
import * as help from "./help.js";
import * as hint from "./query/hint.js";
import * as keys from "./keys.js";
import * as later from "./later.js";
import * as marks from "./results/marks.js";
import * as search from "./query/search.js";
import * as selection from "./results/selection.js";
import * as tile from "./results/tile.js";
import * as timeline from "./grid/timeline.js";
import * as toast from "./page/toast.js";
import { catchUp } from "./page/store.js";

const first = document.getElementById("first");

later.start();
grid.start();
const parts = [toast, tile, selection, days, marks, drop, help, keys, hint, timeline];
for (const part of parts) part.start();
search.start(first && JSON.parse(first.textContent));

const { view } = document.body.dataset;
if (view === "map") import("./map/map.js").then(({ start }) => catchUp(start));
if (view === "duplicates") import("./copies/copies.js").then(({ start }) => catchUp(start));

/** The grid and the map show the same search. */
const other = document.getElementById("other-view");
other.addEventListener("click", () => {
  const { prefix = "" } = document.documentElement.dataset;
  other.href = prefix + other.dataset.path + location.search;
});

const language = document.getElementById("language");
language.addEventListener("change", () => {
  const values = new URLSearchParams(location.search);
  values.set("lang", language.value);
  location.assign(`${location.pathname}?${values}`);
});
