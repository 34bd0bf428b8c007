"""What answers where samples have gone: the buckets that are stored and, after them, buckets of the samples. Pure.

Up to where the samples are gone a stored bucket is right; one that is made of what samples are there may be of some
of them only, and counts where nothing is stored (what was back-filled and is not rolled up yet). From there on all
samples are there: their buckets complete the windows that begin before it and end after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from apps.metrics.assembly import Assembled
from apps.metrics.codec import Int64, View, offsets
from apps.metrics.rollups import RESOLUTIONS, Buckets, coarser, roll
from apps.metrics.storage import NEVER, BucketRow, Horizon
from apps.promql.labels import Labels
from apps.promql.series import Ragged, Tier

Rows = Sequence[tuple[BucketRow, View]]

_STEP: Final = RESOLUTIONS[0] * 1000
"""Ends of buckets, of any resolution, are multiples of this."""


def untils(ids: Int64, rows: Rows, horizons: Sequence[Horizon]) -> dict[int, Int64]:
    """By resolution, int64[S]: which windows of the series `ids` need its buckets.

    Each policy under which a series has buckets counts: metrics move from one to another.
    """
    found = {resolution: np.full(len(ids), NEVER, dtype=np.int64) for resolution in RESOLUTIONS}
    one = min((row.field for row, _ in rows), default=0)
    for horizon in horizons:
        series = [view.series for row, view in rows if row.policy == horizon.policy and row.field == one]
        if not series:
            continue
        here = np.isin(ids, np.concatenate(series))
        for resolution, until in found.items():
            until[here] = np.maximum(until[here], horizon.until(resolution))
    return found


def tiers(
    samples: Assembled, stored: Mapping[int, Buckets], until: Mapping[int, Int64], width: int
) -> tuple[Tier, ...]:
    """The tiers, finest first, of S series for windows of `width` ms from their samples and stored buckets."""
    gone = np.maximum.reduce([until[resolution] for resolution in RESOLUTIONS])
    kept = samples.ts <= _each(gone, samples.off) + width
    buckets = roll(offsets(kept.astype(np.int64))[samples.off], samples.ts[kept], samples.v[kept], RESOLUTIONS[0])
    fields = next(iter(stored.values())).columns
    buckets = replace(buckets, columns={field: buckets.columns[field] for field in fields})
    out = []
    for resolution in RESOLUTIONS:
        if resolution != RESOLUTIONS[0]:
            buckets = coarser(_upto(buckets, until[resolution] + width), resolution)
        buckets = _joined(stored[resolution], buckets, until[resolution])
        if (until[resolution] > NEVER).any():
            clock = _clock(buckets)
            out.append(Tier(1000 * resolution, until[resolution], buckets.at, buckets.off, buckets.columns, clock))
    return tuple(out)


def of_fields(read: Mapping[str, Assembled], until: Int64) -> Buckets:
    """Buckets from their numbers, each read by itself, up to `until` int64[S]. One of which a number is missing (its
    block is damaged) is left out."""
    first, *others = read.values()
    if all(np.array_equal(first.ts, one.ts) and np.array_equal(first.off, one.off) for one in others):
        whole = Buckets(first.off, first.ts, {field: one.v for field, one in read.items()})
        return _upto(whole, until)
    keys = {field: _keys(one.off, one.ts) for field, one in read.items()}
    shared = next(iter(keys.values()))
    for some in keys.values():
        shared = np.intersect1d(shared, some, assume_unique=True)
    columns = {field: one.v[np.searchsorted(keys[field], shared)] for field, one in read.items()}
    size = len(first.off) - 1
    off = np.searchsorted(shared, np.arange(size + 1, dtype=np.int64) << _BITS)
    at = (shared & ((1 << _BITS) - 1)) * _STEP
    return _upto(Buckets(off.astype(np.int64), at, columns), until)


_BITS: Final = 34
"""Room for the number of a bucket since 1970."""


def _keys(off: Int64, at: Int64) -> Int64:
    """int64[B], increasing: a number for each series and end of a bucket."""
    keys = _each(np.arange(len(off) - 1, dtype=np.int64) << _BITS, off)
    keys += at // _STEP
    return keys


def _each(values: Int64, off: Int64) -> Int64:
    """The value of each series, for each of its samples."""
    return np.repeat(values, np.diff(off))


def _upto(buckets: Buckets, until: Int64) -> Buckets:
    """Those that begin before until int64[S]."""
    return _only(buckets, buckets.at <= -(-_each(until, buckets.off) // _STEP) * _STEP)


def _only(buckets: Buckets, kept: "np.typing.NDArray[np.bool_]") -> Buckets:
    if kept.all():
        return buckets
    off = offsets(kept.astype(np.int64))[buckets.off]
    return Buckets(off, buckets.at[kept], {field: column[kept] for field, column in buckets.columns.items()})


def _joined(stored: Buckets, made: Buckets, until: Int64) -> Buckets:
    """Stored buckets, and of those that were made what is after `until` or stands alone."""
    if not len(made.at):
        return stored
    if not len(stored.at):
        return made
    beyond = made.at > _each(until, made.off)
    if not beyond.all():
        made = _only(made, beyond | ~np.isin(_keys(made.off, made.at), _keys(stored.off, stored.at)))
    place = np.searchsorted(_keys(stored.off, stored.at), _keys(made.off, made.at)) + np.arange(len(made.at))
    is_made = np.zeros(len(stored.at) + len(made.at), dtype=np.bool_)
    is_made[place] = True
    at = np.empty(len(is_made), dtype=np.int64)
    at[is_made], at[~is_made] = made.at, stored.at
    columns = {}
    for field, column in stored.columns.items():
        columns[field] = np.empty(len(is_made))
        columns[field][is_made], columns[field][~is_made] = made.columns[field], column
    return Buckets(stored.off + made.off, at, columns)


def _clock(buckets: Buckets) -> Int64:
    some = next(iter(buckets.columns.values()))
    return Ragged(Labels.empty(len(buckets.off) - 1), buckets.at, some, buckets.off).clocks()
