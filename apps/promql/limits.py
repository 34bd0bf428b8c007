"""What a query may cost, what it would cost, and how long it may still take."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from apps.promql.errors import Cancelled, DeadlineExceeded, LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may cost.

    steps: of its grid, and of a subquery's. series and samples: read, as far as they are known before anything is
    decoded, and again when they are there. points: values of the answer. cells: series x steps of one matrix.
    seconds: from the first look at the store to the last value. held: samples in memory at once (16 bytes each);
    what is more is read piece by piece.
    """

    steps: int = 11_000
    subquery_steps: int = 100_000
    series: int = 1_000_000
    samples: int = 50_000_000
    points: int = 10_000_000
    cells: int = 10_000_000
    seconds: float | None = None
    held: int = 5_000_000

    def admit(self, series: int, samples: int) -> None:
        """Refuses what reads too much. LimitError names the budget, its limit and the query's own cost."""
        if series > self.series:
            raise LimitError(
                f"the query reads {series} series, more than the limit of {self.series}: select fewer by their labels"
            )
        if samples > self.samples:
            raise LimitError(
                f"the query reads {samples} samples, more than the limit of {self.samples}: "
                "ask for fewer series or a shorter time"
            )

    def admit_points(self, points: int) -> None:
        """Refuses an answer that is too long. LimitError."""
        if points > self.points:
            raise LimitError(
                f"the answer has {points} points, more than the limit of {self.points}: "
                "ask for fewer series, a longer step or a shorter time"
            )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a query would cost: series and samples that it reads, points of the answer at most, steps.

    `refused` says why the limits do not allow it; `heavy`: it reads more than is held in memory at once.
    """

    series: int
    samples: int
    points: int
    steps: int
    heavy: bool = False
    refused: str | None = None


class Watch:
    """One query's time, its reading included, and whether anybody still waits for it."""

    __slots__ = ("_cancelled", "_ends", "seconds")

    def __init__(self, seconds: float | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        self.seconds = seconds
        self._cancelled = cancelled
        self.restart()

    def restart(self) -> None:
        """From now on it may take its time."""
        self._ends = None if self.seconds is None else monotonic() + self.seconds

    @property
    def left(self) -> float | None:
        """Seconds that are left, not below zero; None: no end."""
        return None if self._ends is None else max(0.0, self._ends - monotonic())

    def check(self) -> None:
        """DeadlineExceeded when the time is up, Cancelled when nobody waits any more."""
        if self._ends is not None and monotonic() > self._ends:
            raise DeadlineExceeded(f"query timed out: it ran longer than {self.seconds:g} seconds")
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("query was canceled: nobody waits for its answer any more")
