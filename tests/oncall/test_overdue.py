"""On-call that stands still is noticed, and said past everything that may be what stands still."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection

from apps.accounts.models import Calendar
from apps.core.tasks import LOOPS
from apps.dashboards.health import _oncall
from apps.notifications import outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import loops, overdue
from apps.oncall.models import Escalation
from tests.notifications.receivers import Answer, HttpReceiver
from tests.oncall.conftest import Night

LATER = timedelta(minutes=5)


@pytest.fixture
def wire(settings: Any, night: Night) -> Iterator[HttpReceiver]:
    """The receiver of the fall-back contact."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    receiver = HttpReceiver()
    config = {"url": receiver.url}
    Contact.objects.create(name="fall-back", kind="webhook", config=config, is_fallback=True)
    yield receiver
    receiver.close()


def titles(wire: HttpReceiver) -> list[str]:
    return [request.json()["title"] for request in wire.requests]


def begun(night: Night) -> None:
    """An incident whose escalation waits for its second step, which nobody will take."""
    ann = night.contact("ann")
    told = ("notify", {"contacts": [ann.pk]})
    night.route("root", policy=night.policy(told, ("wait", {"minutes": 10}), told))
    night.fire()
    night.wait(minutes=1)


def test_what_is_done_in_time_is_not_overdue(night: Night, wire: HttpReceiver):
    begun(night)
    night.wait(hours=1)
    assert not overdue.look(now=night.now).is_any
    assert wire.requests == []


def test_a_stalled_escalation_is_said_directly_and_once_an_hour_and_when_it_is_over(night: Night, wire: HttpReceiver):
    begun(night)
    night.now += timedelta(minutes=15)
    found = overdue.look(now=night.now)
    assert (found.escalations, found.incidents) == (1, (night.escalation.incident_id,))
    assert "1 escalations" in titles(wire)[0]
    direct = Delivery.objects.get(group_key=overdue.KEY)
    assert (direct.state, direct.contact_name) == ("sent", "fall-back")
    assert _oncall(night.now)[0] == "fail"
    overdue.look(now=night.now + timedelta(minutes=59))
    assert len(wire.requests) == 1
    overdue.look(now=night.now + timedelta(minutes=60))
    assert len(wire.requests) == 2
    Escalation.objects.update(due_at=night.now)
    night.wait(seconds=1)
    overdue.look(now=night.now)
    overdue.look(now=night.now)
    assert len(wire.requests) == 3
    assert "goes on" in titles(wire)[-1]
    assert _oncall(night.now)[0] == "pass"


def test_changes_that_nobody_takes_up_are_overdue(night: Night, wire: HttpReceiver):
    night.fire()
    assert overdue.look(now=night.now + LATER).transitions == 1
    assert len(wire.requests) == 1


def test_what_does_not_leave_directly_is_left_to_the_outbox(night: Night, wire: HttpReceiver):
    night.fire()
    wire.answer = lambda request: Answer(status=503)
    overdue.look(now=night.now + LATER)
    kept = Delivery.objects.get(group_key=overdue.KEY)
    assert (kept.state, kept.claim, len(wire.requests)) == ("queued", None, 1)
    assert "503" in kept.error


def test_without_a_fallback_contact_it_is_at_least_seen(night: Night, caplog: pytest.LogCaptureFixture):
    night.fire()
    assert overdue.look(now=night.now + LATER).is_any
    assert "no fall-back contact" in caplog.text


def test_messages_that_nobody_lets_go_are_overdue(night: Night, wire: HttpReceiver):
    ann = night.contact("ann", calendar=Calendar.objects.create(name="Office", hours="mon-fri 08:00-18:00"))
    night.route("root", ann)
    night.fire()
    night.wait(minutes=1)
    assert not overdue.look(now=night.now).is_any
    night.now = Delivery.objects.held().get().due_at + LATER
    assert overdue.find(now=night.now).held == 1
    assert "1 messages that were held back" in overdue.find(now=night.now).sentence


def test_workers_that_hang_with_their_locks_and_what_waits_to_be_sent_do_not_hold_it_up(
    night: Night, wire: HttpReceiver
):
    """Nothing runs but the look itself, and what on-call's loops and senders need is held by those that hang."""
    night.fire()
    fallback = Contact.objects.get(name="fall-back")
    message = Message(title="earlier", body="", severity="info", status="firing", url="", group_key="x", reason="")
    before = outbox.enqueue(contact=fallback, message=message, purpose="firing", now=night.now)
    params = {**connection.get_connection_params(), "cursor_factory": None}
    with psycopg.connect(**{name: value for name, value in params.items() if value is not None}) as hung:
        for lock in (loops.LOCK, outbox.LOCK):
            hung.execute("SELECT pg_advisory_lock(%s)", [lock])
        overdue.look(now=night.now + LATER)
    assert "On-call stands still" in titles(wire)[0]
    before.refresh_from_db()
    assert (before.state, len(wire.requests)) == ("queued", 1)


def test_the_look_runs_where_the_loops_that_it_watches_do_not_and_without_workers_too():
    watched = {LOOPS[name].queue for name in ("oncall.tell", "oncall.escalate", "notifications.deliver")}
    assert LOOPS["oncall.overdue"].queue not in watched
    assert LOOPS["oncall.overdue"].fallback
