"""Quiet holds pages back and nothing else: what outlives it is told, and every firing that was told has its end."""

import contextlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.models import User
from apps.accounts.rights import ROLES, Principal
from apps.alerting import services as alerting
from apps.alerting.models import (
    Alert,
    Incident,
    Inhibition,
    MaintenanceWindow,
    QuietChange,
    Service,
    Silence,
    Transition,
)
from apps.notifications.models import Delivery
from apps.oncall import reminders, telling
from apps.oncall.models import Escalation, GroupMember, Notice, NotificationGroup
from tests.oncall.conftest import BY, START, Night

HOUR = timedelta(hours=1)


def silence(night: Night, *matchers: str, minutes: float = 60, **values: Any) -> Silence:
    ends_at = night.now + timedelta(minutes=minutes)
    return alerting.silence(by=BY, matchers=list(matchers), ends_at=ends_at, comment="known", now=night.now, **values)


def inhibit(night: Night, source: str, target: str, *equal: str) -> Inhibition:
    values = {"name": "rule", "source_matchers": [source], "target_matchers": [target], "equal": list(equal)}
    return alerting.save_inhibition(by=BY, values=values, now=night.now)


def depends(night: Night, child: str, *parents: str) -> None:
    made = [Service.objects.get_or_create(name=name)[0] for name in (child, *parents)]
    alerting.save_service(by=BY, values={}, depends_on=made[1:], service=made[0], now=night.now)


# --- Silences --------------------------------------------------------------------------------------------------------
def test_a_silenced_alert_is_told_when_the_silence_ends_if_it_goes_on(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    silence(night, 'alertname="disk"', minutes=60)
    night.fire("disk")
    night.fire("memory")
    night.wait(minutes=59)
    assert night.texts(slack) == "30s +memory"
    assert "silenced by test: known" in GroupMember.objects.get(alert__type="disk").held_by
    night.wait(minutes=2)
    assert night.texts(slack) == "30s +memory; 3600s +disk"
    assert Notice.objects.get(alert__type="disk").reason == "no longer muted"


def test_a_silence_that_is_ended_by_hand_lets_it_be_heard_at_once(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    row = silence(night, 'alertname="disk"')
    night.fire("disk")
    night.wait(minutes=10)
    alerting.expire_silence(by=BY, silence=row, now=night.now)
    night.wait(seconds=1)
    assert night.texts(slack) == "600s +disk"
    assert not QuietChange.objects.exists()


def test_what_ends_while_it_is_silenced_is_told_to_whom_knew_of_it_and_to_nobody_else(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    disk = night.fire("disk")
    night.wait(minutes=1)
    silence(night, 'alertname=~"disk|memory"')
    memory = night.fire("memory")
    night.wait(minutes=5)
    night.end(disk)
    night.end(memory)
    night.wait(minutes=90)
    assert night.texts(slack) == "30s +disk; 390s -disk"


def test_a_silenced_alert_is_not_repeated_nor_escalated_and_goes_on_where_it_was(night: Night):
    anna = night.contact("anna")
    plan = night.policy(("wait", {"minutes": 10}), ("notify", {"contacts": [anna.pk]}))
    slack = night.contact("slack")
    night.route("root", slack, policy=plan, repeat_interval=timedelta(minutes=20))
    night.fire("disk")
    night.wait(minutes=2)
    row = silence(night, 'alertname="disk"', minutes=600)
    night.wait(minutes=60)
    assert (night.texts(slack), night.texts(anna)) == ("30s +disk", "")
    assert night.escalation.reason.startswith("held back: silenced")
    alerting.expire_silence(by=BY, silence=row, now=night.now)
    night.wait(minutes=2)
    assert night.texts(anna) == "3750s +disk"
    assert len(night.told(slack)) == 2


def test_a_recurring_silence_mutes_only_in_its_hours(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, repeat_interval=timedelta(hours=100))
    silence(night, 'alertname="disk"', minutes=60 * 24 * 7, recurrence="FREQ=DAILY", duration=HOUR)
    night.fire("disk")
    night.wait(minutes=61)
    assert night.texts(slack) == "3600s +disk"


def test_a_severity_that_the_silence_does_not_match_is_heard(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    silence(night, 'alertname="disk"', 'severity="warning"')
    disk = night.fire("disk")
    night.wait(minutes=1)
    Alert.objects.filter(pk=disk.pk).update(severity="critical", labels={**disk.labels, "severity": "critical"})
    Transition.objects.create(
        alert=disk, at=night.now, kind="severity", before="warning", after="critical", severity="critical", by="test",
        reason="value", incident=disk.incident,
    )  # fmt: skip
    night.wait(seconds=1)
    assert [said for _, said in night.told(slack)] == ["+disk"]


def test_the_author_of_a_silence_is_reminded_once_an_hour_before_its_end(night: Night):
    anna = User.objects.create_user("anna")
    night.contact("annas phone", owner=anna)
    night.contact("everybody")
    by = Principal.of_user(anna)
    by = replace(by, rights=ROLES["operator"])
    alerting.silence(by=by, matchers=['alertname="disk"'], ends_at=START + 8 * HOUR, comment="known", now=night.now)
    for hours in (6, 7.1, 7.5, 9):
        reminders.remind(now=START + hours * HOUR)
    [delivery] = Delivery.objects.all()
    assert (delivery.contact_name, delivery.purpose) == ("annas phone", "reminder")
    assert delivery.message["title"] == 'Your silence ends at 06:00 UTC: alertname="disk"'


# --- Maintenance -----------------------------------------------------------------------------------------------------
def test_maintenance_mutes_its_service_and_what_outlives_it_is_told_at_its_end(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    db = Service.objects.create(name="db")
    values = {"name": "upgrade", "service": db, "starts_at": night.now, "ends_at": night.now + HOUR}
    window = alerting.save_window(by=BY, values=values, now=night.now)
    night.fire("disk", service="db")
    brief = night.fire("lag", service="db")
    night.fire("errors", service="web")
    night.wait(minutes=10)
    night.end(brief)
    night.wait(minutes=52)
    assert night.texts(slack) == "30s +errors; 3600s +disk"
    assert window.state(night.now) == "expired"


# --- Inhibition and dependencies -------------------------------------------------------------------------------------
def test_an_inhibited_alert_is_heard_when_its_source_ends(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, group_by=["..."])
    inhibit(night, 'alertname="down"', 'alertname="slow"', "service")
    down = night.fire("down", severity="critical", service="db")
    night.fire("slow", service="db")
    night.fire("slow", service="web")
    night.wait(minutes=10)
    assert sorted(night.texts(slack).split("; ")) == ["30s +down", "30s +slow"]
    night.end(down)
    night.wait(minutes=2)
    assert night.texts(slack) == "30s +down; 30s +slow; 600s +slow; 630s -down"


def test_the_failure_of_a_parent_mutes_pages_of_its_children_and_not_their_end(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, group_by=["..."])
    depends(night, "api", "db")
    depends(night, "web", "api")
    early = night.fire("errors", service="web")
    night.wait(minutes=1)
    night.fire("down", severity="critical", service="db")
    night.fire("latency", service="web")
    night.fire("timeouts", severity="critical", service="api")
    night.wait(minutes=1)
    night.end(early)
    night.wait(minutes=5)
    assert night.texts(slack) == "30s +errors; 90s +down; 150s -errors"
    night.end(Alert.objects.get(type="down"))
    night.wait(minutes=1)
    assert "+timeouts" in night.texts(slack)


def test_nothing_is_muted_by_what_only_warns(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    depends(night, "web", "db")
    night.fire("disk", service="db")
    night.fire("errors", service="web")
    night.wait(minutes=1)
    assert len(night.told(slack)) == 2


# --- The contract ----------------------------------------------------------------------------------------------------
NAMES = ("disk", "down", "slow")
STEPS = st.one_of(
    st.tuples(st.just("fire"), st.sampled_from(NAMES), st.sampled_from(["db", "web"])),
    st.tuples(st.just("end"), st.integers(0, 5), st.none()),
    st.tuples(st.just("acknowledge"), st.integers(0, 5), st.none()),
    st.tuples(st.just("fire"), st.sampled_from(NAMES), st.sampled_from(["db", "web"])),
    st.tuples(st.just("silence"), st.sampled_from(NAMES), st.sampled_from([3, 40])),
    st.tuples(st.just("unsilence"), st.integers(0, 3), st.none()),
    st.tuples(st.just("inhibit"), st.booleans(), st.none()),
    st.tuples(st.just("maintain"), st.sampled_from([5, 50]), st.none()),
    st.tuples(st.just("merge"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.2, 1, 6]), st.none()),
)


class Restarts(Exception):
    """The worker died in the middle of a tick."""


def act(night: Night, what: str, which: Any, more: Any) -> None:
    active = list(Alert.objects.active().order_by("pk"))
    match what:
        case "fire":
            night.fire(which, severity="critical" if which == "down" else "warning", service=more)
        case "end" if active:
            night.end(active[which % len(active)])
        case "acknowledge" if active:
            night.acknowledge(active[which % len(active)])
        case "silence":
            silence(night, f'alertname="{which}"', minutes=more)
        case "unsilence":
            rows = list(Silence.objects.current(night.now))
            if rows:
                alerting.expire_silence(by=BY, silence=rows[which % len(rows)], now=night.now)
        case "inhibit":
            Inhibition.objects.all().delete()
            if which:
                inhibit(night, 'alertname="down"', 'alertname="slow"')
        case "maintain":
            db = Service.objects.get(name="db")
            values = {
                "name": "work",
                "service": db,
                "starts_at": night.now,
                "ends_at": night.now + which * timedelta(minutes=1),
            }
            alerting.save_window(by=BY, values=values, now=night.now)
        case "merge" if len(active) > 1 and active[0].incident != active[-1].incident:
            one, other = active[0].incident, active[-1].incident
            assert one is not None
            assert other is not None
            alerting.merge_incidents(by=BY, incident=one, others=[other], now=night.now)
        case "restart":
            with contextlib.suppress(Restarts), transaction.atomic():
                telling.tell(now=night.now)
                telling.flush(now=night.now)
                raise Restarts
        case "wait":
            night.wait(minutes=which)


def clear() -> None:
    for model in (Notice, Escalation, GroupMember, NotificationGroup, Transition, Alert, Incident, Silence, Inhibition,
                  MaintenanceWindow, QuietChange, Delivery):  # fmt: skip
        model._default_manager.all().delete()


@pytest.mark.django_db
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=4, max_size=14))
def test_whoever_was_told_firing_is_told_resolved_and_nobody_else_is(steps, night: Night):
    """Whatever was silenced, inhibited, muted, moved or restarted in between."""
    clear()
    night.now = START
    if not Service.objects.exists():
        anna = night.contact("anna")
        plan = night.policy(("wait", {"minutes": 4}), ("notify", {"contacts": [anna.pk]}))
        night.route("root", night.contact("slack"), policy=plan, repeat_interval=timedelta(minutes=6))
        depends(night, "web", "db")
    for step in steps:
        act(night, *step)
    night.wait(minutes=2)
    for alert in Alert.objects.active():
        night.end(alert)
    night.wait(minutes=30)
    told = Counter(Notice.objects.values_list("contact_name", "alert", "group", "kind").distinct())
    firing = {row[:3] for row in told if row[3] == "firing"}
    resolved = {row[:3] for row in told if row[3] == "resolved"}
    assert {row[:2] for row in firing} == {row[:2] for row in resolved}
    assert resolved <= firing
    assert not GroupMember.objects.exists()
    assert not Escalation.objects.running().exists()
