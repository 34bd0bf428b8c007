"""Each live page shows a change without a reload, and says when what it shows is old, on its way or refused."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.accounts.models import User
from apps.accounts.permissions import Principal
from apps.alerting import services as alerting
from apps.dashboards import services as dashboards
from apps.metrics import budgets
from apps.metrics import services as metrics
from apps.metrics.models import QueryBudget
from apps.metrics.samples import Samples
from apps.oncall import schedules
from apps.oncall.models import Schedule
from apps.sources import checks, heartbeats
from apps.sources import services as sources
from apps.sources.heartbeats import Call
from apps.sources.models import Check, Heartbeat, ScrapeJob
from tests.browser import scene

pytestmark = pytest.mark.slow
BY = Principal.system("test", via="command")
HOUR = timedelta(hours=1)


def post(message, service="shop"):
    return alerting.post_alert(
        by=BY, type=service, severity="critical", message=message, service=service, now=timezone.now()
    )


def check(name):
    return checks.save_check(
        by=BY, check=Check(name=name, kind="tcp"), values={"address": "shop.example:1"}, now=timezone.now()
    )


def lift(name):
    jonas = User.objects.get(username=name)
    now = timezone.now()
    schedules.override(
        by=BY, schedule=Schedule.objects.get(), person=jonas, starts_at=now - HOUR, ends_at=now + HOUR, reason="Ill"
    )


def test_a_change_reaches_every_live_page_without_a_reload(window, people):
    now = timezone.now()
    beat = heartbeats.save_heartbeat(by=BY, beat=Heartbeat(name="Backup", period=HOUR), now=now)
    layer = {"name": "All", "people": [people["mara"].pk], "starts_at": now - timedelta(days=3)}
    schedules.save_schedule(by=BY, name="Shop", zone="UTC", layers=[layer])
    dashboards.save_dashboard(by=BY, now=now, values={
        "title": "Wall", "document": {"panels": [{"id": "alerts", "kind": "alertlist"}]},
    })  # fmt: skip
    alert = post("Slow search")
    cases = [
        ("/monitoring/", lambda: post("The door is open"), "The door is open"),
        ("/monitoring/alerts/", lambda: post("The lift is stuck"), "The lift is stuck"),
        ("/monitoring/incidents/", lambda: post("The cellar is wet", "cellar"), "The cellar is wet"),
        (f"/monitoring/incidents/{alert.incident_id}/",
         lambda: alerting.acknowledge(by=Principal.of_user(people["ada"]), alert=alert, now=timezone.now()), "ada"),
        ("/monitoring/quiet/", lambda: alerting.silence(
            by=BY, matchers=['service="mail"'], starts_at=timezone.now(), ends_at=timezone.now() + HOUR,
            comment="New disks", now=timezone.now()), "New disks"),
        ("/monitoring/checks/", lambda: check("Booking"), "Booking"),
        (f"/monitoring/heartbeats/{beat.pk}/", lambda: heartbeats.ping(
            beat=beat, call=Call("fail", body="Disk full", address="192.0.2.7", agent="curl"), now=timezone.now()),
         "Disk full"),
        ("/monitoring/targets/", lambda: sources.save_job(
            by=BY, job=ScrapeJob(name="node", targets=[{"targets": ["web-7:9100"], "labels": {}}]),
            now=timezone.now()), "web-7:9100"),
        ("/monitoring/on-call/", lambda: lift("ada"), "ada"),
        ("/monitoring/dashboards/wall/", lambda: post("The roof is gone"), "The roof is gone"),
    ]  # fmt: skip
    it = window("vic")
    for path, change, words in cases:
        page = it.go(path)
        page.evaluate("window.stillHere = true")
        main = page.locator("main")
        seen = main.get_by_text(words).count()
        change()
        expect(main.get_by_text(words).nth(seen), path).to_be_visible(timeout=20_000)
        assert page.evaluate("window.stillHere"), path


def test_old_data_a_lost_connection_and_what_is_on_its_way_are_marked(window, people):
    now = timezone.now()
    stamps = [int((now - timedelta(minutes=minutes)).timestamp()) // 15 * 15_000 for minutes in (20, 15, 10)]
    samples = Samples.of([{"__name__": "errorRate"}] * 3, stamps, [1.0, 2.0, 1.5])
    metrics.backfill(samples=samples, by=scene.BY, now=now)
    it = window("vic")
    it.page.route(re.compile("/monitoring/data/"), lambda route: None)  # an answer that does not come
    it.page.route_web_socket(re.compile("/ws/live"), lambda socket: socket.close(code=1012))
    page = it.page
    page.goto(it.server + "/monitoring/performance/")
    panel = page.locator("[data-panel=error-rate]")
    expect(panel.locator(".panel-state.loading")).to_be_visible()
    expect(panel.get_by_text("Loading Error rate")).to_be_attached()
    page.unroute(re.compile("/monitoring/data/"))
    page.keyboard.press("r")
    expect(panel.locator("[data-panel-note]")).to_have_text(re.compile("no new data since"))
    # The server has gone: the page says that it is not live any more, and each chart what it could not get.
    expect(page.locator("[data-live-text]")).to_have_text("not live", timeout=15_000)
    page.route(re.compile("/monitoring/data/"), lambda route: route.abort())
    page.keyboard.press("r")
    expect(panel).to_contain_text("The portal does not answer.")


def test_a_panel_beyond_the_readers_budget_says_what_it_would_cost(window, people):
    scene.write_hour(now=timezone.now())
    budget = {"series": 1, "samples": 100_000, "points": 100_000, "seconds": 30}
    QueryBudget.objects.update_or_create(role="viewer", defaults=budget)
    budgets.forget()
    panel = {"id": "cpu", "kind": "timeseries", "title": "CPU", "queries": [{"expression": "node_cpu_seconds_total"}]}
    dashboards.save_dashboard(by=BY, now=timezone.now(), values={"title": "Dear", "document": {"panels": [panel]}})
    try:
        page = window("vic").go("/monitoring/dashboards/dear/")
        expect(page.locator("[data-panel=cpu]")).to_contain_text("This could not be loaded")
        expect(page.locator("[data-panel=cpu]")).to_contain_text(re.compile("series"))
        expect(page.locator("[data-panel=cpu]").get_by_role("button", name="Try again")).to_be_visible()
    finally:
        budgets.forget()


def test_the_dialog_of_a_range_is_worked_by_keyboard_alone(window, people):
    page = window("vic").go("/monitoring/performance/")
    opener = page.locator("[data-custom]")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("[data-custom-range]")
    expect(dialog).to_be_visible()
    for _ in range(12):  # what lies behind is not reached
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
