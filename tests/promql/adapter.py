"""Plugs the engine into the conformance runner for Prometheus' own test scripts."""

from typing import Any

from apps.promql.engine import instant, query_range
from apps.promql.errors import PromQLError
from apps.promql.source import MemorySource

Series = list[tuple[dict[str, str], list[int], list[float]]]


class Adapter:
    """One segment of a script: series are loaded, expressions evaluated."""

    QueryError = PromQLError

    def __init__(self) -> None:
        self.series: Series = []
        self.source = MemorySource()

    def load(self, series: Series) -> None:
        self.series += series
        self.source = MemorySource(self.series)

    def instant(self, expr: str, t: float) -> dict[str, Any]:
        return instant(expr, self.source, round(t * 1000)).to_api()

    def range(self, expr: str, start: float, end: float, step: float) -> dict[str, Any]:
        return query_range(expr, self.source, round(start * 1000), round(end * 1000), round(step * 1000)).to_api()
