/** Short messages at the foot of the page, which screen readers speak. */

import { on } from "./store.js";

const SHOWN = { info: 5000, error: 10000 }; // milliseconds
const MOST = 4;

let region;
const said = new WeakMap(); // toast -> its text

export function start() {
  region = document.getElementById("toasts");
  on("toast", show);
  for (const change of ["close", "toggle"]) document.addEventListener(change, moveToTop, true);
}

/** Show `text` in place of the same one; an `error` stays longer and is spoken at once. */
function show({ text, kind = "info" }) {
  moveToTop();
  for (const same of region.querySelectorAll("p")) if (said.get(same) === text) same.remove();
  const toast = document.createElement("p");
  said.set(toast, text);
  toast.className = `toast is-${kind}`;
  toast.setAttribute("role", kind === "error" ? "alert" : "status");
  region.append(toast);
  while (region.children.length > MOST) region.firstElementChild.remove();
  requestAnimationFrame(() => (toast.textContent = text)); // a live region speaks what changes
  removeLater(toast, SHOWN[kind]);
}

function removeLater(toast, time) {
  let timer = setTimeout(() => toast.remove(), time);
  toast.addEventListener("pointerenter", () => clearTimeout(timer));
  toast.addEventListener("pointerleave", () => {
    timer = setTimeout(() => toast.remove(), time);
  });
  toast.addEventListener("click", () => toast.remove());
}

/** All outside an open modal dialog is inert and silent: the region moves into the topmost one. */
function moveToTop() {
  const open = [...document.querySelectorAll("dialog:modal")].pop();
  const host = open ?? document.body;
  if (region.parentElement !== host) host.append(region);
}
