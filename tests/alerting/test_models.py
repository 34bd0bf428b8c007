"""The tables refuse what cannot be, and answer the questions that pages ask."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from apps.alerting.models import Alert, AlertRule, Incident, RuleGroup, RuleLevel

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def make_rule(slug: str = "slow-response", **kw: object) -> AlertRule:
    group = RuleGroup.objects.get_or_create(name="house")[0]
    given = {"name": slug, "group": group, "expression": "responseTime", "created_at": NOW, "updated_at": NOW}
    return AlertRule.objects.create(slug=slug, **{**given, **kw})


def make_incident() -> Incident:
    return Incident.objects.create(title="Slow", severity="warning", opened_at=NOW)


def make_alert(**kw: object) -> Alert:
    given: dict[str, object] = {
        "type": "slow-response",
        "category": "performance",
        "fingerprint": b"0" * 16,
        "state": "pending",
        "severity": "warning",
        "seen_at": NOW,
        "pending_at": NOW,
    }
    return Alert.objects.create(**{**given, **kw})


FIRING = {"state": "firing", "fired_at": NOW}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": None},
        {"state": "firing"},
        {"state": "resolved", "fired_at": NOW},
        {"state": "inactive", "resolved_at": NOW},
        {"state": "inactive", "resolve_reason": "value"},
        {"resolved_at": NOW},
        {"resolved_by": "alice"},
        {"acknowledged_by": "alice"},
        {"acknowledged_at": NOW, "acknowledged_by": "alice"},
        {"state": "recovering", "fired_at": NOW},
        {"held_until": NOW},
    ],
)
def test_an_impossible_alert_is_refused_by_the_table(wrong: dict[str, object]) -> None:
    rule = make_rule()
    if wrong.get("fired_at"):
        wrong = {**wrong, "incident": make_incident()}
    with pytest.raises(IntegrityError), transaction.atomic():
        make_alert(**{"rule": rule, **wrong})


def test_a_series_has_one_open_alert_a_rule_and_any_number_of_ended_ones() -> None:
    rule = make_rule()
    ended = {"state": "inactive", "resolved_at": NOW, "resolve_reason": "value"}
    make_alert(rule=rule, **ended)
    make_alert(rule=rule, **ended)
    make_alert(rule=rule)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_alert(rule=rule)
    make_alert(rule=make_rule("other"))


def test_active_is_what_is_wrong_now_and_history_is_what_ever_fired() -> None:
    rule = make_rule()
    make_alert(rule=rule)
    firing = make_alert(rule=rule, fingerprint=b"1" * 16, incident=make_incident(), **FIRING)
    ended = make_alert(
        rule=rule,
        fingerprint=b"2" * 16,
        incident=make_incident(),
        state="resolved",
        fired_at=NOW - timedelta(hours=1),
        resolved_at=NOW,
        resolve_reason="value",
    )
    assert list(Alert.objects.active()) == [firing]
    assert list(Alert.objects.history()) == [firing, ended]
    assert Alert.objects.open().count() == 2


@pytest.mark.parametrize(
    ("comparison", "threshold"), [("", 1.0), (">", None)], ids=["threshold alone", "comparison alone"]
)
def test_a_level_compares_with_a_threshold_or_not_at_all(comparison: str, threshold: float | None) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        RuleLevel.objects.create(rule=make_rule(), severity="warning", comparison=comparison, threshold=threshold)
