"""The clock of alerting: evaluates what is due, ends what has expired."""

from datetime import datetime

from apps.alerting import adaptive, evaluation, services
from apps.core.tasks import loop


@loop("alerting.evaluate", every=1.0, queue="fast", lease=30.0, fallback=True)
def evaluate(*, now: datetime) -> None:
    """Evaluate the rule groups whose tick has come."""
    evaluation.evaluate(now=now)


@loop("alerting.learn", every=30.0, queue="slow", lease=300.0)
def learn(*, now: datetime) -> None:
    """Teach adaptive bands the hours that have passed."""
    adaptive.learn(now=now)


@loop("alerting.expire", every=5.0, queue="fast", lease=30.0)
def expire(*, now: datetime) -> None:
    """End alerts from outside whose time is over, those whose rule is gone, and silences that waited for an end."""
    services.expire(by=evaluation.BY, now=now)
    services.end_resolved_silences(by=evaluation.BY, now=now)
