"""The shapes in which samples and results travel: ragged samples, matrices with a presence mask, time grids."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from apps.promql.arrays import Floats, Index, Mask, Times
from apps.promql.labels import Labels, group_numbers

STALE_BITS: Final = np.uint64(0x7FF0000000000002)
STALE: Final = float(np.array([STALE_BITS], dtype=np.uint64).view(np.float64)[0])
"""The NaN that ends a series. Arithmetic does not keep the payload of a NaN: test bits, before any arithmetic."""


def stale_mask(v: Floats) -> Mask:
    """Which values are staleness markers."""
    mask: Mask = v.view(np.uint64) == STALE_BITS
    return mask


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """Buckets of S series, made of samples some of which are gone, one series after the other.

    A bucket covers (at - resolution, at]: at int64[B] ms, multiples of `resolution` ms, increasing within a series;
    series i owns off[i]:off[i + 1] of int64[S + 1]; columns float64[B] by field (apps.promql.rolled). Windows that
    begin before until[i], int64[S] ms, are answered from here: the samples up to there are gone.
    """

    resolution: int
    until: Times
    at: Times
    off: Index
    columns: Mapping[str, Floats]
    clock: Index | None = None

    def column(self, field: str) -> "Ragged":
        """One number of each bucket, as samples at the buckets' ends; without labels."""
        return Ragged(Labels.empty(len(self.until)), self.at, self.columns[field], self.off, clock=self.clock)

    def take(self, rows: Index) -> "Tier":
        """The series at these row numbers, in this order."""
        index, off = gather(self.off, rows)
        columns = {field: column[index] for field, column in self.columns.items()}
        clock = None if self.clock is None else self.clock[rows]
        return Tier(self.resolution, self.until[rows], self.at[index], off, columns, clock)

    def after(self, tmin: int) -> "Tier":
        """Without the buckets that no window after `tmin` looks at."""
        kept = self.at > tmin - 2 * self.resolution
        if kept.all():
            return self
        columns = {field: column[kept] for field, column in self.columns.items()}
        off = offsets(kept.astype(np.int64))[self.off]
        return Tier(self.resolution, self.until, self.at[kept], off, columns, self.clock)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Samples of S series, one series after the other.

    ts int64[N] milliseconds, strictly increasing within a series; v float64[N]; series i owns off[i]:off[i + 1]
    of int64[S + 1]. `clock` int64[S], when the store knows it, is equal only for series whose timestamp vectors
    are equal: window bounds are then computed once per clock. `tiers`, the finest first, answer where samples are
    gone; the coarser one wins where two say that they do.
    """

    labels: Labels
    ts: Times
    v: Floats
    off: Index
    warnings: tuple[str, ...] = ()
    clock: Index | None = None
    tiers: tuple[Tier, ...] = ()

    @classmethod
    def empty(cls, warnings: tuple[str, ...] = ()) -> "Ragged":
        return cls(
            Labels.empty(),
            np.zeros(0, dtype=np.int64),
            np.zeros(0, dtype=np.float64),
            np.zeros(1, dtype=np.int64),
            warnings,
        )

    @classmethod
    def concat(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Series of several sources after one another, none of which has tiers (the caller knows that no series is in
        two of them)."""
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        sizes = np.concatenate([part.counts for part in parts])
        return cls(
            Labels.concat([part.labels for part in parts]),
            np.concatenate([part.ts for part in parts]),
            np.concatenate([part.v for part in parts]),
            offsets(sizes),
            tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
        )

    @property
    def size(self) -> int:
        """How many series."""
        return len(self.off) - 1

    @property
    def counts(self) -> Index:
        """int64[S]: samples of each series."""
        return np.diff(self.off)

    @property
    def read(self) -> int:
        """How many numbers were read for it: samples, and each column of buckets."""
        return len(self.ts) + sum(len(tier.at) * len(tier.columns) for tier in self.tiers)

    def take(self, rows: Index) -> "Ragged":
        """The series at these row numbers, in this order."""
        index, off = gather(self.off, rows)
        clock = None if self.clock is None else self.clock[rows]
        tiers = tuple(tier.take(rows) for tier in self.tiers)
        return Ragged(self.labels.take(rows), self.ts[index], self.v[index], off, self.warnings, clock, tiers)

    def keep(self, samples: Mask) -> "Ragged":
        """The marked samples only; a series may end up with none, but stays."""
        before = np.zeros(len(samples) + 1, dtype=np.int64)
        np.cumsum(samples, out=before[1:])
        return Ragged(self.labels, self.ts[samples], self.v[samples], before[self.off], self.warnings, tiers=self.tiers)

    def between(self, tmin: int, tmax: int) -> "Ragged":
        """Samples with tmin < ts <= tmax of the series that have any there, or have buckets."""
        if len(self.ts) and tmin < int(self.ts.min()) and int(self.ts.max()) <= tmax:
            kept = self
        else:
            cut = self.keep((self.ts > tmin) & (self.ts <= tmax))
            # Equal timestamps stay equal when all are cut at the same times.
            tiers = tuple(tier.after(tmin) for tier in self.tiers)
            kept = Ragged(cut.labels, cut.ts, cut.v, cut.off, cut.warnings, self.clock, tiers)
        alive = np.flatnonzero(kept.counts + sum((np.diff(tier.off) for tier in kept.tiers), np.int64(0)))
        return kept if len(alive) == kept.size else kept.take(alive)

    def clocks(self) -> Index:
        """int64[S]: equal for series with equal timestamp vectors (the store's answer, or found by hashing)."""
        if self.clock is not None:
            return self.clock
        counts = self.counts
        hashes = np.zeros(self.size, dtype=np.uint64)
        longest = int(counts.max(initial=0))
        if longest:
            position = np.arange(len(self.ts), dtype=np.int64) - np.repeat(self.off[:-1], counts)
            weighted = self.ts.astype(np.uint64) * _weights(longest)[position]
            some = np.flatnonzero(counts)
            hashes[some] = np.add.reduceat(weighted, self.off[:-1][some])
        return group_numbers(hashes + counts.astype(np.uint64))[1]


def _weights(count: int) -> np.typing.NDArray[np.uint64]:
    """Fixed odd numbers: time is not an attacker's input in the way labels are, and equality is checked by count."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    odd: np.typing.NDArray[np.uint64] = mixed | np.uint64(1)
    return odd


def offsets(counts: Index) -> Index:
    """int64[S + 1] from the sizes of S series."""
    off = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=off[1:])
    return off


def gather(off: Index, rows: Index) -> tuple[Index, Index]:
    """(sample numbers of these rows one after the other, their new offsets)."""
    starts = off[rows]
    new = offsets(off[rows + 1] - starts)
    index = np.arange(new[-1], dtype=np.int64) + np.repeat(starts - new[:-1], np.diff(new))
    return index, new


@dataclass(frozen=True, slots=True)
class Grid:
    """Evaluation times start, start + step, … (n of them), milliseconds."""

    start: int
    step: int
    n: int

    @property
    def end(self) -> int:
        return self.start + self.step * (self.n - 1)

    def parts(self, most: int) -> Iterator["Grid"]:
        """The grid in pieces of at most that many steps."""
        for first in range(0, self.n, most):
            yield Grid(self.start + first * self.step, self.step, min(most, self.n - first))

    def times(self) -> Times:
        return np.arange(self.n, dtype=np.int64) * self.step + self.start


@dataclass(frozen=True, slots=True, eq=False)
class Vec:
    """An instant vector at every step of a grid.

    v float64[S, n] counts only where ok bool[S, n]: NaN is a legal value, so absence cannot be NaN.
    drop bool[S] marks series that lose their metric name when the query ends (delayed name removal).
    Immutable by agreement; v and ok may be broadcast views.
    """

    labels: Labels
    v: Floats
    ok: Mask
    drop: Mask
    ordered: bool = field(default=False)
    """The order of the rows is the answer of sort() or topk()."""

    @classmethod
    def empty(cls, n: int) -> "Vec":
        nothing = np.zeros((0, n))
        return cls(Labels.empty(), nothing, nothing.astype(np.bool_), np.zeros(0, dtype=np.bool_))

    @classmethod
    def lone(cls, v: Floats) -> "Vec":
        """One series without labels, float64[n]."""
        return cls(Labels.empty(1), v[None, :], np.ones((1, len(v)), dtype=np.bool_), np.zeros(1, dtype=np.bool_))

    @classmethod
    def concat(cls, parts: Sequence["Vec"]) -> "Vec":
        """The rows of vectors on the same grid after one another; at least one part."""
        return cls(
            Labels.concat([part.labels for part in parts]),
            np.concatenate([part.v for part in parts]),
            np.concatenate([part.ok for part in parts]),
            np.concatenate([part.drop for part in parts]),
        )

    @classmethod
    def beside(cls, parts: Sequence["Vec"]) -> "Vec":
        """One vector over all steps from vectors over some of them; within each, label sets are distinct."""
        if len(parts) == 1:
            return parts[0]
        together = Labels.concat([part.labels for part in parts])
        first, row = together.group()
        shape = (len(first), sum(part.v.shape[1] for part in parts))
        v, ok, drop = np.zeros(shape), np.zeros(shape, dtype=np.bool_), np.zeros(len(first), dtype=np.bool_)
        series = steps = 0
        for part in parts:
            rows = row[series : series + part.size]
            here = (rows, slice(steps, steps + part.v.shape[1]))
            v[here], ok[here] = part.v, part.ok
            drop[rows] |= part.drop
            series, steps = series + part.size, steps + part.v.shape[1]
        return cls(together.take(first), v, ok, drop)

    @property
    def size(self) -> int:
        return self.labels.size

    def take(self, rows: Index) -> "Vec":
        return Vec(self.labels.take(rows), self.v[rows], self.ok[rows], self.drop[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A number at every step: v float64[n]."""

    v: Floats


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal."""

    text: str
