"""Many open pages at once: what 200 of them cost the server, and how long a change takes to reach 50.

`./portal bench live`. Starts a portal of its own with 1,000 series. The clients speak the real WebSocket protocol from
another process and follow a dashboard of 20 panels over one hour, which all get new samples every five seconds; they
draw nothing: 200 real browsers do not fit on one machine. `--browsers` puts real Chromium pages among the few.
CPU is of the portal's processes alone. Goals: p95 of a change below a second with 50 pages. Samples are timed where a
step of the chart begins, every 15 seconds: from the request that brings them, begun, to the frame that has them.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import psutil
import websockets
from playwright.async_api import async_playwright
from websockets.typing import Origin

from benchmarks._pages import DASHBOARD, PANELS, SECOND, TOKEN, Sender, fill, prepare
from benchmarks.portal import call, row
from monitoring_portal.testing import Portal, chromium_path

EVERY: Final = 5.0
"""Seconds between two rounds of new samples."""
STEP: Final = 15
"""Seconds between two steps of a chart over an hour."""
GOAL: Final = 1.0
CLOCK: Final = f"p{[text for *_, text in PANELS].index(f'max({SECOND})')}"
NAMES: Final = ("web", "postgres", "valkey", "worker", "slow", "beat")
WATCH: Final = """() => {
  window.seen = {};
  const look = () => {
    for (const row of document.querySelectorAll("[data-alerts] .alert-message")) seen[row.textContent] ??= Date.now();
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


class Page:
    """One open page that puts frames aside with the moment they came."""

    def __init__(self) -> None:
        self.begun = float("inf")
        """When its first numbers were there: what was sent before, it had to fetch."""
        self.had: dict[int, float] = {}
        """When the sample of each second was there first."""
        self.frames = 0
        self.bytes = 0
        self.seen: dict[str, float] = {}

    async def follow(self, url: str, session: str, *, panels: int, ready: asyncio.Event) -> None:
        address = url.replace("http", "ws", 1) + "/ws/live"
        async with websockets.connect(
            address,
            additional_headers={"Cookie": f"sessionid={session}"},
            origin=Origin(url),
            max_size=None,
        ) as socket:
            await socket.send(json.dumps({"view": "alerts"}))
            since = int((time.time() - 60) * 1000)
            wanted = {f"p{n}": since if kind == "timeseries" else None for n, (kind, *_) in enumerate(PANELS[:panels])}
            watch = {"number": 1, "place": f"dashboard:{DASHBOARD}", "query": "range=1h", "panels": wanted}
            await socket.send(json.dumps({"watch": watch}))
            ready.set()
            async for text in socket:
                self.take(str(text))

    def take(self, text: str) -> None:
        now = time.perf_counter()
        self.frames += 1
        self.bytes += len(text)
        frame = json.loads(text)
        if "panels" in frame:
            self.begun = min(self.begun, now)
            for line in frame["panels"].get(CLOCK, {}).get("series", ()):
                for second in filter(None, line["values"]):
                    self.had.setdefault(int(second), now)
        for part in (frame, frame.get("changed", {})):
            for one in part.get("alerts", {}).get("rows", ()):
                if isinstance(one, dict):
                    self.seen.setdefault(one["message"], now)


def cpu(portal: Portal) -> dict[str, float]:
    """CPU-seconds of the portal's processes so far."""
    found = {}
    for name in NAMES:
        family = [psutil.Process(portal.pids[name])]
        family += family[0].children(recursive=True)
        times = [one.cpu_times() for one in family]
        found[name] = sum(t.user + t.system for t in times)
        # A backend that has ended is counted by the server itself.
        found[name] += times[0].children_user + times[0].children_system if name == "postgres" else 0.0
    return found


@contextmanager
def feeding(sender: Sender, every: float) -> Iterator[dict[int, float]]:
    """Send all series every so many seconds; gives when (monotonic) the samples of each second were sent."""
    over = threading.Event()
    sent: dict[int, float] = {}

    def run() -> None:
        due = time.time() // every * every + every
        while not over.wait(max(0.0, due - time.time())):
            sent[int(due)] = time.perf_counter()
            sender.send(int(due * 1000))
            due += every

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


class Chromium:
    """Real pages among the others: when does an alert that was posted stand in the list of the page?"""

    def __init__(self, url: str, session: str, count: int) -> None:
        self.url, self.session, self.count = url, session, count
        self.pages: list[Any] = []

    async def __aenter__(self) -> "Chromium":
        self._driver = await async_playwright().start()
        self._browser = await self._driver.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        for _ in range(self.count):
            context = await self._browser.new_context()
            await context.add_cookies([{"name": "sessionid", "value": self.session, "url": self.url}])
            page = await context.new_page()
            await page.goto(f"{self.url}/monitoring/alerts/")
            await page.evaluate(WATCH)
            self.pages.append(page)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._browser.close()
        await self._driver.stop()

    async def took(self, sent: dict[str, float]) -> list[float]:
        """Seconds from posting to standing on the page, of each alert and page; `sent`: when, in seconds since 1970."""
        seen = [await page.evaluate("window.seen") for page in self.pages]
        return sorted(found[text] / 1000 - at for found in seen for text, at in sent.items() if text in found)


async def measured(
    portal: Portal, sessions: list[str], *, panels: int, seconds: float, posts: int, browsers: int = 0
) -> list[Page]:
    """Open the pages, let them be for a while, post alerts; returns what they saw and prints what it cost."""
    pages = [Page() for _ in sessions]
    tasks = []
    for page, session in zip(pages, sessions, strict=True):
        ready = asyncio.Event()
        tasks.append(asyncio.create_task(page.follow(portal.url, session, panels=panels, ready=ready)))
        await ready.wait()
    await asyncio.sleep(8)
    before, begun, frames, size = (
        cpu(portal),
        time.perf_counter(),
        sum(p.frames for p in pages),
        sum(p.bytes for p in pages),
    )
    await asyncio.sleep(seconds)
    lasted = time.perf_counter() - begun
    used = {name: (value - before[name]) / lasted for name, value in cpu(portal).items()}
    count = len(pages)
    row(f"{count} pages, cores used by the portal", f"{sum(used.values()):.3f}", "of 2")
    for name, share in used.items():
        row(f"  of these {name}", f"{share:.3f}", "")
    row("  frames a page and second", f"{(sum(p.frames for p in pages) - frames) / lasted / count:.2f}", "")
    row("  kB a page and second, unpacked", f"{(sum(p.bytes for p in pages) - size) / lasted / count / 1000:.1f}", "")
    memory = psutil.Process(portal.pids["web"]).memory_full_info().uss / 1e6
    row("  memory of the web process", f"{memory:.0f} MB", "")
    sent, at = {}, {}
    async with Chromium(portal.url, sessions[0], browsers) if posts and browsers else nullcontext() as real:
        for number in range(posts):
            message = f"benchmark {count} {number} {time.time()}"
            body = {"type": f"benchmark-{number % 20}", "severity": "INFO", "message": message}
            sent[message], at[message] = time.perf_counter(), time.time()
            await asyncio.to_thread(call, portal, "/api/monitoring/alerts", body)
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        drawn = await real.took(at) if real else []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if posts:
        took = sorted(page.seen[m] - at for m, at in sent.items() for page in pages if m in page.seen)
        missed = sum(m not in page.seen for m in sent for page in pages)
        told(f"alert posted to frame, {count} pages", took)
        row("  frames in which a later alert came instead", f"{missed}", "")
    if drawn:
        told(f"alert posted to drawn, {browsers} Chromium pages among them", drawn)
    return pages


def arrived(pages: list[Page], sent: dict[int, float]) -> None:
    """Print how long samples at which a step begins took to the pages."""
    steps = [(second, at) for second, at in sent.items() if second % STEP == 0]
    seen = [(page.had[second], at) for page in pages for second, at in steps if at > page.begun and second in page.had]
    took = sorted(came - at for came, at in seen)
    told(f"sample sent to frame, {len(pages)} pages, {len(took)} frames", took)


def told(what: str, took: list[float]) -> None:
    row(f"{what}, p50", f"{statistics.median(took) * 1000:.0f} ms", "")
    row("  the same, p95", f"{took[int(0.95 * len(took))] * 1000:.0f} ms", f"goal < {GOAL * 1000:.0f} ms")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pages", type=int, default=200)
    options.add_argument("--few", type=int, default=50)
    options.add_argument("--browsers", type=int, default=2)
    options.add_argument("--panels", type=int, default=20)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--hours", type=float, default=1.2)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, Portal(Path(folder), {"MONITORING_AUTH_TOKEN": TOKEN}) as portal:
        sender = fill(portal, given.hours)
        sessions = prepare(portal, sessions=given.pages)
        idle, begun = cpu(portal), time.perf_counter()
        with feeding(sender, EVERY) as fed:
            time.sleep(10)
            used = sum(cpu(portal).values()) - sum(idle.values())
            row("no page open, cores used by the portal", f"{used / (time.perf_counter() - begun):.3f}", "samples fed")
            few = sessions[: given.few]
            pages = asyncio.run(
                measured(portal, few, panels=given.panels, seconds=given.seconds, posts=20, browsers=given.browsers)
            )
            arrived(pages, fed)
            pages = asyncio.run(measured(portal, sessions, panels=given.panels, seconds=given.seconds, posts=0))
            arrived(pages, fed)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
