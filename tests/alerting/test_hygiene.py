"""What is noise, what is proposed against it, and what the report says of rules at work."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import AuditEntry, User
from apps.alerting import hygiene, services, upkeep
from apps.alerting.hygiene import Firing
from apps.alerting.lifecycle import Severity
from apps.alerting.models import Alert, AlertRule, RuleTest
from apps.alerting.thresholds import Level
from tests.alerting.conftest import SETUP, World
from tests.house.rows import make

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOT = Level(Severity.WARNING, ">", 80.0)


def fired(
    hours: float, minutes: float | None, *, acted: bool = False, value: float = 85.0, series: bytes = b"a"
) -> Firing:
    begin = NOW - timedelta(hours=hours)
    return Firing(series, begin, None if minutes is None else begin + timedelta(minutes=minutes), acted, value)


def test_each_firing_is_acted_on_ended_by_itself_or_ignored() -> None:
    found = hygiene.count([fired(9, 2), fired(8, 60), fired(7, 2, acted=True), fired(6, None), fired(0.1, None)], NOW)
    assert (found.fired, found.acted_on, found.self_resolved, found.ignored) == (5, 1, 1, 2)
    assert found.noise == pytest.approx(0.6)


def test_a_series_that_is_back_within_the_hour_flapped() -> None:
    assert hygiene.count([fired(9, 2), fired(8.5, 2), fired(3, 2), fired(2.9, 2, series=b"b")], NOW).flapped == 1


def test_what_was_over_soon_asks_for_a_longer_wait() -> None:
    offered = hygiene.proposals([fired(n, 3) for n in range(20, 30, 2)], timedelta(minutes=1), [], NOW)
    assert [(each.kind, each.value, each.spared) for each in offered] == [("wait", 300.0, 5)]


def test_values_that_nobody_cared_for_ask_for_another_threshold_but_never_beyond_one_that_somebody_did() -> None:
    idle = [fired(3 * n, 40, value=81.0 + n) for n in range(8)]
    offered = hygiene.proposals(idle, timedelta(0), [HOT], NOW)
    assert [(each.kind, each.value, each.severity) for each in offered] == [("threshold", 87.0, "warning")]
    cared = [*idle, fired(40, 40, acted=True, value=84.0)]
    assert hygiene.proposals(cared, timedelta(0), [HOT], NOW) == []


def test_a_flapping_level_is_offered_a_recovery() -> None:
    flapping = [fired(10 - n / 2, 20, acted=True) for n in range(6)]
    assert [(each.kind, each.value) for each in hygiene.proposals(flapping, timedelta(0), [HOT], NOW)] == [
        ("recovery", 72.0)
    ]
    calm = Level(Severity.WARNING, ">", 80.0, 70.0)
    assert hygiene.proposals(flapping, timedelta(0), [calm], NOW) == []


def test_a_few_firings_teach_nothing() -> None:
    assert hygiene.proposals([fired(9, 2), fired(8, 2)], timedelta(0), [HOT], NOW) == []


def test_what_does_not_exist_is_named_with_what_was_probably_meant() -> None:
    lines = hygiene.why_nothing(
        {"node_lod1": [], "up": [("job", "nodes")]}, ["node_load1", "up"], {"job": ["node", "portal"]}
    )
    assert lines == [
        "There is no metric node_lod1. Did you mean node_load1?",
        'No series of up has job="nodes". Did you mean node?',
    ]


@pytest.fixture
def noisy(world: World) -> AlertRule:
    """A rule that fired four times for seconds."""
    rule = world.rule(levels=[("warning", ">", 80.0)], runbook="")
    world.rule("lost", "temperatur > 1", levels=[("warning", "", None)], runbook="Look.")
    for _ in range(4):
        world.tick(90.0)
        for _ in range(3):
            world.tick(20.0)
    assert Alert.objects.filter(rule=rule).count() == 4
    return rule


def test_the_report_tells_what_each_rule_needs(noisy: AlertRule, world: World) -> None:
    noisy.review_on = world.now.date()
    noisy.save()
    found = upkeep.report(start=world.now - timedelta(days=1), end=world.now, today=world.now.date())
    by_slug = {each.rule.slug: each for each in found.rules}
    hot, lost = by_slug["hot"], by_slug["lost"]
    assert found.rules[0] is hot
    assert (hot.noise.fired, hot.noise.self_resolved, hot.lacks_runbook, hot.due) == (4, 4, True, True)
    assert "wait" in {each.kind for each in hot.proposals}
    assert lost.matches == 0
    assert lost.nothing == ("There is no metric temperatur. Did you mean temperature?",)


def test_a_proposal_is_tried_and_taken_over(noisy: AlertRule, world: World) -> None:
    offered = upkeep.proposals_of(noisy, start=world.now - timedelta(days=1), end=world.now)
    longer = next(each for each in offered if each.kind == "wait")
    tried = upkeep.compare(noisy, longer, by=SETUP, now=world.now)
    assert not tried["problem"]
    assert tried["rows"][0] == ("Alerts", 4, 0)
    services.apply_proposal(by=SETUP, rule=noisy, proposal=longer, now=world.now)
    noisy.refresh_from_db()
    assert noisy.pending_period == timedelta(seconds=longer.value)


def test_a_proposal_is_taken_over_although_a_unit_test_expects_the_rule_as_it_was(
    noisy: AlertRule, world: World
) -> None:
    text = """
tests:
- interval: 1m
  input_series: [{series: temperature, values: 85 85}]
  alert_rule_test: [{alertname: Hot, eval_time: 0m, exp_alerts: [{exp_labels: {severity: warning}}]}]
"""
    services.save_rule_test(by=SETUP, test=RuleTest(rule=noisy, name="at once", text=text), now=world.now)
    offered = upkeep.proposals_of(noisy, start=world.now - timedelta(days=1), end=world.now)
    longer = next(each for each in offered if each.kind == "wait")
    services.apply_proposal(by=SETUP, rule=noisy, proposal=longer, now=world.now)
    assert AlertRule.objects.get(pk=noisy.pk).pending_period == timedelta(seconds=longer.value)
    entry = AuditEntry.objects.filter(verb="alerting.save_rule").latest("id")
    assert entry.after is not None
    assert entry.after["saved_although_failed"] == ["at once"]


@pytest.fixture
def editor(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_the_page_and_the_table_open(
    noisy: AlertRule, editor: Any, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: world.now)
    page = editor.get("/monitoring/alerts/?tab=hygiene").content.decode()
    assert "Wait longer" in page
    assert "Did you mean temperature?" in page
    table = editor.get("/monitoring/hygiene.csv").content.decode().splitlines()
    assert table[0].startswith("rule,name,fired")
    assert table[1].startswith("hot,Hot,4")
    assert editor.get("/monitoring/hygiene/hot/wait/").status_code == 200
    assert editor.post("/monitoring/hygiene/hot/wait/").status_code == 302
    assert AlertRule.objects.get(slug="hot").pending_period > timedelta(0)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("severity", "annotations", "lacks"),
    [
        ("critical", {}, (True, True)),
        ("critical", {"summary": "{{ $value }} is too much", "runbook_url": "https://wiki.example/"}, (False, False)),
        ("warning", {"runbook": "Look at it."}, (False, False)),
    ],
)
def test_a_rule_that_wakes_people_says_what_is_wrong_and_what_to_do(
    severity: str, annotations: dict[str, str], lacks: tuple[bool, bool]
) -> None:
    rule = make("alerting.alertrule", runbook="", annotations=annotations, group=make("alerting.rulegroup"))
    make("alerting.rulelevel", rule=rule, severity=severity)
    at = datetime(2026, 11, 29, tzinfo=UTC)
    [found] = upkeep.report(start=at - timedelta(days=1), end=at, today=at.date()).rules
    assert (found.lacks_summary, found.lacks_runbook) == lacks
