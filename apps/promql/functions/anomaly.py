"""Anomaly scores of one series as it streams by: what a point is scored depends on nothing that comes after it.

`detect` looks at a series in several ways: its value, its step away from the last few, its short average, its
restlessness, and, where days resemble each other, its distance from the same time of earlier days. Of each it asks how
improbable the newest is among those before, with a tail fitted to the largest of them: peaks over threshold (Siffer et
al., Anomaly Detection in Streams with Extreme Value Theory, KDD 2017). The most improbable is the score, so a series
that is wild by nature needs more to surprise than a calm one, and one setting serves all. An anomaly is told once: while
it lasts, and for some time after, only what is much more improbable is told again.

It says that something happened; whether a value is wrong now is for a band to say (apps.alerting.bands).
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Floats: TypeAlias = npt.NDArray[np.float64]
Index: TypeAlias = npt.NDArray[np.int64]

WARM_UP: Final = 100
"""Points before the first score."""

BLOCK: Final = 64
"""Points that are scored by the tails of what came before the first of them."""

MEMORY: Final = 6_400
"""Points that a tail remembers."""

TAIL: Final = 0.02
"""Share of the remembered values that make the tail, of which there are at least ten."""

HEAVIEST: Final = 0.4
"""Bound of the tail's shape (the generalised Pareto distribution's xi); its lower bound is the exponential tail's 0."""

BREADTH: Final = 0.3
"""The tail's scale is at least this share of the distance from the median to where it begins."""

HALF: Final = 3.2
"""A probability of 10 to the minus this scores one half; each further time as many decades halve what lacks to 1."""

DECADES: Final = 12.0
"""Nothing counts as more improbable than 10 to the minus this."""

AGAIN: Final = 1.0
"""By how many decades something must be more improbable to be told again while an anomaly is fresh."""

NEWS: Final = 1.5
"""Decades from which on a point makes those after it old news."""

REST: Final = (30, 200)
"""Points for which an anomaly is fresh: a sixteenth of those seen so far, within these bounds."""

DAY_MS: Final = 86_400_000
DAYS: Final = 7
"""Earlier days that a time of day is compared with; two of them are needed."""

ALIKE: Final = 0.67
"""Days resemble each other where the distances from earlier days are at most this share of those from the median."""

SEASON_WEIGHT: Final = 0.8
"""What a decade of a seasonal view counts."""

_FEW, _SHORT, _LONG = 5, 12, 24
_COUNTER_LEAST = 20
_DECADE = float(np.log(10))


def detect(timestamps_ms: npt.ArrayLike, values: npt.ArrayLike) -> Floats:
    """Score each point of a series: float64[n] in [0, 1], more is more anomalous, 0 is nothing new, from 0.5 on look.

    `timestamps_ms` int[n] ascending, in any steps; `values` float[n], NaN and infinite ones are missing and score 0.
    What only grows, but for resets, is taken for a counter and scored by its rate. Streaming, to the bit:
    `detect(t[:k], v[:k]) == detect(t, v)[:k]`. ValueError where the two are not lists of one length.
    """
    ts = np.asarray(timestamps_ms, dtype=np.int64)
    v = np.asarray(values, dtype=np.float64)
    if ts.ndim != 1 or ts.shape != v.shape:
        raise ValueError(f"times and values must be two lists of one length, not {ts.shape} and {v.shape}")
    scores = np.zeros(len(v))
    there = np.flatnonzero(np.isfinite(v))
    if len(there) > WARM_UP:
        with np.errstate(over="ignore", invalid="ignore"):
            scores[there] = 1 - np.exp2(-_told_once(_surprise(ts[there], v[there])) / HALF)
    return scores


def _surprise(ts: Index, v: Floats) -> Floats:
    """float64[n] in [0, DECADES]: minus the decimal logarithm of each point's probability by those before its block."""
    size = len(v)
    found = np.zeros(size)
    plain, rates = _Views(ts, v), None
    falls = np.concatenate([[0], np.cumsum(np.diff(v) < 0)])
    rises = np.concatenate([[0], np.cumsum(np.diff(v) > 0)])
    for begin in range(WARM_UP, size, BLOCK):
        end, start = min(size, begin + BLOCK), max(0, begin - MEMORY)
        views = plain
        if _counts(v, int(falls[begin - 1]), int(rises[begin - 1]), begin):
            views = rates = _Views(ts, _rate(ts, v)) if rates is None else rates
        found[begin:end] = views.surprise(start, begin, end)
    return np.minimum(found, DECADES)


class _Views:
    """What is asked of each point, float64[n] each: its value, its step from the median of the five before, the short
    average, the mean step; and the distance from the same time of earlier days, with its short average."""

    def __init__(self, ts: Index, v: Floats) -> None:
        before = np.concatenate([np.full(_FEW, v[0]), v])
        step = v - np.median(sliding_window_view(before, _FEW)[: len(v)], axis=1)
        self.v = v
        self.plain = (v, step, _average(v, _SHORT), _average(np.abs(np.diff(v, prepend=v[0])), _LONG))
        off = v - _days_before(ts, _average(v, 3))
        self.off = off
        self.known = ~np.isnan(off)
        self.seasonal = (off, _average(np.where(self.known, off, 0.0), _SHORT))

    def surprise(self, start: int, begin: int, end: int) -> Floats:
        """Decades of improbability of the points from `begin` to `end` among those from `start` to `begin`."""
        found = np.zeros(end - begin)
        for view in self.plain:
            found = np.maximum(found, _improbable(view[start:begin], view[begin:end]))
        known = self.known[start:begin]
        if int(known.sum()) < 2 * WARM_UP:
            return found
        compared = self.v[start:begin][known]
        usual = np.median(np.abs(compared - np.median(compared)))
        if np.median(np.abs(self.off[start:begin][known])) > ALIKE * usual:
            return found
        asked = self.known[begin:end]
        for view in self.seasonal:
            decades = _improbable(view[start:begin][known], view[begin:end][asked])
            found[asked] = np.maximum(found[asked], SEASON_WEIGHT * decades)
        return found


def _days_before(ts: Index, v: Floats) -> Floats:
    """float64[n]: the median of what was there one to seven days before; NaN where fewer than two days are known."""
    size = len(ts)
    points = np.arange(size)
    days = np.full((size, DAYS), np.nan)
    for number in range(1, DAYS + 1):
        wanted = ts - number * DAY_MS
        after = np.minimum(np.searchsorted(ts, wanted), points)
        before = np.maximum(after - 1, 0)
        nearest = np.where(np.abs(ts[before] - wanted) <= np.abs(ts[after] - wanted), before, after)
        near = (np.abs(ts[nearest] - wanted) <= DAY_MS // 24) & (nearest < points)
        days[near, number - 1] = v[nearest[near]]
    ordered = np.sort(days, axis=1)  # NaN last
    count = (~np.isnan(days)).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, DAYS - 1)
    return np.where(count >= 2, (ordered[points, low] + ordered[points, high]) / 2, np.nan)


def _average(v: Floats, width: int) -> Floats:
    """The average of the last `width` points, of fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(v - v[0])])
    after = np.arange(1, len(v) + 1)
    first = np.maximum(after - width, 0)
    found: Floats = (total[after] - total[first]) / (after - first) + v[0]
    return found


def _counts(v: Floats, falls: int, rises: int, begin: int) -> bool:
    """Whether the points before `begin` are those of a counter: never below 0, resets are rare, and it has counted."""
    return rises >= _COUNTER_LEAST and falls * 50 <= rises and bool(v[:begin].min() >= 0) and rises * 10 >= begin


def _rate(ts: Index, v: Floats) -> Floats:
    """The increase a second of a counter since the point before; after a reset it began at 0."""
    step = np.diff(v)
    grown = np.where(step < 0, v[1:], step)
    seconds = np.maximum(np.diff(ts), 1) / 1000
    return np.concatenate([[grown[0] / seconds[0]], grown / seconds])


def _improbable(before: Floats, now: Floats) -> Floats:
    """Decades of improbability of each of `now` among `before`, the more of what the upper and the lower tail say."""
    size = len(before)
    tail = max(10, int(size * TAIL))
    ordered = np.partition(before, [tail - 1, size // 2, size - tail])
    middle = ordered[size // 2]
    upper = _beyond(now - middle, ordered[size - tail :] - middle)
    lower = _beyond(middle - now, middle - ordered[tail - 1 :: -1])
    decades = np.maximum(upper, lower)
    found: Floats = np.where(decades > 0, decades - np.log10(tail / size), 0.0)
    return found


def _beyond(now: Floats, tail: Floats) -> Floats:
    """Decades by which `now` is rarer than where the tail begins (its first value); both are distances from a middle.

    A generalised Pareto distribution by the method of moments (Hosking and Wallis, Technometrics 29, 1987).
    """
    begins = tail[0]
    excess = tail - begins
    mean, variance = float(excess.mean()), float(excess.var())
    shape = min(max((1 - mean * mean / variance) / 2, 0.0), HEAVIEST) if variance > 0 else 0.0
    tiny = 1e-9 * max(abs(float(begins)), float(np.abs(tail).max())) + 1e-12
    scale = max(mean * (1 - shape), BREADTH * float(begins), tiny)
    far = np.maximum(now - begins, 0.0) / scale
    if shape > 1e-3:
        far = np.log1p(shape * far) / shape
    found: Floats = far / _DECADE
    return found


def _told_once(surprise: Floats) -> Floats:
    """The same, 0 where the anomaly was told of already: it must be rarer by AGAIN while the last one is fresh."""
    told = np.zeros(len(surprise))
    last, held = -REST[1] - 1, 0.0
    for point in np.flatnonzero(surprise > 0).tolist():
        value = float(surprise[point])
        if point - last > min(max(REST[0], point // 16), REST[1]):
            held = 0.0
        if value > held + AGAIN:
            told[point] = value
            if value > NEWS:
                last, held = point, value
        elif held > 0 and value >= held - AGAIN / 2:
            last = point  # it lasts
    return told
