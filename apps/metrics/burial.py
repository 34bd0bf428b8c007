"""What is deleted on request goes from the bytes, too: stored rows that hold samples under a tombstone are rewritten.

1. `services.delete_series` writes tombstones. From its commit on no reader sees what they cover, and compaction,
   merging and rolling leave it out. A tombstone covers what was stored before it and nothing later: young rows up to
   an id, blocks up to a round. It takes the locks of compaction and of rolling for its moment, so every round that
   begins afterwards has seen it.
2. `bury` compacts the young rows that a tombstone may cover, and rewrites blocks one by one: same level, window and
   round, without what is covered. Each in a transaction of its own that deletes exactly the row that it read, so a
   process killed anywhere leaves old or new, and the tombstone still hides the old.
3. When no stored row holds any of it the tombstone is applied: it hides nothing any more, and the audit trail has an
   entry with the rows rewritten and the samples left out. A damaged row cannot be rewritten; its tombstone stays open.
"""

import logging
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import psycopg
from django.db import transaction

from apps.accounts import audit
from apps.accounts.permissions import Principal, Scope
from apps.core.telemetry import Gauge
from apps.metrics import catalog, compaction, query, storage
from apps.metrics.assembly import Damaged, Piece, Tombstone, Wanted, assemble
from apps.metrics.codec import Corrupt, Int64, View
from apps.metrics.compaction import Known, array_literal, note_dropped, write_blocks
from apps.metrics.models import Tombstone as Row
from apps.metrics.storage import WINDOW_MS, Kind
from apps.promql.labels import Labels
from apps.promql.source import Matcher, Request, of_scope
from apps.promql.text import quote

log = logging.getLogger(__name__)

OPEN: Final = Gauge("portal_store_open_tombstones", "Deletions on request whose samples are hidden but not yet gone.")
BY: Final = Principal.system("metrics.bury")
FETCHED: Final = 32
"""Blocks that are read at once: about 100 kB each."""

_MAY_HOLD: Final = """
SELECT id FROM metrics_block
 WHERE series_max >= %(first)s AND series_min <= %(last)s AND round <= %(round)s AND t_min <= %(t_max)s
   AND t_max >= %(t_min)s AND (resolution > 0 OR t_min <= %(raw_max)s)
 ORDER BY id
"""
_YOUNG: Final = """
SELECT count(*), count(*) FILTER (WHERE bad_at IS NOT NULL) FROM metrics_batch
 WHERE id <= %(batch)s AND series_max >= %(first)s AND series_min <= %(last)s AND t_max >= %(t_min)s
   AND t_min <= %(raw_max)s
"""
_READ: Final = """
SELECT id, level, resolution, field, retention_id, "window", round, t_min, bad_at IS NOT NULL, directory, payload, crc
  FROM metrics_block WHERE id = ANY(%s)
"""
_COARSEST_MS: Final = 3600 * 1000
FIRST_MS: Final = 0
LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999: everything that is stored lies before."""
IDS: Final = 10_000
"""Series of one tombstone at most: readers take each open one along."""
EXAMPLES: Final = 10

_FORGET: Final = """
UPDATE metrics_series SET gone_at = %s, first_at = NULL, last_at = NULL
 WHERE id IN (SELECT id FROM metrics_series WHERE id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE)
"""
_UNROLL: Final = """DELETE FROM metrics_rolledwindow WHERE "window" = ANY(%s)"""


@dataclass(frozen=True, slots=True, eq=False)
class Doomed:
    """The series that matchers accept, and the span of their samples that is to go (ms, both ends included)."""

    ids: Int64
    labels: Labels
    t_min: int
    t_max: int

    @property
    def examples(self) -> list[dict[str, str]]:
        """Some of the label sets."""
        return self.labels.take(np.arange(min(EXAMPLES, len(self.ids)), dtype=np.int64)).dicts()

    @property
    def is_everything(self) -> bool:
        """Whether nothing of these series is to be left."""
        return self.t_min <= FIRST_MS and self.t_max >= LAST_MS


def selector_text(matchers: Sequence[Matcher]) -> str:
    """Matchers as PromQL writes them.

    >>> selector_text([Matcher("__name__", "=", "up"), Matcher("job", "=~", "a|b")])
    '{__name__="up",job=~"a|b"}'
    """
    return "{" + ",".join(f"{matcher.name}{matcher.op}{quote(matcher.value)}" for matcher in matchers) + "}"


def find(
    selectors: Sequence[Sequence[Matcher]],
    *,
    start: datetime | None,
    end: datetime | None,
    scope: Scope,
    now: datetime,
) -> Doomed:
    """What a deletion would be about. An end from now on means: everything that is stored. Raises ValueError."""
    if not selectors or any(all(matcher.matches("") for matcher in matchers) for matchers in selectors):
        raise ValueError('Each selector needs a matcher that demands something, such as {__name__="x"}.')
    t_min = FIRST_MS if start is None else max(FIRST_MS, int(start.timestamp() * 1000))
    t_max = LAST_MS if end is None or end >= now else int(end.timestamp() * 1000)
    if t_max < t_min:
        raise ValueError("The span ends before it begins.")
    narrowed = of_scope(scope.matchers)
    with storage.cursor() as cur:
        found = catalog.current().find_many(cur, [(*matchers, *narrowed) for matchers in selectors])
    ids, first = np.unique(np.concatenate([one.ids for one in found]), return_index=True)
    return Doomed(ids, Labels.concat([one.labels for one in found]).take(first), t_min, t_max)


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """A deletion that has not happened, and about how many samples it would take."""

    doomed: Doomed
    samples: int


def preview(
    selectors: Sequence[Sequence[Matcher]],
    *,
    start: datetime | None,
    end: datetime | None,
    scope: Scope,
    now: datetime,
) -> Preview:
    """What a deletion would take. Raises ValueError."""
    doomed = find(selectors, start=start, end=end, scope=scope, now=now)
    requests = [Request(tuple(matchers), doomed.t_min - 1, doomed.t_max) for matchers in selectors]
    return Preview(doomed, sum(found.samples for found in query.Source(scope).estimate(requests)))


def entomb(doomed: Doomed, *, by: str, now: datetime) -> list[Row]:
    """Write the tombstones, in the caller's transaction, and let go of the series of which nothing is left."""
    if not len(doomed.ids):
        return []
    with storage.cursor() as cur:
        batch, number = bound(cur)
        rows = []
        for begin in range(0, len(doomed.ids), IDS):
            ids = doomed.ids[begin : begin + IDS]
            rows.append(
                Row(
                    series=ids.tolist(),
                    series_min=int(ids[0]),
                    series_max=int(ids[-1]),
                    t_min=doomed.t_min,
                    t_max=doomed.t_max,
                    batch=batch,
                    round=number,
                    by=by[:200],
                    created_at=now,
                )
            )
        Row.objects.bulk_create(rows, batch_size=20)
        if doomed.is_everything:
            cur.execute(_FORGET, [now, array_literal(doomed.ids)])
        else:
            # Buckets at the two ends lose samples that stay: they are made again where those still are.
            ends = {(-(-at // WINDOW_MS) - 1) * WINDOW_MS for at in (doomed.t_min, doomed.t_max)}
            cur.execute(_UNROLL, [sorted(ends)])
    return rows


def bound(cur: "psycopg.Cursor[Any]") -> tuple[int, int]:
    """(the last row of the log, the last round of blocks) that may hold what was stored before now.

    Waits for a running round of compaction or rolling, and makes the next one wait for the caller's commit.
    """
    cur.execute("SELECT pg_advisory_xact_lock(%s, 0)", [compaction.LOCKS])
    cur.execute("SELECT pg_advisory_xact_lock(%s, %s)", [compaction.LOCKS, compaction.ROLLING])
    cur.execute(
        "SELECT nextval(pg_get_serial_sequence('metrics_batch', 'id')),"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1"
    )
    batch, number = cur.fetchone() or (0, 0)
    return int(batch), int(number)


def bury(*, now: datetime) -> int:
    """Rewrite what open tombstones cover; return how many of them are still open."""
    with storage.cursor() as cur:
        stones = storage.open_tombstones(cur)
    left = 0
    if stones:
        _compact(stones, now)
    for stone in stones:
        if _rewrite(stone, stones, now):
            _close(stone, now)
        else:
            left += 1
    OPEN.set(left)
    return left


def _within(stone: Tombstone) -> dict[str, int]:
    return {
        "first": int(stone.ids[0]),
        "last": int(stone.ids[-1]),
        "t_min": stone.t_min,
        "raw_max": stone.t_max,
        "t_max": stone.t_max + _COARSEST_MS,
        "batch": stone.batch,
        "round": stone.round,
    }


def _young(cur: "psycopg.Cursor[Any]", stone: Tombstone) -> tuple[int, int]:
    """(rows of the log that may hold what is covered, how many of these are damaged)."""
    cur.execute(_YOUNG, _within(stone))
    rows, damaged = cur.fetchone() or (0, 0)
    return int(rows), int(damaged)


def _compact(stones: Sequence[Tombstone], now: datetime) -> None:
    """Compact the log as far as it may hold something covered; another process may be at it, then later."""
    while True:
        with storage.cursor() as cur:
            sound = sum(rows - damaged for rows, damaged in (_young(cur, stone) for stone in stones))
        if not sound or not compaction.compact_log(now=now):
            return


def _rewrite(stone: Tombstone, stones: Sequence[Tombstone], now: datetime) -> bool:
    """Rewrite the blocks that hold something of it; tell whether no stored row holds any of it now."""
    with storage.cursor() as cur:
        done = _young(cur, stone)[0] == 0
        ids = [row[0] for row in cur.execute(_MAY_HOLD, _within(stone)).fetchall()]
    for begin in range(0, len(ids), FETCHED):
        for ident in _holders(ids[begin : begin + FETCHED], stone):
            done &= _rewrite_one(ident, stones, now)
    return done


def _holders(ids: Sequence[int], stone: Tombstone) -> list[int]:
    """Those of the blocks whose directories name a series of the tombstone, or cannot be read."""
    found = []
    with storage.cursor() as cur:
        for ident, directory, payload, crc in storage.fetch(cur, 1, ids):
            try:
                hit = bool(stone.among(View(directory, payload, crc).series).any())
            except Corrupt:
                hit = True
            if hit:
                found.append(ident)
    return found


def _rewrite_one(ident: int, stones: Sequence[Tombstone], now: datetime) -> bool:
    """Rewrite one block without what any of these covers; tell whether it holds none of it now."""
    try:
        with transaction.atomic(), storage.cursor() as cur:
            cur.execute(_READ, [[ident]], binary=True)
            row = cur.fetchone()
            if row is None:
                return False  # merged meanwhile: what came of it is looked at the next time
            _, level, resolution, field, retention, window, number, t_min, bad, directory, payload, crc = row
            if bad:
                return False
            kind = Kind(resolution, field)
            if not _locked(cur, window):
                return False
            piece = Piece(number, t_min, View(directory, payload, crc), f"block {ident}")
            return _write_anew(cur, ident, piece, level, kind, retention, window, stones, now)
    except (Corrupt, Damaged) as error:
        log.error("Block %s is damaged (%s): what was deleted stays in it, hidden.", ident, error)
        storage.mark_bad(1, [ident], now)
    except compaction.Overtaken:
        pass  # merged in this moment
    return False


def _locked(cur: "psycopg.Cursor[Any]", window: int) -> bool:
    """The lock under which the window is merged, unless somebody is at it."""
    cur.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [compaction.LOCKS, window // WINDOW_MS % 2**31 or 1])
    return bool((cur.fetchone() or (False,))[0])


def _write_anew(
    cur: "psycopg.Cursor[Any]",
    ident: int,
    piece: Piece,
    level: int,
    kind: Kind,
    retention: int,
    window: int,
    stones: Sequence[Tombstone],
    now: datetime,
) -> bool:
    view = piece.body
    if not isinstance(view, View):
        raise TypeError("Only blocks are rewritten.")
    known = Known(view.series.astype(np.int64), view.metric, np.full(len(view.series), retention, dtype=np.int64))
    dropped: Tally[int] = Tally()
    buried = [stone.of_buckets(kind.resolution) for stone in stones]
    got = assemble(Wanted.of(known.ids), [piece], -1, np.iinfo(np.int64).max, buried=buried, dropped=dropped)
    if not dropped.total():
        return True
    if len(got.ts):
        write_blocks(cur, known, got.off, got.ts, got.v, level, window, piece.rank, now, kind)
    cur.execute("DELETE FROM metrics_block WHERE id = %s", [ident])
    if cur.rowcount != 1:
        raise compaction.Overtaken(f"block {ident}")
    note_dropped(cur, dropped, blocks=1, raw=kind.resolution == 0)
    return True


def _close(stone: Tombstone, now: datetime) -> None:
    """The tombstone is applied; its proof."""
    with transaction.atomic():
        row = Row.objects.select_for_update().filter(pk=stone.id, applied_at=None).first()
        if row is None:
            return
        row.applied_at = now
        row.save(update_fields=["applied_at"])
        audit.record(
            by=BY,
            verb="metrics.bury",
            target=row,
            before={"deleted_by": row.by, "deleted_at": row.created_at},
            after={
                "series": len(stone.ids),
                "from_ms": row.t_min,
                "to_ms": row.t_max,
                "blocks_rewritten": row.blocks,
                "samples_dropped": row.samples,
            },
        )
