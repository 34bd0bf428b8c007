"""The store's SQL: batches and blocks in and out by binary cursor, past the ORM (which sends bytes as hex text).

Reading takes one snapshot without needing a transaction of its own: the ids of all batches and blocks come from one
statement, which sees one snapshot; rows never change, so a payload that is fetched later by its id is the right one
or gone. If compaction has taken one away meanwhile, the reader starts again (`query`). Two statements that each list
what is there would lose acknowledged samples between them: measured, a third of the queries did.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from numpy.typing import NDArray

from apps.metrics.assembly import Tombstone
from apps.metrics.codec import Columns, Encoded, Vectors, View
from apps.metrics.rollups import RESOLUTIONS

WINDOW_MS: Final = 2 * 3600 * 1000
"""Raw samples are stored by windows of two hours."""
WINDOWS_MS: Final = {0: WINDOW_MS, 300: 2 * 24 * 3600 * 1000, 3600: 30 * 24 * 3600 * 1000}
"""Windows by resolution (s): raw samples' are closed on the left, roll-ups' on the right, as their buckets are."""
BEHIND_MS: Final = 3 * 3600 * 1000
"""So much earlier than the samples that are asked for, a tombstone may begin to cover buckets that stand for them."""
YOUNG: Final = 1 << 62
"""Ranks of young samples begin here: what is not compacted yet is newer than what is."""
CACHE_BYTES: Final = 64 << 20


@contextmanager
def cursor() -> "Iterator[psycopg.Cursor[Any]]":
    """A server-binding cursor on Django's connection; its errors are Django's."""
    here = connections[DEFAULT_DB_ALIAS]
    here.ensure_connection()
    with here.wrap_database_errors:
        yield psycopg.Cursor(here.connection)


def database() -> str:
    """The name of the database in use, by which what a process holds of it is kept."""
    return str(connections[DEFAULT_DB_ALIAS].settings_dict["NAME"])


# --- Batches --------------------------------------------------------------------------------------------------------

_INSERT_BATCH: Final = """
INSERT INTO metrics_batch (received_at, samples, t_min, t_max, series_min, series_max, payload)
VALUES (%s, %s, %s, %s, %s, %s, %b)
"""


def insert_batch(columns: Columns, payload: bytes, received_at: datetime) -> None:
    """Append one row to the log; acknowledged once the transaction around it has committed."""
    with cursor() as cur:
        cur.execute(
            _INSERT_BATCH,
            (
                received_at,
                len(columns),
                int(columns.ts.min()),
                int(columns.ts.max()),
                int(columns.series.min()),
                int(columns.series.max()),
                payload,
            ),
        )


# --- Blocks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """What blocks hold: samples as they came (0, 0), or one field (its number in rollups.FIELDS, from 1) of buckets."""

    resolution: int
    field: int

    @property
    def window_ms(self) -> int:
        """The windows by which they are stored."""
        return WINDOWS_MS[self.resolution]


RAW: Final = Kind(0, 0)


@dataclass(frozen=True, slots=True)
class NewBlock:
    """A block row to be written; times in ms, `window` its start."""

    level: int
    retention: int
    window: int
    round: int
    t_min: int
    t_max: int
    metric_min: int
    metric_max: int
    series_min: int
    series_max: int
    samples: int
    created_at: datetime
    encoded: Encoded
    kind: "Kind"


_INSERT_BLOCK: Final = """
INSERT INTO metrics_block (level, resolution, field, retention_id, shard, "window", round, t_min, t_max,
    metric_min, metric_max, series_min, series_max, samples, created_at, crc, directory, payload)
VALUES (%s, %s, %s, %s, 0, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %b, %b)
"""


def insert_block(cur: "psycopg.Cursor[Any]", block: NewBlock) -> None:
    """Write one block row in the caller's transaction."""
    cur.execute(
        _INSERT_BLOCK,
        (
            block.level,
            block.kind.resolution,
            block.kind.field,
            block.retention,
            block.window,
            block.round,
            block.t_min,
            block.t_max,
            block.metric_min,
            block.metric_max,
            block.series_min,
            block.series_max,
            block.samples,
            block.created_at,
            block.encoded.crc,
            block.encoded.directory,
            block.encoded.payload,
        ),
    )


# --- Reading --------------------------------------------------------------------------------------------------------

_BATCH: Final = np.dtype(
    [(name, ">i8") for name in ("id", "t_min", "t_max", "series_min", "series_max", "samples", "bad")]
)
_BLOCK: Final = np.dtype(
    [
        (name, ">i8")
        for name in (
            *("id", "round", "t_min", "t_max", "metric_min", "metric_max", "series_min", "series_max"),
            *("samples", "bad"),
        )
    ]
)
_BUCKETS: Final = np.dtype([*_BLOCK.descr, *((name, ">i8") for name in ("resolution", "field", "retention_id"))])


def _packed(table: str, fields: np.dtype[Any]) -> str:
    """A table's rows as one value of big-endian int8s: thousands of rows as Python tuples would cost more than them."""
    columns = ["(bad_at IS NOT NULL)::int" if name == "bad" else name for name in fields.names or ()]
    return f"SELECT string_agg({' || '.join(f'int8send({column})' for column in columns)}, ''::bytea) FROM {table}"


TOMBSTONE: Final = "id, series, t_min, t_max, batch, round"


def tombstone(row: Sequence[Any]) -> Tombstone:
    """A tombstone from its columns, in that order."""
    ident, series, *rest = row
    if isinstance(series, str):  # Django's connection leaves JSON as text
        series = orjson.loads(series)
    return Tombstone(ident, np.sort(np.array(series, dtype=np.int64)), *rest)


def open_tombstones(cur: "psycopg.Cursor[Any]") -> list[Tombstone]:
    """Those that are not applied yet."""
    cur.execute(f"SELECT {TOMBSTONE} FROM metrics_tombstone WHERE applied_at IS NULL ORDER BY id")
    return [tombstone(row) for row in cur.fetchall()]


# Young rows are listed whole: a reader must know which of those that it holds are still young.
_SNAPSHOT: Final = f"""
SELECT
 ({_packed("(SELECT * FROM metrics_batch ORDER BY id) AS young", _BATCH)}),
 ({_packed("metrics_block", _BLOCK)}
   WHERE "window" > %(tmin)s - {WINDOW_MS} AND "window" <= %(tmax)s AND resolution = 0
     AND t_max > %(tmin)s AND t_min <= %(tmax)s
     AND metric_max >= %(mmin)s AND metric_min <= %(mmax)s AND series_max >= %(smin)s AND series_min <= %(smax)s),
 (SELECT json_agg(json_build_array({TOMBSTONE}))::text FROM metrics_tombstone
   WHERE applied_at IS NULL AND t_max > %(tmin)s - {BEHIND_MS} AND t_min <= %(tmax)s
     AND series_max >= %(smin)s AND series_min <= %(smax)s),
 (SELECT json_agg(json_build_array(id, raw_from, rollup_5m_from, rollup_5m IS NOT NULL, rollup_1h IS NOT NULL))::text
    FROM metrics_retentionpolicy WHERE raw_from > %(tmin)s AND (rollup_5m IS NOT NULL OR rollup_1h IS NOT NULL))
"""

# Buckets are listed by a statement of its own, which lists all the rest again: few reads reach back behind the samples.
_STORED: Final = f"""(SELECT b.* FROM metrics_block b JOIN metrics_retentionpolicy p
    ON p.id = b.retention_id AND p.raw_from > %(tmin)s AND b.t_min <= p.raw_from
 WHERE b.resolution > 0 AND b.field = ANY(%(fields)s)
   AND b."window" > %(tmin)s - {BEHIND_MS + max(WINDOWS_MS.values())} AND b."window" <= %(tmax)s
   AND b.t_max > %(tmin)s - {BEHIND_MS} AND b.t_min <= %(tmax)s AND b.metric_max >= %(mmin)s
   AND b.metric_min <= %(mmax)s AND b.series_max >= %(smin)s AND b.series_min <= %(smax)s) AS stored"""
_SNAPSHOT_AND_BUCKETS: Final = f"{_SNAPSHOT}, ({_packed(_STORED, _BUCKETS)})"

# What the catalog asks when it is refreshed, in the same breath: one round trip less, and the same moment.
_SNAPSHOT_AND_NEWS: Final = f"""{_SNAPSHOT},
 pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
 (SELECT json_agg(json_build_array(id, metric_id, labels))::text FROM metrics_series
   WHERE xid >= %(since)s::text::xid8)
"""


@dataclass(frozen=True, slots=True)
class Range:
    """What a read needs: tmin < ts <= tmax (ms), and the bounds of metric and series ids.

    `fields`: the numbers (`Kind.field`) that are wanted of buckets where samples are gone; none: samples only. `hours`:
    whole hours will do.
    """

    tmin: int
    tmax: int
    metric_min: int
    metric_max: int
    series_min: int
    series_max: int
    fields: frozenset[int] = frozenset()
    hours: bool = False


@dataclass(frozen=True, slots=True)
class BlockRow:
    """What the snapshot tells of a block."""

    id: int
    round: int
    t_min: int
    t_max: int
    metric_min: int
    metric_max: int
    series_min: int
    series_max: int
    samples: int
    bad: int

    def may_hold(self, bounds: "Range") -> bool:
        """Whether samples of that range may be in here."""
        return (
            self.t_max > bounds.tmin
            and self.t_min <= bounds.tmax
            and self.metric_max >= bounds.metric_min
            and self.metric_min <= bounds.metric_max
            and self.series_max >= bounds.series_min
            and self.series_min <= bounds.series_max
        )


NEVER: Final = -(1 << 62)
"""An instant before all others."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """Up to where (ms) a policy's samples are gone, and its 5-minute buckets; which buckets are used."""

    policy: int
    raw_from: int
    fine_from: int | None
    fine: bool
    hourly: bool

    def until(self, resolution: int) -> int:
        """Windows that begin before this need buckets of that many seconds; those of an hour come before others."""
        if resolution == 300:
            return self.raw_from if self.fine else NEVER
        gone = self.fine_from if self.fine else self.raw_from
        return NEVER if gone is None or not self.hourly else min(gone, self.raw_from)


@dataclass(frozen=True, slots=True)
class BucketRow(BlockRow):
    """What the snapshot tells of a block of roll-ups: of those that end after `low`, up to `high` (ms), it is read."""

    resolution: int
    field: int
    policy: int
    low: int
    high: int

    @property
    def kind(self) -> Kind:
        return Kind(self.resolution, self.field)

    def may_hold(self, bounds: "Range") -> bool:
        """Whether buckets that stand for samples of that range may be in here."""
        begin = max(bounds.tmin - 2000 * self.resolution, self.low)
        return (
            self.field in bounds.fields
            and self.t_max > begin
            and self.t_min <= min(bounds.tmax, self.high)
            and self.metric_max >= bounds.metric_min
            and self.metric_min <= bounds.metric_max
            and self.series_max >= bounds.series_min
            and self.series_min <= bounds.series_max
        )


def _listed(
    gone: bytes | None, packed: bytes | None, bounds: Range
) -> tuple[tuple[Horizon, ...], tuple[BucketRow, ...]]:
    """What a snapshot tells of policies and of their blocks of roll-ups."""
    table = np.frombuffer(packed or b"", dtype=_BUCKETS)
    horizons = [Horizon(*row) for row in orjson.loads(gone or b"[]")]
    horizons = [replace(one, fine=False) if _hours_do(one, table, bounds) else one for one in horizons]
    by_policy = {horizon.policy: horizon for horizon in horizons}
    rows = []
    for *row, resolution, field, policy in table.tolist():
        horizon = by_policy[policy]
        # Windows that begin before the hourly buckets' time is over have no use for finer ones.
        low = NEVER if resolution == RESOLUTIONS[-1] else horizon.until(RESOLUTIONS[-1]) - 2000 * resolution
        rows.append(BucketRow(*(*row, resolution, field, policy, low, horizon.until(resolution))))
    return tuple(horizons), tuple(rows)


def _hours_do(horizon: Horizon, table: NDArray[Any], bounds: Range) -> bool:
    """Whether hourly buckets are wanted and go back as far as finer ones: they may have been switched on later."""
    mine = table[table["retention_id"] == horizon.policy]
    fine, hourly = (mine["t_min"][mine["resolution"] == resolution] for resolution in RESOLUTIONS)
    if not (bounds.hours and horizon.hourly and len(hourly)):
        return False
    return not len(fine) or int(hourly.min()) <= max(int(fine.min()), bounds.tmin) + 3_600_000


@dataclass(frozen=True, slots=True)
class News:
    """What the registry has got: (id, metric id, labels) of series since a transaction, the oldest that still runs."""

    xmin: int
    series: Sequence[tuple[int, int, dict[str, str]]]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All young rows (as columns, by id), the blocks that may hold samples of a range, the tombstones over it."""

    young: NDArray[Any]
    blocks: tuple[BlockRow, ...]
    tombstones: tuple[Tombstone, ...]
    news: News | None = None
    horizons: tuple[Horizon, ...] = ()
    """Of the policies whose samples are gone in some of that range, where they keep roll-ups."""
    buckets: tuple[BucketRow, ...] = ()
    """Where buckets are wanted."""


def young_rows(rows: NDArray[Any]) -> list[BlockRow]:
    """Young rows as if they were blocks that may hold any metric."""
    return [
        BlockRow(ident, YOUNG, t_min, t_max, 0, 2**31 - 1, series_min, series_max, samples, bad)
        for ident, t_min, t_max, series_min, series_max, samples, bad in rows.tolist()
    ]


def snapshot(cur: "psycopg.Cursor[Any]", bounds: Range, since: int | None = None) -> Snapshot:
    """List what is there, in one statement; with `since` also the series since that transaction."""
    parameters = {
        "tmin": bounds.tmin,
        "tmax": bounds.tmax,
        "mmin": bounds.metric_min,
        "mmax": bounds.metric_max,
        "smin": bounds.series_min,
        "smax": bounds.series_max,
    }
    if since is None:
        cur.execute(_SNAPSHOT, parameters, binary=True)
    else:
        cur.execute(_SNAPSHOT_AND_NEWS, {**parameters, "since": str(since)}, binary=True)
    batches, blocks, tombstones, gone, *told = cur.fetchone() or (None, None, None, None)
    packed = None
    news = News(told[0], [tuple(row) for row in orjson.loads(told[1] or b"[]")]) if told else None
    if gone is not None and bounds.fields:
        cur.execute(_SNAPSHOT_AND_BUCKETS, {**parameters, "fields": sorted(bounds.fields)}, binary=True)
        batches, blocks, tombstones, gone, packed = cur.fetchone() or (None, None, None, None, None)
    young = np.frombuffer(batches or b"", dtype=_BATCH).astype(_BATCH.newbyteorder("="))
    listed = np.frombuffer(blocks or b"", dtype=_BLOCK)
    buried = [tombstone(row) for row in orjson.loads(tombstones or b"[]")]
    rows = tuple(BlockRow(*row) for row in listed.tolist())
    return Snapshot(young, rows, tuple(buried), news, *_listed(gone, packed, bounds))


_FETCH: Final = (
    "SELECT id, payload FROM metrics_batch WHERE id = ANY(%s)",
    "SELECT id, directory, payload, crc FROM metrics_block WHERE id = ANY(%s)",
)


def fetch(cur: "psycopg.Cursor[Any]", kind: int, ids: Sequence[int]) -> list[tuple[Any, ...]]:
    """The stored bytes of those rows that still exist: (id, payload) or (id, directory, payload, crc)."""
    if not ids:
        return []
    cur.execute(_FETCH[kind], [list(ids)], binary=True)
    return cur.fetchall()


def mark_bad(kind: int, ids: Sequence[int], now: datetime) -> None:
    """Note on damaged rows when they were first found, once; without waiting for whoever works on them."""
    if not ids:
        return
    table = "metrics_block" if kind else "metrics_batch"
    with cursor() as cur:
        cur.execute(
            f"UPDATE {table} SET bad_at = %s WHERE id IN"
            f" (SELECT id FROM {table} WHERE id = ANY(%s) AND bad_at IS NULL FOR UPDATE SKIP LOCKED)",
            [now, list(ids)],
        )


class Cache:
    """Blocks by id, least recently used out first, bounded in bytes. Rows never change.

    Timestamp vectors that blocks share are counted once, as long as one of the blocks is held.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, View] = OrderedDict()
        self._holders: dict[Vectors, int] = {}
        self.limit = limit
        self.size = 0

    def get(self, keys: Sequence[int]) -> dict[int, View]:
        """Those that are held."""
        found = {}
        with self._lock:
            for key in keys:
                body = self._held.get(key)
                if body is not None:
                    self._held.move_to_end(key)
                    found[key] = body
        return found

    def put(self, new: dict[int, View]) -> None:
        """Keep these, unless they alone would push out half of everything (a long scan)."""
        vectors = {body.vectors for body in new.values()}
        if sum(body.nbytes for body in new.values()) + sum(part.nbytes for part in vectors) > self.limit // 2:
            return
        with self._lock:
            for key, body in new.items():
                if key not in self._held:
                    self._held[key] = body
                    self._count(body, 1)
            while self.size > self.limit:
                self._count(self._held.popitem(last=False)[1], -1)

    def _count(self, body: View, change: int) -> None:
        holders = self._holders.pop(body.vectors, 0)
        if holders + change:
            self._holders[body.vectors] = holders + change
        self.size += change * body.nbytes
        if not holders or not holders + change:
            self.size += change * body.vectors.nbytes

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._holders.clear()
            self.size = 0


_caches: dict[str, Cache] = {}


def cache() -> Cache:
    """This process's cache for the database in use."""
    name = database()
    return _caches.get(name) or _caches.setdefault(name, Cache())


def forget() -> None:
    """Drop everything held: after the tables were emptied under this process."""
    _caches.clear()
