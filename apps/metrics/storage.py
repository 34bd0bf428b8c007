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
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from numpy.typing import NDArray

from apps.metrics.assembly import Tombstone
from apps.metrics.codec import Columns, Encoded, Vectors, View

WINDOW_MS: Final = 2 * 3600 * 1000
"""Raw samples are stored by windows of two hours."""
WINDOWS_MS: Final = {0: WINDOW_MS, 300: 2 * 24 * 3600 * 1000, 3600: 30 * 24 * 3600 * 1000}
"""Windows by resolution (s): raw samples' are closed on the left, roll-ups' on the right, as their buckets are."""
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
   WHERE applied_at IS NULL AND t_max > %(tmin)s AND t_min <= %(tmax)s
     AND series_max >= %(smin)s AND series_min <= %(smax)s)
"""

# What the catalog asks when it is refreshed, in the same breath: one round trip less, and the same moment.
_SNAPSHOT_AND_NEWS: Final = f"""{_SNAPSHOT},
 pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
 (SELECT json_agg(json_build_array(id, metric_id, labels))::text FROM metrics_series
   WHERE xid >= %(since)s::text::xid8)
"""


@dataclass(frozen=True, slots=True)
class Range:
    """What a read needs: tmin < ts <= tmax (ms), and the bounds of metric and series ids."""

    tmin: int
    tmax: int
    metric_min: int
    metric_max: int
    series_min: int
    series_max: int


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
    batches, blocks, tombstones, *told = cur.fetchone() or (None, None, None)
    young = np.frombuffer(batches or b"", dtype=_BATCH).astype(_BATCH.newbyteorder("="))
    listed = np.frombuffer(blocks or b"", dtype=_BLOCK)
    buried = [tombstone(row) for row in orjson.loads(tombstones or b"[]")]
    news = News(told[0], [tuple(row) for row in orjson.loads(told[1] or b"[]")]) if told else None
    return Snapshot(young, tuple(BlockRow(*row) for row in listed.tolist()), tuple(buried), news)


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
