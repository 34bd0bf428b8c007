"""Messages that are kept true: told again to receivers that forget, rewritten where the channel can.

An Alertmanager ends an alert that nobody repeats. A renewal is a delivery like any other, in the contact's order, but
no news: it leaves no notice and no audit entry. One that has not left yet is not followed by another. Slack's bot
rewrites: who has taken it on stands in the message itself.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from django.conf import settings
from django.db import transaction

from apps.alerting.models import Alert
from apps.notifications import outbox
from apps.notifications.channels import channels
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import messages
from apps.oncall.book import in_order, listed_by, view_of
from apps.oncall.models import Notice, NotificationGroup

log = logging.getLogger(__name__)


PURPOSE = "renewal"


def renew(*, now: datetime) -> int:
    """Write the renewals that are due; return how many. The loop that calls it is what makes them due."""
    kinds = [kind for kind, channel in channels.all().items() if channel.renewed_after is not None]
    return sum(_renew(contact, now) for contact in Contact.objects.enabled().filter(kind__in=kinds))


def _renew(contact: Contact, now: datetime) -> int:
    if Delivery.objects.queued().filter(contact=contact, purpose=PURPOSE).exists():
        return 0
    told = Notice.objects.filter(contact=contact, kind="firing", alert__state__in=("firing", "recovering"))
    told = told.exclude(delivery__state="held")
    alerts = (
        Alert.objects.filter(pk__in=told.values("alert"))
        .select_related("rule")
        .prefetch_related("rule__levels")
        .order_by("pk")
    )
    most = contact.channel.listed
    rows, written = list(alerts), 0
    for begin in range(0, len(rows), most):
        outbox.enqueue(contact=contact, message=_message(rows[begin : begin + most], most), purpose=PURPOSE, now=now)
        written += 1
    return written


def _message(alerts: Sequence[Alert], most: int) -> Message:
    occasion = messages.Occasion("", {}, "still firing", settings.PORTAL_URL)
    return messages.build([], [view_of(alert) for alert in alerts], [], occasion, most=most)


def rewrite(alerts: Sequence[int], *, reason: str = "", now: datetime) -> None:
    """Have messages about these alerts say how things stand, at contacts whose channel rewrites them.

    No news, so no notice and no entry. It never raises: whom it serves has more to do.
    """
    if not alerts:
        return
    try:
        with transaction.atomic():
            _rewrite(alerts, reason, now)
    except Exception:
        log.exception("Messages about the alerts %s could not be rewritten.", alerts[:10])


def _rewrite(alerts: Sequence[int], reason: str, now: datetime) -> None:
    kinds = [kind for kind, channel in channels.all().items() if channel.rewrites]
    told = Notice.objects.filter(alert__in=alerts, kind="firing", contact__kind__in=kinds, contact__enabled=True)
    places = list(told.order_by().values_list("contact", "group").distinct())
    for contact_pk, group_pk in places:
        mine = Notice.objects.filter(contact=contact_pk, group=group_pk, kind="firing").values("alert")
        firing = Alert.objects.active().filter(pk__in=mine).select_related("rule").prefetch_related("rule__levels")
        contact, group = Contact.objects.get(pk=contact_pk), NotificationGroup.objects.filter(pk=group_pk).first()
        views = [view_of(alert) for alert in in_order(firing).values()]
        if not views or group is None:
            continue
        owners = ", ".join(sorted({view.acknowledged_by for view in views} - {""}))
        why = reason or (f"acknowledged by {owners}" if owners else "nobody has taken it on")
        occasion = messages.Occasion(group.key, group.labels, why[:200], settings.PORTAL_URL)
        message = replace(messages.build([], views, [], occasion, most=listed_by(contact)), status="update")
        waiting = Delivery.objects.queued().filter(contact=contact, group_key=group.key, purpose="update", claim=None)
        if not waiting.update(message=message.to_json()):
            outbox.enqueue(contact=contact, message=message, purpose="update", now=now)
