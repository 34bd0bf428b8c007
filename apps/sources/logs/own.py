"""The portal's own log: what its processes log from a level on is kept like anybody's, under the service `portal`.

A thread of each process writes what its handler took straight into the database. It never logs about itself where it
would hear it again: what that thread logs, and what storing logs, is left out. While the database is away what does not
fit is dropped and counted; the log on the terminal has it all.
"""

import logging
import os
import threading
import time
from typing import Final

from django.db import connections
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core.logbook import Logbook
from apps.core.telemetry import Counter
from apps.sources.logs import services
from apps.sources.logs.formats import Defaults, of_object
from apps.sources.logs.records import Record

BY: Final = Principal.system("sources.logs.own")
SERVICE: Final = "portal"
EVERY: Final = 2.0
"""Seconds between two batches."""
LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the level from which on records are taken."""
AT_ONCE: Final = 500
AVOID: Final = ("apps.sources.logs", "django.db.backends")
FAILURES: Final = Counter("portal_own_log_failures_total", "Batches of the portal's own log that could not be stored.")


class _Thread(threading.Thread):
    """Stores what the handler took, until it is told to stop."""

    def __init__(self, book: Logbook) -> None:
        super().__init__(name="own-log", daemon=True)
        self.book = book
        self.stopping = threading.Event()
        self.looked = float("-inf")

    def run(self) -> None:
        self.book.quiet.is_on = True
        while not self.stopping.wait(EVERY):
            self.store()
        self.store()
        connections.close_all()

    def store(self) -> None:
        """Store what waits; what could not be stored is lost here, and stands on the terminal."""
        try:
            if time.monotonic() - self.looked > LOOK_EVERY:
                self.looked = time.monotonic()
                self.book.setLevel(services.intake().own_level.upper())
            while rows := self.book.take(AT_ONCE):
                made = [of_object(row, Defaults()) for row in rows]
                records = [record for record in made if isinstance(record, Record)]
                services.ingest(records=records, by=BY, now=timezone.now())
        except Exception:
            FAILURES.inc()
        finally:
            connections.close_all()


_running: tuple[int, Logbook, _Thread] | None = None


def start(process: str) -> None:
    """Begin in this process (again, where it was forked); a second call does nothing."""
    global _running
    if _running is not None:
        if _running[0] == os.getpid():
            return
        logging.getLogger().removeHandler(_running[1])
    book = Logbook(SERVICE, level=logging.WARNING, avoid=AVOID, most=2_000)
    book.host = process
    thread = _Thread(book)
    _running = os.getpid(), book, thread
    logging.getLogger().addHandler(book)
    thread.start()


def stop(*, timeout: float = 2.0) -> None:
    """Store what waits a last time, and end."""
    global _running
    running, _running = _running, None
    if running is None or running[0] != os.getpid():
        return
    logging.getLogger().removeHandler(running[1])
    running[2].stopping.set()
    running[2].join(timeout)
