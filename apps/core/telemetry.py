"""What this process counts about itself: counters, gauges and histograms in memory, cheap enough for every request.

It knows no store, no clock and no framework: `apps.metrics.telemetry_flush` writes the snapshots down, and
whoever reads them decides what they mean. Counters live as long as their process; a forked role starts at zero
(`reset_if_forked`).
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram", "unknown"]

LIMIT: Final = 500
"""Label sets a metric may have in one process; what comes after is counted under `OVERFLOW`, so totals stay right."""
OVERFLOW: Final = "overflow"
OVERFLOWN: Final = "Observations counted under another label set because the metric had too many."
SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0)
"""Buckets for durations: edges at 5 s and 10 s, where the default rules look, and some beyond them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value: Prometheus name and labels, float64 value, the metric's type and help.

    `timestamp_ms` (milliseconds since 1970) only where the value is not of the moment it is written with.
    """

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    type: Kind = "gauge"
    help: str = ""
    timestamp_ms: int | None = None


_process = os.getpid()
_lock = threading.Lock()
_metrics: "dict[tuple[str, bool], _Metric[Any]]" = {}
_callbacks: list[Callable[[], Iterable[Reading]]] = []

C = TypeVar("C")


class _Metric(Generic[C]):
    """Label sets of one metric, each with a cell that its lock guards."""

    type: ClassVar[Kind]

    def __init__(self, name: str, help: str, labels: tuple[str, ...] = (), *, limit: int = LIMIT) -> None:  # noqa: A002
        self.name = name
        self.help = help
        self.labels = labels
        self.limit = limit
        self.lock = threading.Lock()
        self.cells: dict[tuple[str, ...], C] = {}
        self.overflows = 0
        key = (name, isinstance(self, Extent))  # an extent's own names end in _min and _max
        with _lock:
            if key in _metrics:
                raise ValueError(f"The metric {name} is defined twice; import the one that exists.")
            _metrics[key] = self
        if not labels:
            self.cells[()] = self._new()

    def _new(self) -> C:
        raise NotImplementedError

    def _cell(self, labels: Mapping[str, str]) -> C:
        """The cell of these labels (lock held): made on first use, up to the limit."""
        try:
            key = tuple([labels[name] for name in self.labels])
        except KeyError as error:
            raise ValueError(f"{self.name} needs the label {error.args[0]}; given: {sorted(labels)}.") from None
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {list(self.labels)}, not {sorted(labels)}.")
        return self._at(key)

    def _at(self, key: tuple[str, ...]) -> C:
        """The cell of these labels' values, in the order of `self.labels` (lock held)."""
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= self.limit:
                self.overflows += 1
                key = (OVERFLOW,) * len(self.labels)
            if (cell := self.cells.get(key)) is None:
                cell = self.cells[key] = self._new()
        return cell

    def reset(self) -> None:
        """Start from zero with a new lock."""
        self.lock = threading.Lock()
        self.overflows = 0
        self.cells = {} if self.labels else {(): self._new()}

    def readings(self, *, close: bool) -> Iterator[Reading]:
        raise NotImplementedError

    def _reading(self, key: tuple[str, ...], value: float, suffix: str = "", **extra: str) -> Reading:
        labels = dict(zip(self.labels, key, strict=True)) | extra
        return Reading(self.name + suffix, value, labels, self.type, self.help)


class _Number(_Metric[list[float]]):
    """A metric whose cells are single numbers (in a list, so that they change in place)."""

    def _new(self) -> list[float]:
        return [0.0]

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add `amount` to the series with these labels."""
        with self.lock:
            self._cell(labels)[0] += amount

    def add(self, amount: float, key: tuple[str, ...]) -> None:
        """Add `amount` to the series whose labels have these values, in their order: for what every request counts."""
        with self.lock:
            self._at(key)[0] += amount

    def value(self, **labels: str) -> float:
        """What the series stands at, without making one."""
        with self.lock:
            cell = self.cells.get(tuple([labels[name] for name in self.labels]))
            return cell[0] if cell is not None else 0.0

    def readings(self, *, close: bool) -> Iterator[Reading]:
        with self.lock:
            now = [(key, cell[0]) for key, cell in self.cells.items()]
        for key, value in now:
            yield self._reading(key, value)


class Counter(_Number):
    """Only ever grows; its name ends in `_total`."""

    type = "counter"

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add `amount`, which is not negative."""
        if amount < 0:
            raise ValueError(f"{self.name} is a counter and cannot go down by {-amount}.")
        super().inc(amount, **labels)

    def touch(self, **labels: str) -> None:
        """Make the series at zero, so that its first increment is an increase."""
        with self.lock:
            self._cell(labels)


class Gauge(_Number):
    """Goes up and down."""

    type = "gauge"

    def set(self, value: float, /, **labels: str) -> None:
        """Set the series with these labels to `value`."""
        with self.lock:
            self._cell(labels)[0] = value

    def dec(self, amount: float = 1.0, /, **labels: str) -> None:
        """Take `amount` off."""
        self.inc(-amount, **labels)


class Extent(_Metric[list[float]]):
    """The smallest and the largest value since the last closing snapshot, as gauges `…_min` and `…_max`."""

    type = "gauge"

    def _new(self) -> list[float]:
        return [float("inf"), float("-inf")]

    def observe(self, value: float, /, **labels: str) -> None:
        """Take `value` into the interval."""
        with self.lock:
            self._take(self._cell(labels), value)

    def add(self, value: float, key: tuple[str, ...]) -> None:
        """Take `value` into the interval of the labels with these values, in their order."""
        with self.lock:
            self._take(self._at(key), value)

    @staticmethod
    def _take(cell: list[float], value: float) -> None:
        if value < cell[0]:
            cell[0] = value
        if value > cell[1]:
            cell[1] = value

    def readings(self, *, close: bool) -> Iterator[Reading]:
        with self.lock:
            now = [(key, cell[0], cell[1]) for key, cell in self.cells.items()]
            if close:
                self.cells = {}
        for key, low, high in now:
            if low <= high:
                yield self._reading(key, low, "_min")
                yield self._reading(key, high, "_max")


class Histogram(_Metric[list[float]]):
    """A classic histogram: a cell is a count per bucket, then the count beyond the last, then the sum."""

    type = "histogram"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        labels: tuple[str, ...] = (),
        *,
        buckets: tuple[float, ...] = SECONDS,
        limit: int = LIMIT,
    ) -> None:
        """`buckets` are upper bounds, ascending, without the infinite one."""
        if list(buckets) != sorted(set(buckets)) or not buckets:
            raise ValueError(f"The buckets of {name} must ascend.")
        self.buckets = tuple(float(edge) for edge in buckets)
        # Prometheus 3 writes whole numbers as 1.0 in `le`, whatever the sender wrote.
        self.edges = (*(repr(edge) for edge in self.buckets), "+Inf")
        super().__init__(name, help, labels, limit=limit)

    def _new(self) -> list[float]:
        return [0.0] * (len(self.buckets) + 2)

    def observe(self, value: float, /, **labels: str) -> None:
        """Count `value` in its bucket."""
        place = bisect_left(self.buckets, value)
        with self.lock:
            cell = self._cell(labels)
            cell[place] += 1.0
            cell[-1] += value

    def add(self, value: float, key: tuple[str, ...]) -> None:
        """Count `value` under the labels with these values, in their order."""
        place = bisect_left(self.buckets, value)
        with self.lock:
            cell = self._at(key)
            cell[place] += 1.0
            cell[-1] += value

    def readings(self, *, close: bool) -> Iterator[Reading]:
        with self.lock:
            now = [(key, cell.copy()) for key, cell in self.cells.items()]
        for key, cell in now:
            total = 0.0
            for edge, count in zip(self.edges, cell, strict=False):
                total += count
                yield self._reading(key, total, "_bucket", le=edge)
            yield self._reading(key, cell[-1], "_sum")
            yield self._reading(key, total, "_count")


def on_snapshot(callback: Callable[[], Iterable[Reading]]) -> Callable[[], Iterable[Reading]]:
    """Have `callback` measured at every snapshot: for what is cheaper to read than to keep."""
    if callback not in _callbacks:
        _callbacks.append(callback)
    return callback


def snapshot(*, close: bool = False) -> list[Reading]:
    """Return everything this process has counted, histograms as cumulative buckets.

    `close` ends the interval of the minima and maxima: the periodic flush does, an onlooker does not.
    """
    with _lock:
        metrics = list(_metrics.values())
        callbacks = list(_callbacks)
    readings = [reading for metric in metrics for reading in metric.readings(close=close)]
    name = "portal_telemetry_overflow_total"
    readings.extend(
        Reading(name, float(metric.overflows), {"metric": metric.name}, "counter", OVERFLOWN)
        for metric in metrics
        if metric.overflows
    )
    for callback in callbacks:
        readings.extend(callback())
    return readings


def reset_if_forked() -> bool:
    """Set everything to zero in a process that was forked since this was counted; True when it was.

    A forked role calls it once, before it counts: else it would show its parent's work as its own.
    """
    if _process == os.getpid():
        return False
    reset()
    return True


def reset() -> None:
    """Set everything to zero, with locks of its own: a fork copies locks as they were held."""
    global _lock, _process
    _process = os.getpid()
    _lock = threading.Lock()
    for metric in _metrics.values():
        metric.reset()


OUTBOUND: Final = Histogram(
    "http_client_request_duration_seconds", "Outbound HTTP requests by host and status code.", ("host", "code")
)
LOGIN_FAILURES: Final = Counter("portal_login_failures_total", "Logins that were refused.")


def outbound(host: str, status: int, seconds: float) -> None:
    """Count one outbound request; `status` 0 means that no answer came (hang this onto `apps.core.http.observers`)."""
    OUTBOUND.observe(seconds, host=host, code=str(status) if status else "none")
