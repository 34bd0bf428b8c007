"""The page behind a message's link: who opens it changes nothing, who presses a button answers once."""

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import AuditEntry, User
from apps.notifications import outbox
from apps.notifications.links import LinkError, key_in, token_of, url_of
from apps.notifications.models import Contact, Delivery, Reply
from apps.notifications.sending import drain
from tests.notifications.conftest import NOW, Clock, a_message
from tests.notifications.receivers import HttpReceiver

Make = Callable[..., Contact]


def sent(contact: Contact) -> Delivery:
    return outbox.enqueue(contact=contact, message=a_message(), purpose="firing", now=NOW)


def page(delivery: Delivery) -> str:
    return f"/r/{token_of(delivery.key)}/"


@given(st.uuids())
def test_a_token_leads_back_to_its_delivery_and_fits_into_a_text_message(key: uuid.UUID):
    assert key_in(token_of(key)) == key
    assert len(url_of("https://portal.example", key)) <= 100


@pytest.mark.parametrize(
    "token", ["", "x", "AAAA:1:2", "../../etc/passwd", "é", "AAAAAAAAAAAAAAAAAAAAAA:1vBd7S:forged"]
)
def test_a_forged_token_says_nothing(token: str):
    with pytest.raises(LinkError, match="not whole"):
        key_in(token)


def test_a_changed_token_says_nothing():
    token = token_of(uuid.uuid4())
    with pytest.raises(LinkError):
        key_in(token_of(uuid.uuid4())[:22] + token[22:])


def test_an_old_link_says_that_it_is_old(webhook: Make, client: Client, monkeypatch: pytest.MonkeyPatch):
    link = page(sent(webhook()))
    monkeypatch.setattr("apps.notifications.links.LIFETIME", timedelta(seconds=-1))
    answer = client.get(link)
    assert answer.status_code == 404
    assert b"older than" in answer.content


def test_a_message_leaves_with_its_link(webhook: Make, http_receiver: HttpReceiver, clock: Clock, client: Client):
    delivery = sent(webhook())
    drain(clock=clock)
    url = http_receiver.requests[0].json()["answerUrl"]
    assert client.get(url[url.index("/r/") :]).status_code == 200
    assert "answer_url" not in str(delivery.message) or not delivery.message["answer_url"]


def test_opening_the_link_changes_nothing(webhook: Make, client: Client):
    delivery = sent(webhook())
    for _ in range(2):
        answer = client.get(page(delivery))
        assert b"Memory is high" in answer.content
    assert not Reply.objects.exists()
    assert answer["Cache-Control"].startswith("max-age=0")
    assert answer["Referrer-Policy"] == "same-origin"


def test_a_press_is_one_reply_however_often_and_names_who(webhook: Make, client: Client):
    delivery = sent(webhook())
    for _ in range(2):
        assert client.post(page(delivery), {"action": "acknowledge"}).status_code == 302
    reply = Reply.objects.get()
    assert (reply.action, reply.who, reply.who_kind) == ("acknowledge", "hook (by link)", "contact")
    entry = AuditEntry.objects.get(verb="notifications.reply")
    assert (entry.actor_name, entry.address) == ("hook (by link)", "127.0.0.1")
    assert b"on its way" in client.get(page(delivery)).content


def test_a_press_from_elsewhere_needs_the_pages_own_token(webhook: Make):
    delivery = sent(webhook())
    assert Client(enforce_csrf_checks=True).post(page(delivery), {"action": "resolve"}).status_code == 403
    assert not Reply.objects.exists()


def test_an_unknown_action_is_refused(webhook: Make, client: Client):
    answer = client.post(page(sent(webhook())), {"action": "explode"})
    assert answer.status_code == 400
    assert b"is none of" in answer.content


@pytest.mark.django_db
def test_a_persons_contact_acts_with_that_persons_rights(webhook: Make, client: Client):
    viewer = User.objects.create_user("vera")
    delivery = sent(webhook(owner=viewer))
    answer = client.post(page(delivery), {"action": "acknowledge"})
    assert answer.status_code == 400
    assert b"vera may not do this" in answer.content


@pytest.mark.parametrize("change", ["deleted", "disabled", "closed"])
def test_nobody_acts_for_a_contact_that_is_gone(webhook: Make, client: Client, change: str):
    owner = User.objects.create_user("olga", is_superuser=True)
    contact = webhook(owner=owner)
    delivery = sent(contact)
    if change == "deleted":
        contact.delete()
    elif change == "disabled":
        Contact.objects.update(enabled=False)
    else:
        User.objects.update(is_active=False)
    assert client.post(page(delivery), {"action": "acknowledge"}).status_code == 400
    assert not Reply.objects.exists()


def test_what_a_user_wrote_is_text_on_the_page(webhook: Make, client: Client):
    message = a_message('<script>alert("x")</script>')
    delivery = outbox.enqueue(contact=webhook(), message=message, purpose="firing", now=NOW)
    assert b"<script>alert" not in client.get(page(delivery)).content
