// The WebSocket to /ws/live: says what the page shows and follows, reconnects with back-off, tells how live it is.
import { find } from "./dom.js";

const WORDS = {
  connecting: ["is-quiet", "connecting"],
  live: ["is-ok", "live"],
  reconnecting: ["is-warning", "reconnecting"],
  stale: ["is-critical", "not live"],
  many: ["is-critical", "not live: too many pages open"],
};

const isRow = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const rowsOf = (old, change) => change.map((entry) => (Number.isInteger(entry) ? old[entry] : entry));

/** The state that a change makes of the old one; the reverse of apps/dashboards/delta.py. */
export function patched(old, change) {
  if (Array.isArray(old)) return rowsOf(old, change);
  const fields = Object.entries(change).map(([name, value]) => [name, Array.isArray(old[name]) && old[name].every(isRow) ? rowsOf(old[name], value) : value]);
  return { ...old, ...Object.fromEntries(fields) };
}

/** Events: "frame" (detail: the message, changes put in), "up" (a fresh connection speaks), "down". */
export class Live extends EventTarget {
  constructor(view) {
    super();
    this.view = view;
    this.attempt = 0;
    this.heard = 0;
    this.ended = false;
    this.parts = {};
    addEventListener("pagehide", () => { this.ended = true; this.socket?.close(); });
    addEventListener("pageshow", (event) => { if (event.persisted) { this.ended = false; this.open(); } });
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
    setInterval(() => this.watch(), 5000);
    this.open();
  }

  open() {
    if (document.documentElement.dataset.live !== "many") this.show(this.attempt ? "reconnecting" : "connecting");
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/live`);
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.parts = {};
      this.say({ view: this.view });
      this.follow();
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.socket) return;
      const frame = JSON.parse(event.data);
      this.heard = Date.now();
      if (this.attempt !== 0 || !this.isUp) this.dispatchEvent(new Event("up"));
      this.isUp = true;
      this.attempt = 0;
      this.show("live");
      this.dispatchEvent(new CustomEvent("frame", { detail: this.whole(frame) }));
    });
    socket.addEventListener("close", (event) => { if (socket === this.socket) this.closed(event); });
  }

  /** A frame with the whole of what it brings only changes of. */
  whole({ changed = {}, ...frame }) {
    for (const [name, change] of Object.entries(changed)) frame[name] = patched(this.parts[name], change);
    Object.assign(this.parts, frame);
    return frame;
  }

  say(message) { if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message)); }

  /** Say again which panels the page follows: `wanted()` gives the watch, null where it follows none. */
  follow() {
    const watch = this.wanted?.();
    if (watch) this.say({ watch });
  }

  closed({ code, reason }) {
    this.isUp = false;
    if (this.ended) return;
    this.dispatchEvent(new Event("down"));
    if (code === 4401 || code === 4403) {
      // Logged out, or the role lost the right: the server decides what the person sees next.
      this.ended = true;
      location.reload();
      return;
    }
    this.attempt += 1;
    const isMany = code === 4429;
    this.show(isMany ? "many" : this.attempt > 3 ? "stale" : "reconnecting", isMany ? reason : "");
    const wait = (isMany ? 30000 : Math.min(15000, 300 * 2 ** Math.min(this.attempt, 6))) * (0.6 + 0.8 * Math.random());
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { if (!this.ended) this.open(); }, wait);
  }

  /** Do not sit out the back-off when there is a reason to hope. */
  now() {
    if (this.ended || this.isUp || this.socket?.readyState === WebSocket.CONNECTING) return;
    clearTimeout(this.timer);
    this.open();
  }

  /** The server speaks at least every 20 s; silence means a dead connection that TCP has not noticed. */
  watch() {
    if (this.isUp && Date.now() - this.heard > 45000) this.socket.close();
  }

  /** Tell how live the page is; `why` is shown to who points at it. */
  show(name, why = "") {
    const [tone, text] = WORDS[name];
    const sign = find("[data-live-sign]");
    if (!sign || sign.dataset.state === name) return;
    sign.dataset.state = name;
    sign.className = `live ${tone}`;
    sign.title = why;
    find("[data-live-text]", sign).textContent = text;
    document.documentElement.dataset.live = name;
  }
}
