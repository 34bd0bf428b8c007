"""Preview: the same transitions as the live path, from history; budgets, scope, roll-ups and suggestions."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.permissions import Principal
from apps.accounts.rights import Right, Scope
from apps.alerting import preview
from apps.alerting.lifecycle import Severity
from apps.alerting.models import Alert, AlertRule, Transition
from apps.alerting.plans import rule_plan
from apps.alerting.preview import Preview, Progress, Refused, Span
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from tests.alerting.conftest import SETUP, START, World

TICK = timedelta(seconds=10)


def stamp(tick: int) -> int:
    return int((START + TICK * tick).timestamp() * 1000)


def fill(world: World, histories: dict[str, str]) -> int:
    """Write values, one letter a tick: its digit times ten, `-` for none; ended by a stale marker. Returns ticks."""
    readings = []
    for host, letters in histories.items():
        for number, letter in enumerate(letters):
            value = STALE if letter == "-" else float(int(letter) * 10)
            readings.append(Reading("temperature", value, {"host": host}, timestamp_ms=stamp(number + 1)))
    metrics.ingest(samples=Samples.from_readings(readings, at=START), by=SETUP, now=world.now)
    return max(map(len, histories.values()))


def live(world: World, ticks: int) -> list[Any]:
    for _ in range(ticks):
        world.tick()
    rows = Transition.objects.select_related("alert").order_by("at", "alert__pending_at", "id")
    return sorted(
        (t.at, t.alert.labels.get("host", t.alert.labels.get("problem", "")), t.kind, t.before, t.after, t.reason,
         t.severity, t.value)
        for t in rows
    )  # fmt: skip


def replayed(rule: AlertRule, ticks: int, by: Principal = SETUP, **options: Any) -> Preview:
    *steps, found = preview.preview(rule_plan(rule), Span(START, START + TICK * ticks), by=by, **options)
    assert all(isinstance(step, Progress) for step in steps)
    assert isinstance(found, Preview)
    return found


def events(found: Preview) -> list[Any]:
    def host(number: int) -> str:
        labels = found.alerts[number].labels
        return labels.get("host", labels.get("problem", ""))

    return sorted(
        (e.at, host(e.alert), e.kind, e.before, e.after, e.reason.value, e.severity.value, e.value)
        for e in found.events
    )


letters = st.text(alphabet="1789--", min_size=12, max_size=12)
policies = st.sampled_from(["ok", "keep", "alert", "fire"])
rules = st.fixed_dictionaries(
    {
        "pending_period": st.sampled_from([0, 10, 25]),
        "keep_firing_for": st.sampled_from([0, 10, 30]),
        "no_data_policy": policies,
        "missing_evaluations": st.sampled_from([1, 2, 3]),
        "new_series_delay": st.sampled_from([0, 20]),
        "detects_flapping": st.booleans(),
    }
)
RECOVERY = st.sampled_from([(None, ""), (60.0, ""), (None, "temperature < 75")])


def same_both_ways(world: World, histories: dict[str, str], values: dict[str, Any], recovery: Any) -> Preview:
    world.group()
    fill(world, histories)
    rule = world.rule(**values, levels=[("warning", ">", 70.0), ("critical", ">", 80.0)])
    rule.levels.update(recovery_threshold=recovery[0], recovery_expression=recovery[1])
    ticks = max(map(len, histories.values()))
    wanted = live(world, ticks)
    found = replayed(AlertRule.objects.get(), ticks)
    assert events(found) == wanted
    return found


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(letters, letters, rules, RECOVERY)
def test_any_history_and_rule_go_the_same_way_live_and_in_a_preview(
    db: None, forget: Any, one: str, other: str, values: dict[str, Any], recovery: Any
) -> None:
    forget()
    try:
        with transaction.atomic():
            world = World()
            world.now = START + timedelta(seconds=2)
            same_both_ways(world, {"a": one, "b": other}, values, recovery)
            raise _Undo
    except _Undo:
        forget()


class _Undo(Exception):
    pass


def test_what_flaps_does_so_in_both(world: World) -> None:
    found = same_both_ways(world, {"a": "18" * 14 + "1" * 24}, {}, (None, ""))
    assert found.flaps == 1
    assert [event.after for event in found.events if event.kind == "flapping"] == ["flapping", "steady"]


def test_a_preview_tells_firings_with_their_worst_value_and_all_their_time(world: World) -> None:
    ticks = fill(world, {"a": "1189971111", "b": "1111111118"})
    found = replayed(world.rule(levels=[("warning", ">", 70.0), ("critical", ">", 80.0)]), ticks)
    shown = found.as_dict()
    one, two = shown["firings"]
    assert (one["labels"], one["severity"], one["peak"]) == ({"host": "a"}, "critical", 90.0)
    assert (two["labels"], two["end"]) == ({"host": "b"}, None)
    assert shown["firing_seconds"] == 30
    assert (shown["series"], shown["evaluations"], shown["alerts"]) == (2, 10, 2)
    assert [row[3] for row in shown["curve"]] == [0, 0, 1, 1, 1, 0, 0, 0, 0, 1]
    assert not Alert.objects.exists()


def test_a_threshold_is_suggested_for_a_wanted_number_of_alerts(world: World) -> None:
    ticks = fill(world, {"a": "1718191817", "b": "1111111111"})
    found = replayed(world.rule(levels=[("warning", ">", 60.0)]), ticks, keep=True)
    assert len(found.firings) == 5
    per_week = 3 / ((found.span.end - found.span.start) / timedelta(weeks=1))
    hint = preview.suggest(found, Severity.WARNING, per_week=per_week)
    assert (hint.threshold, hint.alerts) == (70.0, 3)


def test_who_sees_only_some_series_previews_only_them(world: World) -> None:
    ticks = fill(world, {"a": "1888", "b": "1888"})
    rule = world.rule()
    narrow = Principal("user", "1", "ann", frozenset({Right.QUERY}), scope=Scope((("host", "=", "a"),)))
    rule.levels.update(threshold=50.0)
    assert [alert.labels["host"] for alert in replayed(rule, ticks, by=narrow).firings] == ["a"]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("temperature @ end()", "mean each evaluation by itself"),
        ("temperature +", "unexpected"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_a_sentence(world: World, expression: str, says: str) -> None:
    fill(world, {"a": "1888"})
    rule = world.rule()
    rule.expression = expression
    with pytest.raises(Refused, match=says):
        replayed(rule, 4)


def test_a_rule_of_too_many_series_is_refused_with_what_would_do(world: World, monkeypatch: Any) -> None:
    fill(world, {"a": "1888", "b": "1111"})
    monkeypatch.setattr(preview, "MOST_VALUES", 5)
    with pytest.raises(Refused, match="Up to 2 series at 4 evaluations are more values"):
        replayed(world.rule(), 4)


def test_evaluations_that_fail_are_found_and_counted(world: World) -> None:
    ticks = fill(world, {"a": "1888888", "b": "1888888"})
    written = [(1, "a", 1, 1.0), (1, "b", 1, 1.0), (3, "a", 2, 1.0), (5, "a", 2, STALE)]
    readings = [
        Reading("factor", value, {"host": host, "n": str(n)}, timestamp_ms=stamp(tick))
        for tick, host, n, value in written
    ]
    metrics.ingest(samples=Samples.from_readings(readings, at=START), by=SETUP, now=world.now)
    rule = world.rule(expression="temperature * on (host) group_left factor", error_policy="alert")
    wanted = live(world, ticks)
    found = replayed(rule, ticks)
    assert events(found) == wanted
    assert found.failures == 2
    assert "many-to-many" in found.error or "duplicate" in found.error
