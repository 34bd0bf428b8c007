"""Ends a statement when its query's time is up: one thread for all queries, and not a word to the server before.

Setting statement_timeout and taking it back would be two round trips a query, more than a small query takes itself.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final

import psycopg

log = logging.getLogger(__name__)

CANCELLING: Final = 5.0
"""Seconds that the server may take to hear that a statement is to end."""


class _Watched:
    """One connection as long as a query uses it. Under the lock: whoever uses it next is never the one that is hit."""

    __slots__ = ("_connection", "_lock", "late")

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection: psycopg.Connection[Any] | None = connection
        self._lock = threading.Lock()
        self.late = False

    @property
    def over(self) -> bool:
        return self._connection is None

    def release(self) -> None:
        with self._lock:
            self._connection = None

    def end(self) -> None:
        with self._lock:
            if self._connection is None:
                return
            self.late = True
            try:
                self._connection.cancel_safe(timeout=CANCELLING)
            except psycopg.Error as error:
                log.warning("A statement that is late could not be ended: %s", error)


class Deadlines:
    """The connections in use by queries, in the order in which their time is up."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Start without any, as a forked process does: the thread stays behind."""
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, _Watched]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, connection: "psycopg.Connection[Any]", seconds: float) -> Iterator[_Watched]:
        """What is executed on this connection inside ends with QueryCanceled once the seconds have passed."""
        watched = _Watched(connection)
        entry = (monotonic() + seconds, next(self._numbers), watched)
        with self._changed:
            heappush(self._waiting, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            if self._waiting[0] is entry:
                self._changed.notify()
        try:
            yield watched
        finally:
            watched.release()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting and self._waiting[0][2].over:
                    heappop(self._waiting)
                wait = self._waiting[0][0] - monotonic() if self._waiting else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                late = heappop(self._waiting)[2]
            late.end()


DEADLINES: Final = Deadlines()
"""Those of this process."""
