/** Which pictures the browser loads: connections are few, and some are wanted more than others. */

const paused = new Map(); // picture -> the addresses that were taken from it

/** Stop loading pictures outside the window: a search needs a connection now. */
export function pause(box) {
  for (const picture of box.querySelectorAll("img")) {
    const { top, bottom } = picture.getBoundingClientRect();
    if (picture.complete || (bottom > 0 && top < innerHeight)) continue;
    paused.set(picture, { src: picture.src, srcset: picture.srcset });
    empty(picture);
  }
}

/** Load the pictures that were paused. */
export function resume() {
  for (const [picture, addresses] of paused) Object.assign(picture, addresses);
  paused.clear();
}

/** Stop loading the pictures of an element that leaves the page. */
export function drop(gone) {
  for (const picture of gone.querySelectorAll("img")) {
    paused.delete(picture);
    if (!picture.complete) empty(picture);
  }
}

function empty(picture) {
  picture.removeAttribute("srcset");
  picture.removeAttribute("src");
}
