/** What a scan does now, in words. */

import * as format from "../page/format.js";
import { t } from "../page/i18n.js";

/** One line on a running scan: what it does, and how far it is where there is anything to count. */
export function progress({ doing, found, done }) {
  const counts = { found: format.number(found), done: format.number(done) };
  const what = doing ?? (done ? "indexing" : "counting");
  if (what === "indexing") return t("scan.counts", counts);
  return t(`scan.${what}`, counts);
}

/** The part that is done, 0 to 1; null while there is none to tell. */
export function part({ doing, found, done }) {
  const isCounted = found > 0 && !["starting", "waiting", "downloading", "counting"].includes(doing);
  return isCounted ? Math.min(done / found, 1) : null;
}
