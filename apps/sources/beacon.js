// Reports how this page does: <script src="…/rum/beacon.js" data-key="…" defer></script>
(() => {
  const self = document.currentScript;
  const target = new URL(self.dataset.key, self.src).href;
  const page = location.origin + location.pathname;
  const id = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 10);
  const queue = [];
  const told = new Set();
  const add = (name, value, once = name) => {
    if (told.has(once)) return;
    told.add(once);
    queue.push({ name, value, id: id(), navigationURL: page });
  };
  const send = () => {
    if (queue.length) navigator.sendBeacon(target, JSON.stringify(queue.splice(0, 50)));
  };
  const watch = (type, each, more = {}) => {
    try {
      new PerformanceObserver((list) => list.getEntries().forEach(each)).observe({ type, buffered: true, ...more });
    } catch {} // a browser that does not measure this
  };
  const start = () => performance.getEntriesByType("navigation")[0]?.activationStart || 0;

  let largest;
  let slowest = 0;
  let shift = 0;
  let session = { value: 0, first: 0, last: 0 };
  watch("largest-contentful-paint", (entry) => { largest = entry.startTime - start(); });
  watch("paint", (entry) => { if (entry.name === "first-contentful-paint") add("FCP", entry.startTime - start()); });
  watch("event", (entry) => { if (entry.interactionId) slowest = Math.max(slowest, entry.duration); }, { durationThreshold: 40 });
  watch("layout-shift", (entry) => {
    if (entry.hadRecentInput) return;
    const goesOn = entry.startTime - session.last < 1000 && entry.startTime - session.first < 5000;
    session = goesOn ? { ...session, value: session.value + entry.value, last: entry.startTime }
      : { value: entry.value, first: entry.startTime, last: entry.startTime };
    shift = Math.max(shift, session.value);
  });
  let errors = 0;
  const failed = () => { if (++errors <= 10) add("error", 1, `error ${errors}`); };
  addEventListener("error", failed);
  addEventListener("unhandledrejection", failed);
  const visible = document.visibilityState === "visible";
  add("view", 1);
  addEventListener("load", () => setTimeout(() => {
    const entry = performance.getEntriesByType("navigation")[0];
    if (entry?.responseStart > 0) add("TTFB", Math.max(entry.responseStart - start(), 0));
    send();
  }));
  const leave = () => {
    if (visible) {
      if (largest !== undefined) add("LCP", largest);
      add("CLS", shift);
      if (slowest) add("INP", slowest);
    }
    send();
  };
  addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") leave(); });
  addEventListener("pagehide", leave);
})();
