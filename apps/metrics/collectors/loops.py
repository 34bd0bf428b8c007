"""How the portal's recurring jobs keep time, and whether a worker serves each queue."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from apps.core import heartbeat_tasks
from apps.core.models import Loop
from apps.core.tasks import QUEUES
from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector

ALIVE = timedelta(seconds=6 * heartbeat_tasks.EVERY)
"""How old a queue's last heartbeat may be."""
Row = tuple[str, timedelta, datetime | None, timedelta | None, int, int]


class Loops(Collector):
    """One set of series per job of `core.Loop`."""

    kind = "loops"
    label = "The portal's recurring jobs"
    job = OWN

    def collect(self) -> Iterator[Reading]:
        rows: Iterable[Row] = Loop.objects.values_list("name", "every", "finished_at", "duration", "runs", "failures")
        return readings(list(rows), timezone.now())


def readings(rows: Iterable[Row], now: datetime) -> Iterator[Reading]:
    """Lag is how far behind its rhythm a job is: 0 while the next run is not yet due."""
    beats: dict[str, datetime | None] = {}
    for name, every, finished, duration, runs, failures in rows:
        labels = {"loop": name}
        beats[name] = finished
        if finished is not None:
            late = max((now - finished - every).total_seconds(), 0.0)
            yield Reading("portal_loop_lag_seconds", late, labels, help="Seconds since the job should have run again.")
        if duration is not None:
            help_text = "Seconds that the last run took."
            yield Reading("portal_loop_duration_seconds", duration.total_seconds(), labels, help=help_text)
        yield Reading("portal_loop_runs_total", float(runs), labels, "counter", "Runs of the job.")
        yield Reading("portal_loop_failures_total", float(failures), labels, "counter", "Runs that failed.")
    for queue in QUEUES:
        beat = beats.get(heartbeat_tasks.name(queue))
        up = float(beat is not None and now - beat <= ALIVE)
        yield Reading("celery_worker_up", up, {"queue": queue}, help="Whether a worker served the queue lately.")
