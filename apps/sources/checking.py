"""Runs the checks that are due: claimed by rows, asked side by side, each stored as soon as it is known.

A check that hangs keeps one thread until its time-out and delays nobody else. Several processes may run at once.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core import live
from apps.core.secrets import Undecryptable
from apps.core.telemetry import Counter, Reading
from apps.metrics import query, services
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from apps.sources import probes, schedule
from apps.sources.models import Check, CheckChange
from apps.sources.probes import Found, Reach
from apps.sources.standing import Standing, is_change

log = logging.getLogger(__name__)

BY: Final = Principal.system("sources.check")
THREADS: Final = 32
LEASE: Final = timedelta(seconds=30)
"""That a claim lasts beyond the check's own time-out."""
MOST_CHANGES: Final = 1_000
"""Changes that are kept of each check."""
HELP: Final = {
    "probe_success": "Whether the last try was all right.",
    "probe_duration_seconds": "Seconds that the last try took.",
    "check_up": "Whether the check is up; a failure that is not confirmed yet does not count.",
    "probe_ssl_earliest_cert_expiry": "When the certificate ends, in seconds since 1970.",
}
CHECKS: Final = Counter("portal_checks_total", "Checks that were asked, by outcome.", ("kind", "outcome"))


class Checker:
    """The checks of this process. `run` asks what is due in turn; `tick` leaves each to a thread."""

    def __init__(self, threads: int = THREADS, clock: Callable[[], datetime] = timezone.now) -> None:
        self._clock = clock
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="check")
        self._busy = 0
        self._lock = threading.Lock()

    def run(self, *, now: datetime) -> int:
        """Ask what is due and wait for it; return how many checks that were."""
        due = claim(now=now, limit=self._threads)
        for check in due:
            visit(check, now=now)
        return len(due)

    def tick(self, *, now: datetime) -> None:
        """Claim what is due, as far as there are threads, and return; each stores its own outcome."""
        with self._lock:
            free = self._threads - self._busy
        for check in claim(now=now, limit=free) if free > 0 else []:
            with self._lock:
                self._busy += 1
            self._pool.submit(self._visit, check)

    def _visit(self, check: Check) -> None:
        try:
            visit(check, now=self._clock())
        except Exception:
            log.exception("The check %s could not be stored", check.pk)
        finally:
            connection.close()
            with self._lock:
                self._busy -= 1


def claim(*, now: datetime, limit: int) -> list[Check]:
    """Claim checks that are due; another process takes one over when its claim has run out."""
    if not query.collection_on():
        return []
    mine = uuid.uuid4()
    with connection.cursor() as cursor:
        given: dict[str, Any] = {"mine": mine, "now": now, "lease": LEASE, "most": limit}
        cursor.execute(_CLAIM, given)
        found = [row[0] for row in cursor.fetchall()]
    return list(Check.objects.filter(pk__in=found, claim=mine))


_CLAIM: Final = """
UPDATE sources_check c SET claim = %(mine)s, claimed_until = clock_timestamp() + c.timeout + %(lease)s
 WHERE c.id IN (SELECT id FROM sources_check
                 WHERE enabled AND (due_at IS NULL OR due_at <= %(now)s)
                   AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                 ORDER BY due_at NULLS FIRST LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING c.id
"""


def ask(check: Check) -> tuple[Found, float]:
    """Ask once and store nothing; return what was found and how many seconds it took."""
    try:
        secrets = dict(check.secrets or {})
    except Undecryptable as error:
        return Found(str(error)), 0.0
    return probes.run(check.kind, {**check.config, **secrets}, Reach(check.timeout, check.trusted))


def visit(check: Check, *, now: datetime) -> None:
    """Ask a claimed check and write down what was found."""
    due = check.due_at or now
    found, seconds = ask(check)
    at = schedule.stamp(due, now, check.interval)
    before = Standing(check.health, check.failures)
    after = before.after(failed=bool(found.reason), confirm=check.confirm)
    CHECKS.inc(kind=check.kind, outcome="failed" if found.reason else "passed")
    readings = readings_of(check, found, seconds, after)
    names = [[reading.name, dict(reading.labels)] for reading in readings]
    with transaction.atomic():
        kept = Check.objects.filter(pk=check.pk, claim=check.claim, claimed_until__gt=Now()).update(
            claim=None,
            claimed_until=None,
            due_at=schedule.tick_after(key_of(check), check.interval, now),
            health=after.health,
            health_at=check.health_at if after.health == check.health else now,
            failures=after.failures,
            last_at=now,
            duration=timedelta(seconds=seconds),
            error=found.reason[:2000].replace("\0", ""),
            certificate=_certificate(found) if found.certificate or not found.reason else check.certificate,
            shown=names,
        )
        if not kept:  # it was changed, switched off or deleted while it was asked: what was found is of another check
            return
        if is_change(check.health, after.health):
            CheckChange.objects.create(check_row=check, at=now, health=after.health, reason=found.reason[:2000])
            _forget_old(check)
            live.publish("checks")
        live.publish("checks", check.pk)
        _store(readings, gone(check.shown, names), at, now)


def key_of(check: Check) -> str:
    """The place of a check in its interval: by its name, so that checks spread and keep their place."""
    return sha256(check.name.encode()).hexdigest()


def readings_of(check: Check, found: Found, seconds: float, after: Standing) -> list[Reading]:
    """Return the series of one round, labelled."""
    own = [
        Reading("probe_success", float(not found.reason), help=HELP["probe_success"]),
        Reading("probe_duration_seconds", seconds, help=HELP["probe_duration_seconds"]),
        Reading("check_up", float(after.is_up), help=HELP["check_up"]),
    ]
    if found.certificate is not None:
        name = "probe_ssl_earliest_cert_expiry"
        own.append(Reading(name, found.certificate.not_after.timestamp(), help=HELP[name]))
    labels = check.series_labels
    return [
        Reading(reading.name, reading.value, {**reading.labels, **labels}, reading.type, reading.help)
        for reading in (*own, *found.readings)
    ]


def gone(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the series that the last round had and this one has not: they end."""
    return [(name, labels) for name, labels in before if [name, labels] not in after]


def end(check: Check, *, now: datetime) -> None:
    """End the series of a check that is asked no more."""
    _store([], gone(check.shown, []), now, now)


def _store(readings: list[Reading], ended: list[tuple[str, dict[str, str]]], at: datetime, now: datetime) -> None:
    at_ms = round(at.timestamp() * 1000)
    stamped = [
        *(Reading(one.name, one.value, one.labels, one.type, one.help, at_ms) for one in readings),
        *(Reading(name, STALE, labels, help=HELP.get(name, ""), timestamp_ms=at_ms) for name, labels in ended),
    ]
    if stamped:
        services.ingest(samples=Samples.from_readings(stamped, now), by=BY, now=now, live="checks")


def _certificate(found: Found) -> dict[str, Any] | None:
    if found.certificate is None:
        return None
    shown = found.certificate
    return {
        "subject": shown.subject,
        "issuer": shown.issuer,
        "names": list(shown.names),
        "not_after": shown.not_after.isoformat(),
    }


def _forget_old(check: Check) -> None:
    """Keep the newest changes of a check that comes and goes for ever."""
    old = CheckChange.objects.filter(check_row=check).order_by("-at", "-id")[MOST_CHANGES:]
    CheckChange.objects.filter(pk__in=[change.pk for change in old]).delete()


_checker: Checker | None = None


def check(*, now: datetime) -> None:
    """Claim what is due in this process."""
    global _checker
    if _checker is None:
        _checker = Checker()
    _checker.tick(now=now)
