"""Message templates as senders use them: read when there is something to send, with a note on one that failed."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q

from apps.core import live
from apps.core.telemetry import Counter
from apps.core.text import storable
from apps.notifications.models import MessageTemplate
from apps.notifications.wording import Wording

log = logging.getLogger(__name__)

NOTED_EVERY: Final = timedelta(minutes=1)
FAILED = Counter("portal_template_failures_total", "Messages whose template failed: the portal's own words were told.")


def in_use() -> tuple[Wording, ...]:
    """Return the enabled templates."""
    return tuple(template.wording for template in MessageTemplate.objects.filter(enabled=True))


def note_failure(pk: int, reason: str, *, now: datetime) -> None:
    """Show on the template why it could not be used; the row is written once a minute at most."""
    FAILED.inc()
    reason = storable(reason)[:1000] or "It failed."
    log.warning("Message template %s failed: %s The portal's own words were told.", pk, reason)
    row = MessageTemplate.objects.filter(pk=pk)
    if row.filter(Q(problem="") | ~Q(problem=reason) | Q(problem_at__lt=now - NOTED_EVERY)).update(
        problem=reason, problem_at=now
    ):
        live.publish("contacts")


def problems() -> Sequence[str]:
    """Return a sentence for each enabled template that failed since it was last saved."""
    failed = MessageTemplate.objects.filter(enabled=True).exclude(problem="")
    return [f"{name}: {problem}" for name, problem in failed.values_list("name", "problem")]
