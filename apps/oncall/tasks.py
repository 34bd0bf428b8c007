"""The clocks of on-call."""

from contextlib import ExitStack
from datetime import datetime

from apps.core.tasks import loop
from apps.oncall import (
    calendars,
    coverage,
    escalating,
    loops,
    overdue,
    releasing,
    reminders,
    renewal,
    replies,
    settling,
    telling,
)


@loop("oncall.tell", every=1.0, queue="fast", lease=30.0, fallback=True)
def tell(*, now: datetime) -> None:
    """Do what people replied and take up what alerting found.

    After each batch the groups that are due are told: no message waits for a storm.
    """
    replies.take(now=now)
    taken = loops.BATCH
    while taken == loops.BATCH:
        try:
            taken = telling.tell(now=now, limit=loops.BATCH)
        finally:
            telling.flush(now=now)


@loop("oncall.escalate", every=1.0, queue="fast", lease=30.0, fallback=True)
def escalate(*, now: datetime) -> None:
    """Tell groups whose time has come, take the steps that are due, and see what did not arrive."""
    pieces = (
        telling.flush, escalating.escalate, releasing.release, settling.settle, escalating.resume, reminders.remind
    )  # fmt: skip
    with ExitStack() as stack:  # each has its turn, whatever became of those before
        for work in reversed(pieces):
            stack.callback(work, now=now)


@loop("oncall.renew", every=60.0, queue="fast", lease=30.0)
def renew(*, now: datetime) -> None:
    """Tell receivers that forget again what fires."""
    renewal.renew(now=now)


@loop("oncall.overdue", every=30.0, queue="slow", lease=60.0, fallback=True)
def look_for_overdue(*, now: datetime) -> None:
    """See whether the loops above do what is due; on another queue than theirs, and in the beat without workers."""
    overdue.look(now=now)


@loop("oncall.calendars", every=60.0, queue="slow", lease=300.0)
def fetch_calendars(*, now: datetime) -> None:
    """Fetch and read the calendars that name who is on call."""
    calendars.fetch(now=now)


@loop("oncall.coverage", every=300.0, queue="slow", lease=120.0)
def look_ahead(*, now: datetime) -> None:
    """See whether somebody is on call and can be told in the days to come, and say where not."""
    coverage.look(now=now)
