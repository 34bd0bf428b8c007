"""From stored pieces to flat arrays: which samples of which series, in time order, each instant once.

Pure; the reader and compaction share it, so that what is rewritten is what would have been read. Pieces come with a
rank: where two hold a value for one (series, instant), the higher rank wins.
"""

import os
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, eq=False)
class Tombstone:
    """Samples that must not be seen: of the series ids int64[T] (sorted), t_min <= ts <= t_max (ms).

    Only those that were stored before: of young rows those of rank <= batch, of blocks those of rank <= round.
    """

    id: int
    ids: Int64
    t_min: int
    t_max: int
    batch: int
    round: int

    def of_buckets(self, resolution: int) -> "Tombstone":
        """The same for buckets of so many seconds, known by their ends: covered where any of their time is."""
        return replace(self, t_max=self.t_max + resolution * 1000 - 1) if resolution else self

    def among(self, series: Int64) -> Mask:
        """Which of these series it is about."""
        at = np.searchsorted(self.ids, series)
        at[at == len(self.ids)] = 0
        found: Mask = self.ids[at] == series
        return found

    def covers(self, series: Int64, ts: Int64, batch: Int64 | None) -> Mask:
        """Which of these samples it is about; `batch`: the row of the log of each, None: all old enough."""
        found: Mask = self.among(series) & (ts >= self.t_min) & (ts <= self.t_max)
        return found if batch is None else found & (batch <= self.batch)


class KeptPart:
    """What tombstones leave of a part."""

    __slots__ = ("_rank", "_ts", "_v", "clock", "counts", "rows")

    def __init__(self, part: Part, ids: Int64, stones: Sequence[Tombstone], dropped: "Tally[int] | None") -> None:
        """The part's rows are of the series `ids`. How many samples each tombstone takes is added to `dropped`."""
        off = offsets(part.counts)
        ts = np.empty(off[-1], dtype=np.int64)
        v = np.empty(off[-1], dtype=np.float64)
        part.fill(off[:-1], ts, v)
        rank = part.ranks()
        series = np.repeat(ids, part.counts)
        keep = np.ones(len(ts), dtype=np.bool_)
        for stone in stones:
            covered = stone.covers(series, ts, rank) & keep
            keep &= ~covered
            if dropped is not None:
                dropped[stone.id] += int(covered.sum())
        off = offsets(keep.astype(np.int64))[off]
        counts = np.diff(off)
        some = np.flatnonzero(counts)
        self._ts, self._v = ts[keep], v[keep]
        self._rank = None if rank is None else rank[keep]
        self.rows, self.counts = part.rows[some], counts[some]
        self.clock = vector_hashes(self._ts, offsets(self.counts), SALT)

    def fill(self, starts: Int64, ts: Int64, v: Float64) -> None:
        local = offsets(self.counts)
        target = np.arange(local[-1], dtype=np.int64) + np.repeat(starts - local[:-1], self.counts)
        ts[target], v[target] = self._ts, self._v

    def ranks(self) -> Int64 | None:
        return self._rank


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
    buried: Sequence[Tombstone] = (),
    dropped: "Tally[int] | None" = None,
) -> Assembled:
    """Samples with tmin < ts <= tmax (ms) of the wanted series from all pieces; raises Damaged.

    More than `most` samples are TooMany, raised before any of them is decoded. `check` is called between pieces, and
    raises what ends the reading. What a tombstone covers is left out, and counted in `dropped` by the tombstone's id.
    """
    size = len(wanted.ids)
    ordered = sorted(pieces, key=lambda piece: (piece.t_min, piece.rank))
    parts: list[Part] = [
        BlockPart(piece.body, wanted, tmin, tmax)
        if isinstance(piece.body, View)
        else RunPart(piece.body, wanted, tmin, tmax)
        for piece in ordered
    ]
    if buried:
        _within(sum(int(part.counts.sum()) for part in parts), most)
        parts = [_kept(part, piece, wanted, buried, dropped) for part, piece in zip(parts, ordered, strict=True)]
    totals = np.zeros(size, dtype=np.int64)
    clock = np.zeros(size, dtype=np.uint64)
    starts = []
    for part in parts:
        starts.append(totals[part.rows])
        totals[part.rows] += part.counts
        clock[part.rows] += part.clock
    off = offsets(totals)
    _within(int(off[-1]), most)
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


def _within(samples: int, most: int | None) -> None:
    if most is not None and samples > most:
        raise TooMany(
            f"the query reads {samples} samples, more than the limit of {most}: ask for fewer series or a shorter time"
        )


def _kept(part: Part, piece: Piece, wanted: Wanted, buried: Sequence[Tombstone], dropped: "Tally[int] | None") -> Part:
    """The part without what is buried of it; raises Damaged."""
    ids = wanted.ids[part.rows]
    if not len(ids):
        return part
    is_block = isinstance(piece.body, View)
    stones = [stone for stone in buried if not (is_block and piece.rank > stone.round) and stone.among(ids).any()]
    if not stones:
        return part
    try:
        return KeptPart(part, ids, stones, dropped)
    except Corrupt as error:
        raise Damaged(piece, str(error)) from error


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
