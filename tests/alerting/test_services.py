"""What people and senders do, with who and when; what is refused, and where it is wrong."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Forbidden, Principal, Right, Scope
from apps.alerting import services, statistics
from apps.alerting.models import Alert, AlertRule, GroupRun, Incident, RuleGroup, Transition
from tests.alerting.conftest import SETUP, World
from tests.alerting.test_evaluation import series

ALICE = Principal("user", "1", "alice", frozenset({Right.READ, Right.OPERATE, Right.EDIT}))
CHARLIE = Principal("user", "3", "charlie", frozenset({Right.READ}))


def firing(world: World, **kw: Any) -> Alert:
    world.rule(**kw)
    world.tick(95.0, host="a")
    return Alert.objects.get()


def post(world: World, **kw: Any) -> Alert:
    given: dict[str, Any] = {"type": "backup", "severity": "error", "message": "Backup failed", "service": "db"}
    return services.post_alert(by=ALICE, now=world.now, **{**given, **kw})


# --- Acknowledge and resolve ------------------------------------------------------------------------------------


def test_an_acknowledgement_says_who_and_when_on_alert_incident_and_audit(world: World) -> None:
    alert = services.acknowledge(by=ALICE, alert=firing(world), now=world.now)
    assert (alert.acknowledged_by, alert.acknowledged_at) == ("alice", world.now)
    assert Incident.objects.get().acknowledged_by == "alice"
    assert Transition.objects.untold().filter(kind="acknowledged", by="alice").count() == 1
    assert AuditEntry.objects.filter(verb="alerting.acknowledge", actor_name="alice").count() == 1
    services.acknowledge(by=ALICE, alert=alert, now=world.now + timedelta(minutes=1))
    assert Transition.objects.filter(kind="acknowledged").count() == 1


def test_an_acknowledged_alert_goes_on_and_an_acknowledgement_can_be_taken_back(world: World) -> None:
    alert = services.acknowledge(by=ALICE, alert=firing(world), now=world.now)
    world.tick(85.0, host="a")
    alert.refresh_from_db()
    assert (alert.severity, alert.acknowledged_by) == ("warning", "alice")
    alert = services.unacknowledge(by=ALICE, alert=alert, now=world.now)
    assert alert.acknowledged_at is None
    assert Incident.objects.get().acknowledged_at is None


def test_what_has_ended_cannot_be_acknowledged(world: World) -> None:
    alert = firing(world)
    world.tick(10.0, host="a")
    with pytest.raises(ValidationError, match="resolved"):
        services.acknowledge(by=ALICE, alert=alert, now=world.now)


def test_who_may_not_operate_may_not_resolve(world: World) -> None:
    with pytest.raises(Forbidden):
        services.resolve(by=CHARLIE, alert=firing(world), now=world.now)


def test_a_person_resolves_with_a_name_beside_their_own(world: World) -> None:
    alert = services.resolve(by=ALICE, alert=firing(world), resolved_by="Bob", now=world.now)
    assert (alert.state, alert.resolve_reason, alert.resolved_by) == ("resolved", "manual", "Bob")
    last = Transition.objects.order_by("-id")[0]
    assert (last.after, last.by, last.detail) == ("resolved", "alice", "In the name of Bob.")
    assert Incident.objects.get().state == "resolved"
    assert series(world, "ALERTS") == []
    again = services.resolve(by=ALICE, alert=alert, resolved_by="Carol", now=world.now + timedelta(hours=1))
    assert (again.resolved_by, again.resolved_at) == ("Bob", world.now)


def test_what_is_still_wrong_fires_again_as_a_new_alert_after_the_cooldown_and_says_so(world: World) -> None:
    first = firing(world, cooldown=25)
    services.resolve(by=ALICE, alert=first, now=world.now)
    for _ in range(2):
        world.tick(95.0, host="a")
        assert not Alert.objects.active().exists()
    world.tick(95.0, host="a")
    second = Alert.objects.active().get()
    assert second.key != first.key
    transition = second.transitions.get()
    assert (transition.before, transition.after, transition.told_at) == ("inactive", "firing", None)
    assert transition.detail.startswith(f"Still wrong after alice resolved {first.key} at 2026-11-23 12:00:12 UTC")


def test_what_was_fine_in_between_fires_anew_at_once(world: World) -> None:
    services.resolve(by=ALICE, alert=firing(world, cooldown=3600), now=world.now)
    world.tick(10.0, host="a")
    world.tick(95.0, host="a")
    assert Alert.objects.active().get().transitions.get().detail == ""


def test_an_incident_is_acknowledged_and_resolved_as_a_whole(world: World) -> None:
    incident = firing(world).incident
    assert incident is not None
    assert services.acknowledge_incident(by=ALICE, incident=incident, now=world.now).acknowledged_by == "alice"
    assert services.resolve_incident(by=ALICE, incident=incident, now=world.now).state == "resolved"


# --- Posted alerts ----------------------------------------------------------------------------------------------


def test_the_same_post_is_the_same_alert_counted(world: World) -> None:
    first = post(world, metadata={"category": "security", "ratio": float("nan"), "nul": "a\x00b"})
    assert (first.state, first.count, first.category) == ("firing", 1, "security")
    assert first.metadata == {"category": "security", "ratio": "nan", "nul": "ab"}
    assert post(world).count == 2
    assert post(world).key == first.key
    assert {post(world, **other).key == first.key for other in ({"severity": "info"}, {"message": "x"})} == {False}
    assert Transition.objects.filter(reason="posted").count() == 3


def test_a_posted_alert_ends_when_nobody_repeats_it(world: World) -> None:
    post(world)
    world.wait(23 * 3600)
    post(world)
    world.wait(23 * 3600)
    assert services.expire(by=SETUP, now=world.now) == 0
    world.wait(3600)
    assert services.expire(by=SETUP, now=world.now) == 1
    alert = Alert.objects.get()
    assert (alert.state, alert.resolve_reason) == ("resolved", "expired")
    assert Incident.objects.get().state == "resolved"
    assert post(world).key != alert.key


def test_a_posted_alert_ends_at_its_own_end(world: World) -> None:
    post(world, ends_at=world.now + timedelta(minutes=5))
    services.expire(by=SETUP, now=world.now + timedelta(minutes=4))
    assert Alert.objects.active().exists()
    services.expire(by=SETUP, now=world.now + timedelta(minutes=5))
    assert not Alert.objects.active().exists()


@pytest.mark.parametrize(
    "wrong", [{"type": ""}, {"severity": "fatal"}, {"message": ""}, {"message": "x" * 10_001}, {"service": "x" * 101}]
)
def test_a_malformed_post_is_refused_by_field(world: World, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        post(world, **wrong)
    assert set(caught.value.message_dict) == set(wrong)


# --- Rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"expression": "sum(temperature"}, "expression", "1:"),
        ({"expression": ""}, "expression", "needed"),
        ({"expression": "temperature[5m]"}, "expression", "range vector"),
        ({"slug": "no spaces"}, "slug", "letters"),
        ({"type": "weird"}, "type", "none of"),
        ({"pending_period": "99999d"}, "pending_period", "Between"),
        ({"labels": {"alertname": "x"}}, "labels", "cannot be set"),
        ({"labels": {"1x": "x"}}, "labels", "not beginning with a digit"),
        ({"annotations": {"summary": "{{ $lables.x }}"}}, "annotations", 'undefined variable "$lables"'),
        ({"annotations": {"summary": 1}}, "annotations", "must be a text"),
        ({"levels": []}, "levels", "At least one level"),
        ({"levels": [("warning", ">", 1), ("warning", ">", 2)]}, "levels", "two levels warning"),
        ({"levels": [("warning", "=>", 1)]}, "levels", "no comparison"),
        ({"levels": [("bad", ">", 1)]}, "levels", "no severity"),
        ({"levels": [("warning", ">", None)]}, "levels", "both a comparison and a threshold"),
        ({"levels": [("warning", "", None), ("error", ">", 1)]}, "levels", "lone level"),
        ({"levels": [("warning", ">", float("nan"))]}, "levels", "not a number"),
    ],
)
def test_a_wrong_rule_is_refused_by_field(world: World, values: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        world.rule(**values)
    assert list(caught.value.message_dict) == [field]
    assert words in caught.value.message_dict[field][0]


def test_two_rules_do_not_share_a_slug(world: World) -> None:
    world.rule()
    with pytest.raises(ValidationError, match="another rule hot"):
        world.rule()


def test_a_condition_is_taken_apart(world: World) -> None:
    data = services.rule_from_condition(
        {"id": "slow-response", "name": "Slow API Response", "condition": "responseTime > 5000", "severity": "WARNING"}
    )
    rule = services.rule_from_dict(data, group=world.group())
    services.save_rule(by=ALICE, rule=rule, levels=data["levels"], now=world.now)
    assert (rule.slug, rule.expression, [str(level) for level in rule.levels.all()]) == (
        "slow-response",
        "responseTime",
        ["warning > 5000"],
    )
    plain = world.rule("down", expression="up == 0", levels=[("critical", None, None)])
    assert (plain.expression, str(plain.levels.get())) == ("up", "critical == 0")


def test_a_wrong_condition_says_where(world: World) -> None:
    with pytest.raises(ValidationError) as caught:
        services.rule_from_condition({"condition": "responseTime >"})
    assert "1:" in caught.value.message_dict["condition"][0]


def test_a_changed_rule_replaces_its_levels_and_leaves_before_and_after(world: World) -> None:
    rule = world.rule()
    rule.name = "Very hot"
    services.save_rule(
        by=ALICE, rule=rule, levels=[{"severity": "error", "comparison": ">", "threshold": "1e2"}], now=world.now
    )
    assert [str(level) for level in rule.levels.all()] == ["error > 100"]
    entry = AuditEntry.objects.filter(verb="alerting.save_rule").latest("id")
    assert entry.before is not None
    assert entry.after is not None
    assert entry.before["levels"] == ["critical > 90", "warning > 80"]
    assert entry.after["name"] == "Very hot"
    assert "expression" not in entry.after


def test_a_change_of_a_rule_counts_from_the_next_tick(world: World) -> None:
    rule = world.rule()
    world.tick(50.0)
    rule.expression = "temperature * 2"
    services.save_rule(
        by=ALICE, rule=rule, levels=[{"severity": "error", "comparison": ">", "threshold": 99}], now=world.now
    )
    world.tick(50.0)
    assert Alert.objects.get().value == 100.0


@pytest.mark.parametrize("how", ["rule off", "rule deleted", "group off"])
def test_a_rule_that_goes_takes_its_open_alerts_with_it(world: World, how: str) -> None:
    alert = firing(world)
    rule = AlertRule.objects.get()
    if how == "rule off":
        rule.enabled = False
        levels = [{"severity": "error", "comparison": ">", "threshold": 99}]
        services.save_rule(by=ALICE, rule=rule, levels=levels, now=world.now)
    elif how == "rule deleted":
        services.delete_rule(by=ALICE, rule=rule, now=world.now)
    else:
        rule.group.enabled = False
        services.save_group(by=ALICE, group=rule.group, now=world.now)
    alert.refresh_from_db()
    assert (alert.state, alert.resolve_reason, alert.type) == ("resolved", "rule", "hot")
    assert series(world, "ALERTS") == []
    assert Transition.objects.untold().filter(after="resolved").count() == 1


def test_a_group_that_comes_back_has_missed_nothing(world: World) -> None:
    world.rule()
    world.tick(10.0)
    group = RuleGroup.objects.get()
    for enabled in (False, True):
        group.enabled = enabled
        services.save_group(by=ALICE, group=group, now=world.now)
        world.wait(3600)
    world.tick(10.0)
    assert GroupRun.objects.get().missed == 0


def test_a_group_with_rules_stays(world: World) -> None:
    world.rule()
    with pytest.raises(ValidationError, match="still has rules"):
        services.delete_group(by=ALICE, group=RuleGroup.objects.get(), now=world.now)


@pytest.mark.parametrize(
    ("name", "expression", "field"),
    [("1x", "up", "name"), ("a b", "up", "name"), ("x", "up[5m]", "expression"), ("x", "up +", "expression")],
)
def test_a_wrong_recording_rule_is_refused_by_field(world: World, name: str, expression: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        world.record(name, expression)
    assert list(caught.value.message_dict) == [field]


def test_what_never_fired_is_forgotten_after_a_week(world: World) -> None:
    world.rule(pending_period=60)
    world.tick(95.0)
    world.tick(10.0)
    assert Alert.objects.get().state == "inactive"
    world.wait(8 * 86400)
    services.expire(by=SETUP, now=world.now)
    assert not Alert.objects.exists()
    assert AuditEntry.objects.filter(verb="alerting.forget").count() == 1


# --- Reading ----------------------------------------------------------------------------------------------------


def test_statistics_count_what_fired_in_the_range(world: World) -> None:
    alert = firing(world)
    post(world)
    services.resolve(by=ALICE, alert=alert, now=world.now)
    found = statistics.stats(start=world.now - timedelta(hours=1), end=world.now)
    assert found == {
        "total": 2,
        "active": 1,
        "resolved": 1,
        "bySeverity": {"INFO": 0, "WARNING": 0, "ERROR": 1, "CRITICAL": 1},
        "byType": {"backup": 1, "hot": 1},
    }
    assert statistics.stats(start=world.now - timedelta(hours=2), end=world.now - timedelta(hours=1))["total"] == 0


@pytest.mark.parametrize(
    ("matcher", "count"),
    [
        (("host", "=", "a"), 1),
        (("host", "!=", "a"), 1),
        (("host", "=~", "a|b"), 2),
        (("host", "=~", "x"), 0),
        (("host", "!~", "b.*"), 1),
        (("zone", "=", ""), 2),
        (("zone", "!=", ""), 0),
    ],
)
def test_a_scope_hides_what_its_matchers_do_not_accept(world: World, matcher: tuple[str, str, str], count: int) -> None:
    world.rule()
    world.wait(10)
    world.push(95.0, host="a")
    world.push(95.0, host="b")
    world.wait(-10)
    world.tick()
    scope = Scope((matcher,))
    assert Alert.objects.visible_to(scope).count() == count
    assert Incident.objects.visible_to(scope).count() == count
    assert Transition.objects.visible_to(scope).count() == count
