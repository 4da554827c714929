/** Numbers, dates and places as written in the page's language. */

/** The page's language, in the browser's regional variant if it names one. */
const page = document.documentElement.lang || "en";
const language = navigator.languages.find((name) => name.split("-")[0] === page) ?? page;
const plain = new Intl.NumberFormat(language);
const oneDigit = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const moment = new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(language, { dateStyle: "medium" });

/** Text that does not break across lines. */
export const unbroken = (text) => text.replaceAll(" ", "\u00a0");

export const number = (value) => plain.format(value);
export const percent = (part) => percents.format(part);

/** Bytes in the largest unit that leaves a number of at least 1: "3.4 MB". */
export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), units.length - 1);
  const style = { style: "unit", unit: units[power], unitDisplay: power ? "short" : "long" };
  const digits = { maximumFractionDigits: power ? 1 : 0 };
  const size = new Intl.NumberFormat(language, { ...style, ...digits });
  return unbroken(size.format(count / 1000 ** power));
}

/** "4,032 × 3,024 (12.2 MP)"; megapixels from 0.5 on. */
export function pixels(width, height) {
  const mega = (width * height) / 1e6;
  const size = `${plain.format(width)} × ${plain.format(height)}`;
  const whole = unbroken(size);
  return mega < 0.5 ? whole : `${whole} (${unbroken(`${oneDigit.format(mega)} MP`)})`;
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
  if (text.length > 10) return together(style.formatToParts(time));
  const month = dateStyle === "long" ? "long" : "short";
  const parts = { 4: { year: "numeric" }, 7: { year: "numeric", month } }[text.length];
  // A day without a time is the same everywhere; JavaScript takes it for UTC.
  return new Intl.DateTimeFormat(language, { ...(parts ?? { dateStyle }), timeZone: "UTC" }).format(
    time,
  );
}

/** The parts of a date, without a break between hour and PM or between day and month. */
function together(parts) {
  const inOne = (one, other) => {
    const kinds = new Set([one?.type, other?.type]);
    return kinds.has("dayPeriod") || (kinds.has("day") && kinds.has("month"));
  };
  return parts
    .map(({ type, value }, place) => {
      const isBetween = type === "literal" && inOne(parts[place - 1], parts[place + 1]);
      return isBetween ? value.replace(/^\s+$/, "\u00a0") : value;
    })
    .join("");
}

/** Seconds of exposure: "1/250 s", "2.5 s". */
export function exposureTime(seconds) {
  if (!(seconds > 0)) return "";
  const said = seconds < 0.3 ? `1/${Math.round(1 / seconds)}` : oneDigit.format(seconds);
  return `${said}\u00a0s`;
}

/** Degrees north and east as "48.20820° N, 16.37380° E". */
export function coordinates(latitude, longitude, digits = 5) {
  const side = (value, plus, minus) =>
    `${Math.abs(value).toFixed(digits)}°\u00a0${value < 0 ? minus : plus}`;
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

/** A time in a video as players write it: "1:23", "1:02:03". */
export function clock(seconds) {
  const whole = Math.floor(seconds + 0.0005);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** The same to the millisecond: "1:23.48". */
export function exactClock(seconds) {
  const rest = Math.round(seconds * 1000) % 1000;
  return clock(seconds) + (rest ? `.${String(rest).padStart(3, "0").replace(/0+$/, "")}` : "");
}

/** A length as queries write it, "1m30s", in words: "1 min 30 sec". */
export function lengthInWords(text) {
  const units = { h: "hour", m: "minute", s: "second" };
  const style = (unit) => ({ style: "unit", unit, unitDisplay: "short" });
  const parts = [...text.matchAll(/([\d.]+)([hms])/g)].map(([, value, unit]) =>
    unbroken(new Intl.NumberFormat(language, style(units[unit])).format(Number(value))),
  );
  return parts.join(" ") || text;
}
