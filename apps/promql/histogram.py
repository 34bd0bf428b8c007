"""Quantiles and fractions from classic histograms: series of cumulative counts with an upper bound in `le`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf, isnan, nan
from typing import Final

import numpy as np

from apps.promql.arrays import Floats, Index, Mask
from apps.promql.labels import NAME, STRINGS, Labels, group_numbers
from apps.promql.series import Vec
from apps.promql.windows import outside

LE: Final = "le"
TOLERANCE: Final = 1e-12
"""Counts that differ relatively by less are equal: rates of equal counters do not agree to the last bit."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Histograms with the same number of buckets: bounds float64[g, B] ascending, counts and here [g, B, n]."""

    groups: Index
    bounds: Floats
    counts: Floats
    here: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """The histograms in a vector; `malformed` are (metric name, text of le) of series that are no bucket."""

    labels: Labels
    drop: Mask
    families: tuple[Family, ...]
    malformed: tuple[tuple[str, str], ...]
    n: int


def buckets(vec: Vec) -> Buckets:
    """Finds the histograms: series that differ in nothing but `le`."""
    n = vec.v.shape[1]
    column = vec.labels.column(LE)
    distinct, inverse = np.unique(column, return_inverse=True)
    texts = STRINGS.texts(distinct)
    parsed = [_bound(text) for text in texts]
    valid = np.array([bound is not None for bound in parsed], dtype=np.bool_)[inverse]
    bound = np.array([nan if bound is None else bound for bound in parsed])[inverse]
    present = vec.ok.any(axis=1)
    names = vec.labels.texts(NAME)
    bad = np.flatnonzero(~valid & present)
    malformed = dict.fromkeys((names[row], texts[inverse[row]]) for row in bad.tolist())
    rows = np.flatnonzero(valid & present)
    part = vec.labels.take(rows).drop((LE,))
    first, group = group_numbers(part.hashes())
    order = np.lexsort((bound[rows], group))
    counts = np.bincount(group, minlength=len(first))
    starts = np.cumsum(counts) - counts
    families = []
    for size in np.unique(counts).tolist():
        groups = np.flatnonzero(counts == size)
        members = rows[order[starts[groups][:, None] + np.arange(size)]]
        families.append(Family(groups, bound[members], vec.v[members], vec.ok[members]))
    drop = np.ones(len(first), dtype=np.bool_)
    return Buckets(part.take(first), drop, tuple(families), tuple(malformed), n)


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def quantiles(found: Buckets, q: Floats) -> tuple[Vec, tuple[str, ...]]:
    """histogram_quantile with q float64[n]: (the vector, names of metrics whose counts had to be made monotonic)."""
    out = np.zeros((found.labels.size, found.n))
    ok = np.zeros(out.shape, dtype=np.bool_)
    forced = np.zeros(out.shape, dtype=np.bool_)
    for family in found.families:
        here = family.here.any(axis=1)
        simple = _simple(family)
        value, fixed = _quantiles(family.bounds, family.counts, q)
        for g, step in zip(*(part.tolist() for part in np.nonzero(here & ~simple)), strict=True):
            some = family.here[g, :, step]
            value[g, step], fixed[g, step] = quantile(
                float(q[step]), family.bounds[g][some].tolist(), family.counts[g, some, step].tolist()
            )
        out[family.groups], ok[family.groups], forced[family.groups] = value, here, fixed & here
    names = found.labels.texts(NAME)
    repaired = dict.fromkeys(names[row] for row in np.flatnonzero(forced.any(axis=1)).tolist())
    return Vec(found.labels, out, ok, found.drop), tuple(repaired)


def _simple(family: Family) -> Mask:
    """bool[g, n]: cells with all buckets present and all bounds distinct, which can be computed together."""
    rising: Mask = np.all(family.bounds[:, 1:] > family.bounds[:, :-1], axis=1, keepdims=True)
    complete: Mask = np.all(family.here, axis=1)
    return complete & rising


def _quantiles(bounds: Floats, counts: Floats, q: Floats) -> tuple[Floats, Mask]:
    """All cells of histograms with all buckets present and distinct bounds: (float64[g, n], forced bool[g, n])."""
    groups, size, n = counts.shape
    fixed = np.zeros((groups, n), dtype=np.bool_)
    if size < 2:
        return outside(np.full((groups, n), np.nan), q), fixed
    with np.errstate(all="ignore"):
        counts = counts.copy()
        for i in range(1, size):
            before, now = counts[:, i - 1], counts[:, i]
            close = np.abs(before - now) < TOLERANCE * (np.abs(before) + np.abs(now))
            fixed |= (now < before) & ~close
            counts[:, i] = np.where(close | (now < before), before, now)
        total = counts[:, -1]
        rank = q * total
        hit = counts[:, :-1] >= rank[:, None, :]
        at = np.where(hit.any(axis=1), hit.argmax(axis=1), size - 1)
        upper = np.take_along_axis(bounds, at, axis=1)
        previous = np.maximum(at - 1, 0)
        lower = np.where(at > 0, np.take_along_axis(bounds, previous, axis=1), 0.0)
        below = np.where(at > 0, np.take_along_axis(counts, previous[:, None, :], axis=1)[:, 0], 0.0)
        inside = np.take_along_axis(counts, at[:, None, :], axis=1)[:, 0] - below
        value = lower + (upper - lower) * ((rank - below) / inside)
        value = np.where((at == 0) & (bounds[:, :1] <= 0), bounds[:, :1], value)
        value = np.where(at == size - 1, bounds[:, -2:-1], value)
        value = np.where((total == 0) | ~np.isposinf(bounds[:, -1:]), np.nan, value)
    return outside(value, q), fixed


def quantile(q: float, bounds: Sequence[float], counts: Sequence[float]) -> tuple[float, bool]:
    """One histogram, bounds ascending: (the quantile, whether the counts had to be made monotonic)."""
    if isnan(q):
        return nan, False
    if q < 0 or q > 1:
        return (-inf if q < 0 else inf), False
    bound, count = _coalesced(bounds, counts)
    if not bound or not isinf(bound[-1]):
        return nan, False
    fixed = _monotonic(count)
    if len(bound) < 2 or count[-1] == 0:
        return nan, fixed
    rank = q * count[-1]
    at = next((i for i, reached in enumerate(count[:-1]) if reached >= rank), len(count) - 1)
    if at == len(count) - 1:
        return bound[-2], fixed
    if at == 0 and bound[0] <= 0:
        return bound[0], fixed
    lower, below = (bound[at - 1], count[at - 1]) if at else (0.0, 0.0)
    share = (rank - below) / (count[at] - below) if count[at] != below else nan
    return lower + (bound[at] - lower) * share, fixed


def _coalesced(bounds: Sequence[float], counts: Sequence[float]) -> tuple[list[float], list[float]]:
    """Buckets with one bound written in two ways are added up."""
    bound: list[float] = []
    count: list[float] = []
    for upper, observed in zip(bounds, counts, strict=True):
        if bound and bound[-1] == upper:
            count[-1] += observed
        else:
            bound.append(upper)
            count.append(observed)
    return bound, count


def _monotonic(count: list[float]) -> bool:
    """Raises counts that fall below the one before, in place; says whether one fell by more than rounding."""
    fixed = False
    for i in range(1, len(count)):
        before, now = count[i - 1], count[i]
        if abs(before - now) < TOLERANCE * (abs(before) + abs(now)):
            count[i] = before
        elif now < before:
            count[i] = before
            fixed = True
    return fixed


def fractions(found: Buckets, lower: Floats, upper: Floats) -> Vec:
    """histogram_fraction with both limits float64[n]."""
    out = np.zeros((found.labels.size, found.n))
    ok = np.zeros(out.shape, dtype=np.bool_)
    for family in found.families:
        here = family.here.any(axis=1)
        simple = _simple(family)
        value = _fractions(family.bounds, family.counts, lower, upper)
        for g, step in zip(*(part.tolist() for part in np.nonzero(here & ~simple)), strict=True):
            some = family.here[g, :, step]
            value[g, step] = fraction(
                float(lower[step]),
                float(upper[step]),
                family.bounds[g][some].tolist(),
                family.counts[g, some, step].tolist(),
            )
        out[family.groups], ok[family.groups] = value, here
    return Vec(found.labels, out, ok, found.drop)


def _fractions(bounds: Floats, counts: Floats, lower: Floats, upper: Floats) -> Floats:
    """All cells of histograms with all buckets present and distinct bounds: float64[g, n]."""
    with np.errstate(all="ignore"):
        share = np.maximum(0.0, (_ranks(bounds, counts, upper) - _ranks(bounds, counts, lower)) / counts[:, -1])
        share = np.where(lower >= upper, 0.0, share)
        unknown = (counts[:, -1] == 0) | ~np.isposinf(bounds[:, -1:]) | np.isnan(lower) | np.isnan(upper)
        return np.where(unknown, np.nan, share)


def _ranks(bounds: Floats, counts: Floats, value: Floats) -> Floats:
    """_rank() of value float64[n] in each histogram: float64[g, n]."""
    at = np.minimum((bounds[:, :, None] < value).sum(axis=1), bounds.shape[1] - 1)
    end = np.take_along_axis(bounds, at, axis=1)
    reached = np.take_along_axis(counts, at[:, None, :], axis=1)[:, 0]
    previous = np.maximum(at - 1, 0)
    first = np.where(bounds[:, :1] > 0, 0.0, -np.inf)
    start = np.where(at > 0, np.take_along_axis(bounds, previous, axis=1), first)
    below = np.where(at > 0, np.take_along_axis(counts, previous[:, None, :], axis=1)[:, 0], 0.0)
    inside = below + (reached - below) * np.maximum(0.0, (value - start) / (end - start))
    rank = np.where(np.isinf(start), reached, np.where(np.isinf(end), below, inside))
    return np.where(np.isneginf(value), 0.0, np.where(value == end, reached, rank))


def fraction(lower: float, upper: float, bounds: Sequence[float], counts: Sequence[float]) -> float:
    """The share of observations between two values; nothing is known of where they lie in an infinite bucket."""
    bound, count = _coalesced(bounds, counts)
    if not bound or not isinf(bound[-1]) or count[-1] == 0 or isnan(lower) or isnan(upper):
        return nan
    if lower >= upper:
        return 0.0
    return max(0.0, (_rank(upper, bound, count) - _rank(lower, bound, count)) / count[-1])


def _rank(value: float, bound: list[float], count: list[float]) -> float:
    """Observations up to a value, as if those of infinitely wide buckets lay at infinity."""
    if value == -inf:
        return 0.0
    below, start = 0.0, 0.0 if bound[0] > 0 else -inf
    for upper, reached in zip(bound, count, strict=True):
        if value == upper:
            return reached
        if value < upper:
            if isinf(start) or isinf(upper):
                return reached if isinf(start) else below
            return below + (reached - below) * max(0.0, (value - start) / (upper - start))
        below, start = reached, upper
    return count[-1]
