"""Alertmanager's API v2 over the lanes: shapes, filters and refusals; and the configuration that it hands out."""

import shutil
import subprocess
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.utils import timezone

from apps.alerting.models import Alert
from apps.notifications.models import Contact
from apps.oncall import alertmanager, alertmanager_file, routing, services, telling
from apps.oncall.alertmanager_file import Branch, Receiver
from apps.oncall.models import Route
from apps.promql.source import Matcher
from tests.oncall.conftest import BY
from tests.wiring.lanes import Headers, Said, ask, token

pytestmark = pytest.mark.django_db
AMTOOL = shutil.which("amtool")
JSON: Headers = [(b"content-type", b"application/json")]


@pytest.fixture
def headers() -> Headers:
    return token("read", "alerts")


def post(headers: Headers, path: str, value: Any, **kw: Any) -> Said:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return ask(path, [*headers, *JSON], method="POST", body=body, **kw)


def listed(headers: Headers, **parameters: Any) -> list[str]:
    return [one["labels"]["instance"] for one in ask("/api/v2/alerts", headers, parameters).json]


DOWN = {"labels": {"alertname": "Down", "severity": "page", "instance": "a"}, "annotations": {"summary": "hi"}}


# --- Alerts ---------------------------------------------------------------------------------------------------------
def test_an_alert_comes_back_in_alertmanagers_shape(headers, night):
    night.route()
    said = post(headers, "/api/v2/alerts", [{**DOWN, "generatorURL": "http://p/graph"}])
    assert (said.status, said.body) == (200, b"")
    telling.tell(now=Alert.objects.get().seen_at)
    (one,) = ask("/api/v2/alerts", headers).json
    assert {"startsAt", "endsAt", "updatedAt"} <= set(one)
    assert {name: value for name, value in one.items() if not name.endswith("At")} == {
        "annotations": {"summary": "hi"},
        "fingerprint": alertmanager.fingerprint(DOWN["labels"]),
        "generatorURL": "http://p/graph",
        "labels": DOWN["labels"],
        "receivers": [{"name": "root"}],
        "status": {"inhibitedBy": [], "mutedBy": [], "silencedBy": [], "state": "active"},
    }
    (group,) = ask("/api/v2/alerts/groups", headers).json
    assert (group["labels"], group["receiver"], len(group["alerts"])) == ({"alertname": "Down"}, {"name": "root"}, 1)


def test_fingerprints_are_those_of_a_real_alertmanager():
    assert alertmanager.fingerprint({"alertname": "ok", "severity": "page"}) == "9ced1bbd0ae9b476"


def test_an_alert_of_the_portal_itself_is_listed_too(headers, night):
    night.fire("disk", "critical")
    (one,) = ask("/api/v2/alerts", headers).json
    assert one["labels"] == {"alertname": "disk", "severity": "critical"}
    assert one["status"]["state"] == "unprocessed"
    assert ask("/api/v2/alerts", headers, {"unprocessed": "false"}).json == []


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (['instance="a"'], ["a"]),
        (["instance=~a|b"], ["a", "b"]),
        (['instance!="a"'], ["b"]),
        (['instance!~"a|b"'], []),
        (['alertname="Down"', 'instance="b"'], ["b"]),
        (['absent=""'], ["a", "b"]),
    ],
)
def test_filters_are_anded(headers, filters, found):
    post(headers, "/api/v2/alerts", [DOWN, {"labels": {**DOWN["labels"], "instance": "b"}}])
    assert sorted(listed(headers, filter=filters)) == found


def test_alerts_are_found_by_a_receiver_that_is_told(headers, night):
    night.route()
    night.route("db team", is_root=False, matchers=['instance="a"'])
    post(headers, "/api/v2/alerts", [DOWN, {"labels": {**DOWN["labels"], "instance": "b"}}])
    assert listed(headers, receiver="db.*") == ["a"]
    assert listed(headers, receiver="db") == []  # the whole name, as in Alertmanager


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"filter": "x"}, "is no matcher"),
        ({"filter": 'a=~"("'}, "no regular expression that can be used"),
        ({"receiver": "("}, "failed to parse receiver param"),
    ],
)
def test_a_filter_that_cannot_be_read_is_400_with_a_text(headers, parameters, said):
    answer = ask("/api/v2/alerts", headers, parameters)
    assert answer.status == 400
    assert said in answer.json


def test_refusals_have_alertmanagers_shapes(headers):
    assert post(headers, "/api/v2/alerts", b"[").json["code"] == 400
    assert post(headers, "/api/v2/alerts", b"").json == {"code": 602, "message": "alerts in body is required"}
    wrong = post(headers, "/api/v2/alerts", [{"labels": {"a-b": "c"}}, DOWN])
    assert (wrong.status, wrong.json) == (400, 'invalid label set: invalid name "a-b"')
    assert listed(headers) == ["a"]  # what could be taken was
    form = ask("/api/v2/alerts", headers, method="POST", form={"a": "b"})
    assert (form.status, form.json["code"]) == (415, 415)
    nobody = ask("/api/v2/alerts", [])
    assert (nobody.status, set(nobody.json)) == (401, {"code", "message"})


def test_a_token_that_only_posts_may_not_list_and_a_reader_may_not_post():
    post_only, reader = token("alerts"), token("read")
    assert post(post_only, "/api/v2/alerts", [DOWN]).status == 200
    assert ask("/api/v2/alerts", post_only).status == 403
    assert post(reader, "/api/v2/alerts", [DOWN]).status == 403
    assert listed(reader) == ["a"]


def test_a_narrow_scope_sees_and_posts_only_what_it_covers(headers):
    narrow = token("read", "alerts", matchers=(("instance", "=", "a"),))
    said = post(narrow, "/api/v2/alerts", [DOWN, {"labels": {**DOWN["labels"], "instance": "b"}}])
    assert (said.status, "may not speak of" in said.json) == (400, True)
    post(headers, "/api/v2/alerts", [{"labels": {**DOWN["labels"], "instance": "c"}}])
    assert listed(narrow) == ["a"]
    assert sorted(listed(headers)) == ["a", "c"]


def test_everything_answers_below_a_prefix_too(headers):
    assert post(headers, "/alertmanager/api/v2/alerts", [DOWN]).status == 200
    assert ask("/alertmanager/api/v2/status", headers).status == 200


# --- Configuration --------------------------------------------------------------------------------------------------
def routes(night: Any) -> None:
    hook = night.contact("hook", secrets={"token": "s3cret"})
    mail = Contact.objects.create(name="mail", kind="email", config={"to": ["a@example.com"]})
    slack = Contact.objects.create(name="slack", kind="slack", config={}, secrets={"webhook_url": "https://s3cret"})
    bot = Contact.objects.create(
        name="bot", kind="slack_bot", config={"channel": "#night"}, secrets={"bot_token": "xoxb-s3cret"}
    )
    policy = night.policy(("notify", {"contacts": [hook.pk]}))
    night.route("root", mail, policy=policy)
    night.route(
        "db", hook, is_root=False, matchers=['service=~"db|cache"', 'path!="C:\\\\x \\"y\\""'], group_by=["..."]
    )
    values = {"matchers": ["severity=critical"], "continue_matching": True, "group_wait": timedelta(0)}
    services.save_route(by=BY, route=Route(position=2), values={"name": "loud", **values}, contacts=[slack, bot])


def test_the_status_holds_a_configuration_without_secrets(headers, night):
    routes(night)
    answer = ask("/api/v2/status", headers).json
    text = answer["config"]["original"]
    assert "s3cret" not in text
    assert "<secret>" in text
    assert "escalation policy “night”" in text
    assert {"cluster", "versionInfo", "uptime"} < set(answer)
    names = [one["name"] for one in ask("/api/v2/receivers", headers).json]
    assert sorted(names) == ["db", "loud", "root"]


def test_a_route_that_continues_offers_its_alerts_to_the_root_too():
    timers = (timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=4))
    root = Branch("root", (), ["alertname"], *timers)
    child = Branch("loud", [Matcher("severity", "=", "critical")], ["alertname"], *timers, goes_on=True)
    text = alertmanager_file.render(root, [child], [Receiver("root"), Receiver("loud")])
    assert text.index("continue: true") < text.rindex("- receiver: root")


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not on PATH; CI installs the package prometheus-alertmanager")
def test_amtool_loads_the_configuration_and_routes_as_the_portal_does(night, tmp_path):
    routes(night)
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager.configuration())

    def amtool(*arguments: str) -> str:
        ran = subprocess.run([str(AMTOOL), *arguments], capture_output=True, text=True, timeout=30, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr + file.read_text()
        return ran.stdout

    amtool("check-config", str(file))
    ours = routing.Routing()
    for labels in ({"service": "db"}, {"service": "db", "severity": "critical"}, {"severity": "critical"}, {"a": "b"}):
        severity = labels.get("severity", "warning")
        alert = Alert(type="x", severity=severity, category="custom", labels={"alertname": "x", **labels})
        here = [alertmanager.receiver_of(place) for place in ours.of(alert)]
        given = [f"{name}={value}" for name, value in labels.items()]
        there = amtool("config", "routes", "test", f"--config.file={file}", *given).strip()
        assert there.split(",") == here, labels


# --- The other doors ------------------------------------------------------------------------------------------------
def test_an_alertmanagers_webhook_begins_and_ends_alerts(headers):
    alert = {"status": "firing", "labels": {"alertname": "Down"}, "annotations": {}, "startsAt": "2026-11-23T11:00:00Z"}
    address = "/api/v1/portal/intake/alertmanager"
    assert post(headers, address, {"version": "4", "alerts": [alert]}).json == {
        "success": True, "begun": 1, "repeated": 0, "ended": 0, "rejected": [],
    }  # fmt: skip
    ended = {**alert, "status": "resolved", "endsAt": "2026-11-23T12:00:00Z"}
    assert post(headers, address, {"version": "4", "alerts": [ended]}).json["ended"] == 1
    wrong = post(headers, address, {"version": "4", "alerts": [{"labels": {"a-b": "c"}}]})
    assert (wrong.status, wrong.json["rejected"][0]["index"]) == (400, 0)
    assert post(headers, address, b"nonsense").status == 400


def enqueue(action: str, headers: Headers, **fields: Any) -> Said:
    payload = {"summary": "Disk is full", "source": "db1", "severity": "error"}
    key = headers[0][1].decode().removeprefix("Bearer ")
    event = {"routing_key": key, "event_action": action, "dedup_key": "disk", "payload": payload, **fields}
    return post([], "/v2/enqueue", event)


def test_pagerdutys_events_trigger_acknowledge_and_resolve(headers):
    said = enqueue("trigger", headers)
    assert (said.status, said.json) == (
        202, {"status": "success", "message": "Event processed", "dedup_key": "disk"},
    )  # fmt: skip
    assert Alert.objects.get().message == "Disk is full"
    enqueue("acknowledge", headers)
    assert Alert.objects.get().acknowledged_at is not None
    assert enqueue("resolve", headers).status == 202
    assert Alert.objects.get().state == "resolved"
    assert enqueue("resolve", headers).status == 202  # what is not open is nothing


def test_a_wrong_event_is_refused_as_pagerduty_does(headers):
    wrong = enqueue("explode", headers)
    assert (wrong.status, wrong.json["status"], len(wrong.json["errors"])) == (400, "invalid event", 1)
    stranger = enqueue("trigger", headers, routing_key="R0UT1NGKEY")
    assert (stranger.status, stranger.json["errors"]) == (400, ["Invalid routing key"])
    assert post([], "/v2/enqueue", b"nonsense").status == 401
    assert enqueue("trigger", token("read")).status == 403


# --- Silences -------------------------------------------------------------------------------------------------------
def a_silence(**fields: Any) -> dict[str, Any]:
    now = timezone.now()
    return {
        "matchers": [{"name": "instance", "value": "a", "isRegex": False}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "me",
        "comment": "planned",
        **fields,
    }


def test_a_silence_is_made_listed_changed_and_expired(headers):
    post(headers, "/api/v2/alerts", [DOWN])
    ident = post(headers, "/api/v2/silences", a_silence()).json["silenceID"]
    shown = ask(f"/api/v2/silence/{ident}", headers).json
    assert shown["matchers"] == [{"name": "instance", "value": "a", "isRegex": False, "isEqual": True}]
    assert (shown["status"], shown["createdBy"], shown["comment"]) == ({"state": "active"}, "me", "planned")
    (alert,) = ask("/api/v2/alerts", headers).json
    assert (alert["status"]["state"], alert["status"]["silencedBy"]) == ("suppressed", [ident])
    assert listed(headers, silenced="false") == []
    assert post(headers, "/api/v2/silences", a_silence(id=ident, comment="longer")).json == {"silenceID": ident}
    assert [one["comment"] for one in ask("/api/v2/silences", headers).json] == ["longer"]
    assert ask(f"/api/v2/silence/{ident}", headers, method="DELETE").status == 200
    assert ask("/api/v2/silences", headers).json[0]["status"] == {"state": "expired"}
    assert listed(headers, silenced="false") == ["a"]
    assert post(headers, "/api/v2/silences", a_silence(id=ident)).json["silenceID"] != ident


@pytest.mark.parametrize(
    ("filters", "found"),
    [(['instance="a"'], 1), (['instance="b"'], 0), (['instance!="a"'], 0), (['other=""'], 1), (["instance=~a|b"], 1)],
)
def test_silences_are_found_by_what_their_matchers_name(headers, filters, found):
    post(headers, "/api/v2/silences", a_silence())
    assert len(ask("/api/v2/silences", headers, {"filter": filters}).json) == found


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"comment": None}, 422, {"code": 602, "message": "comment in body is required"}),
        ({"matchers": []}, 422, {"code": 612, "message": "matchers in body should have at least 1 items"}),
        ({"endsAt": "2020-01-01T00:00:00Z"}, 400, "Failed to create silence: start time must be before end time"),
        (
            {"startsAt": "2020-01-01T00:00:00Z", "endsAt": "2020-01-02T00:00:00Z"},
            400,
            "Failed to create silence: end time can't be in the past",
        ),
        (
            {"matchers": [{"name": "a", "value": "", "isRegex": False}]},
            400,
            "silence invalid: at least one matcher must not match the empty string",
        ),
        ({"id": "3e3b8ff0-0000-0000-0000-000000000000"}, 404, "silence not found"),
        ({"id": "nonsense"}, 404, "silence not found"),
    ],
)
def test_a_silence_that_cannot_be_is_refused_in_alertmanagers_words(headers, fields, status, said):
    answer = post(headers, "/api/v2/silences", a_silence(**fields))
    assert (answer.status, answer.json) == (status, said)


def test_a_silence_that_is_not_there_is_not_found(headers):
    assert ask("/api/v2/silence/3e3b8ff0-0000-0000-0000-000000000000", headers).status == 404
    assert ask("/api/v2/silence/3e3b8ff0-0000-0000-0000-000000000000", headers, method="DELETE").status == 404
    assert ask("/api/v2/silence/xyz", headers).json == {
        "code": 601, "message": 'silenceID in path must be of type uuid: "xyz"',
    }  # fmt: skip
