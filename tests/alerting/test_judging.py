"""From values to verdicts, without a database: thresholds, identities, the order of recording rules."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting import judging, thresholds
from apps.alerting.identity import fingerprint
from apps.alerting.judging import Circumstances, judge
from apps.alerting.lifecycle import Life, Phase, Reason, Severity, State, Terms
from apps.alerting.plans import RecordPlan, RulePlan, in_stages, question
from apps.alerting.recording import results
from apps.alerting.thresholds import Level, breaches, representative
from apps.promql.errors import LimitError, QueryError
from apps.promql.labels import Labels
from apps.promql.result import Result

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
LEVELS = (Level(CRITICAL, ">", 90.0), Level(WARNING, ">", 80.0))


def rule(levels: tuple[Level, ...] = LEVELS, **terms: Any) -> RulePlan:
    return RulePlan(1, "hot", "Hot", "system", question("x"), Terms(**terms), levels, {}, {}, timedelta(0), "")


def answer(*rows: tuple[dict[str, str], float]) -> Result:
    labels = Labels.from_dicts([labels for labels, _ in rows])
    values = np.array([[value] for _, value in rows], dtype=np.float64).reshape(len(rows), 1)
    return Result("vector", labels, np.array([0]), values, np.ones_like(values, dtype=np.bool_))


def firing(since: datetime = NOW) -> Life:
    return Life(State.FIRING, WARNING, {WARNING: Phase(State.FIRING, since)})


@pytest.mark.parametrize(
    ("comparison", "hits"),
    [(">", [2]), (">=", [1, 2]), ("<", [0]), ("<=", [0, 1]), ("==", [1]), ("!=", [0, 2, 3]), ("", [0, 1, 2, 3])],
)
def test_levels_compare_as_promql_does_nan_included(comparison: str, hits: list[int]) -> None:
    level = Level(WARNING, comparison, 5.0 if comparison else None)
    assert np.flatnonzero(level.breached(np.array([4.0, 5.0, 6.0, math.nan]))).tolist() == hits


def test_a_row_breaches_every_level_it_is_beyond() -> None:
    assert breaches(np.array([70.0, 85.0, 95.0]), LEVELS) == {1: {WARNING}, 2: {WARNING, CRITICAL}}


numbers = st.sampled_from([0.0, -1.0, 79.0, 80.0, 85.0, 91.0, math.inf, -math.inf, math.nan])
level = st.builds(Level, st.sampled_from(Severity), st.sampled_from([">", ">=", "<", "<=", "==", "!="]), numbers)


@given(st.lists(st.tuples(numbers, st.booleans()), max_size=6), st.lists(level | st.just(Level(WARNING)), max_size=3))
def test_few_values_are_judged_as_many_are(values: list[tuple[float, bool]], levels: list[Level]) -> None:
    result = answer(*(({"n": str(n)}, value) for n, (value, _) in enumerate(values)))
    result.ok[:, 0] = [here for _, here in values]
    few = judge(rule(tuple(levels)), result, {}, {}, Circumstances(NOW))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "FEW", -1)
        patch.setattr(thresholds, "FEW", 0)
        many = judge(rule(tuple(levels)), result, {}, {}, Circumstances(NOW))
    assert repr(few) == repr(many)


@pytest.mark.parametrize(("sign", "value"), [(">", 9.0), ("<", 1.0), ("", 9.0)])
def test_one_value_stands_for_all_by_the_direction_of_the_rule(sign: str, value: float) -> None:
    levels = (Level(WARNING, sign, 5.0 if sign else None),)
    assert representative(np.array([1.0, math.nan, 9.0]), levels) == value
    assert representative(np.array([]), levels) is None


label_sets = st.dictionaries(st.text(min_size=1, max_size=4), st.text(max_size=4), max_size=4)


@given(label_sets, label_sets)
def test_equal_labels_and_only_they_have_one_fingerprint(one: dict[str, str], other: dict[str, str]) -> None:
    def plain(labels: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in labels.items() if value and name != "__name__"}

    assert len(fingerprint(one)) == 16
    assert (fingerprint(one) == fingerprint(other)) == (plain(one) == plain(other))
    assert fingerprint(one) == fingerprint(dict(reversed(one.items())) | {"__name__": "x", "empty": ""})


def test_what_is_fine_and_was_fine_has_no_verdict() -> None:
    found = judge(rule(), answer(({"host": "a"}, 10.0)), {}, {}, Circumstances(NOW))
    assert (found.verdicts, found.series, found.breached, found.value) == ((), 1, 0, 10.0)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([({"host": "a"}, 10.0)], Reason.VALUE),
        ([({"host": "b"}, 10.0)], Reason.MISSING_SERIES),
        ([({"host": "b"}, 95.0)], Reason.MISSING_SERIES),
        ([], Reason.NO_DATA),
    ],
)
def test_an_alert_ends_for_the_right_reason(rows: list[tuple[dict[str, str], float]], reason: Reason) -> None:
    lives = {fingerprint({"host": "a"}): firing()}
    verdicts = judge(rule(), answer(*rows), lives, {}, Circumstances(NOW)).verdicts
    (mine,) = [verdict for verdict in verdicts if verdict.before is not None]
    assert mine.step.after is not None
    assert (mine.step.after.state, mine.step.reason) == (State.RESOLVED, reason)


def test_nothing_is_concluded_from_absence_while_sources_come_back() -> None:
    around = Circumstances(NOW, settling=True)
    lives, held = {fingerprint({"host": "a"}): firing()}, {fingerprint({"host": "b"}): NOW}
    found = judge(rule(), answer(), lives, held, around)
    assert [verdict.step.reason for verdict in found.verdicts] == [None]
    assert not found.released


def test_a_hold_lasts_until_its_time_or_until_all_is_well() -> None:
    identity = fingerprint({"host": "a"})
    later = {identity: NOW + timedelta(seconds=1)}
    slow = rule(pending_period=timedelta(hours=1))
    bad, well = answer(({"host": "a"}, 85.0)), answer(({"host": "a"}, 10.0))
    assert judge(slow, bad, {}, later, Circumstances(NOW)).verdicts == ()
    assert judge(slow, well, {}, later, Circumstances(NOW)).released == {identity}
    (verdict,) = judge(slow, bad, {}, {identity: NOW}, Circumstances(NOW)).verdicts
    assert verdict.again
    assert verdict.step.after is not None
    assert verdict.step.after.state is State.FIRING


def test_more_series_than_can_be_told_are_an_error_not_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST", 2)
    with pytest.raises(LimitError, match="3 series breach this rule at once"):
        judge(rule(), answer(*(({"host": str(n)}, 95.0) for n in range(3))), {}, {}, Circumstances(NOW))


def record(number: int, name: str, expression: str) -> RecordPlan:
    return RecordPlan(number, name, question(expression), {})


@pytest.mark.parametrize(
    ("rules", "stages"),
    [
        ([("b", "a"), ("a", "x"), ("c", "a + b")], [["a"], ["b"], ["c"]]),
        ([("a", "x"), ("b", "y")], [["a", "b"]]),
        ([("a", "a offset 1m"), ("b", "a")], [["a"], ["b"]]),
        ([("a", "b"), ("b", "a"), ("c", "x")], [["c"], ["a", "b"]]),
        ([("a", "x"), ("a", "y"), ("b", '{__name__=~"a|z"}')], [["a", "a"], ["b"]]),
        ([("a", "sum("), ("b", "a")], [["a"], ["b"]]),
    ],
)
def test_recording_rules_come_after_those_they_read(rules: list[tuple[str, str]], stages: list[list[str]]) -> None:
    plans = [record(number, name, expression) for number, (name, expression) in enumerate(rules)]
    assert [[plan.name for plan in stage] for stage in in_stages(plans)] == stages


def test_a_recorded_result_takes_name_and_labels_of_its_rule() -> None:
    plan = RecordPlan(1, "new", question("x"), {"team": "web", "drop": ""})
    labels, values = results(plan, answer(({"__name__": "old", "host": "a", "drop": "me"}, 1.0)))
    assert labels.dicts() == [{"__name__": "new", "host": "a", "team": "web"}]
    assert values == [1.0]
    with pytest.raises(QueryError, match="same labelset"):
        results(plan, answer(({"drop": "a"}, 1.0), ({"drop": "b"}, 2.0)))
