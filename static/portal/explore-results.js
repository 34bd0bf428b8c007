// Answers of the query API as a chart's data, as a table and as CSV. Numbers stay the texts that the API sent.
import { download as save, h } from "./dom.js";
import { clock, day } from "./format.js";
import { seriesText } from "./explore-language.js";

export const MOST_LINES = 60;
export const MOST_ROWS = 300;
const MOST_SAMPLES = 100;

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en-GB")} ${n === 1 ? one : many}`;
const SPECIAL = { "+Inf": Infinity, "-Inf": -Infinity };
export function numeric(text) {
  const value = Number(text);
  return Number.isNaN(value) ? SPECIAL[text] ?? NaN : value;
}

/** Labels that all of the series have in common, as a set of names; of one series none. */
export function shared(metrics) {
  if (metrics.length < 2) return new Set();
  return new Set(Object.keys(metrics[0]).filter((name) => metrics.every((m) => m[name] === metrics[0][name])));
}

/** A matrix on the grid of its query: {data for Chart.draw, left: how many series are not drawn, unseen: values that a line cannot show}. */
export function chartOf(matrix, { start, end, step }, isStacked) {
  const size = Math.floor((end - start) / step + 1e-6) + 1;
  const times = Array.from({ length: size }, (_, i) => start + i * step);
  const common = shared(matrix.map((s) => s.metric));
  const last = (series) => numeric(series.values.at(-1)?.[1] ?? "NaN") || 0;
  const highest = matrix.length > MOST_LINES ? new Set(matrix.toSorted((a, b) => last(b) - last(a)).slice(0, MOST_LINES)) : null;
  let unseen = 0;
  const drawn = matrix.filter((series) => !highest || highest.has(series)).map(({ metric, values }) => {
    const line = new Array(size).fill(null);
    for (const [at, text] of values) {
      const value = numeric(text);
      if (!Number.isFinite(value)) { unseen += 1; continue; }
      line[Math.round((at - start) / step)] = value;
    }
    return { name: seriesText(metric, common), values: line };
  });
  let [low, high] = [Infinity, -Infinity];
  for (const row of drawn) for (const v of row.values) if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); }
  const isFromZero = isStacked || (low >= 0 && low <= 0.6 * high);
  const min = isFromZero ? Math.min(0, low) : low === high ? low - Math.max(Math.abs(low) * 0.1, 0.5) : undefined;
  return { data: { unit: unitOf(matrix), min: Number.isFinite(min) ? min : undefined, stacked: isStacked, times, series: drawn, levels: [] }, left: matrix.length - drawn.length, unseen, common };
}

/** Only plain selectors keep the name that tells the unit. */
function unitOf(matrix) {
  const names = new Set(matrix.map((s) => s.metric.__name__ ?? ""));
  const name = names.size === 1 ? [...names][0] : "";
  return name.endsWith("_bytes") ? "bytes" : name.endsWith("_seconds") ? "seconds" : "plain";
}

const moment = (seconds) => { const d = new Date(seconds * 1000); return `${day(d)} ${clock(d, true)}`; };

/** A table of an instant vector, sorted by a click on a heading; `again` draws it anew with another order. */
export function vectorTable(vector, order, again) {
  const metrics = vector.map((s) => s.metric);
  const common = shared(metrics);
  const names = [...new Set(metrics.flatMap(Object.keys))].filter((n) => !common.has(n)).sort();
  const columns = [null, ...names];
  const sorted = sortedBy(vector, order);
  const head = columns.map((name) => {
    const isSorted = order.by === name;
    const next = { by: name, down: isSorted ? !order.down : name === null };
    return h("th", { scope: "col", class: name === null ? "numeric" : "", "aria-sort": isSorted ? (order.down ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "sort", on: { click: () => again(next) } }, name === null ? "Value" : name === "__name__" ? "metric" : name, h("span", { "aria-hidden": "true" }, isSorted ? (order.down ? " ↓" : " ↑") : "")));
  });
  return [
    common.size ? h("p", { class: "common" }, "All have ", h("code", {}, seriesText(Object.fromEntries([...common].map((n) => [n, metrics[0][n]]))))) : null,
    h("table", { class: "series-table" },
      h("thead", {}, h("tr", {}, head)),
      h("tbody", {}, sorted.slice(0, MOST_ROWS).map((row) => h("tr", {}, h("td", { class: "numeric mono value" }, row.value[1]), names.map((name) => h("td", { class: "mono" }, row.metric[name] ?? "")))))),
    vector.length > MOST_ROWS ? h("p", { class: "card-note" }, `The first ${MOST_ROWS} of ${count(vector.length, "series", "series")} in this order. The CSV has all of them.`) : null,
  ].filter(Boolean);
}

/** By a label, or by the value (null), where NaN comes last whichever the direction; as the API sent it without an order. */
export function sortedBy(vector, { by, down }) {
  if (by === undefined) return vector;
  const sign = down ? -1 : 1;
  const compare = by === null
    ? ([, a], [, b]) => (Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : sign * (a < b ? -1 : a > b ? 1 : 0))
    : ([, a], [, b]) => sign * a.localeCompare(b, "en", { numeric: true });
  return vector.map((row) => [row, by === null ? numeric(row.value[1]) : row.metric[by] ?? ""]).sort(compare).map(([row]) => row);
}

/** A range vector at one time: each series with its samples as they are stored. */
export function matrixTable(matrix) {
  return [
    h("table", { class: "series-table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Series"), h("th", { scope: "col" }, "Samples"))),
      h("tbody", {}, matrix.slice(0, MOST_ROWS).map(({ metric, values }) => h("tr", {},
        h("td", { class: "mono" }, seriesText(metric)),
        h("td", { class: "mono" }, h("ul", { class: "samples" }, values.slice(-MOST_SAMPLES).map(([at, value]) => h("li", {}, value, h("span", { class: "muted" }, ` ${moment(at)}`)))),
          values.length > MOST_SAMPLES ? h("p", { class: "muted" }, `The last ${MOST_SAMPLES} of ${count(values.length, "sample")}. The CSV has all of them.`) : null))))),
    matrix.length > MOST_ROWS ? h("p", { class: "card-note" }, `The first ${MOST_ROWS} of ${count(matrix.length, "series", "series")}. The CSV has all of them.`) : null,
  ].filter(Boolean);
}

/** A scalar or a string. */
export const single = ([at, value]) => h("p", { class: "single" }, h("strong", { class: "mono" }, value), h("span", { class: "muted" }, ` at ${moment(at)}`));

/** Any answer, a line each sample: time (ISO), value, then the labels. */
export function csvOf({ resultType, result }) {
  const rows = resultType === "vector" ? result.map((s) => [s.metric, [s.value]]) : resultType === "matrix" ? result.map((s) => [s.metric, s.values]) : [[{}, [result]]];
  const names = [...new Set(rows.flatMap(([metric]) => Object.keys(metric)))].sort();
  const written = new Map(); // series share their times, and a day of many series has few
  const time = (at) => { if (!written.has(at)) written.set(at, new Date(at * 1000).toISOString()); return written.get(at); };
  const lines = rows.flatMap(([metric, values]) => {
    const own = names.map((name) => `,${cell(harmless(metric[name] ?? ""))}`).join("");
    return values.map(([at, value]) => `${time(at)},${resultType === "string" ? cell(harmless(value)) : value}${own}`);
  });
  return [["time", "value", ...names.map((name) => cell(harmless(name)))].join(","), ...lines, ""].join("\r\n");
}

/** A spreadsheet must not run what somebody wrote into a label. */
const harmless = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

export const download = (name, text) => save(name, new Blob([text], { type: "text/csv" }));
