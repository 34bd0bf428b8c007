"""The fail-over contact: told, in place of one that could not be, the very same message.

It comes before the fall-back contact, which is told once nobody is left to stand in. What the stand-in makes of it is
looked at like any other notice, so stand-ins may have stand-ins.
"""

from datetime import datetime

from django.db.models import Q

from apps.notifications import holding, outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall.loops import enter_in_audit
from apps.oncall.models import Notice


def stand_in(notice: Notice, *, now: datetime) -> bool:
    """Have the fail-over contact told what the notice's could not be, with all that its message was about.

    False where nobody stands in, or it is not lost but held back. Everything of the message is settled with it.
    """
    delivery, contact = notice.delivery, notice.contact
    if delivery is None or contact is None or delivery.state == "held":
        return False
    other = _next(delivery, contact)
    if other is None:
        return False
    mine = list(Notice.objects.filter(delivery=delivery, settled_at=None).select_related("alert"))
    lacking = [each for each in mine if each.kind == "resolved" or _is_open(each)]
    if any(not _is_told(each, other) for each in lacking):
        _tell(delivery, contact, other, mine, now)
    Notice.objects.filter(pk__in=[each.pk for each in mine]).update(settled_at=now)
    return True


def _next(delivery: Delivery, contact: Contact) -> Contact | None:
    """Return who stands in: the first one that is on and has not been tried for this message."""
    tried = {contact.pk}
    before = delivery.stands_in_for
    while before is not None:
        tried.add(before.contact_id or 0)
        before = before.stands_in_for
    other = contact.failover
    while other is not None and other.pk not in tried:
        if other.enabled:
            return other
        tried.add(other.pk)
        other = other.failover
    return None


def _is_open(notice: Notice) -> bool:
    return notice.alert.is_active and notice.alert.acknowledged_at is None


def _is_told(notice: Notice, other: Contact) -> bool:
    told = Notice.objects.filter(alert=notice.alert_id, contact=other, kind=notice.kind, severity=notice.severity)
    return told.filter(Q(delivery__state__in=("sent", "queued"))).exists()


def _tell(delivery: Delivery, contact: Contact, other: Contact, notices: list[Notice], now: datetime) -> None:
    reason = f"in place of {contact.name}, which could not be told"
    message = Message.from_json({**delivery.message, "reason": reason})
    hold = holding.hold(other.rules(), message.severity, now)
    made = outbox.enqueue(contact=other, message=message, purpose=delivery.purpose, now=now, hold=hold)
    Delivery.objects.filter(pk=made.pk).update(stands_in_for=delivery)
    Notice.objects.bulk_create(
        [each.repeated(contact=other, delivery=made, kind=each.kind, reason=reason, at=now) for each in notices],
        ignore_conflicts=True,
    )
    told = {"contact": other.name, "purpose": delivery.purpose, "reason": reason}
    enter_in_audit("oncall.notify", made, told)
