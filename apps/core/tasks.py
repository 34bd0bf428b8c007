"""Celery is the alarm clock, never the memory: recurring jobs with a lease, and one-off tasks.

`@loop` registers a clock entry and a Celery task of the same name. A tick that finds the lease held does nothing;
a tick that comes late has expired; the row in `core.Loop` says when it last ran, how long it took and what failed.
"""

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from celery import current_app, shared_task
from django.db import Error, connection, transaction
from django.utils import timezone

log = logging.getLogger(__name__)


class Tick(Protocol):
    """The body of a loop: does what is due and returns."""

    def __call__(self, *, now: datetime) -> None: ...


@dataclass(frozen=True)
class LoopSpec:
    """How a loop is run: every `every` seconds on `queue`; `lease` seconds exclusively, or shared when None.

    `on` names what wakes it besides (`announce`), as long as `gate`, which is asked now and then, says yes.
    """

    name: str
    body: Tick
    every: float
    queue: str
    lease: float | None
    fallback: bool
    on: str = ""
    gate: Callable[[], bool] | None = None


LOOPS: dict[str, LoopSpec] = {}
QUEUES = ("fast", "send", "slow")
AWAY = 5.0
"""Seconds for which a broker that did not answer is not asked to wake anybody."""


def loop(
    name: str,
    *,
    every: float,
    queue: str,
    lease: float | None = 30.0,
    fallback: bool = False,
    on: str = "",
    gate: Callable[[], bool] | None = None,
) -> Callable[[Tick], Tick]:
    """Register `name` to run every `every` seconds on `queue`.

    With a `lease` (seconds) one process runs it at a time; with None several may, and their claims of rows
    (FOR UPDATE SKIP LOCKED) keep them apart. What is announced as `on` wakes it while `gate` is true. With `fallback`
    the beat process runs it when the workers are away.
    """
    if queue not in QUEUES:
        raise ValueError(f"Loop {name} wants the queue {queue!r}; there are {', '.join(QUEUES)}.")

    def register(body: Tick) -> Tick:
        LOOPS[name] = LoopSpec(name, body, every, queue, lease, fallback, on, gate)

        @shared_task(name=name, ignore_result=True, queue=queue, expires=max(every, 1.0))
        def tick() -> None:
            run(name, now=timezone.now())

        return body

    return register


def task(name: str, *, queue: str) -> Callable[[Callable[..., None]], Any]:
    """Register a one-off task with keyword-only arguments; anything that must not be lost is a row, not a task."""
    return shared_task(name=name, ignore_result=True, queue=queue)


def claim(spec: LoopSpec) -> uuid.UUID | None:
    """Take the loop's lease by the database's clock; None when somebody else holds it, who is then asked for one more.

    Without that a wake that comes while the loop runs would be lost, and what it told of would wait for the next tick.
    """
    mine = uuid.uuid4()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO core_loop AS held
                   (name, every, claimed_until, claim, started_at, asked, runs, failures, error)
            SELECT %(name)s, make_interval(secs => %(every)s), clock_timestamp() + make_interval(secs => %(lease)s),
                   %(claim)s, clock_timestamp(), false, 0, 0, ''
            ON CONFLICT (name) DO UPDATE
               SET every = excluded.every, claimed_until = excluded.claimed_until, claim = excluded.claim,
                   started_at = excluded.started_at, asked = false
             WHERE %(shared)s OR held.claimed_until IS NULL OR held.claimed_until < clock_timestamp()
            """,
            {
                "name": spec.name,
                "every": spec.every,
                "lease": spec.lease or spec.every,
                "claim": mine,
                "shared": spec.lease is None,
            },
        )
        if cursor.rowcount == 1:
            return mine
        free = "claimed_until IS NULL OR claimed_until < clock_timestamp()"
        cursor.execute(f"UPDATE core_loop SET asked = true WHERE name = %s RETURNING {free}", [spec.name])
        row = cursor.fetchone()
    # It ended between the two statements: nobody would hear of it.
    return claim(spec) if row is not None and row[0] else None


def finish(spec: LoopSpec, mine: uuid.UUID, error: str) -> bool:
    """Give the lease back and write down how it went; a lease that somebody else has taken over is left alone.

    Returns whether somebody asked for the loop while it ran.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE core_loop
               SET claimed_until = NULL, finished_at = clock_timestamp(), duration = clock_timestamp() - started_at,
                   runs = runs + 1, failures = failures + %(failed)s, error = %(error)s
             WHERE name = %(name)s AND (claim = %(claim)s OR %(shared)s)
            RETURNING asked
            """,
            {
                "name": spec.name,
                "claim": mine,
                "error": error[:4000],
                "failed": int(bool(error)),
                "shared": spec.lease is None,
            },
        )
        row = cursor.fetchone()
    return row is not None and bool(row[0])


MOST_TURNS = 3
"""Runs in a row for those who asked meanwhile; the next tick does the rest."""


def run(name: str, *, now: datetime) -> bool:
    """Run the loop here and now under its lease; True when it ran (a failed run is recorded and logged, not raised)."""
    spec = LOOPS[name]
    started = time.monotonic()
    try:
        for turn in range(MOST_TURNS):
            mine = claim(spec)
            if mine is None:
                return turn > 0
            at = now + timedelta(seconds=time.monotonic() - started) if turn else now
            error = ""
            try:
                spec.body(now=at)
            except Exception as failure:  # the loop must live on, whatever its body met
                log.exception("Loop %s failed", name)
                error = "".join(traceback.format_exception_only(failure)).strip()
            if not finish(spec, mine, error):
                break
    except Error as failure:
        log.warning("Loop %s could not reach the database: %s", name, str(failure).strip().splitlines()[:1])
        connection.close()
        return False
    return True


@dataclass(frozen=True)
class _Wake:
    """What a transaction has to do about a loop once it has committed."""

    name: str

    def __call__(self) -> None:
        _send(self.name)


def wake(name: str) -> None:
    """Send the loop's task once this transaction has committed, to save the wait for its next tick.

    However often a transaction asks, it is one task. A broker that is away costs that wait and nothing else.
    """
    wanted = _Wake(name)
    if not any(entry[1] == wanted for entry in connection.run_on_commit):
        transaction.on_commit(wanted, robust=True)


class Here:
    """Runs woken loops in this process, on a few threads of its own: a hop over the broker less (5 ms of CPU and wait).

    A loop that is waiting for its thread is not put there twice.
    """

    def __init__(self, queues: Collection[str], threads: int) -> None:
        self.queues = frozenset(queues)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wake")
        self._waiting: set[str] = set()
        self._lock = threading.Lock()

    def takes(self, name: str) -> bool:
        """Take the loop if its queue is this process's."""
        spec = LOOPS.get(name)
        if spec is None or spec.queue not in self.queues:
            return False
        with self._lock:
            if name in self._waiting:
                return True
            self._waiting.add(name)
        self._pool.submit(self._run, name)
        return True

    def _run(self, name: str) -> None:
        with self._lock:
            self._waiting.discard(name)
        try:
            run(name, now=timezone.now())
        finally:
            connection.close()


_here: Here | None = None


_wanted_at: dict[str, datetime] = {}


def wake_at(name: str, moment: datetime, *, now: datetime) -> None:
    """Run the loop at that moment, where this process runs what it wakes; elsewhere its next tick does.

    One that is set for the same moment already is not set twice.
    """
    if _here is None or _wanted_at.get(name) == moment:
        return
    _wanted_at[name] = moment
    timer = threading.Timer(max(0.0, (moment - now).total_seconds()), _here.takes, (name,))
    timer.daemon = True
    timer.start()


def serve_here(queues: Collection[str], threads: int) -> None:
    """Let this process run what it wakes itself, as far as it serves these queues; the worker calls it once."""
    global _here
    _here = Here(queues, threads)


# --- Events -----------------------------------------------------------------------------------------------------
GAP = 0.2
"""Seconds that lie at least between two wakes by one event."""
ASKED_EVERY = 5.0
"""Seconds for which the answer of a gate is reused."""


class _Bell:
    """Wakes one loop at most every GAP seconds; what is announced in between rings once, at the end of the gap."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._rang = self._asked = float("-inf")
        self._is_wanted = False
        self._timer: threading.Timer | None = None

    def ring(self, spec: LoopSpec) -> None:
        if not self._wanted(spec):
            return
        with self._lock:
            wait = self._rang + GAP - time.monotonic()
            if wait > 0:
                if self._timer is None:
                    self._timer = threading.Timer(wait, self._late)
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._rang = time.monotonic()
        _send(self.name)

    def _late(self) -> None:
        with self._lock:
            self._timer, self._rang = None, time.monotonic()
        _send(self.name)

    def _wanted(self, spec: LoopSpec) -> bool:
        if spec.gate is None:
            return True
        if time.monotonic() > self._asked + ASKED_EVERY:
            self._asked, self._is_wanted = time.monotonic(), spec.gate()
        return self._is_wanted


_bells: dict[str, _Bell] = {}


def announce(event: str) -> None:
    """Say that something was committed: the loops that want to know run soon. A hint, never the memory."""
    for spec in list(LOOPS.values()):
        if spec.on == event:
            _bells.setdefault(spec.name, _Bell(spec.name)).ring(spec)


_away_until = float("-inf")


def _send(name: str) -> None:
    global _away_until
    if _here is not None and _here.takes(name):
        return
    if time.monotonic() < _away_until:
        return
    spec = LOOPS.get(name)
    options: dict[str, Any] = {"retry": False, "ignore_result": True}
    if spec is not None:
        options |= {"queue": spec.queue, "expires": max(spec.every, 1.0)}
    try:
        current_app.send_task(name, **options)
    except Exception as error:  # kombu's many errors; the tick will do it
        # One that does not even refuse costs seconds a try, which the next rule group would wait for as well.
        _away_until = time.monotonic() + AWAY
        log.warning("Could not wake %s (%s); its next tick does the work.", name, error)


def stale(watched: float) -> list[str]:
    """Return every fallback loop that stood still for three periods, Redis or the workers being away.

    `watched`: seconds since the clock that sends the ticks began. A loop that has not had three periods since then is
    not missed: after a start the first tick of one that runs each half minute is half a minute away.

    The beat process asks each second and runs them itself: so evaluation, escalation and delivery go on. The functions
    are the same, and the lease makes it safe beside a worker that comes back.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT name FROM core_loop
             WHERE greatest(started_at, finished_at) > clock_timestamp() - greatest(3 * every, interval '3 seconds')
            """
        )
        alive = {name for (name,) in cursor.fetchall()}
    wanted = [spec for spec in LOOPS.values() if spec.fallback and watched >= 3 * spec.every]
    return [spec.name for spec in wanted if spec.name not in alive]
