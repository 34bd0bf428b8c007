"""The portal's recurring jobs as series."""

from datetime import timedelta

from apps.core import heartbeat_tasks
from apps.metrics.collectors import loops
from tests.clock import NOW

SECOND = timedelta(seconds=1)


def values(readings):
    return {(r.name, *r.labels.values()): r.value for r in readings}


def test_a_job_lags_from_when_its_next_run_is_due():
    rows = [("fine", 5 * SECOND, NOW - 3 * SECOND, SECOND, 7, 0), ("late", SECOND, NOW - 11 * SECOND, SECOND, 9, 2)]
    found = values(loops.readings(rows, NOW))
    assert found["portal_loop_lag_seconds", "fine"] == 0
    assert found["portal_loop_lag_seconds", "late"] == 10
    assert found["portal_loop_failures_total", "late"] == 2


def test_a_queue_is_served_while_its_heartbeat_is_fresh():
    rows = [(heartbeat_tasks.name("fast"), 5 * SECOND, NOW, SECOND, 1, 0)]
    found = values(loops.readings(rows, NOW))
    assert (found["celery_worker_up", "fast"], found["celery_worker_up", "slow"]) == (1, 0)
