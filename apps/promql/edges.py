"""anchored and smoothed: windows that also look at the samples just before and just after them.

Prometheus calls these extended range selectors. anchored takes the newest sample at or before the window's start,
smoothed interpolates the value at both ends; both look as far as the lookback, and nothing is extrapolated.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from apps.promql import windows
from apps.promql.arrays import Floats, Index, Mask
from apps.promql.ast import Edges
from apps.promql.series import Grid, Ragged

CELLS: Final = 262_144
"""Series x steps worked on at once: a dozen matrices of 2 MB."""


class Look(NamedTuple):
    """The windows of some series: (end - width, end] for each end, seen from the evaluation times `at`."""

    ragged: Ragged
    ends: Grid
    at: Grid
    width: int
    lookback: int
    check: windows.Check

    @property
    def n(self) -> int:
        return max(self.ends.n, self.at.n)

    def over(self, function: windows.Function, width: int, shift: int = 0) -> tuple[Floats, Mask]:
        """A function over other windows, of `width` and `shift` ms later: (v, ok), both [S, n]."""
        ends = Grid(self.ends.start + shift, self.ends.step, self.ends.n)
        return windows.evaluate(self.ragged, ends, self.at, width, function, self.check)

    def inside(self, function: windows.Function) -> tuple[Floats, Mask]:
        return self.over(function, self.width)

    def before(self, function: windows.Function = windows.last) -> tuple[Floats, Mask]:
        """Of the newest sample at or before the window's start."""
        return self.over(function, self.lookback, -self.width)

    def after(self, function: windows.Function = windows.first) -> tuple[Floats, Mask]:
        """Of the oldest sample after the window's end."""
        return self.over(function, self.lookback, self.lookback)

    def blocks(self) -> Iterator[tuple[slice, "Look"]]:
        """The same for some series at a time."""
        size = max(1, CELLS // max(1, self.n))
        for low in range(0, self.ragged.size, size):
            rows: Index = np.arange(low, min(low + size, self.ragged.size), dtype=np.int64)
            yield slice(low, low + len(rows)), self._replace(ragged=self.ragged.take(rows))


def over_windows(name: str, edges: Edges, look: Look) -> tuple[Floats, Mask]:
    """rate, increase, delta, changes or resets: (v float64[S, n], ok bool[S, n]).

    The samples are without staleness markers and reach the lookback further than the windows, on both sides.
    """
    v = np.zeros((look.ragged.size, look.n))
    ok = np.zeros(v.shape, dtype=np.bool_)
    with np.errstate(all="ignore"):
        for rows, part in look.blocks():
            if name in ("changes", "resets"):
                v[rows], ok[rows] = _transitions(name, part)
            else:
                v[rows], ok[rows] = _difference(part, edges, counter=name != "delta")
        if name == "rate":
            v /= look.width / 1000
    return v, ok


def at_once(look: Look) -> tuple[Floats, Mask]:
    """A smoothed instant selector: between two samples on the line through them, after the last one its value."""
    v = np.zeros((look.ragged.size, look.n))
    ok = np.zeros(v.shape, dtype=np.bool_)
    with np.errstate(all="ignore"):
        for rows, part in look.blocks():
            value, ok[rows] = part.before()
            time, _ = part.before(windows.last_time)
            after, has_after = part.after()
            after_time, _ = part.after(windows.first_time)
            here = _seconds(part.ends)
            between = _interpolated(value, time, after, after_time, here, counter=False)
            v[rows] = np.where(has_after & (time < here), between, value)
    return v, ok


def _seconds(grid: Grid, shift: int = 0) -> Floats:
    return (grid.times() + shift) / 1000


def _interpolated(v1: Floats, t1: Floats, v2: Floats, t2: Floats, at: Floats, *, counter: bool) -> Floats:
    """The value at a time between two samples; a counter that fell between them began at 0."""
    if counter:
        v1 = np.where(v2 < v1, 0.0, v1)
    return v1 + (v2 - v1) * (at - t1) / (t2 - t1)


def _transitions(name: str, look: Look) -> tuple[Floats, Mask]:
    """changes and resets, where the step from the sample before the window to its first one counts."""
    counts, ok = look.inside(windows.changes if name == "changes" else windows.resets)
    first, _ = look.inside(windows.first)
    before, has_before = look.before()
    other = (first != before) & ~(np.isnan(first) & np.isnan(before))
    return counts + (has_before & (other if name == "changes" else first < before)), ok


def _difference(look: Look, edges: Edges, *, counter: bool) -> tuple[Floats, Mask]:
    """From the left edge to the right one, resets of a counter made good."""
    first, ok = look.inside(windows.first)
    last, _ = look.inside(windows.last)
    before, has_before = look.before()
    left, right, present = np.where(has_before, before, first), last, ok
    if edges == "smoothed":
        left, right, present = _smoothed(look, (first, last, ok), (before, has_before), counter=counter)
    change = right - left
    if counter:
        lost, _ = look.inside(windows.lost)
        within = np.where(first < left, left, 0.0) + lost + np.where(right < last, last, 0.0)
        change += np.where(ok, within, np.where(right < left, left, 0.0))
    return change, present


def _smoothed(
    look: Look, inner: tuple[Floats, Floats, Mask], outer: tuple[Floats, Mask], *, counter: bool
) -> tuple[Floats, Floats, Mask]:
    """(value at the left edge, at the right edge, which windows have both); inner: the first and last sample inside
    and where there is one; outer: the sample before and where there is one."""
    first, last, ok = inner
    before, has_before = outer
    before_time, _ = look.before(windows.last_time)
    after, has_after = look.after()
    after_time, _ = look.after(windows.first_time)
    start, end = _seconds(look.ends, -look.width), _seconds(look.ends)
    next_time = np.where(ok, look.inside(windows.first_time)[0], after_time)
    rising = _interpolated(before, before_time, np.where(ok, first, after), next_time, start, counter=counter)
    left = np.where(has_before, np.where(before_time < start, rising, before), first)
    newest = np.where(ok, last, before)
    newest_time = np.where(ok, look.inside(windows.last_time)[0], before_time)
    ending = _interpolated(newest, newest_time, after, after_time, end, counter=counter)
    right = np.where(has_after & (newest_time < end), ending, newest)
    return left, right, ok | (has_before & has_after)
