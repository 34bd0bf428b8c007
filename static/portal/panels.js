// Loads the panels and tiles of a page in one request, then only what is new, and only for what is on the screen.
import { Chart, forgetColours } from "./chart.js";
import { all, download, find, h, icon } from "./dom.js";
import { duration, measure, moment, quantity } from "./format.js";
import { bounds, changes, chosen, every, isLive, stretch } from "./range.js";

const STALE_AFTER = 120;
// Milliseconds of drawing after which the page takes what people do.
const SLICE = 16;

/** Whole series of one panel, grown by increments: {times, series: [{name, values}]} on a grid of `step` seconds. */
export function grown(old, fresh, from) {
  const start = Math.min(old.start, fresh.start);
  const end = Math.max(old.start + old.step * (old.count - 1), fresh.start + fresh.step * (fresh.count - 1));
  const keepFrom = Math.max(start, Math.ceil((from - old.step) / old.step) * old.step);
  const count = Math.max(0, Math.round((end - keepFrom) / old.step) + 1);
  const joined = (mine, theirs) => [...new Set([...mine, ...theirs].map((s) => s.name))].map((name) => {
    const values = new Array(count).fill(null);
    for (const [part, rows, wins] of [[old, mine, false], [fresh, theirs, true]]) {
      const found = rows.find((s) => s.name === name);
      for (let i = 0; i < part.count; i += 1) {
        const at = Math.round((part.start + i * part.step - keepFrom) / old.step);
        if (at < 0 || at >= count) continue;
        if (wins || (found && found.values[i] !== null)) values[at] = found ? found.values[i] : null;
      }
    }
    return { name, values };
  }).filter((s) => s.values.some((v) => v !== null));
  const parts = ["before", "lower", "upper"].filter((part) => fresh[part]);
  return { ...old, ...fresh, start: keepFrom, count, series: joined(old.series, fresh.series), ...Object.fromEntries(parts.map((part) => [part, joined(old[part] ?? [], fresh[part])])) };
}

const times = (data) => Array.from({ length: data.count }, (_, i) => data.start + i * data.step);

/** Works through the parts without keeping the page from answering: a frame is let through where it takes long. */
async function inSlices(parts, work) {
  let begun = performance.now();
  for (const part of parts) {
    if (performance.now() - begun > SLICE) {
      // A page in the background gets no frames, and nobody waits for it.
      if (!document.hidden) await new Promise((go) => { requestAnimationFrame(() => setTimeout(go)); });
      begun = performance.now();
    }
    work(part);
    await null; // uPlot draws in a microtask: it is of this slice
  }
}

const COMPARE = { ">": (a, b) => a > b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, "<=": (a, b) => a <= b };

/** The worst limit that a value breaks (levels come mildest first); undefined where it breaks none, or there is none. */
export const brokenOf = (levels, value) => levels.findLast((level) => value !== null && COMPARE[level.comparison]?.(value, level.value));

class Tile {
  constructor(root) { this.root = root; this.key = root.dataset.tile; }

  draw(data) {
    const series = data.series[0];
    const seen = series ? series.values.filter((v) => v !== null) : [];
    const last = seen.at(-1) ?? null;
    const [text, unit] = measure(last, data.unit);
    find("[data-value]", this.root).replaceChildren(text, unit ? h("small", {}, unit) : "");
    const broken = brokenOf(data.levels, last);
    const tone = broken?.severity || (last === null ? "quiet" : "ok");
    this.root.className = `card tile is-${tone}`;
    find(".tile-title .icon", this.root)?.remove();
    if (broken) find(".tile-title", this.root).append(icon(tone));
    const first = data.levels[0];
    find("[data-note]", this.root).textContent = last === null ? "no data yet" : broken ? `${tone} ${broken.comparison} ${quantity(broken.value, data.unit)}` : first ? `limit ${quantity(first.value, data.unit)}` : `peak ${quantity(Math.max(...seen), data.unit)}`;
    this.spark(series, data);
  }

  spark(series, data) {
    const line = find("path.line", this.root);
    const area = find("path.area", this.root);
    const seen = series ? series.values.filter((v) => v !== null) : [];
    if (seen.length < 2) { line.setAttribute("d", ""); area.setAttribute("d", ""); return; }
    const low = Math.min(...seen, data.max === null ? Infinity : 0);
    const high = Math.max(...seen, low + (data.max ? data.max * 0.1 : Math.abs(low) * 0.05 + 1e-9));
    const [from, to] = bounds();
    let path = "";
    let isOpen = false;
    let begin = 0;
    let filled = "";
    series.values.forEach((v, i) => {
      const x = (100 * (data.start + i * data.step - from)) / (to - from);
      if (v === null) { if (isOpen) filled += `L${(x - 1).toFixed(1)},34L${begin},34Z`; isOpen = false; return; }
      const point = `${x.toFixed(1)},${(31 - (27 * (v - low)) / (high - low)).toFixed(1)}`;
      if (!isOpen) begin = x.toFixed(1);
      path += `${isOpen ? "L" : "M"}${point}`;
      filled += `${isOpen ? "L" : "M"}${point}`;
      isOpen = true;
      if (i === series.values.length - 1) filled += `L${x.toFixed(1)},34L${begin},34Z`;
    });
    line.setAttribute("d", path);
    area.setAttribute("d", filled.endsWith("Z") ? filled : "");
  }

  fail() { find("[data-note]", this.root).textContent = "could not be loaded"; }
  restyle() {}
}

/** What to say of data that should go on and does not; "" where it does, or where the range lies in the past. */
export function stale(data) {
  const isOld = chosen().range !== null && data.newest !== null && Date.now() / 1000 - data.newest > Math.max(STALE_AFTER, 3 * data.step);
  return isOld ? `no new data since ${moment(data.newest * 1000)}` : "";
}

/** The menu of a panel: its expressions to look closer at, its numbers and (where it draws one) its picture to take away. */
export function startMenu(part) {
  const menu = find("[data-menu]", part.root);
  // The addresses say what is on the screen now.
  menu?.addEventListener("toggle", () => {
    if (!menu.open) return;
    find("[data-csv]", menu).href = part.board.query([part.key], { format: "csv" });
    const link = find("[data-explore]", menu);
    const expressions = part.data?.expressions ?? [];
    link.parentElement.hidden = !part.board.explore || !expressions.length;
    const address = new URLSearchParams(stretch());
    const logs = find("[data-logs]", menu);
    if (logs) { logs.parentElement.hidden = !part.board.logs; logs.href = `${part.board.logs}?${address}`; }
    for (const text of expressions) { address.append("q", text); address.append("show", part.explored ?? (part.data.stacked ? "stacked" : "graph")); }
    link.href = `${part.board.explore}?${address}`;
  });
  find("[data-png]", part.root)?.addEventListener("click", () => {
    menu.open = false;
    part.picture()?.toBlob((blob) => download(`${part.key}.png`, blob));
  });
}

/** The same menu for a panel that the page's script lays out; those in _panel.html are drawn by the server. */
export const menuOf = (title, isDrawn) => h("details", { class: "menu", "data-menu": "" },
  h("summary", { class: "button button-small button-plain", title: "More" }, icon("more"), h("span", { class: "visually-hidden" }, `More about ${title}`)),
  h("ul", {}, h("li", {}, h("a", { "data-explore": "", href: "#" }, icon("explore"), "Open in Explore")),
    h("li", {}, h("a", { "data-logs": "", href: "#" }, icon("logs"), "Logs of this time")),
    h("li", {}, h("a", { "data-csv": "", download: true, href: "#" }, icon("download"), "Download as CSV")),
    isDrawn ? h("li", {}, h("button", { type: "button", "data-png": "" }, icon("download"), "Download as PNG")) : null));

export class PanelCard {
  constructor(root) {
    this.root = root;
    this.key = root.dataset.panel;
    this.chart = new Chart(root, find("h2", root).firstChild.textContent.trim());
    startMenu(this);
  }

  picture() { return this.chart.picture(); }

  draw(data) {
    if (data.error) { this.fail(data.error); return; }
    if (!data.series.length) {
      this.chart.note("");
      this.chart.setState({ title: "No data in this range", text: data.empty || "Nothing was measured in this time." });
      return;
    }
    const old = stale(data);
    this.chart.note(old || (data.more ? `${data.series.length} of ${data.series.length + data.more} series` : ""), old ? "warning" : "quiet");
    if (data.condensed && !old && !data.more) this.chart.note("peaks kept", "quiet", `A point stands for ${duration(data.step)}: the sample that lies farthest from their average.`);
    if (data.warnings?.length) this.chart.note("some data is missing", "warning", data.warnings.join(" "));
    this.chart.draw({ ...data, times: times(data) }, bounds());
  }

  fail(text) {
    this.chart.note("");
    this.chart.setState({ title: "This could not be loaded", text, action: ["Try again", () => this.board.load([this])] });
  }

  restyle() { this.chart.restyle(); }
}

const AT_ONCE = 20;

/** What is no series (a table, a heat map) cannot grow, nor can the largest of many series: new steps may name others. */
const comesWhole = (part) => part.isWhole || part.data?.more > 0;

// Steps that are asked for once more with the next ones: late samples still change them.
const BACK = 2;

/** From when on (ms) a panel that has this data wants the next steps. */
const sinceOf = ({ start, step, count }) => Math.round(1000 * (start + step * Math.max(0, count - 1 - BACK)));

export class Board {
  /**
   * `explore`, `logs`: the addresses of these pages, for those who may look there. `kinds`: what draws a panel of
   * data-kind; `more`: pairs that every request carries beside `fixed`.
   */
  constructor(url, fixed = {}, { explore = null, logs = null, kinds = {}, more = () => [] } = {}) {
    this.url = url;
    this.explore = explore;
    this.logs = logs;
    this.fixed = fixed;
    this.kinds = kinds;
    this.more = more;
    this.parts = [];
    this.wishes = 0;
    this.tables = all("[data-table]");
    this.seen = new Set();
    this.due = new Set();
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const part = this.parts.find((p) => p.root === entry.target);
        if (!part) continue;
        if (!entry.isIntersecting) { this.seen.delete(part); continue; }
        this.seen.add(part);
        if (!part.data) this.soon([part]);
        else if (part.isBehind && !this.isFollowing()) this.grow([part]);
      }
      this.refollow();
    }, { rootMargin: "240px" });
    for (const root of all("[data-panel]")) this.adopt(root);
    for (const root of all("[data-tile]")) this.take(new Tile(root));
    changes.addEventListener("change", () => this.reload());
    setInterval(() => this.tick(), 1000);
    this.polled = Date.now();
    this.loadTables();
  }

  adopt(root) {
    const kind = this.kinds[root.dataset.kind];
    if (kind !== null) this.take(new (kind ?? PanelCard)(root));
  }

  take(part) {
    part.board = this;
    this.parts.push(part);
    this.observer.observe(part.root);
  }

  drop(part) {
    this.observer.unobserve(part.root);
    this.seen.delete(part);
    this.due.delete(part);
    this.refollow();
    this.parts = this.parts.filter((each) => each !== part);
  }

  /** Gathers what becomes visible in the same moment into one request. */
  soon(parts) {
    for (const part of parts) this.due.add(part);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { const due = [...this.due]; this.due.clear(); this.load(due); }, 15);
  }

  /** Follow what is on the screen by a connection: the server pushes its new steps, on a fresh one all that was missed. */
  follow(live, place) {
    this.live = live;
    this.place = place;
    live.wanted = () => this.wanted();
    live.addEventListener("down", () => { for (const part of this.parts) part.isBehind = true; });
  }

  isFollowing() { return Boolean(this.live?.isUp) && isLive() && !this.drafted; }

  refollow() {
    clearTimeout(this.changing);
    this.changing = setTimeout(() => this.live?.follow(), 60);
  }

  /** What is followed: the panels on the screen, each from the steps on that may still change. */
  wanted() {
    const parts = isLive() && !this.drafted ? [...this.seen].filter((part) => part.data) : [];
    const from = (part) => (comesWhole(part) ? null : sinceOf(part.data));
    this.wishes += 1;
    return { number: this.wishes, place: this.place, query: this.query([]).split("?")[1], panels: Object.fromEntries(parts.map((part) => [part.key, from(part)])) };
  }

  /** New steps of panels that are followed; those of an earlier wish do not fit any more. */
  pushed({ of, panels = {}, changes: changed }) {
    if (of !== this.wishes) return;
    inSlices(this.parts.filter((each) => each.data), (part) => {
      if (!part.data || of !== this.wishes) return;
      if (changed) part.data.changes = changed;
      if (panels[part.key]) this.merge(part, panels[part.key]);
      else if (changed && this.seen.has(part)) part.draw(part.data);
    });
  }

  merge(part, fresh) {
    const isWhole = comesWhole(part);
    if (fresh.error) { if (isWhole) part.fail(fresh.error); return; }
    if (!isWhole && fresh.step !== part.data.step) { this.load([part]); return; }
    const { changes: known, newest } = part.data;
    part.data = isWhole ? fresh : grown(part.data, fresh, bounds()[0]);
    part.data.changes = known;
    if (!isWhole) part.data.newest = Math.max(newest ?? 0, fresh.newest ?? 0) || null;
    part.at = Date.now();
    part.isBehind = false;
    part.draw(part.data);
  }

  reload() {
    this.stop?.abort();
    this.stop = new AbortController();
    for (const part of this.parts) part.data = null;
    this.wishes += 1;
    this.load([...this.seen]);
    this.loadTables();
  }

  query(keys, extra = {}) {
    const { compare } = chosen();
    const query = new URLSearchParams({ ...stretch(), ...(compare ? { compare } : {}), ...this.fixed, ...extra });
    for (const [name, value] of this.more()) query.append(name, value);
    for (const key of keys) query.append("panel", key);
    return `${this.url}?${query}`;
  }

  async load(parts) {
    if (!parts.length) return;
    if (parts.length > AT_ONCE) { this.load(parts.slice(AT_ONCE)); parts = parts.slice(0, AT_ONCE); }
    const signal = (this.stop ??= new AbortController()).signal;
    try {
      const answer = this.drafted ? await this.drafted(parts) : await ask(this.query(parts.map((p) => p.key)), signal);
      await inSlices(parts, (part) => {
        const data = answer.panels[part.key];
        if (!data || signal.aborted) return;
        data.changes = answer.changes ?? [];
        part.data = data.error ? null : data;
        part.at = Date.now();
        part.isBehind = false;
        if (data.error && part.fail) part.fail(data.error);
        else part.draw(data);
      });
      this.refollow();
    } catch (error) {
      if (error.name !== "AbortError") for (const part of parts) part.fail(error.message);
    }
  }

  /** Fetch the new points of these parts; those off screen catch up when they come into view. */
  async grow(parts) {
    const visible = parts.filter((p) => p.data && this.seen.has(p));
    for (const part of parts) if (!this.seen.has(part)) part.isBehind = true;
    const ripe = visible.filter((p) => Date.now() - p.at >= 1000 * Math.min(p.data.step ?? 15, 60) * 0.5);
    const isWhole = (part) => comesWhole(part) || this.drafted;
    this.load(ripe.filter(isWhole));
    const due = ripe.filter((p) => !isWhole(p));
    if (!due.length || this.isGrowing) { this.again ||= due.length > 0; return; }
    this.isGrowing = true;
    const signal = (this.stop ??= new AbortController()).signal;
    const since = Math.min(...due.map((p) => sinceOf(p.data)));
    try {
      const answer = await ask(this.query(due.map((p) => p.key), { since }), signal);
      for (const part of due) {
        const fresh = answer.panels[part.key];
        if (!fresh || fresh.error || !part.data) continue;
        part.data.changes = answer.changes ?? [];
        this.merge(part, fresh);
      }
    } catch (error) {
      if (error.name !== "AbortError") for (const part of due) part.isBehind = true;
    } finally {
      this.isGrowing = false;
      if (this.again) { this.again = false; setTimeout(() => this.grow(this.parts), 250); }
    }
  }

  /** What panels of this kind list has changed: those on the screen are asked for again as a whole. */
  renew(kind) { this.load(this.parts.filter((p) => p.root.dataset.kind === kind && p.data && this.seen.has(p))); }

  tick() {
    const seconds = every();
    if (seconds === null || document.hidden) return;
    // Without a live connection the page polls; with one the numbers come by themselves, and only the window slides.
    const isFollowing = this.isFollowing();
    const wait = seconds || (isFollowing ? 60 : 15);
    if (Date.now() - this.polled < wait * 1000) return;
    this.polled = Date.now();
    if (isFollowing) for (const part of this.seen) { if (part.data && !part.isWhole) part.draw(part.data); }
    else this.grow(this.parts);
    this.loadTables();
  }

  restyle() {
    forgetColours();
    // The page around them changes first; charts on the screen follow, then the others.
    const parts = [...this.seen, ...this.parts.filter((part) => !this.seen.has(part))];
    const mine = this.restyling = {};
    requestAnimationFrame(() => setTimeout(() => inSlices(parts, (part) => { if (this.restyling === mine) part.restyle(); })));
  }

  async loadTables() {
    for (const root of this.tables) {
      const body = find("[data-table-body]", root);
      try {
        const answer = await ask(this.query([], { table: root.dataset.table }), this.stop?.signal);
        body.replaceChildren(answer.rows.length ? tableOf(answer, "rows-on-phone") : h("p", { class: "card-note" }, "No requests in this range."));
      } catch (error) {
        if (error.name !== "AbortError") body.replaceChildren(h("p", { class: "card-note" }, `This could not be loaded: ${error.message}`));
      }
    }
  }
}

/** `kind` "rows-on-phone": each row is a block of its own there. */
export function tableOf({ columns, rows }, kind = "") {
  return h("table", { class: kind },
    h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.unit ? "numeric" : "", title: c.title }, h("bdi", {}, c.title))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((value, i) => (columns[i].unit ? h("td", { class: "numeric", "data-label": columns[i].title }, quantity(value, columns[i].unit)) : h("td", { class: "mono", title: value }, h("bdi", {}, value))))))));
}

export async function ask(url, signal) {
  let answer;
  try {
    answer = await fetch(url, { signal, headers: { accept: "application/json" }, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The portal does not answer.");
  }
  if (answer.status === 401) { location.reload(); throw new Error("You are logged out."); }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `The portal answered ${answer.status}.`);
  return body;
}
