"""The clock of the outbox."""

import threading
import time
from datetime import datetime
from typing import Final

from celery.worker import state as worker_state
from django.db.models import Count, Min
from django.utils import timezone

from apps.core.tasks import loop
from apps.core.telemetry import Gauge
from apps.notifications.models import Delivery
from apps.notifications.sending import drain, nudge

DEPTH = Gauge("portal_delivery_queue_depth", "Messages that wait to be delivered.")
AGE = Gauge("portal_delivery_queue_age_seconds", "How long the oldest message that is due has been due.")
MEASURED_EVERY = 10.0
AT_ONCE: Final = 2
"""Drains that one process runs side by side; the worker's other threads are for the loops that judge and escalate."""
_free = threading.BoundedSemaphore(AT_ONCE)
_measured = 0.0


@loop("notifications.deliver", every=1.0, queue="send", lease=None, fallback=True)
def deliver(*, now: datetime) -> None:
    """Send what is due. A drain that is under way is told that there is more: it goes on as long as there is."""
    nudge()
    if _free.acquire(blocking=False):
        try:
            drain(clock=timezone.now, stopping=lambda: worker_state.should_stop is not None)
        finally:
            _free.release()
    _measure(now)


def _measure(now: datetime) -> None:
    global _measured
    if time.monotonic() < _measured + MEASURED_EVERY:
        return
    _measured = time.monotonic()
    queue = Delivery.objects.queued().filter(due_at__lte=now).aggregate(depth=Count("pk"), oldest=Min("due_at"))
    DEPTH.set(queue["depth"])
    AGE.set((now - queue["oldest"]).total_seconds() if queue["oldest"] else 0.0)
