"""Every chart of every page and dashboard has its controls, and each of them does what it says."""

import csv
import math
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.dashboards.navigation import GROUPS
from apps.sources.models import Check, Heartbeat, ScrapeTarget

PAGES = {
    "performance": "/monitoring/performance/",
    "system": "/monitoring/system/",
    "frontend": "/monitoring/frontend/",
    "databases": "/monitoring/databases/",
    "applications": "/monitoring/applications/?job=shop",
    "business": "/monitoring/business/",
    "security": "/monitoring/security/",
    "target": "/monitoring/targets/{target}/",
    "check": "/monitoring/checks/{check}/",
    "heartbeat": "/monitoring/heartbeats/{beat}/",
    "alert": "/monitoring/alerts/{key}/",
    "host": "/monitoring/dashboards/host/",
    "web-requests": "/monitoring/dashboards/web-requests/",
    "portal": "/monitoring/dashboards/portal/",
    "postgresql": "/monitoring/dashboards/postgresql/",
}
CHARTLESS = {
    "overview", "dashboards", "alerts", "incidents", "oncall", "quiet", "services", "checks", "targets", "senders",
    "explore", "logs",
}  # fmt: skip
"""Pages of the menu without a chart of samples; Explore's are tried in test_explore.py, the log's in test_logs.py."""
EACH_COMPARED = """() => [...document.querySelectorAll('[data-panel]:has(.u-over)')]
    .every((panel) => panel.querySelector('[data-column=before]'))"""
OPENED = """
async (roots) => {
    const found = [];
    for (const root of roots) {
        const [menu, numbers] = [root.querySelector('[data-menu]'), root.querySelector('[data-numbers]')];
        const isOpen = new Promise((done) => menu.addEventListener('toggle', done, { once: true }));
        numbers?.click();
        menu.open = true;
        await isOpen;
        const [canvas, explore] = [root.querySelector('canvas'), menu.querySelector('[data-explore]')];
        found.push({
            key: root.dataset.panel, kind: root.dataset.kind ?? 'timeseries',
            csv: menu.querySelector('[data-csv]').href, explore: explore.href,
            isExplored: !explore.parentElement.hidden, logs: menu.querySelector('[data-logs]').href,
            png: Boolean(menu.querySelector('[data-png]')),
            isDrawn: Boolean(canvas), words: canvas?.getAttribute('aria-label'),
            rows: root.querySelectorAll('[data-numbers-table] tbody tr').length,
            sorts: [...root.querySelectorAll('.legend .sort')].map((button) => button.dataset.column),
        });
        menu.open = false;
        numbers?.click();
    }
    return found;
}
"""


def test_every_page_of_the_menu_is_tried_or_has_no_chart():
    listed = {entry.address for group in GROUPS for entry in group.entries}
    assert listed <= PAGES.keys() | CHARTLESS


def asked_of(address):
    return parse_qs(urlsplit(address).query)["q"]


def same(text, value):
    return text == "" if value is None else math.isclose(float(text), value, rel_tol=1e-9)


@pytest.mark.slow
def test_every_chart_has_its_controls_and_they_work(window, full_scene):
    """One scene for all pages, for setting it up costs more than looking at it."""
    ids = {
        "key": full_scene[0].key, "target": ScrapeTarget.objects.get(labels__instance="shop-1:8080").pk,
        "check": Check.objects.get(name="Shop").pk, "beat": Heartbeat.objects.get(name="Invoices").pk,
    }  # fmt: skip
    it = window("mara")
    it.page.set_viewport_size({"width": 1360, "height": 7200})  # what is off the screen is not loaded
    for name, path in PAGES.items():
        until = int(timezone.now().timestamp()) // 60 * 60_000
        chosen = f"from={until - 1_800_000}&to={until}"
        page = it.go(f"{path.format(**ids)}{'&' if '?' in path else '?'}{chosen}")
        expect(page.locator(".panel-state.loading")).to_have_count(0, timeout=30_000)
        found = page.locator("[data-panel]:has([data-menu])").evaluate_all(OPENED)
        assert found, name
        for one in found:
            check_menu(it, one, until)
        lines = page.locator("[data-panel]:has(.u-over)")
        if lines.count():
            check_drawing(page, lines, chosen)
        link = next(one["explore"] for one in found if one["kind"] != "alertlist")
        page.goto(link)
        expect(page.locator("[data-verdict]:visible, .u-wrap:visible, table:visible").first).to_be_visible()
        assert asked_of(page.url) == asked_of(link)
    assert it.complaints == []


def check_menu(it, one, until):
    """The table is what the API says, Explore is asked for the same, and what is drawn is told in words, too."""
    body = it.context.request.get(re.sub("&?format=csv", "", one["csv"])).json()
    answer = body["panels"][one["key"]]
    rows = list(csv.reader(it.context.request.get(one["csv"]).text().splitlines()))
    if "series" in answer:
        drawn = [row for part in ("series", "lower", "upper") for row in answer.get(part, ())]
        assert [len(row) for row in rows] == [1 + len(drawn)] * (answer["count"] + 1)
        for column, row in enumerate(drawn, start=1):
            assert all(same(line[column], value) for line, value in zip(rows[1:], row["values"], strict=True))
    assert "changes" in body
    assert one["logs"].endswith(f"/monitoring/logs/?from={until - 1_800_000}&to={until}")
    if one["kind"] == "alertlist":
        return
    asked = parse_qs(urlsplit(one["explore"]).query)
    assert (one["key"], one["isExplored"], asked["q"]) == (one["key"], True, answer["expressions"])
    assert (asked["from"], asked["to"]) == ([str(until - 1_800_000)], [str(until)])
    if one["kind"] == "timeseries" and answer["series"]:
        assert {"levels", "alerts"} <= answer.keys()
        assert (one["isDrawn"], one["png"], bool(one["words"])) == (True, True, True)
        assert (one["sorts"], one["rows"]) == (["name", "last", "low", "high"], answer["count"])


def check_drawing(page, lines, chosen):
    """Last week beside this one, one crosshair for all, the picture, and what is drawn over a chart as the range."""
    compare = page.get_by_role("button", name="Compare with last week")
    compare.click()
    expect(page).to_have_url(re.compile("compare=week"))
    page.wait_for_function(EACH_COMPARED)  # charts are drawn some at a time
    compare.click()
    expect(lines.locator("[data-column=before]")).to_have_count(0)
    box = lines.first.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    heads = lines.locator("[data-column=last]").all_inner_texts()
    assert [text for text in heads if not re.match(r"\d\d:\d\d:\d\d", text)] == []
    with page.expect_download() as picture:
        lines.first.locator("[data-png]").evaluate("(button) => button.click()")
    assert picture.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=3)
    page.mouse.up()
    page.wait_for_url(lambda url: chosen not in url and "from=" in url)
    zoomed = parse_qs(urlsplit(page.url).query)
    assert abs(int(zoomed["to"][0]) - int(zoomed["from"][0]) - 900_000) < 60_000
    page.go_back()
    page.wait_for_url(re.compile(chosen))
