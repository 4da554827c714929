/**
 * A slideshow of the answer, or of the pictures similar to one, over the whole screen.
 *
 * A picture is shown once it is decoded, so nobody sees one arrive; the next one is loaded
 * meanwhile. The view from which it was started goes on at the picture at which it ends.
 */

import { printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";
import { addressIn, addressOf } from "../query/picture.js";
import { firstOf } from "../results/file.js";
import * as grid from "../results/grid.js";
import { results } from "../results/walks.js";

const PACES = [3, 5, 10, 20, 60]; // seconds a picture
const USUAL = 5;
const FADE = 700; // milliseconds; slideshow.css has the same
const QUIET = 3000; // milliseconds without a movement before the controls fade
const SWIPE = 60; // CSS pixels

let dialog;
let parts;
let show = null; // {list, index, at, hit}: what is wanted of which list; the hit at `at` is shown
let ahead = null; // {index, coming}: the next one, while it loads
let timer = 0;
let quiet = 0;
let isPlaying = false;
let isLoop = false;
let pace = USUAL;
let isLeft = false; // closed by going back: nothing goes on at the last picture
let lock = null; // keeps the screen on
let finger = null; // where a finger went down

export function start() {
  dialog = document.getElementById("slideshow");
  parts = Object.fromEntries(
    [...dialog.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  pace = PACES.find((one) => one === Number(localStorage.getItem("slideshow-pace"))) ?? USUAL;
  isLoop = localStorage.getItem("slideshow-loop") === "on";
  for (const one of PACES) parts.pace.add(new Option(format.duration(one), one));
  showSettings();
  dialog.addEventListener("close", closed);
  dialog.addEventListener("keydown", pressed);
  dialog.addEventListener("click", clicked);
  for (const moved of ["pointermove", "focusin"]) dialog.addEventListener(moved, stir);
  parts.pace.addEventListener("change", () => setPace(Number(parts.pace.value)));
  parts.stage.addEventListener("pointerdown", down);
  parts.stage.addEventListener("pointerup", up);
  document.addEventListener("fullscreenchange", () => {
    if (dialog.open && !document.fullscreenElement) dialog.close();
  });
  document.addEventListener("visibilitychange", () => document.hidden || keepAwake());
  addEventListener("popstate", () => {
    isLeft = dialog.open;
    dialog.close();
  });
  on("slideshow", open);
  const button = document.getElementById("open-slideshow");
  button.addEventListener("click", () => emit("slideshow", {}));
  for (const change of ["hits", "changed"]) on(change, ({ total }) => (button.hidden = !total));
}

/** Begin at an `index` of a `list`: without them where one is in the answer. */
async function open({ index = grid.here(), list = results }) {
  if (dialog.open || !list.count()) return;
  show = { list, index: -1, hit: null };
  isLeft = false;
  dialog.showModal();
  dialog.focus();
  stir();
  // Not the dialog itself: the standard refuses that. Where it is refused, the window has to do.
  parts.stage.requestFullscreen?.({ navigationUI: "hide" }).catch(() => {});
  keepAwake();
  setPlaying(true);
  await go(index);
}

async function keepAwake() {
  if (!dialog.open || !isPlaying || (lock && !lock.released)) return;
  lock = await navigator.wakeLock?.request("screen").catch(() => null);
  if (!dialog.open) lock?.release();
}

/** Show the picture at an index, and go on after it. */
async function go(index) {
  clearTimeout(timer);
  const here = (show = { ...show, index });
  const slide = await (ahead?.index === index ? ahead.coming : made(index, here.list));
  if (here !== show || !dialog.open) return;
  ahead = null;
  if (!slide) return index < here.list.count() ? retry(index) : ended();
  here.hit = slide.hit;
  here.at = index;
  put(slide);
  const next = following(index);
  if (next >= 0 && next !== index) ahead = { index: next, coming: made(next, here.list) };
  wait();
}

/** The server does not answer: it may by the time that another picture would be shown. */
function retry(index) {
  if (isPlaying) timer = setTimeout(go, pace * 1000, index);
}

/** The index after another one; -1 at the end. */
function following(index) {
  const count = show.list.count();
  return index + 1 < count ? index + 1 : isLoop && count ? 0 : -1;
}

/** {hit, image} at an index: `image` is null where the file is out of reach. null if there is none. */
async function made(index, list) {
  const hit = await list.at(index).catch(() => null);
  if (!hit) return null;
  const small = `${hit.thumbnail}&size=512`; // what there still is of a file that is offline
  const addresses = new Set([addressOf(hit), addressIn("preview", hit), small]);
  return { hit, image: await firstOf([...addresses]).catch(() => null) };
}

function put({ hit, image }) {
  const name = printable(hit.name);
  const slide = image ?? Object.assign(document.createElement("p"), { textContent: name });
  slide.className = "slide";
  if (image) image.alt = name;
  const old = [...parts.slides.children];
  parts.slides.append(slide);
  for (const before of old) before.classList.add("is-gone");
  setTimeout(() => old.forEach((before) => before.remove()), FADE);
  const place = { index: format.number(show.index + 1), count: format.number(show.list.count()) };
  const day = hit.day ? format.day(hit.day) : "";
  parts.caption.textContent = [t("detail.position", place), name, day].filter(Boolean).join(" · ");
  say([name, t("detail.position", place)].join(", "));
}

/** Screen readers tell it when they have finished what they are saying. */
const say = (text) => (parts.spoken.textContent = text);

function wait() {
  clearTimeout(timer);
  if (isPlaying) timer = setTimeout(onward, pace * 1000);
}

/** After a picture's time: another one, unless nobody looks or it was the last. */
function onward() {
  if (document.hidden) return wait();
  const next = following(show.index);
  if (next < 0) return ended();
  if (next === show.index) return wait(); // the only one
  go(next);
}

function ended() {
  setPlaying(false);
  stir();
  say(t("slideshow.end"));
}

/** Step by hand; from the last picture to the first one only where it repeats. */
function step(by) {
  const count = show.list.count();
  const next = by > 0 ? following(show.index) : show.index > 0 ? show.index - 1 : isLoop ? count - 1 : -1;
  if (next >= 0) go(next);
  else if (by > 0) ended();
}

function setPlaying(wanted) {
  isPlaying = wanted;
  dialog.classList.toggle("is-playing", wanted);
  const text = t(wanted ? "slideshow.pause" : "slideshow.play");
  parts.toggle.setAttribute("aria-label", text);
  parts.toggle.title = `${text} (${t("help.space")})`;
  if (wanted) keepAwake();
  else lock?.release();
}

function toggle() {
  const isAtEnd = !isPlaying && following(show.index) < 0;
  setPlaying(!isPlaying);
  say(t(isPlaying ? "slideshow.playing" : "slideshow.paused"));
  if (isPlaying && isAtEnd) go(0);
  else wait();
}

function setPace(seconds) {
  pace = seconds;
  localStorage.setItem("slideshow-pace", pace);
  showSettings();
  wait();
}

const change = (by) => setPace(PACES[PACES.indexOf(pace) + by] ?? pace);

function setLoop(wanted) {
  isLoop = wanted;
  localStorage.setItem("slideshow-loop", wanted ? "on" : "off");
  showSettings();
}

function showSettings() {
  parts.pace.value = pace;
  parts.loop.setAttribute("aria-pressed", String(isLoop));
}

/** Show the controls, for a while. */
function stir() {
  clearTimeout(quiet);
  dialog.classList.remove("is-quiet");
  quiet = setTimeout(() => dialog.classList.toggle("is-quiet", isPlaying), QUIET);
}

const actions = {
  previous: () => step(-1),
  next: () => step(1),
  toggle,
  loop: () => setLoop(!isLoop),
  slower: () => change(1),
  faster: () => change(-1),
  close: () => dialog.close(),
};

const keys = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  PageUp: "previous",
  PageDown: "next",
  " ": "toggle",
  "+": "slower",
  "=": "slower",
  "-": "faster",
  r: "loop",
  s: "close",
};

function pressed(event) {
  stir();
  const action = keys[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || !action) return;
  if (event.target.closest("select")) return; // it has a use for arrows and letters
  if (event.key === " " && event.target.closest("button")) return; // it presses the button
  event.preventDefault();
  actions[action]();
}

function clicked({ target }) {
  const action = target.closest("[data-action]")?.dataset.action;
  if (action) actions[action]();
}

function down(event) {
  stir();
  const isFinger = event.pointerType !== "mouse" && !event.target.closest("button, select");
  finger = isFinger ? { x: event.clientX, y: event.clientY } : null;
}

/** Swipe to the side for another picture, down to end. */
function up(event) {
  if (!finger) return;
  const [dx, dy] = [event.clientX - finger.x, event.clientY - finger.y];
  finger = null;
  if (Math.abs(dx) > SWIPE && Math.abs(dx) > 1.5 * Math.abs(dy)) step(dx < 0 ? 1 : -1);
  else if (dy > 2 * SWIPE) dialog.close();
}

async function closed() {
  const { list, at: index, hit } = show;
  clearTimeout(timer);
  clearTimeout(quiet);
  setPlaying(false);
  ahead = null;
  parts.slides.replaceChildren();
  say("");
  if (document.fullscreenElement) await document.exitFullscreen().catch(() => {});
  if (!hit || isLeft) return;
  emit("slid", { list, index, hit });
  if (list !== results || document.querySelector("dialog:modal")) return;
  await frame(); // the window may have another width now, and the grid new tiles
  await frame();
  if (!dialog.open) grid.focusIndex(index);
}

const frame = () => new Promise(requestAnimationFrame);
