"""The API of rules and alerts: a happy path and a refusal each."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.accounts import services as accounts
from apps.accounts.permissions import Principal
from apps.alerting.models import Alert, AlertRule, RecordingRule, RuleGroup, Transition
from tests.alerting.conftest import World

pytestmark = pytest.mark.urls("tests.alerting.api_urls")


def client(world: World, *scopes: str, matchers: Any = ()) -> APIClient:
    _, secret = accounts.issue_token(
        by=Principal.system("test"), name="t", scopes=scopes, expires_at=None, now=world.now, matchers=matchers
    )
    found = APIClient()
    found.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return found


RULE = {
    "slug": "slow",
    "name": "Slow",
    "group": "web",
    "expression": "responseTime",
    "levels": [{"severity": "warning", "comparison": ">", "threshold": 5000}],
    "pending_period": "1m",
}


def test_rules_are_made_read_changed_and_deleted(world: World) -> None:
    api = client(world, "admin")
    made = api.post("/rules/", RULE, format="json")
    assert made.status_code == 201, made.content
    assert made.json()["levels"] == [
        {
            "severity": "warning",
            "comparison": ">",
            "threshold": 5000.0,
            "recovery_threshold": None,
            "recovery_expression": "",
        }
    ]
    assert made.json()["pending_period"] == 60.0
    changed = api.patch("/rules/slow/", {"name": "Slower", "pending_period": 30}, format="json").json()
    assert (changed["name"], changed["pending_period"], len(changed["levels"])) == ("Slower", 30.0, 1)
    assert [rule["slug"] for rule in api.get("/rules/", {"group": "web"}).json()["results"]] == ["slow"]
    assert api.delete("/rules/slow/").status_code == 204
    assert not AlertRule.objects.exists()


def test_the_seeds_rule_object_is_taken(world: World) -> None:
    body = {
        "id": "slow-response",
        "name": "Slow API Response",
        "condition": "responseTime > 5000",
        "severity": "WARNING",
    }
    made = client(world, "admin").post("/rules/", body, format="json")
    assert made.status_code == 201, made.content
    assert (made.json()["slug"], made.json()["expression"]) == ("slow-response", "responseTime")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"expression": "sum("}, "expression"),
        ({"levels": [{"severity": "warning", "comparison": ">", "threshold": "much"}]}, "levels"),
        ({"pending_period": "soon"}, "pending_period"),
        ({"pending_period": "9" * 30 + "d"}, "pending_period"),
        ({"pending_period": 1e300}, "pending_period"),
        ({"colour": "red"}, "colour"),
        ({"levels": []}, "levels"),
    ],
)
def test_a_wrong_rule_is_answered_by_field(world: World, values: dict[str, Any], field: str) -> None:
    answer = client(world, "admin").post("/rules/", {**RULE, **values}, format="json")
    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert not AlertRule.objects.exists()


def test_who_may_only_read_cannot_write_rules_nor_resolve(world: World) -> None:
    world.rule()
    world.tick(95.0)
    api = client(world, "read")
    assert api.post("/rules/", RULE, format="json").status_code == 403
    assert api.post(f"/alerts/{Alert.objects.get().key}/resolve/").status_code == 403
    assert APIClient().get("/rules/").status_code == 401


def test_alerts_are_listed_acknowledged_and_resolved(world: World) -> None:
    world.rule()
    world.tick(95.0, host="a")
    reader, operator = client(world, "read"), client(world, "alerts")
    (alert,) = reader.get("/alerts/").json()["results"]
    assert (alert["rule"], alert["state"], alert["labels"]["host"]) == ("hot", "firing", "a")
    path = f"/alerts/{alert['key']}"
    assert operator.post(f"{path}/acknowledge/").json()["acknowledged_by"]
    resolved = operator.post(f"{path}/resolve/", {"resolved_by": "Bob"}, format="json").json()
    assert (resolved["state"], resolved["resolved_by"]) == ("resolved", "Bob")
    assert reader.get("/alerts/").json()["results"] == []
    assert reader.get("/alerts/", {"status": "history", "severity": "critical"}).json()["count"] == 1
    assert [row["kind"] for row in reader.get(f"{path}/transitions/").json()] == ["state", "acknowledged", "state"]
    assert len(reader.get("/transitions/", {"alert": alert["key"]}).json()["results"]) == 3
    assert operator.post(f"{path}/acknowledge/").status_code == 400
    assert reader.get("/alerts/", {"status": "some"}).status_code == 400


def test_a_token_with_matchers_sees_and_touches_only_its_own(world: World) -> None:
    world.rule()
    world.wait(10)
    world.push(95.0, host="a")
    world.push(95.0, host="b")
    world.wait(-10)
    world.tick()
    api = client(world, "read", "alerts", matchers=[("host", "=", "a")])
    assert [alert["labels"]["host"] for alert in api.get("/alerts/").json()["results"]] == ["a"]
    assert api.get("/incidents/").json()["count"] == 1
    hidden = Alert.objects.get(labels__host="b")
    assert api.post(f"/alerts/{hidden.key}/resolve/").status_code == 404
    assert api.post(f"/incidents/{hidden.incident_id}/resolve/").status_code == 404
    assert len(api.get("/transitions/").json()["results"]) == 1
    assert "results" not in api.get("/rule-groups/").json()["results"][0]


def test_incidents_are_acknowledged_and_resolved(world: World) -> None:
    world.rule()
    world.tick(95.0)
    api = client(world, "read", "alerts")
    (incident,) = api.get("/incidents/", {"state": "open"}).json()["results"]
    assert incident["alerts"] == [Alert.objects.get().key]
    assert api.post(f"/incidents/{incident['id']}/acknowledge/").json()["acknowledged_by"]
    assert api.post(f"/incidents/{incident['id']}/resolve/").json()["state"] == "resolved"


def test_groups_and_recording_rules_are_made_changed_and_deleted(world: World) -> None:
    api = client(world, "admin")
    group = api.post("/rule-groups/", {"name": "web", "interval": "15s"}, format="json")
    assert group.status_code == 201, group.content
    assert group.json()["interval"] == 15.0
    body = {"group": "web", "name": "a:b", "expression": "sum(up)"}
    made = api.post("/recording-rules/", body, format="json")
    assert made.status_code == 201, made.content
    assert api.post("/recording-rules/", {**body, "expression": "sum("}, format="json").status_code == 400
    path = f"/recording-rules/{made.json()['id']}/"
    assert api.patch(path, {"labels": {"team": "web"}}, format="json").json()["labels"] == {"team": "web"}
    assert api.delete(f"/rule-groups/{group.json()['id']}/").status_code == 400
    assert api.delete(path).status_code == 204
    assert api.patch(f"/rule-groups/{group.json()['id']}/", {"interval": 0}, format="json").status_code == 400
    assert api.delete(f"/rule-groups/{group.json()['id']}/").status_code == 204
    assert not RecordingRule.objects.exists()
    assert not RuleGroup.objects.exists()


def test_infinite_values_are_valid_json(world: World) -> None:
    world.rule()
    world.tick(float("inf"))
    answer = client(world, "read").get("/alerts/")
    assert answer.json()["results"][0]["value"] == "inf"
    assert Transition.objects.get().value == float("inf")


def test_lists_cost_the_same_however_long_they_are(world: World, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        world.rule(f"hot-{number}")
    world.tick(95.0)
    api = client(world, "read")
    for path, most in {"/rules/": 4, "/alerts/": 3, "/incidents/": 4, "/transitions/": 3, "/rule-groups/": 3}.items():
        api.get(path)
        with django_assert_max_num_queries(most):
            assert api.get(path).json()["results"]
