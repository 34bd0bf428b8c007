"""Live evaluation against the real store: samples in, alerts, transitions, incidents and series out."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from apps.alerting import evaluation, services
from apps.alerting.models import Alert, GroupRun, Incident, Transition
from apps.core.telemetry import Reading
from apps.metrics import query
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.promql import engine
from apps.promql.labels import NAME
from tests.alerting.conftest import SETUP, START, World


def series(world: World, text: str) -> list[tuple[dict[str, str], float]]:
    found = query.instant(text, at=world.now)
    rows = zip(found.labels.dicts(), found.v[:, 0].tolist(), strict=True)
    return sorted(({k: v for k, v in labels.items() if k != NAME}, value) for labels, value in rows)


def told() -> list[tuple[str, str, str]]:
    rows = Transition.objects.order_by("id").values_list("before", "after", "reason")
    return [(before, after, reason) for before, after, reason in rows]


def test_an_alert_lives_from_its_first_breach_to_its_end(world: World) -> None:
    rule = world.rule(pending_period=20, keep_firing_for=20)
    for value in (85.0, 85.0, 85.0):
        world.tick(value, host="a")
    alert = Alert.objects.get()
    assert (alert.state, alert.severity, alert.type, alert.rule) == ("firing", "warning", "hot", rule)
    assert alert.labels == {"alertname": "Hot", "host": "a", "severity": "warning"}
    assert (alert.value, alert.threshold, alert.message) == (85.0, 80.0, "Hot: 85 (threshold 80)")
    assert alert.pending_at == START + timedelta(seconds=10)
    assert alert.fired_at == START + timedelta(seconds=30)
    assert alert.incident is not None
    for value in (70.0, 70.0, 70.0):
        world.tick(value, host="a")
    alert.refresh_from_db()
    assert (alert.state, alert.resolve_reason) == ("resolved", "value")
    assert Incident.objects.get().state == "resolved"
    assert told() == [
        ("inactive", "pending", "value"),
        ("pending", "firing", "value"),
        ("firing", "recovering", "value"),
        ("recovering", "resolved", "value"),
    ]


def test_only_what_concerns_somebody_waits_to_be_told(world: World) -> None:
    world.rule(pending_period=10, keep_firing_for=10)
    for value in (85.0, 85.0, 70.0, 70.0):
        world.tick(value)
    assert [t.after for t in Transition.objects.untold().order_by("id")] == ["firing", "resolved"]


def test_what_gets_worse_is_the_same_alert(world: World) -> None:
    world.rule()
    for value in (85.0, 95.0, 85.0):
        world.tick(value)
    alert = Alert.objects.get()
    kinds = [(t.kind, t.before, t.after) for t in alert.transitions.order_by("id")]
    assert kinds == [
        ("state", "inactive", "firing"),
        ("severity", "warning", "critical"),
        ("severity", "critical", "warning"),
    ]
    assert alert.labels["severity"] == "warning"
    assert Incident.objects.get().severity == "critical"


def test_each_series_has_its_own_alert_and_its_own_incident(world: World) -> None:
    world.rule()
    world.wait(10)
    for host in "abc":
        world.push(95.0, host=host)
    world.push(20.0, host="d")
    world.wait(-10)
    world.tick()
    assert {alert.labels["host"] for alert in Alert.objects.active()} == {"a", "b", "c"}
    assert Incident.objects.open().count() == 3


def test_alerts_are_series_too_and_end_with_a_marker(world: World) -> None:
    world.rule(pending_period=10)
    world.tick(85.0, host="a")
    labels = {"alertname": "Hot", "host": "a", "severity": "warning"}
    assert series(world, "ALERTS") == [({**labels, "alertstate": "pending"}, 1.0)]
    since = (START + timedelta(seconds=10)).timestamp()
    assert series(world, "ALERTS_FOR_STATE") == [(labels, since)]
    world.tick(95.0, host="a")
    assert series(world, "ALERTS") == [({**labels, "alertstate": "firing"}, 1.0)]
    world.tick(95.0, host="a")
    assert series(world, "ALERTS") == [({**labels, "alertstate": "firing", "severity": "critical"}, 1.0)]
    world.tick(70.0, host="a")
    assert series(world, "ALERTS") == []
    assert series(world, "ALERTS_FOR_STATE") == []


def test_a_vanished_series_resolves_with_its_reason(world: World) -> None:
    world.rule(expression="sum by (host) (temperature)")
    world.wait(10)
    world.push(85.0, host="a")
    world.push(10.0, host="b")
    world.wait(-10)
    world.tick()
    world.wait(300)
    for _ in range(2):  # nobody looked for five minutes: the first look back is not believed
        world.tick(10.0, host="b")
    assert Alert.objects.get().state == "firing"
    for _ in range(31):
        world.tick(10.0, host="b")
    assert (Alert.objects.get().state, Alert.objects.get().resolve_reason) == ("resolved", "missing_series")


def test_an_expression_without_any_result_is_no_data(world: World) -> None:
    world.rule(expression="last_over_time(temperature[15s])")
    world.tick(85.0)
    for _ in range(3):
        world.tick()
    assert Alert.objects.get().resolve_reason == "no_data"


def test_a_rule_that_fails_keeps_its_alerts_and_the_others_go_on(world: World) -> None:
    world.rule(expression="temperature * on (host) group_left factor")
    world.rule("other")
    world.push(1.0, name="factor", host="a")
    world.tick(85.0, host="a")
    world.push(1.0, name="factor", host="a", twice="yes")
    world.tick(95.0, host="a")
    assert {alert.type: alert.severity for alert in Alert.objects.active()} == {"hot": "warning", "other": "critical"}
    lines = GroupRun.objects.get().results["rules"]
    errors = [line["error"] for line in lines.values() if "error" in line]
    assert len(errors) == 1
    assert "many-to-many" in errors[0] or "duplicate series" in errors[0]


def test_annotations_are_expanded_with_labels_value_and_queries(world: World) -> None:
    world.rule(
        labels={"team": "{{ $labels.host }}-team"},
        annotations={
            "summary": "{{ $labels.host }} has {{ $value | printf \"%.1f\" }} degrees",
            "limit": "{{ with query \"limit\" }}{{ . | first | value }}{{ end }}",
            "broken": "{{ humanize \"x\" }}",
        },
    )  # fmt: skip
    world.push(75.0, name="limit")
    world.tick(85.5, host="a")
    alert = Alert.objects.get()
    assert alert.message == "a has 85.5 degrees"
    assert alert.labels["team"] == "a-team"
    assert alert.annotations["limit"] == "75"
    assert alert.annotations["broken"].startswith("<error expanding template: error executing template __alert_Hot")


def test_a_rule_without_threshold_fires_for_any_result(world: World) -> None:
    world.rule(expression="temperature > limit", levels=[("error", "", None)])
    world.push(80.0, name="limit")
    world.tick(85.0)
    assert Alert.objects.get().state == "firing"
    world.tick(75.0)
    assert (Alert.objects.get().state, Alert.objects.get().resolve_reason) == ("resolved", "value")


def test_two_results_of_one_identity_are_an_error_as_in_prometheus(world: World) -> None:
    world.rule(expression='{__name__=~"temperature|heat"}')
    world.push(85.0, name="heat")
    world.tick(85.0)
    assert not Alert.objects.exists()
    assert "same labelset" in str(GroupRun.objects.get().results)


def test_recorded_series_are_seen_by_alert_rules_of_the_same_tick_in_other_groups(world: World) -> None:
    world.rule(expression="house:temperature:max", group=world.group("alerts"))
    world.record("house:temperature:max", "max(floor:temperature:max)", group=world.group("zz"), house="one")
    world.record("floor:temperature:max", "max by (floor) (temperature)", group=world.group("aa"))
    world.tick(85.0, floor="1", room="a")
    assert Alert.objects.get().labels["house"] == "one"
    assert series(world, "floor:temperature:max") == [({"floor": "1"}, 85.0)]


def test_a_recorded_series_that_vanishes_ends_at_once_even_across_a_restart(
    world: World, forget: Callable[[], None]
) -> None:
    world.record("hot", "temperature > 80")
    world.tick(85.0, host="a")
    assert series(world, "hot") == [({"host": "a"}, 85.0)]
    forget()
    world.tick(75.0, host="a")
    assert series(world, "hot") == []
    world.tick(85.0, host="a")
    world.tick(75.0, host="a")
    assert series(world, "hot") == []


def test_a_deleted_recording_rule_leaves_no_series_behind(world: World) -> None:
    rule = world.record("hot", "temperature")
    world.tick(85.0)
    services.delete_recording_rule(by=SETUP, rule=rule, now=world.now)
    world.tick(85.0)
    assert series(world, "hot") == []


def test_ticks_are_aligned_counted_when_missed_and_never_made_up_for(world: World) -> None:
    world.rule()
    world.tick(10.0)
    assert world.tick(10.0) == 1
    world.wait(3)
    from apps.alerting import evaluation

    assert evaluation.evaluate(now=world.now) == 0
    world.wait(42)
    evaluation.evaluate(now=world.now)
    run = GroupRun.objects.get()
    assert run.evaluated_at == START + timedelta(seconds=60)
    assert run.missed == 3
    assert run.due_at == START + timedelta(seconds=71)


def test_a_clock_that_was_set_back_does_not_stop_evaluation(world: World) -> None:
    world.rule()
    world.tick(10.0)
    world.wait(-3600)
    assert world.tick(95.0) == 1
    assert world.tick(95.0) == 1


def test_a_quiet_tick_writes_nothing_but_the_groups_own_row(world: World, django_assert_num_queries: object) -> None:
    world.rule()
    for value in (10.0, 10.0):
        world.tick(value)
    before = (Alert.objects.count(), Transition.objects.count())
    world.tick(10.0)
    assert (Alert.objects.count(), Transition.objects.count()) == before == (0, 0)


def test_a_rule_that_was_disabled_behind_our_back_ends_its_alerts(world: World) -> None:
    rule = world.rule()
    world.tick(85.0)
    type(rule).objects.update(enabled=False)
    world.tick(85.0)
    alert = Alert.objects.get()
    assert (alert.state, alert.resolve_reason) == ("resolved", "rule")
    assert series(world, "ALERTS") == []


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_json_lacks_are_kept(world: World, value: float) -> None:
    world.rule(levels=[("info", "!=", 0.0)])
    world.tick(value)
    world.tick(value)
    alert = Alert.objects.get()
    assert alert.value is not None
    assert str(alert.value) == str(value)
    assert list(GroupRun.objects.get().results["rules"].values()) == [
        {"value": "+inf" if value > 0 else "NaN", "series": 1, "breached": 1}
    ]


def test_time_in_which_nobody_looked_counts_for_no_wait(world: World) -> None:
    world.rule(pending_period=30)
    world.tick(85.0)
    world.wait(3600)
    world.tick(85.0)
    alert = Alert.objects.get()
    assert alert.state == "pending"
    assert Transition.objects.latest("id").reason == "restart"
    world.tick(85.0)
    world.tick(85.0)
    alert.refresh_from_db()
    assert alert.state == "firing"
    assert alert.fired_at is not None
    assert alert.pending_at is not None
    assert alert.fired_at - alert.pending_at == timedelta(seconds=30)


def test_an_expression_on_which_the_engine_breaks_stops_no_other_rule(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rule(expression="poison")
    world.rule("other")
    whole = engine.evaluate_many

    def breaking(exprs: list[str], *args: object, **options: object) -> object:
        if any("poison" in text for text in exprs):
            raise IndexError("a mistake of the engine")
        return whole(exprs, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "evaluate_many", breaking)
    world.tick(95.0)
    assert [alert.type for alert in Alert.objects.active()] == ["other"]
    errors = [line["error"] for line in GroupRun.objects.get().results["rules"].values() if "error" in line]
    assert errors == ["the engine broke on it (IndexError); the worker's log says where"]


def test_a_full_disk_costs_the_series_of_alerts_but_not_the_alerts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.rule()
    world.record("recorded", "temperature * 2")
    world.tick(85.0)
    world.wait(10)
    world.push(95.0)
    monkeypatch.setattr(metrics, "FREE_BYTES", 10**18)
    monkeypatch.setattr(metrics, "_space", (float("-inf"), None))
    world.wait(-10)
    world.tick()
    alert = Alert.objects.active().get()
    assert alert.severity == "critical"
    assert services.resolve(by=SETUP, alert=alert, now=world.now).state == "resolved"


def test_a_group_on_arrival_is_judged_when_samples_come_and_still_ticks(world: World) -> None:
    group = world.group("fast", on_arrival=True)
    world.rule("arrives", "arrived", levels=[("warning", ">", 0.0)], group=group)
    assert evaluation.is_awaited()
    world.tick()
    world.wait(2.3)
    metrics.ingest(samples=Samples.from_readings([Reading("arrived", 1.0, {})], at=world.now), by=SETUP, now=world.now)
    assert evaluation.arrive(now=world.now) == 1
    assert Alert.objects.get(type="arrives").fired_at == world.now
    assert evaluation.next_due(world.now) is None  # its clock goes on from here
    world.tick()
    assert GroupRun.objects.get(group=group).missed == 0
    assert evaluation.arrive(now=world.now - timedelta(seconds=30)) == 0  # what is behind is not looked at again
