/** The texts of the page in its language. */

const messages = JSON.parse(document.getElementById("messages").textContent);

export const knows = (key) => key in messages;

const forms = new Intl.PluralRules(document.documentElement.lang || "en");

/** The one of two names that is in the page's language. */
export const inLanguage = (english, chinese) => (document.documentElement.lang === "zh-Hans" ? chinese : english);

/** The text of a key, with `{names}` replaced by `params`; `count` selects a plural form. */
export function t(key, params = {}) {
  const form = `${key}.${forms.select(Number(params.count ?? NaN))}`; // "key.one"
  return (messages[form] ?? messages[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => params[name] ?? whole);
}
