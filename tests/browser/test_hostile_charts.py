"""Charts of what somebody else named: markup, the other way of writing, a thousand letters; and of far too much."""

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.dashboards.document import LONGEST_TITLE
from apps.dashboards.models import Dashboard
from apps.metrics import services as metrics
from apps.metrics.samples import MAX_NAME, Samples
from tests.browser import scene

MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
HEBREW = "\u05e9\u05dc\u05d5\u05dd \u202e gnihton \u2066 4"
LONG = "x" * 1_000
NAMES = (MARKUP, HEBREW, LONG, "plain")
KINDS = ("timeseries", "stat", "gauge", "table", "heatmap")


def put(rows, *, window=None):
    """Store (labels, seconds ago, value)."""
    now = timezone.now()
    end = int(now.timestamp())
    labels, ages, values = zip(*rows, strict=True)
    samples = Samples.of(list(labels), [1000 * (end - age) for age in ages], list(values))
    written = metrics.ingest(samples=samples, by=scene.BY, now=now, window=window)
    assert written.rejected == ()


def board(slug, *panels):
    rows = [
        {"id": f"p{n}", "title": title, "kind": kind, "x": 0, "y": 8 * n, "w": 24, "h": 8,
         "queries": [{"expression": text, "legend": legend}]}
        for n, (title, kind, text, legend) in enumerate(panels)
    ]  # fmt: skip
    Dashboard.objects.create(slug=slug, title=HEBREW, document={"panels": rows}, updated_at=timezone.now())
    return f"/monitoring/dashboards/{slug}/"


@pytest.mark.parametrize("look", ["light", "phone"])
def test_hostile_names_are_shown_as_text_isolated_and_cut(window, look):
    long_metric = "m" * MAX_NAME  # longer ones are refused when they come, and counted
    put([({"__name__": "queue", "host": name}, 15 * n, float(n)) for name in NAMES for n in range(40)])
    put([({"__name__": long_metric, "host": LONG}, 15 * n, 1.0) for n in range(40)])
    panels = [(MARKUP if kind == "stat" else LONG[:LONGEST_TITLE], kind, "queue", "{host}") for kind in KINDS]
    path = board("hostile", *panels, ("Long", "timeseries", long_metric, ""))
    it = window("vic", look=look)
    page = it.go(path + "?range=15m")
    chart = page.locator("[data-panel=p0]")
    keys = chart.locator(".legend-key")
    expect(keys).to_have_count(4)
    assert {keys.nth(n).get_attribute("title") for n in range(4)} == set(NAMES)
    assert set(keys.locator("bdi").all_text_contents()) == set(NAMES)
    chart.get_by_role("button", name="Series").first.click()
    expect(chart.get_by_role("columnheader", name="Series")).to_have_attribute("aria-sort", "ascending")
    chart.locator("[data-numbers]").click()
    expect(chart.locator(".numbers")).to_be_visible()
    for n in range(1, 6):
        page.locator(f"[data-panel=p{n}]").scroll_into_view_if_needed()
        expect(page.locator(f"[data-panel=p{n}] .loading")).to_have_count(0)
    expect(page.locator("[data-panel=p3] tbody tr")).to_have_count(4)
    expect(page.locator("[data-panel=p5] .legend-key")).to_have_count(1)
    assert it.overflow() == []
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0
    assert it.complaints == []


def test_a_chart_of_a_hundred_thousand_points_keeps_its_peak_and_the_page_its_pace(window):
    count = 100_000
    ages = (np.arange(count) * (6 * 86400 / count)).astype(int)
    rows = [({"__name__": "dense"}, int(age), 5.0) for age in np.unique(ages)]
    rows[len(rows) // 2] = (*rows[len(rows) // 2][:2], 950.0)
    put(rows[::-1])
    page = window("vic").go(board("dense", ("Dense", "timeseries", "dense", "dense")) + "?range=7d")
    panel = page.locator("[data-panel=p0]")
    expect(panel.locator("tbody td").last).to_have_text("950")
    expect(panel.locator("[data-panel-note]")).to_have_text("peaks kept")
    panel.locator("[data-numbers]").click()
    assert panel.locator(".numbers tbody tr").count() <= 301
    box = panel.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    expect(panel.locator("[data-column=last]")).not_to_have_text("Last ↓")


def test_of_ten_thousand_series_twenty_are_drawn_and_the_panel_says_so(window):
    put([({"__name__": "many", "host": f"h{n:05}"}, 20, float(n)) for n in range(10_000)], window=timedelta(minutes=10))
    page = window("vic").go(board("many", ("Many", "timeseries", "many", "{host}")) + "?range=15m")
    panel = page.locator("[data-panel=p0]")
    expect(panel.locator(".legend-key")).to_have_count(20)
    expect(panel.locator("[data-panel-note]")).to_have_text("20 of 10000 series")
    expect(panel.locator(".legend-key").first).to_have_text("h09999")
