"""What each channel says: headers, blocks, bodies and signatures, as their receivers document them."""

import hashlib
import hmac
import uuid
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given

from apps.notifications.block_kit import payload as slack_payload
from apps.notifications.channels import Sender
from apps.notifications.channels.email import Addresses, Email
from apps.notifications.channels.webhook import Webhook, sign
from apps.notifications.channels.webhook import payload as webhook_payload
from apps.notifications.message import Curve, Item, Message
from tests.notifications.conftest import a_message
from tests.notifications.messages import messages
from tests.notifications.receivers import HttpReceiver, SmtpReceiver

KEY = uuid.UUID("6f1f7c1e-0000-4000-8000-000000000001")
SENDER = Sender("night shift", "https://portal.example", ("admin@example.com",))
EVIL = '<script>alert("x")</script> & <!channel>'


def _part(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_an_email_has_text_html_and_the_headers_of_its_thread(smtp_receiver: SmtpReceiver):
    channel = Email({"to": ["a@example.com"], "from_address": "night@example.com"}, SENDER)
    assert channel.send(a_message(), KEY) == f"{KEY}@portal.example"
    channel.send(replace(a_message(), status="resolved"), uuid.uuid4())
    first, second = smtp_receiver.mails
    assert (first["From"], first["To"], first["Subject"]) == ("night@example.com", "a@example.com", "Memory is high")
    assert first["Message-ID"] == f"<{KEY}@portal.example>"
    assert first["References"] == second["References"] == first["In-Reply-To"]
    assert first["Message-ID"] != second["Message-ID"]
    assert [part.get_content_type() for part in first.iter_parts()] == ["text/plain", "text/html"]
    assert "93 % of memory is used." in _part(first, "plain")


CURVE = Curve("Memory", 1_764_000_000, 60, (50.0, None, 93.5, 97.0), "percent", 90.0, ">", 1_764_000_120)


def test_an_email_shows_the_curve_in_a_light_and_a_dark_picture_and_in_words(smtp_receiver: SmtpReceiver):
    Email({"to": ["a@example.com"]}, SENDER).send(replace(a_message(), curve=CURVE), KEY)
    [mail] = smtp_receiver.mails
    assert mail.get_content_type() == "multipart/related"
    alternative, *pictures = mail.iter_parts()
    assert [part.get_content_type() for part in alternative.iter_parts()] == ["text/plain", "text/html"]
    assert [(part.get_content_type(), part.get_content_disposition()) for part in pictures] == [
        ("image/png", "inline"),
        ("image/png", "inline"),
    ]
    html = _part(mail, "html")
    for part in pictures:
        assert f"cid:{part['Content-ID'].strip('<>')}" in html
    assert 'alt="Memory from 16:00 to 16:03 UTC: last 97 %, lowest 50 %, highest 97 %, threshold 90 %."' in html


def test_an_email_whose_curve_cannot_be_drawn_leaves_without(smtp_receiver: SmtpReceiver):
    Email({"to": ["a@example.com"]}, SENDER).send(replace(a_message(), curve=replace(CURVE, values=(None,))), KEY)
    [mail] = smtp_receiver.mails
    assert "<picture" not in _part(mail, "html")


def test_an_email_without_addresses_goes_to_the_administrators(smtp_receiver: SmtpReceiver):
    Email({"to": []}, SENDER).send(a_message(), KEY)
    assert smtp_receiver.recipients == [["admin@example.com"]]
    assert "none of them has an e-mail address" in Email.obstacle({"to": []}, Sender())


def test_nothing_that_a_user_wrote_becomes_html_or_a_header(smtp_receiver: SmtpReceiver):
    item = Item(title=EVIL, status="firing", severity="error", text=EVIL, facts=((EVIL, EVIL),))
    message = Message(title=f"One\nBcc: all@example.com {EVIL}", body=EVIL, alerts=(item,), reason=EVIL)
    Email({"to": ["a@example.com"]}, SENDER).send(message, KEY)
    [mail] = smtp_receiver.mails
    assert "<script>" not in _part(mail, "html")
    assert mail["Bcc"] is None
    assert "\n" not in mail["Subject"]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("a@x.org, b@x.org", ["a@x.org", "b@x.org"]), ("a@x.org\na@x.org,", ["a@x.org"]), (["a@x.org"], ["a@x.org"])],
)
def test_addresses_are_read_from_text_or_list(typed: Any, kept: list[str]):
    assert Addresses().clean(typed) == kept


def test_a_login_in_a_webhooks_address_is_refused_for_readers_see_it():
    form = Webhook.Config({"url": "https://user:s3cret@example.com/hook"})
    assert not form.is_valid()
    assert "token" in str(form.errors["url"])


@given(messages)
def test_slack_gets_what_its_limits_allow_whatever_the_message(message: Message):
    body = slack_payload(message)
    [attachment] = body["attachments"]
    blocks = attachment["blocks"]
    assert len(blocks) <= 50
    for block in blocks:
        match block["type"]:
            case "header":
                assert 1 <= len(block["text"]["text"]) <= 150
            case "section":
                assert 1 <= len(block.get("text", {"text": "-"})["text"]) <= 3000
                assert len(block.get("fields", [])) <= 10
                assert all(len(field["text"]) <= 2000 for field in block.get("fields", []))


def test_slack_text_pings_nobody():
    item = Item(title=EVIL, status="firing", severity="error", text=EVIL, url="https://portal.example/a|b>c")
    body = str(slack_payload(Message(title=EVIL, body="", alerts=(item,))))
    assert "<!channel>" not in body.replace(repr(EVIL)[1:-1], "")
    assert "https://portal.example/a%7Cb%3Ec|" in body


def test_a_webhook_is_signed_and_carries_its_key(http_receiver: HttpReceiver):
    settings = {"url": http_receiver.url, "token": "tok", "signing_secret": "shh"}
    Webhook(settings, SENDER).send(a_message(), KEY)
    [request] = http_receiver.requests
    assert request.headers["authorization"] == "Bearer tok"
    assert request.headers["idempotency-key"] == str(KEY)
    at, _, signature = request.headers["x-portal-signature"].partition(",")
    digest = hmac.new(b"shh", at.removeprefix("t=").encode() + b"." + request.content, hashlib.sha256).hexdigest()
    assert signature == f"v1={digest}"
    assert sign(request.content, "shh", int(at.removeprefix("t="))) == request.headers["x-portal-signature"]


def test_a_webhook_has_every_field_of_alertmanagers_version_4():
    body = webhook_payload(a_message(), KEY, SENDER)
    assert {"version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
            "commonAnnotations", "externalURL", "alerts"} <= set(body)  # fmt: skip
    assert body["version"] == "4"
    assert body["receiver"] == "night shift"
    assert set(body["alerts"][0]) == {
        "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint",
    }  # fmt: skip
    assert body["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"


@given(messages)
def test_a_message_survives_json(message: Message):
    import json

    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message
