/** The map of the pictures: a canvas to move on, and the list of its clusters. */

import * as api from "../page/api.js";
import { Dots, pixelOf } from "./dots.js";
import * as format from "../page/format.js";
import { listen } from "./gestures.js";
import { t } from "../page/i18n.js";
import { inside } from "./lasso.js";
import { Over } from "./over.js";
import { Panel } from "./panel.js";
import { Points } from "./points.js";
import * as chosen from "../results/chosen.js";
import { State } from "./state.js";
import { emit, on } from "../page/store.js";
import { Thumbs } from "./thumbs.js";
import { View } from "./view.js";
import { walkFrom } from "./walk.js";

const GROUPS = 8; // colours of the coarsest clusters
const [FAINT, SELECTED] = [GROUPS, GROUPS + 1]; // tones
const REACH = 14; // CSS pixels around the pointer in which a dot is meant
const HERE = 60; // CSS pixels around the middle that are told of
const QUIET = 1500; // milliseconds between a change of the library and a look at the map
const MOST = 10_000; // pictures that are selected at once, which one request can name
const RADII = [[50_000, 0.85], [10_000, 1.1], [2_000, 1.7], [0, 2.6]]; // CSS pixels, by the number of points
const SPACE = 900; // CSS pixels: how far apart points are on average, at the largest scale

let parts; // the elements, by their data-part
let points = new Points(new ArrayBuffer(8));
let clusters = [];
let tones = new Uint8Array(0); // of each point
let groups = new Uint8Array(0); // the colour of each point
let isHit = null; // of each point, whether the query finds it: 0 or 1; null without a query
let asked = ""; // the query whose hits those are
let frame = 0;
let hovered = -1;
let pointed = -1; // the point that was opened last
let lasso = null;
let isLasso = false;
let isFocused = false; // by the keyboard, which is about the middle
let colours = [];
let names = []; // the same as CSS colours
let [dots, over, thumbs, view, panel, state] = [];

export function start() {
  const map = document.getElementById("map");
  parts = Object.fromEntries([...map.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  view = new View();
  thumbs = new Thumbs();
  dots = new Dots(parts.dots);
  panel = new Panel(parts, goTo);
  over = new Over(parts.over, thumbs, (cluster, most) => panel.named(cluster, most));
  state = new State(parts, load);
  resized();
  view.changed = draw;
  thumbs.arrived = draw;
  panel.countOf = (cluster) => (isHit ? countHits(cluster) : null);
  listen(parts.over, acts);
  map.addEventListener("click", ({ target }) => actions[target.closest("[data-action]")?.dataset.action]?.());
  new ResizeObserver(resized).observe(parts.stage);
  new ResizeObserver(makeRoom).observe(document.querySelector(".tools"));
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
    matchMedia(query).addEventListener("change", dressed);
  }
  dressed();
  on("hits", () => find());
  on("select", retone);
  on("close", ({ image_id: id }) => {
    pointed = points.find(id);
    draw();
  });
  for (const change of ["focus", "blur"]) {
    parts.over.addEventListener(change, () => {
      isFocused = parts.over.matches(":focus-visible");
      draw();
    });
  }
  let pause = 0;
  for (const change of ["library", "own-change"]) {
    on(change, () => {
      clearTimeout(pause);
      pause = setTimeout(() => state.look(), QUIET);
    });
  }
  state.look();
}

/** The map fills the window below the search box. */
function makeRoom() {
  const map = document.getElementById("map");
  map.style.setProperty("--map-top", `${Math.round(map.getBoundingClientRect().top + scrollY)}px`);
}

function resized() {
  const { clientWidth: width, clientHeight: height } = parts.stage;
  dots.resize(width, height);
  over.resize(width, height);
  view.resize(width, height, SPACE * Math.sqrt(points.count));
}

function dressed() {
  const style = getComputedStyle(document.getElementById("map"));
  const probe = parts.stage;
  const named = (name) => {
    probe.style.color = `var(${name})`; // resolves light-dark()
    const { color } = getComputedStyle(probe);
    probe.style.color = "";
    return color;
  };
  names = Array.from({ length: GROUPS }, (_, group) => named(`--map-dot-${group}`));
  names.push(named("--map-faint"), named("--text"));
  colours = names.map(pixelOf);
  over.dress(style);
  Object.assign(over.look, {
    text: named("--text"), page: named("--surface"), accent: named("--accent"), "line-strong": named("--line-strong"),
  });
  draw();
}

// What is on the map

async function load(found) {
  const buffer = await api.mapPoints(found.points);
  points = new Points(buffer);
  clusters = found.clusters;
  [hovered, pointed] = [-1, -1];
  thumbs.clear();
  over.reset();
  const colourOf = new Map();
  const parents = new Map(clusters.map(({ id, parent }) => [id, parent]));
  const rootOf = (id) => (parents.get(id) === null || !parents.has(id) ? id : rootOf(parents.get(id)));
  groups = new Uint8Array(points.count);
  for (let at = 0; at < points.count; at += 1) {
    const leaf = points.leaves[at];
    if (!colourOf.has(leaf)) colourOf.set(leaf, rootOf(leaf) % GROUPS);
    groups[at] = colourOf.get(leaf);
  }
  tones = new Uint8Array(points.count);
  isHit = null;
  asked = "";
  parts.over.setAttribute("aria-label", t("map.label", { count: format.number(points.count) }));
  resized();
  retone();
  document.getElementById("map").dataset.points = points.count; // for programs that look at the page
  panel.show(clusters);
  panel.follow();
  find();
}

/** Mark what the query finds. */
async function find() {
  const values = new URLSearchParams(location.search);
  const wanted = new URLSearchParams();
  for (const name of ["q", "pictures"]) if (values.get(name)?.trim()) wanted.set(name, values.get(name));
  const text = wanted.toString();
  if (text === asked) return;
  asked = text;
  let found = null;
  try {
    if (text && points.count) found = new Uint32Array(await api.mapHits(text));
  } catch {
    found = null; // the page itself says what is wrong with the query
  }
  if (text !== asked) return;
  isHit = found && new Uint8Array(points.count);
  for (const id of found ?? []) {
    const at = points.find(id);
    if (at >= 0) isHit[at] = 1;
  }
  over.reset();
  retone();
  panel.draw();
}

function countHits(cluster) {
  const within = leavesOf(cluster);
  let count = 0;
  for (let at = 0; at < points.count; at += 1) if (isHit[at] && within.has(points.leaves[at])) count += 1;
  return count;
}

/** The finest clusters within a cluster, by their ids. */
function leavesOf({ id }) {
  const found = new Set([id]);
  for (const one of clusters) if (found.has(one.parent)) found.add(one.id); // parents come first
  return found;
}

const isShown = (at) => !isHit || isHit[at] === 1;
const isSelected = (at) => tones[at] === SELECTED;

function retone() {
  const isAny = chosen.size() > 0;
  const isWhole = chosen.isWhole();
  for (let at = 0; at < points.count; at += 1) {
    const isFaint = isHit && !isHit[at];
    const isOn = isAny && !(isWhole && isFaint) && chosen.has(points.ids[at]);
    tones[at] = isOn ? SELECTED : isFaint ? FAINT : groups[at];
  }
  draw();
}

// Drawing

function draw() {
  frame ||= requestAnimationFrame(render);
}

const present = () => ({
  points, view, clusters, isShown, isSelected, hovered, pointed, lasso, isFocused,
  colourOf: (at) => names[groups[at]],
});

function render(now) {
  frame = 0;
  view.step(now);
  const [, base] = RADII.find(([count]) => points.count >= count);
  const radius = Math.min(5, base * Math.max(1, view.zoom) ** 0.4);
  const radii = Array.from({ length: GROUPS }, () => (isHit ? radius + 0.6 : radius));
  radii.push(radius * 0.9, radius + 1.2);
  dots.draw(points, view, tones, colours, radii);
  over.draw(present());
  if (view.move) draw();
}

// Gestures and buttons

const acts = {
  pan: (right, down) => view.pan(right, down),
  panBy: (right, down) => {
    view.pan(right * view.width, down * view.height);
    tell();
  },
  zoomAt: (factor, x, y) => view.zoomAt(factor, x, y),
  zoomTo: (factor) => {
    view.zoomTo(factor);
    tell();
  },
  showAll: () => view.showAll(),
  hover(x, y) {
    const found = pointAt(x, y);
    parts.over.classList.toggle("is-over", found >= 0 && !isLasso);
    if (found === hovered) return;
    hovered = found;
    if (found >= 0 && !over.shown.includes(found) && thumbs.get(found) === undefined) {
      thumbs.want(points, [found, ...over.shown]);
    }
    draw();
  },
  leave() {
    if (hovered < 0) return;
    hovered = -1;
    draw();
  },
  open(x, y) {
    const found = pointAt(x, y);
    if (found < 0) return;
    if (isLasso) select([found], !isSelected(found));
    else open(found);
  },
  isLasso: () => isLasso,
  toggleLasso: () => setLasso(!isLasso),
  drawLasso(places) {
    lasso = places;
    draw();
  },
  endLasso(places, isAway) {
    const corners = places.map(([x, y]) => view.toMap(x, y));
    select(inside(points, corners, isShown), !isAway);
  },
  openMiddle: () => atMiddle(open),
  selectMiddle: () => atMiddle((at) => select([at], !isSelected(at))),
};

/** The point at a place of the stage; -1 for none. */
function pointAt(x, y) {
  const found = over.thumbAt(present(), x, y);
  if (found >= 0) return found;
  const [across, down] = view.toMap(x, y);
  return points.nearest(across, down, REACH / view.scale, isShown);
}

function atMiddle(work) {
  const reach = Math.min(view.width, view.height) / 3 / view.scale;
  const found = points.nearest(view.x, view.y, reach, isShown);
  if (found < 0) return (parts.said.textContent = t("map.nothing_here"));
  pointed = found;
  draw();
  work(found);
}

function open(at) {
  pointed = at;
  draw();
  emit("open", { image_id: points.ids[at], index: 0, list: walkFrom(points, at) });
}

function select(found, isOn) {
  const some = found.slice(0, MOST);
  if (some.length < found.length) emit("toast", { text: t("map.too_many", { count: format.number(MOST) }) });
  if (some.length) chosen.putAll(some.map((at) => ({ image_id: points.ids[at] })), isOn);
}

/** Say which cluster the middle shows, for those who cannot see it. */
function tell() {
  const { x, y, scale } = view.move?.to ?? view;
  const at = points.nearest(x, y, HERE / scale);
  const leaf = at < 0 ? null : clusters.find(({ id }) => id === points.leaves[at]);
  const names = [];
  for (let one = leaf; one; one = clusters.find(({ id }) => id === one.parent)) names.push(panel.named(one));
  const name = names.find(Boolean) ?? t("map.unnamed");
  parts.said.textContent = leaf ? t("map.here", { name }) : t("map.nothing_here");
}

function setLasso(isOn) {
  isLasso = isOn;
  parts.lasso.setAttribute("aria-pressed", String(isOn));
  parts.over.classList.toggle("is-lasso", isOn);
  if (isOn) parts.said.textContent = t("map.lasso_on");
}

const actions = {
  in: () => acts.zoomTo(1.8),
  out: () => acts.zoomTo(1 / 1.8),
  whole: () => view.showAll(),
  lasso: () => setLasso(!isLasso),
  anew: () => state.layOut(),
  "select-cluster": () => {
    const within = leavesOf(panel.shown);
    const found = [];
    for (let at = 0; at < points.count; at += 1) {
      if (within.has(points.leaves[at]) && isShown(at)) found.push(at);
    }
    select(found, true);
  },
};

/** Show a cluster; all of the map for null. */
function goTo(cluster) {
  if (cluster) view.showCircle(cluster.x, cluster.y, cluster.radius);
  else view.showAll();
}
