"""What the made-up clinic's services write into their logs at any time. Pure: two times in, records out.

Each kind of line has a pace that follows how busy the clinic is, or a trouble; the same stretch gives the same records.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from apps.sources.logs.records import Record, record_of
from monitoring_portal.demo import clinic
from monitoring_portal.demo.clinic import DAY, GRID, Trouble

DOCTORS: Final = ("berg", "okafor", "rossi", "tanaka", "novak")
REASONS: Final = ("card declined by issuer", "gateway timeout after 10000 ms", "3-D Secure step not finished")


@dataclass(frozen=True)
class Kind:
    """A kind of line: who writes it, how often an hour at full load, its words with the count in braces."""

    service: str
    host: str
    level: str
    pace: float
    words: str
    during: Trouble | None = None
    logger: str = "app"


KINDS: Final = (
    Kind("booking", "clinic-1", "info", 300, 'GET /appointments/{n} 200 in {ms} ms', logger="django.request"),
    Kind("booking", "clinic-1", "info", 22, "appointment {n} booked with Dr {doctor} for patient {id}"),
    Kind("booking", "clinic-1", "debug", 60, "cache miss for slots:{doctor}:{day}"),
    Kind("booking", "clinic-1", "warning", 4, "appointment {n} overlaps another one, offered the next free slot"),
    Kind("booking", "clinic-1", "error", 0.4, "could not send the confirmation of appointment {n}: mailbox is full"),
    Kind("payments", "clinic-1", "info", 14, "payment {id} of {n}.00 EUR captured in {ms} ms"),
    Kind("payments", "clinic-1", "warning", 0.6, "payment {id} is retried: {reason}"),
    Kind("records", "clinic-1", "info", 120, "record {id} opened by user {n} from 10.0.{m}.{k}", logger="audit"),
    Kind("records", "clinic-1", "info", 9, "laboratory result {id} filed after {ms} ms"),
    Kind("database", "clinic-db", "info", 12, "checkpoint complete: wrote {n} buffers; sync={ms} ms"),
    Kind("database", "clinic-db", "warning", 1.5, "slow statement ({ms} ms): SELECT … FROM slot WHERE doctor_id = {n}"),
    Kind("cache", "clinic-cache", "info", 6, "background saving terminated with success ({n} keys)"),
    Kind("payments", "clinic-1", "error", 420, "payment {id} refused by the provider: {reason}", clinic.PAYMENTS),
    Kind("payments", "clinic-1", "critical", 12, "{n} payments wait; the circuit breaker is open", clinic.PAYMENTS),
    Kind("booking", "clinic-1", "error", 180, "POST /appointments 500 after {ms} ms: lock timeout", clinic.LOCKS),
    Kind("database", "clinic-db", "warning", 240, "process {n} waits for ShareLock since {ms} ms", clinic.LOCKS),
    Kind("database", "clinic-db", "error", 14, "deadlock detected: process {n} waits for process {m}{k}", clinic.LOCKS),
    Kind("booking", "clinic-1", "warning", 90, "no cache, appointment {n} is read from the database", clinic.CACHE),
    Kind("cache", "clinic-cache", "critical", 6, "connection with master lost; failover attempt {m}", clinic.CACHE),
    Kind("booking", "clinic-1", "warning", 900, "login failed for {doctor}{m} from 203.0.113.{k}", clinic.GUESSES),
    Kind("booking", "clinic-1", "error", 20, "203.0.113.{k} is locked out after {n} failed logins", clinic.GUESSES),
)  # fmt: skip


def lines(begin: float, end: float) -> Iterator[Record]:
    """Yield the records after `begin` up to `end` (s), each at its own, fixed time; kind by kind."""
    grid = np.arange(begin // GRID * GRID - DAY, end + DAY, GRID)
    worked = clinic.worked(grid)
    for number, kind in enumerate(KINDS):
        done = (worked if kind.during is None else kind.during.area(grid)) * kind.pace / 3600
        first, last = (math.floor(float(np.interp(at, grid, done))) for at in (begin, end))
        for count in range(first, last + 2):
            # Not as even as a clock ticks.
            at = float(np.interp(count + 0.4 * math.sin(count * 2.4 + number), done, grid))
            if begin < at <= end:
                yield _record(kind, number, count, at)


def _record(kind: Kind, number: int, count: int, at: float) -> Record:
    spread = (count * 0.618034 + number * 0.31) % 1.0
    words = kind.words.format(
        n=100 + int(8_900 * spread), m=count % 9 + 1, k=(count * 37 + number) % 250 + 1,
        ms=int(12 * math.exp(6 * spread * spread)), id=f"{(count * 2654435761 + number) % 2**32:08x}",
        doctor=DOCTORS[count % len(DOCTORS)], day=f"d{int(at // DAY) % 28 + 1}", reason=REASONS[count % len(REASONS)],
    )  # fmt: skip
    pairs = (("logger", f"{kind.service}.{kind.logger}"), ("request_id", f"{(count * 40503 + number) % 2**24:06x}"))
    return record_of(
        at=int(at * 1000), level=kind.level, service=kind.service, host=kind.host, message=words, attributes=pairs
    )
