"""Tasks that wait in each queue of the broker, and tasks that a worker took and has not finished."""

from collections.abc import Iterator, Mapping
from typing import Any

import redis
from django.conf import settings

from apps.core.tasks import QUEUES
from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector

BROKER = 0
"""The database number that Celery's broker uses on the portal's server."""


class Celery(Collector):
    """Queue lengths straight from the broker: asking the workers would wait for the busy ones."""

    kind = "celery"
    label = "Celery queues"
    job = OWN

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.client: redis.Redis | None = None

    def collect(self) -> Iterator[Reading]:
        if self.client is None:
            pool = redis.ConnectionPool.from_url(settings.REDIS_URL, socket_timeout=2.0, socket_connect_timeout=1.0)
            pool.connection_kwargs["db"] = BROKER
            self.client = redis.Redis(connection_pool=pool)
        with self.client.pipeline(transaction=False) as pipe:
            for queue in QUEUES:
                pipe.llen(queue)
            pipe.hlen("unacked")
            *lengths, unacked = pipe.execute()
        return readings(dict(zip(QUEUES, lengths, strict=True)), unacked)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


def readings(lengths: Mapping[str, int], unacked: int) -> Iterator[Reading]:
    """Waiting tasks by queue, and those that are under way or were taken by a worker that died."""
    for queue, length in lengths.items():
        yield Reading("celery_queue_length", float(length), {"queue": queue}, help="Tasks that wait in the queue.")
    yield Reading("celery_unacked_tasks", float(unacked), help="Tasks that a worker took and has not finished.")
