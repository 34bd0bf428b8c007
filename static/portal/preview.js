// The preview of a rule in the admin: sends the form as it stands, shows the progress, then what would have happened.
import { all, find, h } from "./dom.js";
import { clock, day, duration, quantity } from "./format.js";

const root = find("[data-preview]");
const form = find("form[id$=_form]");
const MOST_ROWS = 12;
const SPANS = ["pending_period", "keep_firing_for", "cooldown", "new_series_delay"];
const plots = new Set();

const field = (name) => form.elements[name];
const text = (name) => field(name)?.value?.trim() ?? "";
/** A span as the API takes it: a number of seconds, or text such as 1m30s. */
const span = (value) => (value === "" ? 0 : /^\d+(\.\d+)?$/.test(value) ? Number(value) : value);
const chosen = (name) => { const select = field(name); return select?.value ? select.selectedOptions[0].textContent.trim() : null; };

function mapping(name) {
  const value = text(name) || "{}";
  try { return JSON.parse(value); } catch { throw new Error(`${name} is no JSON: write for example {"team": "web"}.`); }
}

function levels() {
  const rows = [];
  for (const select of all('select[name^="levels-"][name$="-severity"]', form)) {
    const number = select.name.split("-")[1];
    if (number === "__prefix__" || !select.value || field(`levels-${number}-DELETE`)?.checked) continue;
    const value = (name) => text(`levels-${number}-${name}`);
    // An empty row that nobody has touched is none.
    if (!value("id") && !["comparison", "threshold", "recovery_threshold", "recovery_expression"].some(value)) continue;
    const numeric = (name) => (value(name) === "" ? null : value(name));
    rows.push({
      severity: select.value, comparison: value("comparison"), threshold: numeric("threshold"),
      recovery_threshold: numeric("recovery_threshold"), recovery_expression: value("recovery_expression"),
    });
  }
  return rows;
}

/** The form as a draft. */
function draft() {
  const rule = {
    name: text("name") || "Draft", expression: text("expression"), levels: levels(), labels: mapping("labels"), service: text("service"),
    no_data_policy: text("no_data_policy"), error_policy: text("error_policy"), missing_evaluations: Number(text("missing_evaluations") || 1),
    detects_flapping: field("detects_flapping")?.checked ?? true, schedule: chosen("schedule"),
  };
  if (chosen("group")) rule.group = chosen("group");
  for (const name of SPANS) rule[name] = span(text(name));
  return rule;
}

let kept = null;
let stop = null;

async function* lines(answer) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of answer.body) {
    const found = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = found.pop();
    for (const line of found) if (line) yield JSON.parse(line);
  }
  if (rest) yield JSON.parse(rest);
}

function complain(message) {
  const box = find("[data-error]", root);
  box.hidden = !message;
  box.textContent = message || "";
}

function busy(isBusy) {
  find("[data-run]", root).disabled = isBusy;
  find("[data-stop]", root).hidden = !isBusy;
  const bar = find("[data-progress]", root);
  bar.hidden = !isBusy;
  bar.value = 0;
}

async function run() {
  complain("");
  let body;
  try {
    body = { rule: draft(), hours: Number(find("[data-hours]", root).value), stream: true };
  } catch (error) { complain(error.message); return; }
  if (root.dataset.slug) body.slug = root.dataset.slug;
  if (find("[data-wanted]", root).value !== "") body.alerts_per_week = Number(find("[data-wanted]", root).value);
  if (find("[data-compare]", root).checked && kept) body.compare = kept;
  stop = new AbortController();
  busy(true);
  try {
    const answer = await fetch(root.dataset.url, {
      method: "POST", signal: stop.signal, credentials: "same-origin", body: JSON.stringify(body),
      headers: { "content-type": "application/json", "x-csrftoken": find("[name=csrfmiddlewaretoken]", form)?.value ?? find("[name=csrfmiddlewaretoken]").value },
    });
    if (!answer.ok) {
      const refusal = await answer.json();
      const fields = Object.entries(refusal.fields ?? {}).map(([name, what]) => `${name}: ${[what].flat().join(" ")}`);
      throw new Error(fields.join("\n") || refusal.error);
    }
    for await (const line of lines(answer)) {
      if (line.progress !== undefined) find("[data-progress]", root).value = line.progress;
      if (line.error) throw new Error(line.error);
      if (line.result) show(line.result.previews);
    }
  } catch (error) {
    complain(error.name === "AbortError" ? "The preview was cancelled." : error.message);
  } finally { busy(false); }
}

const moment = (iso) => { const d = new Date(iso); return `${day(d)} ${clock(d, true)}`; };
const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const named = (labels) => Object.entries(labels).map(([name, value]) => `${name}=${value}`).join(", ") || "the whole rule";

function figures(found) {
  const told = found.notifications;
  const card = (title, value, note) => h("div", { class: "portal-card" }, h("span", {}, title), h("strong", {}, String(value)), h("small", {}, note));
  return h("div", { class: "portal-cards" },
    card("Alerts", found.alerts, `${found.alerts_per_week} a week`),
    card("Firing", duration(found.firing_seconds), found.pending_only ? `${found.pending_only} more only waited` : "all alerts together"),
    told ? card("Messages", told.messages, told.escalations ? `and ${counted(told.escalations, "escalation")}` : `in ${counted(told.groups, "group")}`) : null,
    card("Flapping", found.flaps, found.flaps ? "held back while it lasts" : "never"),
    card("Series", found.series, `${found.evaluations} evaluations`));
}

function firings(found) {
  if (!found.firings.length) return h("p", {}, "Nothing would have fired.");
  const rows = found.firings.slice(0, MOST_ROWS).map((one) => h("tr", {},
    h("td", {}, h("span", { class: `portal-dot is-${one.severity}` }), one.severity),
    h("td", {}, named(one.labels)),
    h("td", {}, moment(one.start)),
    h("td", {}, one.end ? duration((new Date(one.end) - new Date(one.start)) / 1000) : "still firing"),
    h("td", { class: "portal-number" }, typeof one.peak === "number" ? quantity(one.peak, "plain") : one.peak ?? "–")));
  const left = found.alerts - rows.length;
  return h("div", { class: "portal-preview-table", tabindex: "0", role: "region", "aria-label": "Firings" },
    h("table", {},
      h("thead", {}, h("tr", {}, ["Severity", "Series", "From", "For", "Worst"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows)),
    left > 0 ? h("p", {}, `and ${left} more`) : null);
}

function suggestion(found) {
  const hint = found.suggestion;
  if (!hint) return null;
  if (hint.threshold === null) return h("p", {}, hint.reason);
  const level = found.levels.find((one) => one.severity === hint.severity);
  const use = () => {
    for (const select of all('select[name^="levels-"][name$="-severity"]', form)) {
      if (select.value !== hint.severity) continue;
      const input = field(select.name.replace("severity", "threshold"));
      input.value = hint.threshold;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      run();
    }
  };
  return h("p", { class: "portal-preview-hint" },
    `With ${hint.severity} ${level?.comparison ?? ">"} ${hint.threshold} there would have been ${counted(hint.alerts, "alert")}. `,
    h("button", { type: "button", on: { click: use } }, "Use it"));
}

const tone = (name) => getComputedStyle(root).getPropertyValue(`--preview-${name}`).trim();

/** Least and greatest value of all series, thresholds as dashed lines, and the times in which something fires. */
function chart(found, box) {
  const columns = [0, 1, 2, 3].map((column) => found.curve.map((row) => (column === 0 ? row[0] / 1000 : row[column])));
  const [times, low, high, firing] = columns;
  if (!times.length || !window.uPlot) return;
  const isOne = high.every((value, at) => value === low[at]);
  const ink = tone("text");
  const axis = { stroke: ink, font: "11px system-ui, sans-serif", grid: { stroke: tone("line"), width: 1 }, ticks: { show: false } };
  const ends = times.at(-1) + (times.length > 1 ? times[1] - times[0] : 60);
  const shade = (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = tone("firing");
    for (let first = 0; first < times.length; first += 1) {
      if (!firing[first]) continue;
      let last = first;
      while (firing[last + 1]) last += 1;
      const from = plot.valToPos(times[first], "x", true);
      const to = plot.valToPos(times[last + 1] ?? ends, "x", true);
      ctx.fillRect(from, bbox.top, Math.max(1, to - from), bbox.height);
      first = last;
    }
    ctx.restore();
  };
  const limits = (plot) => {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    for (const level of found.levels) {
      for (const [value, alpha, word] of [[level.threshold, 1, level.severity], [level.recovery_threshold, 0.5, "recovers"]]) {
        if (value === null) continue;
        const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
        if (y < bbox.top || y > bbox.top + bbox.height) continue;
        ctx.globalAlpha = alpha;
        ctx.strokeStyle = ctx.fillStyle = tone(level.severity);
        ctx.lineWidth = ratio;
        ctx.setLineDash([5 * ratio, 4 * ratio]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.fillText(word, bbox.left + bbox.width - 4 * ratio, y - 2 * ratio);
      }
    }
    ctx.restore();
  };
  const wanted = found.levels.map((level) => level.threshold).filter((value) => value !== null);
  const vertical = (_, least, most) => {
    let [bottom, top] = [least ?? 0, most ?? 1];
    for (const value of wanted) {
      if (value > top && value - bottom <= (top - bottom || Math.abs(top) || 1) * 2.5) top = value;
      if (value < bottom && top - value <= (top - bottom || Math.abs(top) || 1) * 2.5) bottom = value;
    }
    const room = (top - bottom || Math.abs(top) || 1) * 0.08;
    return [bottom >= 0 && bottom - room < 0 ? 0 : bottom - room, top + room];
  };
  const lines = isOne ? [{ label: "value", stroke: tone("high"), width: 1.6 }]
    : [{ label: "highest", stroke: tone("high"), width: 1.6 }, { label: "lowest", stroke: tone("low"), width: 1.2 }];
  const plot = new window.uPlot({
    width: Math.max(200, box.clientWidth), height: 240, padding: [10, 10, 0, 0],
    scales: { x: { time: true }, y: { range: vertical } },
    axes: [{ ...axis, size: 30, space: 70, values: (_, splits, __, ___, step) => splits.map((at) => (step >= 86400 ? day : clock)(new Date(at * 1000))) }, { ...axis, size: 56, values: (_, splits, __, ___, step) => splits.map((value) => quantity(value, "plain", step)) }],
    series: [{ value: (_, at) => (at === null ? "–" : moment(at * 1000)) }, ...lines.map((line) => ({ ...line, points: { show: false }, value: (_, value) => quantity(value, "plain") }))],
    bands: isOne ? [] : [{ series: [1, 2], fill: tone("band") }],
    cursor: { drag: { x: false, y: false } },
    hooks: { drawClear: [shade], draw: [limits] },
  }, isOne ? [times, high] : [times, high, low], box);
  const canvas = find("canvas", box);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Values over time; ${counted(found.alerts, "alert")} would have fired`);
  plots.add(plot);
}

function show(previews) {
  const results = find("[data-results]", root);
  for (const plot of plots) plot.destroy();
  plots.clear();
  results.replaceChildren();
  previews.forEach((found, number) => {
    const title = previews.length > 1 ? h("h3", {}, number ? "What it is compared with" : "This draft") : null;
    const box = h("div", { class: "portal-preview-chart" });
    const said = [...found.warnings, ...(found.failed_evaluations ? [`${found.failed_evaluations} evaluations would have failed: ${found.error}`] : [])];
    results.append(h("article", {}, title, figures(found),
      said.length ? h("ul", { class: "portal-preview-warnings" }, said.map((what) => h("li", {}, what))) : null,
      suggestion(found), box, firings(found)));
    chart(found, box);
    box.after(h("p", { class: "portal-preview-key" }, "Shaded: something fires. Dashed: the thresholds."));
  });
  results.dataset.shown = String(previews.length);
}

function keep(words) {
  try { kept = draft(); } catch { kept = null; }
  find("[data-kept]", root).textContent = words;
}

if (root && form) {
  find("[data-run]", root).addEventListener("click", run);
  find("[data-stop]", root).addEventListener("click", () => stop?.abort());
  find("[data-keep]", root).addEventListener("click", () => { keep("the draft that you kept"); find("[data-compare]", root).checked = true; });
  if (root.dataset.slug) keep("the rule as it was opened");
  else find("[data-kept]", root).textContent = "a draft that you keep";
  new ResizeObserver(() => {
    for (const plot of plots) {
      const width = plot.root.parentElement.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 240 });
    }
  }).observe(root);
}
