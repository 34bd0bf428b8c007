"""Incidents, silences and services as people see and use them: after the shipped storm, in every look."""

import os
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone
from playwright.sync_api import expect

from apps.accounts.permissions import Principal
from apps.alerting import services, storm
from apps.alerting.models import Alert, Incident, Inhibition, Service, Silence
from apps.oncall import telling
from tests.browser import scene
from tests.browser.conftest import LOOKS, picture
from tests.browser.test_look import CONTRAST, NAMELESS

BY = Principal.system("test")


@pytest.fixture
def stormy(mara: Principal) -> Incident:
    """The storm of ten minutes ago: told, with a silence, a window and an inhibition rule."""
    now = timezone.now()
    scene.write_people_to_tell(now=now)
    found = storm.read((settings.BASE_DIR / "fixtures" / "storm.yaml").read_text())
    made = {name: Service.objects.create(name=name) for name in found.services}
    for name, parents in found.services.items():
        services.save_service(by=BY, values={}, depends_on=[made[p] for p in parents], service=made[name], now=now)
    for one in found.of("database", "images"):
        at = now - timedelta(minutes=10) + one.after
        services.post_alert(
            by=BY, type=one.name, severity=one.severity, message=one.message, service=one.service, now=at
        )
    services.silence(
        by=mara, matchers=['alertname="QueueBacklog"'], ends_at=now + timedelta(hours=2), comment="Known, #812", now=now
    )
    window = {
        "name": "Upgrade of the CDN",
        "service": made["cdn"],
        "starts_at": now,
        "ends_at": now + timedelta(hours=1),
    }
    services.save_window(by=BY, values=window, now=now)
    sides = {"source_matchers": ['severity="critical"'], "target_matchers": ['severity="warning"']}
    services.save_inhibition(by=BY, values={"name": "Worse says it", "equal": ["service"], **sides}, now=now)
    for minutes in (9, 5, 0):
        telling.tell(now=now - timedelta(minutes=minutes), limit=1000)
        telling.flush(now=now - timedelta(minutes=minutes), limit=1000)
    return Incident.objects.get(cause__service="postgres")


def pages(incident: Incident) -> dict[str, str]:
    alert = Alert.objects.active().filter(incident=incident, type="PostgresDown").get()
    return {
        "incidents": "/monitoring/incidents/",
        "incident": f"/monitoring/incidents/{incident.pk}/",
        "quiet": "/monitoring/quiet/",
        "maintenance": "/monitoring/quiet/?tab=maintenance",
        "inhibition": "/monitoring/quiet/?tab=inhibition",
        "silence": f"/monitoring/quiet/new/?alert={alert.key}",
        "services": "/monitoring/services/",
        "foresight": "/monitoring/alerts/?tab=notifications&labels=severity%3D%22critical%22",
    }


def test_the_pages_of_incidents_and_quiet_are_sound(window, stormy):
    assert Inhibition.objects.exists()
    words = "The archive of letters and pictures of the laboratory is full in four days"
    services.post_alert(by=BY, type="Archive", severity="warning", message=words, service="archive", now=timezone.now())
    for name, path in pages(stormy).items():
        for look in LOOKS:
            it = window("ada", look)
            page = it.go(path)
            assert (name, look, it.complaints) == (name, look, [])
            assert (name, look, it.overflow()) == (name, look, [])
            assert (name, look, page.evaluate(CONTRAST)) == (name, look, [])
            assert (name, look, page.evaluate(NAMELESS)) == (name, look, [])
            if os.environ.get("PORTAL_SCREENSHOTS"):
                page.wait_for_timeout(300)
                page.screenshot(path=picture(f"{name}-{look}"))


def test_an_alert_is_silenced_in_two_clicks_and_the_preview_follows_what_is_typed(window, stormy):
    alert = Alert.objects.active().filter(type="PostgresDown").get()
    page = window("mara").go(f"/monitoring/alerts/{alert.key}/")
    page.get_by_role("button", name="Silence").click()
    preview = page.locator("[data-preview]")
    expect(preview).to_contain_text("1 active alert")
    before = Silence.objects.count()
    page.get_by_label("Alerts that all of these match").fill('service=~"auth|orders"')
    expect(preview).to_contain_text("24 active alerts")
    page.get_by_label("Alerts that all of these match").fill('service=~"(auth"')
    expect(preview).to_contain_text("holds no regular expression that can be used")
    page.go_back()
    page.get_by_role("button", name="Silence").click()
    page.get_by_role("button", name="Silence").click()
    expect(page.get_by_role("heading", name="Silences", exact=True)).to_be_visible()
    assert Silence.objects.count() == before + 1


def test_an_open_incident_follows_what_happens_and_is_split_and_merged(window, stormy):
    page = window("mara").go(f"/monitoring/incidents/{stormy.pk}/")
    services.acknowledge_incident(by=BY, incident=stormy, now=timezone.now())
    expect(page.locator(".verdict-text")).to_contain_text("test is on it")
    page.locator("input[name=alert]").first.check()
    with page.expect_navigation():
        page.get_by_role("button", name="Split off the chosen").click()
    own = Incident.objects.latest("pk")
    assert own.alerts.count() == 1
    page.get_by_label("Another open incident that is the same fault").select_option(str(own.pk))
    with page.expect_navigation():
        page.get_by_role("button", name="Merge into this one").click()
    expect(page.locator(".facts").first).to_contain_text("by hand")
    own.refresh_from_db()
    assert own.merged_into == stormy
