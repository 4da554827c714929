/** The parts that the first view does without. */

import * as better from "./library/better.js";
import * as detail from "./results/detail.js";
import * as exports from "./results/exports.js";
import * as indexing from "./library/indexing.js";
import * as print from "./showing/print.js";
import * as review from "./tagging/review.js";
import * as saved from "./query/saved.js";
import * as selected from "./tagging/selected.js";
import * as slideshow from "./showing/slideshow.js";
import * as suggestions from "./query/suggestions.js";

export function start() {
  for (const part of [exports, detail, better, indexing, saved, suggestions, slideshow, print, selected, review]) part.start();
}
