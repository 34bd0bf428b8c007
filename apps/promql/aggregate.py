"""Aggregations over series: pure functions on matrices whose rows are sorted into groups."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from apps.promql.arrays import Floats, Index, Mask
from apps.promql.hashing import label_hashes
from apps.promql.labels import METADATA, STRINGS, Labels, group_numbers
from apps.promql.result import plain_number
from apps.promql.series import Vec
from apps.promql.windows import SCALE, cancelled, compensated, outside

_CANONICAL_NAN: Final = np.array([np.nan]).view(np.uint64)[0]
WIDE: Final = 8
"""From so many steps on a group is reduced by a call of its own: reduceat takes its columns one by one (7 times as
long at 241 steps)."""


class Groups:
    """Which rows of a vector belong together: `labels` of each group, rows in group order, where groups start."""

    __slots__ = ("drop", "labels", "order", "size", "starts", "stops", "vec")

    def __init__(self, vec: Vec, labels: tuple[str, ...], without: bool) -> None:
        kept = vec.labels.drop((*labels, *METADATA)) if without else vec.labels.keep(labels)
        self.vec = vec
        if vec.size == 1 or not kept.cols:
            first = np.zeros(min(vec.size, 1), dtype=np.int64)
            group = np.zeros(vec.size, dtype=np.int64)
        else:
            first, group = group_numbers(kept.hashes())
        self.size = len(first)
        self.labels = kept.take(first)
        self.order: Index | None = None
        if self.size == 1:
            counts = np.array([vec.size])
        else:
            counts = np.bincount(group, minlength=self.size)
            if (group[1:] < group[:-1]).any():
                self.order = np.argsort(group, kind="stable")
        self.stops = np.cumsum(counts)
        self.starts = self.stops - counts
        drop = vec.drop if self.order is None else vec.drop[self.order]
        self.drop: Mask = np.logical_or.reduceat(drop, self.starts) if self.size else np.zeros(0, dtype=np.bool_)

    @property
    def v(self) -> Floats:
        """The vector's values with rows in group order."""
        return self.vec.v if self.order is None else self.vec.v[self.order]

    @property
    def ok(self) -> Mask:
        """The vector's mask with rows in group order."""
        return self.vec.ok if self.order is None else self.vec.ok[self.order]

    def numbers(self) -> Index:
        """int64[S]: the row numbers of the vector in group order."""
        return np.arange(self.vec.size, dtype=np.int64) if self.order is None else self.order

    def each(self) -> Index:
        """int64[S]: the group of each row, in group order."""
        return np.repeat(np.arange(self.size, dtype=np.int64), self.stops - self.starts)

    def reduced(self, ufunc: np.ufunc, matrix: Floats) -> Floats:
        """ufunc.reduce over the rows of each group, float64[size, n]; the matrix has its rows in group order."""
        if matrix.shape[1] < WIDE:
            few: Floats = ufunc.reduceat(matrix, self.starts, axis=0)
            return few
        out = np.empty((self.size, matrix.shape[1]))
        for group, (start, stop) in enumerate(zip(self.starts.tolist(), self.stops.tolist(), strict=True)):
            ufunc.reduce(matrix[start:stop], axis=0, out=out[group])
        return out

    def sums(self, matrix: Floats) -> Floats:
        return self.reduced(np.add, matrix)

    def present(self, ok: Mask) -> Floats:
        """How many rows of each group are there, float64[size, n]; `ok` in group order."""
        if ok.all():
            return np.broadcast_to((self.stops - self.starts)[:, None].astype(np.float64), (self.size, ok.shape[1]))
        counts: Floats = np.add.reduceat(ok.view(np.int8), self.starts, axis=0, dtype=np.int64).astype(np.float64)
        return counts

    def alike(self) -> Iterator[tuple[Index, Index]]:
        """Groups of the same number of rows: (groups int64[g], positions int64[g, rows] in group order)."""
        counts = self.stops - self.starts
        for count in np.unique(counts).tolist():
            groups = np.flatnonzero(counts == count)
            yield groups, self.starts[groups][:, None] + np.arange(count)


def simple(op: str, groups: Groups) -> Vec:
    """sum, avg, min, max, count, group, stddev, stdvar."""
    ok = groups.ok
    full = bool(ok.all())
    present = groups.present(ok)
    some = present > 0
    if op == "count":
        return Vec(groups.labels, present, some, groups.drop)
    if op == "group":
        return Vec(groups.labels, np.ones(present.shape), some, groups.drop)
    v = groups.v
    with np.errstate(all="ignore"):
        if op in ("min", "max"):
            v = v if full else np.where(ok, v, np.nan)
            ufunc = np.fmin if op == "min" else np.fmax
            return Vec(groups.labels, groups.reduced(ufunc, v), some, groups.drop)
        v = v if full else np.where(ok, v, 0.0)
        if op == "sum":
            return Vec(groups.labels, _sum(groups, v), some, groups.drop)
        if op == "avg":
            return Vec(groups.labels, _average(groups, v, present), some, groups.drop)
        answer = _variance(groups, v, ok, present)
        return Vec(groups.labels, np.sqrt(answer) if op == "stddev" else answer, some, groups.drop)


def _sum(groups: Groups, v: Floats) -> Floats:
    """Sums per group; where the terms all but cancel out, once more and with compensation."""
    if len(v) == groups.size:
        return v
    total = groups.sums(v)
    if float(np.fmin.reduce(v, axis=None)) < 0:
        doubtful = cancelled(total, groups.sums(np.abs(v)))
        for some, positions, steps in _affected(groups, doubtful):
            again = compensated(np.moveaxis(v[positions][:, :, steps], 1, -1))
            cells = np.ix_(some, steps)
            total[cells] = np.where(doubtful[cells], again, total[cells])
    return total


def _affected(groups: Groups, cells: Mask) -> Iterator[tuple[Index, Index, Index]]:
    """Groups of the same size with a marked cell: (groups int64[g], positions int64[g, rows], steps int64[k])."""
    steps = np.flatnonzero(cells.any(axis=0))
    touched: Mask = np.any(cells, axis=1)
    if not len(steps):
        return
    for some, positions in groups.alike():
        these = touched[some]
        if these.any():
            yield some[these], positions[these], steps


def _average(groups: Groups, v: Floats, present: Floats) -> Floats:
    mean: Floats = _sum(groups, v) / present
    overflown = np.isinf(mean) & (present > 0)
    for some, positions, steps in _affected(groups, overflown):
        terms = v[positions][:, :, steps]
        cells = np.ix_(some, steps)
        scaled = (terms * SCALE).sum(axis=1) / present[cells] / SCALE
        mean[cells] = np.where(overflown[cells] & np.isfinite(terms).all(axis=1), scaled, mean[cells])
    return mean


def _variance(groups: Groups, v: Floats, ok: Mask, present: Floats) -> Floats:
    """Around each group's first present value, so that equal values give exactly 0."""
    each = groups.each()
    at = np.where(ok, np.arange(len(v))[:, None], len(v))
    origin_row = np.minimum.reduceat(at, groups.starts, axis=0)
    origin = np.take_along_axis(v, np.minimum(origin_row, len(v) - 1), axis=0)
    moved = np.where(ok, v - origin[each], 0.0)
    mean = groups.sums(moved) / present
    moved = np.where(ok, moved - mean[each], 0.0)
    variance: Floats = groups.sums(np.square(moved)) / present
    return variance


def quantile(groups: Groups, q: Floats) -> Vec:
    """quantile(q, …), q float64[n]; NaN is the smallest value."""
    v, ok = groups.v, groups.ok
    n = v.shape[1]
    out = np.zeros((groups.size, n))
    with np.errstate(all="ignore"):
        for some, positions in groups.alike():
            values, here = v[positions], ok[positions]
            nans = (np.isnan(values) & here).sum(axis=1)
            # Absent cells become NaN and sort last; NaN that is there becomes -Inf and sorts first.
            keys = np.where(here, np.where(np.isnan(values), -np.inf, values), np.nan)
            keys.sort(axis=1)
            size = here.sum(axis=1)
            rank = np.clip(np.nan_to_num(q), 0.0, 1.0) * (size - 1)
            lower = np.maximum(np.floor(rank), 0).astype(np.int64)
            upper = np.maximum(np.minimum(lower + 1, size - 1), 0)
            low = np.take_along_axis(keys, lower[:, None], axis=1)[:, 0]
            high = np.take_along_axis(keys, upper[:, None], axis=1)[:, 0]
            low = np.where(lower < nans, np.nan, low)
            high = np.where(upper < nans, np.nan, high)
            weight = rank - lower
            out[some] = outside(low * (1 - weight) + high * weight, q)
    return Vec(groups.labels, out, groups.present(ok) > 0, groups.drop)


def ranked(groups: Groups, k: Floats, *, largest: bool) -> Vec:
    """topk and bottomk: the same series with fewer cells present; k float64[n].

    With one step, rows come group by group in rank order, else in their own order. NaN ranks last; of equal
    values the earlier series wins.
    """
    if groups.vec.v.shape[1] == 1:
        return _ranked_once(groups, float(k[0]), largest=largest)
    v, ok = groups.v, groups.ok
    kept = np.zeros(v.shape, dtype=np.bool_)
    for _, positions in groups.alike():
        kept[positions] = _best(v[positions], ok[positions], k, largest=largest)
    mask = np.empty_like(kept)
    mask[groups.numbers()] = kept
    alive = np.flatnonzero(mask.any(axis=1))
    vec = groups.vec
    return Vec(vec.labels.take(alive), vec.v[alive], mask[alive], vec.drop[alive])


def _ranked_once(groups: Groups, k: float, *, largest: bool) -> Vec:
    """At a single step the order of the rows is part of the answer."""
    v, ok, numbers = groups.v, groups.ok, groups.numbers()
    chosen: list[tuple[int, list[int]]] = []
    for some, positions in groups.alike():
        order = rank_order(v[positions], ok[positions], largest=largest)[:, :, 0]
        for group, row_order, row_positions in zip(some.tolist(), order, positions, strict=True):
            ranks = row_positions[row_order]
            present = ranks[ok[ranks, 0]]
            chosen.append((group, numbers[present[: max(0, int(k))]].tolist()))
    rows = np.array([row for _, rows in sorted(chosen) for row in rows], dtype=np.int64)
    part = groups.vec.take(rows)
    return Vec(part.labels, part.v, part.ok, part.drop, ordered=True)


def _best(values: Floats, here: Mask, k: Floats, *, largest: bool) -> Mask:
    """bool[g, rows, n]: the cells of the k best of each group and step, found without sorting all of them."""
    rows = values.shape[1]
    numbers = here & ~np.isnan(values)
    keys = np.where(numbers, values if largest else -values, -np.inf)
    wanted = np.clip(k, 0, rows).astype(np.int64)
    most = int(wanted.max(initial=0))
    if not most:
        return np.zeros(values.shape, dtype=np.bool_)
    top = np.sort(np.partition(keys, rows - most, axis=1)[:, rows - most :], axis=1)
    taken = np.minimum(wanted, numbers.sum(axis=1))
    last = np.take_along_axis(top, np.minimum(most - taken, most - 1)[:, None], axis=1)
    better = numbers & (keys > last) & (taken > 0)[:, None]
    level = numbers & (keys == last)
    keep: Mask = better | _first(level, taken - better.sum(axis=1))
    short = wanted - taken
    return keep | _first(here & ~numbers, short) if short.any() else keep


def _first(cells: Mask, count: Index) -> Mask:
    """The first `count` int64[g, n] marked cells along axis 1."""
    first: Mask = cells & (np.cumsum(cells, axis=1) <= count[:, None])
    return first


def limited(groups: Groups, k: Floats) -> Vec:
    """limitk: the first k series that are present in each group at each step."""
    ok = groups.ok
    before: Index = np.cumsum(ok, axis=0, dtype=np.int64) - ok
    each = groups.each()
    kept = ok & (before - before[groups.starts][each] < k)
    mask = np.empty_like(kept)
    mask[groups.numbers()] = kept
    vec = groups.vec
    return Vec(vec.labels, vec.v, mask, vec.drop)


def sampled(vec: Vec, ratio: Floats) -> Vec:
    """limit_ratio: the series whose hash, as a number of [0, 1], lies below the ratio; a negative ratio takes those
    that 1 + ratio leaves out. ratio float64[n] within [-1, 1]. Groups do not matter."""
    labels = vec.labels.drop_where(METADATA, vec.drop) if vec.drop.any() else vec.labels
    place = label_hashes(labels.dicts()).astype(np.float64)[:, None] / 2.0**64
    ok = vec.ok & np.where(ratio >= 0, place < ratio, place >= 1 + ratio)
    return Vec(vec.labels, vec.v, ok, vec.drop)


def rank_order(values: Floats, here: Mask, *, largest: bool) -> Index:
    """Row numbers along axis 1 by value, NaN after all numbers, absent after NaN; stable."""
    keys = -values if largest else values
    keys = np.where(np.isnan(keys), np.inf, keys)
    last = np.where(here, np.isnan(values).astype(np.int8), np.int8(2))
    return np.lexsort((keys, last), axis=1)


def count_values(groups: Groups, label: str, check_cells: Callable[[int, int], None]) -> Vec:
    """One series for each distinct value, named by it in `label`, counting the series that have it.

    check_cells(series, steps) refuses what is too large before it is built: values may be as many as cells.
    """
    v, ok = groups.v, groups.ok
    n = v.shape[1]
    row, step = np.nonzero(ok)
    if not len(row):
        return Vec.empty(n)
    cells = v[row, step]
    bits = np.where(np.isnan(cells), _CANONICAL_NAN, cells.view(np.uint64))
    distinct, value = np.unique(bits, return_inverse=True)
    pair = groups.each()[row] * len(distinct) + value
    pairs, series = np.unique(pair, return_inverse=True)
    check_cells(len(pairs), n)
    counts = np.zeros((len(pairs), n))
    np.add.at(counts, (series, step), 1.0)
    group = pairs // len(distinct)
    texts = STRINGS.make([plain_number(x) for x in distinct.view(np.float64).tolist()])
    labels: Labels = groups.labels.take(group).replace(label, texts[pairs % len(distinct)])
    return Vec(labels, counts, counts > 0, groups.drop[group])
