"""A queue that fills while its worker is away, and a worker that is killed: a broker and a worker of the portal."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from django.db import connection
from django.utils import timezone

from apps.core import heartbeat_tasks
from apps.core.models import Loop
from apps.core.tasks import QUEUES
from apps.metrics.collectors import loops
from monitoring_portal.celery import app
from tests.faults.watch import Watch
from tests.sources.servers import valkey

WORKER = """
import django; django.setup()
from monitoring_portal import celery
celery.configure().worker_main(["worker", "--pool=threads", "--concurrency=2", "--queues=fast,send,slow",
    "--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel=ERROR"])
"""


def worker(broker: str) -> subprocess.Popen[bytes]:
    """A worker of the portal on the database of this test."""
    there = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "monitoring_portal.settings",
        "DATABASE_URL": urlunsplit(there),
        "REDIS_URL": broker,
    }
    return subprocess.Popen([sys.executable, "-c", WORKER], env=environment)


def until(what: Callable[[], Any], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "It did not come to pass."
        time.sleep(0.2)


def waiting(port: int) -> int:
    with redis.Redis(port=port, password="hidden-word") as client:
        return sum(int(client.llen(queue)) for queue in QUEUES)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_queue_fills_without_a_worker_and_empties_with_one_until_it_is_killed(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with valkey(tmp_path) as port:
        settings.REDIS_URL = broker = f"redis://:hidden-word@127.0.0.1:{port}/0"
        watch = Watch("queue-backlog", "workers-away", collectors=("celery", "loops"))

        with app.connection_for_write(broker) as line:
            for queue in QUEUES * 150:
                app.send_task(heartbeat_tasks.name(queue), queue=queue, connection=line, expires=3600)
        alert = watch.fires("queue-backlog", "warning", within=180)
        assert alert.value == 150
        assert watch.firing()["workers-away"] == "error"
        running = worker(broker)
        try:
            until(lambda: waiting(port) == 0)
            beats = Loop.objects.filter(name__startswith="core.heartbeat.", finished_at__isnull=False)
            until(lambda: beats.count() == len(QUEUES), 10)
            watch.resolves("queue-backlog", within=30)
            watch.resolves("workers-away", within=30)
        finally:
            running.kill()
            running.wait()
        later = SimpleNamespace(now=lambda: timezone.now() + timedelta(minutes=1))
        monkeypatch.setattr(loops, "timezone", later)
        watch.fires("workers-away", "error", within=120)
        assert "queue-backlog" not in watch.firing()
