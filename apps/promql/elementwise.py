"""Functions that work on each value by itself: mathematics, rounding, clamping and the calendar (UTC)."""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from apps.promql.arrays import Floats, Mask

Elementwise: TypeAlias = Callable[[Floats], Floats]

MATHEMATICS: Final[dict[str, Elementwise]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
    "deg": np.degrees,
    "rad": np.radians,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
}


def rounded(v: Floats, nearest: Floats) -> Floats:
    """Halves go up; `nearest` 0 gives NaN."""
    inverse = 1.0 / nearest
    halves_up: Floats = np.floor(v * inverse + 0.5) / inverse
    return halves_up


def clamped(v: Floats, low: Floats, high: Floats) -> Floats:
    return larger(low, smaller(high, v))


def smaller(left: Floats, right: Floats) -> Floats:
    """NaN where one is NaN, except that nothing is smaller than -Inf, as in Go."""
    least: Floats = np.minimum(left, right)
    return np.where((left == -np.inf) | (right == -np.inf), -np.inf, least)


def larger(left: Floats, right: Floats) -> Floats:
    """NaN where one is NaN, except that nothing is larger than +Inf, as in Go."""
    most: Floats = np.maximum(left, right)
    return np.where((left == np.inf) | (right == np.inf), np.inf, most)


def _days(v: Floats) -> tuple[np.typing.NDArray[np.datetime64], Mask]:
    known = np.abs(v) < 9.2e18  # the years that 64 bits of seconds can name
    seconds = np.trunc(np.where(known, v, 0)).astype(np.int64)
    return seconds.astype("datetime64[s]").astype("datetime64[D]"), known


def _clock(unit: int, size: int) -> Elementwise:
    def part(v: Floats) -> Floats:
        return np.floor(np.trunc(v) % (unit * size) / unit)

    return part


def _calendar(read: Callable[[np.typing.NDArray[np.datetime64]], np.typing.NDArray[np.int64]]) -> Elementwise:
    def part(v: Floats) -> Floats:
        days, known = _days(v)
        return np.where(known, read(days).astype(np.float64), np.nan)

    return part


def _whole(part: np.typing.NDArray[np.datetime64] | np.typing.NDArray[np.timedelta64]) -> np.typing.NDArray[np.int64]:
    return part.astype(np.int64)


CALENDAR: Final[dict[str, Elementwise]] = {
    "minute": _clock(60, 60),
    "hour": _clock(3600, 24),
    "day_of_week": _calendar(lambda d: (_whole(d) + 4) % 7),
    "day_of_month": _calendar(lambda d: _whole(d - d.astype("datetime64[M]").astype("datetime64[D]")) + 1),
    "day_of_year": _calendar(lambda d: _whole(d - d.astype("datetime64[Y]").astype("datetime64[D]")) + 1),
    "days_in_month": _calendar(
        lambda d: _whole(
            (d.astype("datetime64[M]") + 1).astype("datetime64[D]") - d.astype("datetime64[M]").astype("datetime64[D]")
        )
    ),
    "month": _calendar(lambda d: _whole(d.astype("datetime64[M]")) % 12 + 1),
    "year": _calendar(lambda d: _whole(d.astype("datetime64[Y]")) + 1970),
}
"""Each takes seconds since 1970, float64; fractions of a second are cut off towards 1970, as in Go."""
