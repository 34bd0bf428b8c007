"""What on-call should have done long ago and has not: it is looked for by a loop of another queue, and said aloud.

`tell`, `flush` and `escalate` can stand still: their worker hangs, or a row cannot be worked on.
Nobody is paged then, and nothing else would show it. So the fall-back contact is told directly: not by the
outbox's queue, whose worker may be what stands still. Health says so, too, and a series.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings

from apps.alerting.models import Transition
from apps.core.telemetry import Gauge
from apps.notifications import sending
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall.loops import enter_in_audit
from apps.oncall.models import Escalation, NotificationGroup

log = logging.getLogger(__name__)

LATE: Final = timedelta(minutes=2)
"""The loops run each second: what is due for so long is not being worked on."""
AGAIN: Final = timedelta(hours=1)
"""As long as it goes on it is said anew after this."""
KEY: Final = "oncall:overdue"
NAMED: Final = 5
OVERDUE: Final = Gauge("portal_oncall_overdue", "What on-call should have done minutes ago and has not.", ("what",))


@dataclass(frozen=True, slots=True)
class Overdue:
    """How much of what stands still, and the incidents of some of the escalations."""

    escalations: int = 0
    groups: int = 0
    transitions: int = 0
    held: int = 0
    incidents: tuple[int, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether anything stands still."""
        return bool(self.escalations or self.groups or self.transitions or self.held)

    @property
    def sentence(self) -> str:
        """Return what stands still, in words."""
        counts = (
            (self.escalations, "escalations"),
            (self.groups, "groups"),
            (self.transitions, "changes of alerts"),
            (self.held, "messages that were held back"),
        )
        parts = [f"{count} {what}" for count, what in counts if count]
        return (
            f"On-call stands still: {', '.join(parts)} due for more than {LATE.seconds // 60} minutes; nobody is told."
        )


def find(*, now: datetime) -> Overdue:
    """Return what stands still."""
    late = Escalation.objects.running().filter(due_at__lte=now - LATE)
    return Overdue(
        escalations=late.count(),
        groups=NotificationGroup.objects.due(now - LATE).count(),
        transitions=Transition.objects.untold().filter(at__lte=now - LATE).count(),
        held=Delivery.objects.held().filter(due_at__lte=now - LATE).count(),
        incidents=tuple(late.order_by("started_at", "pk").values_list("incident", flat=True)[:NAMED]),
    )


def look(*, now: datetime) -> Overdue:
    """Say it to the fall-back contact if anything stands still, again each hour, and once when it is over."""
    found = find(now=now)
    for what in ("escalations", "groups", "transitions", "held"):
        OVERDUE.set(getattr(found, what), what=what)
    last = Delivery.objects.filter(group_key=KEY).order_by("-id").first()
    was_said = last is not None and last.purpose == "firing"
    if found.is_any:
        log.error("%s", found.sentence)
        if last is None or not was_said or last.created_at <= now - AGAIN:
            _say(found, now)
    elif was_said:
        _say(found, now)
    return found


def _say(found: Overdue, now: datetime) -> None:
    message = Message(
        title=found.sentence if found.is_any else "On-call goes on: nothing stands still any more",
        body="\n".join(f"{settings.PORTAL_URL}/monitoring/incidents/{pk}/" for pk in found.incidents)
        or "The portal's system page and var/log/fast.log say more.",
        severity="critical",
        status="firing" if found.is_any else "resolved",
        url=f"{settings.PORTAL_URL}/monitoring/system/",
        group_key=KEY,
        reason="what is due is not done" if found.is_any else "what was due is done",
    )
    contacts = list(Contact.objects.enabled().filter(is_fallback=True))
    if not contacts:
        log.error("Nobody can be told of that: there is no fall-back contact.")
    for contact in contacts:
        delivery = sending.send_directly(contact=contact, message=message, purpose=message.status, now=now)
        told = {"contact": contact.name, "purpose": delivery.purpose, "reason": message.reason}
        enter_in_audit("oncall.notify", delivery, told)
