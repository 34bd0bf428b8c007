// The tree of a query: each part of it with how many series it gave, what it read, how long it took, and its values.
import { h } from "./dom.js";
import { seriesText } from "./explore-language.js";
import { count } from "./explore-results.js";

const WORDS = { selector: "reads", range: "reads", subquery: "subquery", call: "function", aggregate: "aggregates", binary: "operator", number: "number", string: "text", paren: "brackets", negation: "negates" };

export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : ms >= 10 ? `${ms.toFixed(0)} ms` : ms >= 0.1 ? `${ms.toFixed(1)} ms` : ms > 0 ? "< 0.1 ms" : "–";
}

/** onMark(start, end) is called with the offsets of a part, as the server counts them. */
export function treeOf({ tree }, text, onMark) {
  const total = Math.max(tree.seconds ?? 0, 1e-9);
  return h("div", { class: "tree", role: "region", "aria-label": "Parts of the query" },
    h("div", { class: "tree-head", "aria-hidden": "true" }, h("span", {}, "Part"), h("span", {}, "Series"), h("span", {}, "Samples"), h("span", {}, "Time")),
    h("ul", {}, branch(tree, text, total, onMark)));
}

function branch(node, text, total, onMark) {
  const values = node.values ?? [];
  const children = node.children ?? [];
  const isScalar = values.length === 1 && !Object.keys(values[0].metric ?? {}).length;
  const isLiteral = node.kind === "number" || node.kind === "string";
  const list = values.length && !isScalar ? valuesOf(node) : null;
  const toggle = list ? h("button", { type: "button", class: "tree-values-toggle", "aria-expanded": "false" }, `${values.length === 1 ? "value" : "values"}`) : null;
  toggle?.addEventListener("click", () => {
    list.hidden = !list.hidden;
    toggle.setAttribute("aria-expanded", String(!list.hidden));
  });
  const isEmpty = node.series === 0 && !isLiteral;
  return h("li", { class: isEmpty ? "is-empty" : "" },
    h("div", { class: "tree-row" },
      h("div", { class: "tree-part" },
        h("span", { class: `badge tree-kind kind-${node.kind}` }, WORDS[node.kind] ?? node.kind),
        h("button", { type: "button", class: "tree-text mono", title: "Mark this part in the query", on: { click: () => onMark(node.start, node.end) } }, node.text || text),
        isScalar && !isLiteral ? h("span", { class: "tree-scalar mono" }, `= ${values[0].value}`) : null, toggle),
      h("span", { class: "tree-number", "data-label": isEmpty || node.type === "scalar" || node.type === "string" ? null : "series" }, isEmpty ? h("span", { class: "badge is-warning" }, "no series") : node.type === "scalar" || node.type === "string" ? node.type : (node.series ?? 0).toLocaleString("en-GB")),
      h("span", { class: `tree-number ${node.samples ? "" : "is-none"}`, "data-label": "samples" }, node.samples ? node.samples.toLocaleString("en-GB") : "–"),
      h("span", { class: `tree-number tree-time ${node.seconds ? "" : "is-none"}` }, h("span", {}, milliseconds(node.seconds ?? 0)),
        h("meter", { min: 0, max: 1, value: Math.min(1, (node.seconds ?? 0) / total), "aria-hidden": "true" }))),
    list,
    children.length ? h("ul", {}, children.map((child) => branch(child, text, total, onMark))) : null);
}

function valuesOf(node) {
  const left = (node.series ?? node.values.length) - node.values.length;
  return h("div", { class: "tree-values", hidden: true },
    h("table", {}, h("tbody", {}, node.values.map(({ metric, value }) => h("tr", {}, h("td", { class: "numeric mono" }, value), h("td", { class: "mono" }, seriesText(metric)))))),
    left > 0 ? h("p", { class: "muted" }, `and ${count(left, "more series", "more series")}`) : null);
}
