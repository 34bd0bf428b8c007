"""Writes down what each process counts about itself: a thread per process, every 15 seconds on the tick.

A flush that fails is skipped and counted: counters lose nothing by it, and nothing piles up. A counter that
appears between two flushes is given a zero at the flush before, so that its first increments are an increase:
without it, the first click on a page would never show in a rate.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import psutil
from django.db import connections
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core import http, telemetry
from apps.core.telemetry import Counter, Reading
from apps.metrics import query, services
from apps.metrics.collection import instance, tick
from apps.metrics.collectors import OWN
from apps.metrics.presence import Presence
from apps.metrics.samples import Samples

log = logging.getLogger(__name__)

EVERY = timedelta(seconds=15)
FIRST = 2.0
"""Seconds after the start of the first flush: the first page shows real figures, and a crash loop writes little."""
BY = Principal.system("metrics.telemetry_flush")
FAILURES = Counter("portal_telemetry_flush_failures_total", "Flushes of process counters that could not be stored.")
FLUSHES = Counter("portal_telemetry_flushes_total", "Flushes of process counters that were stored.")


class Flusher:
    """The counters of this process on their way to the store. One thread at a time calls `flush` and `end`."""

    def __init__(self, process: str, *, started: datetime) -> None:
        self.labels = {"instance": instance(), "job": OWN, "process": process}
        self.previous_ms = _ms(started)
        self.presence = Presence()

    def readings(self, counted: Iterable[Reading], at_ms: int) -> list[Reading]:
        """Return what one flush writes: `counted` with labels, zeros of new counters, markers of ended series."""
        found = [self._labelled(one, at_ms) for one in counted]
        zeros = [
            Reading(one.name, 0.0, one.labels, one.type, one.help, self.previous_ms)
            for one in self.presence.new("", found)
            if one.type in {"counter", "histogram"} and self.previous_ms < at_ms
        ]
        ended = self.presence.update("", found, at_ms)
        self.previous_ms = at_ms
        return zeros + ended + found

    def _labelled(self, reading: Reading, at_ms: int) -> Reading:
        labels = {**reading.labels, **self.labels}
        return Reading(reading.name, reading.value, labels, reading.type, reading.help, at_ms)

    def flush(self, *, now: datetime, at: datetime) -> int:
        """Store a snapshot stamped `at`; return the number of samples. While collection is off nothing is stored."""
        if not query.collection_on():
            return self.end(now=now)
        before = self.presence.copy(), self.previous_ms
        try:
            return self._store(self.readings(telemetry.snapshot(close=True), _ms(at)), now)
        except BaseException:
            # The next flush begins where this one did: no zero and no end gets lost.
            self.presence, self.previous_ms = before
            raise

    def end(self, *, now: datetime) -> int:
        """End every series of this process, one millisecond after its last sample."""
        return self._store(self.presence.end("", self.previous_ms + 1), now)

    def _store(self, readings: list[Reading], now: datetime) -> int:
        if not readings:
            return 0
        return services.ingest(samples=Samples.from_readings(readings, now), by=BY, now=now, live="requests").accepted


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def process_readings() -> Iterator[Reading]:
    """What every process shows about itself, under the names of Prometheus' client libraries."""
    me = psutil.Process()
    with me.oneshot(), contextlib.suppress(psutil.Error):
        times, memory = me.cpu_times(), me.memory_info()
        yield Reading(
            "process_cpu_seconds_total", times.user + times.system, {}, "counter", "Processor seconds of the process."
        )
        yield Reading("process_resident_memory_bytes", float(memory.rss), help="Resident memory of the process.")
        yield Reading("process_virtual_memory_bytes", float(memory.vms), help="Address space of the process.")
        yield Reading("process_start_time_seconds", me.create_time(), help="When the process began.")
        yield Reading("process_open_fds", float(me.num_fds()), help="Open file descriptors of the process.")
    yield Reading("portal_process_threads", float(threading.active_count()), help="Threads that run Python.")


class _Thread(threading.Thread):
    """Flushes shortly after the start, then on every tick, until it is told to stop."""

    def __init__(self, process: str) -> None:
        super().__init__(name="telemetry-flush", daemon=True)
        self.stopping = threading.Event()
        self.flusher = Flusher(process, started=timezone.now())

    def run(self) -> None:
        wait = FIRST
        while not self.stopping.wait(wait):
            now = timezone.now()
            # The first flush is stamped with its own second, the others with the tick that woke them.
            at = tick(now, timedelta(seconds=1) if wait == FIRST else EVERY)
            self._attempt(now, at)
            wait = (tick(timezone.now(), EVERY) + EVERY - timezone.now()).total_seconds()
        now = timezone.now()
        self._attempt(now, now)
        self._quietly(lambda: self.flusher.end(now=now))
        connections.close_all()

    def _attempt(self, now: datetime, at: datetime) -> None:
        if self._quietly(lambda: self.flusher.flush(now=now, at=at)):
            FLUSHES.inc()
        else:
            FAILURES.inc()

    def _quietly(self, store: Callable[[], int]) -> bool:
        try:
            store()
        except Exception as error:  # the database is away or refuses: the next tick tries anew
            log.warning("Counters of this process were not stored (%s); the next flush will.", error)
            return False
        finally:
            connections.close_all()
        return True


_thread: _Thread | None = None


def start(process: str) -> None:
    """Begin to write this process's counters down, under the label `process`; a second call does nothing.

    In a forked process everything counted so far was counted by its parent, and is set to zero first.
    """
    global _thread
    if not telemetry.reset_if_forked() and _thread is not None and _thread.is_alive():
        return
    telemetry.on_snapshot(process_readings)
    if telemetry.outbound not in http.observers:
        http.observers.append(telemetry.outbound)
    _thread = _Thread(process)
    _thread.start()


def stop(*, timeout: float = 3.0) -> None:
    """Write the counters down a last time and end their series; gives up after `timeout` seconds."""
    global _thread
    thread, _thread = _thread, None
    if thread is not None:
        thread.stopping.set()
        thread.join(timeout)
