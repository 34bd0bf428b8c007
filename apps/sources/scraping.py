"""Scrapes the targets that are due: fetched side by side, stored together, by claims of rows.

1. Each tick of the clock claims the targets that are due within the next seconds: those that this process holds, those
   that nobody holds, and those whose holder is late. What a process knows of a target's series (`lineup`) makes a
   scrape cheap, so targets stay where they are.
2. Each begins at its own second, on a thread of its own; a target that hangs or drips keeps one thread until its
   time-out and delays nobody.
3. What is ready is gathered for a moment and stored in one ingest; then the rows say how it went and when they are due
   next. A round that could not be stored is not repeated: the next tick asks anew.
4. A target that was taken out is due at once, a last time: its series end, then its row goes.
"""

import heapq
import itertools
import logging
import resource
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
from django.db import connection, transaction
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.core import http, live
from apps.core.telemetry import Counter, Gauge
from apps.metrics import query, registry, services
from apps.metrics.protocols.exposition import format_of
from apps.metrics.samples import REASONS
from apps.promql.text import label_set
from apps.sources import plans, schedule
from apps.sources.lineup import MOST_PROBLEMS, Lineup, Round, Settings
from apps.sources.models import ScrapeJob, ScrapeTarget

log = logging.getLogger(__name__)

SCRAPES: Final = Counter("portal_scrapes_total", "Scrapes of targets, by outcome.", ("outcome",))
LATE: Final = Counter("portal_scrapes_late_total", "Scrapes that began too late to have the time of their tick.")
WAITING: Final = Gauge("portal_scrapes_in_flight", "Targets that are being asked at this moment.")

BY: Final = Principal.system("sources.scrape")
THREADS: Final = 96
"""Targets that one process asks at once; a thread that waits costs nothing but its stack."""
AHEAD: Final = timedelta(seconds=3)
"""Targets are claimed this long before they are due, so that a tick that comes late delays nobody."""
GRACE: Final = timedelta(seconds=10)
"""After which another process takes over what its holder has not begun."""
LEASE: Final = timedelta(seconds=30)
"""That a claim lasts beyond the target's own time-out."""
AT_ONCE: Final = 5_000
GATHER: Final = 0.05
"""Seconds for which finished scrapes wait for others, to be stored with them."""
IDLE: Final = 10.0
SWEEP: Final = 300.0
MOST_STORED: Final = 50_000
"""Samples in one ingest, beyond which the next one begins."""


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed target."""

    pk: int
    key: str
    url: str
    labels: dict[str, str]
    interval: timedelta
    timeout: timedelta
    due_at: datetime
    ended: bool
    health: str
    plan: plans.Plan | None


@dataclass(slots=True)
class Kept:
    """What this process keeps of a target between its scrapes."""

    key: str
    plan: plans.Plan
    lineup: Lineup
    line: http.Line | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Visit:
    """A scrape that is over."""

    due: Due
    kept: Kept | None
    round: Round
    started: datetime
    seconds: float


class Scraper:
    """The targets of this process. `run` does everything in turn; `tick` hands over to a thread of its own."""

    def __init__(self, threads: int = THREADS, clock: Callable[[], datetime] = timezone.now) -> None:
        self.holder = uuid.uuid4()
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="scrape")
        self._kept: dict[int, Kept] = {}
        self._plans: dict[int, plans.Plan] = {}
        self._most_lines = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._order = itertools.count()
        self._waiting: list[tuple[datetime, int, Due]] = []
        self._flying: dict[Future[Visit], Due] = {}
        self._wake = threading.Condition()
        self._driver: threading.Thread | None = None
        self._is_over = False
        self._error = ""
        self._swept = time.monotonic()

    # --- in turn ---------------------------------------------------------------------------------------------------

    def run(self, *, now: datetime) -> int:
        """Scrape what is due now and wait for all of it; return how many targets that were."""
        due = self.claim(until=now, now=now)
        self._store(list(self._pool.map(self.visit, due)), now)
        return len(due)

    # --- by the clock ----------------------------------------------------------------------------------------------

    def tick(self, *, now: datetime) -> None:
        """Claim what is due soon and leave it to the driver. Raises what the driver met since the last tick."""
        if time.monotonic() > self._swept + SWEEP:
            self._swept = time.monotonic()
            self._sweep()
        due = self.claim(until=now + AHEAD, now=now)
        with self._wake:
            for one in due:
                heapq.heappush(self._waiting, (one.due_at, next(self._order), one))
            if self._waiting and (self._driver is None or not self._driver.is_alive()):
                self._driver = threading.Thread(target=self._drive, name="scrape driver", daemon=True)
                self._driver.start()
            self._wake.notify()
            error, self._error = self._error, ""
        if error:
            raise RuntimeError(error)

    def stop(self) -> None:
        """Let go of what waits, and return when what is on its way is stored; the next tick begins anew."""
        with self._wake:
            waiting = [one.pk for *_, one in self._waiting]
            self._waiting.clear()
            self._is_over = True
            driver = self._driver
            self._wake.notify()
        ScrapeTarget.objects.filter(pk__in=waiting, holder=self.holder).update(claimed_until=None)
        if driver is not None:
            driver.join()
        self._is_over = False

    def _drive(self) -> None:
        idle = time.monotonic() + IDLE
        while True:
            try:
                busy = self._step()
            except Exception as error:  # the driver must live on; the claims of what it held run out
                log.exception("Scrapes could not be stored")
                self._error = f"Scrapes could not be stored: {error}"
                busy = True
            finally:
                connection.close()
            if busy:
                idle = time.monotonic() + IDLE
            with self._wake:
                if not busy and not self._waiting and (self._is_over or time.monotonic() > idle):
                    self._driver = None
                    return

    def _step(self) -> bool:
        """Begin what is due, store what is ready, wait for the next of either; whether there was or is anything."""
        now = self._clock()
        with self._wake:
            while self._waiting and self._waiting[0][0] <= now:
                due = heapq.heappop(self._waiting)[2]
                self._flying[self._pool.submit(self.visit, due)] = due
            pause = (self._waiting[0][0] - now).total_seconds() if self._waiting else 1.0
            if not self._flying:
                self._wake.wait(min(max(pause, 0.0), 1.0))
                return bool(self._waiting)
        WAITING.set(len(self._flying))
        done, _ = wait(self._flying, timeout=min(max(pause, 0.0), GATHER))
        if done:
            visits = [future.result() for future in done if self._flying.pop(future)]
            self._store(visits, self._clock())
        return True

    # --- claims ----------------------------------------------------------------------------------------------------

    def claim(self, *, until: datetime, now: datetime) -> list[Due]:
        """Claim the targets that are due by `until` and give each its plan."""
        if not query.collection_on():
            return []
        with connection.cursor() as cursor:
            given: dict[str, Any] = {"me": self.holder, "until": until, "now": now, "grace": GRACE, "lease": LEASE}
            cursor.execute(_CLAIM, {**given, "most": AT_ONCE})
            rows = cursor.fetchall()
        found = self._planned({row[1] for row in rows if row[1] is not None})
        return [
            Due(pk, key, url, orjson.loads(labels), interval, timeout, due_at, ended, health, found.get(job))
            for pk, job, key, url, labels, interval, timeout, due_at, ended, health in rows
        ]

    def _planned(self, jobs: set[int]) -> dict[int, plans.Plan]:
        """The plans of these jobs, made anew where the job has changed."""
        if jobs:
            versions = dict(ScrapeJob.objects.filter(pk__in=jobs).values_list("pk", "version"))
            old = [pk for pk, version in versions.items() if self._version(pk) != version]
            for job in ScrapeJob.objects.filter(pk__in=old):
                self._plans[job.pk] = plans.plan_of(job)
        return self._plans

    def _version(self, pk: int) -> int | None:
        plan = self._plans.get(pk)
        return None if plan is None else plan.job.version

    # --- one target ------------------------------------------------------------------------------------------------

    def visit(self, due: Due) -> Visit:
        """Ask one target and read its answer; needs no database, raises nothing."""
        started, clock = self._clock(), time.perf_counter()
        at = schedule.stamp(due.due_at, started, due.interval)
        if at != due.due_at and due.health != "unknown" and not due.ended:
            LATE.inc()
        at_ms = round(at.timestamp() * 1000)
        try:
            kept = self._at_hand(due)
        except Exception as error:  # a job that cannot be worked out is its own targets' failure
            log.exception("Scraping %s failed", due.url)
            lineup = Lineup(Settings(due.labels), registry.current())
            return Visit(due, None, lineup.fail(f"Its job cannot be read: {error}", at_ms, 0.0), started, 0.0)
        if kept is None or due.ended:
            known = kept.lineup if kept else Lineup(Settings(due.labels), registry.current())
            return Visit(due, kept, known.end(at_ms), started, 0.0)
        with kept.lock:
            try:
                found = self._asked(due, kept, at_ms, clock)
            except Exception as error:  # whatever a target makes of it is its own failure
                log.exception("Scraping %s failed", due.url)
                found = kept.lineup.fail(f"The portal could not read it: {type(error).__name__}.", at_ms, 0.0)
        return Visit(due, kept, found, started, time.perf_counter() - clock)

    def _asked(self, due: Due, kept: Kept, at_ms: int, clock: float) -> Round:
        error = kept.plan.problem
        try:
            if not error:
                kept.line = kept.line or kept.plan.line()
                answer = kept.plan.ask(kept.line, due.url, due.timeout)
                error = plans.refusal(answer)
        except (http.OutboundError, ValueError) as refused:
            error = str(refused)
        seconds = time.perf_counter() - clock
        if kept.line is not None and (error or len(self._kept) > self._most_lines):
            kept.line.close()
            kept.line = None
        if error:
            return kept.lineup.fail(error, at_ms, seconds)
        return kept.lineup.read(answer.content, format_of(answer.headers.get("content-type", "")), at_ms, seconds)

    def _at_hand(self, due: Due) -> Kept | None:
        """What is known of the target; a changed job asks anew, but its series are compared with the last scrape's."""
        kept = self._kept.get(due.pk)
        if due.plan is None:
            return kept
        if kept is None or kept.plan is not due.plan:
            before = kept
            kept = Kept(due.key, due.plan, Lineup(due.plan.settings(due.labels), registry.current()))
            if before is not None:
                kept.lineup.follow(before.lineup)
                if before.line is not None:
                    before.line.close()
            self._kept[due.pk] = kept
        elif kept.lineup.registry.is_worn:
            kept.lineup = Lineup(kept.lineup.settings, registry.current())
        return kept

    # --- what became of it -----------------------------------------------------------------------------------------

    def _store(self, visits: Sequence[Visit], now: datetime) -> None:
        """Store rounds in as few ingests as they fit in, and write down how they went."""
        for some in _portions(visits):
            errors: dict[int, str] = {}
            try:
                self._ingest(some, now)
            except services.StoreFull as error:
                errors = {visit.due.pk: f"It was not stored: {error}" for visit in some}
            self._finish(some, errors, now)

    def _ingest(self, visits: Sequence[Visit], now: datetime) -> None:
        by_registry: dict[int, list[Visit]] = {}
        for visit in visits:
            by_registry.setdefault(id(visit.round.registry), []).append(visit)
        for some in by_registry.values():
            rounds = [visit.round for visit in some]
            written = services.ingest_placed(
                placed=services.Placed(
                    rounds[0].registry,
                    np.concatenate([one.slots for one in rounds]),
                    np.concatenate([one.ts for one in rounds]),
                    np.concatenate([one.v for one in rounds]),
                    {name: meta for one in rounds for name, meta in one.meta.items()},
                ),
                by=BY,
                now=now,
                live="scrape",
                new_series=sum(one.new_series for one in rounds),
            )
            _tell(rounds, written.rejected)
            for visit in some:
                if visit.kept is not None:
                    visit.kept.lineup.stored(visit.round)
                for reason, count in visit.round.refused.items():
                    if reason in _OWN_REASONS:
                        services.count_refused(reason, count)

    def _finish(self, visits: Sequence[Visit], errors: dict[int, str], now: datetime) -> None:
        over = [visit.due.pk for visit in visits if visit.due.ended or visit.due.plan is None]
        done = [visit for visit in visits if visit.due.pk not in set(over) or visit.due.pk in errors]
        with transaction.atomic(), connection.cursor() as cursor:
            if over:
                cursor.execute(
                    "DELETE FROM sources_scrapetarget WHERE id = ANY(%s) AND ended AND holder = %s", [over, self.holder]
                )
                for pk in over:
                    self._drop(pk)
            if done:
                cursor.execute(_FINISH, _columns(done, errors, now) | {"me": self.holder, "now": now})
            for visit in done:
                live.publish("targets", visit.due.pk)
                if visit.due.health != ("down" if errors.get(visit.due.pk) or visit.round.error else "up"):
                    live.publish("targets")
        for visit in done:
            SCRAPES.inc(outcome="down" if errors.get(visit.due.pk) or visit.round.error else "up")

    def _sweep(self) -> None:
        """Forget the targets that other processes have taken over, and jobs that are gone."""
        mine = set(ScrapeTarget.objects.filter(holder=self.holder).values_list("pk", flat=True))
        for pk in [pk for pk in list(self._kept) if pk not in mine]:
            self._drop(pk)
        jobs = set(ScrapeJob.objects.values_list("pk", flat=True))
        self._plans = {pk: plan for pk, plan in self._plans.items() if pk in jobs}

    def _drop(self, pk: int) -> None:
        kept = self._kept.pop(pk, None)
        if kept is not None and kept.line is not None:
            kept.line.close()


_OWN_REASONS: Final = ("malformed", "duplicate_series", "label_limit")
"""Reasons that the ingest has not counted."""

_CLAIM: Final = """
UPDATE sources_scrapetarget t
   SET holder = %(me)s, claimed_until = greatest(t.due_at, clock_timestamp()) + t.timeout + %(lease)s
 WHERE t.id IN (SELECT id FROM sources_scrapetarget
                 WHERE NOT dropped AND due_at <= %(until)s
                   AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                   AND (holder IS NULL OR holder = %(me)s OR due_at < %(now)s - %(grace)s)
                 ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING t.id, t.job_id, t.key, t.url, t.labels::text, t.interval, t.timeout, t.due_at, t.ended, t.health
"""
_FINISH: Final = """
UPDATE sources_scrapetarget t
   SET due_at = CASE WHEN t.ended THEN %(now)s ELSE v.due_at END, claimed_until = NULL, last_at = v.last_at,
       duration = v.duration, health = v.health, error = v.error, samples = v.samples, kept = v.kept, added = v.added,
       refused = v.refused, problems = v.problems::jsonb,
       health_at = CASE WHEN t.health = v.health THEN t.health_at ELSE v.last_at END
  FROM unnest(%(pk)s::bigint[], %(due)s::timestamptz[], %(last)s::timestamptz[], %(duration)s::interval[],
              %(health)s::text[], %(error)s::text[], %(samples)s::int[], %(kept)s::int[], %(added)s::int[],
              %(refused)s::int[], %(problems)s::text[])
       AS v (pk, due_at, last_at, duration, health, error, samples, kept, added, refused, problems)
 WHERE t.id = v.pk AND t.holder = %(me)s
"""


def _columns(visits: Sequence[Visit], errors: dict[int, str], now: datetime) -> dict[str, Any]:
    told = [errors.get(visit.due.pk) or visit.round.error for visit in visits]
    rounds = [visit.round for visit in visits]
    return {
        "pk": [visit.due.pk for visit in visits],
        "due": [schedule.tick_after(visit.due.key, visit.due.interval, now) for visit in visits],
        "last": [visit.started for visit in visits],
        "duration": [timedelta(seconds=visit.seconds) for visit in visits],
        "health": ["down" if error else "up" for error in told],
        "error": [error[:2000].replace("\0", "") for error in told],
        "samples": [one.scraped for one in rounds],
        "kept": [one.kept for one in rounds],
        "added": [one.added for one in rounds],
        "refused": [sum(one.refused.values()) for one in rounds],
        "problems": [orjson.dumps([text.replace("\0", "�") for text in one.problems]).decode() for one in rounds],
    }


def _portions(visits: Iterable[Visit]) -> Iterable[list[Visit]]:
    some: list[Visit] = []
    size = 0
    for visit in visits:
        some.append(visit)
        size += len(visit.round.slots)
        if size >= MOST_STORED:
            yield some
            some, size = [], 0
    if some:
        yield some


def _tell(rounds: Sequence[Round], rejected: Sequence[services.Rejection]) -> None:
    """Write what the store refused down in the rounds that brought it."""
    if not rejected:
        return
    ends = np.cumsum([len(one.slots) for one in rounds])
    for rejection in rejected:
        number = int(np.searchsorted(ends, rejection.index, side="right"))
        one = rounds[number]
        index = rejection.index - (int(ends[number - 1]) if number else 0)
        slot = int(one.slots[index])
        if slot < 0:
            continue
        one.refused[rejection.reason] += 1
        if len(one.problems) < MOST_PROBLEMS:
            labels = one.registry.labels(slot)
            name = labels.pop("__name__", "")
            one.problems.append(f"{name}{label_set(labels)[:200]}: {REASONS[rejection.reason]}")


_scraper: Scraper | None = None


def scrape(*, now: datetime) -> None:
    """Claim what is due soon in this process."""
    global _scraper
    if _scraper is None:
        _scraper = Scraper()
    _scraper.tick(now=now)


# --- One look, nothing stored ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a look at a target brought: how it went, and the first samples as they would be stored."""

    round: Round
    seconds: float
    size: int
    content_type: str
    samples: tuple[tuple[str, float], ...]


MOST_SEEN: Final = 500
MOST_PATIENCE: Final = timedelta(seconds=15)
"""How long somebody who looks waits, in a thread that others could use."""


def look(target: ScrapeTarget, *, now: datetime) -> Seen:
    """Ask a target once, as its job says, and store nothing."""
    if target.job is None or target.dropped:
        raise ValueError("This target is not scraped.")
    plan = plans.plan_of(target.job)
    lineup = Lineup(plan.settings(plans.labels_of(target)), registry.Registry())
    at_ms, clock = round(now.timestamp() * 1000), time.perf_counter()
    size, kind, error, line = 0, "", plan.problem, None
    try:
        if not error:
            line = plan.line()
            answer = plan.ask(line, target.url, min(target.timeout, MOST_PATIENCE))
            size, kind, error = len(answer.content), answer.headers.get("content-type", ""), plans.refusal(answer)
    except (http.OutboundError, ValueError) as refused:
        error = str(refused)
    finally:
        if line is not None:
            line.close()
    seconds = time.perf_counter() - clock
    found = (
        lineup.fail(error, at_ms, seconds) if error else lineup.read(answer.content, format_of(kind), at_ms, seconds)
    )
    samples = []
    for slot, value in zip(found.slots[: min(found.kept, MOST_SEEN)].tolist(), found.v.tolist(), strict=False):
        labels = found.registry.labels(slot)
        name = labels.pop("__name__", "")
        samples.append((f"{name}{label_set(labels)}", value))
    return Seen(found, seconds, size, kind, tuple(samples))
