"""One heartbeat a queue: its row is fresh exactly while a worker serves that queue."""

from datetime import datetime

from apps.core.tasks import QUEUES, loop

EVERY = 5.0


def name(queue: str) -> str:
    """Return the name of the heartbeat loop of that queue."""
    return f"core.heartbeat.{queue}"


def _beat(*, now: datetime) -> None:
    """Nothing: that it ran is the message."""


for _queue in QUEUES:
    loop(name(_queue), every=EVERY, queue=_queue, lease=EVERY)(_beat)
