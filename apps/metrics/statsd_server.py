"""Receives StatsD packets on a UDP port and writes what they come to down, every ten seconds on the tick.

One thread empties the socket in batches and adds them up; another flushes. What the kernel had to drop because the
socket's buffer was full is counted and shown (Linux), for nobody else will ever know: UDP is *at most once*. Whoever
reaches the port may send, so it listens on loopback unless it is told otherwise, and the number of series is bounded.
"""

import contextlib
import logging
import socket
import struct
import sys
import threading
import time
from datetime import datetime, timedelta
from typing import Final

from django.db import connections
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core.telemetry import Counter, Gauge, Reading
from apps.metrics import intake, services
from apps.metrics.collection import instance, tick
from apps.metrics.presence import Presence
from apps.metrics.samples import Samples
from apps.metrics.statsd import Totals

log = logging.getLogger(__name__)

EVERY: Final = timedelta(seconds=10)
BATCH: Final = 2_000
"""Packets that are taken before they are added up."""
MOST: Final = 65_535
BUFFER: Final = 8_000_000
"""Bytes of the socket's buffer that are asked for: a second of 10,000 packets; the system may allow less."""
BY: Final = Principal.system("metrics.statsd")
PUSH: Final = intake.Push("statsd", BY)
PACKETS: Final = Counter("portal_statsd_packets_total", "StatsD packets that were received.")
DROPPED: Final = Counter(
    "portal_statsd_dropped_packets_total", "StatsD packets that the kernel dropped because they came too fast."
)
SERIES: Final = Gauge("portal_statsd_series", "Series that StatsD packets told lately.")
_RCVBUFFORCE: Final = 33
_MEMINFO: Final = 55
_DROPS: Final = 8


class Address(ValueError):
    """The address cannot be listened on; the text says why."""


def address_of(bind: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises Address.

    >>> address_of("127.0.0.1:8125"), address_of("[::1]:8125")
    (('127.0.0.1', 8125), ('::1', 8125))
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise Address(f"STATSD_BIND is {bind!r}, but must be host:port, such as 127.0.0.1:8125.")
    return host.strip("[]") or "127.0.0.1", int(port)


def listen(bind: str) -> socket.socket:
    """A bound UDP socket with as large a buffer as the system gives. Raises Address."""
    host, port = address_of(bind)
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, BUFFER)
    with contextlib.suppress(OSError):
        if made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < BUFFER:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise Address(f"StatsD cannot listen on {bind} ({error.strerror}): choose another STATSD_BIND.") from error
    return made


class Server:
    """A receiver and a flusher of one socket."""

    def __init__(self, listening: socket.socket) -> None:
        self.socket = listening
        # The receiver looks up from an idle socket twice a second, without a second system call for each packet.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 500_000))
        self.totals = Totals()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.presence = Presence()
        self.labels = {"job": "statsd", "instance": instance()}
        self.previous_ms = _ms(timezone.now())
        self.dropped = 0
        self._receiver = threading.Thread(target=self._receive, name="statsd-receive", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._receiver.start()

    def run(self) -> None:
        """Flush on each tick until told to stop; then a last time, and end all series."""
        while not self.stopping.wait(_until_tick()):
            self._attempt(timezone.now())
        self._receiver.join(2)
        self._attempt(timezone.now())
        with contextlib.suppress(Exception):
            self._store(self.presence.end("statsd", self.previous_ms + 1), timezone.now())
        connections.close_all()

    def _receive(self) -> None:
        take, wait = self.socket.recv, socket.MSG_DONTWAIT
        while not self.stopping.is_set():
            try:
                batch = [take(MOST)]
            except BlockingIOError:
                continue
            except OSError:
                if self.stopping.is_set():
                    return
                time.sleep(0.1)
                continue
            with contextlib.suppress(BlockingIOError):
                for _ in range(BATCH):
                    batch.append(take(MOST, wait))  # noqa: PERF401 - what came before the end stays
            with self.lock:
                self.totals.add(batch)
            PACKETS.inc(len(batch))
            intake.REQUESTS.inc(len(batch), protocol="statsd", token=PUSH.sender, code="none")
            intake.BYTES.inc(sum(map(len, batch)), protocol="statsd", token=PUSH.sender)
            intake.LAST.set(time.time(), protocol="statsd", token=PUSH.sender)

    def drops(self) -> int | None:
        """How many packets the kernel has dropped since the socket was made (32 bits); None where it does not say."""
        if sys.platform != "linux":
            return None
        try:
            return int(struct.unpack("9I", self.socket.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36))[_DROPS])
        except (OSError, struct.error):
            return None

    def _attempt(self, now: datetime) -> None:
        """Flush; what cannot be stored is in the next flush's totals."""
        try:
            self.flush(now=now)
        except Exception as error:  # the database is away or refuses: counters lose nothing by it
            log.warning("What StatsD told was not stored (%s); the next flush will.", error)
        finally:
            connections.close_all()

    def flush(self, *, now: datetime) -> int:
        """Write everything down, stamped with the tick; return how many samples were stored."""
        if (dropped := self.drops()) is not None:
            DROPPED.inc((dropped - self.dropped) % 2**32)
            self.dropped = dropped
        with self.lock:
            found = self.totals.flush()
            lines, refused = self.totals.lines, self.totals.refused
            self.totals.lines, self.totals.refused = 0, type(refused)()
        SERIES.set(len(self.totals))
        for reason, count in refused.items():
            PUSH.refused(reason, count)
        intake.SAMPLES.inc(lines - refused.total(), protocol="statsd", token=PUSH.sender)
        at = _ms(tick(now, EVERY))
        if at <= self.previous_ms:
            at = _ms(now)
        before = self.presence.copy(), self.previous_ms
        readings = self._dated(found, at)
        try:
            return self._store(readings, now)
        except BaseException:
            self.presence, self.previous_ms = before
            raise

    def _dated(self, found: list[Reading], at: int) -> list[Reading]:
        """Add labels and time; zeros where a counter is new, so that its first value is an increase; ends."""
        dated = [Reading(one.name, one.value, {**self.labels, **one.labels}, one.type, one.help, at) for one in found]
        zeros = [
            Reading(one.name, 0.0, one.labels, one.type, one.help, self.previous_ms)
            for one in self.presence.new("statsd", dated)
            if one.type in {"counter", "histogram"} and self.previous_ms < at
        ]
        ended = self.presence.update("statsd", dated, at)
        self.previous_ms = at
        return zeros + ended + dated

    def _store(self, readings: list[Reading], now: datetime) -> int:
        if not readings:
            return 0
        written = services.ingest(samples=Samples.from_readings(readings, now), by=BY, now=now)
        for rejection in written.rejected:
            intake.REFUSED.inc(protocol="statsd", token=PUSH.sender, reason=rejection.reason)
        return written.accepted


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _until_tick() -> float:
    now = timezone.now()
    return (tick(now, EVERY) + EVERY - now).total_seconds()
