"""Forecasts and anomaly scores over range vectors: the portal's own functions, which Prometheus does not have.

All are robust (medians, so that an outage or a spike in the window moves little), have nothing to tune, and see the
samples of their window only: what comes later cannot change an answer. NaN and infinite samples count as missing.
A parameter that is NaN or infinite at a step gives no answer there. Docs: docs/forecast.md.

Shapes: v float64[R, k, c] are R series in k windows of c samples each, over times int64[k, c] (ms); an answer is
float64[R, k] with a mask. Work and memory are bounded by blocks of CELLS numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from apps.promql.arrays import Floats, Index, Mask, Times
from apps.promql.errors import QueryError
from apps.promql.result import number
from apps.promql.series import offsets
from apps.promql.windows import Answer, Check, Function, Windows

CELLS: Final = 1_048_576
"""Numbers worked on at once: 8 MB an array."""
POINTS: Final = 64
"""Up to so many points a slope is taken from every pair of them; more samples are first gathered into so many."""
MOST_PAIRS: Final = 1_024
"""Pairs of samples a season apart that a slope is taken from at most, evenly spread over the window."""
SPREAD_LEAST: Final = 8
"""Samples from which on their spread says something."""
CLOSE: Final = 48
"""Samples within 1/48 of a season (and half an hour at most) are at the same point of it."""
CLOSE_MS: Final = 1_800_000
NEAREST: Final = 0.6
"""Of the samples' spacing: there is always one so near to any point between the first and the last."""
ROUNDING: Final = 1e-12
"""Distances this small beside the window's largest value are what arithmetic leaves of nothing."""
SIGNIFICANT: Final = 0.01

MAD_SIGMA: Final = 1.4826
"""Standard deviations in a median absolute deviation, for the normal distribution."""
MEAN_SIGMA: Final = 1.2533
"""The same in a mean absolute deviation."""


class Block(NamedTuple):
    """Some windows side by side: v float64[R, k, c], times int64[k, c], their ends and step numbers int64[k]."""

    v: Floats
    times: Times
    ends: Times
    steps: Index


Kernel: TypeAlias = Callable[[Block], Answer]


def function(name: str, numbers: Sequence[Floats], check: Check) -> Function:
    """The window function of a call; `numbers` are its scalar arguments at each step. QueryError for a season or a
    significance that cannot be one."""
    zero = np.zeros(1)
    match name:
        case "forecast_linear":
            kernel = partial(_forecast_linear, horizon=numbers[0], sigmas=_at(numbers, 1, zero))
            return partial(_evaluated, kernel=kernel, cost=_pair_count, check=check)
        case "forecast_seasonal":
            season = _positive(numbers[1], name)
            kernel = partial(_forecast_seasonal, horizon=numbers[0], season=season, sigmas=_at(numbers, 2, zero))
            return partial(_evaluated, kernel=kernel, cost=_same, check=check)
        case "time_until_above" | "time_until_below":
            kernel = partial(_time_until, limit=numbers[0], sign=1 if name == "time_until_above" else -1)
            return partial(_evaluated, kernel=kernel, cost=_pair_count, check=check)
        case "anomaly_score":
            seasonal = partial(_seasonal_score, season=_positive(numbers[0], name)) if numbers else _score
            return partial(_evaluated, kernel=seasonal, cost=_same, check=check)
        case _:
            chance = _at(numbers, 0, np.full(1, SIGNIFICANT))
            if ((chance <= 0) | (chance >= 1)).any():
                raise QueryError(f"the significance of {name}() must lie between 0 and 1")
            kernel = partial(_level_shift, chance=chance, when=name == "ts_of_level_shift")
            return partial(_evaluated, kernel=kernel, cost=_same, check=check)


def _at(numbers: Sequence[Floats], index: int, default: Floats) -> Floats:
    return numbers[index] if index < len(numbers) else default


def _positive(season: Floats, name: str) -> Floats:
    wrong = season[season <= 0]
    if len(wrong):
        raise QueryError(f"the season of {name}() must be a positive number of seconds, got {number(float(wrong[0]))}")
    return season


def _of(values: Floats, steps: Index) -> Floats:
    """A parameter at these steps; one value stands for all."""
    picked: Floats = values[steps] if len(values) > 1 else np.broadcast_to(values, steps.shape)
    return picked


# -- from windows to blocks ------------------------------------------------------------------------------------------


def _same(count: int) -> int:
    return count


def _pair_count(count: int) -> int:
    points = min(count, POINTS)
    return max(count, points * (points - 1) // 2)


def _evaluated(windows: Windows, kernel: Kernel, cost: Callable[[int], int], check: Check) -> Answer:
    """The kernel over all windows with samples, as many at once as `cost` numbers for each allow."""
    windows = finite(windows)
    out = np.zeros((windows.rows, windows.lo.shape[1]))
    ok = np.zeros(out.shape, dtype=np.bool_)
    with np.errstate(all="ignore"):
        for (rows, steps), values, times, numbers in windows.dense():
            v = values[None] if values.ndim == 2 else values
            answer, present = np.empty(v.shape[:2]), np.empty(v.shape[:2], dtype=np.bool_)
            for series, some in _parts(v.shape[0], v.shape[1], cost(v.shape[2])):
                check()
                block = Block(v[series, some], times[some], windows.ends[numbers[some]], numbers[some])
                answer[series, some], present[series, some] = kernel(block)
            present &= ~np.isnan(answer)
            out[rows, steps] = answer[0] if values.ndim == 2 else answer
            ok[rows, steps] = present[0] if values.ndim == 2 else present
    return out, ok


def _parts(series: int, windows: int, cost: int) -> Iterator[tuple[slice, slice]]:
    """Slices of series x windows with at most CELLS numbers each, where a window takes `cost`."""
    tall = max(1, min(series, CELLS // max(1, cost)))
    wide = max(1, CELLS // max(1, cost * tall))
    for top in range(0, series, tall):
        for left in range(0, windows, wide):
            yield slice(top, top + tall), slice(left, left + wide)


def finite(windows: Windows) -> Windows:
    """The same windows without samples that are NaN or infinite."""
    keep = np.isfinite(windows.v)
    if keep.all():
        return windows
    before: Index = np.zeros((*keep.shape[:-1], keep.shape[-1] + 1), dtype=np.int64)
    np.cumsum(keep, axis=-1, out=before[..., 1:])
    if windows.shared:
        start = offsets(before[:, -1])[:-1, None]
        lo, hi = start + before[:, windows.lo[0]], start + before[:, windows.hi[0]]
        ts = np.broadcast_to(windows.ts, keep.shape)[keep]
    else:
        lo, hi, ts = before[windows.lo], before[windows.hi], windows.ts[keep]
    return Windows(windows.v[keep], ts, lo, hi, windows.rows, False, windows.ends, windows.at, windows.width)


# -- medians ---------------------------------------------------------------------------------------------------------


def median(v: Floats) -> Floats:
    """Along the last axis; NaN is a missing number, and the median of none is NaN."""
    if not v.shape[-1]:
        return np.full(v.shape[:-1], np.nan)
    missing = np.isnan(v)
    if not missing.any():
        plain: Floats = np.median(v, axis=-1)
        return plain
    ordered = np.sort(v, axis=-1)
    count = v.shape[-1] - missing.sum(axis=-1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, v.shape[-1] - 1)
    middle = np.take_along_axis(ordered, np.stack([low, high], axis=-1), axis=-1)
    both: Floats = middle.mean(axis=-1)
    return both


def spread(distances: Floats) -> Floats:
    """The standard deviation that distances from a median speak of, along the last axis; NaN is missing.

    1.4826 x the median of the absolute distances; where more than half are 0, 1.2533 x their mean, so that a series
    which mostly stands still has a spread, too (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
    """
    distances = np.abs(distances)
    sigma = MAD_SIGMA * median(distances)
    still = sigma == 0
    if still.any():
        sigma[still] = MEAN_SIGMA * np.nanmean(distances[still], axis=-1)
    return sigma


# -- straight lines --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=POINTS)
def _pairs(count: int) -> tuple[Index, Index]:
    """(older, newer) of all pairs of so many points."""
    older, newer = np.triu_indices(count, 1)
    return older.astype(np.int64), newer.astype(np.int64)


def _points(v: Floats, seconds: Floats) -> tuple[Floats, Floats]:
    """At most POINTS values and times: medians of runs of equally many samples, without the oldest that fill no run."""
    size = -(-v.shape[-1] // POINTS)
    if size == 1:
        return v, seconds
    runs = v.shape[-1] // size
    aside = v.shape[-1] - runs * size
    return (
        median(v[..., aside:].reshape(*v.shape[:-1], runs, size)),
        median(seconds[:, aside:].reshape(len(seconds), runs, size)),
    )


def _slope(v: Floats, seconds: Floats) -> Floats:
    points, at = _points(v, seconds)
    older, newer = _pairs(points.shape[-1])
    return median((points[..., newer] - points[..., older]) / (at[:, newer] - at[:, older]))


def _line(block: Block) -> tuple[Floats, Floats, Floats]:
    """(slope a second, value at the window's end, distances from the line float64[R, k, c]).

    Theil's and Sen's estimator: the median of the slopes between all pairs of samples, then the median of what is left
    (Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63, 1968). More than 64 samples are first
    gathered into medians of runs, which takes O(c) instead of O(c squared); a second time without the slope found
    first, which hides the noise within a run. It stands 29 % of the window being arbitrary, in one piece or scattered.
    """
    seconds = (block.times - block.ends[:, None]) / 1000
    slope = _slope(block.v, seconds)
    left = block.v - slope[..., None] * seconds
    if left.shape[-1] > POINTS:
        slope = slope + _slope(left, seconds)
        left = block.v - slope[..., None] * seconds
    level = median(left)
    left -= level[..., None]
    return slope, level, left


def _forecast_linear(block: Block, horizon: Floats, sigmas: Floats) -> Answer:
    """The line `horizon` seconds after the window's end, and `sigmas` standard errors of prediction above it.

    The error is the textbook's for a fitted line, s x sqrt(1 + 1/c + (x - mean)^2 / sum (x_i - mean)^2), with the
    residuals' robust spread for s: it grows with the distance from the samples.
    """
    count = block.times.shape[1]
    if count < 2:
        return _nothing(block)
    slope, level, left = _line(block)
    ahead, wide = _of(horizon, block.steps), _of(sigmas, block.steps)
    answer = level + slope * ahead
    ok = np.isfinite(ahead) & np.isfinite(wide) & ((wide == 0) | (count >= SPREAD_LEAST))
    if (wide != 0).any():
        seconds = (block.times - block.ends[:, None]) / 1000
        mean = seconds.mean(axis=1)
        squares = np.square(seconds - mean[:, None]).sum(axis=1)
        error = spread(left) * np.sqrt(1 + 1 / count + np.square(ahead - mean) / squares)
        answer = answer + np.where(wide == 0, 0.0, wide * error)
    return answer, np.broadcast_to(ok, answer.shape)


def _time_until(block: Block, limit: Floats, sign: int) -> Answer:
    """Seconds from the window's end until the line passes the limit upwards (sign 1) or downwards (-1)."""
    if block.times.shape[1] < 2:
        return _nothing(block)
    slope, level, _ = _line(block)
    bound = _of(limit, block.steps)
    gap, speed = sign * (bound - level), sign * slope
    seconds = np.where(gap <= 0, 0.0, np.where(speed > 0, gap / speed, np.inf))
    return seconds, np.broadcast_to(~np.isnan(bound), seconds.shape)


# -- seasons ---------------------------------------------------------------------------------------------------------


def _reach(times: Times, season: Floats) -> Floats:
    """float64[k]: how many ms from a point of the season a sample is still at it; there is always one in a cycle."""
    spacing = NEAREST * (times[:, -1] - times[:, 0]) / max(1, times.shape[1] - 1)
    reach: Floats = np.minimum(np.maximum(np.minimum(season / CLOSE, CLOSE_MS), spacing), season / 2.0001)
    return reach


def _neighbours(times: Times, target: Times | Floats, season: Floats) -> tuple[Index, Mask]:
    """Samples of earlier seasons at the target's point of the season: (sample numbers int64[k, m], which are there).

    A sample counts when it is a whole number of seasons, one or more, before the target, give or take the reach.
    """
    cycles = (np.asarray(target, dtype=np.float64)[:, None] - times) / season[:, None]
    whole = np.rint(cycles)
    near = (np.abs(cycles - whole) * season[:, None] <= _reach(times, season)[:, None]) & (whole >= 1)
    window, sample = np.nonzero(near)
    counts = near.sum(axis=1)
    place = np.arange(len(window)) - (np.cumsum(counts) - counts)[window]
    index: Index = np.zeros((len(times), int(counts.max(initial=0))), dtype=np.int64)
    index[window, place] = sample
    return index, np.arange(index.shape[1]) < counts[:, None]


def _seasonal_slope(block: Block, season: Floats) -> Floats:
    """Slope a second, float64[R, k], from samples one season apart; 0 where there are none.

    The seasonal Kendall slope (Hirsch, Slack and Smith, Techniques of trend analysis for monthly water quality data,
    Water Resources Research 18, 1982) over neighbouring seasons: whatever repeats itself each season cancels out.
    """
    times = block.times
    k, count = times.shape
    reach = _reach(times, season)
    # One ascending array of all windows' times: a window's numbers start where the one before can never come.
    base = times[:, :1]
    room = int((times[:, -1] - times[:, 0]).max()) + 2
    shift = (np.arange(k, dtype=np.int64) * room)[:, None]
    keys = (times - base + shift).ravel()
    own = np.arange(k, dtype=np.int64)[:, None] * count
    first = keys.searchsorted(np.minimum(season - reach, room - 1).astype(np.int64) + shift[:, 0]) - own[:, 0]
    most = int(min(MOST_PAIRS, (count - first).max(initial=0)))
    if most <= 0:
        return np.zeros(block.v.shape[:2])
    newer = first[:, None] + np.arange(most) * np.maximum(count - first, 0)[:, None] // most
    newer = np.minimum(newer, count - 1)
    wanted = np.take_along_axis(times, newer, axis=1) - season[:, None]
    inside = np.clip(wanted - base, 0, room - 1).astype(np.int64)
    after = np.clip(keys.searchsorted((inside + shift).ravel()).reshape(k, most) - own, 1, count - 1)
    late, early = (np.abs(np.take_along_axis(times, at, axis=1) - wanted) for at in (after, after - 1))
    older = np.where(early <= late, after - 1, after)
    usable = (np.minimum(early, late) <= reach[:, None]) & (older < newer)
    seconds = (np.take_along_axis(times, newer, axis=1) - np.take_along_axis(times, older, axis=1)) / 1000
    rows = np.arange(k)[:, None]
    slopes = (block.v[:, rows, newer] - block.v[:, rows, older]) / seconds
    if not usable.all():
        slopes[:, ~usable] = np.nan
    slope = median(slopes)
    return np.where(np.isnan(slope), 0.0, slope)


def _expected(block: Block, target: Times | Floats, season: Floats) -> tuple[Floats, Floats, Index]:
    """(expected value at the target, spread around it, neighbours it is taken from int64[k])."""
    index, there = _neighbours(block.times, target, season)
    if not index.shape[1]:
        nothing = np.full(block.v.shape[:2], np.nan)
        return nothing, nothing, there.sum(axis=1)
    slope = _seasonal_slope(block, season)
    seconds = (np.asarray(target, dtype=np.float64)[:, None] - np.take_along_axis(block.times, index, axis=1)) / 1000
    carried = block.v[:, np.arange(len(index))[:, None], index] + slope[..., None] * seconds
    if not there.all():
        carried[:, ~there] = np.nan
    middle = median(carried)
    return middle, spread(_exact(carried - middle[..., None], block)), there.sum(axis=1)


def _exact(distances: Floats, block: Block) -> Floats:
    """Distances with 0 where there is nothing but rounding; any last axis."""
    size = np.abs(block.v).max(axis=-1)[..., None]
    return np.where(np.abs(distances) <= ROUNDING * size, 0.0, distances)


def _forecast_seasonal(block: Block, horizon: Floats, season: Floats, sigmas: Floats) -> Answer:
    """The median of what was there at the same point of earlier seasons, each carried forward along the trend, and
    `sigmas` robust standard deviations above it.

    The seasonal naive method with drift (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 5.2), with
    medians for its last value and its mean step.
    """
    ahead, length = _of(horizon, block.steps), _of(season, block.steps) * 1000
    wide = _of(sigmas, block.steps)
    known = np.isfinite(ahead) & np.isfinite(length) & np.isfinite(wide)
    target = block.ends + np.where(known, ahead, 0.0) * 1000
    middle, sigma, count = _expected(block, target, np.where(known, length, 1.0))
    answer = middle + np.where(wide == 0, 0.0, wide * sigma)
    enough = np.where(wide == 0, count >= 1, count >= SPREAD_LEAST)
    return answer, np.broadcast_to(known & enough, answer.shape)


# -- scores ----------------------------------------------------------------------------------------------------------


def _deviations(off: Floats, sigma: Floats) -> Floats:
    """How many sigmas a value is off; 0 for none off, infinite where everything before was the same."""
    return np.where(off == 0, 0.0, off / sigma)


def _score(block: Block) -> Answer:
    """The newest sample among the others of its window: the modified z-score of Iglewicz and Hoaglin (1993), signed."""
    if block.times.shape[1] <= SPREAD_LEAST:
        return _nothing(block)
    others = block.v[..., :-1]
    middle = median(others)
    answer = _deviations(block.v[..., -1] - middle, spread(others - middle[..., None]))
    return answer, np.ones(answer.shape, dtype=np.bool_)


def _seasonal_score(block: Block, season: Floats) -> Answer:
    """The newest sample among those at the same point of earlier seasons, carried along the trend."""
    length = _of(season, block.steps) * 1000
    known = np.isfinite(length)
    middle, sigma, count = _expected(block, block.times[:, -1], np.where(known, length, 1.0))
    off = _exact((block.v[..., -1] - middle)[..., None], block)[..., 0]
    answer = _deviations(off, sigma)
    return answer, np.broadcast_to(known & (count >= SPREAD_LEAST), answer.shape)


def _level_shift(block: Block, chance: Floats, when: bool) -> Answer:
    """Median after less median before the most likely change of level, 0 where none is significant; or its time.

    Pettitt's test (A non-parametric approach to the change-point problem, Applied Statistics 28, 1979): the split at
    which ranks before and after differ most, with p = 2 exp(-6 K^2 / (c^3 + c^2)).
    """
    v, count = block.v, block.times.shape[1]
    if count < 2:
        return _nothing(block)
    u = np.cumsum(2 * ranks(v) - (count + 1), axis=-1)[..., :-1]
    split = np.abs(u).argmax(axis=-1)
    largest = np.abs(np.take_along_axis(u, split[..., None], axis=-1)[..., 0])
    p = 2 * np.exp(-6 * np.square(largest) / (float(count) ** 3 + float(count) ** 2))
    wanted = _of(chance, block.steps)
    known = np.broadcast_to(~np.isnan(wanted), p.shape)
    shifted = p < wanted
    if when:
        rows = np.arange(len(block.times))
        return block.times[rows, split + 1] / 1000, shifted & known
    step = np.zeros(p.shape)
    moved = v[shifted]
    before = np.arange(count) <= split[shifted][:, None]
    step[shifted] = median(np.where(before, np.nan, moved)) - median(np.where(before, moved, np.nan))
    return step, known


def ranks(v: Floats) -> Floats:
    """1 for the smallest along the last axis; equal values share the mean of their ranks."""
    count = v.shape[-1]
    order = np.argsort(v, axis=-1)
    ordered = np.take_along_axis(v, order, axis=-1)
    place = np.broadcast_to(np.arange(count, dtype=np.float64), v.shape)
    new = np.ones(v.shape, dtype=np.bool_)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    last = np.ones(v.shape, dtype=np.bool_)
    last[..., :-1] = new[..., 1:]
    low = np.maximum.accumulate(np.where(new, place, 0.0), axis=-1)
    high = np.minimum.accumulate(np.where(last, place, float(count))[..., ::-1], axis=-1)[..., ::-1]
    out = np.empty(v.shape)
    np.put_along_axis(out, order, (low + high) / 2 + 1, axis=-1)
    return out


def _nothing(block: Block) -> Answer:
    shape = block.v.shape[:2]
    return np.zeros(shape), np.zeros(shape, dtype=np.bool_)
