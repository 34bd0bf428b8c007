"""Readings as OTLP's JSON: an ExportMetricsServiceRequest of cumulative sums, gauges and histograms.

Pure. A series begins at the report before the one in which it first stands: so its first increments are increases.
Source: opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding, opentelemetry-proto's metrics.proto.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from apps.core.telemetry import Reading

CUMULATIVE: Final = 2
GONE: Final = 1
"""The flag of a data point that ends its series."""
AFTER: Final = 1_000_000
"""Nanoseconds from a series' last value to its end."""

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class _Histogram:
    """The readings of one histogram's cell, put together again."""

    edges: list[float] = field(default_factory=list)
    cumulated: list[float] = field(default_factory=list)
    sum: float = 0.0
    count: float = 0.0


class Report:
    """What one process says in its requests: who it is, and since when each of its series counts."""

    def __init__(self, resource: Mapping[str, str], labels: Mapping[str, str], started_ns: int) -> None:
        """`resource`: attributes such as `service.name`; `labels` stand on every series."""
        self.resource = _attributes(resource)
        self.labels = dict(labels)
        self.previous_ns = started_ns
        self.starts: dict[Key, int] = {}
        self.gauges: dict[Key, Reading] = {}

    def request(self, readings: Iterable[Reading], at_ns: int, *, is_last: bool = False) -> bytes:
        """Return the body that reports the readings at a time (ns since 1970); the last one ends its series."""
        metrics: dict[str, dict[str, Any]] = {}
        cells: dict[Key, _Histogram] = {}
        gauges: dict[Key, Reading] = {}
        for reading in readings:
            labels = tuple(sorted((name, text) for name, text in reading.labels.items() if name != "le"))
            if reading.type not in ("histogram", "counter"):
                gauges[reading.name, labels] = reading
            elif reading.type == "counter":
                points = _points(metrics, reading.name, reading, "sum")
                points += self._counted({"asDouble": _number(reading.value)}, (reading.name, labels), at_ns, is_last)
            else:
                family, _, part = reading.name.rpartition("_")
                cell = cells.setdefault((family, labels), _Histogram())
                if part == "bucket":
                    cell.edges.append(float(reading.labels["le"]))
                    cell.cumulated.append(reading.value)
                elif part == "sum":
                    cell.sum = reading.value
                else:
                    cell.count = reading.value
                    points = _points(metrics, family, reading, "histogram")
                    points += self._counted(_histogram(cell), (family, labels), at_ns, is_last)
        for key, reading in gauges.items():
            points = _points(metrics, reading.name, reading, "gauge")
            points.append(self._point({"asDouble": _number(reading.value)}, key, at_ns))
        gone = [(key, at_ns) for key in self.gauges.keys() - gauges.keys()]
        gone += [(key, at_ns + AFTER) for key in gauges if is_last]
        for key, when in gone:
            points = _points(metrics, key[0], self.gauges.get(key) or gauges[key], "gauge")
            points.append({**self._point({"asDouble": 0}, key, when), "flags": GONE})
        self.gauges = gauges
        self.previous_ns = at_ns
        scope = {"metrics": list(metrics.values())}
        body = {"resourceMetrics": [{"resource": {"attributes": self.resource}, "scopeMetrics": [scope]}]}
        return json.dumps(body, separators=(",", ":")).encode()

    def _point(self, value: dict[str, Any], key: Key, at_ns: int) -> dict[str, Any]:
        """A data point."""
        return {**value, "timeUnixNano": str(at_ns), "attributes": _attributes({**dict(key[1]), **self.labels})}

    def _counted(self, value: dict[str, Any], key: Key, at_ns: int, is_last: bool) -> list[dict[str, Any]]:
        """The data point of something that counts, and the one that ends its series where it is the last."""
        start = self.starts.setdefault(key, min(self.previous_ns, at_ns - 1))
        point = {**self._point(value, key, at_ns), "startTimeUnixNano": str(start)}
        return [point, {**point, "timeUnixNano": str(at_ns + AFTER), "flags": GONE}] if is_last else [point]


def _points(metrics: dict[str, dict[str, Any]], name: str, reading: Reading, kind: str) -> list[dict[str, Any]]:
    """The list that a metric's data points stand in."""
    metric = metrics.get(name)
    if metric is None:
        data: dict[str, Any] = {"dataPoints": []}
        if kind != "gauge":
            data["aggregationTemporality"] = CUMULATIVE
        if kind == "sum":
            data["isMonotonic"] = True
        metric = metrics[name] = {"name": name, "description": reading.help, kind: data}
    points: list[dict[str, Any]] = metric[kind]["dataPoints"]
    return points


def _histogram(cell: _Histogram) -> dict[str, Any]:
    below = [0.0, *cell.cumulated]
    return {
        "count": str(round(cell.count)),
        "sum": cell.sum,
        "bucketCounts": [str(round(after - before)) for before, after in zip(below, cell.cumulated, strict=False)],
        "explicitBounds": [edge for edge in cell.edges if edge != math.inf],
    }


def _number(value: float) -> float | str:
    """A number as protobuf's JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _attributes(pairs: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": text}} for name, text in pairs.items()]
