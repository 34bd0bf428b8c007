"""What was held back is looked at when its time has come: it leaves, is told in one digest, waits on, or is dropped.

One transaction for each contact, under on-call's lock. `digest` decides; here the rows are read and written. What is
dropped says why, and its notices are settled: nobody has to be told in its place.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Prefetch

from apps.alerting.models import Alert
from apps.core import live
from apps.notifications import holding, outbox
from apps.notifications.holding import HOURS, ORDER, Hold
from apps.notifications.models import Contact, Delivery
from apps.oncall import book, loops, messages
from apps.oncall.book import Book, Quiet
from apps.oncall.digest import Fates, Held, Waiting, compose, fates
from apps.oncall.grouping import Decision
from apps.oncall.models import Notice

AGAIN: Final = timedelta(minutes=1)
"""How soon what is muted is looked at again."""


def release(*, now: datetime, limit: int = loops.BATCH) -> int:
    """Look at what is held back and due, contact by contact; return how many contacts that were."""
    due = Delivery.objects.held().filter(due_at__lte=now, contact__isnull=False)
    contacts = list(due.order_by("contact").values_list("contact", flat=True).distinct()[:limit])
    muting = Quiet(now)
    return loops.each(contacts, lambda pk: _release(pk, muting, now), "What is held back for contact")


class _Desk:
    """What is held back for one contact and due, with the alerts that it is about."""

    def __init__(self, contact: Contact, muting: Quiet, now: datetime) -> None:
        self.contact, self.now = contact, now
        about = Notice.objects.select_related("alert").order_by("pk")
        held = Delivery.objects.held().filter(contact=contact, due_at__lte=now).order_by("pk")
        self.deliveries = {row.pk: row for row in held.prefetch_related(Prefetch("notices", about))}
        self.notices = {pk: list(row.notices.all()) for pk, row in self.deliveries.items()}
        idents = {notice.alert_id for each in self.notices.values() for notice in each}
        found = Alert.objects.filter(pk__in=idents).select_related("rule").prefetch_related("rule__levels")
        self.book = Book(None, book.in_order(found), muting, now)

    def waiting(self, notice: Notice) -> Waiting:
        """Return how things stand with what one notice is about."""
        alert, verdict = self.book.alerts[notice.alert_id], self.book.verdicts[notice.alert_id]
        told = [
            other
            for other in self.book.notices
            if (other.alert_id, other.contact_id, other.kind) == (alert.pk, self.contact.pk, "firing")
            and (other.delivery is None or other.delivery.state in ("sent", "queued"))
            and book.rank(other.severity) >= book.rank(notice.severity)
            and other.pk > notice.pk
        ]
        return Waiting(
            alert=alert.pk,
            is_active=alert.is_active,
            is_end=notice.kind == "resolved",
            acknowledged_by=alert.acknowledged_by if alert.acknowledged_at is not None else "",
            muted=verdict.reason if verdict.is_muted else "",
            is_told=bool(told),
        )

    def held(self) -> list[Held]:
        """Return every delivery with what it is about."""
        return [
            Held(pk, row.held_for, tuple(self.waiting(notice) for notice in self.notices[pk]))
            for pk, row in self.deliveries.items()
        ]


def _release(pk: int, muting: Quiet, now: datetime) -> None:
    contact = Contact.objects.select_related("calendar").filter(pk=pk).first()
    if contact is None:
        return
    desk = _Desk(contact, muting, now)
    rules = contact.rules()
    ready = []
    for one in desk.held():
        if (hold := _still_held(one, desk, rules, now)) is not None:
            outbox.keep(desk.deliveries[one.delivery], hold)
        else:
            ready.append(one)
    bundles = contact.channel.bundles
    verdict = fates(ready, bundles=bundles)
    zone = rules[0].hours.zone if rules else ZoneInfo("UTC")
    for ident in verdict.leave:
        _let_go(desk, ident, now, zone)
    for ident in verdict.wait:
        row = desk.deliveries[ident]
        outbox.keep(row, Hold(row.held_for, _unmuted_at(desk, ident, now), row.error))
    for ident, reason in verdict.drop.items():
        _drop(desk.deliveries[ident], reason, now)
    if verdict.digest:
        _digest(desk, verdict, now, zone)
    live.publish("alerts")
    live.publish("incidents")


def _still_held(one: Held, desk: _Desk, rules: Sequence[holding.Rule], now: datetime) -> Hold | None:
    """Return what holds back now what is news in the delivery: the hours may have changed, or begun meanwhile."""
    news = [each.alert for each in one.about if each.is_news or each.is_end]
    if not news:
        return None
    severity = max((desk.book.alerts[alert].severity for alert in news), key=book.rank)
    return holding.hold(rules, severity, now)


def _unmuted_at(desk: _Desk, ident: int, now: datetime) -> datetime:
    ends = [desk.book.verdicts[notice.alert_id].until for notice in desk.notices[ident]]
    return max(now + AGAIN, min((end for end in ends if end is not None), default=now))


def _let_go(desk: _Desk, ident: int, now: datetime, zone: ZoneInfo) -> None:
    """Have one delivery leave, with what is still so of what it said."""
    row, about = desk.deliveries[ident], {notice.alert_id: notice for notice in desk.notices[ident]}
    standing = {pk: desk.waiting(notice) for pk, notice in about.items()}
    firing = tuple(pk for pk in desk.book.alerts if pk in about and standing[pk].is_news)
    ended = tuple(pk for pk in desk.book.alerts if pk in about and standing[pk].is_end)
    still = tuple(pk for pk in desk.book.alerts if pk in about and standing[pk].is_active and pk not in firing + ended)
    first = desk.notices[ident][0]
    since = f"{row.created_at.astimezone(zone):%a %H:%M} ({zone.key})"
    reason = first.reason if row.held_for == ORDER else f"{first.reason}, held back since {since}"
    group = first.group
    decision = Decision(firing, still, ended, reason)
    message = replace(
        desk.book.message(desk.contact, decision),
        group_key=str(row.group_key),
        group_labels=group.labels if group is not None else {},
    )
    outbox.let_go(row, message, now=now)
    Notice.objects.filter(delivery=row).update(at=now, reason=reason[:200])
    Notice.objects.filter(delivery=row, kind="firing").update(settled_at=None)
    _tell_audit(row, desk.contact, reason, now)


def _drop(row: Delivery, reason: str, now: datetime) -> None:
    outbox.drop(row, reason=reason, now=now)
    Notice.objects.filter(delivery=row, settled_at=None).update(settled_at=now)


def _digest(desk: _Desk, verdict: Fates, now: datetime, zone: ZoneInfo) -> None:
    """Make the first delivery tell what all of them would have; the others are dropped, and say which one told it."""
    rows = [desk.deliveries[ident] for ident in verdict.digest]
    first = rows[0]
    notices = [notice for row in rows for notice in desk.notices[row.pk]]
    standing: Mapping[int, list[Waiting]] = _by_alert(desk, notices)
    still = [pk for pk in desk.book.alerts if pk in standing and desk.book.alerts[pk].is_active]
    gone = [pk for pk in desk.book.alerts if pk in standing and not desk.book.alerts[pk].is_active]
    groups = {row.group_key for row in rows}
    one_group = notices[0].group if len(groups) == 1 else None
    why = first.held_for if all(row.held_for == first.held_for for row in rows) else HOURS
    reason = f"digest of what was held back: {holding.WORDS.get(why, why)}"
    occasion = messages.Occasion(
        first.group_key if len(groups) == 1 else "",
        one_group.labels if one_group is not None else {},
        reason,
        settings.PORTAL_URL,
    )
    view = {pk: book.view_of(alert) for pk, alert in desk.book.alerts.items()}
    message = compose(
        [view[pk] for pk in still],
        [view[pk] for pk in gone],
        occasion,
        since=min(row.created_at for row in rows),
        zone=zone,
        most=book.listed_by(desk.contact),
    )
    outbox.let_go(first, message, now=now)
    for row in rows[1:]:
        outbox.drop(row, reason=f"Told in the digest of {now.astimezone(UTC):%H:%M} UTC.", now=now, carrier=first)
    Notice.objects.filter(pk__in=[notice.pk for notice in notices]).update(
        delivery=first, at=now, reason=reason, settled_at=None
    )
    told_end = {notice.alert_id for notice in notices if notice.kind == "resolved"}
    last = {notice.alert_id: notice for notice in notices if notice.kind == "firing"}
    # The contact heard of the end with the beginning.
    ends = [
        last[pk].repeated(contact=desk.contact, delivery=first, kind="resolved", reason=reason, at=now, settled_at=now)
        for pk in gone
        if pk in last and pk not in told_end
    ]
    Notice.objects.bulk_create(ends, ignore_conflicts=True)
    _tell_audit(first, desk.contact, reason, now)


def _by_alert(desk: _Desk, notices: Sequence[Notice]) -> dict[int, list[Waiting]]:
    found: dict[int, list[Waiting]] = defaultdict(list)
    for notice in notices:
        found[notice.alert_id].append(desk.waiting(notice))
    return found


def _tell_audit(row: Delivery, contact: Contact, reason: str, now: datetime) -> None:
    told = {"contact": contact.name, "purpose": row.purpose, "reason": reason, "released": now}
    loops.enter_in_audit("oncall.notify", row, told)
