// Who is on call: the line on overview and alerts, and the page's own time zone and keys.
import { find, h, icon } from "./dom.js";
import { timeElement } from "./format.js";

let shown = null;

/** Draws the line; answers whether it says something else than before. */
export function drawOncall(rows) {
  const text = JSON.stringify(rows);
  const isNews = shown !== null && shown !== text;
  shown = text;
  const place = find("[data-oncall]");
  if (place && isNews) place.replaceChildren(...rows.map(line));
  return isNews;
}

function line(row) {
  const until = row.until ? [" until ", timeElement(row.until)] : [];
  const badge = row.problem ? [" ", h("span", { class: "badge is-warning" }, icon("warning"), "nobody would be told")] : [];
  return h("a", { class: `is-${row.tone}`, href: row.url }, icon("oncall", "icon-small"),
    h("span", {}, h("b", {}, row.person), " on call for ", h("bdi", {}, row.schedule), ...until, ...badge));
}

/** The calendar is drawn by the server: it learns the reader's time zone by a cookie, and the page is loaded once more. */
export function startOncall() {
  const place = find("[data-oncall-zone]");
  if (!place) return;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const cookie = `zone=${zone}`;
  const knew = document.cookie.split("; ").includes(cookie);
  if (zone && !knew) {
    document.cookie = `${cookie}; path=/monitoring/on-call/; max-age=31536000; samesite=lax`;
    const isOwn = !new URLSearchParams(location.search).has("zone") && document.body.dataset.method !== "POST";
    if (isOwn && document.cookie.split("; ").includes(cookie) && place.dataset.oncallZone !== zone) location.reload();
  }
  document.addEventListener("change", (event) => { if (event.target.matches("[data-submits]")) event.target.form.requestSubmit(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog, [tabindex='0']")) return;
    const step = { ArrowLeft: "back", ArrowRight: "forth", ".": "today" }[event.key];
    if (step) find(`[data-step=${step}]`)?.click();
  });
}
