"""Which values are how bad: levels compared with a column of values. Pure; shared by live evaluation and preview."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apps.alerting.lifecycle import Severity

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

COMPARE: Final[dict[str, Callable[[Floats, float], Mask]]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
"""PromQL's comparisons; NaN is unequal to everything and neither above nor below anything, as there."""
COMPARE_ONE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
"""The same for two numbers."""
FEW: Final = 16
"""Up to so many values are looked at one by one: most rules have one series, and a call of numpy costs as much."""


@dataclass(frozen=True, slots=True)
class Level:
    """One severity of a rule; without a comparison every result is a breach."""

    severity: Severity
    comparison: str = ""
    threshold: float | None = None

    def breached(self, values: Floats) -> Mask:
        """bool[n]: which of float64[n] are this bad."""
        if not self.comparison or self.threshold is None:
            return np.ones(len(values), dtype=np.bool_)
        return COMPARE[self.comparison](values, self.threshold)

    def breaches(self, value: float) -> bool:
        """Whether one value is this bad."""
        if not self.comparison or self.threshold is None:
            return True
        return COMPARE_ONE[self.comparison](value, self.threshold)

    def __str__(self) -> str:
        return f"{self.comparison} {self.threshold:g}" if self.threshold is not None else "any result"


def breaches(values: Floats, levels: Sequence[Level]) -> dict[int, frozenset[Severity]]:
    """The rows of float64[n] that breach any level, each with the severities of the levels it breaches."""
    found: dict[int, frozenset[Severity]] = {}
    few = values.tolist() if len(values) <= FEW else None
    for level in levels:
        if few is None:
            rows = np.flatnonzero(level.breached(values)).tolist()
        else:
            rows = [row for row, value in enumerate(few) if level.breaches(value)]
        for row in rows:
            found[row] = found.get(row, frozenset()) | {level.severity}
    return found


def representative(values: Floats, levels: Sequence[Level]) -> float | None:
    """The one value that stands for all of float64[n] in a list of rules: the worst by the first level's direction."""
    if len(values) <= FEW:
        return representative_of(values.tolist(), levels)
    seen = values[~np.isnan(values)]
    if not len(seen):
        return math.nan
    return float(seen.min() if _least(levels) else seen.max())


def representative_of(values: Sequence[float], levels: Sequence[Level]) -> float | None:
    """The same of few values."""
    if not values:
        return None
    seen = [value for value in values if not math.isnan(value)]
    if not seen:
        return math.nan
    return min(seen) if _least(levels) else max(seen)


def _least(levels: Sequence[Level]) -> bool:
    return bool(levels) and levels[0].comparison.startswith("<")
