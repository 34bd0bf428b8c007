"""Recovery, missing data, errors, new series, schedules and flapping, each through the live path; and bad input."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from rest_framework.test import APIClient

from apps.accounts.models import Calendar, User
from apps.accounts.services import save_object
from apps.alerting import evaluation, judging, services
from apps.alerting.models import Alert, AlertRule, GroupRun, Transition
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from tests.alerting.conftest import SETUP, START, World

WARN = [("warning", ">", 80.0)]


def told() -> list[str]:
    rows = Transition.objects.filter(kind="state").order_by("id").values_list("after", "reason")
    return [f"{after} {reason}" for after, reason in rows]


def hard(rule: AlertRule, **level: Any) -> AlertRule:
    rule.levels.update(**level)
    return rule


def gone(world: World, **labels: str) -> None:
    """The series ends: a tick with its stale marker."""
    world.wait(10)
    world.push(STALE, **labels)
    evaluation.evaluate(now=world.now)


@pytest.mark.parametrize(
    ("level", "values", "expected"),
    [
        ({}, [85, 75], ["firing value", "resolved value"]),
        ({"recovery_threshold": 70.0}, [85, 75, 71], ["firing value"]),
        ({"recovery_threshold": 70.0}, [85, 75, 70], ["firing value", "resolved value"]),
        ({"recovery_threshold": 70.0}, [75, 79], []),
        ({"recovery_expression": "temperature < 60"}, [85, 75, 60], ["firing value"]),
        ({"recovery_expression": "temperature < 60"}, [85, 59], ["firing value", "resolved value"]),
    ],
)
def test_what_fires_goes_on_until_it_has_recovered(
    world: World, level: dict[str, Any], values: list[float], expected: list[str]
) -> None:
    hard(world.rule(levels=WARN), **level)
    for value in values:
        world.tick(value, host="a")
    assert told() == expected


@pytest.mark.parametrize(
    ("policy", "missing", "expected"),
    [
        ("ok", 1, ["firing value", "resolved no_data"]),
        ("ok", 3, ["firing value"]),
        ("keep", 1, ["firing value"]),
        ("fire", 1, ["firing value"]),
        ("alert", 1, ["firing value", "firing no_data"]),
    ],
)
def test_no_data_means_what_the_rule_says(world: World, policy: str, missing: int, expected: list[str]) -> None:
    world.rule(levels=WARN, no_data_policy=policy, missing_evaluations=missing)
    world.tick(85.0, host="a")
    gone(world, host="a")
    world.tick()
    assert told() == expected


def test_a_rule_without_any_data_fires_as_a_whole_and_ends_when_there_is_some(world: World) -> None:
    world.rule(levels=WARN, no_data_policy="fire", missing_evaluations=2)
    world.tick()
    assert told() == ["pending no_data"]
    world.tick()
    alert = Alert.objects.get()
    assert (alert.state, alert.message) == ("firing", "Hot: its expression gives no data")
    world.tick(10.0, host="a")
    assert told() == ["pending no_data", "firing no_data", "resolved value"]


def test_it_counts_how_often_a_series_is_missing_in_a_row(world: World) -> None:
    world.rule(levels=WARN, missing_evaluations=2)
    world.tick(85.0, host="a")
    gone(world, host="a")
    world.tick(85.0, host="a")
    gone(world, host="a")
    assert told() == ["firing value"]
    world.tick()
    assert told() == ["firing value", "resolved no_data"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", ["firing value"]),
        ("ok", ["firing value", "resolved error"]),
        ("fire", ["firing value"]),
        ("alert", ["firing value", "firing error", "resolved value"]),
    ],
)
def test_an_expression_that_fails_means_what_the_rule_says(world: World, policy: str, expected: list[str]) -> None:
    world.rule(levels=WARN, expression="temperature * on (host) group_left factor", error_policy=policy)
    world.push(1.0, name="factor", host="a")
    world.tick(85.0, host="a")
    world.push(1.0, name="factor", host="a", twice="yes")
    world.tick(85.0, host="a")
    world.push(STALE, name="factor", host="a", twice="yes")
    world.tick(85.0, host="a") if policy == "alert" else None
    assert told() == expected


def test_a_new_series_is_left_alone_until_it_has_been_there_for_a_while(world: World) -> None:
    world.rule(levels=WARN, new_series_delay=30)
    for _ in range(3):
        world.tick(85.0, host="new")
    assert told() == []
    world.tick(85.0, host="new")
    assert told() == ["firing value"]


def test_outside_its_schedule_nothing_begins_and_what_fires_stays_until_it_has_recovered(world: World) -> None:
    # START is a Monday, 12:00 UTC: the hours end a minute later.
    calendar = Calendar.objects.create(name="Office", zone="UTC", hours="mon 09:00-12:01")
    world.rule(levels=WARN, schedule=calendar)
    world.rule("slow", levels=WARN, pending_period=120, schedule=calendar)
    for _ in range(7):
        world.tick(85.0, host="a")
    world.tick(85.0, host="b")
    states = {(alert.type, alert.labels.get("host")): alert.state for alert in Alert.objects.all()}
    assert states == {("hot", "a"): "firing", ("slow", "a"): "inactive"}
    assert Alert.objects.get(type="slow").resolve_reason == "schedule"
    world.tick(10.0, host="a")
    assert Alert.objects.get(type="hot").state == "resolved"


def test_a_calendar_that_changes_is_seen_at_the_next_tick(world: World) -> None:
    calendar = Calendar.objects.create(name="Office", zone="UTC", hours="tue 09:00-10:00")
    world.rule(levels=WARN, schedule=calendar)
    world.tick(85.0)
    assert told() == []
    calendar.hours = ""
    save_object(by=SETUP, obj=calendar)
    world.tick(85.0)
    assert told() == ["firing value"]


def test_what_flaps_says_so_once_and_says_when_it_has_ceased(world: World) -> None:
    world.rule(levels=WARN)
    for number in range(12):
        world.tick(85.0 if number % 2 else 10.0, host="a")
    kinds = Transition.objects.filter(kind="flapping").order_by("id")
    assert [t.after for t in kinds] == ["flapping"]
    assert Alert.objects.latest("id").is_held_back
    for _ in range(20):
        world.tick(10.0, host="a")
    assert [t.after for t in kinds.all()] == ["flapping", "steady"]
    assert not Alert.objects.filter(flapping_since__isnull=False).exists()


def test_switching_a_rule_off_ends_flapping_too(world: World) -> None:
    rule = world.rule(levels=WARN)
    for number in range(12):
        world.tick(85.0 if number % 2 else 10.0, host="a")
    rule.enabled = False
    services.save_rule(
        by=SETUP, rule=rule, levels=[services.rules._stored(one) for one in rule.levels.all()], now=world.now
    )
    assert not Alert.objects.filter(flapping_since__isnull=False).exists()


@pytest.mark.parametrize(("jump", "state"), [(-3600, "firing"), (3600, "firing")])
def test_a_clock_that_jumps_ends_nothing_and_loses_nothing(world: World, jump: int, state: str) -> None:
    world.rule(levels=WARN, pending_period=20)
    for _ in range(3):
        world.tick(85.0)
    world.wait(jump)
    for _ in range(3):
        world.tick(85.0)
    assert set(Alert.objects.values_list("state", flat=True)) == {state}


def test_a_rule_of_too_many_bad_series_has_an_error_and_the_others_go_on(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(judging, "MOST", 2)
    world.rule(expression="crowd", levels=WARN)
    world.rule("other", levels=WARN)
    at = START + timedelta(seconds=10)
    crowd = [Reading("crowd", 99.0, {"n": str(number)}) for number in range(3)]
    metrics.ingest(samples=Samples.from_readings(crowd, at=at), by=SETUP, now=world.now)
    world.tick(85.0)
    assert [alert.type for alert in Alert.objects.all()] == ["other"]
    assert "3 series breach this rule at once" in str(GroupRun.objects.get().results)


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"recovery_threshold": 90.0}, "levels", "recovery threshold lies above the threshold"),
        ({"recovery_threshold": 70.0, "recovery_expression": "up"}, "levels", "not both"),
        ({"recovery_expression": "1 + 1"}, "levels", "has to give series"),
        ({"recovery_expression": 'up{x=~"(a+"}'}, "levels", "recovery expression"),
        ({"no_data_policy": "shout"}, "no_data_policy", "is none of"),
        ({"missing_evaluations": 0}, "missing_evaluations", "Between 1 and 1000"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused_at_its_field(
    world: World, values: dict[str, Any], field: str, says: str
) -> None:
    level = {"severity": "warning", "comparison": ">", "threshold": 80.0}
    level |= {name: values.pop(name) for name in list(values) if name.startswith("recovery")}
    rule = services.rule_from_dict({"slug": "x", "name": "X", "expression": "up", **values}, group=world.group())
    with pytest.raises(ValidationError) as refused:
        services.save_rule(by=SETUP, rule=rule, levels=[level], now=world.now)
    assert says in str(refused.value.message_dict[field])


@pytest.mark.urls("tests.alerting.api_urls")
def test_a_draft_is_previewed_by_the_api_and_nothing_is_written(world: World) -> None:
    world.group()
    for value in (10.0, 85.0, 10.0):
        world.tick(value, host="a")
    client = APIClient()
    client.force_login(User.objects.create_superuser("root"))
    level = {"severity": "warning", "comparison": ">", "threshold": 80}
    body = {
        "rule": {"expression": "temperature", "levels": [level], "group": "house"},
        "compare": {"expression": "temperature > 90", "levels": [{"severity": "critical"}], "group": "house"},
        "start": START.isoformat(),
        "end": (START + timedelta(seconds=30)).isoformat(),
        "alerts_per_week": 1e5,
    }
    answer = client.post(reverse("rule-preview"), body, format="json")
    assert answer.status_code == 200, answer.content
    one, other = answer.json()["previews"]
    assert (one["alerts"], one["firing_seconds"], other["alerts"]) == (1, 10.0, 0)
    assert one["firings"][0]["labels"] == {"host": "a"}
    assert one["suggestion"]["severity"] == "warning"
    assert not AlertRule.objects.exists()
    wrong = client.post(reverse("rule-preview"), {"rule": {"expression": "up +"}, "hours": 1}, format="json")
    assert (wrong.status_code, list(wrong.json()["fields"])) == (400, ["rule: expression", "rule: levels"])
    long = client.post(reverse("rule-preview"), {**body, "start": "2020-01-01T00:00:00Z"}, format="json")
    assert "At most 30 days" in long.content.decode()
