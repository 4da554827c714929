/** Events between parts of the page that do not import each other. */

const listeners = new Map();

/** Call `listen` with the data of every event of this name. */
export function on(name, listen) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(listen);
}

export function emit(name, data) {
  for (const listen of listeners.get(name) ?? []) listen(data);
}
