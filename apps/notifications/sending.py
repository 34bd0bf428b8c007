"""Drains the outbox: one thread of decisions that talks to the database, several that only talk to receivers.

Messages to one contact leave in order, one at a time; contacts leave side by side. A receiver that hangs holds one
thread of the pool until its time-out and delays nobody else.
"""

import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from apps.accounts.models import User
from apps.core import http
from apps.core.secrets import Undecryptable
from apps.core.telemetry import Counter, Histogram
from apps.notifications import outbox
from apps.notifications.bundling import bundle
from apps.notifications.channels import Channel, DeliveryFailed, Sender
from apps.notifications.earlier import note_earlier
from apps.notifications.links import code_of, receipt_url_of, url_of
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.notifications.outbox import Outcome
from apps.notifications.restraint import Limits, room, room_at
from apps.notifications.retrying import after_failure

log = logging.getLogger(__name__)

THREADS: Final = 16
BATCH: Final = 200
LOOK: Final = 0.2
"""Seconds after which new work is looked for while receivers are slow."""
CLAIMING: Final = 15.0
"""Seconds for which one drain takes on new work; the next tick goes on."""
RUN: Final = 30.0
"""Seconds after which the rest of a contact's run is given back, well before its lease ends."""

DELIVERIES = Counter("portal_deliveries_total", "Tries to deliver a message, by what came of them.", ("kind", "result"))
DURATION = Histogram("portal_delivery_duration_seconds", "How long one try to deliver a message took.", ("kind",))
LOST = Counter("portal_delivery_claims_lost_total", "Tries whose outcome was not kept because the claim had ended.")

Clock = Callable[[], datetime]


@dataclass
class Run:
    """Deliveries to one contact, in order, and the channel that carries them (None: `obstacle` says why not).

    `flying` is what is being sent right now: one delivery, or several in one message.
    """

    channel: Channel | None
    obstacle: str
    waiting: deque[Delivery]
    limits: Limits = ()
    flying: list[Delivery] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Tried:
    """What one try met; `failure` is None when the receiver took the message."""

    provider_id: str
    failure: DeliveryFailed | None
    seconds: float


def drain(*, clock: Clock, threads: int = THREADS, claiming: float = CLAIMING) -> int:
    """Send what is due until nothing is left, or `claiming` seconds are over; return how many tries were made.

    Several processes may run it at once. A database that goes away is raised; what was claimed comes back by itself.
    """
    batch = outbox.claim(now=clock(), limit=BATCH)
    if not batch:
        return 0
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="send")
    try:
        return _Drain(pool, threads, clock).run(batch, time.monotonic() + claiming)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Drain:
    """One drain's books: a run per contact, and the futures of those whose head is being sent."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int, clock: Clock) -> None:
        self.pool = pool
        self.threads = threads
        self.clock = clock
        self.administrators = administrators()
        self.runs: dict[int, Run] = {}
        self.flying: dict[Future[Tried], int] = {}
        self.tries = 0

    def run(self, batch: list[Delivery], ends: float) -> int:
        while True:
            self.take(batch)
            self.launch()
            if not self.flying:
                return self.tries
            done, _ = wait(self.flying, timeout=LOOK, return_when=FIRST_COMPLETED)
            self.settle(done)
            is_taking = len(self.runs) < self.threads and time.monotonic() < ends
            batch = outbox.claim(now=self.clock(), limit=BATCH, busy=self.runs) if is_taking else []

    def take(self, batch: list[Delivery]) -> None:
        """Sort claimed deliveries into runs, one for each contact."""
        idents = {delivery.contact_id for delivery in batch if delivery.contact_id is not None}
        contacts = Contact.objects.in_bulk(idents - set(self.runs))
        for delivery in batch:
            ident = delivery.contact_id or 0
            if ident not in self.runs:
                self.runs[ident] = run_to(contacts.get(ident), self.administrators)
            self.runs[ident].waiting.append(delivery)

    def launch(self) -> None:
        """Send the head of every run that is not being sent, as far as there are threads and claims still hold."""
        idle = [ident for ident in self.runs if ident not in self.flying.values()]
        held = outbox.held(self.runs[ident].waiting[0] for ident in idle)
        for ident in idle:
            if len(self.flying) >= self.threads:
                return
            run = self.runs[ident]
            if run.waiting[0].pk not in held:
                outbox.release(run.waiting)
                del self.runs[ident]
            elif (until := self.next_of(ident, run)) is not None:
                outbox.hold(run.waiting, until=until)
                del self.runs[ident]
            else:
                note_earlier(run.channel, run.flying)
                self.flying[self.pool.submit(attempt, run.channel, run.obstacle, run.flying)] = ident

    def next_of(self, ident: int, run: Run) -> datetime | None:
        """Move to `flying` what is sent next: the head, or all that waits where the limit has no room for each.

        Returns until when the limit holds everything back, or None.
        """
        now = self.clock()
        tests = [delivery for delivery in run.waiting if delivery.purpose == "test"]
        run.flying = tests[:1] or [run.waiting[0]]
        if run.limits and run.channel is not None and not tests:
            sent = outbox.sent_since(ident, now - max(limit.window for limit in run.limits))
            left = room(sent, run.limits, now)
            if left == 0:
                return room_at(sent, run.limits, now)
            if run.channel.bundles and left < len(run.waiting):
                run.flying = list(run.waiting)
        run.waiting = deque(delivery for delivery in run.waiting if delivery not in run.flying)
        return None

    def settle(self, done: set[Future[Tried]]) -> None:
        """Write down one wave of outcomes; give back what must not overtake, or has been held for too long."""
        now = self.clock()
        outcomes: list[Outcome] = []
        returned: list[Delivery] = []
        for future in done:
            ident = self.flying.pop(future)
            run = self.runs[ident]
            wave = [judge(delivery, future.result(), now) for delivery in run.flying]
            first = wave[0].delivery
            outcomes += [wave[0], *(replace(outcome, carrier=first.pk) for outcome in wave[1:])]
            has_to_wait = any(not outcome.sent and outcome.due_at is not None for outcome in wave)
            if has_to_wait or time.monotonic() > run.started + RUN:
                returned += run.waiting
                run.waiting.clear()
            if not run.waiting:
                del self.runs[ident]
        self.tries += len(outcomes)
        if outcomes:
            LOST.inc(outbox.finish(outcomes, now=now))
            outbox.release(returned)


def run_to(contact: Contact | None, administrators: tuple[str, ...]) -> Run:
    """Return an empty run to the contact."""
    if contact is None:
        return Run(None, "The contact was deleted.", deque())
    try:
        channel = contact.open_channel(Sender(contact.name, settings.PORTAL_URL, administrators))
    except (Undecryptable, LookupError) as error:
        return Run(None, str(error), deque())
    except Exception as error:  # a channel that cannot even be opened must not hold up those of the others
        log.exception("The channel %s of contact %s could not be opened", contact.kind, contact.pk)
        return Run(None, f"The channel {contact.kind} could not be opened ({type(error).__name__}).", deque())
    return Run(channel, "", deque(), contact.limits)


def send_directly(*, contact: Contact, message: Message, purpose: str, now: datetime) -> Delivery:
    """Send one message here and now, past what waits in the outbox and past the contact's limit; return its record.

    For what must not depend on the workers that send. The row is claimed before: one that did not leave, or whose
    sender died, is sent by the outbox like any other. It never raises for what a receiver does.
    """
    mine = uuid.uuid4()
    with transaction.atomic():
        delivery = outbox.enqueue(contact=contact, message=message, purpose=purpose, now=now)
        Delivery.objects.filter(pk=delivery.pk, state="queued").update(
            claim=mine, claimed_until=Now() + outbox.LEASE, attempts=1
        )
    delivery.refresh_from_db()
    if delivery.claim == mine:
        run = run_to(contact, administrators())
        note_earlier(run.channel, [delivery])
        outbox.finish([judge(delivery, attempt(run.channel, run.obstacle, [delivery]), now)], now=now)
        delivery.refresh_from_db()
    return delivery


def administrators() -> tuple[str, ...]:
    """Return the addresses of active people who administer: where a contact without addresses goes."""
    found = User.objects.filter(is_active=True).exclude(email="")
    people = found.filter(Q(is_superuser=True) | Q(groups__name="administrator"))
    return tuple(sorted(set(people.values_list("email", flat=True))))


def together(deliveries: Sequence[Delivery]) -> tuple[Message, uuid.UUID]:
    """Return the one message for all of them and its idempotency key.

    The key of a bundle is made of those of its parts: a retry with one more part must not be dropped as a repeat.
    """
    messages = [Message.from_json(delivery.message) for delivery in deliveries]
    message = bundle(messages)
    # The first delivery stands for those told along: their alerts are answered together, and so are receipts.
    first = deliveries[0]
    message = replace(
        message,
        receipt_url=receipt_url_of(settings.PORTAL_URL, first.kind, first.key),
        code=code_of(first.key),
        earlier=first.earlier,
    )
    if message.status in ("firing", "update"):
        message = replace(message, answer_url=url_of(settings.PORTAL_URL, first.key))
    if len(deliveries) == 1:
        return message, deliveries[0].key
    return message, uuid.uuid5(deliveries[0].key, " ".join(str(delivery.key) for delivery in deliveries))


def attempt(channel: Channel | None, obstacle: str, deliveries: Sequence[Delivery]) -> Tried:
    """Send deliveries as one message; never raises, never quotes an unexpected error: it may hold a secret."""
    started = time.perf_counter()
    provider_id, failure = "", None
    try:
        if channel is None:
            raise DeliveryFailed(obstacle, permanent=True)
        provider_id = channel.send(*together(deliveries))
    except DeliveryFailed as error:
        failure = error
    except http.OutboundError as error:
        failure = DeliveryFailed(str(error), permanent=error.permanent)
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
        kind = deliveries[0].kind
        log.error("Channel %s failed with %s at %s", kind, type(error).__name__, where)
        failure = DeliveryFailed(
            f"The channel {kind} failed ({type(error).__name__}); the log names the place.", permanent=False
        )
    return Tried(provider_id, failure, time.perf_counter() - started)


def judge(delivery: Delivery, tried: Tried, now: datetime) -> Outcome:
    """Return what follows a try, and count it."""
    failure = tried.failure
    DURATION.observe(tried.seconds, kind=delivery.kind)
    if failure is None:
        DELIVERIES.inc(kind=delivery.kind, result="sent")
        return Outcome(delivery, sent=True, provider_id=tried.provider_id)
    verdict = after_failure(
        attempts=delivery.attempts,
        created_at=delivery.created_at,
        now=now,
        permanent=failure.permanent,
        retry_after=failure.retry_after,
        chance=random.random(),  # noqa: S311 - jitter, no secret
        is_test=delivery.purpose == "test",
    )
    DELIVERIES.inc(kind=delivery.kind, result="failed" if verdict.due_at is None else "retried")
    given_up = not failure.permanent and verdict.due_at is None
    error = f"{failure.reason} ({verdict.reason})" if given_up else failure.reason
    return Outcome(delivery, sent=False, error=error, due_at=verdict.due_at, permanent=failure.permanent)
