"""PromQL's range functions and aggregations once more, sample by sample in plain Python: slow, obvious, an oracle."""

import math
from collections.abc import Callable
from itertools import pairwise

Samples = list[tuple[int, float]]


def over_window(samples: Samples, end: int, width: int) -> Samples:
    """Left-open: the sample at end - width is outside."""
    return [(t, v) for t, v in samples if end - width < t <= end]


def extrapolated(window: Samples, end: int, width: int, *, counter: bool, per_second: bool) -> float | None:
    if len(window) < 2:
        return None
    (first_t, first_v), (last_t, last_v) = window[0], window[-1]
    result = last_v - first_v
    if counter:
        result += sum(a for (_, a), (_, b) in pairwise(window) if b < a)
    spanned = (last_t - first_t) / 1000
    spacing = spanned / (len(window) - 1)
    to_start, to_end = (first_t - (end - width)) / 1000, (end - last_t) / 1000
    if to_start >= spacing * 1.1:
        to_start = spacing / 2
    if counter and result > 0 and first_v >= 0:
        to_start = min(to_start, spanned * (first_v / result))
    if to_end >= spacing * 1.1:
        to_end = spacing / 2
    result *= (spanned + to_start + to_end) / spanned
    return result / (width / 1000) if per_second else result


def quantile(q: float, values: list[float]) -> float:
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return -math.inf if q < 0 else math.inf
    ordered = sorted(values, key=lambda v: -math.inf if math.isnan(v) else v)
    ordered = [v for v in values if math.isnan(v)] + [v for v in ordered if not math.isnan(v)]
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def variance(values: list[float]) -> float:
    mean = math.fsum(v - values[0] for v in values) / len(values)
    return math.fsum((v - values[0] - mean) ** 2 for v in values) / len(values)


def extreme(values: list[float], pick: Callable[[list[float]], float]) -> float:
    numbers = [v for v in values if not math.isnan(v)]
    return pick(numbers) if numbers else math.nan


def line(window: Samples, origin: float) -> tuple[float, float]:
    """(slope, value at origin ms)"""
    xs = [(t - window[0][0]) / 1000 for t, _ in window]
    ys = [v - window[0][1] for _, v in window]
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    slope = math.fsum((x - mean_x) * y for x, y in zip(xs, ys, strict=True)) / math.fsum((x - mean_x) ** 2 for x in xs)
    return slope, window[0][1] + mean_y + slope * ((origin - window[0][0]) / 1000 - mean_x)


def function(name: str, window: Samples, end: int, width: int, at: int) -> float | None:
    """One window's answer, None for none; `end` is the window's, `at` the evaluation time."""
    values = [v for _, v in window]
    if name in ("rate", "increase"):
        return extrapolated(window, end, width, counter=True, per_second=name == "rate")
    if name == "delta":
        return extrapolated(window, end, width, counter=False, per_second=False)
    if name in ("irate", "idelta"):
        if len(window) < 2:
            return None
        (t0, v0), (t1, v1) = window[-2:]
        return v1 - v0 if name == "idelta" else (v1 if v1 < v0 else v1 - v0) / ((t1 - t0) / 1000)
    if name in ("deriv", "predict_linear"):
        if len(window) < 2:
            return None
        slope, ahead = line(window, at + 60_000)
        return slope if name == "deriv" else ahead
    if not window:
        return None
    pairs = list(pairwise(values))
    answers: dict[str, Callable[[], float]] = {
        "sum_over_time": lambda: math.fsum(values),
        "avg_over_time": lambda: math.fsum(values) / len(values),
        "count_over_time": lambda: len(values),
        "min_over_time": lambda: extreme(values, min),
        "max_over_time": lambda: extreme(values, max),
        "last_over_time": lambda: values[-1],
        "present_over_time": lambda: 1.0,
        "changes": lambda: sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs),
        "resets": lambda: sum(b < a for a, b in pairs),
        "stdvar_over_time": lambda: variance(values),
        "stddev_over_time": lambda: math.sqrt(variance(values)),
        "quantile_over_time": lambda: quantile(0.3, values),
    }
    return float(answers[name]())


def aggregate(name: str, values: list[float]) -> float:
    answers: dict[str, Callable[[], float]] = {
        "sum": lambda: math.fsum(values),
        "avg": lambda: math.fsum(values) / len(values),
        "count": lambda: len(values),
        "group": lambda: 1.0,
        "min": lambda: extreme(values, min),
        "max": lambda: extreme(values, max),
        "stdvar": lambda: variance(values),
        "stddev": lambda: math.sqrt(variance(values)),
        "quantile": lambda: quantile(0.7, values),
    }
    return float(answers[name]())
