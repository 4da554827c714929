/** The "more like" and "less like" buttons, which are on the tile under the pointer. */

import { printable } from "../page/dom.js";
import { t } from "../page/i18n.js";

let likes;

/** `pressed(index, weight)` is called when one of them is pressed on a hit. */
export function start(pressed) {
  likes = document.getElementById("tile-likes").content.firstElementChild;
  likes.addEventListener("click", ({ target }) => {
    const index = Number(likes.parentElement.dataset.index);
    pressed(index, Number(target.closest("button")?.dataset.weight));
  });
}

/** Put them on the tile of a hit. */
export function offer(tile, hit) {
  if (likes.parentElement === tile || !hit) return;
  for (const button of likes.children) {
    const key = Number(button.dataset.weight) > 0 ? "hits.more_like" : "hits.less_like";
    button.setAttribute("aria-label", t(key, { name: printable(hit.name) }));
  }
  tile.append(likes);
}
