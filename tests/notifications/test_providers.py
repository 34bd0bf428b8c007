"""What the channels of single providers say: bodies, limits and identities, as the providers document them."""

import json
import uuid
from base64 import b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import orjson
import pytest
from hypothesis import given

from apps.core.http import Refused, Unreachable
from apps.notifications.channels import Sender, channels
from apps.notifications.channels.apprise import AppriseService
from apps.notifications.channels.discord import payload as discord
from apps.notifications.channels.mattermost import payload as mattermost
from apps.notifications.channels.ntfy import payload as ntfy
from apps.notifications.channels.pagerduty import payload as pagerduty
from apps.notifications.channels.teams import payload as teams
from apps.notifications.channels.voice import twiml
from apps.notifications.message import Message
from apps.notifications.plaintext import brief, render
from tests.notifications.conftest import a_message
from tests.notifications.messages import messages
from tests.notifications.receivers import Answer, HttpReceiver
from tests.notifications.test_conformance import ACCOUNT, SECRET, SETTINGS

KEY = uuid.UUID("6f1f7c1e-0000-4000-8000-000000000001")
SENDER = Sender("night shift", "https://portal.example", ())


def _send(kind: str, receiver: HttpReceiver, message: Message, **more: Any) -> str:
    channel = channels.get(kind)({**SETTINGS[kind](receiver.url), **more}, SENDER)
    return channel.send(message, KEY)


@pytest.mark.parametrize(
    ("kind", "answer", "ident"),
    [
        ("telegram", {"ok": True, "result": {"message_id": 77}}, "77"),
        ("discord", {"id": "1199"}, "1199"),
        ("ntfy", {"id": "sPs71M8A2T"}, "sPs71M8A2T"),
        ("sms", {"sid": "SM1"}, "SM1"),
        ("voice", {"sid": "CA1"}, "CA1"),
        ("opsgenie", {"requestId": "43a2"}, "43a2"),
        ("discord", ["not", "as", "documented"], ""),
    ],
)
def test_the_providers_id_of_a_message_is_kept(http_receiver: HttpReceiver, kind: str, answer: Any, ident: str):
    http_receiver.answer = lambda request: Answer(body=json.dumps(answer).encode())
    assert _send(kind, http_receiver, a_message()) == ident


def test_an_alert_at_pagerduty_is_one_from_its_first_firing_to_its_end(http_receiver: HttpReceiver):
    for message in (a_message(), a_message("Worse"), replace(a_message(), status="resolved")):
        _send("pagerduty", http_receiver, message)
    events = [request.json() for request in http_receiver.requests]
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1
    assert events[0]["payload"]["severity"] == "critical"
    assert events[0]["payload"]["source"] == "web-1"
    assert events[0]["routing_key"] == SECRET


@pytest.mark.parametrize("kind", ["pagerduty", "opsgenie"])
def test_a_test_leaves_nobody_an_alert_to_close(http_receiver: HttpReceiver, kind: str):
    _send(kind, http_receiver, Message("Test", "It works.", status="test"))
    first, second = http_receiver.requests
    assert first.json() != second.json()
    assert "resolve" in second.content.decode() or "/close?" in second.path


def test_opsgenie_closes_by_the_alias_under_which_it_was_told(http_receiver: HttpReceiver):
    _send("opsgenie", http_receiver, a_message())
    _send("opsgenie", http_receiver, replace(a_message(), status="resolved"))
    created, closed = http_receiver.requests
    assert created.headers["authorization"] == f"GenieKey {SECRET}"
    assert created.json()["priority"] == "P1"
    assert closed.path.endswith(f"/v2/alerts/{created.json()['alias']}/close?identifierType=alias")


def test_an_sms_is_short_and_comes_from_the_account(http_receiver: HttpReceiver):
    _send("sms", http_receiver, a_message("Memory is high " * 100))
    [request] = http_receiver.requests
    values = {name: value for name, [value] in parse_qs(request.content.decode()).items()}
    assert request.path.endswith(f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    assert request.headers["authorization"] == "Basic " + b64encode(f"{ACCOUNT}:{SECRET}".encode()).decode()
    assert values["To"] == "+4930123456"
    assert len(values["Body"]) <= 459
    assert values["Body"].endswith("/monitoring/alerts/alert_1/")


def test_an_sms_needs_a_sender():
    values = {**SETTINGS["sms"](""), "api_url": "", "sender": ""}
    assert "messaging service" in str(channels.get("sms").Config(values).errors)


def test_a_gateway_gets_its_own_field_names(http_receiver: HttpReceiver):
    _send("sms_gateway", http_receiver, a_message(), to_field="number", text_field="msg", format="form")
    [request] = http_receiver.requests
    assert set(parse_qs(request.content.decode())) == {"number", "msg"}
    assert request.headers["idempotency-key"] == str(KEY)


@given(messages)
def test_what_is_read_aloud_is_well_formed(message: Message):
    spoken = ElementTree.fromstring(twiml(message))  # noqa: S314 - our own text
    assert [part.tag for part in spoken] == ["Say", "Pause", "Say"]


@given(messages)
def test_every_body_keeps_to_its_providers_limits(message: Message):
    [embed] = discord(message)["embeds"]
    assert 1 <= len(embed["title"]) <= 256
    assert len(embed["title"]) + len(embed["description"]) <= 6000
    assert len(embed["description"]) <= 4096
    assert len(orjson.dumps(teams(message))) <= 28_000
    assert len(ntfy(message, "night")["message"].encode()) <= 4096
    assert len(pagerduty(message, "d", "trigger", "")["payload"]["summary"]) <= 1024
    assert len(render(message, limit=4096)) <= 4096
    assert len(brief(message, limit=459)) <= 459


def test_a_card_for_teams_says_how_many_alerts_it_leaves_out():
    full = replace(a_message().alerts[0], text="x" * 5000, facts=tuple((f"Fact {n}", "y" * 900) for n in range(20)))
    shown = orjson.dumps(teams(a_message(alerts=(full,) * 50))).decode().count("Memory is high on web-1")
    assert f"{50 - shown} more" in orjson.dumps(teams(a_message(alerts=(full,) * 50))).decode()


EVIL = "@everyone @here <@1> [click](https://evil.example) *bold* <!channel>"


def test_no_label_calls_anybody_or_becomes_a_link():
    message = a_message(EVIL, body=EVIL)
    assert discord(message)["allowed_mentions"] == {"parse": []}
    assert "](" not in discord(message)["embeds"][0]["description"]
    assert "@here" not in json.dumps(mattermost(message), ensure_ascii=False)
    assert "[click](" not in json.dumps(teams(message))


@pytest.mark.parametrize(
    "url", ["dbus://", "syslog://", "mailto://a:b@example.com", "nosuch://x", "file:///etc/passwd"]
)
def test_apprise_is_refused_where_no_guarded_door_is(url: str):
    form = AppriseService.Config({"url": url})
    assert not form.is_valid()


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "localhost"])
def test_apprise_reaches_no_address_that_the_door_refuses(host: str):
    with pytest.raises(Refused, match=r"OUTBOUND_ALLOW|never contacted"):
        AppriseService({"url": f"json://{host}/x"}, SENDER).send(a_message(), KEY)


def test_a_redirect_leads_apprise_to_no_refused_address(http_receiver: HttpReceiver):
    http_receiver.answer = lambda request: Answer(307, {"Location": "http://169.254.169.254/latest/meta-data/"})
    url = http_receiver.url.replace("http://", "json://") + "?redirect=yes"
    with pytest.raises(Refused, match="never contacted"):
        AppriseService({"url": url}, SENDER).send(a_message(), KEY)


def test_apprise_says_when_nobody_answers(settings: Any):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with pytest.raises(Unreachable):
        AppriseService({"url": "json://127.0.0.1:9/x"}, SENDER).send(a_message(), KEY)
