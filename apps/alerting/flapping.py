"""Whether an alert comes and goes too often to be told each time, after Icinga's method. Pure.

Of the last 20 checks those that found a change count, from 0.8 for the oldest up to 1.15 for the newest; above 30 % of
20 it flaps, below 25 % it has ceased to (Icinga 2, checkable-flapping; its documentation, "Check Flapping"). A check is
an interval of the rule's group; so nothing is written for a check without a change, and a restart forgets nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

CHECKS: Final = 20
OLDEST: Final = 0.8
NEWEST: Final = 1.15
BEGINS: Final = 0.30
CEASES: Final = 0.25


def share(changes: Sequence[datetime], *, now: datetime, interval: timedelta) -> float:
    """Return the weighted share of the last checks that found a change, 0 to about 0.98.

    `changes` ascend; one of the future (a clock that was set back) counts as of now.
    """
    if not interval:
        return 0.0
    total = 0.0
    for at in changes:
        age = max(0, round((now - at) / interval))
        if age < CHECKS:
            total += NEWEST - (NEWEST - OLDEST) * age / (CHECKS - 1)
    return total / CHECKS


def judge(changes: Sequence[datetime], *, now: datetime, interval: timedelta, flaps: bool) -> bool:
    """Return whether it flaps now, given whether it did: between the two marks nothing changes."""
    if len(changes) < CHECKS * CEASES / NEWEST:
        return False
    found = share(changes, now=now, interval=interval)
    return found >= CEASES if flaps else found > BEGINS


def with_change(changes: Sequence[datetime], now: datetime, interval: timedelta) -> tuple[datetime, ...]:
    """Return the changes that still count, with one more."""
    return (*(at for at in changes if now - at < interval * CHECKS), now)[-CHECKS:]


def forgotten_at(now: datetime, interval: timedelta) -> datetime:
    """Return from when on a change of now counts no more."""
    return now + interval * CHECKS
