"""Samples become buckets: what is kept of them when they are too old to be kept themselves. Pure.

A bucket covers (at - resolution, at], open on the left as PromQL's windows are, so that a window over whole buckets
holds the same samples as they do. Its columns are what answers exactly:

    min max sum count            of the samples (NaN as min_over_time and sum_over_time take it)
    first first_at last last_at  the outermost samples and their times (ms)
    lost                         the sum of the values from which a counter fell inside the bucket

`lost` is how resets survive: last - first + lost is the increase of a bucket, and between two buckets a fall shows by
itself. Staleness markers are no samples; what has none has no bucket.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from apps.metrics.codec import Float64, Int64, offsets
from apps.promql import rolled
from apps.promql.series import stale_mask

FIELDS: Final = ("min", "max", "sum", "count", "first", "first_at", "last", "last_at", "lost")
RESOLUTIONS: Final = (300, 3600)
"""Seconds; each divides the next, and the last divides the windows in which raw samples are stored."""


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Buckets of S series, one series after the other: off int64[S + 1], at int64[B] their ends (ms, increasing within
    a series), columns of float64[B] by field."""

    off: Int64
    at: Int64
    columns: Mapping[str, Float64]


def roll(off: Int64, ts: Int64, v: Float64, resolution: int) -> Buckets:
    """The buckets of `resolution` seconds of S series: off int64[S + 1], ts int64[N] ms increasing within each, v.

    >>> found = roll(np.array([0, 3]), np.array([1000, 300_000, 300_001]), np.array([5.0, 2.0, 4.0]), 300)
    >>> found.at.tolist(), found.columns["sum"].tolist(), found.columns["lost"].tolist()
    ([300000, 600000], [7.0, 4.0], [5.0, 0.0])
    """
    stale = stale_mask(v)
    if stale.any():
        off = offsets((~stale).astype(np.int64))[off]
        ts, v = ts[~stale], v[~stale]
    length = resolution * 1000
    end = -(-ts // length) * length
    begins, bucket_off = _runs(off, end)
    if not len(ts):
        return Buckets(bucket_off, end, {field: np.zeros(0) for field in FIELDS})
    ends = np.append(begins[1:], len(ts)) - 1
    fallen = np.zeros(len(v))
    fallen[1:] = np.where(v[1:] < v[:-1], v[:-1], 0.0)
    fallen[begins] = 0.0
    columns = {
        "min": np.fmin.reduceat(v, begins),
        "max": np.fmax.reduceat(v, begins),
        "sum": np.add.reduceat(v, begins),
        "count": (ends - begins + 1).astype(np.float64),
        "first": v[begins],
        "first_at": ts[begins].astype(np.float64),
        "last": v[ends],
        "last_at": ts[ends].astype(np.float64),
        "lost": np.add.reduceat(fallen, begins),
    }
    return Buckets(bucket_off, end[begins], columns)


def coarser(fine: Buckets, resolution: int) -> Buckets:
    """Buckets of `resolution` seconds from finer ones; the same as those of the samples, but for the order of sums.

    Some fields are enough, `lost` only with `first` and `last`.
    """
    length = resolution * 1000
    end = -(-fine.at // length) * length
    begins, bucket_off = _runs(fine.off, end)
    if not len(end):
        return Buckets(bucket_off, end, dict(fine.columns))
    ends = np.append(begins[1:], len(end)) - 1
    own = fine.columns
    columns = {}
    for field, column in own.items():
        if field in ("first", "first_at"):
            columns[field] = column[begins]
        elif field in ("last", "last_at"):
            columns[field] = column[ends]
        else:
            columns[field] = _REDUCED[field].reduceat(column, begins)
    if "lost" in columns:
        between = falls_between(fine)
        between[begins] = 0.0
        columns["lost"] = columns["lost"] + np.add.reduceat(between, begins)
    return Buckets(bucket_off, end[begins], columns)


_REDUCED: Final = {"min": np.fmin, "max": np.fmax, "sum": np.add, "count": np.add, "lost": np.add}


def falls_between(buckets: Buckets) -> Float64:
    """float64[B]: the value from which a counter fell between the bucket before and this one of its series, else 0."""
    return rolled.falls_between(buckets.off, buckets.columns["first"], buckets.columns["last"])


def _runs(off: Int64, end: Int64) -> tuple[Int64, Int64]:
    """(where the runs of equal `end` within a series begin, how they belong to the series int64[S + 1])."""
    new = np.ones(len(end), dtype=np.bool_)
    new[1:] = end[1:] != end[:-1]
    starts = off[:-1]
    new[starts[starts < len(end)]] = True
    return np.flatnonzero(new), offsets(new.astype(np.int64))[off]
