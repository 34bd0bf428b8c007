"""Is the portal fine? One function answers the API, the pages, the admin and `manage.py monitoring health`.

Database or store failing means unhealthy; any other fail or warn means degraded (SPEC, the seed's health API).
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import psutil
import redis
from django.conf import settings
from django.db import DatabaseError, connection

from apps.accounts.permissions import EVERYTHING, Scope
from apps.alerting.models import Alert
from apps.core import heartbeat_tasks, live
from apps.core.models import Loop
from apps.core.tasks import LOOPS, QUEUES
from apps.metrics import query
from apps.metrics import services as metrics
from apps.metrics.models import Batch, Block, CollectorSetting
from apps.notifications import templates
from apps.oncall import coverage, overdue
from apps.oncall.reachability import reachability

log = logging.getLogger(__name__)


class Status(StrEnum):
    """The verdict on one check."""

    PASS = "pass"  # noqa: S105
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One check's verdict, its sentence and how long it took (milliseconds)."""

    status: Status
    message: str
    response_time: float = 0.0
    last_check: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "status": str(self.status),
            "message": self.message,
            "responseTime": round(self.response_time, 2),
            "lastCheck": self.last_check,
        }


@dataclass(frozen=True)
class Health:
    """The whole verdict: `healthy`, `degraded` or `unhealthy`, with its checks and four figures."""

    status: str
    timestamp: int
    uptime: float
    version: str
    checks: dict[str, Check] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)

    def as_json(self, *, detailed: bool) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "status": self.status,
            "timestamp": self.timestamp,
            "uptime": round(self.uptime, 1),
            "version": self.version,
        }
        if detailed:
            answer["checks"] = {name: check.as_json() for name, check in self.checks.items()}
            answer["metrics"] = self.metrics
        return answer

    @property
    def problems(self) -> list[tuple[str, Check]]:
        """The checks that do not pass, failures first."""
        found = [(name, check) for name, check in self.checks.items() if check.status is not Status.PASS]
        return sorted(found, key=lambda pair: pair[1].status is not Status.FAIL)


Verdict = tuple[Status, str]
VITAL = ("database", "store")
PATIENCE = 5.0
"""Seconds within which whoever asks is answered."""
_judging = threading.BoundedSemaphore(16)
"""As many questions may hang at once; the next ones are told at once that something hangs."""
_started = float(os.environ.get("PORTAL_STARTED_AT") or psutil.Process().create_time())


def health(*, now: datetime, scope: Scope = EVERYTHING) -> Health:
    """Judge everything once, with figures of what the scope shows. Costs about ten milliseconds; never cached, so that
    it never lies.
    """
    checks: dict[str, Check] = {}
    for name, judge in CHECKS.items():
        if name != "database" and checks["database"].status is Status.FAIL and name not in WITHOUT_DATABASE:
            verdict, spent = (Status.FAIL, "Not known while the database is away."), 0.0
        else:
            verdict, spent = _timed(name, judge, now)
        checks[name] = Check(verdict[0], verdict[1], spent, int(now.timestamp() * 1000))
    if any(checks[name].status is Status.FAIL for name in VITAL):
        status = "unhealthy"
    elif any(check.status is not Status.PASS for check in checks.values()):
        status = "degraded"
    else:
        status = "healthy"
    return Health(
        status=status,
        timestamp=int(now.timestamp() * 1000),
        uptime=max(now.timestamp() - _started, 0.0),
        version=settings.VERSION,
        checks=checks,
        metrics=_figures(now, scope) if checks["database"].status is not Status.FAIL else {},
    )


def judge(*, now: datetime, scope: Scope = EVERYTHING) -> Health:
    """Return the verdict within `PATIENCE`: a database that hangs must not hang those who ask how it is."""
    asked: Future[Health] = Future()

    def answer() -> None:
        try:
            asked.set_result(health(now=now, scope=scope))
        except Exception as error:
            asked.set_exception(error)
        finally:
            connection.close()
            _judging.release()

    # A daemon thread for each: a pool's threads would all hang, and the process would wait for them at its end.
    if _judging.acquire(blocking=False):
        threading.Thread(target=answer, name="health", daemon=True).start()
        try:
            return asked.result(timeout=PATIENCE)
        except FutureTimeout:
            pass
    words = f"No answer within {PATIENCE:g} s: PostgreSQL hangs, or the machine does."
    stamp = int(now.timestamp() * 1000)
    check = Check(Status.FAIL, words, PATIENCE * 1000, stamp)
    return Health("unhealthy", stamp, max(now.timestamp() - _started, 0.0), settings.VERSION, {"database": check})


def is_ready() -> bool:
    """Whether the portal can answer requests that need its database."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _timed(name: str, judge: Callable[[datetime], Verdict], now: datetime) -> tuple[Verdict, float]:
    started = time.perf_counter()
    try:
        verdict = judge(now)
    except Exception as error:  # a check that breaks is a failing check, not a failing answer
        log.warning("Health check %s failed: %s", name, error)
        verdict = Status.FAIL, f"The check itself failed: {type(error).__name__}."
    return verdict, (time.perf_counter() - started) * 1000


def _database(now: datetime) -> Verdict:
    if is_ready():
        return Status.PASS, "PostgreSQL answers."
    return Status.FAIL, "PostgreSQL does not answer; see var/log for its log, or check DATABASE_URL."


def _store(now: datetime) -> Verdict:
    if (problem := metrics.disk_problem()) is not None:
        return Status.FAIL, problem
    if (
        broken := Block.objects.filter(bad_at__isnull=False).count()
        + Batch.objects.filter(bad_at__isnull=False).count()
    ):
        return Status.WARN, f"{broken} rows of samples fail their checksum; `manage.py store check` names their ranges."
    if not query.collection_on():
        return Status.WARN, "Collection is switched off; `manage.py monitoring start` switches it on."
    newest = Batch.objects.order_by("-id").values_list("received_at", flat=True).first()
    if newest is None:
        newest_block = Block.objects.order_by("-t_max").values_list("t_max", flat=True).first()
        if newest_block is None:
            return Status.PASS, "No sample has arrived yet."
        return Status.PASS, "Samples are stored and compacted."
    if (age := now - newest) > timedelta(minutes=2):
        return Status.WARN, f"The newest sample arrived {int(age.total_seconds())} s ago."
    return Status.PASS, "Samples arrive."


def _redis(now: datetime) -> Verdict:
    try:
        live.client().ping()
    except redis.RedisError as error:
        return Status.FAIL, f"The Redis server does not answer ({type(error).__name__}); alerts go on, pages lag."
    return Status.PASS, "The Redis server answers."


def _workers(now: datetime) -> Verdict:
    fresh = _fresh([heartbeat_tasks.name(queue) for queue in QUEUES], now, timedelta(seconds=6 * heartbeat_tasks.EVERY))
    missing = [queue for queue in QUEUES if heartbeat_tasks.name(queue) not in fresh]
    if not missing:
        return Status.PASS, "A worker serves each queue."
    return Status.FAIL, f"No worker has served the queue {', '.join(missing)} lately; see var/log/worker.log."


def _beat(now: datetime) -> Verdict:
    if late := [
        name
        for name, started, every in Loop.objects.values_list("name", "started_at", "every")
        if name in LOOPS and started is not None and now - started > max(10 * every, timedelta(seconds=30))
    ]:
        return Status.FAIL, f"Loops that no longer start: {', '.join(sorted(late))}; see var/log/beat.log."
    if broken := sorted(Loop.objects.exclude(error="").filter(name__in=list(LOOPS)).values_list("name", flat=True)):
        return Status.WARN, f"Loops whose last run failed: {', '.join(broken)}; core.Loop in the admin says why."
    return Status.PASS, "The clock ticks."


def _fresh(names: list[str], now: datetime, limit: timedelta) -> set[str]:
    return set(Loop.objects.filter(name__in=names, finished_at__gt=now - limit).values_list("name", flat=True))


def _collectors(now: datetime) -> Verdict:
    if failing := sorted(
        CollectorSetting.objects.filter(enabled=True).exclude(error="").values_list("kind", flat=True)
    ):
        return Status.WARN, f"Collectors that fail: {', '.join(failing)}; the admin shows the error of each."
    return Status.PASS, "All collectors succeed."


def _contacts(now: datetime) -> Verdict:
    reach = reachability()
    if reach.ok and (failed := templates.problems()):
        return Status.WARN, f"Message templates that fail, so that the portal's own words are told: {'; '.join(failed)}"
    return (Status.PASS if reach.ok else Status.WARN), reach.sentence


def _oncall(now: datetime) -> Verdict:
    found = overdue.find(now=now)
    return (Status.FAIL, found.sentence) if found.is_any else (Status.PASS, "What is due is told.")


def _schedules(now: datetime) -> Verdict:
    found = coverage.problems()
    if not found:
        return Status.PASS, "Somebody is on call, and can be told, for the next seven days."
    more = f" And {len(found) - 1} more; see the on-call page." if len(found) > 1 else ""
    return Status.WARN, f"{found[0]}{more}"


def _level(name: str, percent: float, warn: float, fail: float) -> Verdict:
    status = Status.FAIL if percent >= fail else Status.WARN if percent >= warn else Status.PASS
    return status, f"{name} is at {percent:.0f} %."


def _memory(now: datetime) -> Verdict:
    return _level("Memory", psutil.virtual_memory().percent, 85, 95)


def _cpu(now: datetime) -> Verdict:
    load = psutil.getloadavg()[1] / (psutil.cpu_count() or 1) * 100
    # Short of a standstill a busy processor is no fault of the portal; the alert rules watch for it.
    status, _ = _level("", load, 500, 1000)
    return status, f"The five-minute load is {load:.0f} % of the processors."


def _disk(now: datetime) -> Verdict:
    return _level(
        "The data disk", psutil.disk_usage(str(settings.DATA if settings.DATA.exists() else "/")).percent, 85, 95
    )


CHECKS: dict[str, Callable[[datetime], Verdict]] = {
    "database": _database,
    "store": _store,
    "redis": _redis,
    "workers": _workers,
    "beat": _beat,
    "collectors": _collectors,
    "contacts": _contacts,
    "oncall": _oncall,
    "schedules": _schedules,
    "memory": _memory,
    "cpu": _cpu,
    "disk": _disk,
}
WITHOUT_DATABASE = {"redis", "memory", "cpu", "disk"}


def _figures(now: datetime, scope: Scope) -> dict[str, float | None]:
    names = ("memoryUsage", "cpuUsage", "responseTime")
    results = query.evaluate_many(names, at=now, scope=scope)
    figures: dict[str, float | None] = {"activeAlerts": Alert.objects.visible_to(scope).active().count()}
    for name, result in zip(names, results, strict=True):
        figures[name] = query.only_value(result)
    return figures
