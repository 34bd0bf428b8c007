// The query editor: a text area over its own coloured copy, with suggestions. Text enters the page as text nodes only.
import { find, h } from "./dom.js";
import { KEYWORDS, isPlain, isPlainMetric, place, quoted, tokens } from "./explore-language.js";

const MOST = 60;
const DURATIONS = ["1m", "5m", "15m", "30m", "1h", "6h", "1d", "7d"];
const ICONS = { function: "f", aggregation: "Σ", metric: "m", label: "l", value: "v", keyword: "k", duration: "t" };

export class Editor {
  /** `id` is unique on the page; onChange(text) after each edit, onRun() at Ctrl-Enter. */
  constructor(root, { id, label, catalog, onChange, onRun }) {
    Object.assign(this, { root, id, catalog, onChange, onRun });
    this.area = find("textarea", root);
    this.ink = find("[data-ink]", root);
    this.list = find("[role=listbox]", root);
    this.box = find("[data-suggest]", root);
    this.help = find("[data-suggest-help]", root);
    this.count = find("[data-suggest-count]", root);
    this.list.id = `${id}-list`;
    // A text area keeps its role: a combobox has one line. The list is announced through these attributes.
    this.area.setAttribute("aria-label", label);
    this.area.setAttribute("aria-controls", this.list.id);
    this.found = [];
    this.active = -1;
    this.asked = 0;
    this.aggregations = new Set();
    catalog.functions().then((all) => {
      this.functions = all;
      this.aggregations = new Set(all.filter((f) => f.kind === "aggregation").map((f) => f.name));
      this.paint();
    });
    this.area.addEventListener("input", (event) => { this.edited(); if (!event.isComposing) this.suggest(false); });
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("blur", () => this.close());
    this.area.addEventListener("click", () => this.close());
    this.list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option) this.accept(Number(option.dataset.at));
    });
  }

  get text() { return this.area.value; }

  set text(text) { this.area.value = text; this.error = this.marked = null; this.close(); this.paint(); }

  edited() {
    this.error = this.marked = null;
    this.area.removeAttribute("aria-invalid");
    this.paint();
    this.onChange(this.text);
  }

  /** Show where the text is wrong; null takes the mark away. */
  fail(offset) {
    this.error = offset;
    if (offset === null) this.area.removeAttribute("aria-invalid");
    else this.area.setAttribute("aria-invalid", "true");
    this.paint();
  }

  /** Mark a stretch of the text, and select it for the keyboard. */
  mark(start, end) {
    this.marked = [start, end];
    this.paint();
    this.area.focus();
    this.area.setSelectionRange(start, end);
    find(".is-marked, .is-wrong", this.ink)?.scrollIntoView({ block: "nearest" });
  }

  paint() {
    const text = this.text;
    const wrong = this.error === null || this.error === undefined ? null : [this.error, this.wordEnd(this.error)];
    const ranges = [[this.marked, "is-marked"], [wrong, "is-wrong"]].filter(([range]) => range);
    const cuts = ranges.flatMap(([range]) => range);
    const parts = tokens(text, this.aggregations).flatMap((token) => {
      const edges = [token.start, ...cuts.filter((c) => c > token.start && c < token.end).sort((a, b) => a - b), token.end];
      return edges.slice(1).map((end, i) => {
        const start = edges[i];
        const names = ranges.filter(([[from, to]]) => start >= from && end <= to && start < to).map(([, name]) => name);
        const piece = text.slice(start, end);
        if (token.kind === "space" && !names.length) return piece;
        return h("span", { class: [`ink-${token.kind}`, ...names].join(" ") }, piece);
      });
    });
    if (wrong && wrong[0] >= text.length) parts.push(h("span", { class: "is-wrong" }, "\u00a0"));
    this.ink.replaceChildren(...parts, "\u200b");
  }

  /** An error has a place, not an end: what is written there is marked up to the end of its token. */
  wordEnd(offset) {
    const token = tokens(this.text, this.aggregations).find((t) => t.start <= offset && offset < t.end);
    return token ? token.end : offset + 1;
  }

  key(event) {
    const isOpen = !this.box.hidden;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.close();
      this.onRun();
    } else if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      this.suggest(true);
    } else if (isOpen && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      this.choose((this.active + (event.key === "ArrowDown" ? 1 : -1) + this.found.length) % this.found.length);
    } else if (isOpen && (event.key === "PageDown" || event.key === "PageUp")) {
      event.preventDefault();
      this.choose(Math.max(0, Math.min(this.found.length - 1, this.active + (event.key === "PageDown" ? 8 : -8))));
    } else if (isOpen && !event.shiftKey && (event.key === "Enter" || event.key === "Tab")) {
      event.preventDefault();
      this.accept(this.active);
    } else if (isOpen && event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      this.close();
    } else if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) this.close();
  }

  async suggest(isAsked) {
    const number = (this.asked += 1);
    const at = place(this.text, this.area.selectionStart, this.aggregations);
    // Unasked only where something has begun: a word, or the braces and quotes that wait for one.
    if (!at || (!isAsked && !at.prefix && at.kind === "expression")) { this.close(); return; }
    const found = await this.candidates(at);
    if (number !== this.asked || document.activeElement !== this.area) return;
    this.show(at, found);
  }

  async candidates(at) {
    const { prefix } = at;
    if (at.kind === "label") return best(prefix, (await this.catalog.labels(at.selector ? [at.selector] : [])).filter((n) => n !== "__name__").map((name) => ({ kind: "label", name })));
    if (at.kind === "grouping") {
      const selectors = at.metrics.slice(0, 5).map((m) => (isPlainMetric(m) ? m : `{"${quoted(m)}"}`));
      return best(prefix, (await this.catalog.labels(selectors)).filter((n) => n !== "__name__").map((name) => ({ kind: "label", name })));
    }
    if (at.kind === "value") return best(prefix, (await this.catalog.values(at.label, at.selector)).map((name) => ({ kind: "value", name })));
    if (at.kind === "duration") return best(prefix, DURATIONS.map((name) => ({ kind: "duration", name })));
    const [functions, metrics] = await Promise.all([this.catalog.functions(), this.catalog.metrics(prefix)]);
    return best(prefix, [
      ...functions.map((f) => ({ kind: f.kind, name: f.name, signature: f.signature, help: f.help, note: f.extension ? "of this portal, not of Prometheus" : f.experimental ? "experimental" : "" })),
      ...metrics.map((name) => ({ kind: "metric", name })),
      ...KEYWORDS.map((name) => ({ kind: "keyword", name })),
    ]);
  }

  show(at, found) {
    if (!found.length || (found.length === 1 && found[0].name === at.prefix)) { this.close(); return; }
    this.at = at;
    this.found = found;
    const isMixed = found.some((item) => item.kind !== found[0].kind);
    this.list.replaceChildren(...found.map((item, i) => h("li", { role: "option", id: `${this.id}-o${i}`, "data-at": i, class: `suggestion is-${item.kind}`, "aria-selected": "false" },
      h("span", { class: "suggestion-kind", "aria-hidden": "true" }, ICONS[item.kind] ?? "·"), h("span", { class: "suggestion-name" }, ...emphasised(item)),
      isMixed ? h("span", { class: "suggestion-note" }, item.kind) : null)));
    this.count.textContent = `${found.length === MOST ? `${MOST} or more` : found.length} suggestion${found.length === 1 ? "" : "s"}`;
    this.box.hidden = false;
    this.area.setAttribute("aria-haspopup", "listbox");
    this.stand();
    this.choose(0);
  }

  /** Below the word that is being completed; on a narrow page at the left edge. */
  stand() {
    const walker = document.createTreeWalker(this.ink, NodeFilter.SHOW_TEXT);
    let left = this.at.from;
    const range = document.createRange();
    while (walker.nextNode()) {
      const size = walker.currentNode.data.length;
      if (left < size || (left === size && !walker.currentNode.nextSibling && !walker.currentNode.parentNode.nextSibling)) {
        range.setStart(walker.currentNode, Math.min(left, size));
        break;
      }
      left -= size;
    }
    const spot = range.getBoundingClientRect();
    const frame = this.root.getBoundingClientRect();
    const room = frame.width - this.box.offsetWidth;
    this.box.style.left = `${Math.max(0, Math.min(room, spot.left - frame.left - 12))}px`;
    const isLastLine = frame.bottom - spot.bottom < 20;
    this.box.style.top = `${isLastLine ? frame.height + 4 : spot.bottom - frame.top + 3}px`;
  }

  choose(index) {
    this.list.children[this.active]?.setAttribute("aria-selected", "false");
    this.active = index;
    const option = this.list.children[index];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.area.setAttribute("aria-activedescendant", option.id);
    this.explain(this.found[index]);
  }

  async explain(item) {
    let lines = item.signature ? [h("code", {}, item.signature), item.help ? h("p", {}, item.help) : null, item.note ? h("p", { class: "muted" }, item.note) : null] : [];
    if (item.kind === "metric") {
      const known = (await this.catalog.metadata())[item.name]?.[0];
      if (this.found[this.active] !== item) return;
      const kind = [known?.type && known.type !== "unknown" ? known.type : "", known?.unit].filter(Boolean).join(", ");
      lines = known && (kind || known.help) ? [kind ? h("code", {}, kind) : null, known.help ? h("p", {}, known.help) : null] : [];
    }
    lines = lines.filter(Boolean);
    this.help.hidden = !lines.length;
    this.help.replaceChildren(...lines);
  }

  close() {
    this.asked += 1;
    if (this.box.hidden) return;
    this.box.hidden = true;
    this.count.textContent = "";
    this.active = -1;
    this.area.removeAttribute("aria-activedescendant");
    this.list.replaceChildren();
  }

  accept(index) {
    const item = this.found[index];
    const { at } = this;
    if (!item || !at) return;
    this.close();
    this.insert(at, item);
    if (item.kind === "label" && at.kind === "label") this.suggest(true);
  }

  insert(at, item) {
    const rest = this.text.slice(at.to);
    const { name } = item;
    let text = name;
    if (item.kind === "function" || item.kind === "aggregation") text = /^\s*\(/.test(rest) || (item.kind === "aggregation" && /^\s*(by|without)\b/.test(rest)) ? name : `${name}(`;
    else if (item.kind === "metric" && !isPlainMetric(name)) text = `{"${quoted(name)}"}`;
    else if (item.kind === "label") {
      const written = isPlain(name) ? name : `"${quoted(name)}"`;
      text = at.kind === "grouping" || /^\s*[=!]/.test(rest) ? written : `${written}="`;
    } else if (item.kind === "value") {
      text = quoted(name, at.quote);
      if (!at.isQuoted) text = `"${text}"`;
      else if (!at.isClosed) text += at.quote;
    } else if (item.kind === "keyword") text = ["by", "without", "on", "ignoring"].includes(name) ? `${name} (` : `${name} `;
    this.area.focus();
    this.area.setSelectionRange(at.from, at.to);
    // The old command is the only one that leaves the edit in the browser's undo history.
    if (!document.execCommand("insertText", false, text)) { this.area.setRangeText(text, at.from, at.to, "end"); this.edited(); }
    this.close();
    // A value stands before its closing quote: go on behind it.
    if (item.kind === "value" && at.isClosed) this.area.setSelectionRange(at.from + text.length + 1, at.from + text.length + 1);
    if (item.kind === "keyword") this.suggest(false);
  }
}

function emphasised({ name, hit }) {
  if (!hit) return [name];
  return [name.slice(0, hit[0]), h("b", {}, name.slice(hit[0], hit[1])), name.slice(hit[1])].filter((part) => part !== "");
}

/** The names that hold what is typed: those that begin with it first, then at the beginning of a word, then anywhere. */
export function best(prefix, items) {
  const wanted = prefix.toLowerCase();
  const scored = items.flatMap((item) => {
    const at = item.name.toLowerCase().indexOf(wanted);
    if (at < 0) return [];
    const score = at === 0 ? 0 : /[_:.\-/]/.test(item.name[at - 1]) ? 1 : 2;
    return [{ ...item, score, hit: wanted ? [at, at + wanted.length] : null }];
  });
  const isLong = wanted.length > 0;
  scored.sort((a, b) => a.score - b.score || (isLong ? rank(a) - rank(b) || a.name.length - b.name.length : 0) || (a.name < b.name ? -1 : 1));
  return scored.slice(0, MOST);
}

const rank = (item) => (item.kind === "keyword" ? 1 : 0);
