// The Explore page: queries with their editors, cost before they run, and their answers as graph, table and tree.
// What is asked for (queries, views, step, range) stands in the URL; what was asked before in this browser's storage.
import { Chart } from "./chart.js";
import { all, find, h, icon, state } from "./dom.js";
import { ask, Catalog } from "./explore-api.js";
import { Editor } from "./explore-editor.js";
import { offsetOf, unitsAt } from "./explore-language.js";
import { chartOf, count, csvOf, download, matrixTable, MOST_LINES, single, vectorTable } from "./explore-results.js";
import { milliseconds, treeOf } from "./explore-tree.js";
import { clock, duration } from "./format.js";
import { bounds, changes, stretch } from "./range.js";

const { steps, points, person, rule_url: ruleUrl } = state().explore;
const VIEWS = ["graph", "stacked", "table", "explain"];
const OVER_RANGE = "explain-range";
const MOST_QUERIES = 8;
const MOST_REMEMBERED = 50;
const API = { instant: "/api/v1/query", range: "/api/v1/query_range", cost: "/api/monitoring/query/cost", explain: "/api/monitoring/query/explain" };

// What an error is called, and what one can do about it.
const REFUSALS = {
  bad_data: ["The query cannot be read", ""],
  execution: ["The query cannot be answered", ""],
  timeout: ["The query took too long", "A shorter range, a longer step or fewer series take less; what is asked often belongs into a recording rule."],
  canceled: ["Cancelled", "Nothing was answered."],
  unavailable: ["The portal cannot answer now", "The store is busy or away; try again in a moment."],
  internal: ["The portal could not answer", "Its log says why."],
  not_found: ["This is not there", ""],
  network: ["The portal does not answer", "The connection is away; what stands here is from before."],
  forbidden: ["You may not ask this", "An administrator can give your role the right to query."],
  login: ["You are logged out", "Load the page again to log in."],
};
const RETRY = new Set(["timeout", "unavailable", "internal", "network", "canceled"]);

const EXAMPLES = [
  ["cpuUsage", "cpuUsage", "a metric as it is"],
  ["http_requests_total", "sum by (code) (rate(http_requests_total[5m]))", "requests a second, by status code"],
  ["http_request_duration_seconds_bucket", "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))", "95th percentile of the response time"],
  ["node_filesystem_avail_bytes", "100 * node_filesystem_avail_bytes / node_filesystem_size_bytes", "free disk space in percent"],
  ["celery_queue_length", "max_over_time(celery_queue_length[1h])", "longest queues of the last hour"],
];

const catalog = new Catalog();
const WAIT_TO_ESTIMATE = 600;
const WAIT_TO_SHOW = 200;

/** "90", "90s", "1m30s" as seconds; null where it is none of these. */
export function seconds(text) {
  const found = /^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?$/.exec(text.trim().replaceAll(" ", ""));
  if (!found || !text.trim()) return null;
  const [d, hours, m, s] = found.slice(1).map((n) => Number(n ?? 0));
  return d * 86400 + hours * 3600 + m * 60 + s || null;
}

class Query {
  constructor(page, number) {
    this.page = page;
    this.number = number;
    const copy = find("#query-template").content.cloneNode(true);
    this.root = find("[data-query]", copy);
    this.order = {};
    this.view = "graph";
    this.root.setAttribute("aria-label", `Query ${number}`);
    const id = `query-${number}`;
    this.part("note").id = `${id}-note`;
    find("textarea", this.root).setAttribute("aria-describedby", `${id}-note`);
    this.editor = new Editor(find("[data-editor]", this.root), { id, label: `Query ${number}`, catalog, onChange: () => this.edited(), onRun: () => this.submit() });
    this.chart = new Chart(this.part("graph"), `Query ${number}`);
    this.part("run").addEventListener("click", () => this.submit());
    this.part("cancel").addEventListener("click", () => this.controller?.abort());
    this.part("remove").addEventListener("click", () => page.remove(this));
    this.part("csv").addEventListener("click", () => download("query.csv", csvOf(this.answer.data)));
    this.part("spread").addEventListener("change", () => this.submit());
    this.part("views").addEventListener("click", ({ target }) => target.dataset.value && this.choose(target.dataset.value));
  }

  part(name) { return find(`[data-${name}]`, this.root); }

  get text() { return this.editor.text.trim(); }

  /** The view as the URL names it. */
  get shown() { return this.view === "explain" && this.spread() === "range" ? OVER_RANGE : this.view; }

  /** Set from the URL. */
  set({ text, view }) {
    this.editor.text = text;
    this.view = VIEWS.includes(view) ? view : "graph";
    if (view === OVER_RANGE) this.view = "explain";
    this.part("spread").value = view === OVER_RANGE ? "range" : "instant";
    this.showView();
    this.edited();
  }

  choose(view) {
    const isSameAnswer = [view, this.view].every((v) => v === "graph" || v === "stacked");
    this.view = view;
    this.showView();
    if (isSameAnswer && this.answer?.view === "range") { this.page.save(); this.draw(); }
    else this.submit();
  }

  showView() {
    for (const button of all("button", this.part("views"))) button.setAttribute("aria-pressed", String(button.dataset.value === this.view));
  }

  edited() {
    clearTimeout(this.waiting);
    this.estimating?.abort();
    this.note(null);
    this.link();
    this.showStale();
    if (this.text && !this.controller) this.waiting = setTimeout(() => this.estimate(), WAIT_TO_ESTIMATE);
  }

  showStale() {
    const isStale = Boolean(this.ran) && this.ran !== this.text;
    this.root.classList.toggle("is-stale", isStale);
    this.part("stale").hidden = !isStale;
  }

  /** Rules are made of what stands in the editor. */
  link() {
    const link = this.part("rule");
    link.hidden = !ruleUrl || !this.text;
    if (ruleUrl) link.href = `${ruleUrl}?${new URLSearchParams({ expression: this.text })}`;
  }

  note(content, tone = "") {
    const note = this.part("note");
    note.className = `query-note ${tone}`;
    note.replaceChildren(...(content === null ? [] : [content].flat()));
  }

  /** The query's own parameters: a range for the graph, the range's end for the table; the tree as its query was asked. */
  parameters(view, span) {
    const isRange = view === "graph" || view === "stacked" || (view === "explain" && this.spread() === "range");
    return isRange
      ? { query: this.editor.text, start: span.start, end: span.end, step: span.step }
      : { query: this.editor.text, time: span.end };
  }

  /** Whether a tree is over the whole range, or of the range's end. */
  spread() { return this.part("spread").value; }

  /** While somebody types: is it PromQL, and what would it read? Costs nothing to decode, and says nothing when it cannot. */
  async estimate() {
    this.estimating = new AbortController();
    try {
      const { data } = await ask(API.cost, new URLSearchParams(this.parameters(this.view, this.page.span())), this.estimating.signal);
      this.showCost(data);
    } catch (refusal) {
      if (refusal.type === "bad_data") this.showPlace(refusal.message, { isWriting: true });
    }
  }

  showCost(cost) {
    this.note(cost.series === 0 && !cost.refused ? "Reads nothing: no series matches, or the query needs none." : `Reads about ${count(cost.series, "series", "series")} and ${count(cost.samples, "sample")}${cost.steps > 1 ? `, at ${count(cost.steps, "step")}` : ""}.`, cost.refused ? "is-critical tone" : cost.heavy ? "is-warning tone" : "");
  }

  /** "1:7: parse error: …" is marked at its place. Returns whether there was one. */
  showPlace(message, { isWriting = false } = {}) {
    const found = /(\d+):(\d+): parse error: (.*)$/s.exec(message);
    if (!found) { this.note(message, "is-critical tone"); return false; }
    const [line, column] = [Number(found[1]), Number(found[2])];
    const offset = offsetOf(this.editor.text, line, column);
    // What ends too early is not wrong as long as somebody is writing it.
    if (isWriting && offset >= this.editor.text.trimEnd().length) return false;
    this.editor.fail(offset);
    const where = this.editor.text.includes("\n") ? `line ${line}, column ${column}` : `column ${column}`;
    this.note([icon("critical", "icon-small"), h("span", {}, h("button", { type: "button", class: "place", on: { click: () => this.editor.mark(offset, this.editor.wordEnd(offset)) } }, `At ${where}`), `: ${found[3]}`)], "is-critical tone");
    return true;
  }

  submit() {
    this.page.save();
    return this.run();
  }

  async run({ isConfirmed = false } = {}) {
    clearTimeout(this.waiting);
    this.estimating?.abort();
    this.controller?.abort();
    if (!this.text) { this.controller = null; this.forget(); return; }
    const controller = (this.controller = new AbortController());
    const span = this.page.span();
    const { view } = this;
    const text = this.editor.text;
    this.running(true);
    const began = performance.now();
    try {
      if (!isConfirmed && !(await this.mayRun(view, span, controller.signal))) return;
      const query = new URLSearchParams(this.parameters(view, span));
      const body = await ask(API[view === "explain" ? "explain" : view === "table" ? "instant" : "range"], query, controller.signal);
      if (controller !== this.controller) return;
      this.answer = { ...body, view: view === "graph" || view === "stacked" ? "range" : view, span, took: (performance.now() - began) / 1000, text };
      this.ran = text.trim();
      this.editor.fail(null);
      this.page.remember(this.ran);
      this.draw();
    } catch (refusal) {
      if (controller === this.controller) this.fail(refusal);
    } finally {
      if (controller === this.controller) { this.controller = null; this.running(false); this.showStale(); }
    }
  }

  /** Ask for the cost; a heavy query waits for a yes, one over the budget is not run. Errors are left to the query itself. */
  async mayRun(view, span, signal) {
    let cost;
    try {
      cost = (await ask(API.cost, new URLSearchParams(this.parameters(view, span)), signal)).data;
    } catch (refusal) {
      if (refusal.type === "canceled" || refusal.type === "bad_data") throw refusal;
      return true;
    }
    this.showCost(cost);
    if (!cost.refused && !cost.heavy) return true;
    this.gate(cost);
    return false;
  }

  gate(cost) {
    const rows = [["Series", cost.series, cost.budget.series], ["Samples", cost.samples, cost.budget.samples], ["Points", cost.points, cost.budget.points]].filter(([, , limit]) => limit);
    const meters = h("dl", { class: "meters" }, rows.map(([name, own, limit]) => h("div", { class: own > limit ? "is-over" : "" },
      h("dt", {}, name), h("dd", {}, h("strong", {}, own.toLocaleString("en-GB")), ` of ${limit.toLocaleString("en-GB")}`, own > limit ? h("span", { class: "badge is-critical" }, "over budget") : null),
      h("meter", { min: 0, max: limit, high: limit * 0.999, value: Math.min(own, limit), "aria-label": `${name}: ${own} of ${limit}` }))));
    const actions = cost.refused ? null : h("div", { class: "actions" },
      h("button", { type: "button", class: "button button-primary", on: { click: () => this.run({ isConfirmed: true }) } }, "Run anyway"),
      h("button", { type: "button", class: "button", on: { click: () => { this.page.say("Not run."); this.answer ? this.draw() : this.forget(); } } }, "Leave it"));
    this.verdict({
      tone: cost.refused ? "critical" : "warning",
      title: cost.refused ? "This query is over your budget and was not run" : "This is a heavy query",
      text: cost.refused || `It may take up to ${count(cost.budget.seconds, "second")} and slows others down meanwhile.`,
      more: [meters, cost.refused ? h("p", { class: "muted" }, "A shorter range, a longer step or more matchers cost less. Budgets are set per role in the admin.") : null, actions],
    });
  }

  running(isRunning) {
    clearTimeout(this.starting);
    clearInterval(this.counting);
    if (isRunning) {
      // Most answers are here before anybody could read that they are on their way.
      this.starting = setTimeout(() => {
        const began = Date.now() - WAIT_TO_SHOW;
        const write = () => { this.part("elapsed").textContent = `Running for ${((Date.now() - began) / 1000).toFixed(1)} s`; };
        this.root.classList.add("is-running");
        this.part("cancel").hidden = false;
        this.part("run").hidden = true;
        write();
        this.counting = setInterval(write, 100);
      }, WAIT_TO_SHOW);
      return;
    }
    const hadFocus = document.activeElement === this.part("cancel");
    this.root.classList.remove("is-running");
    this.part("cancel").hidden = true;
    this.part("run").hidden = false;
    this.part("elapsed").textContent = "";
    if (hadFocus) this.part("run").focus();
  }

  /** One of the parts of the answer is shown, or none. */
  only(name) {
    for (const part of ["graph", "table", "explain", "verdict", "start"]) this.part(part).hidden = part !== name;
  }

  /** Nothing was asked yet. */
  forget() {
    this.answer = null;
    this.ran = null;
    this.part("messages").replaceChildren();
    this.status("");
    this.part("csv").hidden = true;
    this.part("spread-box").hidden = true;
    this.running(false);
    this.showStale();
    this.only(this.page.queries.length === 1 ? "start" : null);
    if (this.page.queries.length === 1) this.offer();
  }

  async offer() {
    const known = await catalog.names();
    const names = new Set(known ?? []);
    const fitting = EXAMPLES.filter(([name]) => names.has(name));
    find("ul", this.part("start")).replaceChildren(...fitting.map(([, text, about]) => h("li", {},
      h("button", { type: "button", class: "example", on: { click: () => { this.editor.text = text; this.edited(); this.submit(); } } }, h("code", {}, text), h("span", {}, about)))));
    find("p", this.part("start")).textContent = !known ? "The names of metrics cannot be had at the moment." : names.size
      ? `There ${names.size === 1 ? "is" : "are"} ${count(names.size, "metric")}. Type a name, or begin with one of these:`
      : "There are no metrics yet: as soon as something is collected or sent, it can be asked for here.";
  }

  status(text) { this.part("status").textContent = text; }

  verdict({ tone, title, text, more = [], action }) {
    this.only("verdict");
    this.part("verdict").className = `explore-verdict is-${tone}`;
    this.part("verdict").replaceChildren(icon(tone === "quiet" ? "info" : tone), h("div", {}, h("strong", {}, title), text ? h("p", {}, text) : null, ...more.filter(Boolean),
      action ? h("div", { class: "actions" }, h("button", { type: "button", class: "button button-small", on: { click: action[1] } }, action[0])) : null));
    this.page.say(`${title}. ${text || ""}`);
  }

  fail(refusal) {
    const [title, hint] = REFUSALS[refusal.type] ?? REFUSALS.internal;
    this.part("messages").replaceChildren();
    this.part("csv").hidden = true;
    this.status("");
    this.answer = null;
    this.ran = null;
    const isPlaced = refusal.type === "bad_data" && this.showPlace(refusal.message);
    const action = refusal.type === "login" ? ["Log in", () => location.reload()] : RETRY.has(refusal.type) ? ["Run again", () => this.run()] : null;
    const tone = refusal.type === "canceled" ? "quiet" : "critical";
    const words = isPlaced ? "The place is marked above. Nothing was run." : refusal.message;
    this.verdict({ tone, title, text: refusal.type === "canceled" || refusal.type === "network" ? hint : words, more: [hint && tone !== "quiet" && refusal.type !== "network" ? h("p", { class: "muted" }, hint) : null], action });
  }

  draw() {
    const { data, span, took, view } = this.answer;
    this.messages();
    this.part("spread-box").hidden = view !== "explain";
    this.part("csv").hidden = view === "explain" || !isFull(data);
    const at = clock(new Date(span.end * 1000), true);
    if (view === "explain") {
      this.only("explain");
      this.part("explain").replaceChildren(treeOf(data, this.editor.text, (start, end) => this.editor.mark(unitsAt(this.answer.text, start), unitsAt(this.answer.text, end))));
      const evaluating = data.tree.seconds ?? 0;
      this.status(`read in ${milliseconds(data.stats.seconds - evaluating)} · evaluated in ${milliseconds(evaluating)}`);
      return;
    }
    if (!isFull(data)) {
      this.status("");
      const words = view === "range" ? "No series of this query has a value in this range." : `No series of this query has a value at ${at}.`;
      this.verdict({ tone: "quiet", title: "No data", text: words, more: [h("p", { class: "muted" }, "Explain shows at which part of the query the series end.")], action: ["Explain", () => this.choose("explain")] });
      return;
    }
    const size = data.resultType === "vector" || data.resultType === "matrix" ? count(data.result.length, "series", "series") : data.resultType;
    this.status([size, view === "range" ? `step ${duration(span.step)}` : `at ${at}`, milliseconds(took)].join(" · "));
    this.page.say(size);
    if (view === "range") this.drawGraph();
    else this.drawTable();
  }

  drawGraph() {
    const { data, span } = this.answer;
    this.only("graph");
    const { data: drawn, left, unseen, common } = chartOf(data.result, span, this.view === "stacked");
    this.chart.title = this.ran;
    const notes = [left ? `${MOST_LINES} of ${count(data.result.length, "series", "series")}, those with the highest last values` : "", unseen ? `${count(unseen, "value")} not drawn (NaN or infinite)` : ""].filter(Boolean);
    this.chart.note(notes.join("; "), "quiet");
    const names = common.size ? Object.fromEntries([...common].map((name) => [name, data.result[0].metric[name]])) : null;
    const { __name__: name = "", ...rest } = names ?? {};
    const shared = this.part("common");
    shared.hidden = !names;
    shared.replaceChildren(...(names ? ["All have ", h("code", {}, `${name}${Object.keys(rest).length ? `{${Object.entries(rest).map(([k, v]) => `${k}="${v}"`).join(", ")}}` : ""}`)] : []));
    this.chart.draw(drawn, [span.from, Math.max(span.to, span.from + 1)]);
  }

  drawTable() {
    const { data } = this.answer;
    this.only("table");
    const focus = document.activeElement?.closest?.("[data-table-of]") ? document.activeElement.textContent : null;
    const content = data.resultType === "vector" ? vectorTable(data.result, this.order, (order) => { this.order = order; this.drawTable(); })
      : data.resultType === "matrix" ? matrixTable(data.result) : [single(data.result)];
    const box = this.part("table");
    box.replaceChildren(...content);
    box.setAttribute("aria-label", `Result of query ${this.number}`);
    if (focus) all("button.sort", box).find((b) => b.textContent.replace(/ [↑↓]$/, "") === focus.replace(/ [↑↓]$/, ""))?.focus();
  }

  /** Warnings and infos of the answer; those that name a place mark it. */
  messages() {
    const { warnings = [], infos = [] } = this.answer;
    const line = (text, level) => {
      const found = /\((\d+):(\d+)\)\s*$/.exec(text);
      const offset = found ? offsetOf(this.answer.text, Number(found[1]), Number(found[2])) : null;
      const words = (found ? text.slice(0, found.index) : text).replace(/^PromQL (info|warning): /, "");
      return h("div", { class: `banner is-${level}` }, icon(level), h("p", {}, words,
        found ? h("button", { type: "button", class: "place", on: { click: () => this.editor.mark(offset, this.editor.wordEnd(offset)) } }, `at ${found[1]}:${found[2]}`) : null));
    };
    this.part("messages").replaceChildren(...warnings.map((text) => line(text, "warning")), ...infos.map((text) => line(text, "info")));
  }

  restyle() { this.chart.restyle(); }
}

const isFull = (data) => data.resultType === "scalar" || data.resultType === "string" || data.result?.length > 0;

class Page {
  constructor() {
    this.box = find("[data-queries]");
    this.queries = [];
    this.made = 0;
    this.step = find("[data-step]");
    this.stepNote = find("[data-step-note]");
    this.announce = find("[data-announce]");
    find("[data-add]").addEventListener("click", () => { const made = this.add(); made.forget(); made.editor.area.focus(); });
    find("[data-run-all]").addEventListener("click", () => { this.save(); this.runAll(); });
    this.step.addEventListener("change", () => { if (this.checkStep()) { this.save(); this.runAll(); } });
    this.history = new History(person, (text) => this.take(text));
    // Going back brings the queries of that moment; a new range asks the same ones again.
    changes.addEventListener("change", ({ detail }) => {
      if (detail?.isBack) this.read();
      else this.save({ isSameEntry: true });
      this.runAll();
    });
    document.addEventListener("portal:restyle", () => { for (const query of this.queries) query.restyle(); });
    document.addEventListener("portal:reload", () => this.runAll());
    this.read();
    this.runAll();
    if (!this.queries[0].text) this.queries[0].editor.area.focus();
  }

  read() {
    const address = new URLSearchParams(location.search);
    const texts = address.getAll("q").slice(0, MOST_QUERIES);
    const views = address.getAll("show");
    const step = address.get("step") ?? "";
    this.step.value = seconds(step) === null ? "" : step;
    this.checkStep();
    const wanted = texts.length ? texts : [""];
    while (this.queries.length > wanted.length) this.drop(this.queries.at(-1));
    while (this.queries.length < wanted.length) this.add();
    this.queries.forEach((query, i) => query.set({ text: wanted[i], view: views[i] }));
  }

  /** The URL says what is asked for; each new question is an entry of its own in the browser's history. */
  save({ isSameEntry = false } = {}) {
    const address = new URLSearchParams(location.search);
    for (const name of ["q", "show", "step"]) address.delete(name);
    for (const query of this.queries.filter((q) => q.text)) {
      address.append("q", query.text);
      address.append("show", query.shown);
    }
    if (this.step.value.trim() && this.checkStep()) address.set("step", this.step.value.trim());
    const next = `?${address}${location.hash}`;
    if (next === `${location.search || "?"}${location.hash}`) return;
    if (isSameEntry) history.replaceState(null, "", next);
    else history.pushState(null, "", next);
  }

  checkStep() {
    const isGood = !this.step.value.trim() || seconds(this.step.value) !== null;
    this.step.setAttribute("aria-invalid", String(!isGood));
    this.stepNote.hidden = isGood;
    return isGood;
  }

  /** {from, to: what is seen; start, end, step: what is asked for}, seconds. Starts lie on the grid of the step, as those of the panels. */
  span() {
    const [from, to] = bounds();
    const own = seconds(this.step.value);
    const step = own ?? steps.find((s) => (to - from) / s <= points) ?? steps.at(-1);
    this.step.placeholder = `auto (${shortly(steps.find((s) => (to - from) / s <= points) ?? steps.at(-1))})`;
    const start = Math.floor(from / step) * step;
    return { from, to, step, start, end: Math.max(start, Math.floor(to * 1000) / 1000) };
  }

  add() {
    const query = new Query(this, (this.made += 1));
    this.box.append(query.root);
    this.queries.push(query);
    this.count();
    return query;
  }

  drop(query) {
    query.controller?.abort();
    query.root.remove();
    this.queries = this.queries.filter((other) => other !== query);
    this.count();
  }

  remove(query) {
    const at = this.queries.indexOf(query);
    this.drop(query);
    this.save();
    this.queries[Math.max(0, at - 1)].editor.area.focus();
  }

  count() {
    for (const query of this.queries) query.part("remove").hidden = this.queries.length === 1;
    find("[data-add]").disabled = this.queries.length >= MOST_QUERIES;
  }

  /** A query out of the history goes where there is none yet, else into the first. */
  take(text) {
    const query = this.queries.find((q) => !q.text) ?? this.queries[0];
    query.editor.text = text;
    query.edited();
    query.editor.area.focus();
    query.submit();
  }

  runAll() { for (const query of this.queries) query.run(); }

  remember(text) { this.history.add(text); }

  say(text) { this.announce.textContent = text; }
}

const shortly = (s) => (s % 86400 === 0 ? `${s / 86400}d` : s % 3600 === 0 ? `${s / 3600}h` : s % 60 === 0 ? `${s / 60}m` : `${s}s`);

/** The queries that were answered, newest first; each person's own, in this browser. */
class History {
  constructor(person, onTake) {
    this.key = `portal.explore.${person}`;
    this.onTake = onTake;
    this.dialog = find("[data-history]");
    find("[data-open-history]").addEventListener("click", () => { this.draw(); this.dialog.showModal(); });
    find("[data-clear]", this.dialog).addEventListener("click", () => { this.write([]); this.draw(); });
  }

  read() {
    try {
      const found = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      return Array.isArray(found) ? found.filter((text) => typeof text === "string") : [];
    } catch {
      return [];
    }
  }

  write(texts) {
    try {
      if (texts.length) localStorage.setItem(this.key, JSON.stringify(texts));
      else localStorage.removeItem(this.key);
    } catch {
      // Forbidden or full storage: there is no history then.
    }
  }

  add(text) { this.write([text, ...this.read().filter((other) => other !== text)].slice(0, MOST_REMEMBERED)); }

  draw() {
    const texts = this.read();
    find("[data-clear]", this.dialog).hidden = !texts.length;
    find("[data-history-list]", this.dialog).replaceChildren(...(texts.length
      ? [h("ul", {}, texts.map((text) => h("li", {}, h("button", { type: "button", class: "example", on: { click: () => { this.dialog.close(); this.onTake(text); } } }, h("code", {}, text)))))]
      : [h("p", { class: "muted" }, "Queries that were answered are kept here, in this browser only.")]));
  }
}

new Page();

// The logs of the time that is looked at.
find("[data-logs-link]").addEventListener("click", (event) => {
  event.currentTarget.search = new URLSearchParams(stretch());
});
