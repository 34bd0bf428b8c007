// Draws the rows of active alerts, tells a screen reader what changed, and carries the count to title, icon and menu.
import { all, find, h, icon } from "./dom.js";
import { timeElement } from "./format.js";

const title = document.title;

export function alertRow(alert, isFresh = false) {
  const who = alert.acknowledged_by ? h("span", { class: "badge" }, icon("check"), `acknowledged by ${alert.acknowledged_by}`) : null;
  const stage = alert.state === "firing" ? null : h("span", { class: "badge" }, icon(alert.state === "recovering" ? "recovering" : "pending"), alert.state);
  return h("li", { "data-key": alert.key },
    h("a", { class: `alert-row is-${alert.tone}${isFresh ? " fresh" : ""}`, href: alert.url },
      icon(alert.tone),
      h("span", {},
        h("span", { class: "alert-name" }, h("bdi", {}, alert.name), h("span", { class: `badge is-${alert.tone}` }, alert.tone), stage, who),
        h("bdi", { class: "alert-message" }, alert.message)),
      h("span", { class: "alert-when" }, timeElement(alert.since, "for"), h("small", {}, "since ", timeElement(alert.since, "moment")))));
}

function none(pending) {
  const text = pending ? `${pending} pending: ${pending === 1 ? "it fires" : "they fire"} if this goes on.` : "Nothing is pending either.";
  return h("li", { class: "empty is-ok" }, icon(pending ? "pending" : "ok"), h("strong", {}, "No active alerts"), h("span", {}, text));
}

let known = null;

/** alerts: {rows, total, counts, worst} */
export function drawAlerts(alerts) {
  const list = find("[data-alerts]");
  const before = known;
  known = new Map(alerts.rows.map((row) => [row.key, row]));
  if (list) {
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    const rows = alerts.rows.map((row) => alertRow(row, before !== null && (!before.has(row.key) || before.get(row.key).state !== row.state || before.get(row.key).severity !== row.severity)));
    const more = alerts.total - alerts.rows.length;
    if (more > 0) rows.push(h("li", { class: "card-note" }, `and ${more} more`));
    list.replaceChildren(...(rows.length ? rows : [none(alerts.pending)]));
    if (focused) find(`[data-key="${CSS.escape(focused)}"] a`, list)?.focus();
  }
  carry(alerts);
  if (before) announce(before, known);
}

function carry(alerts) {
  document.title = alerts.total ? `(${alerts.total}) ${title}` : title;
  for (const badge of all("[data-alert-count]")) {
    badge.hidden = !alerts.total;
    badge.textContent = alerts.total > 99 ? "99+" : alerts.total;
    badge.setAttribute("aria-label", `${alerts.total} active`);
  }
  const link = find("link[rel=icon]");
  const wanted = { critical: link.dataset.critical, error: link.dataset.critical, warning: link.dataset.warning, info: link.dataset.ok }[alerts.worst] || link.dataset.ok;
  if (link.getAttribute("href") !== wanted) link.setAttribute("href", wanted);
}

function announce(before, after) {
  const said = [];
  for (const [key, row] of after) {
    const old = before.get(key);
    if (!old) said.push(`New ${row.severity} alert: ${row.name}`);
    else if (old.severity !== row.severity) said.push(`${row.name} is now ${row.severity}`);
    else if (!old.acknowledged_by && row.acknowledged_by) said.push(`${row.name} acknowledged by ${row.acknowledged_by}`);
  }
  for (const [key, row] of before) if (!after.has(key)) said.push(`Resolved: ${row.name}`);
  if (said.length) find("[data-announce]").textContent = said.slice(0, 3).join(". ");
}
