"""The page of logs as people use it: live, by keyboard, filtered, zoomed, further back."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.sources.logs import services
from apps.sources.logs.records import Record
from tests.browser import scene

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def write(*rows: tuple[str, str, str], ago: float = 0) -> None:
    now = timezone.now()
    at = int((now - timedelta(seconds=ago)).timestamp() * 1000)
    records = [
        Record(at - n, level, service, "h1", words, '{"user":"7"}') for n, (service, level, words) in enumerate(rows)
    ]
    services.ingest(records=records, by=scene.BY, now=now)


def test_records_appear_live_open_by_keyboard_and_are_narrowed(window):
    write(("shop", "info", "order 1 is there"), ("pay", "error", "<b>card</b> refused\nTraceback: line two"), ago=60)
    page = window("vic").go("/monitoring/logs/?range=15m")
    rows = page.locator(".log-lines > li")
    expect(rows).to_have_count(2)
    write(("shop", "warning", "order 2 is late"))
    expect(rows.first).to_contain_text("order 2 is late")
    expect(page.locator("[data-panel=logs] canvas")).to_be_visible()
    summary = page.locator("summary", has_text="<b>card</b> refused")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".log-more pre")).to_have_text("<b>card</b> refused\nTraceback: line two")
    expect(page.locator(".log-more .facts")).to_contain_text("user")
    page.get_by_role("link", name="Only this service").click()
    expect(page).to_have_url(re.compile(r"range=15m.*service=pay"))
    expect(rows).to_have_count(1)
    page.get_by_label("Text").fill("nothing like it")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("[data-log-body]")).to_contain_text("No records in this range")
    expect(page).to_have_url(re.compile("range=15m"))


def test_a_drag_over_the_chart_narrows_the_list_and_back_widens_it(window):
    write(("shop", "info", "late"), ago=30)
    write(("shop", "error", "early"), ago=780)
    page = window("vic").go("/monitoring/logs/?range=15m")
    rows = page.locator(".log-lines > li")
    expect(rows).to_have_count(2)
    over = page.locator("[data-panel=logs] .u-over")
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.05, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from="))
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("early")
    page.go_back()
    expect(rows).to_have_count(2)


def test_older_records_are_fetched_on_demand_and_templates_lead_to_theirs(window):
    write(*(("shop", "info", f"order {n} is there") for n in range(150)), ago=60)
    page = window("vic").go("/monitoring/logs/?range=15m")
    rows = page.locator(".log-lines > li")
    expect(rows).to_have_count(100)
    page.get_by_role("button", name="Older records").click()
    expect(rows).to_have_count(150)
    page.get_by_role("link", name="Templates").click()
    page.get_by_role("link", name="order <num> is there").click()
    expect(page.locator(".log-chosen")).to_contain_text("order <num> is there")
    expect(rows).to_have_count(100)
