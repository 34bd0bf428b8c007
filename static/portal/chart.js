// One time-series chart: uPlot with our colours, units, threshold lines, shared crosshair, legend and table of numbers.
import { all, apart, find, h } from "./dom.js";
import { clock, day, measure, moment, quantity } from "./format.js";
import { zoom } from "./range.js";

const PALETTE = 8;
const HEADINGS = { name: "Series", last: "Last", before: "Week before", low: "Min", high: "Max" };
const probe = document.createElement("span");

// Each look at a computed style has the browser work the whole page out anew: once a theme is enough.
const colours = new Map();

/** The colour behind a custom property in the theme that is on; canvas does not know light-dark(). */
function colour(name) {
  const known = colours.get(name);
  if (known) return known;
  if (!probe.isConnected) { probe.hidden = true; document.body.append(probe); }
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  colours.set(name, found);
  return found;
}

/** Another theme is on. */
export const forgetColours = () => colours.clear();

const faded = (rgb, alpha) => rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
// Charts share the crosshair; a selection belongs to the chart it was drawn in, or each of them would zoom.
const isCrosshair = (type) => type === "mousemove" || type === "mouseleave";
const crosshair = window.uPlot?.sync("page");
const BYTE_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);
const TENS = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
const SECOND_STEPS = [...TENS, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map((days) => days * 86400)];
const STEPS = { bytes: BYTE_STEPS, "bytes/s": BYTE_STEPS, seconds: SECOND_STEPS };

function ticks(splits, increment) {
  let last = "";
  return splits.map((seconds) => {
    const d = new Date(seconds * 1000);
    const date = day(d);
    if (increment >= 86400) return date;
    const text = clock(d, increment < 60);
    const shown = last && last !== date ? `${text}\n${date}` : text;
    last = date;
    return shown;
  });
}

/** A canvas under its title and its range [from, to] (s), above the names of its series: [{name, index of its colour}]. */
export function titled(canvas, title, bounds, names = []) {
  const ratio = devicePixelRatio || 1;
  const [head, line] = [34 * ratio, 18 * ratio];
  const sheet = h("canvas", { width: canvas.width, height: canvas.height + head + line * names.length + 10 * ratio });
  const pen = sheet.getContext("2d");
  pen.fillStyle = colour("surface");
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.textBaseline = "middle";
  pen.fillStyle = colour("text");
  pen.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  const [from, to] = bounds.map((seconds) => new Date(seconds * 1000));
  pen.fillText(`${title}, ${day(from)} ${clock(from)} – ${day(to)} ${clock(to)}`, 12 * ratio, head / 2);
  pen.drawImage(canvas, 0, head);
  pen.font = `${12 * ratio}px system-ui, sans-serif`;
  names.forEach(({ name, tone }, row) => {
    const y = head + canvas.height + line * (row + 0.5);
    pen.fillStyle = colour(tone);
    pen.fillRect(14 * ratio, y - 1.5 * ratio, 12 * ratio, 3 * ratio);
    pen.fillStyle = colour("text-2");
    pen.fillText(name, 34 * ratio, y, sheet.width - 48 * ratio);
  });
  return sheet;
}

// Not Math.min(...values): a long series would overflow the stack.
const least = (values) => values.reduce((low, v) => (low === null || v < low ? v : low), null);
const most = (values) => values.reduce((high, v) => (high === null || v > high ? v : high), null);

/** The places of values without a neighbour: no line leads to them, so they are drawn as points. */
function lonely(plot, series) {
  const values = plot.data[series];
  const places = [];
  for (let i = 0; i < values.length; i += 1) {
    if (values[i] !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null) places.push(i);
  }
  return places.length ? places : null;
}

export class Chart {
  constructor(root, title) {
    this.root = root;
    this.title = title;
    this.plotBox = find("[data-plot]", root);
    this.legendBox = find("[data-legend]", root);
    this.numbersBox = find("[data-numbers-table]", root);
    this.hidden = new Set();
    this.order = { by: "last", down: true };
    new ResizeObserver(() => this.resize()).observe(this.plotBox);
    const button = find("[data-numbers]", root);
    button.addEventListener("click", () => {
      this.numbersBox.hidden = !this.numbersBox.hidden;
      button.setAttribute("aria-pressed", String(!this.numbersBox.hidden));
      this.writeNumbers();
    });
  }

  /** data: {unit, min, max, stacked, bars?: columns instead of areas, tones?: {name: colour}, times: [s], series: [{name, values}],
   *  before?: [{name, values}] of the same steps earlier,
   *  lower?, upper?: [{name, values}] edges of what is usual, of the series of that name or (another name) of the whole,
   *  levels: [{severity, value, comparison}], alerts?: [{from, to: s or null, severity}], changes: [{at: s, title}]}; bounds: [from, to] in s. */
  draw(data, bounds) {
    const shape = JSON.stringify([data.unit, data.stacked, data.series.map((s) => s.name), data.levels, data.before?.map((s) => s.name)]);
    this.data = data;
    this.earlier = new Map((data.before ?? []).map((s) => [s.name, s.values]));
    this.bounds = bounds;
    this.setState(null);
    if (!this.plot || shape !== this.shape) {
      this.shape = shape;
      this.build();
    } else {
      this.plot.setData(this.columns());
    }
    this.writeLegend();
    this.writeNumbers();
  }

  /** Instead of a chart: {title, text, action?: [label, handler]}; null takes it away. */
  setState(state) {
    find("[data-panel-state]", this.plotBox)?.remove();
    if (!state) return;
    this.plot?.destroy();
    this.plot = null;
    this.legendBox.replaceChildren();
    this.plotBox.append(h("div", { class: "panel-state", "data-panel-state": "" },
      h("strong", {}, state.title), state.text ? h("span", {}, state.text) : null,
      state.action ? h("button", { class: "button button-small", type: "button", on: { click: state.action[1] } }, state.action[0]) : null));
  }

  note(text, tone = "quiet", title = "") {
    const badge = find("[data-panel-note]", this.root);
    badge.hidden = !text;
    badge.textContent = text || "";
    badge.title = title;
    badge.className = `badge is-${tone}`;
  }

  columns() {
    const { times, series, stacked } = this.data;
    const before = this.earlierLines().map((line) => line.values);
    if (!stacked) return [times, ...series.map((s) => s.values), ...before];
    // Stacked from the bottom up; the first series lies on top, so it is drawn last-summed first.
    const sums = new Array(times.length).fill(0);
    const rows = series.map((s) => s);
    const columns = [];
    for (let i = rows.length - 1; i >= 0; i -= 1) {
      const isOff = this.hidden.has(rows[i].name);
      columns.unshift(rows[i].values.map((v, at) => {
        if (v === null) return null;
        if (!isOff) sums[at] += v;
        return sums[at];
      }));
    }
    return [times, ...columns, ...before];
  }

  /** What is drawn of the earlier stretch: each series under its own colour; of a stack the sum, for a second stack would hide the first. */
  earlierLines() {
    const { series, stacked, before } = this.data;
    if (!before?.length) return [];
    if (!stacked) return series.map((s, index) => ({ name: s.name, index, values: this.earlier.get(s.name) })).filter((line) => line.values);
    const shown = before.filter((s) => !this.hidden.has(s.name));
    if (!shown.length) return [];
    return [{ name: null, index: null, values: shown[0].values.map((_, at) => shown.reduce((sum, s) => (s.values[at] === null ? sum : (sum ?? 0) + s.values[at]), null)) }];
  }

  build() {
    this.plot?.destroy();
    const { unit, series, stacked, bars, levels } = this.data;
    // Colours are asked for at each drawing: another theme needs no other plot.
    const text = () => colour("text-2");
    const axis = { stroke: text, font: "11px system-ui, sans-serif", grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, gap: 6 };
    const few = series.length <= 2;
    const lines = series.map((s, index) => {
      const stroke = () => colour(this.tone(s.name, index));
      if (bars) return { label: s.name, stroke, width: 0, fill: stroke, paths: window.uPlot.paths.bars({ size: [0.9, 60], align: 1 }), points: { show: false }, show: !this.hidden.has(s.name) };
      const fill = stacked ? () => faded(stroke(), 0.35) : few ? () => faded(stroke(), 0.08) : undefined;
      return { label: s.name, stroke, width: 1.6, fill, dash: index >= PALETTE ? [6, 4] : undefined, points: { show: false, size: 5, fill: stroke, filter: lonely }, show: !this.hidden.has(s.name), spanGaps: false };
    });
    for (const line of this.earlierLines()) {
      const stroke = line.index === null ? text : () => faded(colour(this.tone(line.name, line.index)), 0.65);
      lines.push({ label: `${line.name ?? "sum"} before`, stroke, width: 1.2, dash: [3, 4], points: { show: false }, show: line.name === null || !this.hidden.has(line.name), spanGaps: false });
    }
    const options = {
      width: Math.max(120, this.plotBox.clientWidth),
      height: this.plotBox.clientHeight || 208,
      padding: [10, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: crosshair?.key, setSeries: false, filters: { pub: isCrosshair } }, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, y: false },
      scales: { x: { time: true, range: () => this.bounds }, y: { range: (_, low, high) => this.vertical(low, high) } },
      axes: [
        { ...axis, size: 36, space: 62, values: (_, splits, __, ___, step) => ticks(splits, step) },
        { ...axis, size: 62, space: 34, incrs: STEPS[unit], values: (_, splits, __, ___, step) => splits.map((v) => quantity(v, unit, step)) },
      ],
      series: [{}, ...lines],
      // In a stack each area ends where the one below it begins.
      bands: stacked && !bars ? series.slice(1).map((_, index) => ({ series: [index + 1, index + 2] })) : [],
      hooks: {
        drawClear: [(plot) => this.drawAlerts(plot), (plot) => this.drawUsual(plot)],
        draw: [(plot) => this.drawLevels(plot, levels), (plot) => this.drawChanges(plot)],
        setCursor: [(plot) => this.point(plot.cursor.idx)],
        setSelect: [(plot) => this.select(plot)],
      },
    };
    this.plot = new window.uPlot(options, this.columns(), this.plotBox);
    this.plot.over.addEventListener("dblclick", () => history.length > 1 && new URLSearchParams(location.search).has("from") && history.back());
    find("canvas", this.plotBox).setAttribute("role", "img");
    this.describe();
  }

  /** The name of a series' colour. */
  tone(name, index) { return this.data.tones?.[name] ?? `series-${(index % PALETTE) + 1}`; }

  vertical(low, high) {
    const { min, max, levels } = this.data;
    const least = (this.data.lower ?? []).reduce((found, { values }) => values.reduce((l, v) => (v === null ? l : Math.min(l ?? v, v)), found), low);
    const bottom = min ?? (least === null ? 0 : least - Math.max(0, (high ?? least) - least) * 0.1);
    if (max !== null && max !== undefined) return [bottom, max];
    let top = high === null ? 1 : high;
    for (const { values } of this.data.upper ?? []) top = Math.max(top, most(values.filter((v) => v !== null)) ?? top);
    // A limit is part of the picture as soon as the values come near it.
    for (const level of levels) if (level.value <= top * 2.2 && level.value > top) top = level.value;
    top = top <= bottom ? bottom + 1 : bottom + (top - bottom) * 1.12;
    return [bottom, top];
  }

  drawLevels(plot, levels) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.font = `${600} ${11 * ratio}px system-ui, sans-serif`;
    const heights = levels.map((level) => Math.round(plot.valToPos(level.value, "y", true)));
    for (const [index, level] of levels.entries()) {
      const y = heights[index];
      const isCrowded = y - bbox.top < 16 * ratio || heights.some((other) => other < y && y - other < 18 * ratio);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      const tone = colour(level.severity);
      ctx.strokeStyle = tone;
      ctx.fillStyle = tone;
      ctx.lineWidth = ratio;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y + 0.5);
      ctx.lineTo(bbox.left + bbox.width, y + 0.5);
      ctx.stroke();
      ctx.textAlign = "right";
      ctx.textBaseline = isCrowded ? "top" : "bottom";
      ctx.fillText(level.severity, bbox.left + bbox.width - 4 * ratio, y + (ctx.textBaseline === "top" ? 3 : -2) * ratio);
    }
    ctx.restore();
  }

  /** Behind the lines: when a rule on this very expression fired, as a shade with a bar on its foot. */
  drawAlerts(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    const [from, to] = this.bounds;
    ctx.save();
    for (const alert of this.data.alerts ?? []) {
      const [begin, end] = [Math.max(alert.from, from), Math.min(alert.to ?? to, to)];
      if (begin >= end) continue;
      const left = plot.valToPos(begin, "x", true);
      const width = Math.max(2 * ratio, plot.valToPos(end, "x", true) - left);
      ctx.fillStyle = faded(colour(alert.severity), 0.1);
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.fillStyle = colour(alert.severity);
      ctx.fillRect(left, bbox.top + bbox.height - 3 * ratio, width, 3 * ratio);
    }
    ctx.restore();
  }

  /** Behind the lines: between which values a series usually is at this hour of the week, in its colour. */
  drawUsual(plot) {
    const { ctx, bbox } = plot;
    const { times, series } = this.data;
    ctx.save();
    for (const { name, low, high } of this.usual()) {
      const index = series.findIndex((s) => s.name === name);
      if (this.hidden.has(name)) continue;
      ctx.fillStyle = faded(colour(index < 0 ? "text-2" : this.tone(name, index)), 0.14);
      const edge = (values, at, otherwise) => (values ? Math.min(bbox.top + bbox.height, Math.max(bbox.top, plot.valToPos(values[at], "y", true))) : otherwise);
      const isThere = (at) => (high ?? low)[at] !== null && (low ?? high)[at] !== null;
      for (let at = 0; at < times.length; at += 1) {
        if (!isThere(at)) continue;
        const begin = at;
        while (at + 1 < times.length && isThere(at + 1)) at += 1;
        ctx.beginPath();
        for (let i = begin; i <= at; i += 1) ctx.lineTo(plot.valToPos(times[i], "x", true), edge(high, i, bbox.top));
        for (let i = at; i >= begin; i -= 1) ctx.lineTo(plot.valToPos(times[i], "x", true), edge(low, i, bbox.top + bbox.height));
        ctx.fill();
      }
    }
    ctx.restore();
  }

  /** [{name, low, high}]: both edges of each band; one that is open on a side has null there. */
  usual() {
    const [low, high] = [this.data.lower, this.data.upper].map((edges) => new Map((edges ?? []).map((e) => [e.name, e.values])));
    return [...new Set([...low.keys(), ...high.keys()])].map((name) => ({ name, low: low.get(name) ?? null, high: high.get(name) ?? null }));
  }

  /** In words: what is usual now. */
  usually() {
    const { unit, series } = this.data;
    const last = (values) => quantity(values?.findLast((v) => v !== null) ?? null, unit);
    const told = this.usual().slice(0, 3).map(({ name, low, high }) => `${series.length > 1 || series[0]?.name !== name ? `${apart(name)} ` : ""}${low && high ? `${last(low)} to ${last(high)}` : high ? `up to ${last(high)}` : `from ${last(low)}`}`);
    return told.length ? `Usual at this hour, shaded: ${told.join(" · ")}` : "";
  }

  /** In words: how many alerts the chart shades. */
  fired() {
    const [from, to] = this.bounds;
    const seen = (this.data.alerts ?? []).filter((a) => a.from <= to && (a.to ?? to) >= from);
    if (!seen.length) return "";
    const last = seen.reduce((a, b) => (a.from > b.from ? a : b));
    return `${seen.length === 1 ? "One alert" : `${seen.length} alerts`} fired, the last ${last.severity} from ${moment(last.from * 1000)} ${last.to === null ? "until now" : `to ${moment(last.to * 1000)}`}.`.replace("One alert fired, the last", "An alert fired:");
  }

  /** Changes that lie within the chart, oldest first: what was deployed or configured, and when (s). */
  changes() {
    const [from, to] = this.bounds;
    return (this.data.changes ?? []).filter((c) => c.at >= from && c.at <= to).sort((a, b) => a.at - b.at);
  }

  /** A line from top to bottom with a wedge on top for each change; what it was stands below the chart. */
  drawChanges(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.strokeStyle = colour("text-2");
    ctx.fillStyle = colour("text-2");
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    for (const change of this.changes()) {
      const x = Math.round(plot.valToPos(change.at, "x", true));
      ctx.beginPath();
      ctx.moveTo(x + 0.5, bbox.top);
      ctx.lineTo(x + 0.5, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x - 4 * ratio, bbox.top - 1);
      ctx.lineTo(x + 4 * ratio, bbox.top - 1);
      ctx.lineTo(x, bbox.top + 6 * ratio);
      ctx.fill();
    }
    ctx.restore();
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const from = plot.posToVal(left, "x");
    const to = plot.posToVal(left + width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (to - from >= 10) zoom(from, to);
  }

  resize() {
    const width = this.plotBox.clientWidth;
    const height = this.plotBox.clientHeight;
    if (this.plot && width > 0 && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  restyle() { this.plot?.redraw(false); }

  writeLegend() {
    const { series, unit, levels, before } = this.data;
    const rows = series.map((s, index) => {
      const seen = s.values.filter((v) => v !== null);
      const old = this.earlier.get(s.name)?.findLast((v) => v !== null) ?? null;
      return { name: s.name, index, last: seen.at(-1) ?? null, before: old, low: least(seen), high: most(seen) };
    });
    if (!this.data.bars) this.sort(rows);
    const focused = this.legendBox.contains(document.activeElement) ? { ...document.activeElement.dataset } : {};
    this.cells = new Map();
    const columns = ["last", ...(before ? ["before"] : []), "low", "high"];
    const body = rows.map((row) => {
      const cells = columns.map((name) => h("td", { class: "numeric" }, quantity(row[name], unit)));
      this.cells.set(row.index, [cells[0], row.last, before ? cells[1] : null, row.before]);
      return h("tr", {},
        h("th", { scope: "row" }, h("button", { type: "button", class: "legend-key", "data-name": row.name, title: row.name, "aria-pressed": String(!this.hidden.has(row.name)), on: { click: (event) => this.toggle(row, event) } },
          h("span", { class: `swatch s-${this.tone(row.name, row.index)}` }), h("bdi", {}, row.name))), cells);
    });
    const limits = levels.map((l) => `${l.severity} ${l.comparison} ${quantity(l.value, unit)}`).join(", ");
    const legend = h("div", { class: "legend-scroll", tabindex: rows.length > 5 ? "0" : null, role: rows.length > 5 ? "region" : null, "aria-label": rows.length > 5 ? `Series of ${this.title}` : null },
      h("table", {},
        h("thead", {}, h("tr", {}, this.heading("name"), columns.map((name) => this.heading(name)))),
        h("tbody", {}, body)));
    const changed = this.changes();
    const told = changed.slice(-3).map((c) => `${moment(c.at * 1000)} ${apart(c.title)}`).join(" · ");
    const more = changed.length > 3 ? `${changed.length} changes, the last: ` : "Changed: ";
    const said = [["data-fired", this.fired()], ["data-changes", told && more + told], ["data-usual", this.usually()], ["data-limits", limits && `Limits: ${limits}`]];
    this.legendBox.replaceChildren(...said.filter(([, text]) => text).map(([name, text]) => h("p", { class: "limits", [name]: "" }, text)), legend);
    this.valueHead = find("[data-column=last] span", this.legendBox);
    if (focused.name) all(".legend-key", this.legendBox).find((key) => key.dataset.name === focused.name)?.focus();
    if (focused.column) find(`[data-column=${focused.column}]`, this.legendBox)?.focus();
    this.describe(rows);
  }

  /** A heading of the legend: a click sorts by it, a second one turns the order round. */
  heading(name) {
    const { by, down } = this.order;
    const order = { by: name, down: by === name ? !down : name !== "name" };
    const sorted = by === name ? (down ? "descending" : "ascending") : null;
    return h("th", { scope: "col", class: name === "name" ? "" : "numeric", "aria-sort": sorted },
      h("button", { type: "button", class: "sort", "data-column": name, on: { click: () => { this.order = order; this.writeLegend(); } } },
        h("span", {}, HEADINGS[name]), h("span", { "aria-hidden": "true" }, sorted ? (down ? " ↓" : " ↑") : "")));
  }

  sort(rows) {
    const { by, down } = this.order;
    const rank = (row) => row[by] ?? -Infinity;
    rows.sort(by === "name" ? (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }) : (a, b) => rank(a) - rank(b) || b.index - a.index);
    if (down) rows.reverse();
  }

  /** The canvas says in words what it shows. */
  describe(rows) {
    const canvas = find("canvas", this.plotBox);
    if (canvas && rows) canvas.setAttribute("aria-label", `${this.title}: ${rows.slice(0, 4).map((r) => `${apart(r.name.slice(0, 100))} ${quantity(r.last, this.data.unit)}`).join(", ")}`);
  }

  /** Click shows or hides a series; with Ctrl or Shift it alone stays. */
  toggle(row, event) {
    const names = this.data.series.map((s) => s.name);
    if (event.ctrlKey || event.metaKey || event.shiftKey) {
      const alone = names.filter((n) => n !== row.name).every((n) => this.hidden.has(n));
      this.hidden = new Set(alone ? [] : names.filter((n) => n !== row.name));
    } else if (!this.hidden.delete(row.name)) this.hidden.add(row.name);
    this.build();
    this.writeLegend();
  }

  /** The crosshair's values stand in the legend while it is over any chart of the page. */
  point(index) {
    if (!this.cells) return;
    const { unit, times, series } = this.data;
    const at = index === null || index === undefined ? null : times[index] ?? null;
    this.valueHead.textContent = at === null ? HEADINGS.last : clock(new Date(at * 1000), true);
    for (const [number, [cell, last, old, before]] of this.cells) {
      cell.textContent = quantity(at === null ? last : series[number]?.values[index], unit);
      if (old) old.textContent = quantity(at === null ? before : this.earlier.get(series[number]?.name)?.[index], unit);
    }
  }

  /** The chart as it is, with its title and a key to its colours, as a picture for a message or a report. */
  picture() {
    const canvas = this.plot?.ctx.canvas;
    if (!canvas) return null;
    const names = this.data.series.map((s, index) => ({ name: s.name, tone: this.tone(s.name, index) })).filter((s) => !this.hidden.has(s.name)).slice(0, 12);
    return titled(canvas, this.title, this.bounds, names);
  }

  writeNumbers() {
    if (this.numbersBox.hidden || !this.data) return;
    const { times, unit } = this.data;
    const more = [["lower", "usual at least"], ["upper", "usual at most"], ["before", "week before"]];
    const series = [...this.data.series, ...more.flatMap(([part, words]) => (this.data[part] ?? []).map((s) => ({ name: `${s.name} ${words}`, values: s.values })))];
    const order = times.map((_, index) => index).reverse();
    this.numbersBox.replaceChildren(h("table", {},
      h("caption", { class: "visually-hidden" }, `${this.title}, newest first`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), series.map((s) => h("th", { scope: "col", class: "numeric", title: s.name }, h("bdi", {}, s.name))))),
      h("tbody", {}, order.map((i) => {
        const d = new Date(times[i] * 1000);
        return h("tr", {}, h("th", { scope: "row" }, `${day(d)} ${clock(d, true)}`), series.map((s) => h("td", { class: "numeric" }, measure(s.values[i], unit).join(" "))));
      }))));
  }
}
