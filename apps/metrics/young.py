"""The young rows as a reader holds them: few sorted runs instead of hundreds of small batches.

Each batch is fetched and decoded once per process; runs of similar size are merged, so there are about log2(n) of
them. Every sample carries the id of its batch, since a later batch's value wins and batches may commit out of order.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from django.db import connection

from apps.metrics.codec import Columns, Int64, Sorted, decode_batches

LIMIT: Final = 4_000_000
"""Samples held at most; more are young only when compaction is far behind, and are then read anew each time."""

Fetch = Callable[[Sequence[int]], list[tuple[int, bytes]]]
"""Payloads by id of those batches that still exist."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Samples of several batches (ids int64[n]), each (series, instant) once; columns.rank is the batch's id."""

    ids: Int64
    body: Sorted

    @property
    def columns(self) -> Columns:
        return self.body.columns

    @property
    def t_min(self) -> int:
        return self.body.t_min

    @property
    def t_max(self) -> int:
        return self.body.t_max


class Gone(Exception):
    """A batch that was listed is not there any more: compaction took it."""


def unique(columns: Columns) -> Columns:
    """Sorted by series and time, the highest rank kept of equal instants."""
    rank = columns.rank
    if rank is None:
        raise ValueError("Samples without rank cannot be told apart.")
    order = _order(columns, rank)
    series, ts = columns.series[order], columns.ts[order]
    last = np.append((series[1:] != series[:-1]) | (ts[1:] != ts[:-1]), True)
    if last.all():
        return Columns(series, ts, columns.v[order], rank[order])
    order = order[last]
    return Columns(series[last], ts[last], columns.v[order], rank[order])


def _order(columns: Columns, rank: Int64) -> Int64:
    """Sample numbers by series, time, rank; later ones of a batch after earlier ones."""
    low, start, first = int(columns.series.min()), int(columns.ts.min()), int(rank.min())
    sizes = [int(column.max()) - begin for column, begin in ((columns.series, low), (columns.ts, start), (rank, first))]
    bits = [max(size, 1).bit_length() for size in sizes]
    if sum(bits) > 62:
        return np.lexsort((rank, columns.ts, columns.series))
    keys = (columns.series - low) << bits[1]
    keys |= columns.ts - start
    keys <<= bits[2]
    keys |= rank - first
    return np.argsort(keys, kind="stable")


def concat(parts: Sequence[Columns]) -> Columns:
    """Several columns with ranks, one after the other."""
    return Columns(
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.v for part in parts]),
        np.concatenate([part.rank for part in parts if part.rank is not None]),
    )


def run_of(ids: Int64, columns: Columns) -> Run:
    """A run of these batches' samples."""
    return Run(ids, Sorted(columns))


def merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same samples in runs of which each is more than twice as large as the next."""
    kept = list(runs)
    while len(kept) > 1 and len(kept[-2].columns) <= 2 * len(kept[-1].columns):
        newer, older = kept.pop(), kept.pop()
        ids = np.sort(np.concatenate([older.ids, newer.ids]))
        kept.append(run_of(ids, unique(concat([older.columns, newer.columns]))))
    return tuple(kept)


class Held:
    """What one process holds of the young rows of one database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: tuple[Run, ...] = ()
        self._visible: Int64 | None = None
        """The batches of which the runs are exactly the samples, where that is known."""

    def read(self, visible: Int64, sizes: Int64, fetch: Fetch) -> tuple[tuple[Run, ...], Mapping[int, str]]:
        """(runs of exactly the visible batches, why some of them are damaged by id); raises Gone.

        `visible` are ids, sorted; `sizes` their numbers of samples.
        """
        with self._lock:
            if self._visible is not None and np.array_equal(self._visible, visible):
                return self._runs, {}
            runs = [run for run in self._runs if np.isin(run.ids, visible, assume_unique=True).all()]
            known = np.concatenate([run.ids for run in runs]) if runs else visible[:0]
            missing = np.setdiff1d(visible, known, assume_unique=True)
            damaged: Mapping[int, str] = {}
            if len(missing):
                new, damaged = _decoded(missing, fetch)
                if new is not None:
                    runs = list(merged([*runs, new]))
            kept = int(sizes.sum()) <= LIMIT
            self._runs = tuple(runs) if kept else ()
            self._visible = visible if kept and not damaged else None
            return tuple(runs), damaged


def _decoded(missing: Int64, fetch: Fetch) -> tuple[Run | None, Mapping[int, str]]:
    rows = sorted(fetch(missing.tolist()))
    if len(rows) != len(missing):
        raise Gone
    columns, counts = decode_batches([payload for _, payload in rows])
    damaged = {ident: count for (ident, _), count in zip(rows, counts, strict=True) if isinstance(count, str)}
    sound = {ident: count for (ident, _), count in zip(rows, counts, strict=True) if isinstance(count, int)}
    if not sound:
        return None, damaged
    ids = np.array(list(sound), dtype=np.int64)
    rank = np.repeat(ids, list(sound.values()))
    return run_of(ids, unique(Columns(columns.series, columns.ts, columns.v, rank))), damaged


_held: dict[str, Held] = {}


def held() -> Held:
    """What this process holds for the database in use."""
    name = str(connection.settings_dict["NAME"])
    return _held.get(name) or _held.setdefault(name, Held())


def forget() -> None:
    """Drop everything held: after the tables were emptied under this process."""
    _held.clear()
