"""The seed's performance figures: requests by step, endpoint, method and status code, with a summary.

Two sources, one table: the portal's own middleware keeps counters (`http_request_duration_seconds_*`), applications
push single requests (`http_request_seconds`, one sample a request). Arithmetic on arrays; reads only through
`metrics.query`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.accounts.permissions import Scope
from apps.metrics import query
from apps.promql.series import Ragged
from apps.promql.source import Matcher

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PUSHED = "http_request_seconds"
OWN = "http_request_duration_seconds"
ROWS = 3_000
BEFORE = 300_000
"""How far before the range (ms) a counter's former sample is looked for; without one it began at zero."""
SMALLEST_STEP = 15_000

Key = tuple[str, str, str]
"""(endpoint, method, status code)"""


@dataclass(frozen=True)
class Increments:
    """What counters grew by: for each increment its series' row, its time (ms) and its amount."""

    row: Ints
    ts: Ints
    amount: Floats


def increments(ragged: Ragged, start: int) -> Increments:
    """Return what each counter grew by after `start` (ms); a fall is a restart from zero, a first sample counts whole.

    Exact where `increase()` extrapolates: the seed's counts are whole requests.
    """
    alive = ~np.isnan(ragged.v)
    row = np.repeat(np.arange(len(ragged.off) - 1), np.diff(ragged.off))[alive]
    ts, v = ragged.ts[alive], ragged.v[alive]
    if not len(v):
        return Increments(row, ts, v)
    before = np.concatenate(([0.0], v[:-1]))
    first = np.concatenate(([True], row[1:] != row[:-1]))
    before[first] = 0.0
    grown = v - before
    amount = np.where(grown < 0, v, grown)
    inside = ts > start
    return Increments(row[inside], ts[inside], amount[inside])


def step_for(start: int, end: int, combinations: int) -> int:
    """Return the step (ms) at which the range stays within the rows that one answer may have."""
    steps = max(ROWS // max(combinations, 1), 1)
    smallest = max(SMALLEST_STEP, -(-(end - start) // steps))
    for nice in (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400):
        if nice * 1000 >= smallest:
            return nice * 1000
    return -(-smallest // 86_400_000) * 86_400_000


def _keys(ragged: Ragged) -> list[Key]:
    return [(d.get("endpoint", ""), d.get("method", ""), d.get("code", "")) for d in ragged.labels.dicts()]


def performance(start: int, end: int, *, scope: Scope) -> dict[str, Any]:
    """Return `metrics` (rows), `summary` (None without a request) and `step` for the range (ms)."""

    def select(name: str) -> Ragged:
        return query.select([Matcher("__name__", "=", name)], start - BEFORE, end, scope=scope)

    counts, sums, single = select(f"{OWN}_count"), select(f"{OWN}_sum"), select(PUSHED)
    grown, spent = increments(counts, start), increments(sums, start)
    alive = ~np.isnan(single.v) & (single.ts > start)
    single_row = np.repeat(np.arange(len(single.off) - 1), np.diff(single.off))[alive]

    names: dict[Key, int] = {}

    def number(rows: Ints, keys: Sequence[Key]) -> Ints:
        of_series = np.array([names.setdefault(key, len(names)) for key in keys], dtype=np.int64)
        return of_series[rows] if len(rows) else rows.astype(np.int64)

    used = {
        0: number(grown.row, _keys(counts)),
        1: number(spent.row, _keys(sums)),
        2: number(single_row, _keys(single)),
    }
    step = step_for(start, end, len(names))
    keys = sorted(names, key=lambda key: names[key])

    def cell(combination: Ints, ts: Ints) -> Ints:
        return ((ts - start - 1) // step) * len(keys) + combination

    cells = np.concatenate((cell(used[0], grown.ts), cell(used[2], single.ts[alive])))
    amounts = np.concatenate((grown.amount, np.ones(int(alive.sum()))))
    seconds_cells = np.concatenate((cell(used[1], spent.ts), cell(used[2], single.ts[alive])))
    seconds = np.concatenate((spent.amount, single.v[alive]))
    total = float(amounts.sum())
    if not keys or total == 0:
        return {"metrics": [], "summary": None, "step": step}

    combination = np.concatenate((used[0], used[2]))
    by_code: dict[str, float] = {}
    for key, amount in zip(keys, np.bincount(combination, weights=amounts, minlength=len(keys)).tolist(), strict=True):
        by_code[key[2]] = by_code.get(key[2], 0.0) + amount
    summary = {
        "totalRequests": round(total),
        "averageResponseTime": round(float(seconds.sum()) / total * 1000, 3),
        **_spread(start, end, single.v[alive], scope=scope),
        "errorRate": round(100 * sum(n for code, n in by_code.items() if code.startswith("5")) / total, 3),
        "statusCodes": {code: round(n) for code, n in sorted(by_code.items()) if n > 0},
    }
    rows = [
        {
            "timestamp": min(start + (place // len(keys) + 1) * step, end),
            "endpoint": keys[place % len(keys)][0],
            "method": keys[place % len(keys)][1],
            "statusCode": int(code) if (code := keys[place % len(keys)][2]).isdigit() else code,
            "count": round(amount),
            "responseTime": round(whole / amount * 1000, 3),
        }
        for place, amount, whole in _by_cell(cells, amounts, seconds_cells, seconds)
    ]
    return {"metrics": rows[:ROWS], "summary": summary, "step": step}


def _by_cell(cells: Ints, amounts: Floats, seconds_cells: Ints, seconds: Floats) -> Iterator[tuple[int, float, float]]:
    """Yield (cell, requests, seconds spent on them) of every cell that has requests, in the order of the cells."""
    present, where = np.unique(cells, return_inverse=True)
    count = np.bincount(where, weights=amounts)
    at = np.searchsorted(present, seconds_cells)
    known = (at < len(present)) & (present[np.minimum(at, len(present) - 1)] == seconds_cells)
    spent = np.bincount(at[known], weights=seconds[known], minlength=len(present))
    some = count > 0
    yield from zip(present[some].tolist(), count[some].tolist(), spent[some].tolist(), strict=True)


def _spread(start: int, end: int, single: Floats, *, scope: Scope) -> dict[str, float | None]:
    """Return minimum, maximum and percentiles (ms): exact for pushed requests, by bucket where counters take part.

    All None where only counters without buckets are seen, as through a scope.
    """
    buckets = query.select([Matcher("__name__", "=", f"{OWN}_bucket")], start - BEFORE, end, scope=scope)
    grown = increments(buckets, start)
    if not len(grown.amount) or not grown.amount.any():
        if not len(single):
            return dict.fromkeys(("minResponseTime", "maxResponseTime", "p95ResponseTime", "p99ResponseTime"))
        low, high = float(single.min()), float(single.max())
        p95, p99 = (float(np.quantile(single, q)) for q in (0.95, 0.99))
    else:
        bounds = np.array([float(d.get("le", "nan").replace("+Inf", "inf")) for d in buckets.labels.dicts()])
        edges = np.unique(bounds)
        cumulated: Floats = np.bincount(
            np.searchsorted(edges, bounds[grown.row]), weights=grown.amount, minlength=len(edges)
        ).astype(np.float64)
        cumulated = cumulated + np.searchsorted(np.sort(single), edges, side="right").astype(np.float64)
        p95, p99 = (_quantile(q, edges, cumulated) for q in (0.95, 0.99))
        extremes = []
        for name in (f"{OWN}_min", f"{OWN}_max"):
            found = query.select([Matcher("__name__", "=", name)], start, end, scope=scope)
            extremes.append(np.concatenate((found.v[~np.isnan(found.v)], single)))
        low = float(extremes[0].min()) if len(extremes[0]) else 0.0
        high = float(extremes[1].max()) if len(extremes[1]) else p99
        p95, p99 = min(max(p95, low), high), min(max(p99, low), high)
    return {
        "minResponseTime": round(low * 1000, 3),
        "maxResponseTime": round(high * 1000, 3),
        "p95ResponseTime": round(p95 * 1000, 3),
        "p99ResponseTime": round(p99 * 1000, 3),
    }


def _quantile(q: float, edges: Floats, cumulated: Floats) -> float:
    """Return the quantile of cumulative bucket counts by linear interpolation, as histogram_quantile does.

    >>> _quantile(0.5, np.array([1.0, 2.0, np.inf]), np.array([0.0, 10.0, 10.0]))
    1.5
    """
    cumulated = np.maximum.accumulate(cumulated)
    rank = q * cumulated[-1]
    at = int(np.searchsorted(cumulated, rank, side="left"))
    if at >= len(edges) - 1 and np.isinf(edges[-1]):
        return float(edges[-2]) if len(edges) > 1 else 0.0
    low = float(edges[at - 1]) if at else 0.0
    below = float(cumulated[at - 1]) if at else 0.0
    inside = float(cumulated[at]) - below
    return low + (float(edges[at]) - low) * ((rank - below) / inside if inside else 1.0)
