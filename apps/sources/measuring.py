"""Measures data sources and asks business metrics when they are due: claimed by rows, side by side.

A server that hangs keeps one thread until its time-out and delays nobody else. Several processes may run at once.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeVar

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core import live
from apps.core.secrets import Undecryptable
from apps.core.telemetry import Counter, Kind, Reading
from apps.metrics import query, services
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from apps.sources import groups, schedule
from apps.sources.models import BusinessMetric, DataSource
from apps.sources.servers import Access, Away, postgres, redis

log = logging.getLogger(__name__)

BY: Final = Principal.system("sources.measure")
THREADS: Final = 16
LEASE: Final = timedelta(minutes=3)
"""That a claim lasts beyond the time-out: a server is asked several statements, each with that time-out."""
SERVERS: Final[dict[str, Any]] = {"postgres": postgres, "redis": redis}
ROUNDS: Final = Counter("portal_measurements_total", "Rounds of data sources and queries.", ("kind", "outcome"))
HELP: Final = {
    "business_metric_up": "Whether the query gave its figures the last time.",
    "business_metric_rows": "Rows that the query gave.",
    "business_metric_groups_omitted": "Groups of fewer people than the floor, left out.",
    "business_metric_groups_merged": "Groups of fewer people than the floor, merged as other.",
    "business_metric_duration_seconds": "Seconds that the query took.",
}

Row = DataSource | BusinessMetric
Asked = TypeVar("Asked", DataSource, BusinessMetric)


class Measurer:
    """The rounds of this process. `run` does what is due in turn; `tick` leaves each to a thread."""

    def __init__(self, threads: int = THREADS, clock: Callable[[], datetime] = timezone.now) -> None:
        self._clock = clock
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="measure")
        self._busy = 0
        self._lock = threading.Lock()

    def run(self, *, now: datetime) -> int:
        """Do what is due and wait for it; return how much that was."""
        due = self._due(now, self._threads)
        for row in due:
            visit(row, now=now)
        return len(due)

    def tick(self, *, now: datetime) -> None:
        """Claim what is due, as far as there are threads, and return; each stores its own outcome."""
        with self._lock:
            free = self._threads - self._busy
        for row in self._due(now, free) if free > 0 else []:
            with self._lock:
                self._busy += 1
            self._pool.submit(self._visit, row)

    def _due(self, now: datetime, limit: int) -> list[Row]:
        sources = claim(DataSource, now=now, limit=limit)
        return [*sources, *claim(BusinessMetric, now=now, limit=limit - len(sources))]

    def _visit(self, row: Row) -> None:
        try:
            visit(row, now=self._clock())
        except Exception:
            log.exception("The round of %s %s could not be stored", type(row).__name__, row.pk)
        finally:
            connection.close()
            with self._lock:
                self._busy -= 1


def claim(model: type[Asked], *, now: datetime, limit: int) -> list[Asked]:
    """Claim rows that are due; another process takes one over when its claim has run out."""
    if limit <= 0 or not query.collection_on():
        return []
    mine = uuid.uuid4()
    with connection.cursor() as cursor:
        given: dict[str, Any] = {"mine": mine, "now": now, "lease": LEASE, "most": limit}
        cursor.execute(_CLAIM.format(table=model._meta.db_table), given)
        found = [row[0] for row in cursor.fetchall()]
    return list(model.objects.filter(pk__in=found, claim=mine)) if found else []


_CLAIM: Final = """
UPDATE {table} c SET claim = %(mine)s, claimed_until = clock_timestamp() + c.timeout + %(lease)s
 WHERE c.id IN (SELECT id FROM {table}
                 WHERE enabled AND (due_at IS NULL OR due_at <= %(now)s)
                   AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                 ORDER BY due_at NULLS FIRST LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING c.id
"""


def access_of(source: DataSource, timeout: timedelta) -> Access:
    """Return how to get at a server. Raises Away where its password cannot be read."""
    try:
        secrets = dict(source.secrets or {})
    except Undecryptable as error:
        raise Away(str(error)) from None
    password = str(secrets.get("password", ""))
    return Access(source.address, source.database, source.user, password, source.tls, timeout.total_seconds())


def measure(source: DataSource) -> list[Reading]:
    """Ask a server once and store nothing. Raises Away."""
    found: list[Reading] = SERVERS[source.kind].measure(access_of(source, source.timeout))
    return found


def ask(metric: BusinessMetric) -> groups.Grouped:
    """Ask the query of a metric once and store nothing; small groups are gone from what is returned.

    Raises Away and Unusable.
    """
    terms = groups.Terms(
        metric.value_column, metric.size_column, metric.floor, metric.small, metric.most_rows, tuple(metric.labels)
    )
    access = access_of(metric.source, metric.timeout)
    columns, rows = postgres.ask(access, metric.query, most=metric.most_rows)
    return groups.grouped(columns, rows, terms)


def visit(row: Row, *, now: datetime) -> None:
    """Measure or ask a claimed row and write down what was found."""
    started = time.perf_counter()
    readings: list[Reading] = []
    reason, more = "", {}
    try:
        if isinstance(row, DataSource):
            readings = measure(row)
        else:
            found = ask(row)
            kind: Kind = "counter" if row.type == "counter" else "gauge"
            readings = [Reading(row.name, group.value, group.labels, kind, row.help) for group in found.groups]
            more = {"rows": found.rows, "omitted": found.omitted, "merged": found.merged}
    except (Away, groups.Unusable) as error:
        reason = str(error)
    except Exception as error:  # whatever a server makes of a question is its own failure; the text may hold a secret
        log.exception("%s %s could not be measured", type(row).__name__, row.pk)
        reason = f"It could not be measured ({type(error).__name__})."
    took = timedelta(seconds=time.perf_counter() - started)
    ROUNDS.inc(kind=row.kind if isinstance(row, DataSource) else "business", outcome="failed" if reason else "passed")
    changed: dict[str, Any] = {"last_at": now, "duration": took, "error": reason[:2000].replace("\0", ""), **more}
    if not reason:
        changed["last_good_at"] = now
    if isinstance(row, DataSource):
        health = "down" if reason else "up"
        changed |= {"health": health, "health_at": row.health_at if health == row.health else now}
        readings = readings or [SERVERS[row.kind].UP]
    else:
        readings += _about(row, more, took, failed=bool(reason))
    _write(row, changed, readings, now)


def _about(metric: BusinessMetric, found: dict[str, int], took: timedelta, *, failed: bool) -> list[Reading]:
    values = {"up": float(not failed), "duration_seconds": took.total_seconds()}
    if not failed:
        counts = {"rows": "rows", "groups_omitted": "omitted", "groups_merged": "merged"}
        values |= {name: float(found[key]) for name, key in counts.items()}
    names = {f"business_metric_{name}": value for name, value in values.items()}
    return [Reading(name, value, {"metric": metric.name}, help=HELP[name]) for name, value in names.items()]


def _write(row: Row, changed: dict[str, Any], readings: list[Reading], now: datetime) -> None:
    """Store a round, unless the row was changed, switched off or deleted while it was measured."""
    due = row.due_at or now
    labels = row.series_labels
    stamped = [Reading(r.name, r.value, {**r.labels, **labels}, r.type, r.help) for r in readings]
    names = [[reading.name, dict(reading.labels)] for reading in stamped]
    with transaction.atomic():
        kept = (
            type(row)
            .objects.filter(pk=row.pk, claim=row.claim, claimed_until__gt=Now())
            .update(
                claim=None,
                claimed_until=None,
                due_at=schedule.tick_after(key_of(row), row.interval, now),
                shown=names,
                **changed,
            )
        )
        if kept:
            live.publish("checks", row._meta.model_name)
            _store(stamped, gone(row.shown, names), schedule.stamp(due, now, row.interval), now)


def key_of(row: Row) -> str:
    """The place of a row in its interval: by its name, so that rows spread and keep their place."""
    return sha256(row.name.encode()).hexdigest()


def gone(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the series that the last round had and this one has not: they end."""
    held = {(name, *sorted(labels.items())) for name, labels in after}
    return [(name, labels) for name, labels in before if (name, *sorted(labels.items())) not in held]


def end(row: Row, *, now: datetime) -> None:
    """End the series of a row that is asked no more."""
    _store([], gone(row.shown, []), now, now)


def _store(readings: list[Reading], ended: list[tuple[str, dict[str, str]]], at: datetime, now: datetime) -> None:
    at_ms = round(at.timestamp() * 1000)
    stamped = [
        *(Reading(one.name, one.value, one.labels, one.type, one.help, at_ms) for one in readings),
        *(Reading(name, STALE, labels, timestamp_ms=at_ms) for name, labels in ended),
    ]
    if stamped:
        services.ingest(samples=Samples.from_readings(stamped, now), by=BY, now=now, live="checks")


_measurer: Measurer | None = None


def tick(*, now: datetime) -> None:
    """Claim what is due in this process."""
    global _measurer
    if _measurer is None:
        _measurer = Measurer()
    _measurer.tick(now=now)
