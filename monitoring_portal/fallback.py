"""The beat process' second duty: it runs the loops that page people when the workers or Redis are away."""

import logging
import threading
import time

from django.db import Error, connection
from django.utils import timezone

from apps.core import tasks

log = logging.getLogger(__name__)
EVERY = 1.0


def start() -> threading.Event:
    """Watch the loops from a daemon thread until the returned event is set."""
    stop = threading.Event()
    threading.Thread(target=_watch, args=(stop,), name="fallback", daemon=True).start()
    return stop


def _watch(stop: threading.Event) -> None:
    began = time.monotonic()
    # The workers of a fresh start get the time to come up, else beat would race them for their first ticks.
    if stop.wait(10 * EVERY):
        return
    running: dict[str, threading.Thread] = {}
    while not stop.wait(EVERY):
        try:
            names = tasks.stale(time.monotonic() - began)
        except Error as error:
            log.warning("The fall-back could not reach the database: %s", str(error).strip().splitlines()[:1])
            names = []
        except Exception:  # whatever it met: without this thread nobody is paged while the workers are away
            log.exception("The fall-back could not look at the loops; it looks again.")
            names = []
        finally:
            connection.close()
        for name in names:
            # One thread a loop: a delivery that waits for its receiver must not hold up evaluation.
            if name not in running or not running[name].is_alive():
                running[name] = threading.Thread(target=_run, args=(name,), name=f"fallback {name}", daemon=True)
                running[name].start()


def _run(name: str) -> None:
    try:
        if tasks.run(name, now=timezone.now()):
            log.warning("Workers are away: the beat process ran %s itself.", name)
    finally:
        connection.close()
