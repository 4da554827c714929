/** What stands in for a picture that did not load, until the server is back and can send it. */

import { on } from "./store.js";

const replaced = new Map(); // what stands in -> the picture

/** Put `other` in the place of a picture that has failed to load. */
export function standIn(picture, other) {
  picture.replaceWith(other);
  for (const gone of replaced.keys()) if (!gone.isConnected) replaced.delete(gone);
  replaced.set(other, picture);
}

on("server-back", () => {
  for (const [other, picture] of replaced) {
    if (!other.isConnected) continue;
    picture.src = picture.getAttribute("src"); // load it again
    other.replaceWith(picture);
  }
  replaced.clear();
});
