"""A page of somebody else's, in a real browser, reports how it does: by the portal's script and by web-vitals itself.

`vendor/` holds web-vitals 6.2.3 as it is published (Apache-2.0), for nothing but this test.
"""

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
ALWAYS = ("LCP", "CLS", "FCP", "TTFB")
OURS = '<script src="{portal}/rum/beacon.js" data-key="{key}" defer></script>'
THEIRS = """<script src="/web-vitals.js"></script><script>
for (const on of [webVitals.onCLS, webVitals.onINP, webVitals.onLCP, webVitals.onFCP, webVitals.onTTFB])
  on((m) => navigator.sendBeacon('{portal}/rum/{key}', JSON.stringify({{...m, entries: undefined}})));
</script>"""


class Shop(ThreadingHTTPServer):
    """A site whose every page has the same script in it."""

    script = ""


class _Handler(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        is_library = self.path == "/web-vitals.js"
        body = LIBRARY if is_library else PAGE % self.server.script.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if is_library else "text/html")
        self.end_headers()
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
