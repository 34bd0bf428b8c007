// Talks to the query API for the Explore page: one way to ask, one kind of error, and what the typeahead remembers.
const KEEP = 60_000;
const MOST_NAMES = 10_000;

/** What the API refused: `type` is its errorType, or "network", "login", "forbidden", "canceled". */
export class Refusal extends Error {
  constructor(type, message) { super(message); this.type = type; }
}

export async function ask(path, query, signal) {
  let answer;
  try {
    answer = await fetch(`${path}?${query}`, { signal, headers: { accept: "application/json" }, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw new Refusal("canceled", "The query was cancelled.");
    throw new Refusal("network", "The portal does not answer.");
  }
  if (answer.status === 401) throw new Refusal("login", "You are logged out.");
  let body;
  try {
    body = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw new Refusal("canceled", "The query was cancelled.");
    throw new Refusal("internal", `The portal answered ${answer.status} with something that is not JSON.`);
  }
  if (body.status === "success") return body;
  if (answer.status === 403) throw new Refusal("forbidden", body.error || "Your role does not include this.");
  throw new Refusal(body.errorType || "internal", body.error || `The portal answered ${answer.status}.`);
}

/** Names of metrics, labels, values and functions; each is asked for when it is needed and kept for a minute. */
export class Catalog {
  constructor() { this.kept = new Map(); }

  /** A typeahead without suggestions is better than one that complains: what cannot be had is empty. */
  get(path, pairs = []) {
    const query = new URLSearchParams(pairs);
    const key = `${path}?${query}`;
    const known = this.kept.get(key);
    if (known && Date.now() - known.at < KEEP) return known.data;
    const data = ask(path, query).then((body) => body.data, () => { this.kept.delete(key); return null; });
    this.kept.set(key, { at: Date.now(), data });
    return data;
  }

  async functions() { return (await this.get("/api/monitoring/query/functions")) ?? []; }

  /** All names of metrics, or null where they cannot be had. */
  names() { return this.get("/api/v1/label/__name__/values", [["limit", MOST_NAMES]]); }

  /** All names where they fit into one answer, else those that hold what is typed. */
  async metrics(typed = "") {
    const names = (await this.names()) ?? [];
    if (names.length < MOST_NAMES || !typed) return names;
    const matcher = `{__name__=~"(?i).*${typed.replaceAll(/[^\w:]/g, ".")}.*"}`;
    return (await this.get("/api/v1/label/__name__/values", [["limit", 200], ["match[]", matcher]])) ?? [];
  }

  async metadata() { return (await this.get("/api/v1/metadata", [["limit", MOST_NAMES]])) ?? {}; }

  async labels(selectors) {
    return (await this.get("/api/v1/labels", [["limit", 1000], ...selectors.map((s) => ["match[]", s])])) ?? [];
  }

  async values(label, selector) {
    const match = selector ? [["match[]", selector]] : [];
    return (await this.get(`/api/v1/label/${encodeURIComponent(label)}/values`, [["limit", 1000], ...match])) ?? [];
  }
}
