"""What has outlived its policy goes: few rows a statement, with an entry in the audit trail that proves what went.

A block goes when its newest sample is older than its policy keeps. A series of which nothing is left is marked, and
its row goes a day later if it has not spoken again (the protocol stands in `registry`).
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from apps.accounts import audit
from apps.accounts.permissions import Principal
from apps.metrics import storage
from apps.metrics.models import RetentionPolicy

BY: Final = Principal.system("metrics.retain")
ROWS: Final = 500
"""Rows a statement deletes at most: short transactions, and vacuum keeps up."""
SERIES: Final = 5_000
GRACE: Final = timedelta(hours=24)
MARGIN: Final = timedelta(hours=3)
"""`last_at` may lag by half an hour and a block outlives its policy by up to a window.

The longest policy decides: blocks keep the policy under which they were written when a metric moves to another."""

_EXPIRE: Final = """
DELETE FROM metrics_block WHERE id IN (
    SELECT id FROM metrics_block
     WHERE retention_id = %s AND resolution = 0 AND t_max < %s AND "window" < %s
     ORDER BY "window" LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING "window", samples, crc, t_min, t_max
"""
_MARK: Final = """
UPDATE metrics_series SET gone_at = %(now)s WHERE id IN (
    SELECT id FROM metrics_series
     WHERE gone_at IS NULL
       AND coalesce(last_at, created_at) < %(now)s - (SELECT max(raw) FROM metrics_retentionpolicy) - %(margin)s
     ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""
_REMOVE: Final = """
DELETE FROM metrics_series WHERE id IN (
    SELECT id FROM metrics_series WHERE gone_at < %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
"""


def expire(*, policy: RetentionPolicy, now: datetime) -> int:
    """Delete blocks that have outlived the policy; return how many. Each statement has its proof in the audit trail."""
    cutoff = int((now - policy.raw).timestamp() * 1000)
    total = 0
    while True:
        with transaction.atomic(), storage.cursor() as cur:
            cur.execute(_EXPIRE, [policy.pk, cutoff, cutoff, ROWS])
            gone = cur.fetchall()
            if gone:
                _prove(policy, cutoff, gone)
        total += len(gone)
        if len(gone) < ROWS:
            return total


def _prove(policy: RetentionPolicy, cutoff: int, gone: list[tuple[Any, ...]]) -> None:
    """One entry: which windows lost how many blocks and samples, with the sum of their checksums."""
    windows: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for window, samples, crc, _, _ in gone:
        counts = windows[window]
        counts[0] += 1
        counts[1] += samples
        counts[2] = (counts[2] + crc) % 2**64
    audit.record(
        by=BY,
        verb="metrics.expire",
        target=policy,
        after={
            "keeps": policy.raw,
            "older_than_ms": cutoff,
            "blocks": len(gone),
            "samples": sum(row[1] for row in gone),
            "from_ms": min(row[3] for row in gone),
            "to_ms": max(row[4] for row in gone),
            "windows": {str(window): counts for window, counts in sorted(windows.items())},
        },
    )


def mark_gone(*, now: datetime) -> int:
    """Mark series of which no sample can be left; return how many."""
    with storage.cursor() as cur:
        cur.execute(_MARK, {"now": now, "margin": MARGIN, "limit": SERIES})
        return cur.rowcount


def remove_gone(*, now: datetime) -> int:
    """Remove series that were marked a day ago and have not spoken since; return how many, with an entry."""
    with transaction.atomic(), storage.cursor() as cur:
        cur.execute(_REMOVE, [now - GRACE, SERIES])
        removed = cur.rowcount
        if removed:
            audit.record(
                by=BY,
                verb="metrics.remove_series",
                target=("metrics.series", "", "series without samples"),
                after={"series": removed},
            )
    return removed
