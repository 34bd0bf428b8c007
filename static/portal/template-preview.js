// The preview of a message template in the admin: sends the texts as they stand, shows what each channel would.
import { find, h } from "./dom.js";

const root = find("[data-template-preview]");
const form = find("form[id$=_form]");
const PAUSE = 500;

const text = (name) => form.elements[name]?.value ?? "";
let asked = 0;
let waiting = null;

function complain(lines) {
  const box = find("[data-error]", root);
  box.hidden = lines.length === 0;
  box.textContent = lines.join("\n");
}

async function run() {
  const mine = ++asked;
  const body = {
    kind: text("kind"), title: text("title"), body: text("body"), document: text("document"),
    alert: find("[data-alert]", root).value, is_over: find("[data-over]", root).checked,
  };
  try {
    const answer = await fetch(root.dataset.url, {
      method: "POST", credentials: "same-origin", body: JSON.stringify(body),
      headers: { "content-type": "application/json", "x-csrftoken": find("[name=csrfmiddlewaretoken]", form).value },
    });
    const found = await answer.json();
    if (mine !== asked) return;
    if (!answer.ok) {
      const fields = Object.entries(found.fields ?? {}).map(([name, what]) => `${name}: ${[what].flat().join(" ")}`);
      complain(fields.length ? fields : [found.error]);
      return;
    }
    complain(Object.entries(found.faults).map(([name, what]) => `${name}: ${what}`));
    if (Object.keys(found.faults).length === 0) show(found);
  } catch {
    if (mine === asked) complain(["The portal does not answer."]);
  }
}

function size(told) {
  if (told.characters === undefined) return null;
  const parts = told.segments === undefined ? "" : ` in ${told.segments} part${told.segments === 1 ? "" : "s"}`;
  return h("small", {}, `${told.characters} characters${parts}`);
}

/** The mail in a frame of its own that runs nothing; its height follows its content as far as the page allows. */
function mail(told) {
  const frame = h("iframe", { class: "portal-preview-mail", sandbox: "allow-same-origin", title: "The e-mail" });
  frame.srcdoc = told.html;
  frame.addEventListener("load", () => { frame.style.height = `${frame.contentDocument.documentElement.scrollHeight + 2}px`; });
  return frame;
}

function channel(told) {
  return h("article", { "data-kind": told.kind },
    h("h3", {}, told.label, size(told)),
    told.problem ? h("p", { class: "portal-preview-error" }, `It cannot be used here: ${told.problem} The portal's own words would be told.`) : null,
    h("p", { class: "portal-preview-title" }, told.title),
    told.html ? mail(told) : null,
    told.html ? h("details", {}, h("summary", {}, "As plain text"), h("pre", { tabindex: "0" }, told.text)) : h("pre", { tabindex: "0" }, told.text));
}

function show(found) {
  const lint = found.lint.length ? h("ul", { class: "portal-preview-warnings" }, found.lint.map((line) => h("li", {}, line))) : null;
  find("[data-results]", root).replaceChildren(...[lint, ...found.channels.map(channel)].filter(Boolean));
  find("[data-results]", root).dataset.shown = String(found.channels.length);
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(run, PAUSE);
}

find("[data-run]", root).addEventListener("click", run);
for (const part of ["[data-alert]", "[data-over]"]) find(part, root).addEventListener("change", run);
for (const name of ["title", "body", "document"]) form.elements[name]?.addEventListener("input", soon);
form.elements.kind?.addEventListener("change", run);
run();
