"""Turns for what only a few may do at a time in this process: first come, first served, with an end to waiting."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from apps.promql.errors import DeadlineExceeded
from apps.promql.limits import Watch

GLANCE: Final = 0.1
"""Seconds after which somebody who waits looks whether it is still worth while."""


class Turns:
    """A fair semaphore for queries: who waits leaves when its time is up or nobody waits for its answer any more."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._line: list[object] = []
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @contextmanager
    def take(self, watch: Watch) -> Iterator[None]:
        """Wait for a place and hold it. DeadlineExceeded, Cancelled."""
        self._enter(watch)
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def _enter(self, watch: Watch) -> None:
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._taken >= self._places:
                    self._changed.wait(GLANCE)
                    watch.check()
                self._taken += 1
            except DeadlineExceeded:
                raise DeadlineExceeded(
                    f"query timed out: it reads so much that only {self._places} like it run at a time, and others did "
                    f"for all of its {watch.seconds:g} seconds. Try again, or ask for less"
                ) from None
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
