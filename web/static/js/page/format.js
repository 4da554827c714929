/** Numbers, dates and places as written in the page's language. */

/** The page's language, in the browser's regional variant if it names one. */
const page = document.documentElement.lang || "en";
const language = navigator.languages.find((name) => name.split("-")[0] === page) ?? page;
const plain = new Intl.NumberFormat(language);
const oneDigit = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const moment = new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(language, { dateStyle: "medium" });

export const number = (value) => plain.format(value);
export const percent = (part) => percents.format(part);

/** Bytes in the largest unit that leaves a number of at least 1: "3.4 MB". */
export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  const style = { style: "unit", unit: units[power], unitDisplay: power ? "short" : "long" };
  const digits = { maximumFractionDigits: power ? 1 : 0 };
  return new Intl.NumberFormat(language, { ...style, ...digits }).format(count / 1000 ** power);
}

/** "4,032 × 3,024 (12.2 MP)"; megapixels from 0.5 on. */
export function pixels(width, height) {
  const mega = (width * height) / 1e6;
  const size = `${plain.format(width)} × ${plain.format(height)}`;
  return mega < 0.5 ? size : `${size} (${oneDigit.format(mega)} MP)`;
}

/**
 * An ISO 8601 time; without a zone it is local time where it was taken. Without a time, a day or a
 * month it is as long as it is. "" if invalid.
 */
export const date = (text) => said(moment, text, "long");
export const day = (text) => said(calendar, text, "medium");

function said(style, text, dateStyle) {
  const time = new Date(text ?? "");
  if (Number.isNaN(time.valueOf())) return "";
  if (text.length > 10) return style.format(time);
  const month = dateStyle === "long" ? "long" : "short";
  const parts = { 4: { year: "numeric" }, 7: { year: "numeric", month } }[text.length];
  // A day without a time is the same everywhere; JavaScript takes it for UTC.
  return new Intl.DateTimeFormat(language, { ...(parts ?? { dateStyle }), timeZone: "UTC" }).format(
    time,
  );
}

/** Seconds of exposure: "1/250 s", "2.5 s". */
export function exposureTime(seconds) {
  if (!(seconds > 0)) return "";
  return seconds < 0.3 ? `1/${Math.round(1 / seconds)} s` : `${oneDigit.format(seconds)} s`;
}

/** Degrees north and east as "48.20820° N, 16.37380° E". */
export function coordinates(latitude, longitude) {
  const side = (value, plus, minus) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;
  return `${side(latitude, "N", "S")}, ${side(longitude, "E", "W")}`;
}

/** Seconds as "45 s", "12 min", "3 hr 20 min". */
export function duration(seconds) {
  const unit = (value, name) =>
    new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "short" }).format(
      value,
    );
  if (seconds < 60) return unit(Math.max(1, Math.round(seconds)), "second");
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return unit(minutes, "minute");
  const rest = minutes % 60;
  const hours = unit(Math.floor(minutes / 60), "hour");
  return rest ? `${hours} ${unit(rest, "minute")}` : hours;
}
