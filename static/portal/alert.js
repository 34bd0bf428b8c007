// One alert: its state, buttons and timeline follow what the server says.
import { all, find, h, icon } from "./dom.js";
import { quantity, timeElement } from "./format.js";
import { drawTimeline } from "./overview.js";

export function drawAlert(alert) {
  const head = find("[data-alert]");
  if (!head) return;
  head.className = `card verdict is-${alert.tone}`;
  find(".verdict-sign", head).replaceChildren(icon(alert.icon));
  find("[data-alert-headline]", head).textContent = alert.headline;
  find("[data-alert-detail]", head).textContent = alert.message;
  const facts = find("[data-alert-facts]");
  facts.replaceChildren(...alert.facts.flatMap((fact) => [
    h("dt", {}, fact.name),
    h("dd", {}, fact.at ? timeElement(fact.at, "exact") : fact.number !== undefined ? quantity(fact.number, fact.unit) : fact.url ? h("a", { href: fact.url }, fact.value) : fact.value, fact.note ? h("span", { class: "muted" }, ` ${fact.note}`) : null)]));
  for (const form of all("[data-action]")) form.hidden = !alert.may[form.dataset.action];
  drawTimeline(find("[data-timeline]"), alert.timeline, "Nothing has happened yet.");
}
