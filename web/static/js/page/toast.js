/** Short messages at the bottom of the page, announced by screen readers. */

import { on } from "./store.js";

const SHOWN = { info: 5000, error: 10000 }; // milliseconds
const MOST = 4;

let region;
const said = new WeakMap(); // toast -> its text
let last = null; // the newest toast with an action, and that action

export function start() {
  region = document.getElementById("toasts");
  on("toast", show);
  for (const change of ["close", "toggle"]) document.addEventListener(change, moveToTop, true);
}

/**
 * Show `text`, replacing an equal message; an `error` stays longer and is announced at once, and
 * one with an `action`, {text, run}, stays longer and has a button for it.
 */
function show({ text, kind = "info", action = null }) {
  moveToTop();
  for (const same of region.querySelectorAll("p")) if (said.get(same) === text) same.remove();
  const toast = document.createElement("p");
  said.set(toast, text);
  toast.className = `toast is-${kind}`;
  toast.setAttribute("role", kind === "error" ? "alert" : "status");
  region.append(toast);
  while (region.children.length > MOST) region.firstElementChild.remove();
  if (action) last = { toast, action };
  requestAnimationFrame(() => {
    toast.textContent = text; // a live region announces changes
    if (action) toast.append(" ", button(toast, action));
    removeLater(toast, action ? SHOWN.error : SHOWN[kind]); // from when it is seen
  });
}

function button(toast, { text, run }) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "toast-action";
  made.textContent = text;
  made.addEventListener("click", () => {
    if (last?.toast === toast) last = null;
    run();
  });
  return made;
}

/** Do what the newest toast offers, if it is still there; return whether it was. */
export function act() {
  if (!last?.toast.isConnected) return false;
  const { toast, action } = last;
  last = null;
  toast.remove();
  action.run();
  return true;
}

/** Remove a toast after a time during which neither pointer nor focus is on it. */
function removeLater(toast, time) {
  let timer = setTimeout(() => toast.remove(), time);
  for (const there of ["pointerenter", "focusin"]) {
    toast.addEventListener(there, () => clearTimeout(timer));
  }
  for (const gone of ["pointerleave", "focusout"]) {
    toast.addEventListener(gone, () => {
      clearTimeout(timer);
      timer = setTimeout(() => toast.remove(), time);
    });
  }
  toast.addEventListener("click", () => toast.remove());
}

/** Move into the topmost modal dialog, if any: everything outside it is inert and silent. */
function moveToTop() {
  const open = [...document.querySelectorAll("dialog:modal")].pop();
  const host = open ?? document.body;
  if (region.parentElement !== host) host.append(region);
}
