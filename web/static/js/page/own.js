/**
 * Which changes of the library are this page's own: those need no new search.
 *
 * A change leads from one generation of the library to another; events have the generation only.
 */

const before = new Map(); // generation -> the one from which an own change led to it
let seen = null; // the generation of the last event

/** Remember an own change, as the server's answer tells it. */
export function note({ before: from, generation }) {
  if (generation !== from) before.set(generation, from);
}

/** Whether nothing but own changes led to the generation of an event, which is then the last. */
export function isAll({ generation }) {
  let from = generation;
  while (before.has(from) && from !== seen) from = before.get(from);
  const isOwn = from !== generation && (seen === null || from === seen);
  seen = generation ?? seen;
  return isOwn;
}
