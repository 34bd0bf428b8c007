"""The outbox: claims, order, retries, and senders that die."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection
from django.utils import timezone

from apps.notifications import outbox, sending, tasks
from apps.notifications.channels import Channel, Sender
from apps.notifications.models import Contact, Delivery
from apps.notifications.sending import drain
from tests.notifications.conftest import Clock, a_message
from tests.notifications.receivers import Answer, HttpReceiver, Request

Make = Callable[..., Contact]


def put(contact: Contact, clock: Clock, *titles: str, purpose: str = "firing", group_key: str = "g") -> list[Delivery]:
    return [
        outbox.enqueue(contact=contact, message=a_message(title, group_key=group_key), purpose=purpose, now=clock.now)
        for title in titles
    ]


def titles(receiver: HttpReceiver) -> list[str]:
    return [request.json()["title"] for request in receiver.requests]


def test_messages_leave_in_order_and_are_recorded(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(), clock, "one", "two", "three")
    assert drain(clock=clock) == 3
    assert titles(http_receiver) == ["one", "two", "three"]
    assert set(Delivery.objects.values_list("state", "attempts", "error")) == {("sent", 1, "")}
    assert drain(clock=clock) == 0


def test_a_message_that_has_to_wait_holds_back_those_behind_it(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    put(webhook(), clock, "one", "two")
    http_receiver.answer = lambda request: Answer(503)
    assert drain(clock=clock) == 1
    http_receiver.answer = lambda request: Answer()
    assert drain(clock=clock) == 0
    clock.forward(seconds=2)
    assert drain(clock=clock) == 2
    assert titles(http_receiver) == ["one", "one", "two"]
    assert list(Delivery.objects.order_by("pk").values_list("attempts", flat=True)) == [2, 1]


def test_a_message_that_fails_for_good_lets_the_next_one_pass(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    contact = webhook()
    put(contact, clock, "bad", "good")
    http_receiver.answer = lambda request: Answer(400 if request.json()["title"] == "bad" else 200)
    drain(clock=clock)
    assert list(Delivery.objects.order_by("pk").values_list("state", flat=True)) == ["failed", "sent"]
    contact.refresh_from_db()
    assert (contact.problem, contact.last_ok_at) == ("", clock.now)


def test_one_indigestible_message_does_not_silence_its_contact(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    contact = webhook()
    http_receiver.answer = lambda request: Answer(500 if "bad" in request.json()["title"] else 200)
    put(contact, clock, "bad", group_key="a")
    for _ in range(20):
        drain(clock=clock)
        clock.forward(minutes=1)
    put(contact, clock, "same group", group_key="a")
    put(contact, clock, "other group", group_key="b")
    clock.forward(seconds=1)
    drain(clock=clock)
    assert "other group" in titles(http_receiver)
    assert "same group" not in titles(http_receiver)


def test_a_permanent_failure_shows_on_the_contact_and_success_clears_it(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    contact = webhook()
    put(contact, clock, "one")
    http_receiver.answer = lambda request: Answer(403)
    drain(clock=clock)
    contact.refresh_from_db()
    assert contact.problem == "127.0.0.1 answered 403 and does not take the message. Check its secret."
    http_receiver.answer = lambda request: Answer()
    put(contact, clock, "two")
    drain(clock=clock)
    contact.refresh_from_db()
    assert (contact.problem, contact.problem_at) == ("", None)


def test_a_receiver_that_is_away_is_shown_after_three_tries(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    contact = webhook()
    http_receiver.close()
    put(contact, clock, "one")
    problems = []
    for _ in range(3):
        drain(clock=clock)
        contact.refresh_from_db()
        problems.append(bool(contact.problem))
        clock.forward(minutes=1)
    assert problems == [False, False, True]


def test_retry_after_is_waited_for(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(), clock, "one")
    http_receiver.answer = lambda request: Answer(429, {"Retry-After": "90"})
    drain(clock=clock)
    assert Delivery.objects.get().due_at == clock.now + timedelta(seconds=90)


def test_an_address_that_is_not_allowed_says_what_to_do(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock, settings
):
    contact = webhook()
    settings.OUTBOUND_ALLOW = []
    put(contact, clock, "one")
    drain(clock=clock)
    delivery = Delivery.objects.get()
    assert delivery.state == "failed"
    assert "add the host or its network to OUTBOUND_ALLOW" in delivery.error


def test_the_same_key_goes_out_with_every_try(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    [delivery] = put(webhook(), clock, "one")
    http_receiver.answer = lambda request: Answer(503)
    drain(clock=clock)
    clock.forward(minutes=1)
    drain(clock=clock)
    assert [request.headers["idempotency-key"] for request in http_receiver.requests] == [str(delivery.key)] * 2


def test_a_switched_off_contact_is_told_nothing(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    contact = webhook(enabled=False)
    [delivery] = put(contact, clock, "one")
    assert delivery.state == "cancelled"
    assert drain(clock=clock) == 0


def test_a_test_message_goes_past_the_queue(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    contact = webhook()
    put(contact, clock, "one")
    http_receiver.answer = lambda request: Answer(503)
    drain(clock=clock)
    http_receiver.answer = lambda request: Answer()
    put(contact, clock, "probe", purpose="test")
    drain(clock=clock)
    assert titles(http_receiver) == ["one", "probe"]


def test_a_secret_that_no_key_opens_fails_only_its_own_contact(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    bad, good = webhook("bad", secrets={"token": "x"}), webhook("good")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE notifications_contact SET secrets = 'garbage' WHERE id = %s", [bad.pk])
    put(bad, clock, "one")
    put(good, clock, "two")
    drain(clock=clock)
    assert dict(Delivery.objects.values_list("contact_name", "state")) == {"bad": "failed", "good": "sent"}
    assert "enter the secret again" in Delivery.objects.get(contact=bad).error


def test_a_channel_that_cannot_be_opened_fails_only_its_own_contact(
    webhook: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    bad, good = webhook("bad"), webhook("good")
    whole = Contact.open_channel

    def opened(contact: Contact, sender: Sender) -> Channel:
        if contact == bad:
            raise TypeError("what a former release had stored")
        return whole(contact, sender)

    monkeypatch.setattr(Contact, "open_channel", opened)
    put(bad, clock, "one")
    put(good, clock, "two")
    drain(clock=clock)
    assert dict(Delivery.objects.values_list("contact_name", "state")) == {"bad": "failed", "good": "sent"}
    assert "could not be opened (TypeError)" in Delivery.objects.get(contact=bad).error


def test_what_a_receiver_says_is_kept_whatever_it_holds(webhook: Make, clock: Clock):
    put(webhook(), clock, "one", "two")
    first, second = outbox.claim(now=clock.now, limit=10)
    words = "no\x00 room \ud800here"
    outcomes = [outbox.Outcome(first, sent=False, error=words), outbox.Outcome(second, sent=True, provider_id=words)]
    assert outbox.finish(outcomes, now=clock.now) == 0
    assert Delivery.objects.get(pk=first.pk).error == "no room ?here"
    assert Delivery.objects.get(pk=second.pk).provider_id == "no room ?here"


def test_drains_leave_threads_to_the_other_loops(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    clock.now = timezone.now()
    put(webhook(), clock, "one")
    for _ in range(tasks.AT_ONCE):
        assert tasks._free.acquire(blocking=False)
    try:
        tasks.deliver(now=clock.now)
        assert titles(http_receiver) == []
    finally:
        tasks._free.release(tasks.AT_ONCE)
    tasks.deliver(now=clock.now)
    assert titles(http_receiver) == ["one"]


def test_what_a_dead_sender_held_comes_back(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(), clock, "one")
    assert len(outbox.claim(now=clock.now, limit=10, lease=timedelta(seconds=-1))) == 1
    assert len(outbox.claim(now=clock.now, limit=10, suspect=True)) == 1
    assert outbox.claim(now=clock.now, limit=10, suspect=True) == []


def test_a_late_finisher_changes_nothing(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(), clock, "one")
    [late] = outbox.claim(now=clock.now, limit=10, lease=timedelta(seconds=-1))
    [quick] = outbox.claim(now=clock.now, limit=10, suspect=True)
    assert outbox.finish([outbox.Outcome(late, sent=False, error="gone")], now=clock.now) == 1
    assert outbox.finish([outbox.Outcome(quick, sent=True)], now=clock.now) == 0
    assert Delivery.objects.get().state == "sent"


@pytest.mark.slow
def test_a_slow_receiver_delays_nobody_else(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    slow, quick = webhook("slow"), webhook("quick")
    quick_is_done = threading.Event()
    waited: list[bool] = []

    def answer(request: Request) -> Answer:
        if request.json()["title"] == "slow":
            waited.append(quick_is_done.wait(9))
        if request.json()["title"] == "quick 29":
            quick_is_done.set()
        return Answer()

    http_receiver.answer = answer
    put(slow, clock, "slow")
    put(quick, clock, *(f"quick {number}" for number in range(30)))
    assert drain(clock=clock) == 31
    assert waited == [True]


@pytest.mark.slow
def test_more_receivers_that_hang_than_threads_delay_nobody_else(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    told = threading.Event()
    waited: list[bool] = []

    def answer(request: Request) -> Answer:
        if request.json()["title"] == "hang":
            waited.append(told.wait(9))
        if request.json()["title"] == "quick 19":
            told.set()
        return Answer()

    http_receiver.answer = answer
    for number in range(2 * sending.THREADS):
        put(webhook(f"hangs {number}"), clock, "hang")
    put(webhook("quick"), clock, *(f"quick {number}" for number in range(20)))
    assert drain(clock=clock) == 2 * sending.THREADS + 20
    assert waited == [True] * 2 * sending.THREADS


def test_what_failed_before_gets_few_threads(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sending, "PATIENT", 60.0)  # on a busy machine a try of a moment would seem to hang
    contacts = [webhook(f"away {number}") for number in range(sending.SUSPECTS + 4)]
    for contact in contacts:
        put(contact, clock, "again")
    http_receiver.answer = lambda request: Answer(503)
    drain(clock=clock)
    clock.forward(minutes=1)
    at_once, most = 0, 0
    counting = threading.Lock()

    def answer(request: Request) -> Answer:
        nonlocal at_once, most
        with counting:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.05)
        with counting:
            at_once -= 1
        return Answer()

    http_receiver.answer = answer
    assert drain(clock=clock, threads=2 * sending.SUSPECTS) == len(contacts)
    assert most <= sending.SUSPECTS


def test_a_claim_lasts_as_long_as_its_sender_extends_it(webhook: Make, http_receiver: HttpReceiver, clock: Clock):
    put(webhook(), clock, "one", "two")
    claimed = outbox.claim(now=clock.now, limit=10, lease=timedelta(seconds=-1))
    outbox.extend(claimed)
    assert outbox.claim(now=clock.now, limit=10, suspect=True) == []
    assert {row.pk for row in claimed} == outbox.held(claimed)


def test_a_drain_that_shall_stop_gives_back_what_it_has_not_begun(
    webhook: Make, http_receiver: HttpReceiver, clock: Clock
):
    put(webhook(), clock, "one", "two", "three")
    assert drain(clock=clock, stopping=lambda: bool(http_receiver.requests)) == 1
    assert titles(http_receiver) == ["one"]
    assert list(Delivery.objects.order_by("pk").values_list("state", "attempts", "claim")) == [
        ("sent", 1, None),
        ("queued", 0, None),
        ("queued", 0, None),
    ]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_sender_that_is_killed_loses_nothing(http_receiver: HttpReceiver, clock: Clock):
    """Real processes are killed with SIGKILL in the middle of sending; another one finishes. Doubles are allowed."""
    contacts = [
        Contact.objects.create(name=f"hook {number}", kind="webhook", config={"url": http_receiver.url})
        for number in range(4)
    ]
    keys = {str(put(contact, clock, f"{n}")[0].key) for contact in contacts for n in range(40)}
    http_receiver.answer = lambda request: Answer(delay=0.01)
    for after in (10, 60, 110):
        sender = _sender()
        _until(functools.partial(_is_far_enough, http_receiver, sender, after))
        os.kill(sender.pid, signal.SIGKILL)
        sender.wait()
        Delivery.objects.exclude(claim=None).update(claimed_until="2000-01-01T00:00Z")
    drain(clock=clock)
    got = [request.headers["idempotency-key"] for request in http_receiver.requests]
    assert set(got) == keys
    assert set(Delivery.objects.values_list("state", flat=True)) == {"sent"}
    assert len(got) - len(keys) <= 3 * len(contacts)


def _sender() -> "subprocess.Popen[bytes]":
    """Start a process of its own that drains the test's outbox."""
    code = (
        "import django; django.setup()\n"
        "from django.conf import settings; settings.OUTBOUND_ALLOW = ['127.0.0.1']\n"
        "from datetime import datetime, UTC\n"
        "from apps.notifications.sending import drain\n"
        "drain(clock=lambda: datetime(2026, 11, 23, 12, 1, tzinfo=UTC))\n"
    )
    parts = urlsplit(os.environ["DATABASE_URL"])
    url = urlunsplit(parts._replace(path=f"/{connection.settings_dict['NAME']}"))
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "monitoring_portal.settings", "DATABASE_URL": url}
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=root)


def _is_far_enough(receiver: HttpReceiver, sender: "subprocess.Popen[bytes]", count: int) -> bool:
    return len(receiver.requests) >= count or sender.poll() is not None


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition() and time.monotonic() < ends:
        threading.Event().wait(0.005)
