"""The seed's system figures: memory, processor, disk, network and database by step, with a summary."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from apps.accounts.permissions import Scope
from apps.metrics import query
from apps.promql.engine import Result

ROWS = 3_000
ROOT = 'mountpoint="/"'
WIRE = 'device!~"lo|veth.*|docker.*|br-.*"'

EXPRESSIONS: dict[tuple[str, str], str] = {
    ("memory", "used"): "sum(node_memory_MemTotal_bytes) - sum(node_memory_MemAvailable_bytes)",
    ("memory", "free"): "sum(node_memory_MemAvailable_bytes)",
    ("memory", "total"): "sum(node_memory_MemTotal_bytes)",
    ("memory", "percentage"): "max(memoryPercentage)",
    ("cpu", "usage"): "max(cpuUsage)",
    ("cpu", "loadAverage"): "max(node_load1)",
    ("disk", "used"): f"sum(node_filesystem_size_bytes{{{ROOT}}}) - sum(node_filesystem_free_bytes{{{ROOT}}})",
    ("disk", "free"): f"sum(node_filesystem_avail_bytes{{{ROOT}}})",
    ("disk", "total"): f"sum(node_filesystem_size_bytes{{{ROOT}}})",
    ("disk", "percentage"): "max(diskUsage)",
    ("network", "bytesIn"): f"sum(rate(node_network_receive_bytes_total{{{WIRE}}}[2m]))",
    ("network", "bytesOut"): f"sum(rate(node_network_transmit_bytes_total{{{WIRE}}}[2m]))",
    ("network", "connections"): "sum(node_sockstat_TCP_inuse)",
    ("database", "connections"): "sum(pg_stat_activity_count)",
    ("database", "queryTime"): (
        "1000 * sum(rate(pg_stat_statements_seconds_total[5m])) / sum(rate(pg_stat_statements_calls_total[5m]))"
    ),
    ("database", "cacheHitRate"): (
        "100 * sum(rate(pg_stat_database_blks_hit[5m]))"
        " / (sum(rate(pg_stat_database_blks_hit[5m])) + sum(rate(pg_stat_database_blks_read[5m])))"
    ),
}
"""Bytes and counts as they are, percentages in %, bytesIn and bytesOut a second, queryTime in ms."""


@dataclass(frozen=True)
class Steps:
    """The instants of an answer (ms): from `start` to `end`, both among them, `step` apart."""

    start: int
    end: int
    step: int

    @property
    def range(self) -> dict[str, Any]:
        """The arguments of `query.query_range`."""
        return {"start": _time(self.start), "end": _time(self.end), "step": timedelta(milliseconds=self.step)}


def steps_for(start: int, end: int, most: int = 500) -> Steps:
    """Return at most `most` steps, multiples of 15 s, that end with the range: its newest values matter most."""
    step = max(-(-(end - start) // most // 15_000) * 15_000, 15_000)
    return Steps(end - (end - start) // step * step, end, step)


def system(start: int, end: int, *, scope: Scope) -> dict[str, Any]:
    """Return `metrics` (one row per step), `summary` (current, averages, peaks) and `step` for the range (ms)."""
    steps = steps_for(start, end)
    columns: dict[tuple[str, str], dict[int, float]] = {}
    for key, expression in EXPRESSIONS.items():
        columns[key] = _column(query.query_range(expression, **steps.range, scope=scope))
    rows: list[dict[str, Any]] = []
    for at in sorted(set().union(*columns.values())):
        row: dict[str, Any] = {"timestamp": at}
        for (group, name), column in columns.items():
            row.setdefault(group, {})[name] = column.get(at)
        rows.append(row)
    return {"metrics": rows[-ROWS:], "summary": _summary(columns) if rows else None, "step": steps.step}


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def _column(result: Result) -> dict[int, float]:
    """Return the first series of a range result as {ms: value}, finite values only."""
    if not len(result.v):
        return {}
    good = result.ok[0] & np.isfinite(result.v[0])
    return {int(ts): round(float(v), 3) for ts, v in zip(result.ts[good], result.v[0][good], strict=True)}


def _summary(columns: dict[tuple[str, str], dict[int, float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"current": {}, "averages": {}, "peaks": {}}
    for (group, name), column in columns.items():
        values = list(column.values())
        for part, value in (
            ("current", values[-1] if values else None),
            ("averages", round(sum(values) / len(values), 3) if values else None),
            ("peaks", max(values, default=None)),
        ):
            summary[part].setdefault(group, {})[name] = value
    return summary
