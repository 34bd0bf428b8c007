"""Receivers that forget: what a contact was told to be wrong is told again while it is, if its channel needs that.

An Alertmanager ends an alert that nobody repeats. A renewal is a delivery like any other, in the contact's order, but
no news: it leaves no notice and no audit entry. One that has not left yet is not followed by another.
"""

from collections.abc import Sequence
from datetime import datetime

from django.conf import settings

from apps.alerting.models import Alert
from apps.notifications import outbox
from apps.notifications.channels import channels
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import messages
from apps.oncall.models import Notice
from apps.oncall.telling import view_of

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
