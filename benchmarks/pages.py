"""What pages cost: the server's time for 20 panels over a day of 1,000 series, weight, first paint and interaction.

`./portal bench pages`. Starts a portal of its own and a real Chromium (PORTAL_CHROMIUM, or the machine's), which loads
each page with an empty cache. Weight is what went over the wire: page, scripts, styles, fonts, pictures and numbers.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks._pages import DASHBOARD, PANELS, TOKEN, fill, prepare, shell
from benchmarks.portal import row
from monitoring_portal.testing import Portal, chromium_path

SERVER: Final = 0.5
PAINT: Final = 1.0
INTERACTION: Final = 0.1
WEIGHT: Final = 300_000
"""Goals: seconds, and bytes."""
PAGES: Final = (
    "", "performance/", "system/", "frontend/", "databases/", "business/", "dashboards/", "security/", "alerts/",
    "alerts/?tab=rules", "alerts/?tab=hygiene", "alerts/?tab=notifications", "incidents/", "on-call/", "quiet/",
    "services/", "checks/", "targets/", "senders/", "explore/", "logs/", "applications/", "me/",
    f"dashboards/{DASHBOARD}/?range=24h",
)  # fmt: skip
ADMIN: Final = ("/admin/", "/admin/alerting/alertrule/", "/admin/oncall/policy/")
STEPS: Final = 14

POLICY: Final = """
from apps.accounts.permissions import Principal
from apps.oncall import services
from django.utils import timezone
from apps.oncall.models import Policy, Step
row = Policy.objects.create(name="Fourteen steps")
for number in range({steps}):
    Step.objects.create(policy=row, position=number + 1, kind="wait", config={{"minutes": 5}})
print("ID", row.pk)
"""

INTERACT: Final = """async (what) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const plot = document.querySelector("[data-panel] .u-over");
  const box = plot.getBoundingClientRect();
  const at = (type, x) => plot.dispatchEvent(
    new MouseEvent(type, { bubbles: true, clientX: box.left + x, clientY: box.top + 20, movementX: 1 }));
  const sort = document.querySelector("[data-panel] .sort");
  const key = document.querySelector("[data-panel] .legend-key");
  const acts = {
    hover: (turn) => at("mousemove", 20 + 7 * turn),
    sort: () => sort.isConnected ? sort.click() : document.querySelector("[data-panel] .sort").click(),
    hide: () => (key.isConnected ? key : document.querySelector("[data-panel] .legend-key")).click(),
    theme: () => document.querySelector("[data-theme-toggle]").click(),
  };
  const took = [];
  for (let turn = 0; turn < 12; turn += 1) {
    await frame();
    const begun = performance.now();
    acts[what](turn);
    await frame();
    took.push(performance.now() - begun);
  }
  return took;
}"""

WATCH: Final = """() => {
  window.slow = [];
  window.drawn = 0;
  new PerformanceObserver((list) => slow.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: "event", durationThreshold: 16 });
  const { clearRect } = CanvasRenderingContext2D.prototype;  // each drawing of a chart begins with it
  CanvasRenderingContext2D.prototype.clearRect = function (...box) {
    window.drawn = performance.now();
    clearRect.apply(this, box);
  };
  addEventListener("mouseup", () => { window.released = performance.now(); }, { capture: true, once: true });
}"""
STILL: Final = "() => drawn > released && performance.now() > drawn + 400 && drawn - released"
"""How long (ms) after the button was released the last chart was drawn, once none has been for a while."""


def server(portal: Portal, client: httpx.Client) -> bool:
    """Time the numbers of all panels, the first time and later, and the page around them."""
    keys = "&".join(f"panel=p{n}" for n in range(len(PANELS)))
    address = f"/monitoring/dashboards/{DASHBOARD}/data/?range=24h&{keys}"
    web = psutil.Process(portal.pids["web"])
    took, used, size = [], [], 0
    for _ in range(9):
        before, begun = sum(web.cpu_times()[:2]), time.perf_counter()
        answer = client.get(address)
        took.append(time.perf_counter() - begun)
        used.append(sum(web.cpu_times()[:2]) - before)
        errors = [panel["error"] for panel in answer.json()["panels"].values() if "error" in panel]
        if errors:
            raise SystemExit(errors[0])
        size = answer.num_bytes_downloaded
        time.sleep(1.2)  # an answer of the last second would be given again
    begun = time.perf_counter()
    client.get(f"/monitoring/dashboards/{DASHBOARD}/?range=24h")
    page = time.perf_counter() - begun
    goal = f"goal ≤ {SERVER * 1000:.0f} ms"
    row(f"{len(PANELS)} panels, 24 h, 1,000 series: the first time", f"{took[0] * 1000:.0f} ms", goal)
    row("  later, p50", f"{statistics.median(took[1:]) * 1000:.0f} ms", "")
    row("  CPU of the web process, p50", f"{statistics.median(used[1:]) * 1000:.0f} ms", "")
    row("  the page around them", f"{page * 1000:.0f} ms", "")
    row("  numbers on the wire", f"{size / 1000:.0f} kB", "")
    return took[0] + page <= SERVER


class Weighed:
    """Bytes over the wire of one page, by kind."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.kinds: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        wire = context.new_cdp_session(self.page)
        wire.send("Network.enable")
        wire.on("Network.requestWillBeSent", lambda found: self.kinds.update({found["requestId"]: found["type"]}))
        wire.on("Network.loadingFinished", self._finished)

    def _finished(self, found: Any) -> None:
        kind = self.kinds.get(found["requestId"], "Other")
        self.bytes[kind] = self.bytes.get(kind, 0) + int(found["encodedDataLength"])

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def weigh(browser: Browser, portal: Portal, session: str, addresses: list[str]) -> bool:
    """Load each page with nothing in the cache; print what it weighed and when it was there."""
    heads = " ".join(f"{head:>6}" for head in ("kB", "page", "script", "style", "data", "other"))
    print(f"\n{'page':<48} {heads} {'paint':>7} {'drawn':>7}")
    is_fine = True
    for address in addresses:
        context = browser.new_context(viewport={"width": 1360, "height": 900}, locale="en-US", timezone_id="UTC")
        context.add_cookies([{"name": "sessionid", "value": session, "url": portal.url}])
        it = Weighed(context)
        begun = time.perf_counter()
        it.page.goto(portal.url + address, wait_until="load")
        it.page.wait_for_load_state("networkidle")
        drawn = time.perf_counter() - begun - 0.5  # so long nothing was asked for
        paint = it.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0") / 1000
        split = [it.bytes.get(kind, 0) for kind in ("Document", "Script", "Stylesheet")]
        split.append(it.bytes.get("Fetch", 0) + it.bytes.get("XHR", 0))
        split.append(it.total - sum(split))
        cells = " ".join(f"{size / 1000:>6.0f}" for size in (it.total, *split))
        is_fine &= it.total <= WEIGHT and paint <= PAINT
        print(f"{address:<48} {cells} {paint * 1000:>4.0f} ms {drawn * 1000:>4.0f} ms", flush=True)
        context.close()
    print(f"goals: at most {WEIGHT / 1000:.0f} kB and {PAINT:.0f} s to the first paint\n")
    return is_fine


def interact(browser: Browser, portal: Portal, session: str) -> bool:
    """Hover, sort, hide and change the theme on the page of twenty panels; then zoom."""
    context = browser.new_context(viewport={"width": 1360, "height": 2400}, locale="en-US", timezone_id="UTC")
    context.add_cookies([{"name": "sessionid", "value": session, "url": portal.url}])
    page = context.new_page()
    page.goto(f"{portal.url}/monitoring/dashboards/{DASHBOARD}/?range=24h")
    page.wait_for_load_state("networkidle")
    charts = page.locator("[data-panel] .u-over").count()
    is_fine = True
    for what, words in (
        ("hover", f"crosshair over {charts} charts"),
        ("sort", "a legend sorted"),
        ("hide", "a series hidden and shown"),
        ("theme", "all charts in another theme"),
    ):
        took = sorted(page.evaluate(INTERACT, what))
        is_fine &= took[-1] <= INTERACTION * 1000
        goal = f"goal ≤ {INTERACTION * 1000:.0f} ms"
        row(f"{words}: to the next frame, p50", f"{statistics.median(took):.0f} ms", goal)
        row("  the slowest of twelve", f"{took[-1]:.0f} ms", "")
    box = page.locator("[data-panel] .u-over").first.bounding_box()
    assert box is not None
    page.evaluate(WATCH)
    page.mouse.move(box["x"] + 40, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 30, steps=4)
    with page.expect_response(lambda answer: "/data/" in answer.url):
        page.mouse.up()
    row("zoom: numbers there and drawn", f"{page.wait_for_function(STILL).json_value():.0f} ms", "")
    slowest = max(page.evaluate("window.slow"), default=0)
    is_fine &= slowest <= INTERACTION * 1000
    row("  slowest event meanwhile", f"{slowest:.0f} ms", f"goal ≤ {INTERACTION * 1000:.0f} ms")
    context.close()
    return is_fine


def policy(portal: Portal) -> str:
    """Make a policy of many steps; returns the address of its editor."""
    return f"/admin/oncall/policy/{shell(portal, POLICY.format(steps=STEPS), 'ID')}/change/"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hours", type=float, default=24.5)
    options.add_argument("--only", choices=("server", "weight", "interaction"), default=None)
    given = options.parse_args()
    fine = []
    with tempfile.TemporaryDirectory() as folder, Portal(Path(folder), {"MONITORING_AUTH_TOKEN": TOKEN}) as portal:
        fill(portal, given.hours if given.only != "weight" else 1.0)
        session = prepare(portal, sessions=1, people=1, role="administrator")[0]
        if given.only in (None, "server"):
            with httpx.Client(base_url=portal.url, cookies={"sessionid": session}, timeout=60) as client:
                fine.append(server(portal, client))
        if given.only == "server":
            raise SystemExit(not all(fine))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"])
            if given.only in (None, "weight"):
                addresses = [f"/monitoring/{page}" for page in PAGES] + [*ADMIN, policy(portal)]
                fine.append(weigh(browser, portal, session, addresses))
            if given.only in (None, "interaction"):
                fine.append(interact(browser, portal, session))
            browser.close()
    raise SystemExit(not all(fine))


if __name__ == "__main__":
    main()
