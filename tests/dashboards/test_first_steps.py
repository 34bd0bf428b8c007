"""The first evening: each step knows by itself whether it is done, and the list goes for good when it is dismissed."""

import pytest
from django.utils import timezone

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import ROLES, Principal
from apps.alerting import services as alerting
from apps.alerting.models import AlertRule, RuleGroup
from apps.dashboards.first_steps import first_steps
from apps.notifications import services as notifications
from apps.notifications.models import Delivery
from apps.oncall import schedules
from apps.sources import heartbeats
from apps.sources.models import Heartbeat

pytestmark = pytest.mark.django_db
EDITOR = Principal("user", "7", "ed", ROLES["administrator"])


def done() -> list[str]:
    return [step.title for step in first_steps(EDITOR) if step.is_done]


def test_a_new_portal_has_nothing_done_and_every_step_ticks_itself(person):
    now = timezone.now()
    assert done() == []
    heartbeats.save_heartbeat(by=EDITOR, beat=Heartbeat(name="Backup"), now=now)
    assert done() == ["Connect something"]
    values = {"url": "https://hooks.example.com/x"}
    contact = notifications.save_contact(by=EDITOR, name="Hook", kind="webhook", values=values, now=now)
    assert done()[-1] == "Add a contact"
    Delivery.objects.filter(pk=notifications.send_test(by=EDITOR, contact=contact, now=now).pk).update(
        state="sent", attempts=1, finished_at=now
    )
    assert done()[-1] == "Send a test"
    rule = AlertRule(slug="hot", name="Hot", group=RuleGroup.objects.create(name="g"), expression="up")
    levels = [{"severity": "warning", "comparison": "<", "threshold": 1.0}]
    alerting.save_rule(by=EDITOR, rule=rule, levels=levels, now=now)
    assert done()[-1] == "Set a rule, with its preview"
    layer = {"name": "one", "people": [person("operator").pk], "starts_at": now}
    schedules.save_schedule(by=EDITOR, name="Week", layers=[layer])
    assert first_steps(EDITOR) == []


def test_the_list_is_for_those_who_may_set_up_and_goes_for_everybody_when_dismissed(client, person):
    def is_shown(role):
        client.force_login(person(role, name=f"{role}-{timezone.now().timestamp()}"))
        return "First steps" in client.get("/monitoring/").content.decode()

    assert [is_shown(role) for role in ("viewer", "operator", "editor", "administrator")] == [False, False, True, True]
    assert client.post("/monitoring/first-steps/dismiss/").status_code == 302
    assert not is_shown("editor")
    assert AuditEntry.objects.get(verb="dashboards.dismiss_first_steps").actor_name.startswith("administrator")
