"""A page of somebody else's, in a real browser, reports how it does: by the portal's script and by web-vitals itself.

`vendor/` holds web-vitals 6.2.3 as it is published (Apache-2.0), for nothing but this test.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from apps.accounts.permissions import Principal
from apps.sources import beacon_api, sites
from apps.sources.models import Site
from tests.faults.watch import Watch

LIBRARY = (Path(__file__).parent / "vendor/web-vitals-6.2.3.js").read_bytes()
PAGE = b"""<!doctype html><meta charset="utf-8"><title>Shop</title>%s
<h1>Order</h1><a href="/next">Next</a>
<button onclick="this.textContent = 'Bought'; setTimeout(() => { throw new Error('x') })">Buy</button>"""
DOTS = "".join(f'<circle cx="{n * 37 % 300}" cy="{n * 53 % 200}" r="{n % 9}"/>' for n in range(60))
PICTURE = f'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200">{DOTS}</svg>'.encode()
ALWAYS = ("LCP", "CLS", "FCP", "TTFB")
OURS = '<script src="{portal}/rum/beacon.js" data-key="{key}" defer></script>'
THEIRS = """<script src="/web-vitals.js"></script><script>
for (const on of [webVitals.onCLS, webVitals.onINP, webVitals.onLCP, webVitals.onFCP, webVitals.onTTFB])
  on((m) => navigator.sendBeacon('{portal}/rum/{key}', JSON.stringify({{...m, entries: undefined}})));
</script>"""


class Shop(ThreadingHTTPServer):
    """A site whose every page has the same script in it."""

    script = ""
    late = 0.0
    """Seconds until the largest thing on a page is there."""


class _Handler(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        kind, body = "text/html", PAGE % self.server.script.encode()
        if self.path == "/web-vitals.js":
            kind, body = "text/javascript", LIBRARY
        elif self.path == "/picture.svg":
            kind, body = "image/svg+xml", PICTURE
            time.sleep(self.server.late)
        elif self.path.startswith("/album/"):
            body += b'<p><img src="/picture.svg" width="300" height="200">'
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a page that is left asks for nothing
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    server = Shop(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def told(name: str, route: str) -> float:
    readings = beacon_api.SERIES[name].readings(close=False)
    return sum(one.value for one in readings if one.name.endswith("_count") and one.labels.get("route") == route)


def buy_and_leave(page: Page) -> None:
    page.get_by_role("button").click()
    expect(page.get_by_role("button")).to_have_text("Bought")
    page.wait_for_timeout(100)
    page.get_by_role("link").click()
    expect(page).to_have_url(re.compile("/next$"))


@pytest.mark.parametrize(("script", "route"), [(OURS, "/ours/:id"), (THEIRS, "/theirs/:id")])
def test_a_page_reports_how_it_does(
    chromium: Browser,
    server: str,
    shop: Shop,
    transactional_db: None,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    route: str,
):
    origin = f"http://127.0.0.1:{shop.server_port}"
    site = sites.save_site(by=Principal.system("test"), site=Site(name="shop", origins=[origin]))
    shop.script = script.format(portal=server, key=site.key)
    # A headless browser says that it is one, and robots are not counted.
    monkeypatch.setattr(beacon_api, "device_of", lambda agent: "desktop")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{origin}{route.replace(':id', '4711')}?secret=x")
    buy_and_leave(page)
    ends = time.monotonic() + 20
    while (missing := {name for name in ALWAYS if not told(name, route)}) and time.monotonic() < ends:
        page.wait_for_timeout(100)
    context.close()
    assert missing == set()
    if script == OURS:
        labels = {"site": "shop", "route": route, "device": "desktop"}
        assert beacon_api.VIEWS.value(**labels) == 1
        assert beacon_api.ERRORS.value(**labels) == 1


def test_a_script_that_breaks_in_a_browser_is_a_burst_of_errors(
    chromium: Browser, server: str, shop: Shop, transactional_db: None, monkeypatch: pytest.MonkeyPatch
):
    origin = f"http://127.0.0.1:{shop.server_port}"
    site = sites.save_site(by=Principal.system("test"), site=Site(name="shop", origins=[origin]))
    shop.script = OURS.format(portal=server, key=site.key)
    monkeypatch.setattr(beacon_api, "device_of", lambda agent: "desktop")
    labels = {"site": "shop", "route": "/broken/:id", "device": "desktop"}
    watch = Watch("script-errors")
    watch.round()
    context = chromium.new_context()
    page = context.new_page()
    for number in range(4711, 4714):
        page.goto(f"{origin}/broken/{number}")
        for _ in range(8):
            page.get_by_role("button").click()
        page.get_by_role("link").click()
        expect(page).to_have_url(re.compile("/next$"))
    ends = time.monotonic() + 20
    while beacon_api.ERRORS.value(**labels) < 24 and time.monotonic() < ends:
        page.wait_for_timeout(100)
    context.close()
    assert beacon_api.ERRORS.value(**labels) == 24
    alert = watch.fires("script-errors", "warning", within=400)
    assert (alert.labels["site"], alert.labels["route"]) == ("shop", "/broken/:id")
    watch.resolves("script-errors", within=1200, pace=60)


def test_pages_whose_largest_picture_comes_late_load_slowly_until_it_comes_at_once(
    chromium: Browser, server: str, shop: Shop, transactional_db: None, monkeypatch: pytest.MonkeyPatch
):
    origin, route = f"http://127.0.0.1:{shop.server_port}", "/album/:id"
    site = sites.save_site(by=Principal.system("test"), site=Site(name="shop", origins=[origin], rate=10_000))
    shop.script = THEIRS.format(portal=server, key=site.key)
    monkeypatch.setattr(beacon_api, "device_of", lambda agent: "phone")
    numbers = count(4711)
    pages = [chromium.new_context().new_page() for _ in range(18)]  # each with connections of its own

    def seen(views: int) -> None:
        """So many look at a page at the same time until all of it is there, and leave."""
        before = told("LCP", route)
        for page in pages[:views]:
            page.goto(f"{origin}{route.replace(':id', str(next(numbers)))}", wait_until="commit")
        for page in pages[:views]:
            page.wait_for_load_state("load")
            page.wait_for_function("performance.getEntriesByType('paint').length > 0")
            page.wait_for_timeout(50)
            page.goto("about:blank")
        ends = time.monotonic() + 20
        while told("LCP", route) < before + views and time.monotonic() < ends:
            pages[0].wait_for_timeout(20)
        assert told("LCP", route) == before + views

    watch = Watch("poor-lcp")
    seen(3)
    watch.passes(600, pace=300)
    shop.late = 4.3
    for _ in range(3):
        seen(18)
        watch.round(60)
    alert = watch.fires("poor-lcp", "info", within=2400, pace=300)
    assert (alert.labels["route"], alert.labels["device"]) == (route, "phone")
    assert alert.value is not None
    assert 4 < alert.value < 6
    shop.late = 0.0
    watch.resolves("poor-lcp", within=4200, each=lambda: seen(6), pace=300)
    for page in pages:
        page.context.close()
