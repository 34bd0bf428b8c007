"""The young rows of the log become blocks, and the blocks of a window become fewer and smaller ones.

Level 0, when a million samples are young or the oldest row is ten minutes old:
1. Take the store's advisory lock for this transaction, or leave it to who holds it.
2. Read rows by id, two million samples at most; set damaged ones aside (they stay, marked).
3. Sort by retention, window, metric, series, time; of equal instants the later row wins.
4. Write blocks, delete exactly the rows that were read (the count must match, or everything is undone), commit.
There is no watermark: a row that commits late is simply still there next time.

Level 1, per window under a lock of its own:
5. While the window is open, eight rounds of level 0 are merged into level 1. Once it has been closed for ten minutes,
   everything in it becomes one run of blocks; what comes late is merged in again, at most every half hour.
6. As 4: write, delete exactly what was read, commit.

Every block carries its `round`, the transaction that took its samples out of the log (the highest one, when
merged). Rounds follow each other under the lock, so the later round holds the later writes; no id could tell that,
because level 0 and level 1 write at the same time.
"""

import logging
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from django.db import transaction

from apps.core.telemetry import Counter, Gauge
from apps.metrics import storage
from apps.metrics.assembly import Assembled, Damaged, Piece, Tombstone, Wanted, assemble
from apps.metrics.codec import (
    Columns,
    Corrupt,
    Float64,
    Int32,
    Int64,
    View,
    decode_batches,
    encode_block,
    offsets,
    stable_order,
)
from apps.metrics.models import RetentionPolicy
from apps.metrics.rollups import FIELDS
from apps.metrics.storage import RAW, WINDOW_MS, WINDOWS_MS, Kind, NewBlock

log = logging.getLogger(__name__)

YOUNG_SAMPLES: Final = Gauge("portal_store_young_samples", "Samples in the log that are not compacted yet.")
YOUNG_ROWS: Final = Gauge("portal_store_young_rows", "Rows of the log that are not compacted yet.")
YOUNG_AGE: Final = Gauge("portal_store_young_age_seconds", "Age of the oldest row of the log: how far compaction lags.")
COMPACTED: Final = Counter("portal_compaction_samples_total", "Samples written into blocks, by level.", ("level",))
UNKNOWN: Final = Counter("portal_store_unknown_series_total", "Samples of series that have no row, kept under none.")
OVERSIZED: Final = Counter("portal_store_oversized_windows_total", "Windows too large to be merged into one run.")

LOCKS: Final = 0x6D657472
"""First key of the store's advisory locks ("metr"); the second is 0 for the log, else a window's number."""
ROLLING: Final = -1
"""The second key that rolling shares and a deletion takes alone."""
TRIGGER_SAMPLES: Final = 1_000_000
TRIGGER_ROWS: Final = 250
TRIGGER_AGE: Final = timedelta(minutes=10)
ROUND_SAMPLES: Final = 2_000_000
MERGE_ROUNDS: Final = 8
SETTLE: Final = timedelta(minutes=10)
AGAIN: Final = timedelta(minutes=30)
BLOCK_SAMPLES: Final = 65_536
MERGE_SAMPLES: Final = 1_000_000
"""Samples that a merge holds decoded at a time."""
MERGE_LIMIT: Final = 100_000_000
"""Larger windows stay as they are: their compressed rows would not fit into the worker's memory."""
SEEN_EVERY: Final = timedelta(minutes=30)
"""How old `Series.last_at` may get: writing it with every round would cost more than the samples."""


class Overtaken(Exception):
    """Rows that were read are gone before they were deleted; the transaction is undone."""


# --- Level 0 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Young:
    """What the log holds: rows, samples, and when the oldest row was received."""

    rows: int
    samples: int
    oldest: datetime | None

    def due(self, now: datetime) -> bool:
        return self.oldest is not None and (
            self.samples >= TRIGGER_SAMPLES or self.rows >= TRIGGER_ROWS or now - self.oldest >= TRIGGER_AGE
        )


def young(now: datetime) -> Young:
    """Look at the log; what it holds also shows as the store's own series."""
    with storage.cursor() as cur:
        cur.execute(
            "SELECT count(*), coalesce(sum(samples), 0), min(received_at) FROM metrics_batch WHERE bad_at IS NULL"
        )
        found = Young(*(cur.fetchone() or (0, 0, None)))
    YOUNG_ROWS.set(found.rows)
    YOUNG_SAMPLES.set(found.samples)
    YOUNG_AGE.set((now - found.oldest).total_seconds() if found.oldest else 0.0)
    return found


def compact_log(*, now: datetime) -> int:
    """One round of level 0; return how many rows of the log it took (0: nothing there, or another process is at it)."""
    with transaction.atomic(), storage.cursor() as cur:
        if not _locked(cur, 0):
            return 0
        cur.execute(_READ_LOG, [ROUND_SAMPLES], binary=True)
        rows = cur.fetchall()
        samples, counts = decode_batches([payload for _, payload in rows])
        damaged = {row[0]: found for row, found in zip(rows, counts, strict=True) if isinstance(found, str)}
        for ident, reason in damaged.items():
            log.error("Batch %s is damaged (%s) and stays in the log; `manage.py store check` lists it.", ident, reason)
        storage.mark_bad(0, list(damaged), now)
        taken = [ident for ident, _ in rows if ident not in damaged]
        if not taken:
            return 0
        if stones := storage.open_tombstones(cur):
            rows_of_samples = np.repeat(
                np.array(taken, dtype=np.int64), [found for found in counts if isinstance(found, int)]
            )
            samples = _unburied(cur, samples, rows_of_samples, stones)
        if len(samples):
            _write_rounds(cur, samples, now)
        _delete(cur, "metrics_batch", taken)
    COMPACTED.inc(len(samples), level="0")
    return len(taken)


def _locked(cur: "psycopg.Cursor[Any]", number: int) -> bool:
    cur.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [LOCKS, number])
    return bool((cur.fetchone() or (False,))[0])


def _delete(cur: "psycopg.Cursor[Any]", table: str, ids: Sequence[int]) -> None:
    """Delete exactly these rows, or raise."""
    cur.execute(f"DELETE FROM {table} WHERE id = ANY(%s)", [list(ids)])
    if cur.rowcount != len(ids):
        raise Overtaken(f"{len(ids) - cur.rowcount} of {len(ids)} rows of {table} vanished while they were compacted.")


_READ_LOG: Final = """
SELECT id, payload FROM metrics_batch WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(samples) OVER (ORDER BY id) - samples AS before FROM metrics_batch WHERE bad_at IS NULL
    ) listed WHERE before < %s
) ORDER BY id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Distinct series of a round in the order in which they are stored: id, metric, retention, each [S]."""

    ids: Int64
    metric: Int32
    retention: Int64


def known_series(cur: "psycopg.Cursor[Any]", ids: Int64) -> Known:
    """The series' metrics and policies. A series without row is kept under metric 0 and counted."""
    cur.execute(
        "SELECT s.id, s.metric_id, m.retention_id FROM metrics_series s JOIN metrics_metric m ON m.id = s.metric_id"
        " WHERE s.id = ANY(%s::bigint[])",
        [array_literal(ids)],
        binary=True,
    )
    found = np.array(cur.fetchall(), dtype=np.int64).reshape(-1, 3)
    if len(found) < len(ids):
        orphans = np.setdiff1d(ids, found[:, 0])
        default = RetentionPolicy.objects.order_by("-raw").values_list("pk", flat=True)[0]
        found = np.concatenate([found, np.stack([orphans, orphans * 0, orphans * 0 + default], axis=1)])
    order = np.lexsort((found[:, 0], found[:, 1], found[:, 2]))
    found = found[order]
    return Known(found[:, 0].copy(), found[:, 1].astype(np.int32), found[:, 2].copy())


def _distinct(series: Int64) -> Int64:
    """The distinct ids, sorted; by a table of flags where ids lie close together, which they usually do."""
    low, high = int(series.min()), int(series.max())
    if high - low > 4 * len(series) + 1_000_000:
        return np.unique(series)
    flags = np.zeros(high - low + 1, dtype=np.bool_)
    flags[series - low] = True
    return np.flatnonzero(flags) + low


def _write_rounds(cur: "psycopg.Cursor[Any]", samples: Columns, now: datetime) -> None:
    """Cut a round's samples by window and write their blocks."""
    known = known_series(cur, _distinct(samples.series))
    unknown = known.metric == 0
    if unknown.any():
        UNKNOWN.inc(int(np.isin(samples.series, known.ids[unknown]).sum()))
    cur.execute("SELECT pg_current_xact_id()::text::bigint")
    number = int((cur.fetchone() or (0,))[0])
    place = _places(known, samples.series)
    first = np.full(len(known.ids), np.iinfo(np.int64).max, dtype=np.int64)
    last = np.full(len(known.ids), np.iinfo(np.int64).min, dtype=np.int64)
    for start, chosen in _by_window(samples.ts):
        part = slice(None) if chosen is None else chosen
        ts, v = samples.ts[part], samples.v[part]
        order, counts = _sorted_once(place[part], ts, len(known.ids))
        ts, off, some = ts[order], offsets(counts), np.flatnonzero(counts)
        first[some] = np.minimum(first[some], ts[off[some]])
        last[some] = np.maximum(last[some], ts[off[some + 1] - 1])
        write_blocks(cur, known, off, ts, v[order], 0, start * WINDOW_MS, number, now)
    some = np.flatnonzero(first <= last)
    _note_series(cur, known.ids[some], first[some], last[some])


def _by_window(ts: Int64) -> list[tuple[int, Int64 | None]]:
    """(number of a window, the samples in it in order of arrival; None: all of them)."""
    window = ts // WINDOW_MS
    if int(window.min()) == int(window.max()):
        return [(int(window[0]), None)]
    order = np.argsort(window, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(window[order]) != 0))
    return [(int(window[part[0]]), part) for part in np.split(order, starts[1:])]


def _places(known: Known, series: Int64) -> Int64:
    """The position in `known` of each sample's series."""
    low, high = int(known.ids.min()), int(known.ids.max())
    if high - low <= 4 * len(series) + 1_000_000:
        table = np.zeros(high - low + 1, dtype=np.int64)
        table[known.ids - low] = np.arange(len(known.ids))
        found: Int64 = table[series - low]
        return found
    order = np.argsort(known.ids)
    return order[np.searchsorted(known.ids[order], series)]


def _sorted_once(owner: Int64, ts: Int64, owners: int) -> tuple[Int64, Int64]:
    """(samples sorted by owner and time, the last kept of equal instants; how many of each owner int64[owners])."""
    order = stable_order(owner, ts)
    kept, times = owner[order], ts[order]
    last = np.append((kept[1:] != kept[:-1]) | (times[1:] != times[:-1]), True)
    if not last.all():
        order, kept = order[last], kept[last]
    return order, np.bincount(kept, minlength=owners).astype(np.int64)


def write_blocks(
    cur: "psycopg.Cursor[Any]",
    known: Known,
    off: Int64,
    ts: Int64,
    v: Float64,
    level: int,
    window: int,
    number: int,
    now: datetime,
    kind: Kind = RAW,
) -> None:
    """Write S series (sorted by retention, metric, id) of one window as rows of about 64k samples."""
    counts = np.diff(off)
    if not counts.all():
        some = np.flatnonzero(counts)
        known = Known(known.ids[some], known.metric[some], known.retention[some])
        off = offsets(counts[some])
    begin = 0
    size = len(known.ids)
    while begin < size:
        end = int(np.searchsorted(off, off[begin] + BLOCK_SAMPLES, "right")) - 1
        change = np.flatnonzero(known.retention[begin + 1 :] != known.retention[begin])
        end = max(begin + 1, min(end, size, begin + 1 + int(change[0]) if len(change) else size))
        first, last = int(off[begin]), int(off[end])
        metric, ids = known.metric[begin:end], known.ids[begin:end]
        part = ts[first:last]
        encoded = encode_block(metric, ids, off[begin : end + 1] - first, part, v[first:last], level)
        storage.insert_block(
            cur,
            NewBlock(
                level=level,
                retention=int(known.retention[begin]),
                window=window,
                round=number,
                t_min=int(part.min()),
                t_max=int(part.max()),
                metric_min=int(metric[0]),
                metric_max=int(metric[-1]),
                series_min=int(ids.min()),
                series_max=int(ids.max()),
                samples=last - first,
                created_at=now,
                encoded=encoded,
                kind=kind,
            ),
        )
        begin = end


_NOTE_SERIES: Final = """
UPDATE metrics_series s
   SET last_at = greatest(s.last_at, seen.last), first_at = least(s.first_at, seen.first), gone_at = NULL
  FROM (SELECT u.id, to_timestamp(u.first / 1000.0) AS first, to_timestamp(u.last / 1000.0) AS last
          FROM unnest(%(ids)s::bigint[], %(first)s::bigint[], %(last)s::bigint[]) AS u(id, first, last)) AS seen
 WHERE s.id = ANY(%(ids)s::bigint[]) AND s.id = seen.id
   AND (s.last_at IS NULL OR s.gone_at IS NOT NULL OR s.last_at < seen.last - %(every)s
        OR s.first_at > seen.first + %(every)s)
"""
_STALE_SERIES: Final = """
SELECT s.id FROM metrics_series s
  JOIN unnest(%(ids)s::bigint[], %(first)s::bigint[], %(last)s::bigint[]) AS u(id, first, last) USING (id)
 WHERE s.id = ANY(%(ids)s::bigint[])
   AND (s.last_at IS NULL OR s.gone_at IS NOT NULL OR s.last_at < to_timestamp(u.last / 1000.0) - %(every)s
        OR s.first_at > to_timestamp(u.first / 1000.0) + %(every)s)
"""
_LOCK_SERIES: Final = "SELECT id FROM metrics_series WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE"


def _note_series(cur: "psycopg.Cursor[Any]", ids: Int64, first: Int64, last: Int64) -> None:
    """Write down first and last instants of series where what stands there is well out of date."""

    def of(rows: Any) -> dict[str, Any]:
        arrays = {"ids": ids[rows], "first": first[rows], "last": last[rows]}
        return {name: array_literal(column) for name, column in arrays.items()} | {"every": SEEN_EVERY}

    # How long an array is no plan knows, nor a young table how many rows it has: each row was compared with each,
    # minutes for 100,000 series (measured). So rows are found by the index, and joined by hash.
    cur.execute("SET LOCAL enable_nestloop = off")
    cur.execute(_STALE_SERIES, of(slice(None)))
    stale = np.array([row[0] for row in cur.fetchall()], dtype=np.int64)
    if len(stale):
        cur.execute(_LOCK_SERIES, [array_literal(stale)])
        cur.execute(_NOTE_SERIES, of(np.flatnonzero(np.isin(ids, stale))))
    cur.execute("SET LOCAL enable_nestloop = on")


def array_literal(numbers: Int64) -> str:
    """An array literal: joining is several times as fast as adapting a list element by element."""
    return "{" + ",".join(map(str, numbers.tolist())) + "}"


def _unburied(cur: "psycopg.Cursor[Any]", samples: Columns, batch: Int64, tombstones: Sequence[Tombstone]) -> Columns:
    """Those samples, of the rows `batch` of the log, that no tombstone covers."""
    dropped: Tally[int] = Tally()
    for stone in tombstones:
        covered = stone.covers(samples.series, samples.ts, batch)
        if found := int(covered.sum()):
            dropped[stone.id] += found
            samples, batch = (
                Columns(samples.series[~covered], samples.ts[~covered], samples.v[~covered]),
                batch[~covered],
            )
    note_dropped(cur, dropped)
    return samples


def note_dropped(cur: "psycopg.Cursor[Any]", dropped: Mapping[int, int], *, blocks: int = 0, raw: bool = True) -> None:
    """Write down with the tombstones how many samples were left out for each (not raw: buckets, which are none), and
    how many blocks were rewritten."""
    for ident, count in sorted(dropped.items()):
        if count:
            cur.execute(
                "UPDATE metrics_tombstone SET samples = samples + %s, blocks = blocks + %s WHERE id = %s",
                [count if raw else 0, blocks, ident],
            )


# --- Level 1 --------------------------------------------------------------------------------------------------------

_DUE_WINDOWS: Final = """
SELECT resolution, "window", "window" + length + %(settle)s <= %(now)s AS closed
  FROM metrics_block JOIN unnest(%(resolutions)s::int[], %(lengths)s::bigint[]) AS stored(resolution, length)
       USING (resolution)
 WHERE bad_at IS NULL
 GROUP BY resolution, "window", length
HAVING count(DISTINCT round) FILTER (WHERE level = 0) >= %(rounds)s
    OR "window" + length + %(settle)s <= %(now)s
       AND (count(*) FILTER (WHERE level = 0) > 0 OR count(DISTINCT round) FILTER (WHERE level = 1) > 1)
       AND coalesce(max(created_at) FILTER (WHERE level = 1 AND "window" + length + %(settle)s
           <= extract(epoch FROM created_at) * 1000), '-infinity') <= %(again)s
 ORDER BY resolution, "window"
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A window that is to be merged: of which resolution (s, 0: raw), its start in ms, whether it is closed."""

    resolution: int
    window: int
    closed: bool


def due_windows(now: datetime) -> list[Due]:
    """The windows that are to be merged."""
    with storage.cursor() as cur:
        cur.execute(
            _DUE_WINDOWS,
            {
                "now": int(now.timestamp() * 1000),
                "resolutions": list(WINDOWS_MS),
                "lengths": list(WINDOWS_MS.values()),
                "settle": round(SETTLE.total_seconds() * 1000),
                "rounds": MERGE_ROUNDS,
                "again": now - AGAIN,
            },
        )
        return [Due(int(resolution), int(window), bool(closed)) for resolution, window, closed in cur.fetchall()]


def merge_window(*, due: Due, now: datetime) -> int:
    """Merge the blocks of one window into level 1; return how many rows it took.

    All of them once it is closed, until then only those of level 0. Each field of roll-ups is merged by itself.
    """
    fields = range(1, len(FIELDS) + 1) if due.resolution else (0,)
    return sum(_merge_kind(Kind(due.resolution, field), due, now) for field in fields)


def _merge_kind(kind: Kind, due: Due, now: datetime) -> int:
    try:
        with transaction.atomic(), storage.cursor() as cur:
            if not _locked(cur, due.window // WINDOW_MS % 2**31 or 1):
                return 0
            rows = _read_window(cur, kind, due)
            pieces = [row.piece for row in rows if row.piece is not None]
            storage.mark_bad(1, [row.id for row in rows if row.piece is None], now)
            if not pieces:
                return 0
            written = _merge(cur, pieces, kind, due.window, now)
            taken = [row.id for row in rows if row.piece is not None]
            _delete(cur, "metrics_block", taken)
    except Damaged as error:
        log.error("%s; it is left alone and the window %s is merged without it.", error, due.window)
        storage.mark_bad(1, [int(error.piece.name.removeprefix("block "))], now)
        return 0
    COMPACTED.inc(written, level="1")
    return len(taken)


@dataclass(frozen=True, slots=True)
class Row:
    """A block row of a window; without piece when it is damaged."""

    id: int
    piece: Piece | None


_OF_WINDOW: Final = """
 WHERE "window" = %s AND resolution = %s AND field = %s AND bad_at IS NULL AND level <= %s
"""


def _read_window(cur: "psycopg.Cursor[Any]", kind: Kind, due: Due) -> list[Row]:
    """The rows to merge; none of a window that is too large."""
    wanted = [due.window, kind.resolution, kind.field, int(due.closed)]
    cur.execute(f"SELECT coalesce(sum(samples), 0) FROM metrics_block {_OF_WINDOW}", wanted)
    size = int((cur.fetchone() or (0,))[0])
    if size > MERGE_LIMIT:
        OVERSIZED.inc()
        log.warning("The window %s has %s samples and stays unmerged: at most %s fit.", due.window, size, MERGE_LIMIT)
        return []
    cur.execute(f"SELECT {ROW_COLUMNS} FROM metrics_block {_OF_WINDOW}", wanted, binary=True)
    return rows_of(cur)


ROW_COLUMNS: Final = "id, round, t_min, directory, payload, crc"


def rows_of(cur: "psycopg.Cursor[Any]") -> list[Row]:
    """The block rows that a query for ROW_COLUMNS has found."""
    rows = []
    for ident, number, t_min, directory, payload, crc in cur.fetchall():
        try:
            view = View(directory, payload, crc)
            rows.append(Row(ident, Piece(number, t_min, view, f"block {ident}")))
        except Corrupt as error:
            log.error("Block %s is damaged (%s) and is left alone; `manage.py store check` lists it.", ident, error)
            rows.append(Row(ident, None))
    return rows


def _merge(cur: "psycopg.Cursor[Any]", pieces: Sequence[Piece], kind: Kind, window: int, now: datetime) -> int:
    """Write all samples of the pieces as level 1, a million decoded at a time; return how many."""
    number = max(piece.rank for piece in pieces)
    written = 0
    dropped: Tally[int] = Tally()
    for some, got in in_portions(cur, pieces, window - 1, window + kind.window_ms, kind.resolution, dropped):
        write_blocks(cur, some, got.off, got.ts, got.v, 1, window, number, now, kind)
        written += len(got.ts)
    note_dropped(cur, dropped, blocks=len(pieces), raw=kind == RAW)
    return written


def in_portions(
    cur: "psycopg.Cursor[Any]",
    pieces: Sequence[Piece],
    tmin: int,
    tmax: int,
    resolution: int = 0,
    dropped: "Tally[int] | None" = None,
) -> Iterator[tuple[Known, Assembled]]:
    """All samples of the pieces with tmin < ts <= tmax that no tombstone covers, some series at a time.

    A bucket of a roll-up is covered where a tombstone covers any of its time. What is left out is added to `dropped`,
    by tombstone.
    """
    views = [piece.body for piece in pieces if isinstance(piece.body, View)]
    ids, place = np.unique(np.concatenate([view.series for view in views]), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate([view.counts for view in views])).astype(np.int64)
    known = known_series(cur, ids)
    totals = offsets(counts[np.searchsorted(ids, known.ids)])
    buried = [stone.of_buckets(resolution) for stone in storage.open_tombstones(cur)]
    begin = 0
    while begin < len(known.ids):
        end = max(begin + 1, int(np.searchsorted(totals, totals[begin] + MERGE_SAMPLES, "right")) - 1)
        part = slice(begin, end)
        some = Known(known.ids[part], known.metric[part], known.retention[part])
        yield some, assemble(Wanted.of(some.ids), pieces, tmin, tmax, buried=buried, dropped=dropped)
        begin = end
