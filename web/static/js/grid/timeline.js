/**
 * Months and years at the right edge: where in time the window is, and a way to any other month.
 *
 * A slider for pointers and keys. Half of its length is shared by the months equally, half by their
 * numbers of pictures, so that no month is too short to be hit.
 */

import * as api from "../page/api.js";
import { element } from "../page/dom.js";
import * as format from "../page/format.js";
import * as grid from "../results/grid.js";
import { t } from "../page/i18n.js";
import { monthAt } from "./layout.js";
import { on } from "../page/store.js";

const FEWEST = 61; // pictures, fewer are on few screens
const LABEL = 26; // CSS pixels that the label of a year needs
const TICK = 8; // and the tick of a month
const PATIENCE = 1500; // milliseconds, at most, before months are asked for: pictures come first
const SEEN = 1500; // milliseconds for which it stays on a touch screen after scrolling
const TYPED = 1500; // milliseconds between digits of a year
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

let box;
let slider;
let years; // the menu of years
let bubble;
let thumb;
let labels;
let asked = null; // AbortController
let answer = null;
let months = []; // [{month, start, count, from, to}]: places in the answer, parts of the slider
let now = 0; // the place that the window shows first
let dragging = null; // {id, month}: the pointer, and the month under it
let seen = 0; // timer
let waiting = 0; // timer
let typed = { digits: "", at: 0 };

export function start() {
  box = document.getElementById("timeline");
  const part = (name) => box.querySelector(`[data-part=${name}]`);
  [slider, bubble, thumb, labels] = ["slider", "bubble", "thumb", "labels"].map(part);
  years = document.getElementById("jump-year");
  slider.addEventListener("pointerdown", grabbed);
  slider.addEventListener("pointermove", moved);
  for (const end of ["pointerup", "pointercancel"]) slider.addEventListener(end, released);
  slider.addEventListener("pointerleave", () => !dragging && hideBubble());
  slider.addEventListener("blur", hideBubble);
  slider.addEventListener("keydown", pressed);
  years.addEventListener("change", () => {
    goToMonth(months.findIndex(({ month }) => yearOf(month) === years.value));
    years.value = "";
  });
  on("hits", follow);
  on("settled", () => waiting && load());
  on("changed", () => answer && load());
  on("view", ({ place }) => {
    now = place;
    show();
  });
  addEventListener("resize", drawLabels);
  addEventListener("scroll", wake, { passive: true });
}

const yearOf = (month) => month.slice(0, 4);
const nameOf = ({ month }) => (month ? format.date(month) : t("hits.undated"));

/** Whether an answer is a list by date, of which the server can tell the months. */
const isList = ({ kind, order, total }) => kind === "browse" && order === "date" && total >= FEWEST;

/** Reserve the room at the edge before the first pictures are laid out. */
export function makeRoom(next) {
  const has = isList(next);
  box.hidden = !has;
  document.body.classList.toggle("has-timeline", has);
  if (!has) clear();
}

function clear() {
  asked?.abort();
  answer = null;
  months = [];
  box.classList.remove("is-ready");
  document.getElementById("jump").hidden = true;
}

function follow(next) {
  if (!isList(next)) return;
  if (answer && answer.text !== next.text) clear(); // its months are others
  answer = next;
  clearTimeout(waiting);
  waiting = setTimeout(load, PATIENCE);
}

async function load() {
  clearTimeout(waiting);
  waiting = 0;
  if (!answer) return;
  asked?.abort();
  const mine = (asked = new AbortController());
  const of = answer;
  try {
    const found = await api.timeline(of.text ?? "", { signal: mine.signal });
    if (of === answer && mine === asked) learn(found);
  } catch (error) {
    if (error.name !== "AbortError" && of === answer) box.classList.remove("is-ready");
  }
}

/** Take a timeline in, unless the answer is of another state of the library. */
function learn({ months: found, undated, total }) {
  if (total !== answer.total || !total) return;
  const all = undated ? [...found, { month: "", count: undated }] : found;
  let start = 0;
  let from = 0;
  months = all.map(({ month, count }) => {
    const to = from + 0.5 / all.length + (0.5 * count) / total;
    const made = { month, count, start, from, to };
    start += count;
    from = to;
    return made;
  });
  slider.setAttribute("aria-valuemax", String(months.length - 1));
  drawYears();
  drawLabels();
  box.classList.add("is-ready");
  grid.learn(months);
  show();
}

/** The years, each with the first of its months. */
function firstOfYears() {
  const found = new Map();
  for (const each of months) {
    const year = yearOf(each.month);
    if (!found.has(year)) found.set(year, each);
  }
  return [...found];
}

function drawYears() {
  const options = firstOfYears().map(([year]) =>
    element("option", { value: year }, year ? format.date(year) : t("hits.undated")),
  );
  years.replaceChildren(element("option", { value: "" }, t("timeline.jump")), ...options);
  document.getElementById("jump").hidden = options.length < 2;
}

/** Name the years where there is room for their labels, and mark the months between these. */
function drawLabels() {
  const tall = labels.clientHeight;
  const dated = tall ? months.filter(({ month }) => month) : [];
  const newYears = new Set(firstOfYears().map(([, first]) => first));
  const heightOf = ({ from }) => Math.min(from * tall, tall - LABEL);
  const named = [];
  for (const each of dated) {
    const isFree = !named.length || heightOf(each) >= heightOf(named.at(-1)) + LABEL;
    if (newYears.has(each) && isFree) named.push(each);
  }
  const made = named.map((each) => mark("timeline-year", heightOf(each), yearOf(each.month)));
  let free = 0; // below the tick before
  for (const each of dated) {
    const top = heightOf(each);
    const isYear = newYears.has(each);
    if (named.some((one) => Math.abs(heightOf(one) - top) < LABEL / 2) || (!isYear && top < free)) continue;
    made.push(mark(isYear ? "timeline-tick" : "timeline-tick is-month", top));
    free = top + TICK;
  }
  labels.replaceChildren(...made);
}

function mark(kind, top, text = "") {
  const made = element("span", { class: kind }, text);
  made.style.top = `${Math.round(top)}px`;
  return made;
}

/** Show where the window is. */
function show() {
  if (!months.length) return;
  const number = monthAt(months, now);
  const each = months[number];
  const part = each.from + ((each.to - each.from) * (now - each.start)) / each.count;
  if (!dragging) thumb.style.top = `${100 * part}%`;
  tell(dragging ? dragging.month : number);
}

function tell(number) {
  const { count } = months[number];
  slider.setAttribute("aria-valuenow", String(number));
  slider.setAttribute(
    "aria-valuetext",
    t("timeline.month", { month: nameOf(months[number]), count: format.number(count) }),
  );
}

function showBubble(number, part) {
  bubble.textContent = nameOf(months[number]);
  bubble.style.top = `${100 * part}%`;
  bubble.hidden = false;
}

function hideBubble() {
  bubble.hidden = true;
}

/** On a touch screen it is there while somebody scrolls. */
function wake() {
  box.classList.add("is-awake");
  clearTimeout(seen);
  seen = setTimeout(() => dragging || box.classList.remove("is-awake"), SEEN);
}

// Pointers

function partAt({ clientY }) {
  const { top, height } = labels.getBoundingClientRect();
  return Math.min(Math.max((clientY - top) / (height || 1), 0), 1);
}

function monthOf(part) {
  const number = months.findIndex(({ to }) => part <= to);
  return number < 0 ? months.length - 1 : number;
}

function grabbed(event) {
  if (!months.length || event.button) return;
  slider.setPointerCapture(event.pointerId);
  dragging = { id: event.pointerId, month: 0 };
  box.classList.add("is-dragging");
  moved(event);
}

function moved(event) {
  if (!months.length) return;
  const part = partAt(event);
  const number = monthOf(part);
  if (!dragging) {
    if (event.pointerType === "mouse") showBubble(number, part);
    return;
  }
  if (event.pointerId !== dragging.id) return;
  dragging.month = number;
  showBubble(number, part);
  thumb.style.top = `${100 * part}%`;
  const { from, to, start, count } = months[number];
  const within = Math.floor(((part - from) / (to - from)) * count);
  grid.goTo({ place: start + Math.min(Math.max(within, 0), count - 1), isHead: true });
}

function released(event) {
  if (event.pointerId !== dragging?.id) return;
  dragging = null;
  box.classList.remove("is-dragging");
  hideBubble();
  show();
  wake();
}

// Keys

function goToMonth(number) {
  if (!months[number]) return;
  grid.goTo({ place: months[number].start, isHead: true });
  now = months[number].start;
  show();
}

function pressed(event) {
  if (!months.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = monthAt(months, now);
  const next = /^[0-9]$/.test(event.key) ? yearTyped(event.key, number) : keyed(event.key, number);
  if (next === null) return;
  event.preventDefault();
  event.stopPropagation();
  goToMonth(next);
  const { from } = months[monthAt(months, now)];
  showBubble(monthAt(months, now), from);
}

/** The month that a key leads to: the next, that of another year, the first or the last. */
function keyed(key, number) {
  const bounded = (other) => Math.min(Math.max(other, 0), months.length - 1);
  if (key in STEPS) return bounded(number + STEPS[key]);
  if (key === "Home") return 0;
  if (key === "End") return months.length - 1;
  const starts = firstOfYears().map(([, first]) => months.indexOf(first));
  if (key === "PageDown") return starts.find((first) => first > number) ?? months.length - 1;
  if (key === "PageUp") return starts.findLast((first) => first < number) ?? 0;
  return null;
}

/** The newest month of the year that has been typed, as far as it has been. */
function yearTyped(digit, number) {
  const isNew = performance.now() - typed.at > TYPED;
  typed = { digits: (isNew ? "" : typed.digits) + digit, at: performance.now() };
  const found = months.findIndex(({ month }) => month.startsWith(typed.digits));
  return found < 0 ? number : found;
}
