"""What has outlived its policy goes: few rows a statement, with an entry in the audit trail that proves what went.

A block goes when its newest sample is older than its policy keeps; raw samples stay until their roll-ups stand. A
series of which nothing is left is marked, and its row goes a day later if it has not spoken again (the protocol stands
in `registry`).
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Coalesce, Greatest

from apps.accounts import audit
from apps.accounts.permissions import Principal
from apps.metrics import storage
from apps.metrics.models import EventReceipt, RetentionPolicy
from apps.metrics.rollups import RESOLUTIONS

BY: Final = Principal.system("metrics.retain")
ROWS: Final = 500
"""Rows a statement deletes at most: short transactions, and vacuum keeps up."""
SERIES: Final = 5_000
GRACE: Final = timedelta(hours=24)
COARSEST_MS: Final = RESOLUTIONS[-1] * 1000
MARGIN: Final = timedelta(hours=3)
"""`last_at` may lag by half an hour and a block outlives its policy by up to a window.

The longest policy decides: blocks keep the policy under which they were written when a metric moves to another."""

RECEIPTS_KEPT: Final = timedelta(days=7)
"""How long an event may be sent again with its id and still count once."""
FRESH: Final = timedelta(hours=1)
"""What an import has just written stays this long, so that its windows are rolled up as a whole."""

# Raw samples go up to the first window of which no up-to-date roll-up stands.
_NOT_ROLLED: Final = """
SELECT min(b."window") FROM metrics_block b
  LEFT JOIN metrics_rolledwindow r ON r."window" = b."window" AND r.round >= b.round
 WHERE b.retention_id = %s AND b.resolution = 0 AND b.bad_at IS NULL AND r."window" IS NULL AND b.t_max < %s
"""
# ARRAY(…) is evaluated once; IN (… LIMIT … SKIP LOCKED) may be once for each row, and so go beyond the limit.
_EXPIRE: Final = """
DELETE FROM metrics_block WHERE id = ANY(ARRAY(
    SELECT id FROM metrics_block
     WHERE retention_id = %s AND resolution = %s AND t_max < %s AND "window" < %s AND created_at <= %s
     ORDER BY "window" LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING "window", samples, crc, t_min, t_max
"""
_MARK: Final = """
UPDATE metrics_series SET gone_at = %(now)s WHERE id = ANY(ARRAY(
    SELECT id FROM metrics_series
     WHERE gone_at IS NULL
       AND coalesce(last_at, created_at) < %(now)s - %(margin)s
           - (SELECT max(greatest(raw, rollup_5m, rollup_1h)) FROM metrics_retentionpolicy)
     ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""
_REMOVE: Final = """
DELETE FROM metrics_series WHERE id = ANY(ARRAY(
    SELECT id FROM metrics_series WHERE gone_at < %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
"""


def expire(*, policy: RetentionPolicy, now: datetime) -> int:
    """Delete blocks that have outlived the policy; return how many. Each statement has its proof in the audit trail.

    From when on there are raw samples and 5-minute roll-ups is written down with the policy: before that, reads are
    answered by what is coarser.
    """
    kept = {0: policy.raw, 300: policy.rollup_5m, 3600: policy.rollup_1h}
    total = 0
    for resolution, period in kept.items():
        cutoff, written = _ms(now - (period or timedelta(0))), now
        if resolution == 0 and (policy.rollup_5m or policy.rollup_1h):
            cutoff, written = _rolled_until(policy, cutoff), now - FRESH
        total += _expire(policy, resolution, cutoff, written)
    return total


def _rolled_until(policy: RetentionPolicy, cutoff: int) -> int:
    with storage.cursor() as cur:
        cur.execute(_NOT_ROLLED, [policy.pk, cutoff])
        (window,) = cur.fetchone() or (None,)
    return cutoff if window is None else min(cutoff, int(window))


def _expire(policy: RetentionPolicy, resolution: int, cutoff: int, written: datetime) -> int:
    """Delete what ends before `cutoff` (ms) and was written by then."""
    total = 0
    while True:
        with transaction.atomic(), storage.cursor() as cur:
            cur.execute(_EXPIRE, [policy.pk, resolution, cutoff, cutoff, written, ROWS])
            gone = cur.fetchall()
            if gone:
                _prove(policy, resolution, cutoff, gone)
                _note(policy, resolution, cutoff)
        total += len(gone)
        if len(gone) < ROWS:
            return total


def _note(policy: RetentionPolicy, resolution: int, cutoff: int) -> None:
    """Write down, before anything of it is missed, up to where the policy's samples or finest buckets have gone."""
    name = {0: "raw_from", 300: "rollup_5m_from"}.get(resolution)
    if name is None:
        return
    until = -(-cutoff // COARSEST_MS) * COARSEST_MS
    column = Greatest(Coalesce(name, Value(0)), Value(until))
    RetentionPolicy.objects.filter(pk=policy.pk).update(**{name: column})


def _prove(policy: RetentionPolicy, resolution: int, cutoff: int, gone: list[tuple[Any, ...]]) -> None:
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
            "keeps": {0: policy.raw, 300: policy.rollup_5m, 3600: policy.rollup_1h}[resolution],
            "resolution": resolution,
            "older_than_ms": cutoff,
            "blocks": len(gone),
            "samples": sum(row[1] for row in gone),
            "from_ms": min(row[3] for row in gone),
            "to_ms": max(row[4] for row in gone),
            "windows": {str(window): counts for window, counts in sorted(windows.items())},
        },
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


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


def drop_receipts(*, now: datetime) -> int:
    """Forget the ids of events that nobody will send again; return how many."""
    return EventReceipt.objects.filter(at__lt=now - RECEIPTS_KEPT).delete()[0]
