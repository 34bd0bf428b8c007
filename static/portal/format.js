// Numbers with their units and moments in the reader's time zone.
const number = (value, digits) => value.toLocaleString("en-GB", { maximumFractionDigits: digits, minimumFractionDigits: 0 });

function digits(value) {
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return 0;
  if (size >= 10) return 1;
  if (size >= 0.1) return 2;
  return 3;
}

const scaled = (value, base, units) => {
  let power = 0;
  let size = Math.abs(value);
  while (size >= base && power < units.length - 1) { size /= base; power += 1; }
  const shown = value / base ** power;
  return [number(shown, digits(shown)), units[power]];
};

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNT = ["", "k", "M", "G", "T"];

const UNITS = {
  ms: (v) => (Math.abs(v) >= 1000 ? [number(v / 1000, digits(v / 1000)), "s"] : [number(v, digits(v)), "ms"]),
  seconds: (v) => (Math.abs(v) < 1 ? UNITS.ms(v * 1000) : Math.abs(v) < 120 ? [number(v, digits(v)), "s"] : [duration(v), ""]),
  percent: (v) => [number(v, digits(v)), "%"],
  share: (v) => UNITS.percent(100 * v),
  bytes: (v) => scaled(v, 1024, BYTES),
  "bytes/s": (v) => { const [n, u] = scaled(v, 1024, BYTES); return [n, `${u}/s`]; },
  "req/s": (v) => { const [n, u] = scaled(v, 1000, COUNT); return [n, `${u} req/s`.trim()]; },
  "/s": (v) => { const [n, u] = scaled(v, 1000, COUNT); return [n, `${u}/s`]; },
  count: (v) => scaled(v, 1000, COUNT),
  // A value of which nothing is known: the very small are not rounded away.
  plain: (v) => (v !== 0 && Math.abs(v) < 0.001 ? [v.toExponential(2), ""] : scaled(v, 1000, COUNT)),
};

/** [text, unit] of a value, "–" where there is none. */
export function measure(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return ["–", ""];
  if (!Number.isFinite(value)) return [value > 0 ? "∞" : "−∞", ""];
  return (UNITS[unit] || UNITS.count)(value);
}

/** "83 %". With the `step` of an axis, as many digits as tell its ticks apart. */
export function quantity(value, unit, step = null) {
  const [rounded, name] = unit === "plain" && step !== null ? tick(value, step) : measure(value, unit);
  const isFine = step !== null && step < 1 && unit === "percent";
  const text = isFine ? value.toFixed(Math.min(4, Math.ceil(-Math.log10(step)))) : rounded;
  if (!name) return text;
  return name === "%" || name.startsWith("/") ? `${text}${name === "%" ? " %" : name}` : `${text} ${name}`;
}

/** A tick's value with just the digits that its step has. */
function tick(value, step) {
  const power = Math.min(COUNT.length - 1, Math.max(0, Math.floor(Math.log10(Math.abs(value) || 1) / 3)));
  const decimals = Math.max(0, -Math.floor(Math.log10(step / 1000 ** power) + 1e-9));
  return decimals > 6 ? [value === 0 ? "0" : value.toExponential(1), ""] : [(value / 1000 ** power).toFixed(decimals), COUNT[power]];
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
