"""What several readers ask of the store at the same time is asked once: one answer for the same query, grid and scope.

While it is worked out the others wait for it; then it is kept for as long as nothing newer is wanted. Bounded by bytes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from apps.accounts.permissions import Scope
from apps.core.telemetry import Counter
from apps.dashboards.timespan import Span
from apps.metrics import query
from apps.promql.limits import Limits
from apps.promql.result import Result

AGE: Final = 1.0
"""Seconds for which an answer serves whoever does not say how new it has to be: a chart's steps are 15 s and more."""
MOST: Final = 32_000_000
LARGEST: Final = 4_000_000
"""Bytes: of all answers that are kept, and of one."""
WAIT: Final = 35.0

SHARED = Counter("portal_chart_queries_total", "Queries of charts: computed, or shared with others.", ("how",))
Key = tuple[str, Span, Scope, Limits]

_newer_than: ContextVar[float | None] = ContextVar("newer_than", default=None)


@dataclass(eq=False)
class _Flight:
    """One computation: when it began (monotonic seconds), and what came out."""

    began: float
    done: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    error: Exception | None = None
    size: int = 0


class Store:
    """Answers by question, the ones used last at the end."""

    def __init__(self) -> None:
        self._flights: OrderedDict[Key, _Flight] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0

    def get(self, key: Key, compute: Callable[[], Result], *, newer_than: float) -> Result:
        """Return what was computed from `newer_than` on (monotonic seconds), or compute it; raises what that raises."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and flight.began >= newer_than:
                self._flights.move_to_end(key)
                is_mine = False
            else:
                if flight is not None:
                    self._drop(key, flight)
                flight = self._flights[key] = _Flight(monotonic())
                is_mine = True
        SHARED.inc(how="computed" if is_mine else "shared")
        if is_mine:
            return self._fly(key, flight, compute)
        flight.done.wait(WAIT)
        if flight.error is not None:
            raise flight.error
        return flight.result or compute()

    def forget(self) -> None:
        """Keep nothing; what is being worked out ends with whoever waits for it."""
        with self._lock:
            self._flights.clear()
            self._size = 0

    def _fly(self, key: Key, flight: _Flight, compute: Callable[[], Result]) -> Result:
        try:
            result = flight.result = compute()
        except Exception as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                size = 0 if flight.result is None else flight.result.v.nbytes + flight.result.ok.nbytes
                if flight.result is None or size > LARGEST:
                    self._drop(key, flight)
                elif self._flights.get(key) is flight:
                    flight.size = size
                    self._size += size
                    self._shrink()
            flight.done.set()
        return result

    def _drop(self, key: Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
            self._size -= flight.size

    def _shrink(self) -> None:
        for key, flight in list(self._flights.items()):
            if self._size <= MOST and monotonic() - flight.began < WAIT:
                return
            if flight.done.is_set():
                self._drop(key, flight)


_store = Store()


def forget() -> None:
    """Keep no answer: what it was made of has been taken away."""
    _store.forget()


@contextmanager
def newer_than(moment: float) -> Iterator[None]:
    """Within it, only what was computed from this moment on (monotonic seconds) is taken."""
    token = _newer_than.set(moment)
    try:
        yield
    finally:
        _newer_than.reset(token)


def query_range(text: str, span: Span, *, scope: Scope, limits: Limits) -> Result:
    """See `query.query_range`; the result is everybody's: nobody writes into it."""
    moment = _newer_than.get()
    return _store.get(
        (text, Span(span.start, span.start, span.end, span.step), scope, limits),
        lambda: query.query_range(text, start=span.start, end=span.end, step=span.step, scope=scope, limits=limits),
        newer_than=monotonic() - AGE if moment is None else moment,
    )
