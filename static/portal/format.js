// Numbers with their units and moments in the reader's time zone.
const number = (value, digits) => value.toLocaleString("en-GB", { maximumFractionDigits: digits, minimumFractionDigits: 0 });

/** How many decimals a value is written with; ticks get as many as their step has (or as tell them apart). */
function digits(value, step = null) {
  if (step !== null) {
    for (let places = 0; places < 4; places += 1) if (Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) < 1e-6 * step * 10 ** places) return places;
    return Math.min(12, Math.ceil(-Math.log10(step)));
  }
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return 0;
  if (size >= 10) return 1;
  if (size >= 0.1) return 2;
  return Math.min(6, 1 + Math.ceil(-Math.log10(size)));
}

const written = (value, by, step) => number(value / by, digits(value / by, step === null ? null : step / by));

const scaled = (value, base, units, step) => {
  let power = 0;
  // The nought of an axis of MiB is in MiB, too.
  let size = Math.max(Math.abs(value), base === 1024 ? step : 0);
  while (size >= base && power < units.length - 1) { size /= base; power += 1; }
  return [written(value, base ** power, step), units[power]];
};

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNT = ["", "k", "M", "G", "T"];

const UNITS = {
  ms: (v, step) => (Math.max(Math.abs(v), step) >= 1000 ? [written(v, 1000, step), "s"] : [written(v, 1, step), "ms"]),
  seconds: (v, step) => {
    if (Math.max(Math.abs(v), step) < 1) return UNITS.ms(v * 1000, step === null ? null : step * 1000);
    return Math.abs(v) < 120 || (step !== null && step % 60) ? [written(v, 1, step), "s"] : [duration(v), ""];
  },
  percent: (v, step) => [written(v, 1, step), "%"],
  share: (v, step) => UNITS.percent(100 * v, step === null ? null : 100 * step),
  bytes: (v, step) => scaled(v, 1024, BYTES, step),
  "bytes/s": (v, step) => { const [n, u] = scaled(v, 1024, BYTES, step); return [n, `${u}/s`]; },
  "req/s": (v, step) => { const [n, u] = scaled(v, 1000, COUNT, step); return [n, `${u} req/s`.trim()]; },
  "/s": (v, step) => { const [n, u] = scaled(v, 1000, COUNT, step); return [n, `${u}/s`]; },
  count: (v, step) => scaled(v, 1000, COUNT, step),
  // A value of which nothing is known: the very small are not rounded away.
  plain: (v, step) => (v !== 0 && Math.max(Math.abs(v), step) < 0.001 ? [v.toExponential(step === null ? 2 : 1), ""] : scaled(v, 1000, COUNT, step)),
};

/** [text, unit] of a value, "–" where there is none. With the `step` of an axis, as many digits as tell its ticks apart. */
export function measure(value, unit, step = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return ["–", ""];
  if (!Number.isFinite(value)) return [value > 0 ? "∞" : "−∞", ""];
  return (UNITS[unit] || UNITS.count)(value, step);
}

/** "83 %"; `step` as of `measure`. */
export function quantity(value, unit, step = null) {
  const [text, name] = measure(value, unit, step);
  return !name ? text : name.startsWith("/") ? `${text}${name}` : `${text} ${name}`;
}

export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 7 ? `${days} d ${hours % 24} h` : `${days} d`;
}

export const ago = (moment) => {
  const seconds = (Date.now() - new Date(moment).getTime()) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
};

const pad = (n) => String(n).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
export const day = (d) => `${d.getDate()} ${MONTHS[d.getMonth()]}`;
export const clock = (d, seconds = false) => `${pad(d.getHours())}:${pad(d.getMinutes())}${seconds ? `:${pad(d.getSeconds())}` : ""}`;

/** 14:02, or 21 Nov 14:02 when it was not today. */
export function moment(value, seconds = false) {
  const d = new Date(value);
  const today = new Date();
  return d.toDateString() === today.toDateString() ? clock(d, seconds) : `${day(d)} ${clock(d, seconds)}`;
}

/** A <time> that keeps itself current: "ago" counts on, "moment" is put into the reader's zone. */
export function timeElement(value, kind = "moment") {
  const element = document.createElement("time");
  element.dateTime = value;
  element.dataset.time = kind;
  writeTime(element);
  return element;
}

export function writeTime(element) {
  const value = element.dateTime;
  const text = element.dataset.time === "ago" ? ago(value) : element.dataset.time === "for" ? duration((Date.now() - new Date(value)) / 1000) : moment(value, element.dataset.time === "exact");
  if (element.textContent !== text) element.textContent = text;
  if (!element.title) element.title = `${new Date(value).toISOString().replace("T", " ").slice(0, 19)} UTC`;
}

export const writeTimes = (root = document) => root.querySelectorAll("time[data-time]").forEach(writeTime);
