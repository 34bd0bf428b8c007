"""Rows that are asked again and again: claimed when they are due, asked side by side, their series begun and ended.

A row has `enabled`, `due_at`, `interval`, `timeout`, `claim`, `claimed_until`, `name`, `shown` (the series of its last
round) and `series_labels`. One that hangs keeps one thread until its time-out and delays nobody else. Several processes
may run at once.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeVar

from django.db import connection, models
from django.db.models.functions import Now
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core.telemetry import Reading
from apps.metrics import query, services
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from apps.sources import schedule

log = logging.getLogger(__name__)

Asked = TypeVar("Asked", bound=models.Model)
Series = list[tuple[str, dict[str, str]]]


class Rounds:
    """The rounds of this process. `run` does what is due in turn; `tick` leaves each to a thread.

    `visit` asks a claimed row and stores what was found; `leases` say how long a claim lasts beyond the time-out of the
    rows of each model.
    """

    def __init__(
        self,
        leases: Mapping[type[models.Model], timedelta],
        visit: Callable[..., None],
        threads: int,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self._leases = leases
        self._ask = visit
        self._clock = clock
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="round")
        self._busy = 0
        self._lock = threading.Lock()

    def run(self, *, now: datetime) -> int:
        """Do what is due and wait for it; return how much that was."""
        due = self._due(now, self._threads)
        for row in due:
            self._ask(row, now=now)
        return len(due)

    def tick(self, *, now: datetime) -> None:
        """Claim what is due, as far as there are threads, and return; each stores its own outcome."""
        with self._lock:
            free = self._threads - self._busy
        for row in self._due(now, free):
            with self._lock:
                self._busy += 1
            self._pool.submit(self._visit, row)

    def _due(self, now: datetime, limit: int) -> list[models.Model]:
        found: list[models.Model] = []
        for model, lease in self._leases.items():
            found += claim(model, now=now, limit=limit - len(found), lease=lease)
        return found

    def _visit(self, row: models.Model) -> None:
        try:
            self._ask(row, now=self._clock())
        except Exception:
            log.exception("The round of %s %s could not be stored", type(row).__name__, row.pk)
        finally:
            connection.close()
            with self._lock:
                self._busy -= 1


def claim(model: type[Asked], *, now: datetime, limit: int, lease: timedelta) -> list[Asked]:
    """Claim rows that are due; another process takes one over when its claim has run out."""
    if limit <= 0 or not query.collection_on():
        return []
    mine = uuid.uuid4()
    with connection.cursor() as cursor:
        given: dict[str, Any] = {"mine": mine, "now": now, "lease": lease, "most": limit}
        cursor.execute(_CLAIM.format(table=model._meta.db_table), given)
        found = [row[0] for row in cursor.fetchall()]
    return list(model._default_manager.filter(pk__in=found, claim=mine)) if found else []  # noqa: SLF001


_CLAIM: Final = """
UPDATE {table} c SET claim = %(mine)s, claimed_until = clock_timestamp() + c.timeout + %(lease)s
 WHERE c.id IN (SELECT id FROM {table}
                 WHERE enabled AND (due_at IS NULL OR due_at <= %(now)s)
                   AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                 ORDER BY due_at NULLS FIRST LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING c.id
"""


def finish(row: Any, *, now: datetime, shown: Sequence[Any], **found: Any) -> bool:
    """Write down what a round found and when the next is due; whether the claim still held.

    It does not where the row was changed, switched off or deleted meanwhile: what was found is of another one.
    """
    mine = type(row)._default_manager.filter(pk=row.pk, claim=row.claim, claimed_until__gt=Now())  # noqa: SLF001
    due_at = schedule.tick_after(key_of(row), row.interval, now)
    return bool(mine.update(claim=None, claimed_until=None, due_at=due_at, shown=shown, **found))


def stamp_of(row: Any, now: datetime) -> datetime:
    """Return the time of a round's samples: its tick's, where it began close to it."""
    return schedule.stamp(row.due_at or now, now, row.interval)


def key_of(row: Any) -> str:
    """The place of a row in its interval: by its name, so that rows spread and keep their place."""
    return sha256(row.name.encode()).hexdigest()


def labelled(row: Any, readings: Iterable[Reading]) -> tuple[list[Reading], list[Any]]:
    """Return the readings with the row's labels, and their series as the row remembers them."""
    own = row.series_labels
    found = [Reading(one.name, one.value, {**one.labels, **own}, one.type, one.help) for one in readings]
    return found, [[one.name, dict(one.labels)] for one in found]


def gone(before: Sequence[Any], after: Sequence[Any]) -> Series:
    """Return the series that the last round had and this one has not: they end."""
    held = {(name, *sorted(labels.items())) for name, labels in after}
    return [(name, labels) for name, labels in before if (name, *sorted(labels.items())) not in held]


def end(row: Any, *, by: Principal, now: datetime) -> None:
    """End the series of a row that is asked no more."""
    store([], gone(row.shown, []), by=by, at=now, now=now)


def store(readings: Iterable[Reading], ended: Series, *, by: Principal, at: datetime, now: datetime) -> None:
    """Store a round's readings, and the markers of the series that ended, with the time `at`."""
    at_ms = round(at.timestamp() * 1000)
    stamped = [
        *(Reading(one.name, one.value, one.labels, one.type, one.help, at_ms) for one in readings),
        *(Reading(name, STALE, labels, timestamp_ms=at_ms) for name, labels in ended),
    ]
    if stamped:
        services.ingest(samples=Samples.from_readings(stamped, now), by=by, now=now, live="checks")
