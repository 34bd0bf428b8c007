"""Drains the outbox: one thread of decisions that talks to the database, several that only talk to receivers.

Messages to one contact leave in order, one at a time; contacts leave side by side. A receiver that hangs holds one
thread until its time-out, and that thread does not count: as long as fewer than `WAITING` hang, `THREADS` others send.
What failed before is taken on a few at a time, so that many receivers that are away leave room for those that are not.
"""

import logging
import queue
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
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
from apps.notifications.links import url_of
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.notifications.outbox import Outcome
from apps.notifications.restraint import Limits, room, room_at
from apps.notifications.retrying import after_failure

log = logging.getLogger(__name__)

THREADS: Final = 16
"""Tries at the same time, not counting those that have waited for PATIENT."""
WAITING: Final = 200
"""Tries that may wait for a receiver beside them."""
SUSPECTS: Final = 16
"""Deliveries that are taken on at the same time though they failed before, or their contact is known not to work."""
PATIENT: Final = 0.5
"""Seconds after which a try counts as one that waits."""
BATCH: Final = 200
LOOK: Final = 0.2
"""Seconds after which new work is looked for, though nobody told of any."""
TRUSTED: Final = 1.0
"""Seconds for which a claim is taken to be still held, without asking."""
EXTENDED: Final = 5.0
"""Seconds after which claims are extended."""
DIRECTLY: Final = timedelta(minutes=2)
"""How long a claim lasts that nobody extends: longer than any channel's try."""
RUN: Final = 30.0
"""Seconds after which the rest of a contact's run is given back: others may have more threads to spare."""

DELIVERIES = Counter("portal_deliveries_total", "Tries to deliver a message, by what came of them.", ("kind", "result"))
DURATION = Histogram("portal_delivery_duration_seconds", "How long one try to deliver a message took.", ("kind",))
LOST = Counter("portal_delivery_claims_lost_total", "Tries whose outcome was not kept because the claim had ended.")

Clock = Callable[[], datetime]


@dataclass
class Run:
    """Deliveries to one contact, in order, and the channel that carries them (None: `obstacle` says why not).

    `flying` is what is being sent right now: one delivery, or several in one message, since `launched_at`.
    """

    channel: Channel | None
    obstacle: str
    waiting: deque[Delivery]
    limits: Limits = ()
    is_suspect: bool = False
    flying: list[Delivery] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    held_at: float = field(default_factory=time.monotonic)
    launched_at: float = 0.0


@dataclass(frozen=True)
class Tried:
    """What one try met; `failure` is None when the receiver took the message."""

    provider_id: str
    failure: DeliveryFailed | None
    seconds: float


def _never() -> bool:
    return False


def drain(*, clock: Clock, threads: int = THREADS, stopping: Callable[[], bool] = _never) -> int:
    """Send what is due until nothing is left and nothing is in the air; return how many tries were made.

    Once `stopping`, nothing more is begun. Several processes may run it at once. A database that goes away is raised;
    what was claimed comes back by itself.
    """
    books = _Drain(threads, clock)
    _living.append(books)
    try:
        return books.run(stopping)
    finally:
        _living.remove(books)
        books.pool.shutdown(wait=False, cancel_futures=True)


def nudge() -> None:
    """Have a drain of this process look for new work at once."""
    for books in tuple(_living):
        books.news.put(None)


_living: list["_Drain"] = []


class _Drain:
    """One drain's books: a run per contact, and the futures of those whose head is being sent."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self.pool = ThreadPoolExecutor(max_workers=threads + WAITING, thread_name_prefix="send")
        self.threads = threads
        self.clock = clock
        self.runs: dict[int, Run] = {}
        self.flying: dict[Future[Tried], int] = {}
        self.news: queue.SimpleQueue[Future[Tried] | None] = queue.SimpleQueue()
        """Tries that ended, and None from who knows of new work."""
        self.tries = 0
        self.looked_at = self.extended_at = time.monotonic()
        self.is_worth_a_look = self.are_more_suspects = True

    def run(self, stopping: Callable[[], bool]) -> int:
        while True:
            if stopping():
                self.give_back()
            elif self.has_room():
                self.claim()
            self.launch()
            if not self.flying:
                if stopping() or not self.claim(at_once=True):
                    return self.tries
                continue
            served = len(self.runs)
            done, is_told = self.wait()
            self.settle(done)
            # A contact that is served no longer may have more than its run was.
            self.is_worth_a_look |= is_told or len(self.runs) < served
            if time.monotonic() > self.extended_at + EXTENDED:
                self.extended_at = time.monotonic()
                outbox.extend(one for run in self.runs.values() for one in (*run.flying, *run.waiting))

    def claim(self, *, at_once: bool = False) -> bool:
        """Take on what is due, unless the last look found nothing and nobody has told of more since; tell of a find."""
        is_time = at_once or time.monotonic() > self.looked_at + LOOK
        suspects: list[Delivery] = []
        others: list[Delivery] = []
        room = SUSPECTS - sum(run.is_suspect for run in self.runs.values())
        if room > 0 and (is_time or self.are_more_suspects):
            suspects = outbox.claim(now=self.clock(), limit=room, busy=self.runs, suspect=True)
            self.are_more_suspects = bool(suspects)
            self.take(suspects, is_suspect=True)
        if is_time or self.is_worth_a_look:
            others = outbox.claim(now=self.clock(), limit=BATCH, busy=self.runs)
            self.is_worth_a_look = bool(others)
            self.take(others, is_suspect=False)
        if is_time:
            self.looked_at = time.monotonic()
        return bool(suspects or others)

    def wait(self) -> tuple[list[Future[Tried]], bool]:
        """Wait for news; return the tries that ended, and whether somebody knows of new work."""
        news: list[Future[Tried] | None] = []
        try:
            news.append(self.news.get(timeout=LOOK))
            while True:
                news.append(self.news.get_nowait())
        except queue.Empty:
            return [one for one in news if one is not None], None in news

    def has_room(self) -> bool:
        """Whether more contacts can be served than are: those that wait for their receiver do not count."""
        return len(self.runs) - self.hanging() < self.threads and len(self.runs) < self.threads + WAITING

    def hanging(self) -> int:
        """Tries that wait for their receiver."""
        since = time.monotonic() - PATIENT
        return sum(self.runs[ident].launched_at < since for ident in self.flying.values())

    def take(self, batch: list[Delivery], *, is_suspect: bool) -> None:
        """Sort claimed deliveries into runs, one for each contact."""
        if not batch:
            return
        idents = {delivery.contact_id for delivery in batch if delivery.contact_id is not None}
        contacts = Contact.objects.in_bulk(idents - set(self.runs))
        people = administrators()
        for delivery in batch:
            ident = delivery.contact_id or 0
            if ident not in self.runs:
                self.runs[ident] = run_to(contacts.get(ident), people)
                self.runs[ident].is_suspect = is_suspect
            self.runs[ident].waiting.append(delivery)

    def give_back(self) -> None:
        """Let others send what has not been begun."""
        outbox.release(delivery for run in self.runs.values() for delivery in run.waiting)
        for ident, run in list(self.runs.items()):
            run.waiting.clear()
            if not run.flying:
                del self.runs[ident]

    def launch(self) -> None:
        """Send the head of each run where none is being sent, as far as there are threads and claims still hold."""
        idle = [ident for ident, run in self.runs.items() if not run.flying]
        if not idle:
            return
        self.check_claims(idle)
        room = min(self.threads - (len(self.flying) - self.hanging()), self.threads + WAITING - len(self.flying))
        for ident in idle:
            if room <= 0:
                return
            if (run := self.runs.get(ident)) is None:
                continue
            if (until := self.next_of(ident, run)) is not None:
                outbox.hold(run.waiting, until=until)
                del self.runs[ident]
                continue
            room -= 1
            run.launched_at = time.monotonic()
            future = self.pool.submit(attempt, run.channel, run.obstacle, run.flying)
            self.flying[future] = ident
            future.add_done_callback(self.news.put)

    def check_claims(self, idle: Sequence[int]) -> None:
        """Drop runs whose claim is no longer this drain's: taken over, or cancelled since."""
        now = time.monotonic()
        old = [self.runs[ident] for ident in idle if self.runs[ident].held_at < now - TRUSTED]
        if not old:
            return
        held = outbox.held(run.waiting[0] for run in old)
        for ident in idle:
            run = self.runs[ident]
            if run.held_at >= now - TRUSTED:
                continue
            if run.waiting[0].pk in held:
                run.held_at = now
            else:
                outbox.release(run.waiting)
                del self.runs[ident]

    def next_of(self, ident: int, run: Run) -> datetime | None:
        """Move to `flying` what is sent next: the head, or all that waits where the limit has no room for each.

        Returns until when the limit holds everything back, or None.
        """
        now = self.clock()
        tests = [delivery for delivery in run.waiting if delivery.purpose == "test"]
        chosen = tests[:1] or [run.waiting[0]]
        if run.limits and run.channel is not None and not tests:
            sent = outbox.sent_since(ident, now - max(limit.window for limit in run.limits))
            left = room(sent, run.limits, now)
            if left == 0:
                return room_at(sent, run.limits, now)
            if run.channel.bundles and left < len(run.waiting):
                chosen = list(run.waiting)
        run.flying = chosen
        run.waiting = deque(delivery for delivery in run.waiting if delivery not in chosen)
        return None

    def settle(self, done: Sequence[Future[Tried]]) -> None:
        """Write down one wave of outcomes; give back what must not overtake, or has been held for too long."""
        if not done:
            return
        now = self.clock()
        outcomes: list[Outcome] = []
        returned: list[Delivery] = []
        for future in done:
            ident = self.flying.pop(future)
            run = self.runs[ident]
            wave = [judge(delivery, future.result(), now) for delivery in run.flying]
            first = wave[0].delivery
            outcomes += [wave[0], *(replace(outcome, carrier=first.pk) for outcome in wave[1:])]
            run.flying = []
            has_to_wait = any(not outcome.sent and outcome.due_at is not None for outcome in wave)
            if has_to_wait or time.monotonic() > run.started + RUN:
                returned += run.waiting
                run.waiting.clear()
            if not run.waiting:
                del self.runs[ident]
        self.tries += len(outcomes)
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
            claim=mine, claimed_until=Now() + DIRECTLY, attempts=1
        )
    delivery.refresh_from_db()
    if delivery.claim == mine:
        run = run_to(contact, administrators())
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
    if message.status == "firing":
        # The first delivery stands for those told along: their alerts are answered together.
        message = replace(message, answer_url=url_of(settings.PORTAL_URL, deliveries[0].key))
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
