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
    """One severity of a rule; without a comparison every result is a breach.

    What fires is held while a value is beyond `recovery`, on the same side as the threshold, or as long as the
    expression `recovers` has no result with the same labels.
    """

    severity: Severity
    comparison: str = ""
    threshold: float | None = None
    recovery: float | None = None
    recovers: str = ""

    @property
    def may_hold(self) -> bool:
        """Whether it has a recovery of its own."""
        return self.recovery is not None or bool(self.recovers)

    def beyond_recovery(self, values: Floats) -> Mask:
        """Which of float64[…] are not back behind the recovery threshold, in their shape."""
        if not self.comparison or self.recovery is None:
            return np.zeros(values.shape, dtype=np.bool_)
        return COMPARE[self.comparison](values, self.recovery)

    def holds(self, value: float | None, recovered: bool) -> bool:
        """Whether one value that is no breach (None: there is none) is no recovery either."""
        if self.recovers and not recovered:
            return True
        if value is None or not self.comparison or self.recovery is None:
            return False
        return COMPARE_ONE[self.comparison](value, self.recovery)

    def breached(self, values: Floats) -> Mask:
        """Which of float64[…] are this bad, in their shape."""
        if not self.comparison or self.threshold is None:
            return np.ones(values.shape, dtype=np.bool_)
        return COMPARE[self.comparison](values, self.threshold)

    def breaches(self, value: float) -> bool:
        """Whether one value is this bad."""
        if not self.comparison or self.threshold is None:
            return True
        return COMPARE_ONE[self.comparison](value, self.threshold)

    def __str__(self) -> str:
        text = f"{self.comparison} {self.threshold:g}" if self.threshold is not None else "any result"
        return text if self.recovery is None else f"{text} (recovers at {self.recovery:g})"


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
