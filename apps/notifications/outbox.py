"""The outbox: deliveries enter in the caller's transaction, are claimed in batches, and leave by compare-and-swap.

The protocol, in which the order of steps is correctness:
1. `enqueue` writes the row in the transaction of the decision; nothing is sent that was not committed.
2. `claim` takes a batch under an advisory lock (claimers one after the other, for the sake of order) and stamps it
   with a claim and its end by the database's clock. Committed before anything is sent.
3. Whoever holds the claim sends, outside of any transaction, and extends the claim while it lives.
4. `finish` writes the outcome where the claim is still its own. A sender that died before leaves rows whose claim ends:
   they come back and are sent again under the same key. Hence at least once.

Order: a message is not sent before an earlier one to the same contact that still waits, unless the earlier one has
been tried in vain for `PATIENCE` and is about something else: one message that a receiver cannot digest must not
silence its contact. Tests stand outside of the queue.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction

from apps.core import live
from apps.core.tasks import wake
from apps.core.text import storable
from apps.notifications.channels import channels
from apps.notifications.holding import ORDER, Hold
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.notifications.receipts import CAME_BACK, LOST

LEASE: Final = timedelta(seconds=30)
"""How long a claim lasts that its sender does not extend: so soon what a dead sender held is sent by another."""
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


# Whether an earlier one has to go first is asked in the order of the index by contact and id: as a plain NOT EXISTS it
# was answered from the index of all that is due, a look at the whole queue for each message (10,000: 14 ms a claim).
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
           AND (d.purpose = 'test' OR (
                SELECT earlier.id FROM notifications_delivery earlier
                 WHERE earlier.contact_id = d.contact_id AND earlier.id < d.id
                   AND earlier.state = 'queued' AND earlier.purpose <> 'test'
                   AND (earlier.claimed_until >= clock_timestamp()
                        OR (earlier.attempts > 0 AND earlier.due_at > %(now)s
                            AND (earlier.group_key = d.group_key OR earlier.created_at > %(impatient)s)))
                 ORDER BY earlier.contact_id, earlier.id
                 LIMIT 1) IS NULL)
         ORDER BY d.id
         LIMIT CASE WHEN c.rate_limit <> '' OR c.kind = ANY(%(limited)s) THEN %(bundled)s ELSE %(per_contact)s END
           FOR UPDATE SKIP LOCKED
     ) next
     WHERE c.enabled AND c.id <> ALL(%(busy)s)
       AND (c.problem <> '' OR coalesce((
            SELECT head.attempts > 0
              FROM notifications_delivery head
             WHERE head.contact_id = c.id AND head.state = 'queued' AND head.purpose <> 'test'
             ORDER BY head.id
             LIMIT 1), false)) = %(suspect)s
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


def claim(
    *, now: datetime, limit: int, busy: Iterable[int] = (), suspect: bool = False, lease: timedelta = LEASE
) -> list[Delivery]:
    """Take up to `limit` due deliveries, in the order in which they are to be sent; `busy` contacts are passed over.

    `suspect`: to contacts that do not work, or whose next message failed before; else to all others. Each counts a try
    from here on, so that one that kills its sender is not tried for ever.
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
                    "suspect": suspect,
                },
            )
            ids = [row[0] for row in cursor.fetchall()]
        return list(Delivery.objects.filter(pk__in=ids).order_by("pk")) if ids else []


def held(deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of those whose claim is still the caller's: neither ended and taken by another, nor cancelled."""
    claims = {delivery.pk: delivery.claim for delivery in deliveries}
    found = Delivery.objects.filter(pk__in=claims, state="queued").values_list("pk", "claim")
    return {pk for pk, mine in found if claims[pk] == mine}


RELEASE: Final = """
UPDATE notifications_delivery d
   SET claim = NULL, claimed_until = NULL, attempts = d.attempts - 1,
       due_at = coalesce(%(until)s, d.due_at), error = coalesce(%(error)s, d.error)
  FROM unnest(%(ids)s::bigint[], %(claims)s::uuid[]) AS mine (id, claim)
 WHERE d.id = mine.id AND d.claim = mine.claim AND d.state = 'queued'
"""
EXTEND: Final = """
UPDATE notifications_delivery d
   SET claimed_until = clock_timestamp() + make_interval(secs => %(lease)s)
  FROM unnest(%(ids)s::bigint[], %(claims)s::uuid[]) AS mine (id, claim)
 WHERE d.id = mine.id AND d.claim = mine.claim AND d.state = 'queued'
"""


def release(deliveries: Iterable[Delivery]) -> None:
    """Give back what was claimed and not begun: it is due as before, and no try was made."""
    _of_mine(RELEASE, deliveries, until=None, error=None)


def extend(deliveries: Iterable[Delivery]) -> None:
    """Keep what is claimed for another LEASE; a claim that somebody else took over is left alone."""
    _of_mine(EXTEND, deliveries, lease=LEASE.total_seconds())


def _of_mine(statement: str, deliveries: Iterable[Delivery], **values: Any) -> None:
    rows = list(deliveries)
    if rows:
        # In one order, as the others take them: two statements must not wait for each other.
        rows.sort(key=lambda delivery: delivery.pk)
        with connection.cursor() as cursor:
            cursor.execute(statement, {**values, **_keys(rows)})


def _keys(rows: Sequence[Delivery]) -> dict[str, list[Any]]:
    return {"ids": [delivery.pk for delivery in rows], "claims": [delivery.claim for delivery in rows]}


def sent_since(contact: int, since: datetime) -> list[datetime]:
    """Return when messages to the contact left, those that others carried along counted as one."""
    sent = Delivery.objects.filter(contact=contact, state="sent", carrier=None, finished_at__gt=since)
    return [at for at in sent.order_by("finished_at").values_list("finished_at", flat=True) if at is not None]


def hold(deliveries: Iterable[Delivery], *, until: datetime) -> None:
    """Give back what the contact's limit leaves no room for: it is due when there is room, and no try was made."""
    _of_mine(RELEASE, deliveries, until=until, error=HELD)


# A receipt may have overtaken this: what it says was lost is not sent.
SENT: Final = """
UPDATE notifications_delivery d
   SET state = CASE WHEN d.receipt = ANY(%(lost)s) THEN 'failed' ELSE 'sent' END,
       error = CASE WHEN d.receipt = ANY(%(lost)s) THEN d.receipt_text ELSE '' END,
       finished_at = %(now)s, claim = NULL, claimed_until = NULL,
       provider_id = told.provider_id, carrier_id = told.carrier
  FROM unnest(%(ids)s::bigint[], %(claims)s::uuid[], %(providers)s::text[], %(carriers)s::bigint[])
       AS told (id, claim, provider_id, carrier)
 WHERE d.id = told.id AND d.claim = told.claim AND d.state = 'queued'
"""
# What came back is mended by a receipt, or by other settings, not by having been handed over once more.
WORKS: Final = """
WITH before AS (
    SELECT id, problem, starts_with(problem, %(came_back)s) AS came_back FROM notifications_contact
     WHERE id = ANY(%(contacts)s)
       AND (problem <> '' OR last_ok_at IS NULL OR last_ok_at <= %(a_while_ago)s)
     ORDER BY id FOR UPDATE
)
UPDATE notifications_contact c
   SET problem = CASE WHEN before.came_back THEN c.problem ELSE '' END,
       problem_at = CASE WHEN before.came_back THEN c.problem_at END,
       last_ok_at = %(now)s
  FROM before WHERE c.id = before.id
RETURNING c.id, before.problem <> '' AND NOT before.came_back
"""
A_WHILE: Final = timedelta(minutes=1)


def finish(outcomes: Iterable[Outcome], *, now: datetime) -> int:
    """Write down what came of the tries, and on the contact whether it works. Returns how many claims had been lost."""
    found = list(outcomes)
    sent = [outcome for outcome in found if outcome.sent]
    failed = [outcome for outcome in found if not outcome.sent]
    with transaction.atomic():
        with connection.cursor() as cursor:
            # What was sent and is not written down yet is sent twice if its sender is killed: not a moment longer than
            # the server takes, without the disk. If PostgreSQL itself crashes, the last half second is sent again.
            cursor.execute("SET LOCAL synchronous_commit TO off")
        lost = _note_sent(sent, now) if sent else 0
        for outcome in failed:
            lost += not _note_failed(outcome, now)
    return lost


def _note_sent(outcomes: Sequence[Outcome], now: datetime) -> int:
    """One statement for all of them: under load this is what a message costs the database."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.delivery.pk)
    values: dict[str, Any] = {
        **_keys([outcome.delivery for outcome in ordered]),
        "providers": [storable(outcome.provider_id)[:300] for outcome in ordered],
        "carriers": [outcome.carrier for outcome in ordered],
        "now": now,
        "lost": sorted(LOST),
    }
    contacts = sorted({outcome.delivery.contact_id for outcome in ordered if outcome.delivery.contact_id is not None})
    with connection.cursor() as cursor:
        cursor.execute(SENT, values)
        lost: int = len(ordered) - cursor.rowcount
        cursor.execute(WORKS, {"contacts": contacts, "now": now, "a_while_ago": now - A_WHILE, "came_back": CAME_BACK})
        for contact, had_a_problem in cursor.fetchall():
            if had_a_problem:
                live.publish("contacts", contact)
    return lost


def _note_failed(outcome: Outcome, now: datetime) -> bool:
    # A receiver's words may hold a NUL, which must not undo the outcomes of a whole wave.
    delivery, error = outcome.delivery, storable(outcome.error)
    mine = Delivery.objects.filter(pk=delivery.pk, claim=delivery.claim, state="queued")
    if outcome.due_at is None:
        kept = mine.update(state="failed", finished_at=now, claim=None, claimed_until=None, error=error)
    else:
        kept = mine.update(due_at=outcome.due_at, claim=None, claimed_until=None, error=error)
    contact = Contact.objects.filter(pk=delivery.contact_id)
    if outcome.permanent or outcome.due_at is None or delivery.attempts >= TRIES_UNTIL_PROBLEM:
        if contact.filter(problem="").update(problem=error, problem_at=now):
            live.publish("contacts", delivery.contact_id)
        else:
            contact.exclude(problem=error).update(problem=error)
    return bool(kept)


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


def cancel_orphans(*, now: datetime) -> None:
    """Drop what waits for contacts that were deleted with their person: no sender would ever take it on."""
    Delivery.objects.filter(contact=None, state__in=("queued", "held")).update(
        state="cancelled", finished_at=now, claim=None, claimed_until=None, error="The contact was deleted."
    )
