// A little Markdown as elements: headings, lists, code, bold, italics, links. Text only ever enters as text nodes.
import { h } from "./dom.js";

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^()\s]+)\)/g;

/** Only addresses that open a page: never javascript:, data: or another scheme. */
function address(text) {
  try {
    const url = new URL(text, location.origin);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch { return null; }
}

function inline(text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    parts.push(text.slice(at, found.index));
    const [whole, code, bold, slanted, words, link] = found;
    const href = link ? address(link) : null;
    if (code) parts.push(h("code", {}, code));
    else if (bold) parts.push(h("b", {}, bold));
    else if (slanted) parts.push(h("i", {}, slanted));
    else parts.push(href ? h("a", { href, rel: "noopener noreferrer nofollow" }, words) : whole);
    at = found.index + whole.length;
  }
  parts.push(text.slice(at));
  return parts.filter((part) => part !== "");
}

export function prose(text) {
  const blocks = [];
  let list = null, code = null, lines = [];
  const flush = () => {
    if (lines.length) blocks.push(h("p", {}, lines.flatMap((line, i) => (i ? [h("br"), ...inline(line)] : inline(line)))));
    lines = [];
    list = null;
  };
  for (const line of text.slice(0, 20000).split("\n")) {
    if (line.startsWith("```")) {
      if (code) { blocks.push(h("pre", { class: "code" }, code.join("\n"))); code = null; } else { flush(); code = []; }
      continue;
    }
    if (code) { code.push(line); continue; }
    const heading = /^(#{1,4})\s+(.*)$/.exec(line);
    const item = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/.exec(line);
    if (heading) { flush(); blocks.push(h("h3", { class: `prose-${heading[1].length}` }, inline(heading[2]))); }
    else if (item) {
      const tag = item[1] ? "ol" : "ul";
      if (list?.tagName.toLowerCase() !== tag) { flush(); list = h(tag, {}); blocks.push(list); }
      list.append(h("li", {}, inline(item[2])));
    } else if (!line.trim()) flush();
    else { if (list) flush(); lines.push(line); }
  }
  flush();
  if (code) blocks.push(h("pre", { class: "code" }, code.join("\n")));
  return h("div", { class: "prose board-text" }, blocks);
}
