"""Connections that a few threads keep between two requests: taking one from the pool costs a small query a tenth.

Few, because a connection that is kept is nobody else's: with a third of the pool's kept, views and sockets still find
theirs.
"""

import threading
from typing import Any, Final

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.pq import TransactionStatus

from monitoring_portal.postgresql.base import look


class Kept:
    """Threads that may keep their connection, at most `seats` of them at once."""

    def __init__(self, seats: int) -> None:
        self._seats = threading.BoundedSemaphore(seats)
        self._mine = threading.local()

    def begin(self) -> None:
        """Before a request: drop what has died since this thread's last one."""
        raw = connections[DEFAULT_DB_ALIAS].connection
        if raw is None:
            return
        try:
            look(raw)
        except psycopg.Error:
            connections.close_all()

    def end(self) -> None:
        """After it: keep the connection where it is in order and there is a seat, else give it back."""
        raw: Any = connections[DEFAULT_DB_ALIAS].connection
        if raw is None:
            return
        if raw.closed or raw.info.transaction_status != TransactionStatus.IDLE or not self._sits():
            connections.close_all()

    def _sits(self) -> bool:
        if not getattr(self._mine, "seat", False):
            self._mine.seat = self._seats.acquire(blocking=False)
        return bool(self._mine.seat)


KEPT: Final = Kept(4)
"""Those of this process."""
