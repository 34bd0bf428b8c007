"""Functions over range vectors: finds each window's samples without searching, computes all steps of a block at once.

Series that share their timestamps (one scrape of one target) are one matrix with one set of window bounds; the rest
is worked on as flat arrays, in blocks of rows that fit the processor's cache. The functions do not see the
difference: bounds are int64[1, n] in the first case and int64[rows, n] in the second, and everything broadcasts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from apps.promql.arrays import Floats, Index, Mask, Times
from apps.promql.series import Grid, Ragged, stale_mask

CELLS_PER_BLOCK: Final = 131_072
"""Rows x steps worked on at once: 1 MB a matrix."""
DENSE_CELLS: Final = 1_048_576
"""Samples of windows laid out side by side at once."""
SHARED_ROWS: Final = 8
"""From so many series on, a group with equal timestamps is worth its own pass."""
CANCELLATION: Final = 1e-5
"""A sum this much smaller than what went into it is computed again with Kahan's summation."""
OVERLAP: Final = 2
"""From so many windows on that hold each sample, on average, the least and greatest are shared between windows."""
SCALE: Final = 2.0**-64
"""Keeps the sum under an average finite; a power of two costs no digit."""

Check: TypeAlias = Callable[[], None]
"""Raises when the query's time is up; called between blocks."""
Answer: TypeAlias = tuple[Floats, Mask]
"""v float64 and ok bool, both broadcastable to [rows, n]."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows of some series at n steps.

    shared: v float64[rows, M] over ts int64[M]; else v and ts are flat and lo, hi count in them.
    Window (row, step) holds samples lo..hi - 1. `ends` int64[n] are the windows' ends, `at` int64[n] the evaluation
    times (they differ under offset and @), `width` the range in ms. Staleness markers are gone.
    """

    v: Floats
    ts: Times
    lo: Index
    hi: Index
    rows: int
    shared: bool
    ends: Times
    at: Times
    width: int

    def value(self, index: Index) -> Floats:
        """v of sample numbers shaped like lo: float64[rows, n]. Out of bounds is clipped: mask it."""
        taken: Floats = self.v.take(index[0], axis=1, mode="clip") if self.shared else self.v.take(index, mode="clip")
        return taken

    def time(self, index: Index) -> Times:
        """ts of sample numbers, int64[1 or rows, n]."""
        return self.ts.take(index, mode="clip")

    @property
    def count(self) -> Index:
        return self.hi - self.lo

    def reduce(self, ufunc: np.ufunc, v: Floats | None = None) -> Floats:
        """ufunc.reduce over each window, float64[rows, n]; garbage where the window is empty."""
        data = self.v if v is None else v
        if self.shared:
            return self._reduce_shared(ufunc, data)
        lo, hi = self.lo.ravel(), self.hi.ravel()
        bounds = np.empty(2 * len(lo), dtype=np.int64)
        bounds[::2], bounds[1::2] = lo, hi
        if len(hi) and int(hi.max()) >= len(data):
            data = np.append(data, 0.0)
        reduced: Floats = ufunc.reduceat(data, bounds)[::2].reshape(self.lo.shape)
        return reduced

    def _reduce_shared(self, ufunc: np.ufunc, data: Floats) -> Floats:
        lo, hi = self.lo[0], self.hi[0]
        bounds = np.empty(2 * len(lo), dtype=np.int64)
        bounds[::2], bounds[1::2] = lo, hi
        # Down the columns of the transposed matrix: one step of the reduction works on all rows at once.
        turned = np.zeros((data.shape[1] + 1, data.shape[0]))
        turned[:-1] = data.T
        reduced: Floats = ufunc.reduceat(turned, bounds, axis=0)[::2].T
        return reduced

    def dense(self) -> Iterator[tuple[tuple[Index | slice, Index], Floats, Times, Index]]:
        """Windows of equal length laid out side by side, in blocks.

        Gives (cell index into [rows, n], values float64[..., c], times int64[..., c], steps int64[...]), c >= 1.
        """
        if self.shared:
            count = self.count[0]
            for length in np.unique(count).tolist():
                steps = np.flatnonzero(count == length) if length else self.lo[:0, 0]
                tall = max(1, min(self.rows, DENSE_CELLS // max(1, length)))
                most = max(1, DENSE_CELLS // (max(1, length) * tall))
                for low in range(0, len(steps), most):
                    some = steps[low : low + most]
                    index = self.lo[0][some][:, None] + np.arange(length)
                    times = self.ts[index]
                    for top in range(0, self.rows, tall):
                        block = slice(top, top + tall)
                        yield (block, some), self.v[block, index], times, some
            return
        for rows, steps, index in self._cells(self.count > 0):
            yield (rows, steps), self.v[index], self.ts[index], steps

    def chosen(self, cells: Mask) -> Iterator[tuple[Index, Index, Floats]]:
        """The windows of some cells, bool[rows, n]: (rows int64[k], steps int64[k], values float64[k, c]) in blocks."""
        for rows, steps, index in self._cells(cells):
            yield rows, steps, self.v[rows[:, None], index] if self.shared else self.v[index]

    def _cells(self, cells: Mask) -> Iterator[tuple[Index, Index, Index]]:
        """(rows int64[k], steps int64[k], sample numbers int64[k, c]), windows of one length at a time."""
        rows, steps = np.nonzero(cells)
        at = np.zeros_like(rows) if self.shared else rows
        starts, lengths = self.lo[at, steps], self.count[at, steps]
        for length in np.unique(lengths).tolist():
            these = np.flatnonzero(lengths == length)
            most = max(1, DENSE_CELLS // max(1, length))
            for low in range(0, len(these), most):
                some = these[low : low + most]
                yield rows[some], steps[some], starts[some][:, None] + np.arange(length)


Function: TypeAlias = Callable[[Windows], Answer]


def evaluate(ragged: Ragged, ends: Grid, at: Grid, width: int, function: Function, check: Check) -> tuple[Floats, Mask]:
    """A window function over all series: (v float64[S, n], ok bool[S, n]) with n = ends.n.

    `ends` is the grid of the windows' ends, `at` that of the evaluation times. Where @ pins the windows to one time,
    `ends` has one step and the answer is repeated; for a function that looks at the evaluation time or has a
    parameter of its own at each step, `ends` is as long as `at`, with a step of 0.
    """
    size = ragged.size
    n = max(ends.n, at.n)
    if not size:
        return np.zeros((0, n)), np.zeros((0, n), dtype=np.bool_)
    if not len(ragged.ts):
        return np.zeros((size, n)), np.zeros((size, n), dtype=np.bool_)
    if size == 1:
        v, ok = function(_shared(ragged.v[None, :], ragged.ts, ends, at, width))
        return np.broadcast_to(v, (1, n)), np.broadcast_to(ok, (1, n))
    out = np.empty((size, n))
    present = np.empty((size, n), dtype=np.bool_)
    rest = np.arange(size, dtype=np.int64)
    if ends.n > 1:
        rest = _grouped(ragged, ends, at, width, function, check, out, present)
    if len(rest):
        _flat(ragged, rest, ends, at, width, function, check, out, present)
    return out, present


def _grouped(
    ragged: Ragged,
    ends: Grid,
    at: Grid,
    width: int,
    function: Function,
    check: Check,
    out: Floats,
    present: Mask,
) -> Index:
    """Series with shared timestamps, group by group; gives the rows that are left for the flat way."""
    clocks = ragged.clocks()
    order = np.argsort(clocks, kind="stable")
    ordered = clocks[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    stops = np.append(starts[1:], len(order))
    left = [order[low:high] for low, high in zip(starts, stops, strict=True) if high - low < SHARED_ROWS]
    most = max(SHARED_ROWS, CELLS_PER_BLOCK // ends.n)
    for low, high in zip(starts.tolist(), stops.tolist(), strict=True):
        if high - low < SHARED_ROWS:
            continue
        first = int(order[low])
        ts = ragged.ts[ragged.off[first] : ragged.off[first + 1]]
        if not len(ts):
            present[order[low:high]] = False
            continue
        for begin in range(low, high, most):
            rows = order[begin : min(begin + most, high)]
            check()
            v, ok = function(_shared(_matrix(ragged, rows, len(ts)), ts, ends, at, width))
            if rows[-1] - rows[0] == len(rows) - 1:
                out[rows[0] : rows[-1] + 1] = v
                present[rows[0] : rows[-1] + 1] = ok
            else:
                out[rows] = v
                present[rows] = ok
    return np.sort(np.concatenate(left)) if left else np.zeros(0, dtype=np.int64)


def _matrix(ragged: Ragged, rows: Index, length: int) -> Floats:
    """float64[rows, length] of series with the same number of samples; a view where they lie side by side."""
    starts = ragged.off[rows]
    if int(starts[-1] - starts[0]) == (len(rows) - 1) * length and int(rows[-1] - rows[0]) == len(rows) - 1:
        return ragged.v[starts[0] : starts[0] + len(rows) * length].reshape(len(rows), length)
    gathered: Floats = ragged.v[starts[:, None] + np.arange(length)]
    return gathered


def _shared(v: Floats, ts: Times, ends: Grid, at: Grid, width: int) -> Windows:
    times = ends.times()
    hi = ts.searchsorted(times, side="right")[None, :]
    lo = ts.searchsorted(times - width, side="right")[None, :]
    return Windows(v, ts, lo, hi, len(v), True, times, at.times() if at is not ends else times, width)


def _flat(
    ragged: Ragged,
    rows: Index,
    ends: Grid,
    at: Grid,
    width: int,
    function: Function,
    check: Check,
    out: Floats,
    present: Mask,
) -> None:
    most = max(1, CELLS_PER_BLOCK // ends.n)
    times, evaluated = ends.times(), at.times()
    whole = len(rows) == ragged.size
    for begin in range(0, len(rows), most):
        check()
        some = rows[begin : begin + most]
        if whole:
            low, high = int(ragged.off[begin]), int(ragged.off[begin + len(some)])
            ts, v = ragged.ts[low:high], ragged.v[low:high]
            off = ragged.off[begin : begin + len(some) + 1] - low
        else:
            part = ragged.take(some)
            ts, v, off = part.ts, part.v, part.off
        if not len(ts):
            present[some] = False
            continue
        lo, hi = bounds(ts, off, ends, width)
        block_v, block_ok = function(Windows(v, ts, lo, hi, len(some), False, times, evaluated, width))
        out[some], present[some] = block_v, block_ok


def bounds(ts: Times, off: Index, ends: Grid, width: int) -> tuple[Index, Index]:
    """(lo, hi) int64[S, n] of the windows (end - width, end]: sample numbers in ts, hi exclusive."""
    if ends.n == 1:
        return _upto(ts, off, ends.start - width), _upto(ts, off, ends.start)
    if not ends.step:
        lo, hi = bounds(ts, off, Grid(ends.start, 0, 1), width)
        return lo.repeat(ends.n, axis=1), hi.repeat(ends.n, axis=1)
    if width % ends.step == 0 and width // ends.step <= 2 * ends.n:
        # The lower bounds are the upper bounds of `width / step` steps earlier: one pass for both.
        back = width // ends.step
        upto = _scatter(ts, off, Grid(ends.start - width, ends.step, ends.n + back))
        return upto[:, : ends.n], upto[:, back:]
    lower = Grid(ends.start - width, ends.step, ends.n)
    return _scatter(ts, off, lower), _scatter(ts, off, ends)


def _upto(ts: Times, off: Index, time: int) -> Index:
    """int64[S, 1]: one past each series' last sample at or before a time."""
    if not len(ts):
        return off[:-1, None].copy()
    if int(ts.min()) > time:
        return off[:-1, None]
    if int(ts.max()) <= time:
        return off[1:, None]
    before = np.zeros(len(ts) + 1, dtype=np.int64)
    np.cumsum(ts <= time, out=before[1:])
    return (off[:-1] + before[off[1:]] - before[off[:-1]])[:, None]


def _scatter(ts: Times, off: Index, grid: Grid) -> Index:
    """The same for each step of a grid, int64[S, n]: every sample writes its number where its step begins."""
    rows = len(off) - 1
    width = grid.n + 1
    step = (ts - grid.start + (grid.step - 1)) // grid.step
    np.clip(step, 0, grid.n, out=step)
    step += np.repeat(np.arange(rows, dtype=np.int64) * width, np.diff(off))
    out = np.zeros(rows * width, dtype=np.int64)
    out[::width] = off[:-1]
    out[step] = np.arange(1, len(ts) + 1, dtype=np.int64)  # the last write wins: samples ascend in time
    table = out.reshape(rows, width)
    np.maximum.accumulate(table, axis=1, out=table)
    return table[:, : grid.n]


# -- instant selectors -----------------------------------------------------------------------------------------------


def newest(windows: Windows) -> Answer:
    """The last sample of the lookback window; a staleness marker there ends the series."""
    last = windows.hi - 1
    v = windows.value(last)
    return v, (windows.count > 0) & ~stale_mask(v)


def newest_time(windows: Windows) -> Answer:
    """The timestamp of that sample in seconds."""
    last = windows.hi - 1
    seconds = windows.time(last) / 1000
    return seconds, (windows.count > 0) & ~stale_mask(windows.value(last))


# -- counters and gauges ---------------------------------------------------------------------------------------------


def extrapolated(windows: Windows, *, counter: bool, per_second: bool) -> Answer:
    """rate, increase and delta, with Prometheus' extrapolation to the window's edges."""
    last = windows.hi - 1
    first = windows.value(windows.lo)
    with np.errstate(all="ignore"):
        increase = windows.value(last)
        increase -= first
        if counter:
            _add_resets(windows, increase)
    seen = Seen(first, windows.time(windows.lo), windows.time(last), windows.count)
    stretched(increase, seen, windows.ends, windows.width, counter=counter, per_second=per_second)
    return increase, windows.count >= 2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Of each window: its first value, when its first and last samples were taken (ms), and how many it has."""

    first: Floats
    start: Times | Floats
    stop: Times | Floats
    count: Index | Floats


def stretched(increase: Floats, seen: Seen, ends: Times, width: int, *, counter: bool, per_second: bool) -> None:
    """What was added between the first and last samples of windows becomes, in place, what the whole windows saw.

    increase float64[rows, n], for counters with their resets; ends int64[n] and width of the windows in ms.
    """
    first, start, stop = seen.first, seen.start, seen.stop
    with np.errstate(all="ignore"):
        spanned = (stop - start) / 1000
        spacing = spanned / (seen.count - 1)
        to_start = (start - (ends - width)) / 1000
        to_end = (ends - stop) / 1000
        to_start = np.where(to_start >= spacing * 1.1, spacing / 2, to_start)
        to_end = np.where(to_end >= spacing * 1.1, spacing / 2, to_end)
        divisor = width / 1000 if per_second else 1.0
        if not counter:
            increase *= (spanned + to_start + to_end) / spanned / divisor
            return
        # A counter is not extrapolated below zero: the part before the first sample is at most its value.
        before = increase * (to_start / spanned)
        clamped = np.minimum(before, first)
        if (first < 0).any():
            clamped = np.where(first < 0, before, clamped)
        increase *= (spanned + to_end) / spanned
        increase += clamped
        if divisor != 1.0:
            increase /= divisor


def _add_resets(windows: Windows, increase: Floats) -> None:
    """Adds what counters lost in resets inside each window; only rows that have any are looked at."""
    v = windows.v
    if windows.shared:
        falls = v[:, 1:] < v[:, :-1]
        rows = np.flatnonzero(falls.any(axis=1))
        if not len(rows):
            return
        lost: Floats = np.zeros((len(rows), v.shape[1]))
        lost[:, 1:] = np.where(falls[rows], v[rows, :-1], 0.0)
        increase[rows] += _after_first(windows, lost)
        return
    falls = v[1:] < v[:-1]
    if not falls.any():
        return
    lost = np.zeros(len(v))
    lost[1:] = np.where(falls, v[:-1], 0.0)
    # A fall across the border of two series is never inside a window, for windows start after their first sample.
    falling = np.zeros(len(v) + 1, dtype=np.int64)
    np.cumsum(lost != 0, out=falling[1:])
    low = np.minimum(windows.lo + 1, windows.hi)
    cells = np.flatnonzero((falling[windows.hi] > falling[low]).ravel())
    if len(cells):
        pairs = np.empty(2 * len(cells), dtype=np.int64)
        pairs[::2], pairs[1::2] = low.ravel()[cells], windows.hi.ravel()[cells]
        increase.ravel()[cells] += np.add.reduceat(np.append(lost, 0.0), pairs)[::2]


def lost(windows: Windows) -> Answer:
    """What a counter lost in resets inside each window."""
    total = np.zeros((windows.rows, windows.lo.shape[1]))
    _add_resets(windows, total)
    return total, windows.count >= 1


def _after_first(windows: Windows, lost: Floats) -> Floats:
    """Sums over lo + 1..hi of a shared block's rows."""
    return sums_after_first(replace(windows, v=lost, rows=len(lost)))[0]


def sums_after_first(windows: Windows) -> Answer:
    """The sum of all samples of each window but the first."""
    low = np.minimum(windows.lo + 1, windows.hi)
    total = replace(windows, lo=low).reduce(np.add)
    return np.where(windows.hi > low, total, 0.0), windows.count >= 1


def instant_rate(windows: Windows, *, counter: bool) -> Answer:
    """irate and idelta: the last two samples of the window."""
    last = windows.hi - 1
    newer, older = windows.value(last), windows.value(last - 1)
    ok = windows.count >= 2
    with np.errstate(all="ignore"):
        if not counter:
            return newer - older, ok
        seconds = (windows.time(last) - windows.time(last - 1)) / 1000
        return np.where(newer < older, newer, newer - older) / seconds, ok & (seconds != 0)


def _transitions(windows: Windows, happened: Mask) -> Answer:
    """How often `happened` (about a sample and the one before it, first column meaningless) inside each window."""
    before: Index = np.zeros((*happened.shape[:-1], happened.shape[-1] + 1), dtype=np.int64)
    np.cumsum(happened, axis=-1, out=before[..., 1:])
    low = np.minimum(windows.lo + 1, windows.hi)
    counts = before[:, windows.hi[0]] - before[:, low[0]] if windows.shared else before[windows.hi] - before[low]
    return counts.astype(np.float64), windows.count >= 1


def changes(windows: Windows) -> Answer:
    v = windows.v
    happened = np.zeros(v.shape, dtype=np.bool_)
    newer, older = v[..., 1:], v[..., :-1]
    happened[..., 1:] = (newer != older) & ~(np.isnan(newer) & np.isnan(older))
    return _transitions(windows, happened)


def resets(windows: Windows) -> Answer:
    v = windows.v
    happened = np.zeros(v.shape, dtype=np.bool_)
    happened[..., 1:] = v[..., 1:] < v[..., :-1]
    return _transitions(windows, happened)


# -- over time -------------------------------------------------------------------------------------------------------


def sums(windows: Windows) -> Answer:
    ok = windows.count >= 1
    with np.errstate(all="ignore"):
        total = windows.reduce(np.add)
        if windows.v.size and float(np.fmin.reduce(windows.v, axis=None)) < 0:
            doubtful = ok & cancelled(total, windows.reduce(np.add, np.abs(windows.v)))
            if doubtful.any():
                total = total.copy()
                for rows, steps, values in windows.chosen(doubtful):
                    total[rows, steps] = compensated(values)
    return total, ok


def cancelled(total: Floats, size: Floats) -> Mask:
    """Where a sum is so much smaller than the sum of its absolute values that rounding may show."""
    doubtful: Mask = (np.abs(total) < CANCELLATION * size) & np.isfinite(size)
    return doubtful


def compensated(values: Floats) -> Floats:
    """Sums along the last axis by Kahan's algorithm with Neumaier's improvement, as Prometheus sums."""
    total = np.zeros(values.shape[:-1])
    lost = np.zeros(values.shape[:-1])
    for i in range(values.shape[-1]):
        term = values[..., i]
        after = total + term
        larger = np.abs(total) >= np.abs(term)
        lost += np.where(larger, (total - after) + term, (term - after) + total)
        total = after
    return total + lost


def averages(windows: Windows) -> Answer:
    total, ok = sums(windows)
    with np.errstate(all="ignore"):
        mean = total / windows.count
        overflown = ok & np.isinf(mean)
        if overflown.any():
            mean = mean.copy()
            for rows, steps, values in windows.chosen(overflown):
                scaled = (values * SCALE).mean(axis=-1) / SCALE
                mean[rows, steps] = np.where(np.isfinite(values).all(axis=-1), scaled, mean[rows, steps])
    return mean, ok


def minima(windows: Windows) -> Answer:
    return _extremes(windows, np.fmin), windows.count >= 1


def maxima(windows: Windows) -> Answer:
    return _extremes(windows, np.fmax), windows.count >= 1


def _extremes(windows: Windows, ufunc: np.ufunc) -> Floats:
    """fmin or fmax over each window, float64[rows, n]; garbage where the window is empty.

    Windows that overlap are put together from the answers for stretches of 1, 2, 4, … samples: two of them, which
    may overlap, cover a window of any length.
    """
    data, count = windows.v, windows.count
    with np.errstate(all="ignore"):
        if int(count.sum()) < OVERLAP * data.shape[-1]:
            return windows.reduce(ufunc)
        out = np.zeros((windows.rows, count.shape[1]))
        level = np.frexp(count)[1] - 1  # the largest power of two in each length; -1 where there is nothing
        for power in range(int(level.max()) + 1):
            size = 1 << power
            if power:
                data = ufunc(data[..., : -size // 2], data[..., size // 2 :])
            here = level == power
            if windows.shared:
                steps = np.flatnonzero(here[0])
                low, high = windows.lo[0, steps], windows.hi[0, steps] - size
                out[:, steps] = ufunc(data.take(low, axis=1), data.take(high, axis=1))
            else:
                out[here] = ufunc(data[windows.lo[here]], data[windows.hi[here] - size])
    return out


def counts(windows: Windows) -> Answer:
    return windows.count.astype(np.float64), windows.count >= 1


def presence(windows: Windows) -> Answer:
    return np.ones(windows.lo.shape), windows.count >= 1


def last(windows: Windows) -> Answer:
    return windows.value(windows.hi - 1), windows.count >= 1


def first(windows: Windows) -> Answer:
    return windows.value(windows.lo), windows.count >= 1


def first_time(windows: Windows) -> Answer:
    return windows.time(windows.lo) / 1000, windows.count >= 1


def last_time(windows: Windows) -> Answer:
    return windows.time(windows.hi - 1) / 1000, windows.count >= 1


Dense: TypeAlias = Callable[[Floats, Times, Index], Floats]
"""(values [..., c], times [..., c], steps [...]) -> one number a window."""


def by_window(windows: Windows, function: Dense, least: int = 1) -> Answer:
    """A function that needs all samples of a window side by side."""
    n = windows.lo.shape[1]
    out = np.zeros((windows.rows, n))
    with np.errstate(all="ignore"):
        for cell, values, times, steps in windows.dense():
            if values.shape[-1] >= least:
                out[cell] = function(values, times, steps)
    return out, windows.count >= least


def variance(values: Floats, _times: Times, _steps: Index) -> Floats:
    """Around the first sample, so that equal samples give exactly 0."""
    moved = values - values[..., :1]
    moved -= moved.mean(axis=-1, keepdims=True)
    squares: Floats = np.square(moved, out=moved).mean(axis=-1)
    return squares


def deviation(values: Floats, times: Times, steps: Index) -> Floats:
    return np.sqrt(variance(values, times, steps))


def sorted_quantile(values: Floats, q: Floats) -> Floats:
    """The q-quantile along the last axis; NaN counts as the smallest value, as in Prometheus.

    q is as wide as values[..., 0].
    """
    size = values.shape[-1]
    ordered = np.sort(values, axis=-1)
    nans = np.isnan(values).sum(axis=-1)
    rank = np.clip(np.nan_to_num(q), 0.0, 1.0) * (size - 1)
    lower = np.floor(rank)
    weight = rank - lower
    low = np.broadcast_to(lower.astype(np.int64), nans.shape)
    high = np.minimum(low + 1, size - 1)
    # np.sort puts NaN last: turn the ring so that they come first.
    below = np.take_along_axis(ordered, ((low - nans) % size)[..., None], axis=-1)[..., 0]
    above = np.take_along_axis(ordered, ((high - nans) % size)[..., None], axis=-1)[..., 0]
    mixed = below * (1 - weight) + above * weight
    return outside(mixed, q)


def outside(v: Floats, q: Floats) -> Floats:
    """v where q is a quantile; -Inf, +Inf or NaN where it lies below 0, above 1 or is none."""
    return np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.where(q > 1, np.inf, v)))


def quantiles(windows: Windows, q: Floats) -> Answer:
    """quantile_over_time; q float64[n]."""

    def at_steps(values: Floats, _times: Times, steps: Index) -> Floats:
        return sorted_quantile(values, q[steps])

    return by_window(windows, at_steps)


def absolute_deviation(values: Floats, _times: Times, _steps: Index) -> Floats:
    """The median of the distances from the median."""
    median = np.median(values, axis=-1, keepdims=True)
    result: Floats = np.median(np.abs(values - median), axis=-1)
    return result


def extreme_times(windows: Windows, *, largest: bool) -> Answer:
    """ts_of_max_over_time and ts_of_min_over_time."""
    return by_window(windows, lambda v, ts, _steps: _extreme_time(v, ts, largest=largest))


def _extreme_time(values: Floats, times: Times, *, largest: bool) -> Floats:
    """When the last of the largest (smallest) samples was taken, in seconds; NaN only wins where all are NaN."""
    ranked = np.where(np.isnan(values), -np.inf, values if largest else -values)
    # All-NaN windows and windows of -Inf agree on the last sample.
    reversed_at = np.argmax(ranked[..., ::-1], axis=-1)
    at = values.shape[-1] - 1 - reversed_at
    picked = np.take_along_axis(np.broadcast_to(times, values.shape), at[..., None], axis=-1)[..., 0]
    return np.asarray(picked / 1000, dtype=np.float64)


def regression(values: Floats, times: Times, origin: Times | Floats) -> tuple[Floats, Floats]:
    """(slope per second, value at `origin` ms) of the least-squares line; a constant window is exactly flat.

    Any infinity makes both NaN, as in Prometheus.
    """
    x = (times - times[..., :1]) / 1000
    mean_x = x.mean(axis=-1, keepdims=True)
    x = x - mean_x
    moved = values - values[..., :1]
    mean_y = moved.mean(axis=-1)
    slope = (x * moved).sum(axis=-1) / np.square(x).sum(axis=-1)
    slope = np.where(np.isfinite(slope), slope, np.nan)
    distance = (origin - times[..., 0]) / 1000 - mean_x[..., 0]
    return slope, values[..., 0] + mean_y + slope * distance


def derivatives(windows: Windows) -> Answer:
    return by_window(windows, lambda v, ts, _steps: regression(v, ts, ts[..., 0])[0], least=2)


def predictions(windows: Windows, ahead: Floats) -> Answer:
    """predict_linear: counts from the evaluation time, also where @ or offset moved the window."""
    targets = windows.at + ahead * 1000
    return by_window(windows, lambda v, ts, steps: regression(v, ts, targets[steps])[1], least=2)


def smoothed(windows: Windows, factor: Floats, trend: Floats) -> Answer:
    """double_exponential_smoothing; both factors float64[n]."""
    return by_window(windows, lambda v, _ts, steps: _smoothing(v, factor[steps], trend[steps]), least=2)


def _smoothing(values: Floats, factor: Floats, trend: Floats) -> Floats:
    """Holt's double exponential smoothing along the last axis; factor and trend as wide as values[..., 0]."""
    level = values[..., 0]
    before = level
    slope = values[..., 1] - values[..., 0]
    for i in range(1, values.shape[-1]):
        if i > 1:
            slope = trend * (level - before) + (1 - trend) * slope
        before, level = level, factor * values[..., i] + (1 - factor) * (level + slope)
    return level
