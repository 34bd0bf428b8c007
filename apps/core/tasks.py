"""Celery is the alarm clock, never the memory: recurring jobs with a lease, and one-off tasks.

`@loop` registers a clock entry and a Celery task of the same name. A tick that finds the lease held does nothing;
a tick that comes late has expired; the row in `core.Loop` says when it last ran, how long it took and what failed.
"""

import logging
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
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
    """How a loop is run: every `every` seconds on `queue`; `lease` seconds exclusively, or shared when None."""

    name: str
    body: Tick
    every: float
    queue: str
    lease: float | None
    fallback: bool


LOOPS: dict[str, LoopSpec] = {}
QUEUES = ("fast", "send", "slow")
AWAY = 5.0
"""Seconds for which a broker that did not answer is not asked to wake anybody."""


def loop(
    name: str, *, every: float, queue: str, lease: float | None = 30.0, fallback: bool = False
) -> Callable[[Tick], Tick]:
    """Register `name` to run every `every` seconds on `queue`.

    With a `lease` (seconds) one process runs it at a time; with None several may, and their claims of rows
    (FOR UPDATE SKIP LOCKED) keep them apart. With `fallback` the beat process runs it when the workers are away.
    """
    if queue not in QUEUES:
        raise ValueError(f"Loop {name} wants the queue {queue!r}; there are {', '.join(QUEUES)}.")

    def register(body: Tick) -> Tick:
        LOOPS[name] = LoopSpec(name, body, every, queue, lease, fallback)

        @shared_task(name=name, ignore_result=True, queue=queue, expires=max(every, 1.0))
        def tick() -> None:
            run(name, now=timezone.now())

        return body

    return register


def task(name: str, *, queue: str) -> Callable[[Callable[..., None]], Any]:
    """Register a one-off task with keyword-only arguments; anything that must not be lost is a row, not a task."""
    return shared_task(name=name, ignore_result=True, queue=queue)


def claim(spec: LoopSpec) -> uuid.UUID | None:
    """Take the loop's lease by the database's clock; None when somebody else holds it."""
    mine = uuid.uuid4()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO core_loop AS held
                   (name, every, claimed_until, claim, started_at, runs, failures, error)
            SELECT %(name)s, make_interval(secs => %(every)s), clock_timestamp() + make_interval(secs => %(lease)s),
                   %(claim)s, clock_timestamp(), 0, 0, ''
            ON CONFLICT (name) DO UPDATE
               SET every = excluded.every, claimed_until = excluded.claimed_until, claim = excluded.claim,
                   started_at = excluded.started_at
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
        return mine if cursor.rowcount == 1 else None


def finish(spec: LoopSpec, mine: uuid.UUID, error: str) -> None:
    """Give the lease back and write down how it went; a lease that somebody else has taken over is left alone."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE core_loop
               SET claimed_until = NULL, finished_at = clock_timestamp(), duration = clock_timestamp() - started_at,
                   runs = runs + 1, failures = failures + %(failed)s, error = %(error)s
             WHERE name = %(name)s AND (claim = %(claim)s OR %(shared)s)
            """,
            {
                "name": spec.name,
                "claim": mine,
                "error": error[:4000],
                "failed": int(bool(error)),
                "shared": spec.lease is None,
            },
        )


def run(name: str, *, now: datetime) -> bool:
    """Run the loop here and now under its lease; True when it ran (a failed run is recorded and logged, not raised)."""
    spec = LOOPS[name]
    try:
        mine = claim(spec)
        if mine is None:
            return False
        error = ""
        try:
            spec.body(now=now)
        except Exception as failure:  # the loop must live on, whatever its body met
            log.exception("Loop %s failed", name)
            error = "".join(traceback.format_exception_only(failure)).strip()
        finish(spec, mine, error)
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


_away_until = float("-inf")


def _send(name: str) -> None:
    global _away_until
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


def stale() -> list[str]:
    """Return every fallback loop that stood still for three periods, Redis or the workers being away.

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
    return [spec.name for spec in LOOPS.values() if spec.fallback and spec.name not in alive]
