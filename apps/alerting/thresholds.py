"""Which values are how bad: levels compared with a column of values. Pure; shared by live evaluation and preview."""

import math
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

    def __str__(self) -> str:
        return f"{self.comparison} {self.threshold:g}" if self.threshold is not None else "any result"


def breaches(values: Floats, levels: Sequence[Level]) -> dict[int, frozenset[Severity]]:
    """The rows of float64[n] that breach any level, each with the severities of the levels it breaches."""
    found: dict[int, frozenset[Severity]] = {}
    for level in levels:
        for row in np.flatnonzero(level.breached(values)).tolist():
            found[row] = found.get(row, frozenset()) | {level.severity}
    return found


def representative(values: Floats, levels: Sequence[Level]) -> float | None:
    """The one value that stands for all of float64[n] in a list of rules: the worst by the first level's direction."""
    if not len(values):
        return None
    seen = values[~np.isnan(values)]
    if not len(seen):
        return math.nan
    return float(seen.min() if levels and levels[0].comparison.startswith("<") else seen.max())
