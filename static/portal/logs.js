// The page of logs: records newest first, or templates; both follow the range, and records the live connection.
import { all, find, h, shape, state } from "./dom.js";
import { clock, day, moment } from "./format.js";
import { ask } from "./panels.js";
import { bounds, changes, chosen, isLive } from "./range.js";

const { logs } = state();
const [body, foot, note] = ["body", "foot", "note"].map((name) => find(`[data-log-${name}]`));
const AT_ONCE = 100;
const MOST = 1000;
const PAUSE = 1000;

let lines = [];
let cursor = null;
let isPaged = false;
let asked = 0;
let timer = null;
let due = 0;

/** The address of this page with other filters, the range kept. */
function address(change = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(change)) { query.delete(name); if (value !== null) query.set(name, value); }
  return `${location.pathname}?${query}`;
}

function wanted(extra = {}) {
  const [from, to] = bounds();
  const query = new URLSearchParams({ since: Math.floor(from * 1000), until: Math.ceil(to * 1000) + (chosen().range ? 60_000 : 0), ...extra });
  for (const [name, value] of logs.wanted) query.append(name, value);
  return query;
}

async function load({ isMore = false } = {}) {
  const mine = ++asked;
  if (!isMore && !lines.length) body.setAttribute("aria-busy", "true");
  try {
    if (logs.tab === "templates") return drawTemplates(await ask(`${logs.templates_url}?${wanted()}`), mine);
    const found = await ask(`${logs.list_url}?${wanted({ limit: AT_ONCE, ...(isMore && cursor ? { cursor } : {}) })}`);
    if (mine !== asked) return;
    lines = isMore ? [...lines, ...found.logs].slice(-MOST) : found.logs;
    isPaged = isMore;
    cursor = found.cursor;
    drawLines(found);
  } catch (error) {
    if (mine !== asked) return;
    foot.hidden = true;
    body.replaceChildren(h("div", { class: "empty is-critical", role: "alert" }, h("strong", {}, "This could not be loaded"), h("span", {}, error.message),
      h("button", { class: "button", type: "button", on: { click: () => load() } }, "Try again")));
  } finally {
    body.removeAttribute("aria-busy");
  }
}

// --- Records ---------------------------------------------------------------------------------------------------------
function drawLines(found) {
  note.textContent = lines.length ? `${lines.length} newest${isLive() && !isPaged ? ", live" : ""}` : "";
  if (!lines.length) {
    body.replaceChildren(h("div", { class: "empty" }, h("strong", {}, found.partial ? "Nothing found so far" : "No records in this range"),
      h("span", {}, logs.wanted.length ? "None that fits the filter; a longer range or fewer filters find more." : "Nothing was logged in this time.")));
  } else {
    const old = new Map(all("[data-key]", body).map((row) => [row.dataset.key, row]));
    const seen = new Map();
    const rows = lines.map((line) => {
      // The same record twice within a millisecond is two rows.
      const number = (seen.get(line.key) ?? 0) + 1;
      seen.set(line.key, number);
      const key = `${line.key}.${number}`;
      const known = old.get(key);
      old.delete(key);
      return known ?? row(line, key);
    });
    let list = find(".log-lines", body);
    if (!list) { list = h("ol", { class: "log-lines", "aria-label": "Records, newest first" }); body.replaceChildren(list); }
    for (const row of old.values()) row.remove();
    rows.forEach((each, i) => { if (list.children[i] !== each) list.insertBefore(each, list.children[i] ?? null); });
  }
  const parts = [];
  if (found.partial) parts.push(h("span", {}, `Looked through ${found.looked.toLocaleString("en-GB")} records back to ${moment(found.reached, true)}.`));
  if (found.damaged) parts.push(h("span", { class: "badge is-warning" }, `${found.damaged} damaged rows were left out`));
  if (cursor) parts.unshift(h("button", { class: "button", type: "button", on: { click: () => load({ isMore: true }) } }, found.partial ? "Look further back" : "Older records"));
  if (isPaged) parts.push(h("button", { class: "button button-plain", type: "button", on: { click: () => { isPaged = false; lines = []; load(); } } }, "Back to the newest"));
  foot.replaceChildren(...parts);
  foot.hidden = !parts.length;
}

const exact = (at) => { const d = new Date(at); return `${day(d)} ${clock(d, true)}.${String(d.getMilliseconds()).padStart(3, "0")}`; };

function row(line, key) {
  const details = h("details", { class: `is-${line.level}` },
    h("summary", {}, h("time", { datetime: new Date(line.time).toISOString() }, exact(line.time)), h("span", { class: "log-level" }, line.level),
      h("span", { class: "log-service", title: line.service }, line.service), h("span", { class: "log-text" }, line.message.split("\n", 1)[0] || "–")));
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(more(line)); });
  return h("li", { "data-key": key }, details);
}

function more(line) {
  const around = { from: line.time - 300_000, to: line.time + 300_000, range: null };
  const facts = [["Host", line.host], ...Object.entries(line.attributes)].filter(([, value]) => value);
  return h("div", { class: "log-more" }, h("pre", { tabindex: "0" }, line.message),
    facts.length ? h("dl", { class: "facts" }, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])) : null,
    h("div", { class: "actions" },
      h("a", { class: "button button-small", href: address({ template: line.template, text: null }) }, "Only this template"),
      h("a", { class: "button button-small", href: address({ service: line.service }) }, "Only this service"),
      line.host ? h("a", { class: "button button-small", href: address({ host: line.host }) }, "Only this host") : null,
      h("a", { class: "button button-small", href: address({ ...around, text: null, template: null, level: null }) }, "Everything around it"),
      h("a", { class: "button button-small", href: `${logs.charts_url}?${new URLSearchParams({ from: line.time - 900_000, to: line.time + 900_000 })}` }, "Charts of that time")));
}

// --- Templates -------------------------------------------------------------------------------------------------------
function drawTemplates(found, mine) {
  if (mine !== asked) return;
  note.textContent = found.templates.length ? `${found.templates.length} templates, ${found.total.toLocaleString("en-GB")} records` : "";
  if (!found.templates.length) {
    body.replaceChildren(h("div", { class: "empty" }, h("strong", {}, "No templates in this range"), h("span", {}, "Nothing that fits was logged in this time.")));
    return;
  }
  const heads = [["Template"], ["Service"], ["Records", "numeric"], ["Share", "numeric"], ["In this range"], ["First seen"], ["Last seen"]];
  body.replaceChildren(h("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": "Table: Templates" }, h("table", { class: "rows-on-phone" },
    h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind ?? "" }, text)))),
    h("tbody", {}, found.templates.map((each) => h("tr", {},
      h("td", { class: "whole-row" }, h("span", { class: `badge is-${each.level === "debug" ? "quiet" : each.level}` }, each.level), each.new ? h("span", { class: "badge is-ok" }, "new") : null, " ",
        h("a", { class: "log-pattern", href: address({ tab: null, template: each.id, text: null }) }, each.pattern)),
      h("td", { "data-label": "Service" }, each.service),
      h("td", { class: "numeric", "data-label": "Records" }, each.count.toLocaleString("en-GB")),
      h("td", { class: "numeric", "data-label": "Share" }, `${(100 * each.share).toFixed(each.share < 0.1 ? 2 : 1)} %`),
      h("td", { class: `is-${each.level}`, "data-label": "In this range" }, spark(each.spark)),
      h("td", { class: "nowrap", "data-label": "First seen" }, moment(each.first)), h("td", { class: "nowrap", "data-label": "Last seen" }, moment(each.last))))))));
}

function spark(values) {
  const most = Math.max(1, ...values);
  const bars = values.flatMap((value, i) => {
    const height = Math.max(1.5, (20 * value) / most);
    return value ? [shape("rect", { x: i * 4, y: 22 - height, width: 3, height })] : [];
  });
  return shape("svg", { class: "log-spark", viewBox: `0 0 ${values.length * 4} 22`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars);
}

// --- Following -------------------------------------------------------------------------------------------------------
/** Records came: look again, at most once a second, unless somebody reads older ones. */
function follow() {
  if (!isLive() || isPaged || document.hidden || timer) return;
  timer = setTimeout(() => { timer = null; due = Date.now(); load(); }, Math.max(0, PAUSE - (Date.now() - due)));
}

/** The fields with the range and the interval that this page has. */
function kept(fields) {
  const [query, mine] = [new URLSearchParams(fields), new URLSearchParams(location.search)];
  for (const name of ["range", "from", "to", "refresh"]) if (mine.get(name)) query.set(name, mine.get(name));
  return query;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-keep-range]");
  if (link) link.search = kept(link.search);
});
find("[data-log-filter]").addEventListener("submit", (event) => {
  event.preventDefault();
  location.search = kept([...new FormData(event.target)].filter(([, value]) => value));
});
for (const link of all("[data-log-export]")) {
  link.addEventListener("click", () => { link.search = wanted({ format: link.dataset.logExport }); link.closest("details").open = false; });
}
changes.addEventListener("change", () => { isPaged = false; lines = []; load(); });
document.addEventListener("portal:reload", () => load());
document.addEventListener("portal:logs", follow);
load();
