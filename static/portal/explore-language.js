// Reads PromQL as far as an editor needs it: tokens to colour, and what may stand at the caret. Knows no server and no page.
const TOKEN = new RegExp([
  "(?<comment>#[^\\n]*)",
  "(?<string>\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?|`[^`]*`?)",
  "(?<duration>(?:\\d+(?:ms|[smhdwy]))+(?![\\w.]))",
  "(?<number>0[xX][\\da-fA-F_]+|(?:\\d[\\d_]*(?:\\.[\\d_]*)?|\\.\\d[\\d_]*)(?:[eE][+\\-]?\\d+)?)",
  "(?<word>[A-Za-z_:][\\w:]*)",
  "(?<space>\\s+)",
  "(?<operator>==|!=|>=|<=|=~|!~|[\\-+*\\/%^<>=@])",
  "(?<bracket>[(){}\\[\\]])",
  "(?<comma>,)",
  "(?<other>.)",
].join("|"), "gsu");

const GROUPING = new Set(["by", "without", "on", "ignoring", "group_left", "group_right"]);
export const KEYWORDS = [...GROUPING, "and", "or", "unless", "bool", "offset", "atan2"];
const WORDS = new Set([...KEYWORDS, "anchored", "smoothed", "fill", "fill_left", "fill_right"]);
const NUMBERS = new Set(["inf", "nan"]);
const CLOSES = { ")": "(", "}": "{", "]": "[" };
const PLAIN = /^[A-Za-z_]\w*$/;
const PLAIN_METRIC = /^[A-Za-z_:][\w:]*$/;

/** [{kind, text, start, end, open}]: every character is in one token; `open` is the bracket it stands in, with its metric. */
export function tokens(text, aggregations = new Set()) {
  const found = [...text.matchAll(TOKEN)].map((match) => {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    return { kind, text: match[0], start: match.index, end: match.index + match[0].length, open: null };
  });
  const meant = found.filter((t) => t.kind !== "space" && t.kind !== "comment");
  const stack = [];
  meant.forEach((token, i) => {
    const [before, after] = [meant[i - 1], meant[i + 1]];
    if (token.text in CLOSES && token.kind === "bracket") {
      if (stack.at(-1)?.text === CLOSES[token.text]) stack.pop();
      token.open = stack.at(-1) ?? null;
      return;
    }
    token.open = stack.at(-1) ?? null;
    if (token.kind === "bracket") {
      const isGrouping = token.text === "(" && before?.kind === "keyword" && GROUPING.has(before.text.toLowerCase());
      const metric = token.text === "{" && before?.kind === "metric" ? before.text : null;
      stack.push({ text: token.text, start: token.start, isGrouping, metric });
    } else if (token.kind === "word") token.kind = wordKind(token, after, aggregations);
  });
  return found;
}

function wordKind({ text, open }, after, aggregations) {
  const word = text.toLowerCase();
  if (open?.text === "{" || open?.isGrouping) return "label";
  if (open?.text === "[") return "duration";
  if (aggregations.has(word)) return "aggregation";
  if (WORDS.has(word)) return "keyword";
  if (NUMBERS.has(word)) return "number";
  return after?.text === "(" ? "function" : "metric";
}

/** The matchers written in the braces that open at `start`, but those that contain the caret: ['job="node"', …]. */
function matchers(meant, start, caret) {
  const inside = meant.filter((t) => t.open?.text === "{" && t.open.start === start);
  return inside.flatMap((t, i) => {
    const [operator, value] = [inside[i + 1], inside[i + 2]];
    if (t.kind !== "label" || operator?.kind !== "operator" || value?.kind !== "string") return [];
    const isWhole = value.text.length > 1 && value.text.endsWith(value.text[0]);
    return isWhole && (caret < t.start || caret > value.end) ? [`${t.text}${operator.text}${value.text}`] : [];
  });
}

/**
 * What may be completed at the caret: {kind, from, to, prefix, …} or null. Kinds: "expression" (metric, function, keyword),
 * "label" and "value" (with the selector that is written around them), "grouping" (labels of `metrics`), "duration".
 */
export function place(text, caret, aggregations) {
  const all = tokens(text, aggregations);
  const meant = all.filter((t) => t.kind !== "space");
  const at = meant.findIndex((t) => t.start < caret && caret <= t.end && !["operator", "bracket", "comma"].includes(t.kind));
  const token = meant[at] ?? null;
  if (token?.kind === "comment") return null;
  const before = (token ? meant.slice(0, at) : meant.filter((t) => t.end <= caret)).filter((t) => t.kind !== "comment");
  const last = before.at(-1) ?? null;
  const open = token ? token.open : openAt(before);
  const here = { from: token?.start ?? caret, to: token?.end ?? caret, prefix: token ? text.slice(token.start, caret) : "" };
  if (open?.text === "{") return inBraces({ meant, token, before, last, open, here, text, caret });
  if (token?.kind === "string") return null;
  if (open?.isGrouping) {
    if (last && last.text !== "(" && last.text !== ",") return null;
    return { kind: "grouping", ...here, metrics: [...new Set(meant.filter((t) => t.kind === "metric").map((t) => t.text))] };
  }
  if (open?.text === "[") return last?.text === "[" ? { kind: "duration", ...here } : null;
  if (token && (token.kind === "number" || token.kind === "duration" || token.kind === "other")) return null;
  return { kind: "expression", ...here };
}

/** The innermost bracket that is still open after these tokens. */
function openAt(before) {
  const last = before.at(-1);
  if (!last) return null;
  if (last.kind !== "bracket" || last.text in CLOSES) return last.open;
  const named = before.at(-2);
  return {
    text: last.text, start: last.start, metric: last.text === "{" && named?.kind === "metric" ? named.text : null,
    isGrouping: last.text === "(" && named?.kind === "keyword" && GROUPING.has(named.text.toLowerCase()),
  };
}

function inBraces({ meant, token, before, last, open, here, text, caret }) {
  const rest = matchers(meant, open.start, caret).join(",");
  const selector = `${open.metric ?? ""}{${rest}}`;
  const known = selector === "{}" ? null : selector;
  if (last?.kind === "operator") {
    const label = before.at(-2);
    if (label?.kind !== "label") return null;
    if (!token) return { kind: "value", ...here, label: label.text, selector: known, quote: '"', isQuoted: false };
    if (token.kind !== "string") return null;
    const quote = token.text[0];
    // While a value is being typed its quote is open, and seems to be closed by the one that opens the next value.
    const isNext = /[,}]\s*\w+\s*[=!~]+$/.test(text.slice(caret, token.end - 1));
    const isClosed = token.text.length > 1 && token.text.endsWith(quote) && !isNext;
    if (isClosed && caret === token.end) return null;
    const from = token.start + 1;
    return { kind: "value", from, to: isClosed ? token.end - 1 : caret, prefix: text.slice(from, caret), label: label.text, selector: known, quote, isQuoted: true, isClosed };
  }
  if (token && token.kind !== "label") return null;
  return last?.text === "{" || last?.text === "," ? { kind: "label", ...here, selector: known } : null;
}

export const isPlain = (label) => PLAIN.test(label);
export const isPlainMetric = (name) => PLAIN_METRIC.test(name);
export const quoted = (value, quote = '"') => {
  if (quote === "`") return value;
  return value.replaceAll("\\", "\\\\").replaceAll(quote, `\\${quote}`).replaceAll("\n", "\\n");
};

/** A series as PromQL writes it: up{job="node"}. */
export function seriesText(labels, without = new Set()) {
  const name = labels.__name__;
  const parts = Object.entries(labels).filter(([key]) => key !== "__name__" && !without.has(key));
  const inner = parts.map(([key, value]) => `${isPlain(key) ? key : `"${quoted(key)}"`}="${quoted(value)}"`);
  const shown = name && !without.has("__name__") ? name : "";
  if (shown && !isPlainMetric(shown)) return `{${[`"${quoted(shown)}"`, ...inner].join(", ")}}`;
  return inner.length || !shown ? `${shown}{${inner.join(", ")}}` : shown;
}

/** The server counts characters, JavaScript counts UTF-16 units. */
export const unitsAt = (text, characters) => [...text].slice(0, characters).join("").length;

/** The offset of line:column, both from 1. */
export function offsetOf(text, line, column) {
  const lines = text.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, l) => sum + l.length + 1, 0);
  return Math.min(text.length, start + unitsAt(lines[line - 1] ?? "", column - 1));
}
