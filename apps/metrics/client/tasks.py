"""Counts Celery's tasks from within its workers: how long they took, how they ended, what waits in the queues.

It hears Celery's signals, and imports Celery only where the project has. A task's queries and reads count as those of a
request do, under `task NAME`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import Token
from typing import Any, Final

from apps.core import telemetry
from apps.core.telemetry import Counter, Gauge, Histogram, Reading
from apps.metrics.client import reporting
from apps.metrics.middleware import SPENT, Spent

TASKS: Final = Counter("celery_tasks_total", "Tasks that ended, by how.", ("task", "state"))
DURATION: Final = Histogram("celery_task_duration_seconds", "Seconds that a task ran.", ("task",))
FAILURES: Final = Counter("celery_task_failures_total", "Tasks that raised, by class.", ("task", "exception"))
RETRIES: Final = Counter("celery_task_retries_total", "Times a task asked to be run again.", ("task",))
RUNNING: Final = Gauge("celery_tasks_running", "Tasks that run now.")
REVOKED: Final = Counter("celery_tasks_revoked_total", "Tasks that were called off.", ("task",))

_begun: dict[str, tuple[float, Spent, Token[Spent | None]]] = {}
_workers: list[Any] = []


def watch(settle: Callable[[str, Spent], None]) -> None:
    """Hear Celery's signals, where the project uses Celery; `settle` counts what a task has spent."""
    if "celery" not in sys.modules:
        return
    from celery import signals

    def begin(task_id: str = "", **_: Any) -> None:
        reporting.ensure()
        spent = Spent()
        RUNNING.add(1.0, ())
        _begun[task_id] = time.perf_counter(), spent, SPENT.set(spent)

    def end(task_id: str = "", task: Any = None, state: str | None = None, **_: Any) -> None:
        if (known := _begun.pop(task_id, None)) is None:
            return
        started, spent, token = known
        with contextlib.suppress(ValueError):  # another context, as under an event loop
            SPENT.reset(token)
        name = _name(task)
        RUNNING.add(-1.0, ())
        DURATION.add(time.perf_counter() - started, (name,))
        TASKS.add(1.0, (name, str(state or "UNKNOWN").lower()))
        settle(f"task {name}", spent)

    def fail(sender: Any = None, exception: BaseException | None = None, **_: Any) -> None:
        FAILURES.add(1.0, (_name(sender), type(exception).__name__))

    def retry(sender: Any = None, **_: Any) -> None:
        RETRIES.add(1.0, (_name(sender),))

    def revoke(sender: Any = None, **_: Any) -> None:
        REVOKED.add(1.0, (_name(sender),))

    def up(sender: Any = None, **_: Any) -> None:
        _workers[:] = [sender]
        telemetry.on_snapshot(worker)
        reporting.ensure()

    def forked(**_: Any) -> None:
        _workers.clear()
        _begun.clear()
        reporting.ensure()

    def down(**_: Any) -> None:
        reporting.stop()

    for signal, call in (
        (signals.task_prerun, begin),
        (signals.task_postrun, end),
        (signals.task_failure, fail),
        (signals.task_retry, retry),
        (signals.task_revoked, revoke),
        (signals.worker_ready, up),
        (signals.worker_process_init, forked),
        (signals.worker_process_shutdown, down),
    ):
        signal.connect(call, weak=False, dispatch_uid=f"portal_metrics.{call.__name__}")


def _name(task: Any) -> str:
    """The task's name; one that is not registered here is of a sender's choosing."""
    return str(getattr(task, "name", None) or "unknown")[:200]


def worker() -> Iterator[Reading]:
    """Yield how the worker of this process stands: its processes, and what waits in the queues that it takes from."""
    for consumer in _workers:
        pool = getattr(consumer, "pool", None)
        processes = float(getattr(pool, "num_processes", 0) or 0)
        yield Reading("celery_worker_processes", processes, help="Tasks that the worker can run at a time.")
        yield from _queues(consumer)


def _queues(consumer: Any) -> Iterator[Reading]:
    about = "Tasks that wait in a queue, as this worker sees it."
    try:
        app = consumer.app
        with app.connection_for_read(connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
            for name, queue in list(app.amqp.queues.consume_from.items()):
                with connection.channel() as channel:
                    try:
                        length = queue(channel).queue_declare(passive=True).message_count
                    except connection.channel_errors:  # Redis knows no empty queue
                        length = 0
                yield Reading("celery_worker_queue_length", float(length), {"queue": name}, help=about)
    except Exception:  # the broker is away, or knows no lengths: there is nothing to show
        return
