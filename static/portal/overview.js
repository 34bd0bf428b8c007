// The overview's verdict and activity, and the warnings that every page carries.
import { find, h, icon } from "./dom.js";
import { timeElement } from "./format.js";

export function drawVerdict(health) {
  const card = find("[data-verdict]");
  if (!card) return;
  card.className = `card verdict is-${health.tone}`;
  const facts = health.facts.map(({ name, value, at }) => h("div", {}, h("dt", {}, name), h("dd", {}, at ? timeElement(at, "for") : value)));
  card.replaceChildren(
    h("span", { class: "verdict-sign" }, icon(health.icon)),
    h("div", { class: "verdict-text" }, h("strong", {}, health.headline), h("p", {}, ...sentence(health))),
    h("dl", { class: "verdict-facts" }, facts));
}

function sentence(health) {
  const parts = [];
  if (health.since) parts.push("Since ", timeElement(health.since, "moment"), " (", timeElement(health.since, "for"), "). ");
  parts.push(health.detail);
  return parts;
}

export function entry(item) {
  return h("li", { class: `is-${item.tone}` }, icon(item.icon),
    h("div", {}, item.url ? h("a", { href: item.url }, item.title) : h("span", {}, item.title), item.text ? h("p", {}, item.text) : null),
    timeElement(item.at, "moment"));
}

export function drawTimeline(list, items, empty) {
  if (list) list.replaceChildren(...(items.length ? items.map(entry) : [h("li", { class: "muted" }, empty)]));
}

export function drawWarnings(warnings) {
  const box = find("[data-warnings]");
  box.replaceChildren(...warnings.map((w) => h("div", { class: `banner is-${w.level}` }, icon(w.level), h("p", {}, w.text), w.url ? h("a", { href: w.url }, w.action) : null)));
}
