"""Django's PostgreSQL backend, whose pool looks at a connection instead of asking the server over it.

Asking costs a round trip, which is more than a small query takes. A server that has ended, or has ended the session,
has said so on the connection: something waits to be read there. Only then is it asked.
"""

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool


def look(connection: "psycopg.Connection[Any]") -> None:
    """Raise what psycopg raises on a connection that is dead; of one that nothing was said on, nothing is asked."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        ConnectionPool.check_connection(connection)


class DatabaseWrapper(base.DatabaseWrapper):
    """The backend that settings name."""

    @property
    def pool(self) -> Any:
        """The process's pool; Django chooses its check and takes no other (CONN_HEALTH_CHECKS is on or off)."""
        pool = super().pool
        if pool is not None:
            pool._check = look  # noqa: SLF001
        return pool
