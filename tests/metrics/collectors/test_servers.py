"""The collectors of the portal's own servers, against the real ones of the test run."""

from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.conf import settings as django_settings
from django.db import OperationalError, connection

from apps.core import heartbeat_tasks
from apps.metrics.collectors import celery, data_disk, loops, postgres
from apps.metrics.collectors import redis as redis_collector
from apps.metrics.mount_probe import Usage

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def values(readings) -> dict[tuple[str, ...], float]:
    return {(r.name, *r.labels.values()): r.value for r in readings}


@pytest.mark.django_db(transaction=True)
def test_postgresql_shows_its_connections_against_its_maximum():
    found = values(postgres.PostgreSQL({}).collect())
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_setting('max_connections')")
        name, maximum = cursor.fetchone()
    assert found["pg_settings_max_connections",] == float(maximum)
    assert found["pg_stat_activity_count", name, "active"] >= 1
    assert ("pg_stat_activity_count", name, "idle in transaction (aborted)") in found
    assert found["pg_stat_database_blks_hit", name] > 0
    assert found["pg_database_size_bytes", name] > 1e6


@pytest.mark.django_db(transaction=True)
def test_time_in_statements_grows_where_the_extension_is():
    with connection.cursor() as cursor:
        try:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            cursor.execute("SELECT count(*) FROM pg_stat_statements")
        except OperationalError:
            pytest.skip("pg_stat_statements is not preloaded on this server")
        before = values(postgres.PostgreSQL({}).collect())
        cursor.execute("SELECT pg_sleep(0.05)")
    after = values(postgres.PostgreSQL({}).collect())
    [key] = [key for key in after if key[0] == "pg_stat_statements_seconds_total"]
    assert after[key] >= before[key] + 0.05


@pytest.mark.django_db(transaction=True)
def test_a_server_that_refuses_its_statement_figures_gives_all_others(monkeypatch):
    monkeypatch.setattr(postgres, "STATEMENTS", "SELECT 1 / 0")
    with connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    found = values(postgres.PostgreSQL({}).collect())
    assert found["pg_up",] == 1.0
    assert not [key for key in found if key[0].startswith("pg_stat_statements")]


def test_a_server_without_statements_yet_shows_zeros():
    assert set(values(postgres.statements((None, None, None), "db")).values()) == {0.0}


def test_connections_without_a_state_count_as_unknown_and_every_known_state_shows():
    found = values(postgres.activity([("db", "unknown", 2, 0), ("db", "active", 3, 1.5)], "db"))
    assert found["pg_stat_activity_count", "db", "unknown"] == 2.0
    assert found["pg_stat_activity_max_tx_duration", "db", "active"] == 1.5
    assert found["pg_stat_activity_count", "db", "idle"] == 0.0


def test_redis_shows_what_it_does():
    found = values(redis_collector.Redis({}).collect())
    assert found["redis_up",] == 1.0
    assert found["redis_memory_used_bytes",] > 0


def test_redis_that_is_away_is_a_measurement(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert values(redis_collector.Redis({}).collect()) == {("redis_up",): 0.0}


def test_tasks_that_wait_are_counted_by_queue():
    pool = redis.ConnectionPool.from_url(django_settings.REDIS_URL)
    pool.connection_kwargs["db"] = celery.BROKER
    client = redis.Redis(connection_pool=pool)
    collector = celery.Celery({})
    before = values(collector.collect())
    client.rpush("slow", b"x", b"y")
    try:
        after = values(collector.collect())
    finally:
        client.ltrim("slow", 0, -3)
        client.close()
        collector.close()
    assert after["celery_queue_length", "slow"] == before["celery_queue_length", "slow"] + 2
    assert after["celery_queue_length", "fast"] == before["celery_queue_length", "fast"]


def test_a_job_lags_when_its_next_run_is_overdue_and_a_queue_is_up_while_its_heart_beats():
    second = timedelta(seconds=1)
    rows = [
        ("alerting.evaluate", second, NOW - 5 * second, second / 2, 9, 1),
        ("metrics.collect", second, NOW, second, 3, 0),
        ("never.ran", second, None, None, 0, 0),
        (heartbeat_tasks.name("fast"), 5 * second, NOW - 29 * second, second, 1, 0),
        (heartbeat_tasks.name("send"), 5 * second, NOW - 31 * second, second, 1, 0),
    ]
    found = values(loops.readings(rows, NOW))
    assert found["portal_loop_lag_seconds", "alerting.evaluate"] == 4.0
    assert found["portal_loop_lag_seconds", "metrics.collect"] == 0.0
    assert ("portal_loop_lag_seconds", "never.ran") not in found
    assert found["portal_loop_failures_total", "alerting.evaluate"] == 1.0
    ups = {queue: found["celery_worker_up", queue] for queue in ("fast", "send", "slow")}
    assert ups == {"fast": 1.0, "send": 0.0, "slow": 0.0}


def test_the_data_disk_is_told_in_bytes():
    assert list(values(data_disk.readings(Usage(100.0, 40.0, 30.0, 1.0, 1.0))).values()) == [100.0, 40.0, 30.0]
