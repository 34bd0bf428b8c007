// Starts a page: draws the state that came with it, then follows the live connection.
import { drawAlert } from "./alert.js";
import { drawAlerts } from "./alerts.js";
import { all, find, state } from "./dom.js";
import { writeTimes } from "./format.js";
import { Live } from "./live.js";
import { drawOncall, startOncall } from "./oncall.js";
import { drawTimeline, drawVerdict, drawWarnings } from "./overview.js";
import { Board } from "./panels.js";
import * as range from "./range.js";
import { startSilence } from "./silence.js";
import { showPlace, startClock, startDialogs, startMenus, startShortcuts, startTheme } from "./shell.js";

const initial = state();
range.start();
// Only a person's dashboard brings the code that lays it out.
const own = initial.dashboard ? await import("./dashboard.js") : null;
own?.lay(initial.dashboard);
const board = new Board(initial.data_url, initial.data_query || {}, {
  explore: initial.explore_url, logs: initial.logs_url, ...(own ? { kinds: own.KINDS, more: () => own.asked(initial.dashboard) } : {}),
});
// Scripts of single pages (Explore) draw and load for themselves.
const tell = (what) => document.dispatchEvent(new Event(`portal:${what}`));
const nextTheme = startTheme(() => { board.restyle(); tell("restyle"); });
startShortcuts({ nextTheme, reload: () => { board.reload(); tell("reload"); } });

function draw(part) {
  if (part.warnings) drawWarnings(part.warnings);
  if (part.health) drawVerdict(part.health);
  if (part.alerts) { drawAlerts(part.alerts); board.renew("alertlist"); }
  if (part.activity) drawTimeline(find("[data-activity]"), part.activity, "Nothing has happened yet.");
  if (part.oncall && drawOncall(part.oncall) && initial.view === "oncall") part.stale = true;
  if (part.alert) drawAlert(part.alert);
  if (part.of) board.pushed(part);
  if (part.logs) { board.grow(board.parts); tell("logs"); }
  // Tables that the server draws (history, rules, contacts) are fetched again as they are.
  if (part.stale && find("[data-redraw]")) redraw();
}

async function redraw() {
  const answer = await fetch(location.href, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = all("[data-redraw]", fresh);
  all("[data-redraw]").forEach((place, i) => { if (next[i] && !place.contains(document.activeElement)) place.replaceWith(document.adoptNode(next[i])); });
  writeTimes();
}

draw(initial);
showPlace();
startClock();
startMenus();
startSilence();
startOncall();
startDialogs();

own?.startTv();
if (initial.dashboard?.links) (await import("./dashboard-edit.js")).startEditor(initial.dashboard, board);

// Whoever reads by a link is nobody that a connection could be held for: the page polls.
if (initial.view) {
  const live = new Live(initial.view);
  live.addEventListener("frame", ({ detail }) => draw(detail));
  // The chart of log records counts no samples: it is told of new ones as the list is.
  if (!initial.logs) board.follow(live, initial.dashboard ? `dashboard:${initial.dashboard.slug}` : "page");
}
