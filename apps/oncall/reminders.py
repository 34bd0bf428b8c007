"""Silences that end soon: their authors are told."""

from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings

from apps.alerting.models import Silence
from apps.notifications import outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact
from apps.oncall.loops import BATCH, each, enter_in_audit

PAGING: Final = ("pagerduty", "opsgenie")


def remind(*, now: datetime, limit: int = BATCH) -> int:
    """Tell the authors of silences that will end soon, by their own contacts; return how many silences that were.

    A kind of contact that opens an incident for whatever it is sent (PAGING) is left out: this is no alert.
    """
    due = Silence.objects.current(now).filter(remind_at__lte=now, reminded_at__isnull=True).order_by("remind_at", "pk")
    return each(list(due.values_list("pk", flat=True)[:limit]), lambda pk: _remind(pk, now), "Silence")


def _remind(pk: UUID, now: datetime) -> None:
    silence = Silence.objects.select_for_update().filter(pk=pk, reminded_at__isnull=True).first()
    if silence is None:
        return
    if silence.author_id is not None:
        for contact in Contact.objects.enabled().filter(owner=silence.author_id).exclude(kind__in=PAGING):
            message = Message(
                title=f"Your silence ends at {silence.ends_at:%H:%M} UTC: {silence.spelled}"[:300],
                body=f"{silence.comment}\nWhat it mutes and still goes on is told then. Make it longer, or let it end.",
                status="reminder",
                url=f"{settings.PORTAL_URL}/monitoring/quiet/{silence.pk}/",
                group_key=f"silence:{silence.pk}",
                reason="a silence ends soon",
            )
            delivery = outbox.enqueue(contact=contact, message=message, purpose="reminder", now=now)
            enter_in_audit("oncall.notify", delivery, {"contact": contact.name, "purpose": "reminder"})
    Silence.objects.filter(pk=pk).update(reminded_at=now)
