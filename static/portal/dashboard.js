// A person's dashboard: lays its panels out on a grid of 24 columns and draws the kinds that are no time series.
import { alertRow } from "./alerts.js";
import { titled } from "./chart.js";
import { all, apart, find, h, icon, shape } from "./dom.js";
import { clock, day, measure, moment, quantity } from "./format.js";
import { PanelCard, brokenOf, menuOf, stale, startMenu, tableOf } from "./panels.js";
import { prose } from "./prose.js";

export const COLUMNS = 24;

/** Panels that overlap nowhere and leave no gap above them; the one of the id `first` keeps its place before others. */
export function settled(panels, first = null) {
  const order = [...panels].sort((a, b) => a.y - b.y || (a.id === first ? -1 : b.id === first ? 1 : a.x - b.x));
  const done = [];
  const hits = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  for (const panel of order) {
    const at = { ...panel, y: 0 };
    // As high as it can go without passing through what stands above it.
    const above = done.filter((other) => other.x < at.x + at.w && at.x < other.x + other.w);
    at.y = Math.max(0, ...above.map((other) => other.y + other.h));
    while (done.some((other) => hits(at, other))) at.y += 1;
    done.push(at);
  }
  return done;
}

export function place(root, { x, y, w, h: height }) {
  root.style.setProperty("--column", `${x + 1} / span ${w}`);
  root.style.setProperty("--row", `${y + 1} / span ${height}`);
}

const state = (title, text, action) => h("div", { class: "panel-state" }, h("strong", {}, title), text ? h("span", {}, text) : null,
  action ? h("button", { class: "button button-small", type: "button", on: { click: action } }, "Try again") : null);

/** A panel that is no chart over time: `show(data)` gives what stands in its body. */
class Plain {
  isWhole = true;

  constructor(root) {
    this.root = root;
    this.key = root.dataset.panel;
    this.body = find("[data-body]", root);
    startMenu(this);
  }

  draw(data) {
    this.data = data;
    this.note("");
    this.body.replaceChildren(...[this.show(data)].flat());
  }

  fail(text) {
    this.note("");
    this.body.replaceChildren(state("This could not be loaded", text, () => this.board.load([this])));
  }

  note(text, tone = "quiet") {
    const badge = find("[data-panel-note]", this.root);
    badge.hidden = !text;
    badge.textContent = text;
    badge.className = `badge is-${tone}`;
  }

  /** A last value says nothing of its age. */
  age(data, otherwise = "") {
    const old = stale(data);
    this.note(old || otherwise, old ? "warning" : "quiet");
  }

  restyle() { if (this.data) this.draw(this.data); }
}

const CALCULATE = {
  last: (values) => values.at(-1),
  mean: (values) => values.reduce((sum, v) => sum + v, 0) / values.length,
  min: (values) => Math.min(...values),
  max: (values) => Math.max(...values),
  sum: (values) => values.reduce((sum, v) => sum + v, 0),
};

function figures(data) {
  return data.series.map((series) => {
    const seen = series.values.filter((v) => v !== null);
    const value = seen.length ? CALCULATE[data.calculation](seen) : null;
    return { name: series.name, value, tone: brokenOf(data.levels, value)?.severity ?? "", values: series.values };
  });
}

function spark(values) {
  const seen = values.filter((v) => v !== null);
  const svg = shape("svg", { class: "spark", viewBox: "0 0 100 34", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (seen.length < 2) return svg;
  const [low, high] = [Math.min(...seen), Math.max(...seen)];
  let path = "";
  let isOpen = false;
  values.forEach((v, i) => {
    if (v === null) { isOpen = false; return; }
    path += `${isOpen ? "L" : "M"}${((100 * i) / Math.max(1, values.length - 1)).toFixed(1)},${(31 - (27 * (v - low)) / (high - low || 1)).toFixed(1)}`;
    isOpen = true;
  });
  svg.append(shape("path", { d: path }));
  return svg;
}

const EMPTY = () => state("No data in this range", "Nothing was measured in this time.");

class Stat extends Plain {
  show(data) {
    const rows = figures(data).slice(0, 12);
    if (!rows.length) return EMPTY();
    this.age(data, data.more || data.series.length > 12 ? "more series than fit" : "");
    return h("div", { class: `stats${rows.length === 1 ? " one" : ""}` }, rows.map((row) => {
      const [text, unit] = measure(row.value, data.unit);
      return h("div", { class: `stat-figure${row.tone ? ` is-${row.tone}` : ""}` },
        h("span", { class: "stat-name", title: row.name }, row.tone ? icon(row.tone) : null, rows.length === 1 && row.name === "value" ? "" : row.name),
        h("strong", {}, text, unit ? h("small", {}, unit) : ""), spark(row.values));
    }));
  }
}

class Gauge extends Plain {
  show(data) {
    const rows = figures(data).slice(0, 8);
    if (!rows.length) return EMPTY();
    this.age(data);
    const low = data.min ?? 0;
    const high = data.max ?? (data.unit === "percent" ? 100 : Math.max(low + 1, ...data.levels.map((l) => l.value), ...rows.map((r) => r.value ?? 0)));
    return h("div", { class: "gauges" }, rows.map((row) => {
      const share = row.value === null ? 0 : Math.min(1, Math.max(0, (row.value - low) / (high - low || 1)));
      const svg = shape("svg", { viewBox: "0 0 120 70", role: "img", "aria-label": `${apart(row.name.slice(0, 100))}: ${quantity(row.value, data.unit)} of ${quantity(high, data.unit)}` });
      const arc = "M14 62a46 46 0 0 1 92 0";
      svg.append(shape("path", { d: arc, class: "gauge-track" }));
      if (share > 0) svg.append(shape("path", { d: arc, class: "gauge-value", pathLength: "100", "stroke-dasharray": `${100 * share} 200` }));
      for (const level of data.levels) {
        const turn = Math.PI * (1 - Math.min(1, Math.max(0, (level.value - low) / (high - low || 1))));
        const [c, s] = [Math.cos(turn), Math.sin(turn)];
        svg.append(shape("path", { d: `M${60 + 39 * c} ${62 - 39 * s}L${60 + 53 * c} ${62 - 53 * s}`, class: `gauge-level is-${level.severity}` }));
      }
      const [text, unit] = measure(row.value, data.unit);
      return h("div", { class: `gauge is-${row.tone || "plain"}` }, svg, h("strong", {}, row.tone ? icon(row.tone) : null, text, unit ? h("small", {}, unit) : ""), h("span", { class: "stat-name", title: row.name }, row.name));
    }));
  }
}

class Table extends Plain {
  explored = "table";

  show(data) {
    this.note(data.more ? `${data.rows.length} of ${data.rows.length + data.more} rows` : "");
    if (!data.rows.length) return EMPTY();
    return h("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": `Rows of ${find("h2", this.root).textContent}` }, tableOf(data));
  }
}

class Alerts extends Plain {
  show(data) {
    if (!data.alerts.length) return h("div", { class: "empty is-ok" }, icon("ok"), h("strong", {}, "No active alerts"));
    return h("ul", { class: "alert-list" }, data.alerts.map((alert) => alertRow(alert)));
  }
}

/** How many fell into which bucket when: rows from below upwards, darker where there were more. */
class Heat extends Plain {
  constructor(root) {
    super(root);
    new ResizeObserver(() => this.paint()).observe(this.body);
  }

  show(data) {
    if (!data.rows.length) return EMPTY();
    this.note(data.more ? `${data.more} buckets more` : "");
    this.canvas = h("canvas", { role: "img", "aria-label": `${find("h2", this.root).textContent}: ${data.names.length} rows, ${data.count} steps` });
    this.caption = h("p", { class: "heat-caption" }, " ");
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => { this.caption.textContent = " "; });
    requestAnimationFrame(() => this.paint());
    return [h("div", { class: "heat" }, this.canvas), this.caption];
  }

  picture() {
    const { canvas, data } = this;
    return canvas?.isConnected ? titled(canvas, find("h2", this.root).textContent.trim(), [data.start, data.start + data.step * (data.count - 1)]) : null;
  }

  name(index) {
    const { names, bucketed, unit } = this.data;
    return bucketed ? `≤ ${quantity(names[index] === "+Inf" ? Infinity : Number(names[index]), unit)}` : names[index];
  }

  paint() {
    const { canvas, data } = this;
    if (!canvas?.isConnected || !data.rows.length) return;
    const box = canvas.parentElement;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [box.clientWidth, box.clientHeight];
    if (width < 40 || height < 30) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const dim = getComputedStyle(this.caption).color;
    const ink = canvas.getContext("2d");
    ink.scale(ratio, ratio);
    this.caption.style.color = "var(--series-1)";
    const tone = getComputedStyle(this.caption).color;
    this.caption.style.color = "";
    ink.font = "11px system-ui, sans-serif";
    ink.fillStyle = dim;
    const labels = data.names.map((_, index) => this.name(index));
    const left = Math.min(width / 3, Math.max(...labels.map((text) => ink.measureText(text.slice(0, 24)).width)) + 8);
    const bottom = 18;
    this.area = { left, width: width - left, height: height - bottom };
    const [cell, band] = [(width - left) / data.count, (height - bottom) / data.rows.length];
    const top = Math.max(...data.rows.map((row) => Math.max(0, ...row.filter((v) => v !== null))), 1e-300);
    ink.textBaseline = "middle";
    const every = Math.max(1, Math.ceil(14 / band));
    data.rows.forEach((row, index) => {
      const y = height - bottom - (index + 1) * band;
      if (index % every === 0) ink.fillText(labels[index].slice(0, 24), 0, y + band / 2);
      ink.save();
      ink.fillStyle = tone;
      row.forEach((value, at) => {
        if (!value) return;
        ink.globalAlpha = 0.12 + 0.88 * Math.sqrt(value / top);
        ink.fillRect(left + at * cell, y, Math.max(1, cell - 0.5), Math.max(1, band - 0.5));
      });
      ink.restore();
    });
    const marks = Math.max(2, Math.floor((width - left) / 90));
    ink.textBaseline = "alphabetic";
    for (let i = 0; i < marks; i += 1) {
      const at = new Date((data.start + ((data.count - 1) * data.step * i) / (marks - 1)) * 1000);
      const text = data.count * data.step > 172800 ? day(at) : clock(at);
      ink.textAlign = i === 0 ? "left" : i === marks - 1 ? "right" : "center";
      ink.fillText(text, left + ((width - left) * i) / (marks - 1), height - 4);
    }
    ink.textAlign = "left";
  }

  point(event) {
    const { area, data } = this;
    if (!area) return;
    const at = Math.floor(((event.offsetX - area.left) / area.width) * data.count);
    const row = Math.floor(((area.height - event.offsetY) / area.height) * data.rows.length);
    const value = data.rows[row]?.[at];
    this.caption.textContent = value === undefined ? " " : `${moment((data.start + at * data.step) * 1000)} · ${apart(this.name(row))} · ${value === null ? "–" : quantity(value, data.bucketed ? "plain" : data.unit)}`;
  }
}

const MENUS = new Set(["timeseries", "stat", "gauge", "table", "heatmap", "alertlist"]);

/** What draws each kind; null: nothing is asked for. */
export const KINDS = { timeseries: PanelCard, stat: Stat, gauge: Gauge, table: Table, heatmap: Heat, alertlist: Alerts, text: null, row: null };

function chartBody(title) {
  return [h("div", { class: "panel-plot", "data-plot": "" }, h("div", { class: "panel-state loading", "data-panel-state": "" }, h("span", { class: "visually-hidden" }, `Loading ${title}`))),
    h("div", { class: "legend", "data-legend": "" }),
    h("div", { class: "numbers", "data-numbers-table": "", tabindex: "0", role: "region", "aria-label": `Numbers of ${title}`, hidden: true })];
}

/** The card of a panel, empty; a Board fills it. */
export function card(panel) {
  const title = panel.shown ?? panel.title;
  const label = `panel-${panel.id}`;
  if (panel.kind === "row") {
    return h("section", { class: "board-row", "data-panel": panel.id, "data-kind": "row", "aria-labelledby": label }, h("div", { class: "card-head" }, h("h2", { id: label }, title || "…"), h("div", { class: "push" })), h("div", { "data-body": "" }));
  }
  const isChart = panel.kind === "timeseries";
  const numbers = isChart ? h("button", { type: "button", class: "button button-small button-plain", "data-numbers": "", "aria-pressed": "false", title: "Show the numbers as a table" }, icon("table"), h("span", { class: "visually-hidden" }, `Numbers of ${title}`)) : null;
  const body = isChart ? chartBody(title) : [h("div", { class: "panel-body", "data-body": "" },
    panel.kind === "text" ? prose(panel.text) : h("div", { class: "panel-state loading" }, h("span", { class: "visually-hidden" }, `Loading ${title}`)))];
  const menu = MENUS.has(panel.kind) ? menuOf(title || "this panel", isChart || panel.kind === "heatmap") : null;
  return h("section", { class: "card panel", "data-panel": panel.id, "data-kind": panel.kind, "aria-labelledby": label },
    h("div", { class: `card-head${title ? "" : " untitled"}` }, h("h2", { id: label, title: panel.help || null }, title || " "), h("div", { class: "push" }, h("span", { class: "badge", "data-panel-note": "", hidden: true }), numbers, menu)),
    ...body);
}

/** Builds the cards of the page's dashboard; a Board then finds them as it finds those of any page. */
export function lay(dashboard) {
  const board = find("[data-board]");
  const panels = settled(dashboard.document.panels);
  board.replaceChildren(...panels.map((panel) => { const root = card(panel); place(root, panel); return root; }));
  find("[data-board-empty]").hidden = panels.length > 0;
  const bar = find("[data-variables]");
  if (bar && !dashboard.is_shared) bar.replaceChildren(...dashboard.document.variables.filter((v) => v.kind !== "constant").map((v) => choice(v, dashboard)));
}

/** Pairs of the values in force, as every request of the board carries them. */
export const asked = (dashboard) => (dashboard.is_shared ? [] : Object.entries(dashboard.values).flatMap(([name, values]) => values.map((value) => [`var-${name}`, value])));

function go(name, values) {
  const query = new URLSearchParams(location.search);
  query.delete(`var-${name}`);
  for (const value of values) query.append(`var-${name}`, value);
  location.search = query;
}

const ALL = "$__all";

function choice(variable, dashboard) {
  const { options, error } = dashboard.options[variable.name];
  const chosen = dashboard.values[variable.name] ?? [];
  const listed = [...new Set([...(variable.all ? [ALL] : []), ...chosen, ...options])];
  const words = (value) => (value === ALL ? "All" : value);
  const label = variable.label || variable.name;
  const id = `var-${variable.name}`;
  const fault = error ? h("span", { class: "field-error", title: error }, icon("warning"), h("span", { class: "visually-hidden" }, error)) : null;
  if (!variable.multi) {
    const select = h("select", { id, on: { change: (event) => go(variable.name, [event.target.value]) } }, listed.map((value) => h("option", { value, selected: chosen.includes(value) }, words(value))));
    return h("div", { class: "variable" }, h("label", { for: id }, label), select, fault);
  }
  const boxes = listed.map((value) => h("label", {}, h("input", { type: "checkbox", value, checked: chosen.includes(value) }), h("span", {}, words(value))));
  const show = (event) => {
    const ticked = all("input", event.target.closest("details")).filter((box) => box.checked).map((box) => box.value);
    go(variable.name, ticked.includes(ALL) && !chosen.includes(ALL) ? [ALL] : ticked.filter((value) => value !== ALL || ticked.length === 1));
  };
  return h("div", { class: "variable" }, h("span", { id }, label),
    h("details", { class: "choose-many", on: { keydown: (event) => { if (event.key === "Escape") event.currentTarget.open = false; } } }, h("summary", { "aria-describedby": id }, chosen.map(words).join(", ") || "none"),
      h("div", { class: "choose-list", role: "group", "aria-labelledby": id }, ...boxes, h("button", { type: "button", class: "button button-small button-primary", on: { click: show } }, "Show"))), fault);
}

/** A wall screen: no chrome, wakes the board, goes on to the next dashboard of ?then=a,b each so many seconds. */
export function startTv() {
  const query = new URLSearchParams(location.search);
  const root = find("[data-tv]");
  if (!root) return;
  addEventListener("keydown", (event) => { if (event.key === "Escape") { for (const name of ["tv", "then", "each"]) query.delete(name); location.search = query; } });
  const then = (query.get("then") ?? "").split(",").filter((slug) => /^[\w-]+$/.test(slug));
  if (!then.length) return;
  const each = Math.min(3600, Math.max(5, Number(query.get("each")) || 30));
  setTimeout(() => {
    const own = location.pathname.split("/").filter(Boolean).at(-1);
    query.set("then", [...then.slice(1), own].join(","));
    for (const name of [...query.keys()]) if (name.startsWith("var-")) query.delete(name);
    location.href = `${root.dataset.tv}${then[0]}/?${query}`;
  }, each * 1000);
}
