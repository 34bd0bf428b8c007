"""What every channel that exists must do, whoever wrote it."""

import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.notifications import configuration
from apps.notifications.channels import Channel, Sender, channels
from apps.notifications.models import Delivery
from apps.notifications.sending import Tried, attempt
from tests.notifications.conftest import a_message
from tests.notifications.receivers import Answer, HttpReceiver, SmtpReceiver

SECRET = "s3cr3t-Tok3n"
SENDER = Sender("night shift", "http://127.0.0.1:3000", ("admin@example.com",))


@dataclass
class Rig:
    """A channel at a receiver that can be made to behave: `values` are its settings, `told` counts what arrived."""

    kind: str
    values: dict[str, Any]
    refuse: Callable[[], None]
    stumble: Callable[[], None]
    hang: Callable[[], None]
    told: Callable[[], int]
    misbehave: list[tuple[str, Callable[[], None], bool | None, str]]
    """What a receiver may do: in a word, the switch, whether that lasts (None: it took the message), what is said."""
    ask_to_wait: Callable[[], None] | None = None

    def channel(self) -> Channel:
        plugin = channels.get(self.kind)
        cleaned = configuration.clean(plugin, self.values, {})
        return plugin({**cleaned.config, **cleaned.secrets}, SENDER)

    def send(self) -> Tried:
        delivery = Delivery(message=a_message().to_json(), kind=self.kind, key=uuid.uuid4())
        return attempt(self.channel(), "", [delivery])


def _http_rig(kind: str, receiver: HttpReceiver, values: dict[str, Any]) -> Rig:
    def answers(answer: Answer) -> Callable[[], None]:
        return lambda: setattr(receiver, "answer", lambda request: answer)

    receiver.answer = lambda request: Answer(body=TAKEN.get(kind, b"ok"))
    elsewhere = {"Location": "http://10.0.0.1/latest/meta-data/"}
    garbage = {"slack_bot": False}.get(kind)
    redirected = "not a public address" if kind == "apprise" else "a redirect"  # Apprise follows, the door does not
    return Rig(
        kind,
        values,
        misbehave=[
            ("a wrong secret", answers(Answer(401)), True, "Check its secret"),
            ("a wrong address", answers(Answer(404)), True, "Check its address"),
            ("a redirect to a private address", answers(Answer(302, elsewhere)), True, redirected),
            ("an error of its own", answers(Answer(500)), False, "tried again"),
            ("nothing", answers(Answer(0)), False, ""),
            ("garbage", answers(Answer(body=b"\x00<html>\xff")), garbage, "its Web API" if kind in TAKEN else ""),
        ],
        refuse=answers(Answer(400, body=SECRET.encode())),
        stumble=answers(Answer(503)),
        hang=answers(Answer(delay=2.0)),
        told=lambda: len(receiver.requests),
        ask_to_wait=answers(Answer(429, {"Retry-After": "17"})),
    )


def _email_rig(receiver: SmtpReceiver, settings: Any) -> Rig:
    settings.EMAIL_TIMEOUT = 0.5
    return Rig(
        "email",
        {"to": "a@example.com, b@example.com", "from_address": "portal@example.com"},
        refuse=lambda: setattr(receiver, "reply", "554 No such thing"),
        stumble=lambda: setattr(receiver, "reply", "451 Try again later"),
        hang=lambda: setattr(receiver, "delay", 1.5),
        told=lambda: len(receiver.mails),
        misbehave=[
            ("no such mailbox", lambda: setattr(receiver, "reply", "550 No such user"), True, "550 No such user"),
            ("it shuts down", lambda: setattr(receiver, "reply", "421 Closing"), False, "421"),
            ("garbage", lambda: setattr(receiver, "reply", "999 \x01"), False, ""),
        ],
    )


ACCOUNT = "AC" + "0" * 32
TWILIO = {"to": "+4930123456", "account_sid": ACCOUNT, "auth_token": SECRET, "sender": "+4930654321"}
SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "alertmanager": lambda url: {"url": url, "user": "portal", "token": SECRET},
    "apprise": lambda url: {"url": url.replace("http://", "json://").replace("/hook", f"/{SECRET}")},
    "discord": lambda url: {"webhook_url": f"{url}/{SECRET}"},
    "mattermost": lambda url: {"webhook_url": f"{url}/{SECRET}"},
    "ntfy": lambda url: {"server": url, "topic": "night", "token": SECRET},
    "opsgenie": lambda url: {"api_url": url, "api_key": SECRET},
    "pagerduty": lambda url: {"api_url": url, "routing_key": SECRET},
    "slack_bot": lambda url: {"api_url": url, "channel": "C0123ABCD", "bot_token": SECRET, "signing_secret": SECRET},
    "slack": lambda url: {"webhook_url": f"{url}/{SECRET}"},
    "sms": lambda url: {"api_url": url, **TWILIO},
    "sms_gateway": lambda url: {"url": url, "to": "+4930123456", "token": SECRET},
    "teams": lambda url: {"webhook_url": f"{url}/{SECRET}"},
    "telegram": lambda url: {"api_url": url, "token": f"12345:{SECRET}", "chat": "-100200"},
    "voice": lambda url: {"api_url": url, **TWILIO},
    "webhook": lambda url: {"url": url, "token": SECRET, "signing_secret": SECRET},
}
"""The settings of each channel that speaks HTTP, with the receiver's address in them."""
TAKEN = {"slack_bot": b'{"ok": true, "channel": "C0123ABCD", "ts": "1.2"}'}
"""How a receiver says that it took a message, where 200 is not enough."""
RIGS = ("email", *SETTINGS)


@pytest.fixture(params=RIGS)
def rig(
    request: pytest.FixtureRequest,
    http_receiver: HttpReceiver,
    smtp_receiver: SmtpReceiver,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Rig:
    monkeypatch.setattr(Channel, "timeout", 0.5)
    if request.param == "email":
        return _email_rig(smtp_receiver, settings)
    return _http_rig(request.param, http_receiver, SETTINGS[request.param](http_receiver.url))


def test_every_channel_that_exists_is_tried_here():
    assert set(RIGS) == set(channels.all())


def test_a_message_that_is_taken_arrives_once(rig: Rig):
    assert rig.send().failure is None
    assert rig.told() == 1


def test_a_refusal_is_permanent(rig: Rig):
    rig.refuse()
    failure = rig.send().failure
    assert failure is not None
    assert failure.permanent


def test_a_stumbling_receiver_is_tried_again(rig: Rig):
    rig.stumble()
    failure = rig.send().failure
    assert failure is not None
    assert not failure.permanent


def test_whatever_a_receiver_does_has_an_outcome_that_is_said(rig: Rig):
    for what, switch, lasts, words in rig.misbehave:
        switch()
        failure = rig.send().failure
        if lasts is None:
            assert failure is None, what
            continue
        assert failure is not None, what
        assert (failure.permanent, words in failure.reason) == (lasts, True), f"{what}: {failure.reason}"
        assert len(failure.reason) > 20, what


@pytest.mark.slow
def test_a_silent_receiver_is_tried_again(rig: Rig):
    rig.hang()
    failure = rig.send().failure
    assert failure is not None
    assert not failure.permanent


def test_a_receiver_that_asks_to_wait_is_waited_for(rig: Rig):
    if rig.ask_to_wait is None:  # SMTP has no word for a time; its 4xx are tried again by the ordinary back-off
        rig.ask_to_wait, expected = rig.stumble, None
    else:
        expected = timedelta(seconds=17)
    rig.ask_to_wait()
    failure = rig.send().failure
    assert failure is not None
    assert not failure.permanent
    assert failure.retry_after == expected


def test_secrets_appear_neither_in_reasons_nor_in_logs(rig: Rig, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="apps")
    for make in (rig.refuse, rig.stumble):
        make()
        failure = rig.send().failure
        assert failure is not None
        assert SECRET not in failure.reason
    assert SECRET not in caplog.text


def test_an_error_of_the_channel_itself_is_told_without_its_words(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def explode(*args: object) -> str:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(channels.get(rig.kind), "send", explode)
    failure = rig.send().failure
    assert failure is not None
    assert not failure.permanent
    assert "RuntimeError" in failure.reason
    assert SECRET not in failure.reason + caplog.text


def test_settings_survive_the_way_through_json_and_the_form(rig: Rig):
    plugin = channels.get(rig.kind)
    once = configuration.clean(plugin, rig.values, {})
    kept = json.loads(json.dumps([once.config, once.secrets]))
    again = configuration.clean(plugin, kept[0], kept[1])
    assert again == once
    assert set(once.secrets) <= plugin.secrets()
    assert not set(once.config) & plugin.secrets()


def test_a_setting_that_does_not_exist_is_refused_by_name(rig: Rig):
    with pytest.raises(ValidationError, match="no such setting"):
        configuration.clean(channels.get(rig.kind), {**rig.values, "colour": "red"}, {})


def test_masked_and_blank_secrets_keep_what_is_stored(rig: Rig):
    plugin = channels.get(rig.kind)
    once = configuration.clean(plugin, rig.values, {})
    shown = configuration.shown(plugin, once.config, once.secrets)
    assert SECRET not in json.dumps(shown)
    assert configuration.clean(plugin, shown, once.secrets) == once
    assert configuration.clean(plugin, once.config, once.secrets) == once
