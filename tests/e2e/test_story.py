"""One alert from a number to its end, through a running portal, with nothing faked."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN
from tests.e2e.receivers import Hooks, Mailbox, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 45


class Program:
    """An application with the token of the environment."""

    def __init__(self, portal: Portal) -> None:
        self.http = httpx.Client(base_url=portal.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)

    def push(self, seconds: float) -> None:
        body = {"type": "application", "metrics": [{"name": "checkout_seconds", "value": seconds}]}
        assert self.http.post("/api/monitoring/metrics", json=body).json()["accepted"] == 1

    def alerts(self, status: str) -> list[dict]:
        listed = self.http.get(f"/api/monitoring/alerts?status={status}").json()["alerts"]
        return [alert for alert in listed if alert["type"] == "checkout-slow"]


class Administrator:
    """A person with a session, over the API."""

    def __init__(self, portal: Portal) -> None:
        self.http = httpx.Client(base_url=portal.url, timeout=20)
        self.http.get("/accounts/login/")
        form = {"username": "admin", "password": portal.password}
        answer = self.http.post("/accounts/login/", data=form | {"csrfmiddlewaretoken": self.http.cookies["csrftoken"]})
        assert answer.status_code == 302, answer.text

    def send(self, method: str, path: str, body: object = None) -> dict:
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"]}
        answer = self.http.request(method, f"/api/v1/portal/{path}", json=body, headers=headers)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def rows(self, path: str) -> list[dict]:
        return self.send("GET", path)["results"]


def configure(admin: Administrator) -> tuple[str, str]:
    """Make the story's rule, policy and route; return the names of the webhook and of the e-mail contact."""
    by_kind = {row["kind"]: row["name"] for row in admin.rows("contacts/") if not row["is_fallback"]}
    hook, mail = by_kind["webhook"], by_kind["email"]
    steps = [
        {"kind": "notify", "config": {"contacts": [hook]}},
        {"kind": "wait", "config": {"minutes": 0.05}},
        {"kind": "notify", "config": {"contacts": [mail]}},
        {"kind": "wait", "config": {"minutes": 0.05}},
        {"kind": "repeat", "config": {"times": 50}},
    ]
    admin.send("POST", "policies/", {"name": "Story", "steps": steps})
    [root] = [row for row in admin.rows("routes/") if row["is_root"]]
    admin.send("PATCH", f"routes/{root['id']}/", {"group_wait": 0, "policy": "Story", "contacts": []})
    rule = {
        "id": "checkout-slow",
        "name": "Checkout is slow",
        "condition": "checkout_seconds > 5",
        "severity": "WARNING",
        "group": "story",
        "pending_period": 2,
        "cooldown": 1,
        "annotations": {"summary": "Checkout takes {{ $value }} s"},
    }
    admin.send("POST", "rules/", rule)
    [group] = [row for row in admin.rows("rule-groups/") if row["name"] == "story"]
    admin.send("PATCH", f"rule-groups/{group['id']}/", {"interval": 1})
    return hook, mail


def test_an_alert_from_the_first_number_to_the_last_message(
    portal: Portal,
    mailbox: Mailbox,
    hooks: Hooks,
    chromium: Browser,
    tmp_path: Path,
) -> None:
    admin, program = Administrator(portal), Program(portal)
    configure(admin)
    page = chromium.new_context(locale="en-US", base_url=portal.url).new_page()
    page.goto("/accounts/login/?next=/monitoring/alerts/")
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(portal.password)
    page.get_by_role("button", name=re.compile("log in|sign in", re.I)).click()
    page.wait_for_url("**/monitoring/alerts/")
    page.evaluate("window.notReloaded = true")

    program.push(9)
    row = page.get_by_text("Checkout takes 9 s").first
    expect(row).to_be_visible(timeout=PATIENCE * 1000)
    assert page.evaluate("window.notReloaded")
    until(lambda: "firing" in hooks.about("checkout-slow"), PATIENCE, "the webhook's firing message")
    until(lambda: mailbox.about("Checkout takes 9 s"), PATIENCE, "the e-mail of the second step")
    assert hooks.kept[-1][0]["authorization"] == "Bearer hook-token"
    [alert] = program.alerts("active")
    assert (alert["severity"], alert["acknowledged"]) == ("WARNING", False)

    page.goto(f"/monitoring/alerts/{alert['id']}/")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text(re.compile("acknowledged", re.I)).first).to_be_visible()
    [alert] = until(
        lambda: [found for found in program.alerts("active") if found["acknowledged"]], PATIENCE, "the acknowledgement"
    )
    assert alert["acknowledgedBy"] == "admin"
    [incident] = [row["incident"] for row in admin.rows("alerts/") if row["key"] == alert["id"]]
    until(
        lambda: {"acknowledged"} == {row["state"] for row in admin.rows("escalations/") if row["incident"] == incident},
        PATIENCE,
        "every escalation of the incident to be stopped by the acknowledgement",
    )
    told = (len(hooks.about("checkout-slow")), len(mailbox.about("Checkout takes")))
    page.wait_for_timeout(8_000)
    assert (len(hooks.about("checkout-slow")), len(mailbox.about("Checkout takes"))) == told

    page.evaluate("window.notReloaded = true")
    program.push(1)
    until(lambda: "resolved" in hooks.about("checkout-slow"), PATIENCE, "the webhook's resolved message")
    until(lambda: [s for s in mailbox.about("Checkout takes") if "RESOLVED" in s.upper()], PATIENCE, "its e-mail")
    expect(page.get_by_text(re.compile("resolved", re.I)).first).to_be_visible(timeout=PATIENCE * 1000)
    assert page.evaluate("window.notReloaded")
    assert program.alerts("active") == []
    [ended] = program.alerts("history")
    assert (ended["id"], ended["resolved"]) == (alert["id"], True)

    steps = [row for row in admin.rows("transitions/?limit=100") if row["alert"] == alert["id"]]
    steps.sort(key=lambda row: row["at"])
    assert [(step["kind"], step["after"]) for step in steps if step["kind"] == "state"] == [
        ("state", "pending"),
        ("state", "firing"),
        ("state", "resolved"),
    ]
    assert "acknowledged" in [step["kind"] for step in steps]
    entries = {entry["verb"]: entry for entry in admin.rows("audit/?page_size=100")}
    assert {"alerting.acknowledge", "oncall.save_policy", "oncall.save_route", "alerting.save_rule"} <= set(entries)
    assert (entries["alerting.acknowledge"]["actor_name"], entries["alerting.acknowledge"]["via"]) == ("admin", "page")
