"""From stored pieces to flat arrays: which samples of which series, in time order, each instant once.

Pure; the reader and compaction share it, so that what is rewritten is what would have been read. Pieces come with a
rank: where two hold a value for one (series, instant), the higher rank wins.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from apps.metrics.codec import Corrupt, Float64, Int64, Sorted, UInt64, View, offsets, vector_hashes
from apps.promql.arrays import Mask
from apps.promql.errors import TooMany

SALT: Final = int.from_bytes(os.urandom(8), "little")
"""Timestamps come from outside: clock hashes of this process are not to be foreseen."""
COUNT_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
LONG: Final = 32
"""From so many samples a series on they are copied series by series instead of gathered by their numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """The series to read, ids int64[S] without repetition; their order is the order of the result."""

    ids: Int64
    sorted: Int64
    row: Int64

    @classmethod
    def of(cls, ids: Int64) -> "Wanted":
        order = np.argsort(ids, kind="stable")
        return cls(ids, ids[order], order)

    def find(self, series: Int64) -> tuple[Mask, Int64]:
        """(which of these are wanted, the result rows of those that are)."""
        at = np.searchsorted(self.sorted, series)
        at[at == len(self.sorted)] = 0
        hit: Mask = self.sorted[at] == series
        return hit, self.row[at[hit]]

    def among(self, series: Int64) -> tuple[Int64, Int64]:
        """(positions in these distinct, sorted ids of those that are wanted, their result rows)."""
        if len(self.ids) > len(series):
            hit, rows = self.find(series)
            return np.flatnonzero(hit), rows
        at = np.searchsorted(series, self.sorted)
        at[at == len(series)] = 0
        here = np.flatnonzero(series[at] == self.sorted)
        return at[here], self.row[here]


class Part(Protocol):
    """What one piece contributes: rows int64[k] (each once), counts int64[k] of samples, clock uint64[k]."""

    rows: Int64
    counts: Int64
    clock: UInt64

    def fill(self, starts: Int64, ts: Int64, v: Float64) -> None:
        """Write the samples of the k-th row at starts[k]… of the result."""

    def ranks(self) -> Int64 | None:
        """The rank of each sample, in the order of the rows; None when all have the piece's."""


class BlockPart:
    """The samples with tmin < ts <= tmax of the wanted series of one block."""

    __slots__ = ("chosen", "clock", "counts", "lo", "rows", "view")

    def __init__(self, view: View, wanted: Wanted, tmin: int, tmax: int) -> None:
        hit, rows = wanted.find(view.series)
        chosen = np.flatnonzero(hit)
        vec = view.vec[chosen]
        lo, hi = view.vectors.cut(tmin, tmax)
        counts = (hi - lo)[vec]
        if not counts.all():
            some = np.flatnonzero(counts)
            chosen, rows, counts, vec = chosen[some], rows[some], counts[some], vec[some]
        self.view = view
        self.chosen = chosen
        self.rows = rows
        self.counts = counts
        self.lo = lo[vec]
        self.clock = view.vectors.hashes(lo, hi, SALT)[vec]

    def fill(self, starts: Int64, ts: Int64, v: Float64) -> None:
        view, counts = self.view, self.counts
        if not len(counts):
            return
        local = offsets(counts)
        whole = len(counts) == len(view.series) and int(local[-1]) == int(view.off[-1])
        if whole and np.array_equal(starts - starts[0], local[:-1]):
            # One run of the result is this block as it stands: decode in place.
            begin = int(starts[0])
            at = np.arange(local[-1], dtype=np.int64) + np.repeat(self.lo - local[:-1], counts)
            np.take(view.vectors.times, at, out=ts[begin : begin + int(local[-1])])
            edges = (begin + view.off[view.chunk_off]).tolist()
            for number in range(len(edges) - 1):
                view.values(number, v[edges[number] : edges[number + 1]])
            return
        chunk = view.chunk[self.chosen]
        needed = np.unique(chunk)
        first, last = view.off[view.chunk_off[needed]], view.off[view.chunk_off[needed + 1]]
        places = offsets(last - first)
        values = np.empty(int(places[-1]), dtype=np.float64)
        for number, begin, end in zip(needed.tolist(), places[:-1].tolist(), places[1:].tolist(), strict=True):
            view.values(number, values[begin:end])
        at_chunk = np.searchsorted(needed, chunk)
        skipped = self.lo - view.vectors.off[view.vec[self.chosen]]
        source = places[at_chunk] + view.off[self.chosen] - first[at_chunk] + skipped
        if int(local[-1]) >= LONG * len(counts):
            runs = zip(starts.tolist(), (starts + counts).tolist(), self.lo.tolist(), source.tolist(), strict=True)
            times = view.vectors.times
            for begin, end, at_time, at_value in runs:
                ts[begin:end] = times[at_time : at_time + end - begin]
                v[begin:end] = values[at_value : at_value + end - begin]
            return
        steps = np.arange(local[-1], dtype=np.int64) - np.repeat(local[:-1], counts)
        target = steps + np.repeat(starts, counts)
        ts[target] = view.vectors.times[steps + np.repeat(self.lo, counts)]
        v[target] = values[steps + np.repeat(source, counts)]

    def ranks(self) -> None:
        return None


class RunPart:
    """The samples with tmin < ts <= tmax of the wanted series of young rows."""

    __slots__ = ("body", "clock", "counts", "lo", "rows")

    def __init__(self, body: Sorted, wanted: Wanted, tmin: int, tmax: int) -> None:
        chosen, rows = wanted.among(body.series)
        lo, hi = body.cut(chosen, tmin, tmax)
        counts = hi - lo
        if not counts.all():
            some = np.flatnonzero(counts)
            lo, hi, rows, counts = lo[some], hi[some], rows[some], counts[some]
        self.body = body
        self.rows = rows
        self.lo = lo
        self.counts = counts
        self.clock = body.hashes(lo, hi, SALT)

    def _index(self) -> Int64:
        local = offsets(self.counts)
        index: Int64 = np.arange(local[-1], dtype=np.int64) + np.repeat(self.lo - local[:-1], self.counts)
        return index

    def fill(self, starts: Int64, ts: Int64, v: Float64) -> None:
        columns, counts = self.body.columns, self.counts
        if int(counts.sum()) >= LONG * len(counts):
            runs = zip(starts.tolist(), (starts + counts).tolist(), self.lo.tolist(), strict=True)
            for begin, end, at in runs:
                ts[begin:end] = columns.ts[at : at + end - begin]
                v[begin:end] = columns.v[at : at + end - begin]
            return
        index = self._index()
        target = index + np.repeat(starts - self.lo, counts)
        ts[target] = columns.ts[index]
        v[target] = columns.v[index]

    def ranks(self) -> Int64 | None:
        rank = self.body.columns.rank
        return None if rank is None else rank[self._index()]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Something stored: a block's View or batches' samples (whose ranks add to it), and its earliest instant (ms)."""

    rank: int
    t_min: int
    body: View | Sorted
    name: str


class Damaged(Exception):
    """A piece that passed its checksum and still could not be decoded."""

    def __init__(self, piece: Piece, reason: str) -> None:
        super().__init__(f"{piece.name}: {reason}")
        self.piece = piece
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """Samples of S series in the order wanted: off int64[S + 1], ts int64[N] increasing within each, v float64[N].

    clock int64[S]: equal for equal timestamp vectors (of this process).
    """

    off: Int64
    ts: Int64
    v: Float64
    clock: Int64


def assemble(
    wanted: Wanted,
    pieces: Sequence[Piece],
    tmin: int,
    tmax: int,
    *,
    most: int | None = None,
    check: Callable[[], None] | None = None,
) -> Assembled:
    """Samples with tmin < ts <= tmax (ms) of the wanted series from all pieces; raises Damaged.

    More than `most` samples are TooMany, raised before any of them is decoded. `check` is called between pieces, and
    raises what ends the reading.
    """
    size = len(wanted.ids)
    ordered = sorted(pieces, key=lambda piece: (piece.t_min, piece.rank))
    parts: list[Part] = [
        BlockPart(piece.body, wanted, tmin, tmax)
        if isinstance(piece.body, View)
        else RunPart(piece.body, wanted, tmin, tmax)
        for piece in ordered
    ]
    totals = np.zeros(size, dtype=np.int64)
    clock = np.zeros(size, dtype=np.uint64)
    starts = []
    for part in parts:
        starts.append(totals[part.rows])
        totals[part.rows] += part.counts
        clock[part.rows] += part.clock
    off = offsets(totals)
    if most is not None and off[-1] > most:
        raise TooMany(
            f"the query reads {off[-1]} samples, more than the limit of {most}: ask for fewer series or a shorter time"
        )
    ts = np.empty(off[-1], dtype=np.int64)
    v = np.empty(off[-1], dtype=np.float64)
    for piece, part, before in zip(ordered, parts, starts, strict=True):
        if check is not None:
            check()
        try:
            part.fill(off[part.rows] + before, ts, v)
        except Corrupt as error:
            raise Damaged(piece, str(error)) from error
    disorder = _disordered(off, ts)
    if len(disorder):
        sources = list(zip([piece.rank for piece in ordered], parts, starts, strict=True))
        return _mended(off, ts, v, clock, disorder, sources)
    return Assembled(off, ts, v, _clock(clock, totals))


def _clock(hashes: UInt64, counts: Int64) -> Int64:
    return (hashes + counts.astype(np.uint64) * COUNT_FACTOR).view(np.int64)


def _disordered(off: Int64, ts: Int64) -> Int64:
    """Rows whose timestamps do not increase strictly."""
    back = np.flatnonzero(ts[1:] <= ts[:-1]) + 1
    if not len(back):
        return back
    row = np.searchsorted(off, back, "right") - 1
    return np.unique(row[off[row] != back])


def _mended(
    off: Int64,
    ts: Int64,
    v: Float64,
    clock: UInt64,
    rows: Int64,
    sources: Sequence[tuple[int, Part, Int64]],
) -> Assembled:
    """The same samples with these rows sorted by time, the highest rank kept of equal instants."""
    position = np.full(len(off) - 1, -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    counts = np.diff(off)[rows]
    local = offsets(counts)
    index = np.arange(local[-1], dtype=np.int64) + np.repeat(off[rows] - local[:-1], counts)
    rank = np.empty(local[-1], dtype=np.int64)
    for number, part, before in sources:
        mine = np.flatnonzero(position[part.rows] >= 0)
        length = part.counts[mine]
        begin = local[position[part.rows[mine]]] + before[mine]
        place = offsets(length)
        steps = np.arange(place[-1], dtype=np.int64)
        own = part.ranks()
        if own is not None:
            own = own[steps + np.repeat(offsets(part.counts)[mine] - place[:-1], length)]
        rank[steps + np.repeat(begin - place[:-1], length)] = number if own is None else number + own
    owner = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    order = np.lexsort((rank, ts[index], owner))
    sorted_ts = ts[index][order]
    last = np.append((sorted_ts[1:] != sorted_ts[:-1]) | (owner[1:] != owner[:-1]), True)
    ts[index] = sorted_ts
    v[index] = v[index][order]
    keep = np.ones(len(ts), dtype=np.bool_)
    keep[index] = last
    before_kept = offsets(keep.astype(np.int64))
    off = before_kept[off]
    ts = ts[keep]
    v = v[keep]
    new_counts = np.diff(off)
    mended = offsets(new_counts[rows])
    samples = np.arange(mended[-1], dtype=np.int64) + np.repeat(off[rows] - mended[:-1], new_counts[rows])
    clock = clock.copy()
    clock[rows] = vector_hashes(ts[samples], mended, SALT)
    return Assembled(off, ts, v, _clock(clock, new_counts))


Tombstone = tuple[Int64, int, int]
"""(ids of series, first ms, last ms) of samples that must not be seen."""


def unburied(series: Int64, ts: Int64, tombstones: Sequence[Tombstone]) -> Mask | None:
    """Which samples no tombstone covers; None when all are free."""
    if not tombstones:
        return None
    keep = np.ones(len(ts), dtype=np.bool_)
    for ids, begin, end in tombstones:
        keep &= ~(np.isin(series, ids) & (ts >= begin) & (ts <= end))
    return None if keep.all() else keep


def without_buried(got: Assembled, ids: Int64, tombstones: Sequence[Tombstone]) -> Assembled:
    """The same samples of the series `ids` but those that a tombstone covers."""
    keep = unburied(np.repeat(ids, np.diff(got.off)), got.ts, tombstones) if tombstones else None
    if keep is None:
        return got
    off = offsets(keep.astype(np.int64))[got.off]
    ts = got.ts[keep]
    return Assembled(off, ts, got.v[keep], _clock(vector_hashes(ts, off, SALT), np.diff(off)))
