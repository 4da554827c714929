/**
 * Suggestions for a tag, one picture at a time: yes or no by key, click or swipe.
 *
 * The next picture comes at once; the answers follow to the server, which fits the tag anew, and
 * what it suggests then replaces what was to come.
 */

import * as api from "../page/api.js";
import { element, isReadOnly, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { t } from "../page/i18n.js";
import { emit, on } from "../page/store.js";

const AHEAD = 12; // suggestions of each kind
const SHOWN = 6; // pictures to come that are shown
const SWIPE = 60; // CSS pixels
const ANSWERS = 10; // from which it is known how many pictures are right, as the server has it
const LEAST = 3; // pictures that have a tag, from which there are suggestions

let dialog;
let parts;
let opener; // in the row of the status, for a query that names a tag
let tag = null; // as the server describes it
let queue = []; // {image_id, name, thumbnail, kind}: the picture shown, and those to come
let done = []; // {picture, what}: the answers, the latest last
let post = posted(""); // what goes to the server of the tag that is shown
let passed = new Set(); // images that need not be suggested again
let isChanged = false; // the answer of the page may be another now
let finger = null; // where a finger went down

const posts = new Map(); // name -> post, of the tags with answers that have not arrived

/** Return the answers of a tag that are to be sent: also while another tag is shown. */
function posted(name) {
  return { name, unsent: [], going: [], isSending: false };
}

export function start() {
  dialog = document.getElementById("review");
  opener = document.getElementById("open-review");
  parts = Object.fromEntries(
    [...dialog.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
  );
  dialog.addEventListener("click", clicked);
  dialog.addEventListener("keydown", pressed);
  dialog.addEventListener("close", closed);
  parts.stage.addEventListener("pointerdown", down);
  parts.stage.addEventListener("pointerup", up);
  parts.picture.addEventListener("error", () => (parts.picture.hidden = true));
  parts.picture.addEventListener("load", () => (parts.picture.hidden = false));
  opener.addEventListener("click", () => open(opener.dataset.name));
  on("review", ({ name }) => open(name));
  on("hits", offer);
}

/** Offer to improve the one tag that the query asks for. */
function offer({ filters = [] }) {
  const asked = filters.filter(({ key, negated }) => key === "tag" && !negated);
  opener.hidden = isReadOnly() || asked.length !== 1;
  if (opener.hidden) return;
  opener.dataset.name = asked[0].name;
  opener.textContent = t("review.open", { name: printable(asked[0].name) });
}

async function open(name) {
  if (dialog.open) return;
  tag = null;
  post = posts.get(name) ?? posted(name);
  const known = [...post.going, ...post.unsent].map(({ picture }) => picture.image_id);
  [queue, done, passed, isChanged] = [[], [], new Set(known), false];
  parts.title.textContent = t("review.title", { name: printable(name) });
  parts.state.textContent = "";
  show(true);
  dialog.showModal();
  const opened = done;
  try {
    const tags = await api.tags();
    if (opened !== done) return; // another tag by now
    tag = tags.find((one) => one.name === name) ?? null;
    if (tag) await load();
    showState();
  } catch (error) {
    complain(error);
  }
}

/** Ask what is suggested now; the picture that is shown stays. */
async function load() {
  const opened = done;
  const { likely, uncertain } = await api.tagSuggestions(tag.id, AHEAD);
  if (opened !== done) return; // another tag by now
  const known = new Set([...passed, queue[0]?.image_id]);
  const come = [];
  for (let place = 0; place < AHEAD; place += 1) {
    for (const [kind, list] of Object.entries({ likely, uncertain })) {
      const one = list[place];
      if (one && !known.has(one.image_id)) come.push({ ...one, kind });
    }
  }
  const isFirst = !queue.length;
  queue = [...queue.slice(0, 1), ...come];
  if (isFirst) show();
  else showComing();
}

// What is shown

function show(isLoading = false) {
  const [picture] = queue;
  dialog.classList.toggle("is-done", !picture);
  for (const button of dialog.querySelectorAll("[data-answer]")) button.disabled = !picture;
  parts.undo.disabled = !done.length;
  parts.end.hidden = Boolean(picture) || isLoading;
  parts.picture.hidden = true;
  parts.kind.textContent = picture ? t(`review.${picture.kind}`) : "";
  parts.name.textContent = picture ? printable(picture.name) : "";
  parts.picture.alt = picture ? printable(picture.name) : "";
  if (picture) parts.picture.src = large(picture);
  else parts.picture.removeAttribute("src");
  parts.spoken.textContent = picture ? `${parts.kind.textContent}: ${parts.name.textContent}` : "";
  if (!picture && !isLoading) parts.end.textContent = t(isTaught() ? "review.end" : "review.few", { count: missing() });
  showComing();
}

const large = ({ thumbnail }) => `${thumbnail}&size=512`;
const isTaught = () => tag?.taught;
const missing = () => Math.max(1, LEAST - (tag?.yes ?? 0));

function showComing() {
  const coming = queue.slice(1, 1 + SHOWN);
  parts.coming.replaceChildren(
    ...coming.map(({ thumbnail }) => element("img", { src: thumbnail, alt: "", draggable: false })),
  );
  if (queue[1]) new Image().src = large(queue[1]); // it is there at once then
}

function showState() {
  if (!tag) return;
  const counts = { count: format.number(tag.pictures), yes: format.number(tag.yes), no: format.number(tag.no) };
  const said = t("review.pictures", counts);
  let right = "";
  if (tag.right !== null && tag.pictures <= tag.yes) right = t("review.only");
  else if (tag.right !== null) right = t("review.right", { share: format.percent(tag.right) });
  else if (tag.taught) right = t("review.unproven", { count: Math.max(1, ANSWERS - tag.answers) });
  parts.state.textContent = [said, right].filter(Boolean).join(" ");
}

// Answers

function say(what) {
  const [picture] = queue;
  if (!picture) return;
  const one = { picture, what };
  passed.add(picture.image_id);
  done.push(one);
  queue.shift();
  show();
  if (what === "skip") return queue.length ? null : refill();
  post.unsent.push(one);
  return send(post);
}

async function undo() {
  const last = done.pop();
  if (!last) return;
  queue.unshift(last.picture);
  show();
  if (last.what === "skip") return;
  if (post.unsent.includes(last)) post.unsent = post.unsent.filter((one) => one !== last);
  else post.unsent.push({ picture: last.picture, what: "neither" });
  passed.delete(last.picture.image_id);
  await send(post);
}

const refill = () => load().catch(complain);

/** Send the answers of a tag, and those that come meanwhile, and ask for other suggestions. */
async function send(to) {
  if (to.isSending) return;
  to.isSending = true;
  posts.set(to.name, to);
  try {
    while (to.unsent.length) {
      await sent(to);
      if (to !== post) continue; // another tag is shown by now
      showState();
      if (!to.unsent.length && dialog.open) await load();
    }
  } catch (error) {
    complain(error);
  } finally {
    to.isSending = false;
    if (to.unsent.length) send(to);
    else posts.delete(to.name);
  }
}

/** Send answers; if that fails, their pictures wait for one again. */
async function sent(to) {
  [to.going, to.unsent] = [to.unsent, []];
  const said = { suggested: true };
  for (const { picture, what } of to.going) (said[what] ??= []).push(picture.image_id);
  try {
    const { tag: found } = await api.teach(to.name, said);
    if (to === post) tag = found;
    isChanged = true;
    emit("own-change");
    if (!dialog.open) emit("again");
  } catch (error) {
    if (to === post) {
      queue = [...to.going.map(({ picture }) => picture), ...queue];
      for (const one of to.going) if (done.includes(one)) done.splice(done.indexOf(one), 1);
      show();
    }
    throw error;
  } finally {
    to.going = [];
  }
}

const complain = (error) => emit("toast", { text: error.message, kind: "error" });

function closed() {
  parts.picture.removeAttribute("src");
  parts.coming.replaceChildren();
  if (isChanged) emit("again");
}

// Keys, clicks and swipes

const actions = {
  yes: () => say("yes"),
  no: () => say("no"),
  skip: () => say("skip"),
  undo,
  close: () => dialog.close(),
};

const keys = { y: "yes", ArrowRight: "yes", n: "no", ArrowLeft: "no", " ": "skip", u: "undo", Backspace: "undo" };

function pressed(event) {
  const action = keys[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === " " && event.target.closest("button")) return; // it presses the button
  event.preventDefault();
  actions[action]();
}

function clicked({ target }) {
  const action = target.closest("[data-action]")?.dataset.action;
  if (action) actions[action]();
  else if (target === dialog) dialog.close();
}

function down(event) {
  finger = event.pointerType === "mouse" ? null : { x: event.clientX, y: event.clientY };
}

/** Swipe to the right for yes, to the left for no. */
function up(event) {
  if (!finger) return;
  const [dx, dy] = [event.clientX - finger.x, event.clientY - finger.y];
  finger = null;
  if (Math.abs(dx) > SWIPE && Math.abs(dx) > 1.5 * Math.abs(dy)) say(dx > 0 ? "yes" : "no");
}
