"""Explore: queries are written with suggestions, their cost is known before they run, answers are read and shared."""

import re
import time
from pathlib import Path

import orjson
import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from apps.metrics import budgets
from apps.metrics import services as metrics
from apps.metrics.models import QueryBudget
from apps.metrics.samples import Samples
from tests.browser import scene

EVIL = '<img src=x onerror="document.title=1"><b>bold</b>'
COST = re.compile("/api/monitoring/query/cost")
RANGE = re.compile("/api/v1/query_range")


@pytest.fixture
def few_series(transactional_db: None) -> None:
    """Half an hour of a counter of two machines and of a gauge whose label somebody has tampered with."""
    labels, times, values = [], [], []
    end = int(time.time()) // 15 * 15
    for age in range(0, 1800, 15):
        for host, rate in (("web-1", 2), ("web-2", 3)):
            labels.append({"__name__": "orders_total", "host": host, "shop": "north"})
            times.append((end - age) * 1000)
            values.append(float(rate * (100_000 - age)))
        labels.append({"__name__": "basket", "note": EVIL, "formula": "=1+1"})
        times.append((end - age) * 1000)
        values.append(7.0)
    metrics.backfill(samples=Samples.of(labels, times, values), by=scene.BY, now=timezone.now())


def opened(it, query: str = "") -> Page:
    page = it.go(f"/monitoring/explore/{query}")
    expect(page.get_by_role("textbox", name="Query 1")).to_be_visible()
    return page


def chosen(page: Page) -> str:
    """The suggestion that Enter would take, found as a screen reader finds it."""
    return page.evaluate(
        "(() => { const e = document.activeElement; const o = document.getElementById(e.getAttribute("
        "'aria-activedescendant')); return o && o.getAttribute('aria-selected') === 'true' ? "
        "o.querySelector('.suggestion-name').textContent : ''; })()"
    )


def test_a_query_is_written_by_keyboard_with_suggestions_and_run(window, few_series):
    it = window("vic")
    page = opened(it)
    editor, listed = page.get_by_role("textbox", name="Query 1"), page.get_by_role("listbox", name="Suggestions")
    expect(editor).to_be_focused()
    page.keyboard.type("rat")
    expect(listed).to_be_visible()
    expect(page.locator("[data-suggest-help]")).to_contain_text("rate(")
    assert (chosen(page), editor.get_attribute("aria-controls")) == ("rate", listed.get_attribute("id"))
    page.keyboard.press("ArrowDown")
    assert chosen(page) != "rate"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.keyboard.type("rders")
    page.keyboard.press("Escape")
    expect(listed).to_be_hidden()
    page.keyboard.press("Control+Space")
    expect(listed.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.type("{h")
    expect(listed.get_by_role("option")).to_have_text([re.compile("host"), re.compile("shop")])
    page.keyboard.press("Enter")
    expect(listed.get_by_role("option")).to_have_text([re.compile("web-1"), re.compile("web-2")])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("}[5m])")
    expect(editor).to_have_value('rate(orders_total{host="web-2"}[5m])')
    page.keyboard.press("Control+Enter")
    expect(page.locator(".legend tbody tr")).to_contain_text("3")
    expect(page.locator("[data-graph] canvas")).to_be_visible()
    expect(page).to_have_url(re.compile(r"q=rate%28orders_total"))
    assert it.complaints == []


def test_labels_of_a_grouping_are_those_of_the_querys_metrics(window, few_series):
    page = opened(window("vic"))
    page.keyboard.type("sum(orders_total) by (")
    expect(page.get_by_role("option")).to_have_text([re.compile("host"), re.compile("shop")])


def test_a_link_shows_the_table_that_its_sender_saw_and_back_undoes_a_step(window, few_series):
    page = opened(window("vic"), "?q=orders_total&show=table&range=15m")
    values = page.locator("[data-table] td.value")
    expect(values).to_have_count(2)
    expect(page.locator("[data-table] .common")).to_contain_text('orders_total{shop="north"}')
    heading = page.get_by_role("columnheader", name="Value")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    first = float(values.first.text_content() or "")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert float(values.first.text_content() or "") < first
    page.get_by_role("button", name="Graph").click()
    expect(page.locator("[data-graph] canvas")).to_be_visible()
    page.go_back()
    expect(values.first).to_be_visible()
    expect(page.get_by_role("button", name="Table")).to_have_attribute("aria-pressed", "true")


def test_the_place_of_an_error_is_marked_and_gone_to(window, few_series):
    page = opened(window("vic"))
    editor = page.get_by_role("textbox", name="Query 1")
    editor.fill("sum(orders_total)\n  bu (host)")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-verdict]")).to_contain_text("The query cannot be read")
    expect(page.locator(".is-wrong")).to_have_text("bu")
    expect(editor).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="At line 2, column 3").click()
    assert (
        page.evaluate(
            "(() => { const e = document.activeElement; return e.value.slice(e.selectionStart, e.selectionEnd); })()"
        )
        == "bu"
    )
    editor.fill("sum(orders_total)")
    expect(editor).not_to_have_attribute("aria-invalid", "true")


def test_what_stands_in_labels_stays_text_in_every_view(window, few_series):
    it = window("vic")
    page = opened(it, "?q=basket&show=table")
    expect(page.locator("[data-table]")).to_contain_text(EVIL)
    for view, place in (("Graph", ".legend"), ("Explain", ".tree")):
        page.get_by_role("button", name=view).click()
        if view == "Explain":
            page.get_by_role("button", name="value").click()
        expect(page.locator(place)).to_contain_text(EVIL.replace('"', '\\"'))
    editor = page.get_by_role("textbox", name="Query 1")
    editor.fill("")
    page.keyboard.type('basket{note="')
    expect(page.get_by_role("listbox").get_by_role("option")).to_contain_text(EVIL)
    page.keyboard.press("Enter")
    expect(editor).to_have_value(f'basket{{note="{EVIL.replace(chr(34), chr(92) + chr(34))}"')
    page.keyboard.type("}")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".tree")).to_be_visible()
    assert page.locator("main img, main b:not(.suggestion-name b)").count() == 0
    assert (page.title() == "1", it.complaints) == (False, [])


def test_an_answer_is_taken_away_as_csv_in_which_no_label_is_a_formula(window, few_series):
    page = opened(window("vic"), "?q=basket&show=table")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    head, row, end = Path(download.value.path()).read_text().split("\n")
    assert (head, end) == ("time,value,__name__,formula,note", "")
    assert row.partition("Z,")[2] == "7,basket,'=1+1,\"" + EVIL.replace('"', '""') + '"'


def test_the_tree_tells_what_each_part_gave_and_marks_it(window, few_series):
    page = opened(window("vic"), "?q=sum by (shop) (rate(orders_total[5m])) > 1&show=explain")
    rows = page.locator(".tree-row")
    expect(rows).to_have_count(5)
    expect(rows.nth(2)).to_contain_text(re.compile(r"rate\(orders_total\[5m\]\).*2"))
    page.get_by_role("button", name="rate(orders_total[5m])", exact=True).click()
    expect(page.locator(".is-marked")).to_have_text(["rate", "(", "orders_total", "[", "5m", "]", ")"])
    page.get_by_role("button", name="values").first.click()
    expect(page.locator(".tree-values").first).to_contain_text('{shop="north"}')


def test_an_empty_answer_is_explained(window, few_series):
    page = opened(window("vic"), "?q=orders_total > 1e9&show=graph")
    expect(page.locator("[data-verdict]")).to_contain_text("No series of this query has a value in this range")
    page.locator("[data-verdict]").get_by_role("button", name="Explain").click()
    expect(page.locator(".tree-row").first).to_contain_text("no series")
    expect(page.locator(".tree-row").nth(1)).to_contain_text("2")


def test_a_query_over_the_budget_says_which_and_is_not_run(window, few_series, request):
    QueryBudget.objects.create(role="viewer", series=1, samples=1_000_000, points=1_000_000, seconds=30)
    budgets.forget()
    request.addfinalizer(budgets.forget)
    it, asked = window("vic"), []
    it.page.on("request", lambda request: asked.append(request.url) if RANGE.search(request.url) else None)
    page = opened(it, "?q=orders_total")
    verdict = page.locator("[data-verdict]")
    expect(verdict).to_contain_text("over your budget and was not run")
    expect(verdict.locator(".is-over")).to_contain_text(re.compile("Series.*2 of 1"))
    expect(page.get_by_role("button", name="Run anyway")).to_have_count(0)
    assert (asked, it.complaints) == ([], [])


def told(cost: dict[str, object]) -> bytes:
    """An answer of the cost's address in its documented form."""
    budget = {"series": 100, "samples": 1000, "points": 1000, "seconds": 30}
    data = {"series": 80, "samples": 900, "points": 10, "steps": 1, "heavy": False, "refused": None, "budget": budget}
    return orjson.dumps({"status": "success", "data": data | cost})


def test_a_heavy_query_runs_only_after_a_yes(window, few_series):
    it, asked = window("vic"), []
    it.page.route(COST, lambda route: route.fulfill(body=told({"heavy": True}), content_type="application/json"))
    it.page.on("request", lambda request: asked.append(request.url) if RANGE.search(request.url) else None)
    page = opened(it, "?q=orders_total")
    expect(page.locator("[data-verdict]")).to_contain_text("900 of 1,000")
    expect(page.get_by_role("meter", name="Samples: 900 of 1000")).to_be_visible()
    assert asked == []
    page.get_by_role("button", name="Run anyway").click()
    expect(page.locator("[data-graph] canvas")).to_be_visible()
    assert len(asked) == 1


def test_a_running_query_is_cancelled(window, few_series):
    it = window("vic")
    it.page.route(RANGE, lambda route: None)  # an answer that does not come
    page = opened(it)
    page.keyboard.type("orders_total")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-elapsed]")).to_contain_text("Running for")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-verdict]")).to_contain_text("Cancelled")
    page.unroute(RANGE)
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("[data-graph] canvas")).to_be_visible()


def test_each_kind_of_error_is_told(window, few_series):
    it = window("vic")
    page = opened(it)
    page.get_by_role("textbox", name="Query 1").fill("orders_total")
    for kind, status, title in (
        ("execution", 422, "The query cannot be answered"),
        ("timeout", 503, "The query took too long"),
        ("unavailable", 503, "The portal cannot answer now"),
        ("internal", 500, "The portal could not answer"),
    ):
        body = {"status": "error", "errorType": kind, "error": f"It was {kind}."}
        page.route(RANGE, lambda route, _, status=status, body=body: route.fulfill(status=status, json=body))
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("[data-verdict]")).to_contain_text(re.compile(f"{title}.*It was {kind}"))
        page.unroute(RANGE)


def test_edits_are_told_from_what_was_answered(window, few_series):
    page = opened(window("vic"), "?q=orders_total&show=table")
    expect(page.locator("[data-table] td.value")).to_have_count(2)
    page.get_by_role("textbox", name="Query 1").fill("orders_total * 2")
    expect(page.get_by_text("Edited since")).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Edited since")).to_be_hidden()


def test_queries_are_added_and_removed_and_remembered_until_they_are_cleared(window, few_series):
    page = opened(window("vic"), "?q=orders_total&show=table")
    page.get_by_role("button", name="Add query").click()
    expect(page.get_by_role("textbox", name="Query 2")).to_be_focused()
    page.keyboard.type("basket")
    page.keyboard.press("Control+Enter")
    expect(page).to_have_url(re.compile("q=orders_total&show=table&q=basket&show=graph"))
    expect(page.locator("[data-graph] canvas")).to_be_visible()
    page.get_by_role("region", name="Query 1").get_by_role("button", name="Remove").click()
    expect(page).not_to_have_url(re.compile("orders_total"))
    page.get_by_role("button", name="History").click()
    dialog = page.get_by_role("dialog", name="Queries before")
    dialog.get_by_role("button", name="orders_total").click()
    expect(page.locator(".legend tbody tr")).to_have_count(2)
    page.get_by_role("button", name="History").click()
    dialog.get_by_role("button", name="Clear").click()
    expect(dialog).to_contain_text("in this browser only")
    assert page.evaluate("Object.keys(localStorage).filter((k) => k.includes('explore'))") == []


def test_a_rule_is_made_of_a_query_by_those_who_may(window, few_series):
    page = opened(window("ada"), "?q=orders_total > 5")
    page.get_by_role("link", name="Create rule").click()
    expect(page.locator("#id_expression")).to_have_value("orders_total > 5")
    page = opened(window("vic"), "?q=orders_total > 5")
    expect(page.get_by_role("link", name="Create rule")).to_be_hidden()
