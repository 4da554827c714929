/** Events between parts of the page that do not import each other. */

const STATES = ["asked", "hits"]; // events that say how the page is now

const listeners = new Map();
const newest = new Map(); // the data of the newest of these events

/** Call `listen` with the data of every event of this name. */
export function on(name, listen) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(listen);
}

export function emit(name, data) {
  if (STATES.includes(name)) newest.set(name, data);
  for (const listen of listeners.get(name) ?? []) listen(data);
}

/** Let parts `start` that were not there from the beginning, and tell them how the page is. */
export function catchUp(start) {
  const known = new Map([...listeners].map(([name, listen]) => [name, listen.length]));
  start();
  for (const name of STATES) {
    if (!newest.has(name)) continue;
    for (const listen of (listeners.get(name) ?? []).slice(known.get(name) ?? 0)) listen(newest.get(name));
  }
}
