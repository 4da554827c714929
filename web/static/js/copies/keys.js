/** Keys among groups: arrows walk, x selects a picture, a all but the best of its group. */

import { selectOthers, toggle } from "./group.js";

export function start(list, { selectAll }) {
  document.addEventListener(
    "keydown",
    (event) => {
      const { target, key } = event;
      if (document.querySelector("dialog:modal") || event.altKey || target.closest("input[type=search], select, textarea")) return;
      const isAll = (event.ctrlKey || event.metaKey) && key.toLowerCase() === "a" && !event.shiftKey;
      if (isAll) selectAll();
      else if (event.ctrlKey || event.metaKey || !pressed(list, target, key)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
    },
    true,
  );
}

/** Do what a key means at an element; return whether it means something. */
function pressed(list, target, key) {
  const group = target.closest(".copies-group");
  if (!group) {
    const first = list.firstElementChild;
    if (key !== "ArrowDown" || target !== document.body || !first) return false;
    return focus(first, 0);
  }
  const one = target.closest(".copy");
  const row = [...group.querySelectorAll(".copy")];
  const at = row.indexOf(one);
  if (key === "ArrowDown" || key === "ArrowUp") {
    const next = key === "ArrowDown" ? group.nextElementSibling : group.previousElementSibling;
    return next ? focus(next, Math.max(0, at)) : true;
  }
  if (key === "ArrowRight" || key === "ArrowLeft") {
    const next = row[at + (key === "ArrowRight" ? 1 : -1)];
    next?.querySelector(".copy-open").focus();
    return true;
  }
  if (key === "x" && one) toggle(one);
  else if (key === "a") selectOthers(group);
  else return false;
  return true;
}

function focus(group, at) {
  const links = group.querySelectorAll(".copy-open");
  const link = links[Math.min(at, links.length - 1)];
  link.focus({ preventScroll: true });
  link.scrollIntoView({ block: "center" });
  return true;
}
