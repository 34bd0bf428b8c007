// Builds elements. Text only ever enters through text nodes, so no user text is read as HTML.
const SVG = "http://www.w3.org/2000/svg";

export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A text of somebody else's within a sentence: whatever way it is written in, the words around it stay where they are. */
export const apart = (text) => `\u2068${text}\u2069`;

/** An element of SVG. */
export function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const icon = (name, extra = "") =>
  shape("svg", { class: `icon ${extra}`.trim(), "aria-hidden": "true" }, shape("use", { href: `${document.body.dataset.icons}#${name}` }));

export function state() {
  const node = document.getElementById("state");
  return node ? JSON.parse(node.textContent) : {};
}

/** Gives the person a file. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
