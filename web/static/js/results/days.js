/** Checkboxes on the headings of days, which select a whole day, loaded or not. */

import * as api from "../page/api.js";
import * as chosen from "./chosen.js";
import { element } from "../page/dom.js";
import * as grid from "./grid.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

let answer = null; // the present one
let isWaiting = false; // for the next frame, to show what is selected

export function start() {
  document.getElementById("grid").addEventListener("click", ({ target }) => {
    const check = target.closest(".day-check");
    if (check) toggle(placeOf(check));
  });
  on("hits", (next) => (answer = next));
  on("heading", (made) => {
    if (made.matches(".grid-day")) made.append(dayBox(made.textContent));
  });
  for (const event of ["heading", "tile", "select"]) on(event, showSoon);
}

/** The checkbox of a day; its heading says where the day begins. */
const dayBox = (day) =>
  element("button", {
    class: "day-check",
    type: "button",
    role: "checkbox",
    tabindex: -1,
    title: `${t("selection.day", { day })} (d)`,
    "aria-checked": "false",
    "aria-label": t("selection.day", { day }),
  });

/** What the key d does: select the day of the hit at an index, where days have headings. */
export function pressed(index) {
  if (hasDays()) toggle(index);
}

const placeOf = (check) => Number(check.parentElement.dataset.first);

const hasDays = () => answer?.order === "date";

/** Whether the hit at an index belongs to the same day as the one before it. */
const goesOn = (index) =>
  index !== answer.likely && grid.hitAt(index)?.day === grid.hitAt(index - 1)?.day;

/** The loaded hits of the day of the one at an index, which begin at `first`, and whether they are all. */
function known(index) {
  let first = index;
  while (first > 0 && grid.hitAt(first) && goesOn(first)) first -= 1;
  let end = index;
  while (grid.hitAt(end) && (end === index || goesOn(end))) end += 1;
  const hits = Array.from({ length: end - first }, (_, number) => grid.hitAt(first + number));
  const isBegun = first === 0 || first === answer.likely || grid.hitAt(first - 1) !== null;
  const isEnded = end >= answer.total || end === answer.likely || grid.hitAt(end) !== null;
  return { first, hits, isAll: isBegun && isEnded };
}

function stateOf(index) {
  const { hits } = known(index);
  const count = hits.filter((hit) => chosen.has(hit.image_id)).length;
  return count ? (count === hits.length ? "true" : "mixed") : "false";
}

/** Select all of a day; if it is selected already, nothing of it. */
async function toggle(index) {
  const asked = answer;
  const isOn = stateOf(index) !== "true";
  try {
    const hits = await whole(index);
    if (hits && asked === answer) chosen.putAll(hits, isOn);
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  }
}

/** All hits of the day of the one at an index, loaded or listed by the server; null if that fails. */
async function whole(index) {
  const { first, hits, isAll } = known(index);
  if (isAll || !hits.length) return hits;
  const { day } = hits[0];
  if (answer.kind === "browse" && !answer.pictures && day?.length === 10) {
    const { ids } = await api.measure({ query: `on:${day} ${answer.text}` });
    return ids.map((image_id) => ({ image_id }));
  }
  const asked = answer;
  const { likely } = asked;
  for (const [from, by] of [[first - 1, -1], [first + hits.length, 1]]) {
    for (let at = from; at >= 0 && at < asked.total && (by > 0 ? at : at + 1) !== likely; at += by) {
      const hit = grid.hitAt(at) ?? (await grid.load(at));
      if (!hit || asked !== answer) return null;
      if (hit.day !== day) break;
      hits.push(hit);
    }
  }
  return hits;
}

function showSoon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    for (const check of document.querySelectorAll(".day-check")) {
      check.hidden = !hasDays(); // headings of names have none
      check.setAttribute("aria-checked", stateOf(placeOf(check)));
    }
  });
}
