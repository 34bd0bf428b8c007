"""The outbox: deliveries enter in the caller's transaction, are claimed in batches, and leave by compare-and-swap.

The protocol, in which the order of steps is correctness:
1. `enqueue` writes the row in the transaction of the decision; nothing is sent that was not committed.
2. `claim` takes a batch under an advisory lock (claimers one after the other, for the sake of order) and stamps it
   with a claim and its end by the database's clock. Committed before anything is sent.
3. Whoever holds the claim sends, outside of any transaction.
4. `finish` writes the outcome where the claim is still its own. A sender that died before leaves rows whose claim ends:
   they come back and are sent again under the same key. Hence at least once.

Order: a message is not sent before an earlier one to the same contact that still waits, unless the earlier one has
been tried in vain for `PATIENCE` and is about something else: one message that a receiver cannot digest must not
silence its contact. Tests stand outside of the queue.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction

from apps.core import live
from apps.core.tasks import wake
from apps.core.text import storable
from apps.notifications.channels import channels
from apps.notifications.holding import ORDER, Hold
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery

LEASE: Final = timedelta(seconds=120)
PATIENCE: Final = timedelta(minutes=10)
LOCK: Final = 0x6E6F7469
"""The advisory lock that makes claimers take turns ("noti")."""
PER_CONTACT: Final = 20
"""Deliveries to one contact in one claim: they are sent in order, one after the other."""
BUNDLED: Final = 500
"""Deliveries to a contact with a limit in one claim: they may have to be told in one message."""
TRIES_UNTIL_PROBLEM: Final = 3
"""A receiver that did not take a message so often in a row is shown as a problem, though it is tried on."""


def enqueue(
    *,
    contact: Contact,
    message: Message,
    purpose: str,
    now: datetime,
    due_at: datetime | None = None,
    hold: Hold | None = None,
) -> Delivery:
    """Put a message into the outbox, in the caller's transaction; to a contact that is switched off it is cancelled.

    With a `hold` it does not leave before somebody lets it go (`let_go`, `keep`, `drop`).
    """
    delivery = Delivery(
        contact=contact,
        contact_name=contact.name,
        kind=contact.kind,
        message=message.to_json(),
        purpose=purpose,
        group_key=message.group_key,
        created_at=now,
        due_at=due_at or now,
    )
    if not contact.enabled:
        delivery.state, delivery.finished_at, delivery.error = "cancelled", now, "The contact is switched off."
    elif hold is not None:
        delivery.state, delivery.held_for, delivery.due_at, delivery.error = "held", hold.why, hold.until, hold.reason
    delivery.save(force_insert=True)
    if delivery.state == "queued":
        wake("notifications.deliver")
    return delivery


CLAIM: Final = """
UPDATE notifications_delivery
   SET claim = %(claim)s, claimed_until = clock_timestamp() + make_interval(secs => %(lease)s), attempts = attempts + 1
 WHERE id IN (
    SELECT next.id
      FROM notifications_contact c
     CROSS JOIN LATERAL (
        SELECT d.id
          FROM notifications_delivery d
         WHERE d.contact_id = c.id AND d.state = 'queued' AND d.due_at <= %(now)s
           AND (d.claimed_until IS NULL OR d.claimed_until < clock_timestamp())
           AND (d.purpose = 'test' OR NOT EXISTS (
                SELECT FROM notifications_delivery earlier
                 WHERE earlier.contact_id = d.contact_id AND earlier.id < d.id
                   AND earlier.state = 'queued' AND earlier.purpose <> 'test'
                   AND (earlier.claimed_until >= clock_timestamp()
                        OR (earlier.attempts > 0 AND earlier.due_at > %(now)s
                            AND (earlier.group_key = d.group_key OR earlier.created_at > %(impatient)s)))))
         ORDER BY d.id
         LIMIT CASE WHEN c.rate_limit <> '' OR c.kind = ANY(%(limited)s) THEN %(bundled)s ELSE %(per_contact)s END
           FOR UPDATE SKIP LOCKED
     ) next
     WHERE c.enabled AND c.id <> ALL(%(busy)s)
     LIMIT %(limit)s
 )
RETURNING id
"""


HELD: Final = "Held by the contact's rate limit."


@dataclass(frozen=True)
class Outcome:
    """What came of one try; `due_at` is the next one's time, None when there is none; `carrier` told it along."""

    delivery: Delivery
    sent: bool
    error: str = ""
    provider_id: str = ""
    due_at: datetime | None = None
    permanent: bool = False
    carrier: int | None = None


def claim(*, now: datetime, limit: int, busy: Iterable[int] = (), lease: timedelta = LEASE) -> list[Delivery]:
    """Take up to `limit` due deliveries, in the order in which they are to be sent; `busy` contacts are passed over.

    Each counts a try from here on, so that one that kills its sender is not tried for ever.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            cursor.execute(
                CLAIM,
                {
                    "claim": uuid.uuid4(),
                    "lease": lease.total_seconds(),
                    "now": now,
                    "impatient": now - PATIENCE,
                    "per_contact": PER_CONTACT,
                    "bundled": BUNDLED,
                    "limited": [kind for kind, channel in channels.all().items() if channel.limits],
                    "limit": limit,
                    "busy": list(busy),
                },
            )
            ids = [row[0] for row in cursor.fetchall()]
        return list(Delivery.objects.filter(pk__in=ids).order_by("pk")) if ids else []


def held(deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of those whose claim is still the caller's: neither ended and taken by another, nor cancelled."""
    claims = {delivery.pk: delivery.claim for delivery in deliveries}
    found = Delivery.objects.filter(pk__in=claims, state="queued").values_list("pk", "claim")
    return {pk for pk, mine in found if claims[pk] == mine}


def release(deliveries: Iterable[Delivery]) -> None:
    """Give back what was claimed and not begun: it is due as before, and no try was made."""
    for delivery in deliveries:
        Delivery.objects.filter(pk=delivery.pk, claim=delivery.claim).update(
            claim=None, claimed_until=None, attempts=delivery.attempts - 1
        )


def sent_since(contact: int, since: datetime) -> list[datetime]:
    """Return when messages to the contact left, those that others carried along counted as one."""
    sent = Delivery.objects.filter(contact=contact, state="sent", carrier=None, finished_at__gt=since)
    return [at for at in sent.order_by("finished_at").values_list("finished_at", flat=True) if at is not None]


def hold(deliveries: Iterable[Delivery], *, until: datetime) -> None:
    """Give back what the contact's limit leaves no room for: it is due when there is room, and no try was made."""
    for delivery in deliveries:
        Delivery.objects.filter(pk=delivery.pk, claim=delivery.claim).update(
            claim=None, claimed_until=None, attempts=delivery.attempts - 1, due_at=until, error=HELD
        )


def finish(outcomes: Iterable[Outcome], *, now: datetime) -> int:
    """Write down what came of the tries, and on the contact whether it works. Returns how many claims had been lost."""
    lost = 0
    with transaction.atomic():
        for outcome in outcomes:
            lost += not _finish(outcome, now)
    return lost


def _finish(outcome: Outcome, now: datetime) -> bool:
    # A receiver's words may hold a NUL, which must not undo the outcomes of a whole wave.
    delivery, error = outcome.delivery, storable(outcome.error)
    mine = Delivery.objects.filter(pk=delivery.pk, claim=delivery.claim, state="queued")
    if outcome.sent:
        kept = mine.update(
            state="sent",
            finished_at=now,
            claim=None,
            claimed_until=None,
            error="",
            provider_id=storable(outcome.provider_id)[:300],
            carrier_id=outcome.carrier,
        )
    elif outcome.due_at is None:
        kept = mine.update(state="failed", finished_at=now, claim=None, claimed_until=None, error=error)
    else:
        kept = mine.update(due_at=outcome.due_at, claim=None, claimed_until=None, error=error)
    _note_health(outcome, error, now)
    return bool(kept)


def _note_health(outcome: Outcome, error: str, now: datetime) -> None:
    """Show on the contact what its last messages met; a row is written only where that changes something."""
    contact = Contact.objects.filter(pk=outcome.delivery.contact_id)
    if outcome.sent:
        if contact.exclude(problem="").update(problem="", problem_at=None, last_ok_at=now):
            live.publish("contacts", outcome.delivery.contact_id)
        else:
            contact.exclude(last_ok_at__gt=now - timedelta(minutes=1)).update(last_ok_at=now)
    elif outcome.permanent or outcome.due_at is None or outcome.delivery.attempts >= TRIES_UNTIL_PROBLEM:
        if contact.filter(problem="").update(problem=error, problem_at=now):
            live.publish("contacts", outcome.delivery.contact_id)
        else:
            contact.exclude(problem=error).update(problem=error)


def let_go(delivery: Delivery, message: Message, *, now: datetime) -> None:
    """Have what was held back leave now, as this message; its day of tries begins here."""
    Delivery.objects.filter(pk=delivery.pk, state="held").update(
        state="queued",
        message=message.to_json(),
        group_key=message.group_key,
        created_at=now,
        due_at=now,
        error="",
    )
    wake("notifications.deliver")


def keep(delivery: Delivery, hold: Hold) -> None:
    """Hold back what is held back for longer."""
    Delivery.objects.filter(pk=delivery.pk, state="held").update(
        held_for=hold.why, due_at=hold.until, error=hold.reason
    )


def drop(delivery: Delivery, *, reason: str, now: datetime, carrier: Delivery | None = None) -> None:
    """Cancel what was held back: there is no more to tell, or `carrier` tells it."""
    Delivery.objects.filter(pk=delivery.pk, state="held").update(
        state="cancelled", finished_at=now, error=reason, carrier=carrier
    )


def look_again(*, contact: Contact, now: datetime) -> None:
    """Have what is held back by hours judged anew: they may have changed."""
    by_hours = Delivery.objects.held().filter(contact=contact).exclude(held_for=ORDER)
    by_hours.update(due_at=now)


def cancel(*, contact: Contact, reason: str, now: datetime) -> int:
    """Drop what waits for a contact, in the caller's transaction; what is being sent right now may still arrive."""
    return Delivery.objects.filter(contact=contact, state__in=("queued", "held")).update(
        state="cancelled", finished_at=now, claim=None, claimed_until=None, error=reason
    )
