"""Rules and alerts as Prometheus' API shows them, seen through a scope."""

from typing import Any

import pytest

from apps.accounts.rights import Principal
from apps.alerting import services
from apps.alerting.models import RuleGroup
from apps.alerting.prometheus_api import HIDDEN
from tests.alerting.conftest import World
from tests.wiring.lanes import ask, token

BY = Principal.system("test")


@pytest.fixture
def reader(db):
    return token("read")


@pytest.fixture
def world(db):
    return World()


def rules(headers, **parameters):
    return ask("/api/v1/rules", headers, {name.replace("__", "[]"): value for name, value in parameters.items()}).data


def named(found):
    return [(group["name"], [rule["name"] for rule in group["rules"]]) for group in found["groups"]]


def test_a_level_is_shown_as_the_plain_rule_that_it_stands_for(world, reader):
    world.rule(pending_period="1m", keep_firing_for="2m", labels={"team": "web"})
    [group] = rules(reader)["groups"]
    warning, critical = group["rules"]
    assert warning == {
        "state": "inactive",
        "name": "Hot",
        "query": "temperature > 80",
        "duration": 60.0,
        "keepFiringFor": 120.0,
        "labels": {"severity": "warning", "team": "web"},
        "annotations": {},
        "alerts": [],
        "health": "unknown",
        "evaluationTime": 0.0,
        "lastEvaluation": "0001-01-01T00:00:00Z",
        "type": "alerting",
    }
    assert (critical["query"], critical["labels"]["severity"]) == ("temperature > 90", "critical")
    assert {name: group[name] for name in ("name", "file", "interval", "limit")} == {
        "name": "house",
        "file": "portal",
        "interval": 10.0,
        "limit": 0,
    }


def test_a_firing_alert_stands_under_its_level_with_its_newest_value(world, reader):
    world.rule()
    world.tick(85.0, room="attic")
    world.tick(86.5, room="attic")
    [group] = rules(reader)["groups"]
    warning, critical = group["rules"]
    [alert] = warning["alerts"]
    assert (warning["state"], critical["state"], warning["health"]) == ("firing", "inactive", "ok")
    assert alert == {
        "labels": {"alertname": "Hot", "room": "attic", "severity": "warning"},
        "annotations": {},
        "state": "firing",
        "activeAt": alert["activeAt"],
        "value": "8.65e+01",
    }
    assert alert["activeAt"].endswith("Z")
    assert ask("/api/v1/alerts", reader).data == {"alerts": [alert]}
    assert group["lastEvaluation"].startswith("2026-11-23T12:00:")


def test_what_is_kept_firing_says_since_when(world, reader):
    world.rule(keep_firing_for="5m")
    world.tick(85.0)
    world.tick(20.0)
    [alert] = ask("/api/v1/alerts", reader).data["alerts"]
    assert (alert["state"], alert["keepFiringSince"][:16]) == ("firing", "2026-11-23T12:00")


def test_recording_rules_are_shown_and_a_broken_one_says_why(world, reader):
    world.record("a:b", "sum(temperature)")
    world.record("c:d", "temperature * on () temperature")
    world.push(1.0, room="a")
    world.tick(1.0, room="b")
    fine, broken = rules(reader, type="record")["groups"][0]["rules"]
    assert (fine["name"], fine["query"], fine["health"], fine["type"]) == (
        "a:b",
        "sum(temperature)",
        "ok",
        "recording",
    )
    assert (broken["health"], "duplicate" in broken["lastError"]) == ("err", True)
    narrow = token("read", matchers=(("room", "=", "b"),))
    assert rules(narrow, type="record")["groups"][0]["rules"][1]["lastError"] == HIDDEN


def test_a_scope_sees_its_own_alerts_only(world):
    world.rule()
    world.push(95.0, room="cellar")
    world.tick(85.0, room="attic")
    narrow = token("read", matchers=(("room", "=", "attic"),))
    assert [one["labels"]["room"] for one in ask("/api/v1/alerts", narrow).data["alerts"]] == ["attic"]
    warning, critical = rules(narrow)["groups"][0]["rules"]
    assert (warning["state"], critical["state"], critical["alerts"]) == ("firing", "inactive", [])


def test_rules_are_filtered_by_all_that_prometheus_filters_by(world, reader):
    world.rule("a", labels={"team": "web"})
    world.rule("b", group=world.group("cellar"), labels={"team": "db"}, levels=[("warning", ">", 1)])
    world.record("r:r", "sum(temperature)", group=world.group("cellar"))
    everything = [("cellar", ["r:r", "B"]), ("house", ["A", "A"])]
    table: list[tuple[dict[str, Any], Any]] = [
        ({}, everything),
        ({"type": "record"}, [("cellar", ["r:r"])]),
        ({"type": "ALERT"}, [("cellar", ["B"]), ("house", ["A", "A"])]),
        ({"rule_name__": ["A", "r:r"]}, [("cellar", ["r:r"]), ("house", ["A", "A"])]),
        ({"rule_group__": "house"}, everything[1:]),
        ({"file__": "portal"}, everything),
        ({"file__": "other"}, []),
        ({"match__": '{team="db"}'}, [("cellar", ["B"])]),
        ({"match__": ['{severity="critical"}', '{team="db"}']}, [("cellar", ["B"]), ("house", ["A"])]),
    ]
    for parameters, expected in table:
        assert named(rules(reader, **parameters)) == expected, parameters
    world.tick(95.0)
    assert all(one["alerts"] == [] for group in rules(reader, exclude_alerts="true")["groups"] for one in
               group["rules"] if one["type"] == "alerting")  # fmt: skip


def test_groups_come_in_pages(world, reader):
    for name in ("a", "b", "c"):
        world.rule(name, group=world.group(name))
    services.save_group(by=BY, group=RuleGroup(name="aa empty"), now=world.now)
    first = rules(reader, group_limit=2)
    assert [group["name"] for group in first["groups"]] == ["a", "b"]
    last = rules(reader, group_limit=2, group_next_token=first["groupNextToken"])
    assert [group["name"] for group in last["groups"]] == ["c"]
    assert "groupNextToken" not in last


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "foo"}, 'invalid parameter "type": not supported value "foo"'),
        ({"group_limit": "0"}, 'invalid parameter "group_limit": group_limit needs to be greater than 0'),
        ({"group_next_token": "x"}, "needs to be present in order to paginate"),
        ({"group_next_token": "x", "group_limit": "1"}, "were rule groups changed?"),
        ({"exclude_alerts": "perhaps"}, 'invalid parameter "exclude_alerts"'),
        ({"match[]": "{"}, 'invalid parameter "match[]": 1:2: parse error'),
    ],
)
def test_a_wrong_filter_is_told(reader, parameters, words):
    status, kind, said = ask("/api/v1/rules", reader, parameters).error
    assert (status, kind, words in said) == (400, "bad_data", True), said
