"""The store's clock: compaction, roll-ups and retention, in the queue that never delays a page."""

from datetime import datetime, timedelta
from typing import Final

from apps.core.tasks import loop
from apps.metrics import burial, census, compaction, retention, rolling, services
from apps.metrics.models import DeltaTotals, RetentionPolicy

ROUNDS: Final = 20
"""Rounds in one tick at most, so that a backlog does not hold the lease for ever."""


@loop("metrics.compact", every=5.0, queue="slow", lease=300.0)
def compact(*, now: datetime) -> None:
    """Turn the young rows of the log into blocks while there are too many of them."""
    for _ in range(ROUNDS):
        if not compaction.young(now).due(now) or not compaction.compact_log(now=now):
            return


@loop("metrics.merge", every=60.0, queue="slow", lease=900.0)
def merge(*, now: datetime) -> None:
    """Merge the blocks of windows that are closed or have many rounds in them.

    Not while the disk is nearly full: a merge needs room twice, and its log, before it gives some back.
    """
    if services.disk_problem() is not None:
        return
    for due in compaction.due_windows(now):
        compaction.merge_window(due=due, now=now)


@loop("metrics.bury", every=60.0, queue="slow", lease=900.0)
def bury(*, now: datetime) -> None:
    """Take what was deleted on request out of the stored rows."""
    burial.bury(now=now)


@loop("metrics.census", every=60.0, queue="slow", lease=300.0)
def count_series(*, now: datetime) -> None:
    """Count the series by metric and by token."""
    census.take(now=now)


@loop("metrics.roll", every=300.0, queue="slow", lease=900.0)
def roll(*, now: datetime) -> None:
    """Make the roll-ups of windows that are closed."""
    for window in rolling.due_windows(now):
        rolling.roll_window(window=window, now=now)


@loop("metrics.retain", every=600.0, queue="slow", lease=600.0)
def retain(*, now: datetime) -> None:
    """Delete what has outlived its retention policy."""
    for policy in RetentionPolicy.objects.all():
        retention.expire(policy=policy, now=now)
    DeltaTotals.objects.filter(updated_at__lt=now - timedelta(days=2)).delete()
    retention.mark_gone(now=now)
    retention.remove_gone(now=now)
    retention.drop_receipts(now=now)
