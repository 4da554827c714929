/** Events between the parts of the page, which know each other by these names alone. */

const listeners = new Map();

/** Call `listen` with the data of every event of this name. */
export function on(name, listen) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(listen);
}

export function emit(name, data) {
  for (const listen of listeners.get(name) ?? []) listen(data);
}
