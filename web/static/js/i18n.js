/** The page's texts in its language. */

const messages = JSON.parse(document.getElementById("messages").textContent);

export const knows = (key) => key in messages;

/** The text of a key, `{names}` in it replaced by `params`. */
export function t(key, params = {}) {
  return (messages[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => params[name] ?? whole);
}
