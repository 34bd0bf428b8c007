"""What people do with a chart: sort and hide, compare with last week, look closer in Explore, take it away."""

import re
from datetime import timedelta

from django.utils import timezone
from playwright.sync_api import expect

from tests.browser import scene

PAGE = "/monitoring/performance/"


def panel_of(page, key="status-codes"):
    return page.locator(f"[data-panel={key}]")


def names(panel):
    return [text.strip() for text in panel.locator(".legend-key").all_inner_texts()]


def test_the_legend_sorts_by_a_click_on_a_heading_and_hides_series(window, full_scene):
    panel = panel_of(window("vic").go(PAGE))
    expect(panel.locator(".legend-key")).to_have_count(3)
    assert sorted(names(panel)) == ["200", "404", "500"]
    panel.get_by_role("button", name="Last").click()
    assert names(panel) == ["404", "500", "200"]
    expect(panel.get_by_role("columnheader", name="Last")).to_have_attribute("aria-sort", "ascending")
    panel.get_by_role("button", name="Series").click()
    assert names(panel) == ["200", "404", "500"]
    expect(panel.get_by_role("button", name="Series")).to_be_focused()
    panel.get_by_role("button", name="404").click()
    expect(panel.get_by_role("button", name="404")).to_have_attribute("aria-pressed", "false")


def test_charts_are_held_against_last_week_and_the_address_says_so(window, full_scene):
    scene.write_hour(now=timezone.now() - timedelta(days=7))
    page = window("vic").go(PAGE)
    compare = page.get_by_role("button", name="Compare with last week")
    compare.click()
    expect(page).to_have_url(re.compile("compare=week"))
    before = panel_of(page).locator("tbody tr").first.locator("td").nth(1)
    expect(panel_of(page).get_by_role("columnheader", name="Week before")).to_be_visible()
    expect(before).to_have_text(re.compile(r"^[\d.]+ req/s$"))
    page.reload()
    expect(compare).to_have_attribute("aria-pressed", "true")
    expect(before).to_have_text(re.compile(r"^[\d.]+ req/s$"))
    compare.click()
    expect(panel_of(page).get_by_role("columnheader", name="Week before")).to_be_hidden()


def test_the_crosshair_is_shared_by_the_charts_of_a_page(window, full_scene):
    page = window("vic").go(PAGE)
    box = page.locator("[data-panel=response-time] .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    clock = re.compile(r"^\d\d:\d\d:\d\d")
    expect(panel_of(page, "throughput").locator("[data-column=last]")).to_have_text(clock)
    expect(panel_of(page, "response-time").locator("[data-column=last]")).to_have_text(clock)


def test_a_chart_is_taken_away_as_numbers_and_as_a_picture_and_opened_in_explore(window, full_scene):
    page = window("mara").go(PAGE + "?range=15m")
    panel = panel_of(page, "throughput")
    menu = panel.locator("summary")
    menu.click()
    with page.expect_download() as numbers:
        panel.get_by_role("link", name="Download as CSV").click()
    lines = numbers.value.path().read_text().splitlines()
    assert (numbers.value.suggested_filename, lines[0], len(lines)) == ("throughput.csv", "time,GET,POST", 62)
    with page.expect_download() as picture:
        panel.get_by_role("button", name="Download as PNG").click()
    assert picture.value.suggested_filename == "throughput.png"
    assert picture.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    menu.click()
    panel.get_by_role("link", name="Open in Explore").click()
    expect(page).to_have_url(re.compile(r"/monitoring/explore/\?range=15m&q=sum\+by.*&show=stacked"))
    expect(page.locator(".u-wrap")).to_be_visible()


def test_the_menu_of_a_chart_opens_and_closes_by_keyboard(window, full_scene):
    page = window("vic").go(PAGE)
    panel = panel_of(page, "throughput")
    panel.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("link", name="Download as CSV")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(panel.get_by_role("link", name="Download as CSV")).to_be_hidden()
    expect(panel.locator("summary")).to_be_focused()


def test_no_two_ticks_of_an_axis_read_the_same(window):
    page = window("vic").go("/monitoring/")
    script = page.evaluate("performance.getEntriesByType('resource').find((e) => /\\/format\\./.test(e.name)).name")
    units = {
        "/s": (0.0005, 0.25, 2500), "req/s": (0.02, 250), "ms": (0.25, 500, 2500), "seconds": (0.25, 30, 300),
        "percent": (0.25, 2.5, 25), "share": (0.0025, 0.25), "bytes": (1, 2**16, 2**21), "bytes/s": (2**19,),
        "count": (0.25, 2.5, 2500), "plain": (0.0001, 0.25, 2500),
    }  # fmt: skip
    for unit, steps in units.items():
        for step in steps:
            texts = page.evaluate(
                """async ([script, unit, step]) => {
                    const { quantity } = await import(script);
                    return Array.from({ length: 9 }, (_, n) => quantity(n * step, unit, step));
                }""",
                [script, unit, step],
            )
            assert len(set(texts)) == 9, (unit, step, texts)
    assert texts[:3] == ["0", "2.5 k", "5 k"]
