"""Measures data sources and asks business metrics, and writes down what was found."""

import logging
import time
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from apps.accounts.permissions import Principal
from apps.core import live
from apps.core.secrets import Undecryptable
from apps.core.telemetry import Counter, Kind, Reading
from apps.sources import groups, rounds
from apps.sources.models import BusinessMetric, DataSource
from apps.sources.rounds import Rounds
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


def rounds_of(threads: int = THREADS) -> Rounds:
    """Return the rounds of data sources and business metrics of this process."""
    return Rounds({DataSource: LEASE, BusinessMetric: LEASE}, visit, threads)


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
    written, shown = rounds.labelled(row, readings)
    with transaction.atomic():
        if rounds.finish(row, now=now, shown=shown, **changed):
            live.publish("checks", row._meta.model_name)
            at = rounds.stamp_of(row, now)
            rounds.store(written, rounds.gone(row.shown, shown), by=BY, at=at, now=now)


def end(row: Row, *, now: datetime) -> None:
    """End the series of a row that is asked no more."""
    rounds.end(row, by=BY, now=now)


_rounds: Rounds | None = None


def tick(*, now: datetime) -> None:
    """Claim what is due in this process."""
    global _rounds
    if _rounds is None:
        _rounds = rounds_of()
    _rounds.tick(now=now)
