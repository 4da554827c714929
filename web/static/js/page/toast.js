/** Short messages at the bottom of the page, announced by screen readers. */

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

/** Show `text`, replacing an equal message; an `error` stays longer and is announced at once. */
function show({ text, kind = "info" }) {
  moveToTop();
  for (const same of region.querySelectorAll("p")) if (said.get(same) === text) same.remove();
  const toast = document.createElement("p");
  said.set(toast, text);
  toast.className = `toast is-${kind}`;
  toast.setAttribute("role", kind === "error" ? "alert" : "status");
  region.append(toast);
  while (region.children.length > MOST) region.firstElementChild.remove();
  requestAnimationFrame(() => (toast.textContent = text)); // a live region announces changes
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

/** Move into the topmost modal dialog, if any: everything outside it is inert and silent. */
function moveToTop() {
  const open = [...document.querySelectorAll("dialog:modal")].pop();
  const host = open ?? document.body;
  if (region.parentElement !== host) host.append(region);
}
