"""Roll-ups are made of windows of raw samples that are closed, and made anew when something late came in.

1. A window is due once it and the one after it are closed (buckets are closed on the right, so the first instant of the
   next window belongs to the last bucket of this one), and some round of either is newer than what its roll-ups were
   made from; at most every half hour.
2. Its samples and that one instant are read in one statement, rolled up some series at a time, and written as blocks
   of level 0 with this transaction's round: of equal buckets the later round wins, as with samples.
3. The window's row tells up to which round. Retention deletes raw blocks up to that round and no others.
What is back-filled into a window whose raw samples have gone adds buckets and replaces none: what stands there was made
from samples that nobody has any more.
"""

from datetime import datetime
from typing import Any, Final

import numpy as np
import psycopg
from django.db import transaction

from apps.core.telemetry import Counter
from apps.metrics import compaction, storage
from apps.metrics.assembly import Assembled
from apps.metrics.compaction import AGAIN, ROW_COLUMNS, SETTLE, Known, in_portions, rows_of, write_blocks
from apps.metrics.models import RetentionPolicy, RolledWindow
from apps.metrics.rollups import FIELDS, RESOLUTIONS, Buckets, coarser, roll
from apps.metrics.storage import WINDOW_MS, WINDOWS_MS, Kind

ROLLED: Final = Counter("portal_rollup_buckets_total", "Buckets of roll-ups that were made.", ("resolution",))

LOCKS: Final = compaction.LOCKS + 1
"""First key of the advisory locks of rolling; the second is a window's number."""
NEVER_WINS: Final = 1
"""A round before all others: where a bucket stands already, it stays."""

# The first instant of a window makes the one before it due, too, where nothing else is there.
_DUE: Final = """
WITH found AS (
    SELECT "window", max(round) AS round, bool_or(t_min = "window") AS begins
      FROM metrics_block WHERE resolution = 0 AND bad_at IS NULL GROUP BY "window"
), wanted AS (
    SELECT "window" FROM found UNION SELECT "window" - %(length)s FROM found WHERE begins
)
SELECT w."window" FROM wanted w
  LEFT JOIN found f ON f."window" = w."window"
  LEFT JOIN found n ON n."window" = w."window" + %(length)s
  LEFT JOIN metrics_rolledwindow r ON r."window" = w."window"
 WHERE w."window" + 2 * %(length)s + %(settle)s <= %(now)s
   AND (r."window" IS NULL OR r.round < greatest(f.round, n.round) AND r.made_at <= %(again)s)
 ORDER BY w."window"
"""
_READ: Final = f"""
SELECT {ROW_COLUMNS} FROM metrics_block
 WHERE resolution = 0 AND bad_at IS NULL AND retention_id = ANY(%s)
   AND ("window" = %s OR "window" = %s AND t_min = "window")
"""
_NEWEST: Final = """
SELECT max(round), pg_current_xact_id()::text::bigint FROM metrics_block
 WHERE resolution = 0 AND bad_at IS NULL AND "window" = ANY(%s)
"""


def due_windows(now: datetime) -> list[int]:
    """The starts (ms) of windows of raw samples whose roll-ups are missing or out of date."""
    with storage.cursor() as cur:
        cur.execute(
            _DUE,
            {
                "length": WINDOW_MS,
                "settle": round(SETTLE.total_seconds() * 1000),
                "now": int(now.timestamp() * 1000),
                "again": now - AGAIN,
            },
        )
        return [int(window) for (window,) in cur.fetchall()]


def roll_window(*, window: int, now: datetime) -> int:
    """Make the roll-ups of one window of raw samples (its start in ms); return how many buckets were written."""
    written = 0
    with transaction.atomic(), storage.cursor() as cur:
        # Who switches roll-ups on meanwhile waits, and then makes this window due again.
        locked = RetentionPolicy.objects.select_for_update(no_key=True).order_by("pk")
        policies = {policy.pk: policy for policy in locked}
        rolled = [ident for ident, policy in policies.items() if policy.rollup_5m or policy.rollup_1h]
        cur.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [LOCKS, window // WINDOW_MS % 2**31])
        if not (cur.fetchone() or (False,))[0]:
            return 0
        # A deletion must not fall between a round's number and its look at the tombstones.
        cur.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", [compaction.LOCKS, compaction.ROLLING])
        # The round first: what commits meanwhile has a later one, and makes the window due again.
        cur.execute(_NEWEST, [[window, window + WINDOW_MS]])
        newest, own = cur.fetchone() or (None, 0)
        if newest is None:
            return 0
        cur.execute(_READ, [rolled, window, window + WINDOW_MS], binary=True)
        rows = rows_of(cur)
        pieces = [row.piece for row in rows if row.piece is not None]
        storage.mark_bad(1, [row.id for row in rows if row.piece is None], now)
        if pieces:
            for some, got in in_portions(cur, pieces, window, window + WINDOW_MS):
                written += _write(cur, some, got, policies, window, int(own), now)
        RolledWindow.objects.update_or_create(window=window, defaults={"round": newest, "made_at": now})
    return written


def _write(
    cur: "psycopg.Cursor[Any]",
    known: Known,
    got: Assembled,
    policies: dict[int, RetentionPolicy],
    window: int,
    number: int,
    now: datetime,
) -> int:
    """Write the buckets of some series by policy and resolution; return how many."""
    written = 0
    for ident in np.unique(known.retention).tolist():
        policy = policies.get(ident)
        if policy is None or not (policy.rollup_5m or policy.rollup_1h):
            continue
        mine = np.flatnonzero(known.retention == ident)
        # Sorted by retention: the series of a policy stand together.
        part = slice(int(mine[0]), int(mine[-1]) + 1)
        off = got.off[part.start : part.stop + 1]
        own = Known(known.ids[part], known.metric[part], known.retention[part])
        samples = slice(int(off[0]), int(off[-1]))
        finest = roll(off - off[0], got.ts[samples], got.v[samples], RESOLUTIONS[0])
        has_gone = policy.raw_from is not None and window < policy.raw_from
        for resolution, kept in zip(RESOLUTIONS, (policy.rollup_5m, policy.rollup_1h), strict=True):
            if not kept:
                continue
            buckets = finest if resolution == RESOLUTIONS[0] else coarser(finest, resolution)
            _write_buckets(cur, own, buckets, resolution, window, NEVER_WINS if has_gone else number, now)
            ROLLED.inc(len(buckets.at), resolution=str(resolution))
            written += len(buckets.at)
    return written


def _write_buckets(
    cur: "psycopg.Cursor[Any]",
    known: Known,
    buckets: Buckets,
    resolution: int,
    window: int,
    number: int,
    now: datetime,
) -> None:
    length = WINDOWS_MS[resolution]
    home = window // length * length
    for field, name in enumerate(FIELDS, start=1):
        column = buckets.columns[name]
        write_blocks(cur, known, buckets.off, buckets.at, column, 0, home, number, now, Kind(resolution, field))
