// The time range and the refresh interval: they live in the URL, so that a link shows what its sender saw.
import { all, find } from "./dom.js";
import { day, clock } from "./format.js";

const SECONDS = { "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800 };
const REFRESH = { live: 0, "30s": 30, "5m": 300, off: null };

/** "change": another range or interval; with detail.isBack the address has gone back (or forth) with all that it says. */
export const changes = new EventTarget();

let current = read();

function read() {
  const query = new URLSearchParams(location.search);
  // A page about the past (an alert that is over) brings the range in which it happened.
  const own = query.has("range") ? {} : find("[data-range]")?.dataset || {};
  const from = Number(query.get("from") || own.from);
  const to = Number(query.get("to") || own.to);
  const refresh = query.get("refresh") in REFRESH ? query.get("refresh") : "live";
  const custom = Number.isFinite(from) && Number.isFinite(to) && from > 0 && to > from;
  const named = query.get("range") in SECONDS ? query.get("range") : defaultRange();
  const compare = query.get("compare") === "week" ? "week" : null;
  return { refresh, compare, ...(custom ? { from, to, range: null } : { from: null, to: null, range: named }) };
}

function defaultRange() {
  return find("[data-range] [aria-pressed=true]")?.dataset.value || "1h";
}

/** {range, from, to (ms, fixed) or null, refresh, compare ("week" or null)}: what is asked for. */
export const chosen = () => current;

/** The same stretch of time as fields of another address. */
export const stretch = () => (current.range ? { range: current.range } : { from: Math.round(current.from), to: Math.round(current.to) });

/** [from, to] in seconds as of now. */
export function bounds() {
  if (current.range === null) return [current.from / 1000, current.to / 1000];
  const now = Date.now() / 1000;
  return [now - SECONDS[current.range], now];
}

export const isLive = () => current.range !== null && current.refresh === "live";

/** Seconds between polls, 0 for "as it happens", null for never. */
export const every = () => (current.range === null ? null : REFRESH[current.refresh]);

function choose(next, { push = true } = {}) {
  current = { ...current, ...next };
  const query = new URLSearchParams(location.search);
  for (const key of ["range", "from", "to", "refresh", "compare"]) query.delete(key);
  for (const [name, value] of Object.entries(stretch())) query.set(name, value);
  if (current.refresh !== "live") query.set("refresh", current.refresh);
  if (current.compare) query.set("compare", current.compare);
  if (push) history.pushState(null, "", `?${query}${location.hash}`);
  show();
  changes.dispatchEvent(new Event("change"));
}

export const zoom = (from, to) => choose({ range: null, from: from * 1000, to: to * 1000 });

export function pick(index) {
  const value = Object.keys(SECONDS)[index];
  if (value && find("[data-range]")) choose({ range: value, from: null, to: null });
}

function show() {
  for (const button of all("[data-range] button[data-value]")) button.setAttribute("aria-pressed", String(button.dataset.value === current.range));
  const custom = find("[data-range] [data-custom]");
  if (custom) {
    custom.setAttribute("aria-pressed", String(current.range === null));
    custom.textContent = "Custom";
    if (current.range === null) {
      const [from, to] = [new Date(current.from), new Date(current.to)];
      const sameDay = from.toDateString() === to.toDateString();
      custom.textContent = sameDay ? `${clock(from)} – ${clock(to)}` : `${day(from)} – ${day(to)}`;
      custom.title = `${from.toLocaleString("en-GB")} – ${to.toLocaleString("en-GB")}`;
    }
  }
  find("button[data-compare]")?.setAttribute("aria-pressed", String(current.compare !== null));
  const select = find("[data-refresh]");
  if (select) { select.value = current.refresh; select.disabled = current.range === null; }
}

const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16);

export function start() {
  const group = find("[data-range]");
  if (!group) return;
  group.addEventListener("click", (event) => {
    const { value } = event.target.dataset;
    if (value) choose({ range: value, from: null, to: null });
  });
  find("[data-refresh]")?.addEventListener("change", (event) => choose({ refresh: event.target.value }));
  find("button[data-compare]")?.addEventListener("click", () => choose({ compare: current.compare ? null : "week" }));
  const dialog = find("[data-custom-range]");
  if (dialog) startCustom(group, dialog);
  addEventListener("popstate", () => {
    current = read();
    show();
    changes.dispatchEvent(new CustomEvent("change", { detail: { isBack: true } }));
  });
  show();
}

function startCustom(group, dialog) {
  const form = find("form", dialog);
  const complaint = find("[data-range-error]", dialog);
  find("[data-custom]", group).addEventListener("click", () => {
    const [from, to] = bounds();
    form.elements.from.value = local(from * 1000);
    form.elements.to.value = local(to * 1000);
    complaint.hidden = true;
    dialog.showModal();
  });
  form.addEventListener("submit", (event) => {
    if (event.submitter?.value !== "show") return;
    const from = new Date(form.elements.from.value).getTime();
    const to = new Date(form.elements.to.value).getTime();
    if (!(to > from)) {
      event.preventDefault();
      complaint.textContent = "The end must be later than the start.";
      complaint.hidden = false;
      return;
    }
    choose({ range: null, from, to });
  });
}
