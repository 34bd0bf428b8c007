// Edits a person's dashboard: panels are moved and resized by mouse and by keyboard, their queries tried as they are typed.
import { KINDS, card, COLUMNS, place, settled } from "./dashboard.js";
import { all, find, h, icon } from "./dom.js";

const PAUSE = 400;
const TALLEST = 60;
const SEVERITIES = ["info", "warning", "error", "critical"];
const COMPARISONS = [">", ">=", "<", "<="];
const SIZES = { stat: [6, 5], gauge: [6, 6], text: [8, 5], row: [24, 1], alertlist: [12, 8] };
const MEASURING = ["timeseries", "stat", "gauge", "table", "heatmap"];
const ROW = 38;

const button = (text, sign, handler, more = {}) => h("button", { type: "button", class: "button button-small", on: { click: handler }, ...more }, sign ? icon(sign) : null, text);
const field = (label, input, note = null) => { const id = `f-${Math.random().toString(36).slice(2)}`; input.id = id; return h("div", { class: "field" }, h("label", { for: id }, label), input, note ? h("small", { class: "muted" }, note) : null); };
const choose = (values, chosen) => h("select", {}, values.map(([value, words]) => h("option", { value, selected: value === chosen }, words)));
const same = (values) => values.map((value) => [value, value]);
const announce = (text) => { find("[data-announce]").textContent = text; };
const words = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

async function post(url, body) {
  let answer;
  try {
    answer = await fetch(url, { method: "POST", credentials: "same-origin", body: JSON.stringify(body), headers: { accept: "application/json", "content-type": "application/json", "x-csrftoken": find("[name=csrfmiddlewaretoken]").value } });
  } catch { throw new Error("The portal does not answer."); }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `The portal answered ${answer.status}.`);
  return found;
}

/** A dialog with a form: `apply` is awaited, what it throws is shown, and the dialog stays. */
function ask(title, fields, apply, { wide = false, action = "Apply" } = {}) {
  const complaint = h("p", { class: "field-error", role: "alert", hidden: true });
  const dialog = h("dialog", { class: wide ? "wide-dialog" : "", "aria-label": title },
    h("h2", {}, title),
    h("form", { class: "stack", method: "dialog", on: { submit: async (event) => {
      event.preventDefault();
      try { await apply(); dialog.close(); } catch (error) { complaint.textContent = error.message; complaint.hidden = false; }
    } } }, ...fields, complaint, h("div", { class: "actions" }, h("button", { class: "button button-primary", type: "submit" }, action), h("button", { class: "button", type: "button", on: { click: () => dialog.close() } }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

class Editor {
  constructor(dashboard, board) {
    this.dashboard = dashboard;
    this.board = board;
    this.root = find("[data-board]");
    this.about = { title: dashboard.title, description: dashboard.description, folder: dashboard.folder };
    this.variables = structuredClone(dashboard.document.variables);
    this.panels = settled(dashboard.document.panels);
    this.isChanged = false;
    board.drafted = (parts) => this.answers(parts);
    this.root.toggleAttribute("data-editing", true);
    this.bar();
    for (const panel of this.panels) this.arm(panel);
    addEventListener("beforeunload", (event) => { if (this.isChanged) event.preventDefault(); });
  }

  // --- What surrounds the panels
  bar() {
    const bar = find("[data-board-bar] .actions");
    const kinds = choose([["", "Add a panel…"], ...Object.entries(this.dashboard.links.kinds)], "");
    kinds.setAttribute("aria-label", "Add a panel");
    kinds.addEventListener("change", () => { const kind = kinds.value; kinds.value = ""; if (kind) this.add(kind); });
    bar.replaceChildren(kinds, button("Variables", null, () => this.editVariables()), button("Settings", null, () => this.editAbout()),
      button("Save", "check", () => this.save(), { class: "button button-small button-primary" }),
      button("Cancel", null, () => this.leave()));
  }

  leave(url = location.pathname) {
    this.isChanged = false;
    const query = new URLSearchParams(location.search);
    query.delete("edit");
    location.href = `${url}?${query}`;
  }

  changed() {
    this.isChanged = true;
    find("[data-board-empty]").hidden = this.panels.length > 0;
  }

  // --- Places
  rootOf(id) { return find(`[data-panel="${CSS.escape(id)}"]`, this.root); }

  show(panels) { for (const panel of panels) place(this.rootOf(panel.id), panel); }

  arrange(id, next) {
    const at = { ...next, w: Math.min(COLUMNS, Math.max(1, next.w)), h: Math.min(TALLEST, Math.max(1, next.h)) };
    at.x = Math.min(COLUMNS - at.w, Math.max(0, at.x));
    at.y = Math.max(0, at.y);
    // Above the middle of another panel means: in its place.
    const over = this.panels.find((other) => other.id !== id && other.x < at.x + at.w && at.x < other.x + other.w && other.y < at.y && at.y < other.y + other.h / 2);
    if (over) at.y = over.y;
    return settled(this.panels.map((panel) => (panel.id === id ? at : panel)), id);
  }

  keep(panels, id) {
    this.panels = panels;
    this.show(panels);
    this.changed();
    const now = panels.find((panel) => panel.id === id);
    announce(`Column ${now.x + 1}, row ${now.y + 1}, ${now.w} wide, ${now.h} high`);
  }

  arm(panel) {
    const root = this.rootOf(panel.id);
    const name = panel.title || this.dashboard.links.kinds[panel.kind];
    const move = button("", "move", null, { class: "button button-small button-plain", "data-move": "", "aria-label": `Move ${name}: arrow keys move it, with Shift they resize it`, title: "Drag, or use the arrow keys; with Shift they resize" });
    move.addEventListener("keydown", (event) => this.key(event, panel.id));
    const tool = (sign, text, handler) => button("", sign, handler, { class: "button button-small button-plain", "aria-label": `${text} ${name}`, title: text });
    find(".card-head .push", root).append(move, tool("edit", "Edit", () => this.edit(panel.id)), tool("copy", "Copy", () => this.copy(panel.id)), tool("trash", "Remove", () => this.remove(panel.id)));
    find(".card-head", root).addEventListener("pointerdown", (event) => { if (!event.target.closest("button:not([data-move])")) this.drag(event, panel.id, "move"); });
    const corner = h("span", { class: "corner", "data-corner": "", "aria-hidden": "true" });
    corner.addEventListener("pointerdown", (event) => this.drag(event, panel.id, "size"));
    root.append(corner);
  }

  drag(event, id, how) {
    if (event.button !== 0 || matchMedia("(max-width: 760px)").matches) return;
    const before = this.panels.find((panel) => panel.id === id);
    const column = (this.root.clientWidth + 8) / COLUMNS;
    const [x, y] = [event.clientX, event.clientY + scrollY];
    const target = event.currentTarget;
    let panels = null;
    target.setPointerCapture(event.pointerId);
    this.rootOf(id).classList.add("dragged");
    const follow = (moved) => {
      const [dx, dy] = [Math.round((moved.clientX - x) / column), Math.round((moved.clientY + scrollY - y) / ROW)];
      if (!panels && !dx && !dy) return;
      panels = this.arrange(id, how === "move" ? { ...before, x: before.x + dx, y: before.y + dy } : { ...before, w: Math.min(COLUMNS - before.x, before.w + dx), h: before.h + dy });
      this.show(panels);
    };
    const end = () => {
      target.removeEventListener("pointermove", follow);
      this.rootOf(id).classList.remove("dragged");
      if (panels) this.keep(panels, id);
    };
    target.addEventListener("pointermove", follow);
    target.addEventListener("pointerup", end, { once: true });
    target.addEventListener("pointercancel", end, { once: true });
  }

  key(event, id) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const panel = this.panels.find((each) => each.id === id);
    const [dx, dy] = step;
    let next = { ...panel, x: panel.x + dx };
    if (event.shiftKey) next = { ...panel, w: Math.min(COLUMNS - panel.x, panel.w + dx), h: panel.h + dy };
    else if (dy) {
      // Panels leave no gaps: up and down change places with the nearest one there.
      const beside = this.panels.filter((other) => other.id !== id && other.x < panel.x + panel.w && panel.x < other.x + other.w);
      const above = beside.filter((other) => other.y < panel.y).sort((a, b) => b.y - a.y)[0];
      const below = beside.filter((other) => other.y > panel.y).sort((a, b) => a.y - b.y)[0];
      if (dy < 0 ? !above : !below) return;
      next = { ...panel, y: dy < 0 ? above.y : below.y + Math.ceil(below.h / 2) };
    }
    this.keep(this.arrange(id, next), id);
    find("[data-move]", this.rootOf(id)).focus();
  }

  // --- Panels
  free() {
    const taken = new Set(this.panels.map((panel) => panel.id));
    let number = this.panels.length + 1;
    while (taken.has(`p${number}`)) number += 1;
    return `p${number}`;
  }

  put(panel) {
    this.panels = settled([...this.panels, panel]);
    const root = card({ ...panel, shown: panel.title });
    this.root.append(root);
    this.show(this.panels);
    this.arm(panel);
    this.board.adopt(root);
    this.changed();
    root.scrollIntoView({ block: "nearest" });
  }

  add(kind) {
    const [w, height] = SIZES[kind] ?? [12, 8];
    const y = Math.max(0, ...this.panels.map((panel) => panel.y + panel.h));
    const fresh = { id: this.free(), kind, title: "", x: 0, y, w, h: height, queries: [], unit: "plain", minimum: null, maximum: null, stacked: false, thresholds: [], calculation: "last", text: "", help: "" };
    this.form(fresh, (panel) => this.put(panel));
  }

  copy(id) {
    const panel = this.panels.find((each) => each.id === id);
    this.put({ ...structuredClone(panel), id: this.free(), y: panel.y + panel.h });
  }

  remove(id) {
    const part = this.board.parts.find((each) => each.key === id);
    if (part) this.board.drop(part);
    this.rootOf(id).remove();
    this.panels = settled(this.panels.filter((panel) => panel.id !== id));
    this.show(this.panels);
    this.changed();
    announce("The panel is removed.");
  }

  edit(id) {
    this.form(this.panels.find((panel) => panel.id === id), (panel) => {
      const old = this.board.parts.find((each) => each.key === id);
      if (old) this.board.drop(old);
      const root = card({ ...panel, shown: panel.title });
      this.rootOf(id).replaceWith(root);
      this.panels = this.panels.map((each) => (each.id === id ? panel : each));
      this.show(this.panels);
      this.arm(panel);
      this.board.adopt(root);
      this.changed();
      find("[data-move]", root).focus();
    });
  }

  /** What panels show that are not saved: each is asked for by itself. */
  async answers(parts) {
    const found = await Promise.all(parts.filter((part) => this.panels.some((panel) => panel.id === part.key)).map((part) => this.preview(this.panels.find((panel) => panel.id === part.key))));
    return { panels: Object.assign({}, ...found.map((each) => each.panels)), changes: [] };
  }

  async preview(panel) {
    const { shown, ...plain } = panel;
    if (!MEASURING.includes(plain.kind) && plain.kind !== "alertlist") return { panels: {} };
    try {
      return await post(`${this.dashboard.links.preview}?${this.board.query([]).split("?")[1]}`, { panel: plain, variables: this.variables, values: this.dashboard.values });
    } catch (error) { return { panels: { [plain.id]: { error: error.message } } }; }
  }

  form(panel, done) {
    const { links } = this.dashboard;
    const input = (value, more = {}) => h("input", { value: value ?? "", ...more });
    const kind = choose(Object.entries(links.kinds), panel.kind);
    const title = input(panel.title, { maxlength: 200 });
    const unit = choose(same(links.units), panel.unit);
    const calculation = choose(same(links.calculations), panel.calculation);
    const [low, high] = [panel.minimum, panel.maximum].map((value) => input(value, { type: "number", step: "any" }));
    const stacked = h("input", { type: "checkbox", checked: panel.stacked });
    const help = input(panel.help, { maxlength: 1000 });
    const text = h("textarea", { rows: 8, maxlength: 20000, spellcheck: "false" });
    text.value = panel.text;
    const queries = h("div", { class: "stack" });
    const thresholds = h("div", { class: "stack" });
    const drop = (row) => button("", "close", () => { row.remove(); later(); }, { "aria-label": "Remove", class: "button button-small button-plain" });
    const addQuery = (query = { expression: "", legend: "" }) => {
      const expression = h("textarea", { rows: 3, "data-expression": "", "aria-label": "PromQL expression", spellcheck: "false", placeholder: "sum by (code) (rate(http_requests_total[$window]))" });
      expression.value = query.expression;
      const row = h("div", { class: "query-row" }, expression, input(query.legend, { "data-legend-text": "", "aria-label": "Legend", placeholder: "Legend: {label} takes a label’s value" }));
      row.append(drop(row));
      queries.append(row);
    };
    const addThreshold = (level = { severity: "warning", comparison: ">", value: "" }) => {
      const [severity, comparison] = [choose(same(SEVERITIES), level.severity), choose(same(COMPARISONS), level.comparison)];
      severity.setAttribute("aria-label", "Severity");
      comparison.setAttribute("aria-label", "Comparison");
      const row = h("div", { class: "threshold-row" }, severity, comparison, input(level.value, { type: "number", step: "any", "aria-label": "Value" }));
      row.append(drop(row));
      thresholds.append(row);
    };
    for (const query of panel.queries) addQuery(query);
    if (!panel.queries.length) addQuery();
    for (const level of panel.thresholds) addThreshold(level);
    const number = (box) => (box.value === "" ? null : Number(box.value));
    const read = () => {
      const isMeasuring = MEASURING.includes(kind.value);
      return {
        id: panel.id, x: panel.x, y: panel.y, w: panel.w, h: panel.h, kind: kind.value, title: title.value.trim(), unit: unit.value, calculation: calculation.value,
        minimum: number(low), maximum: number(high), stacked: stacked.checked, help: help.value.trim(), text: isMeasuring ? "" : text.value,
        queries: isMeasuring ? all(".query-row", queries).map((row) => ({ expression: find("[data-expression]", row).value, legend: find("[data-legend-text]", row).value })).filter((query) => query.expression.trim()) : [],
        thresholds: isMeasuring ? all(".threshold-row", thresholds).map((row) => { const [severity, comparison] = all("select", row); return { severity: severity.value, comparison: comparison.value, value: Number(find("input", row).value) }; }) : [],
      };
    };
    const stage = h("div", { class: "stage" });
    let timer = null, count = 0;
    const show = async () => {
      const draft = read();
      const mine = ++count;
      const answer = (await this.preview(draft)).panels[draft.id];
      if (mine !== count) return;
      const root = card({ ...draft, id: `preview-${draft.id}`, shown: draft.title || links.kinds[draft.kind] });
      stage.replaceChildren(root);
      if (!KINDS[draft.kind]) return;
      const part = new KINDS[draft.kind](root);
      part.board = { load: show };
      if (answer?.error) part.fail(answer.error);
      else if (answer) part.draw(answer);
    };
    const later = () => { clearTimeout(timer); timer = setTimeout(show, PAUSE); };
    const measures = [h("div", { class: "field" }, h("b", {}, "Queries"), queries, h("div", {}, button("Add a query", "plus", () => addQuery()))),
      h("div", { class: "field-grid" }, field("Unit", unit), field("Number shown", calculation, "for stat and gauge"), field("Least", low), field("Most", high)),
      h("label", { class: "choice" }, stacked, " Stacked"),
      h("div", { class: "field" }, h("b", {}, "Thresholds"), thresholds, h("div", {}, button("Add a threshold", "plus", () => addThreshold())))];
    const words = field("Text", text);
    const fit = () => {
      const isMeasuring = MEASURING.includes(kind.value);
      for (const each of measures) each.hidden = !isMeasuring;
      words.hidden = isMeasuring || kind.value === "row";
      find("label", words).textContent = kind.value === "alertlist" ? "Only alerts that all of these match, one in a line" : "Text: # headings, lists, **bold**, `code`, [links](https://…)";
    };
    kind.addEventListener("change", fit);
    fit();
    const dialog = ask(panel.title ? `Edit ${panel.title}` : "Panel", [h("div", { class: "panel-form" }, h("div", { class: "stack" }, h("div", { class: "field-grid" }, field("Title", title), field("Kind", kind)), ...measures, words, field("Help", help, "shown when the pointer rests on the title")), stage)],
      () => { clearTimeout(timer); done(read()); }, { wide: true });
    dialog.addEventListener("input", later);
    dialog.addEventListener("change", later);
    show();
  }

  // --- The dashboard as a whole
  editAbout() {
    const title = h("input", { value: this.about.title, maxlength: 200, required: true });
    const description = h("input", { value: this.about.description, maxlength: 500 });
    const folder = choose([["", "None: everybody sees it"], ...this.dashboard.links.folders.map(([id, name]) => [String(id), name])], String(this.about.folder ?? ""));
    ask("Settings", [field("Title", title), field("Description", description), field("Folder", folder)], () => {
      this.about = { title: title.value, description: description.value, folder: folder.value };
      this.changed();
    });
  }

  editVariables() {
    const rows = h("div", { class: "stack" });
    const add = (variable = { name: "", kind: "query", label: "", query: "", regex: "", options: [], values: [], multi: false, all: false }) => {
      const box = (name, value, more = {}) => { const input = h("input", { "data-name": name, value, ...more }); return input; };
      const kind = choose(Object.entries(this.dashboard.links.variables), variable.kind);
      kind.dataset.name = "kind";
      const row = h("fieldset", { class: "variable-row" }, h("legend", {}, variable.name || "New variable"),
        field("Name", box("name", variable.name, { maxlength: 50, pattern: "[A-Za-z_][A-Za-z0-9_]*", required: true })), field("Kind", kind), field("Label", box("label", variable.label, { maxlength: 200 })),
        field("Question", box("query", variable.query, { maxlength: 1000, placeholder: "label_values(up, instance)" }), "for values of a label, or query_result(…)"),
        field("Pattern", box("regex", variable.regex ?? "", { maxlength: 500, placeholder: "^mon\\.(.*)$" }), "of the values that it fits, what its group holds"),
        field("Options", box("options", variable.options.join(", "), { placeholder: "a, b, c or 1m, 5m, 1h" }), "for a list and for intervals, between commas"),
        field("Value at first", box("values", variable.values.map((v) => (v === "$__all" ? "All" : v)).join(", "))),
        h("label", { class: "choice" }, h("input", { type: "checkbox", "data-name": "multi", checked: variable.multi }), " several at once"), h("label", { class: "choice" }, h("input", { type: "checkbox", "data-name": "all", checked: variable.all }), " offers All"));
      row.append(button("Remove", "trash", () => row.remove()));
      rows.append(row);
    };
    this.variables.forEach((variable) => add(variable));
    ask("Variables", [h("p", { class: "muted" }, "$name or ${name} in expressions, titles and legends stands for what is chosen; behind =~ several values may be chosen."), rows, h("div", {}, button("Add a variable", "plus", () => add()))], () => {
      this.variables = all(".variable-row", rows).map((row) => {
        const get = (name) => find(`[data-name="${name}"]`, row);
        return { name: get("name").value, kind: get("kind").value, label: get("label").value, query: get("query").value, regex: get("regex").value, options: words(get("options").value), values: words(get("values").value).map((v) => (v === "All" && get("all").checked ? "$__all" : v)), multi: get("multi").checked, all: get("all").checked };
      });
      this.changed();
      this.board.reload();
    }, { wide: true });
  }

  save() {
    const message = h("input", { maxlength: 300, placeholder: "What changed, for the history" });
    ask("Save a new version", [field("Message", message)], async () => {
      const panels = this.panels.map(({ shown, ...panel }) => panel);
      const saved = await post(this.dashboard.links.save, { ...this.about, folder: this.about.folder === null ? "" : String(this.about.folder), document: { panels, variables: this.variables }, version: this.dashboard.version, message: message.value });
      this.leave(saved.url);
    }, { action: "Save" });
  }
}

export function startEditor(dashboard, board) {
  let editor = null;
  const start = () => { editor ??= new Editor(dashboard, board); };
  find("[data-edit]")?.addEventListener("click", start);
  if (new URLSearchParams(location.search).has("edit")) start();
}
