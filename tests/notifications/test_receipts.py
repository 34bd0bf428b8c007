"""What providers tell of messages that were sent: proved, once, in any order; what came back is told to others."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from apps.notifications import outbox, receipts
from apps.notifications.links import RECEIPT, code_of, receipt_url_of, token_of
from apps.notifications.models import Contact, Delivery, Reply
from apps.notifications.sending import drain
from apps.notifications.twilio import is_public
from tests.notifications.conftest import NOW, Clock, a_message
from tests.notifications.receivers import Answer, HttpReceiver

ACCOUNT = "AC" + "0" * 32
TOKEN = "tw1lio-t0ken"
NUMBER = "+4930123456"
GATEWAY_TOKEN = "g4teway-inbound-token"

states = st.sampled_from(sorted(receipts.RANK))


@given(st.lists(states, min_size=1, max_size=6))
def test_the_worst_that_was_told_stays_whatever_the_order(told: list[str]):
    known = ""
    for word in told:
        known = receipts.after(known, word)
    assert receipts.RANK[known] == max(receipts.RANK[word] for word in told)


@pytest.mark.parametrize(
    ("known", "addressed", "state"),
    [
        ({}, [], ""),
        ({"": "delivered"}, [], "delivered"),
        ({"": "failed"}, ["A@x.org", "b@x.org"], "failed"),
        ({"a@x.org": "bounced"}, ["A@x.org"], "bounced"),
        ({"a@x.org": "bounced"}, ["a@x.org", "b@x.org"], "partly"),
        ({"a@x.org": "bounced", "b@x.org": "delivered"}, ["a@x.org", "b@x.org"], "partly"),
        ({"a@x.org": "bounced", "b@x.org": "failed"}, ["a@x.org", "b@x.org"], "bounced"),
        ({"a@x.org": "bounced", "b@x.org": "delivered"}, [], "partly"),
        ({"a@x.org": "complained", "b@x.org": "delivered"}, ["a@x.org", "b@x.org"], "complained"),
    ],
)
def test_a_message_is_lost_when_it_is_for_everybody(known: dict[str, str], addressed: list[str], state: str):
    assert receipts.summary(known, addressed) == state


@pytest.mark.parametrize(
    ("host", "public"), [("portal.example.com", True), ("127.0.0.1", False), ("localhost", False), ("8.8.8.8", True)]
)
def test_twilio_is_given_an_address_only_where_it_can_reach_it(host: str, public: bool):
    assert is_public(host) is public


# --- Twilio ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def sms(db: None, settings: Any) -> Callable[..., Contact]:
    settings.PORTAL_URL = "https://portal.example.com"

    def make(name: str = "Anna's phone", kind: str = "sms", to: str = NUMBER, **more: Any) -> Contact:
        config = {"to": to, "account_sid": ACCOUNT, "sender": "+4930654321", "replies": True, **more}
        return Contact.objects.create(name=name, kind=kind, config=config, secrets={"auth_token": TOKEN})

    return make


def sent(contact: Contact, message: Any = None, **fields: Any) -> Delivery:
    delivery = outbox.enqueue(contact=contact, message=message or a_message(), purpose="firing", now=NOW)
    values = {"state": "sent", "finished_at": NOW, "attempts": 1, **fields}
    Delivery.objects.filter(pk=delivery.pk).update(**values)
    delivery.refresh_from_db()
    return delivery


def twilio(path: str, values: dict[str, str], token: str = TOKEN) -> Any:
    """Post as Twilio does: signed over the address that it was given and the sorted fields."""
    told = f"https://portal.example.com{path}" + "".join(name + value for name, value in sorted(values.items()))
    digest = base64.b64encode(hmac.new(token.encode(), told.encode(), hashlib.sha1).digest()).decode()
    return Client(enforce_csrf_checks=True).post(
        path,
        urlencode(values),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": digest},
    )


def of(delivery: Delivery, kind: str = "sms") -> str:
    return receipt_url_of("", kind, delivery.key)


def test_a_receipt_stands_on_the_delivery_and_a_late_or_doubled_one_changes_nothing(sms: Any):
    delivery = sent(sms())
    for status in ("queued", "delivered", "sent", "delivered"):
        answer = twilio(of(delivery), {"AccountSid": ACCOUNT, "MessageSid": "SM1", "MessageStatus": status})
        assert answer.status_code == 200
    delivery.refresh_from_db()
    assert (delivery.receipt, delivery.state, delivery.receipt_text) == ("delivered", "sent", "Twilio: delivered")


def test_what_was_not_delivered_has_failed_and_is_the_contacts_problem_until_something_arrives(sms: Any):
    contact = sms()
    delivery, later = sent(contact), sent(contact)
    twilio(of(delivery), {"AccountSid": ACCOUNT, "MessageStatus": "undelivered", "ErrorCode": "30006"})
    delivery.refresh_from_db()
    contact.refresh_from_db()
    assert (delivery.receipt, delivery.state, delivery.error) == (
        "failed",
        "failed",
        "Twilio: undelivered (error 30006)",
    )
    assert contact.problem == "Came back: Twilio: undelivered (error 30006)"
    twilio(of(later), {"AccountSid": ACCOUNT, "MessageStatus": "delivered"})
    contact.refresh_from_db()
    assert contact.problem == ""


def test_having_been_handed_over_once_more_does_not_mend_what_came_back(
    http_receiver: HttpReceiver, webhook: Callable[..., Contact], clock: Clock
):
    contact = webhook(problem="Came back: bounced", problem_at=NOW)
    outbox.enqueue(contact=contact, message=a_message(), purpose="firing", now=NOW)
    drain(clock=clock)
    contact.refresh_from_db()
    assert contact.problem == "Came back: bounced"


def test_nobody_who_takes_a_call_is_no_problem_of_the_contact(sms: Any):
    contact = sms(kind="voice")
    delivery = sent(contact)
    twilio(of(delivery, "voice"), {"AccountSid": ACCOUNT, "CallSid": "CA1", "CallStatus": "no-answer"})
    delivery.refresh_from_db()
    contact.refresh_from_db()
    assert (delivery.receipt, delivery.state, contact.problem) == ("unanswered", "failed", "")


def test_a_receipt_that_overtakes_the_senders_own_book_counts(sms: Any):
    delivery = outbox.enqueue(contact=sms(), message=a_message(), purpose="firing", now=NOW)
    [claimed] = outbox.claim(now=NOW, limit=1)
    twilio(of(delivery), {"AccountSid": ACCOUNT, "MessageStatus": "failed"})
    outbox.finish([outbox.Outcome(claimed, sent=True, provider_id="SM1")], now=NOW)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.error) == ("failed", "Twilio: failed")


def test_what_was_told_along_shares_the_fate_of_its_carrier(sms: Any):
    contact = sms()
    first = sent(contact)
    second = sent(contact, carrier=first)
    twilio(of(first), {"AccountSid": ACCOUNT, "MessageStatus": "failed"})
    second.refresh_from_db()
    assert second.state == "failed"


@pytest.mark.parametrize("how", ["other token", "changed", "unsigned", "other account"])
def test_a_forged_receipt_changes_nothing(sms: Any, how: str):
    delivery = sent(sms())
    values = {"AccountSid": ACCOUNT, "MessageStatus": "failed"}
    match how:
        case "other token":
            answer = twilio(of(delivery), values, token="guessed")
        case "changed":
            answer = Client().post(of(delivery), values, headers={"X-Twilio-Signature": "AAAA"})
        case "unsigned":
            answer = Client().post(of(delivery), values)
        case _:
            other = sms("other", account_sid="AC" + "1" * 32)
            Contact.objects.filter(pk=other.pk).update(secrets={"auth_token": "theirs"})
            answer = twilio(of(delivery), values | {"AccountSid": "AC" + "1" * 32}, token="theirs")
    delivery.refresh_from_db()
    assert answer.status_code == 400
    assert (delivery.receipt, delivery.state) == ("", "sent")


def test_an_address_of_receipts_is_none_of_answers_and_unknown_ones_are_not_found(sms: Any, client: Client):
    delivery = sent(sms())
    assert client.get(f"/r/{token_of(delivery.key, RECEIPT)}/").status_code == 404
    assert client.post(f"/from/sms/{token_of(delivery.key)}/").status_code == 404
    assert client.post("/from/webhook/").status_code == 404
    assert client.post(receipt_url_of("", "sms", uuid.uuid4())).status_code == 404


def test_a_nul_in_a_call_harms_nothing(sms: Any):
    delivery = sent(sms())
    assert twilio("/from/sms/", {"AccountSid": "AC\x00", "Body": "ack"}).status_code == 400
    assert (
        twilio("/from/sms/", {"AccountSid": ACCOUNT, "MessageSid": "\x00", "MessageStatus": "sent"}).status_code == 404
    )
    assert twilio("/from/sms/", {"AccountSid": ACCOUNT, "From": "\x00", "Body": "\x00"}).status_code == 200
    assert (
        twilio(of(delivery), {"AccountSid": ACCOUNT, "MessageStatus": "sent", "ErrorCode": "\x00"}).status_code == 200
    )


def test_large_and_endless_calls_are_refused(sms: Any, client: Client, monkeypatch: pytest.MonkeyPatch):
    assert client.post("/from/sms/", b"x" * 70_000, content_type="text/plain").status_code == 413
    monkeypatch.setattr("apps.notifications.views.UNPROVED", 1)
    address = {"REMOTE_ADDR": "203.0.113.9"}
    answers = [client.post("/from/sms/", **address).status_code for _ in range(8)]  # type: ignore[arg-type]
    assert answers[0] == 400
    assert answers[-1] == 429


def test_a_text_message_says_how_to_answer_and_where_its_receipt_goes(
    sms: Any, http_receiver: HttpReceiver, clock: Clock
):
    contact = sms(api_url=http_receiver.url)
    delivery = outbox.enqueue(contact=contact, message=a_message(), purpose="firing", now=NOW)
    http_receiver.answer = lambda request: Answer(body=b'{"sid": "SM7"}')
    drain(clock=clock)
    [request] = http_receiver.requests
    assert urlencode({"x": f"ack {code_of(delivery.key)}"})[2:] in request.content.decode()
    assert "StatusCallback=https%3A%2F%2Fportal.example.com%2Ffrom%2Fsms%2F" in request.content.decode()
    delivery.refresh_from_db()
    assert delivery.provider_id == "SM7"


# --- Answers by text -------------------------------------------------------------------------------------------------
def says(text: str, number: str = NUMBER) -> str:
    answer = twilio("/from/sms/", {"AccountSid": ACCOUNT, "MessageSid": "SM9", "From": number, "Body": text})
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/xml"
    return answer.content.decode()


def test_a_text_answers_the_open_message_and_says_so(sms: Any):
    delivery = sent(sms())
    assert "Acknowledge: Memory is high" in says("Ack!")
    assert "Acknowledge: Memory is high" in says(" ACKNOWLEDGE ")
    reply = Reply.objects.get()
    assert (reply.delivery, reply.action, reply.via) == (delivery, "acknowledge", "sms")
    assert reply.who == f"Anna's phone (by text from {NUMBER})"


def test_of_several_open_messages_the_code_names_one(sms: Any):
    contact = sms()
    memory = sent(contact)
    disk = sent(contact, a_message("Disk <full>", group_key="disk"))
    answer = says("resolve")
    assert not Reply.objects.exists()
    assert f"{code_of(memory.key)} Memory is high" in answer
    assert f"{code_of(disk.key)} Disk &lt;full&gt;" in answer
    says(f"resolve {code_of(memory.key).lower()}")
    assert Reply.objects.get().delivery == memory
    says("resolve")
    assert Reply.objects.count() == 2


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("what is this?", NUMBER, "not understood"),
        ("ack", "+15550100", "no contact"),
        ("ack ZZZ", NUMBER, "Nothing is open"),
        ("ack", NUMBER, "Nothing is open"),
    ],
)
def test_what_cannot_be_answered_is_said_politely(sms: Any, text: str, number: str, words: str):
    over = a_message(status="resolved")
    contact = sms()
    sent(contact)
    sent(contact, over)
    assert words in says(text, number)
    assert not Reply.objects.exists()


def test_a_gateway_brings_answers_and_receipts_with_its_token(db: None, client: Client):
    config = {"url": "https://sms.example/send", "to": NUMBER}
    contact = Contact.objects.create(
        name="phone", kind="sms_gateway", config=config, secrets={"inbound_token": GATEWAY_TOKEN}
    )
    delivery = sent(contact, provider_id="77")

    def tell(token: str = GATEWAY_TOKEN, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return client.post("/from/sms_gateway/", body, content_type="application/json", headers=headers)

    assert tell("guessed", id="77", status="failed").status_code == 400
    assert tell(id="78", status="failed").status_code == 404
    assert json.loads(tell(**{"from": NUMBER.strip("+")}, text="ack").content) == {
        "text": "Acknowledge: Memory is high"
    }
    assert tell(id=77, status="DELIVERED").status_code == 200
    delivery.refresh_from_db()
    assert delivery.receipt == "delivered"
    tell(id="77", status="expired", error="no route")
    delivery.refresh_from_db()
    assert (delivery.state, delivery.receipt_text) == ("failed", "The gateway: expired no route")


def test_a_gateway_without_a_token_of_its_own_is_not_listened_to(db: None, client: Client):
    Contact.objects.create(name="phone", kind="sms_gateway", config={"to": NUMBER}, secrets={})
    headers = {"Authorization": "Bearer "}
    assert client.post("/from/sms_gateway/", {"text": "ack"}, headers=headers).status_code == 400


# --- E-mail ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def postmark(settings: Any, db: None) -> Callable[..., Any]:
    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    settings.ANYMAIL = {"POSTMARK_SERVER_TOKEN": "x", "WEBHOOK_SECRET": "anna:s3cret"}

    def tell(login: str = "anna:s3cret", **event: Any) -> Any:
        headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
        return Client(enforce_csrf_checks=True).post(
            "/from/email/", event, content_type="application/json", headers=headers
        )

    return tell


def test_an_address_that_bounces_is_told_of_by_name(postmark: Any):
    to = ["anna@example.com", "ben@example.com"]
    contact = Contact.objects.create(name="mail", kind="email", config={"to": to})
    delivery = sent(contact, provider_id="m-1")
    bounce = {"RecordType": "Bounce", "Type": "HardBounce", "MessageID": "m-1", "ID": 1, "Description": "No such user"}
    assert postmark("anna:guessed", **bounce, Email=to[0]).status_code == 400
    assert postmark(**bounce, Email=to[0].upper()).status_code == 200
    delivery.refresh_from_db()
    contact.refresh_from_db()
    assert (delivery.receipt, delivery.state) == ("partly", "sent")
    assert contact.problem == "Came back: ANNA@EXAMPLE.COM: Postmark: bounced (No such user)"
    postmark(
        RecordType="Bounce",
        Type="HardBounce",
        ID=2,
        Email=to[1],
        Metadata={"delivery": token_of(delivery.key, RECEIPT)},
    )
    delivery.refresh_from_db()
    assert (delivery.receipt, delivery.state) == ("bounced", "failed")


def test_events_of_mail_are_taken_only_with_a_provider_and_a_secret(client: Client, settings: Any):
    assert client.post("/from/email/").status_code == 404
    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    answer = client.post("/from/email/")
    assert answer.status_code == 404
    assert b"ANYMAIL_WEBHOOK_SECRET" in answer.content


def test_garbage_from_the_mail_provider_is_refused(postmark: Any):
    assert postmark(RecordType="Bounce", DeliveredAt=[]).status_code in (200, 400)
    assert postmark(RecordType="Bounce", MessageID="nobody's", Type="HardBounce").status_code == 200
