"""Slack's bot: one message from the first firing to the end, buttons that answer, and only for who may."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from django.test import Client

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.rights import Principal
from apps.notifications import outbox
from apps.notifications.channels.slack_bot import note
from apps.notifications.links import token_of
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery, Reply
from apps.notifications.sending import drain
from tests.notifications.conftest import Clock, a_message
from tests.notifications.receivers import Answer, HttpReceiver, Request

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


class Slack:
    """What Slack's Web API answers to the few methods that the bot calls; `errors` by method."""

    def __init__(self, receiver: HttpReceiver) -> None:
        self.errors: dict[str, str] = {}
        self.user: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        receiver.answer = self.answer
        self.url = receiver.url

    def answer(self, request: Request) -> Answer:
        method = request.path.rpartition("/")[2]
        is_form = "urlencoded" in request.headers["content-type"]
        self.calls.append((method, {"form": parse_qs(request.content.decode())} if is_form else request.json()))
        if method in self.errors:
            return Answer(body=json.dumps({"ok": False, "error": self.errors[method]}).encode())
        body = {"ok": True, "channel": "C0123ABCD", "ts": f"171234.{len(self.calls):06}", "user": self.user}
        return Answer(body=json.dumps(body).encode())


@pytest.fixture
def slack(http_receiver: HttpReceiver) -> Slack:
    return Slack(http_receiver)


@pytest.fixture
def bot(slack: Slack, db: None) -> Callable[..., Contact]:
    def make(name: str = "night shift", channel: str = "#night", **fields: Any) -> Contact:
        secrets = {"bot_token": "xoxb-1", "signing_secret": SECRET}
        config = {"channel": channel, "api_url": slack.url}
        return Contact.objects.create(name=name, kind="slack_bot", config=config, secrets=secrets, **fields)

    return make


@pytest.fixture
def tell(clock: Clock) -> Callable[..., Delivery]:
    def send(contact: Contact, message: Message, purpose: str = "firing") -> Delivery:
        delivery = outbox.enqueue(contact=contact, message=message, purpose=purpose, now=clock.now)
        drain(clock=clock)
        delivery.refresh_from_db()
        return delivery

    return send


def buttons(body: dict[str, Any]) -> list[str]:
    found = [block for block in body["attachments"][0]["blocks"] if block["type"] == "actions"]
    return [element.get("action_id", "link") for block in found for element in block["elements"]]


ALL = ["portal.acknowledge", "portal.escalate", "portal.silence", "portal.resolve", "link"]


def test_one_message_is_rewritten_from_the_first_firing_to_the_end(slack: Slack, bot: Any, tell: Any):
    contact, item = bot(), a_message().alerts[0]
    first = tell(contact, a_message())
    tell(contact, a_message("Worse"))
    tell(contact, a_message(alerts=(replace(item, acknowledged_by="anna"),), status="update"), "update")
    tell(contact, a_message("Over", status="resolved"), "resolved")
    again = tell(contact, a_message("Anew"))
    methods = [method for method, _ in slack.calls]
    assert methods == [
        "chat.postMessage",
        "chat.update", "chat.postMessage",
        "chat.update",
        "chat.update", "chat.postMessage",
        "chat.postMessage",
    ]  # fmt: skip
    bodies = [body for _, body in slack.calls]
    assert first.provider_id == "C0123ABCD:171234.000001"
    assert {(bodies[n]["channel"], bodies[n]["ts"]) for n in (1, 3, 4)} == {("C0123ABCD", "171234.000001")}
    assert (bodies[2]["thread_ts"], bodies[2]["reply_broadcast"]) == ("171234.000001", True)
    assert bodies[5]["thread_ts"] == "171234.000001"
    assert "reply_broadcast" not in bodies[5]
    assert "thread_ts" not in bodies[6]
    assert again.provider_id == "C0123ABCD:171234.000007"
    assert [buttons(bodies[n]) for n in (0, 3, 4)] == [ALL, ALL[1:], ["link"]]


def test_a_message_that_was_deleted_there_is_posted_anew(slack: Slack, bot: Any, tell: Any):
    contact = bot()
    tell(contact, a_message())
    slack.errors["chat.update"] = "message_not_found"
    assert tell(contact, a_message()).provider_id == "C0123ABCD:171234.000003"


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        ("channel_not_found", "failed", "Invite the app"),
        ("invalid_auth", "failed", "bot token"),
        ("some_new_error", "failed", "some_new_error"),
        ("ratelimited", "queued", "tried again"),
        ("Bad <b>", "queued", "none of its Web API"),
    ],
)
def test_slacks_errors_are_sentences_that_last_or_pass(
    slack: Slack, bot: Any, tell: Any, error: str, state: str, words: str
):
    slack.errors["chat.postMessage"] = error
    delivery = tell(bot(), a_message())
    assert delivery.state == state
    assert words in delivery.error


def test_a_note_is_rung_for_what_fires_only():
    assert note(a_message(), "C1", "1.2")["reply_broadcast"]
    assert "reply_broadcast" not in note(a_message(status="resolved"), "C1", "1.2")


# --- Buttons ---------------------------------------------------------------------------------------------------------
def press(delivery: Delivery, action: str = "acknowledge", *, age: int = 0, secret: str = SECRET, **more: Any) -> Any:
    payload = {
        "type": "block_actions",
        "team": {"id": "T1"},
        "user": {"id": "U1", "name": "dana"},
        "actions": [{"action_id": f"portal.{action}", "value": token_of(delivery.key)}],
        **more,
    }
    body = urlencode({"payload": json.dumps(payload)})
    at = int(time.time()) - age
    digest = hmac.new(secret.encode(), f"v0:{at}:{body}".encode(), hashlib.sha256).hexdigest()
    return Client(enforce_csrf_checks=True).post(
        "/from/slack_bot/",
        body,
        content_type="application/x-www-form-urlencoded",
        headers={"X-Slack-Signature": f"v0={digest}", "X-Slack-Request-Timestamp": str(at)},
    )


def test_a_press_is_one_answer_by_name_however_often_it_comes(bot: Any, tell: Any):
    delivery = tell(bot(), a_message())
    for _ in range(2):
        answer = press(delivery)
        assert (answer.status_code, answer.content) == (200, b"")
    reply = Reply.objects.get()
    assert (reply.who, reply.who_kind, reply.via) == ("night shift (dana by button)", "contact", "button")


@pytest.mark.parametrize("forged", [{"age": 400}, {"age": -400}, {"secret": "guessed"}])
def test_a_press_that_is_old_or_forged_is_none(bot: Any, tell: Any, forged: dict[str, Any]):
    delivery = tell(bot(), a_message())
    assert press(delivery, **forged).status_code == 400
    assert not Reply.objects.exists()


def test_a_press_proved_by_another_apps_secret_answers_nothing(bot: Any, tell: Any):
    delivery = tell(bot(), a_message())
    other = bot("other")
    Contact.objects.filter(pk=other.pk).update(secrets={"bot_token": "x", "signing_secret": "theirs"})
    assert press(delivery, secret="theirs").status_code == 200
    assert not Reply.objects.exists()


@pytest.mark.parametrize("way", ["own contact", "e-mail"])
def test_who_is_known_here_acts_with_their_own_rights(slack: Slack, bot: Any, tell: Any, way: str):
    dana = User.objects.create_user("dana", email="dana@example.com")
    accounts.set_roles(by=Principal.system("test"), user=dana, roles=["operator"])
    if way == "own contact":
        bot("Dana", channel="U1", owner=dana)
    else:
        slack.user = {"team_id": "T1", "is_email_confirmed": True, "profile": {"email": "Dana@example.com"}}
    press(tell(bot(), a_message()))
    reply = Reply.objects.get()
    assert (reply.who, reply.who_kind, reply.who_id) == ("dana", "user", str(dana.pk))


@pytest.mark.parametrize(
    "stranger", [{"team_id": "T2"}, {"is_restricted": True}, {"is_email_confirmed": False}, {"is_stranger": True}]
)
def test_a_guests_address_makes_nobody_of_the_house(slack: Slack, bot: Any, tell: Any, stranger: dict[str, Any]):
    User.objects.create_user("dana", email="dana@example.com")
    known = {"team_id": "T1", "is_email_confirmed": True, "profile": {"email": "dana@example.com"}}
    slack.user = {**known, **stranger}
    press(tell(bot(), a_message()))
    assert Reply.objects.get().who_kind == "contact"


def test_who_may_not_is_told_so_alone(slack: Slack, bot: Any, tell: Any):
    vera = User.objects.create_user("vera")
    bot("Vera", channel="U1", owner=vera)
    delivery = tell(bot(), a_message())
    press(delivery, response_url=f"{slack.url}/response")
    assert not Reply.objects.exists()
    method, body = slack.calls[-1]
    assert (method, body["response_type"]) == ("response", "ephemeral")
    assert "vera may not do this" in body["text"]


@pytest.mark.parametrize("actions", [[], None, "x", [None], [{"action_id": "portal.explode"}], [{"action_id": "link"}]])
def test_what_is_no_answer_is_passed_over(bot: Any, tell: Any, actions: Any):
    assert press(tell(bot(), a_message()), actions=actions).status_code == 200
    assert not Reply.objects.exists()


def test_a_nul_in_a_press_harms_nothing(bot: Any, tell: Any):
    delivery = tell(bot(), a_message())
    assert press(delivery, user={"id": "U\x00", "name": "d\x00na"}).status_code == 200
    assert Reply.objects.get().who == "night shift (dna by button)"
