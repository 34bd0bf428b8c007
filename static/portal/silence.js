// The form of a silence: what it would mute is asked again as it is typed.
import { all, find, h, icon } from "./dom.js";
import { timeElement } from "./format.js";

const PAUSE = 350;

export function startSilence() {
  const form = find("[data-silence]");
  if (!form) return;
  const [place, fields] = [find("[data-preview]"), ["matchers", "recurrence", "duration", "time_zone"]];
  let timer = null, asked = 0;
  const ask = async () => {
    const mine = ++asked;
    const wanted = new URLSearchParams(fields.map((name) => [name, form.elements[name].value]));
    if (!form.elements.matchers.value.trim()) return place.replaceChildren(h("p", { class: "card-note" }, "Write a matcher to see what it would mute."));
    const answer = await fetch(`${form.dataset.previewUrl}?${wanted}`, { credentials: "same-origin" }).catch(() => null);
    if (mine !== asked) return;
    const found = await answer?.json().catch(() => null);
    draw(place, found ?? { error: "The portal could not be asked." });
  };
  form.addEventListener("input", (event) => {
    if (!fields.includes(event.target.name)) return;
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  });
  for (const button of all("[data-lasts]", form)) button.addEventListener("change", () => { form.elements.ends_at.value = ""; });
  form.elements.ends_at.addEventListener("input", () => { for (const button of all("[data-lasts]", form)) button.checked = false; });
}

function draw(place, found) {
  if (found.error) return place.replaceChildren(h("p", { class: "card-note field-error", role: "alert" }, found.error));
  const week = found.last_week;
  const figures = h("dl", { class: "facts" },
    h("dt", {}, "Now"), h("dd", {}, plural(found.active.count, "active alert")),
    h("dt", {}, "Last week"), h("dd", {}, `${plural(week.alerts, "alert")}, ${plural(week.notices, "notice")}${week.is_whole ? "" : " at least"}`));
  const rows = found.active.alerts.slice(0, 12).map((alert) => h("li", { class: `is-${alert.severity}` }, icon(alert.severity),
    h("div", {}, h("a", { href: `/monitoring/alerts/${alert.key}/` }, alert.message), alert.service ? h("p", {}, alert.service) : null), timeElement(alert.fired_at, "for")));
  const none = h("p", { class: "card-note" }, "It mutes nothing that is active now.");
  place.replaceChildren(figures, rows.length ? h("ol", { class: "timeline" }, ...rows) : none);
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
