// The steps of a policy in the admin: each says in plain words when it happens and what it does, shows the settings of
// its kind only, and is moved by its handle or its two buttons. Words and times come from the server, which knows steps.

const kinds = () => document.querySelectorAll('select[name^="steps-"][name$="-kind"]');
const groups = () => [...document.querySelectorAll("#steps-group .form-group:not(.empty-form)")];
const indexOf = (group) => group.querySelector('select[name$="-kind"]')?.name.match(/^steps-(\d+)-/)?.[1];

/** A step comes with the settings of its own kind; those of another are taken from the empty form that a new step is made of. */
function adopt(select, prefix) {
  const form = select.closest("form");
  const own = (start) => form.querySelectorAll(`[name^="${start}-${select.value}__"]`);
  if (!select.value || prefix === "steps-__prefix__" || own(prefix).length) return;
  const rows = new Set([...own("steps-__prefix__")].map((field) => field.closest(".field-row")));
  const body = select.closest(".field-row").parentElement;
  for (const row of rows) {
    const copy = row.cloneNode(true);
    for (const element of [copy, ...copy.querySelectorAll("*")]) {
      for (const { name, value } of [...element.attributes]) {
        if (value.includes("steps-__prefix__")) element.setAttribute(name, value.replaceAll("steps-__prefix__", prefix));
      }
    }
    body.append(copy);
  }
}

function show(select) {
  const [prefix] = select.name.split("-kind");
  const form = select.closest("form");
  adopt(select, prefix);
  const hidden = new Map();
  for (const field of form.querySelectorAll(`[name^="${prefix}-"][name*="__"]`)) {
    const [kind] = field.name.slice(prefix.length + 1).split("__");
    const row = field.closest(".field-row");
    if (row) hidden.set(row, kind !== select.value);
  }
  for (const [row, isHidden] of hidden) row.hidden = isHidden;
  const position = form.querySelector(`[name="${prefix}-position"]`)?.closest(".field-row");
  if (position) position.hidden = true;
}

function number() {
  groups().forEach((group, place) => {
    const position = group.querySelector('[name$="-position"]');
    if (position) position.value = place + 1;
  });
}

function move(group, before) {
  group.parentElement.insertBefore(group, before);
  number();
  ask();
}

function button(sign, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = sign;
  made.setAttribute("aria-label", label);
  made.title = label;
  made.addEventListener("click", act);
  return made;
}

function step(group, by) {
  const all = groups();
  const to = all.indexOf(group) + by;
  if (to < 0 || to >= all.length) return;
  move(group, by < 0 ? all[to] : all[to].nextElementSibling);
  group.querySelector(by < 0 ? ".portal-step-up" : ".portal-step-down").focus();
}

let dragged = null;

function dress(group) {
  if (group.querySelector(".portal-step") || indexOf(group) === undefined) return;
  const bar = document.createElement("div");
  bar.className = "portal-step";
  const handle = document.createElement("span");
  handle.className = "portal-step-handle";
  handle.textContent = "⠿";
  handle.title = "Drag to move this step";
  handle.draggable = true;
  handle.setAttribute("aria-hidden", "true");
  handle.addEventListener("dragstart", (event) => {
    dragged = group;
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", "");
    event.dataTransfer.setDragImage(group, 12, 12);
    group.classList.add("portal-step-moves");
  });
  handle.addEventListener("dragend", () => {
    group.classList.remove("portal-step-moves");
    dragged = null;
    number();
    ask();
  });
  const when = document.createElement("b");
  when.className = "portal-step-when";
  const text = document.createElement("span");
  text.className = "portal-step-text";
  const up = button("↑", "Move this step up", () => step(group, -1));
  up.classList.add("portal-step-up");
  const down = button("↓", "Move this step down", () => step(group, 1));
  down.classList.add("portal-step-down");
  bar.append(handle, when, text, up, down);
  const head = group.querySelector("h3");
  (head ?? group).prepend(bar);
  head?.classList.add("portal-step-head");
  group.addEventListener("dragover", (event) => {
    if (!dragged) return;
    event.preventDefault();
    if (dragged === group) return;
    const box = group.getBoundingClientRect();
    const isAbove = event.clientY < box.top + box.height / 2;
    group.parentElement.insertBefore(dragged, isAbove ? group : group.nextElementSibling);
  });
}

let asking = 0;
let waiting = null;

function ask() {
  clearTimeout(waiting);
  waiting = setTimeout(answer, 250);
}

async function answer() {
  const form = document.querySelector("#policy_form");
  const url = location.pathname.replace(/policy\/.*/, "policy/outline/");
  const mine = ++asking;
  let found;
  try {
    const reply = await fetch(url, { method: "POST", body: new FormData(form), credentials: "same-origin" });
    if (!reply.ok) return;
    found = await reply.json();
  } catch {
    return; // the words stay as they were; what is saved is judged by the server anyway
  }
  if (mine !== asking) return;
  const lines = new Map(found.lines.map((line) => [String(line.form), line]));
  for (const group of groups()) {
    const line = lines.get(indexOf(group));
    const bar = group.querySelector(".portal-step");
    if (!bar) continue;
    bar.querySelector(".portal-step-when").textContent = line?.when ?? "";
    bar.querySelector(".portal-step-text").textContent = line?.problem || line?.text || "";
    bar.classList.toggle("is-wrong", Boolean(line?.problem));
  }
  warn(found.warning);
}

function warn(words) {
  const list = document.querySelector("#steps-group .formset-wrapper");
  let note = document.querySelector(".portal-step-warning");
  if (!note) {
    note = document.createElement("p");
    note.className = "portal-step-warning";
    note.setAttribute("role", "status");
    list.prepend(note);
  }
  note.textContent = words;
  note.hidden = !words;
}

function dressAll() {
  kinds().forEach(show);
  groups().forEach(dress);
}

document.addEventListener("change", (event) => {
  if (event.target.matches('select[name^="steps-"][name$="-kind"]')) show(event.target);
  if (event.target.name?.startsWith("steps-")) ask();
});
document.addEventListener("input", (event) => {
  if (event.target.name?.startsWith("steps-")) ask();
});
document.addEventListener("formset:added", () => {
  dressAll();
  number();
  ask();
});
document.addEventListener("formset:removed", () => {
  number();
  ask();
});
document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("#steps-group")) return;
  dressAll();
  ask();
});
