/** Create elements. Text is inserted as text, never as markup. */

/** The element `tag` with these properties (`class`, `dataset`, attributes or DOM properties). */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Whether the library can be searched, but not changed here. */
export const isReadOnly = () => document.body.hasAttribute("data-read-only");

const HIDDEN =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]/gu;

/** A file name with control, bidirectional and invalid characters escaped. */
export function printable(name) {
  return name.replace(HIDDEN, (character) => {
    const code = character.codePointAt(0);
    const isByte = code >= 0xdc80 && code <= 0xdcff; // of a name that is not UTF-8
    if (isByte || code < 0x100) return `\\x${(code & 0xff).toString(16).padStart(2, "0")}`;
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
