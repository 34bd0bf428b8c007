"""The clock of alerting: evaluates what is due, ends what has expired."""

from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from apps.alerting import adaptive, evaluation, services
from apps.core.models import Loop
from apps.core.tasks import loop, wake_at
from apps.metrics.services import ARRIVED

AWAY: Final = timedelta(minutes=1)
"""A pause of this length between two runs means that the portal was away, and nobody could repeat an alert to it."""


@loop("alerting.evaluate", every=1.0, queue="fast", lease=30.0, fallback=True)
def evaluate(*, now: datetime) -> None:
    """Evaluate the rule groups whose tick has come."""
    evaluation.evaluate(now=now)
    # The clock ticks at any moment of a second; a group that is due before its next tick is not kept waiting for that.
    if (due := evaluation.next_due(timezone.now())) is not None:
        wake_at("alerting.evaluate", due, now=timezone.now())


@loop("alerting.arrive", every=60.0, queue="fast", lease=30.0, on=ARRIVED, gate=evaluation.is_awaited)
def arrive(*, now: datetime) -> None:
    """Evaluate the groups that do not wait for their tick: samples have come."""
    evaluation.arrive(now=now)


@loop("alerting.forget_changes", every=3600.0, queue="slow", lease=60.0)
def forget_changes(*, now: datetime) -> None:
    """Delete changes of long ago."""
    services.forget_changes(by=evaluation.BY, now=now)


@loop("alerting.learn", every=30.0, queue="slow", lease=300.0)
def learn(*, now: datetime) -> None:
    """Teach adaptive bands the hours that have passed."""
    adaptive.learn(now=now)


@loop("alerting.expire", every=5.0, queue="fast", lease=30.0)
def expire(*, now: datetime) -> None:
    """End alerts from outside whose time is over, those whose rule is gone, and silences that waited for an end."""
    last = Loop.objects.filter(name="alerting.expire").values_list("finished_at", flat=True).first()
    if last is not None and now - last > AWAY:
        services.shift_ends(gap=now - last, now=now)
    services.expire(by=evaluation.BY, now=now)
    services.end_resolved_silences(by=evaluation.BY, now=now)
