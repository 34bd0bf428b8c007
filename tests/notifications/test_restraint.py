"""Limits: what is over them waits, is told in one message, and is never dropped."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.notifications import restraint
from apps.notifications.bundling import bundle
from apps.notifications.channels import channels
from apps.notifications.models import Contact, Delivery
from apps.notifications.sending import drain
from tests.notifications.conftest import NOW, Clock, a_message
from tests.notifications.messages import messages
from tests.notifications.receivers import Answer, HttpReceiver
from tests.notifications.test_outbox import put, titles

Make = Callable[..., Contact]


@pytest.mark.parametrize("text", ["", "none", "None"])
def test_nothing_and_none_are_no_limit(text: str):
    assert restraint.parse(text) == ()


def test_limits_are_read_as_people_write_them():
    assert [str(limit) for limit in restraint.parse("5/15m, 11/1h")] == ["5/15m", "11/1h"]


@pytest.mark.parametrize("text", ["5", "x/15m", "0/1h", "5/", "5/soon", "5/30d", "-1/1h", "5/0s"])
def test_a_limit_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(ValueError, match=r"limit|duration|window"):
        restraint.parse(text)


def test_channels_that_cost_money_and_sleep_are_limited_as_shipped():
    limited = {kind: channel.limits for kind, channel in channels.all().items() if channel.limits}
    assert limited == {"sms": "5/15m, 11/1h", "sms_gateway": "5/15m, 11/1h", "voice": "3/15m, 7/1h"}


moments = st.lists(st.integers(0, 7200).map(lambda s: NOW - timedelta(seconds=s)), max_size=40)


@given(moments, st.sampled_from(["3/15m", "5/15m, 11/1h", "1/1s"]))
def test_there_is_room_exactly_when_it_is_said_to_come(sent: list, text: str):
    limits = restraint.parse(text)
    due = restraint.room_at(sent, limits, NOW)
    assert (due == NOW) == (restraint.room(sent, limits, NOW) > 0)
    assert restraint.room(sent, limits, due) > 0
    if due > NOW:
        assert restraint.room(sent, limits, due - timedelta(microseconds=1)) == 0


@given(st.lists(messages, min_size=2, max_size=5))
def test_a_bundle_fires_while_one_of_its_findings_does(several: list):
    one = bundle(several)
    assert one.status == ("firing" if any(item.status != "resolved" for item in one.alerts) else "resolved")
    assert str(len(several)) in one.title


def test_a_bundle_says_of_each_finding_what_was_said_last():
    resolved = replace(a_message().alerts[0], status="resolved")
    one = bundle([a_message(), a_message("Other", alerts=()), a_message(alerts=(resolved,), status="resolved")])
    assert [item.status for item in one.alerts] == ["firing", "resolved"]


def test_what_is_over_the_limit_is_told_in_one_message_when_there_is_room(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    contact = webhook(rate_limit="2/15m")
    for title in ("one", "two", "three", "four"):
        put(contact, clock, title)
        drain(clock=clock)
        clock.forward(minutes=1)
    assert titles(http_receiver) == ["one", "two"]
    queued = Delivery.objects.filter(state="queued")
    assert set(queued.values_list("error", flat=True)) == {"Held by the contact's rate limit."}
    clock.forward(minutes=11)
    drain(clock=clock)
    assert [title.partition("] ")[2] for title in titles(http_receiver)[2:]] == ["2 messages in one: 1 firing"]
    third, fourth = Delivery.objects.order_by("pk")[2:]
    assert (third.state, fourth.state, third.carrier, fourth.carrier) == ("sent", "sent", None, third)
    assert (third.attempts, fourth.attempts) == (1, 1)


def test_a_burst_at_once_is_told_within_the_limit(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(rate_limit="2/15m"), clock, *(f"title {n}" for n in range(300)))
    drain(clock=clock)
    assert len(http_receiver.requests) <= 2
    assert Delivery.objects.filter(state="sent").count() == 300


def test_a_bundle_that_fails_is_tried_again_under_another_key_once_it_holds_more(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    contact = webhook(rate_limit="1/15m")
    put(contact, clock, "one", "two")
    http_receiver.answer = lambda request: Answer(503)
    drain(clock=clock)
    http_receiver.answer = lambda request: Answer()
    put(contact, clock, "three")
    clock.forward(seconds=5)
    drain(clock=clock)
    keys = [request.headers["idempotency-key"] for request in http_receiver.requests]
    assert len(set(keys)) == 2
    assert Delivery.objects.filter(state="sent").count() == 3


def test_a_test_does_not_wait_for_the_limit(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    contact = webhook(rate_limit="1/1h")
    put(contact, clock, "one")
    drain(clock=clock)
    put(contact, clock, "held")
    put(contact, clock, "test", purpose="test")
    drain(clock=clock)
    assert titles(http_receiver) == ["one", "test"]


@pytest.mark.django_db
def test_where_each_group_is_an_object_of_its_own_nothing_is_bundled(http_receiver: HttpReceiver, clock: Clock):
    contact = Contact.objects.create(
        name="pd",
        kind="pagerduty",
        config={"api_url": http_receiver.url},
        secrets={"routing_key": "0123456789abcdef"},
        rate_limit="2/15m",
    )
    put(contact, clock, "one", "two", "three")
    drain(clock=clock)
    assert len(http_receiver.requests) == 2
    assert Delivery.objects.filter(state="queued").count() == 1
