"""Runs the collectors that are due: each by itself, with a deadline, all of a round in one ingest.

1. Read the settings; none due and none switched off: done.
2. Claim the due rows, so that two workers do not measure the same thing at once.
3. Run each collector in a thread of its own and wait for it until its deadline, no longer. One that hangs keeps its
   thread and is not started again until that thread ends: at most one thread is lost to it.
4. Stamp the readings with the scheduled tick, so that series of one interval share their timestamps; end the series
   that were there in the last round and are not now; add duration, success and `up`.
5. Ingest everything in one call, then write down when each is due next. A round that could not be stored is not
   repeated: the next tick measures anew, and the gap shows.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, connections

from apps.accounts.permissions import Principal
from apps.core.registry import UnknownKind
from apps.core.telemetry import Reading
from apps.metrics import query, services
from apps.metrics.collectors import COLLECTORS, OWN, Collector, NoData, cleaned
from apps.metrics.models import CollectorSetting
from apps.metrics.presence import Presence
from apps.metrics.samples import Samples

log = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_ROUND = timedelta(seconds=5)
"""After the first: a rate needs two samples, and a first chart should not wait for a whole interval."""
CLAIM_SECONDS = 10.0
BY = Principal.system("metrics.collect")


def instance() -> str:
    """Return the name under which this machine's series are stored."""
    return socket.gethostname()


def tick(now: datetime, every: timedelta) -> datetime:
    """Return the last multiple of `every` since 1970 that is not after `now`."""
    return EPOCH + (now - EPOCH) // every * every


@dataclass(frozen=True)
class Due:
    """One collector to run: its settings, the time that its readings are stamped with, and when it is due next."""

    kind: str
    config: Mapping[str, Any]
    stamp: datetime
    next_at: datetime


def plan(every: timedelta, due_at: datetime | None, runs: int, now: datetime) -> tuple[datetime, datetime] | None:
    """Decide whether a collector is due; return (stamp, next due) or None.

    `runs`: how often this process has run it. The first round comes at once and the second after five seconds,
    both stamped with the second they fall in; then every multiple of `every`, stamped with it however late it runs.
    """
    if runs and due_at is not None and due_at > now:
        return None
    regular = tick(now, every) + every
    if runs > 1 or every <= SECOND_ROUND:
        return tick(now, every), regular
    return tick(now, timedelta(seconds=1)), now + SECOND_ROUND if runs == 0 else regular


@dataclass(frozen=True)
class Outcome:
    """How one collector's run went; `error` is empty for success, and also where there is nothing to measure."""

    kind: str
    job: str
    seconds: float
    readings: Sequence[Reading] = ()
    error: str = ""


@dataclass
class _Run:
    """A collector on its thread."""

    due: Due
    job: str
    deadline: float
    started: float
    thread: threading.Thread
    result: list[Outcome] = field(default_factory=list)


class Runner:
    """The collectors of this process, with what they keep between rounds. One thread at a time calls `run`."""

    def __init__(self, registry: Mapping[str, type[Collector]] | None = None) -> None:
        self._registry = registry
        self._alive: dict[str, tuple[Mapping[str, Any], Collector]] = {}
        self._stuck: dict[str, threading.Thread] = {}

    def _class(self, kind: str) -> type[Collector]:
        return COLLECTORS.get(kind) if self._registry is None else self._registry[kind]

    def _collector(self, due: Due) -> Collector:
        """The living collector of that kind, made anew when its settings have changed."""
        known = self._alive.get(due.kind)
        if known is not None and known[0] == due.config:
            return known[1]
        if known is not None:
            known[1].close()
        made = self._class(due.kind)(cleaned(self._class(due.kind), due.config))
        self._alive[due.kind] = (due.config, made)
        return made

    def run(self, due: Iterable[Due]) -> list[Outcome]:
        """Run all of them side by side; return their outcomes in the order given."""
        order: list[_Run | Outcome] = [self._start(one) for one in due]
        return [self._wait(one) if isinstance(one, _Run) else one for one in order]

    def _start(self, due: Due) -> _Run | Outcome:
        try:
            kind = self._class(due.kind)
        except (UnknownKind, KeyError) as error:
            return Outcome(due.kind, OWN, 0.0, error=str(error))
        if not kind.is_supported():
            return Outcome(due.kind, kind.job, 0.0)
        if (thread := self._stuck.get(due.kind)) is not None:
            if thread.is_alive():
                return Outcome(due.kind, kind.job, 0.0, error="An earlier round of it hangs and has not finished.")
            del self._stuck[due.kind]
        try:
            collector = self._collector(due)
        except Exception as error:  # settings or constructor of a plug-in
            return Outcome(due.kind, kind.job, 0.0, error=sentence(error))
        result: list[Outcome] = []
        thread = threading.Thread(
            target=_measure, args=(due.kind, collector, result), name=f"collect-{due.kind}", daemon=True
        )
        run = _Run(due, kind.job, kind.deadline, time.monotonic(), thread, result)
        thread.start()
        return run

    def _wait(self, run: _Run) -> Outcome:
        run.thread.join(max(run.started + run.deadline - time.monotonic(), 0.0))
        if run.result:
            return run.result[0]
        self._stuck[run.due.kind] = run.thread
        # What it keeps may be in the hands of the thread that hangs: the next round starts with a new one.
        self._alive.pop(run.due.kind, None)
        spent = time.monotonic() - run.started
        return Outcome(run.due.kind, run.job, spent, error=f"It did not finish within {run.deadline:g} s.")

    def drop(self, kind: str) -> None:
        """Let go of a collector that is no longer wanted."""
        if (known := self._alive.pop(kind, None)) is not None:
            known[1].close()


def _measure(kind: str, collector: Collector, result: list[Outcome]) -> None:
    """The body of a collector's thread: always leaves exactly one outcome."""
    started = time.monotonic()
    readings: list[Reading] = []
    error = ""
    try:
        readings = list(collector.collect())
    except NoData:
        readings = []
    except Exception as failure:  # whatever a plug-in raises is its outcome, never the round's
        readings, error = [], sentence(failure)
        log.warning("Collector %s failed: %s", kind, error)
    finally:
        connections.close_all()
    result.append(Outcome(kind, collector.job, time.monotonic() - started, readings, error))


def sentence(error: BaseException) -> str:
    """Return the error for people: what it says, after its class where that tells more."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__


class Round:
    """Turns outcomes into the series of one round, and remembers what has to end."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.presence = Presence()
        self.success: dict[str, tuple[str, bool]] = {}

    def readings(self, outcomes: Iterable[tuple[Outcome, datetime]]) -> list[Reading]:
        """Return everything to ingest: labelled and stamped readings, markers of ended series, the round's own."""
        written: list[Reading] = []
        newest: dict[str, int] = {}
        for outcome, stamp in outcomes:
            at = int(stamp.timestamp() * 1000)
            newest[outcome.job] = max(at, newest.get(outcome.job, 0))
            self.success[outcome.kind] = (outcome.job, not outcome.error)
            found = [self._stamped(one, outcome.job, at) for one in outcome.readings]
            found += self._about(outcome, at)
            written += self.presence.update(outcome.kind, found, at)
            written += found
        for job, at in newest.items():
            up = float(any(good for of, good in self.success.values() if of == job))
            help_text = "Whether any collector of the job succeeded."
            written.append(self._stamped(Reading("up", up, help=help_text), job, at))
        return written

    def _stamped(self, reading: Reading, job: str, at: int) -> Reading:
        labels = {**reading.labels, "instance": self.host, "job": job}
        return Reading(reading.name, reading.value, labels, reading.type, reading.help, reading.timestamp_ms or at)

    def _about(self, outcome: Outcome, at: int) -> list[Reading]:
        labels = {"collector": outcome.kind}
        took = Reading(
            "portal_collector_duration_seconds", outcome.seconds, labels, help="Seconds that the round took."
        )
        fine = Reading(
            "portal_collector_success", float(not outcome.error), labels, help="Whether the round succeeded."
        )
        return [self._stamped(took, OWN, at), self._stamped(fine, OWN, at)]

    def end(self, kinds: Iterable[str], at: datetime) -> list[Reading]:
        """Return what ends all that those collectors wrote, and `up` where none of its job is left."""
        ms = int(at.timestamp() * 1000)
        ended = [marker for kind in kinds for marker in self.presence.end(kind, ms)]
        jobs = {self.success.pop(kind)[0] for kind in kinds if kind in self.success}
        for job in jobs - {job for job, _ in self.success.values()}:
            self.presence.update("up", [self._stamped(Reading("up", 1.0), job, ms)], ms)
            ended += self.presence.end("up", ms)
        return ended


class Collection:
    """The state of collecting in this process: runner, last round, how often each collector has run."""

    def __init__(self, runner: Runner | None = None) -> None:
        self.runner = runner or Runner()
        self.round = Round(instance())
        self.runs: dict[str, int] = {}

    def collect(self, *, now: datetime) -> int:
        """Run what is due (the numbered protocol above); return how many samples were stored."""
        settings = list(CollectorSetting.objects.all()) if query.collection_on() else []
        enabled = {row.kind for row in settings if row.enabled}
        gone = [kind for kind in list(self.runs) if kind not in enabled]
        for kind in gone:
            self.runner.drop(kind)
            del self.runs[kind]
        before = self.round.presence.copy()
        ended = self.round.end(gone, now)
        due = [
            Due(row.kind, row.config, *when)
            for row in settings
            if row.enabled and (when := plan(row.every, row.due_at, self.runs.get(row.kind, 0), now)) is not None
        ]
        due = claim(due)
        if not due:
            return self._store(ended, now) if ended else 0
        outcomes = self.runner.run(due)
        for one in due:
            self.runs[one.kind] = self.runs.get(one.kind, 0) + 1
        stamps = [one.stamp for one in due]
        readings = self.round.readings(zip(outcomes, stamps, strict=True))
        try:
            return self._store(ended + readings, now)
        except BaseException:
            self.round.presence = before  # what ended in this round ends in the next one that can be stored
            raise
        finally:
            finish(due, outcomes, now)

    def _store(self, readings: list[Reading], now: datetime) -> int:
        return services.ingest(samples=Samples.from_readings(readings, now), by=BY, now=now, live="host").accepted


def claim(due: Sequence[Due]) -> list[Due]:
    """Claim the rows by the database's clock; return those that nobody else holds."""
    if not due:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metrics_collectorsetting SET claimed_until = clock_timestamp() + make_interval(secs => %s)
             WHERE kind IN (SELECT kind FROM metrics_collectorsetting
                             WHERE kind = ANY(%s) AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
                               FOR UPDATE SKIP LOCKED)
            RETURNING kind
            """,
            [CLAIM_SECONDS, [one.kind for one in due]],
        )
        mine = {row[0] for row in cursor.fetchall()}
    return [one for one in due if one.kind in mine]


def finish(due: Sequence[Due], outcomes: Sequence[Outcome], now: datetime) -> None:
    """Write down how each run went and when the next is due."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metrics_collectorsetting AS s
               SET due_at = v.due_at, last_at = %s, duration = v.duration, error = v.error, claimed_until = NULL
              FROM unnest(%s::text[], %s::timestamptz[], %s::interval[], %s::text[])
                   AS v (kind, due_at, duration, error)
             WHERE s.kind = v.kind
            """,
            [
                now,
                [one.kind for one in due],
                [one.next_at for one in due],
                [timedelta(seconds=outcome.seconds) for outcome in outcomes],
                [outcome.error for outcome in outcomes],
            ],
        )


_collection: Collection | None = None


def collect(*, now: datetime) -> int:
    """Run what is due in this process; return how many samples were stored."""
    global _collection
    if _collection is None:
        _collection = Collection()
    return _collection.collect(now=now)
