"""A PostgreSQL 15 with a streaming replica and a Valkey with one: measured, broken, and told by the shipped rules."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis as client
import yaml
from django.conf import settings
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.alerting import evaluation
from apps.alerting import services as alerting
from apps.alerting.models import Alert
from apps.core.telemetry import Reading
from apps.sources import measured, measuring
from apps.sources.models import BusinessMetric, DataSource
from apps.sources.servers import Access, postgres, redis
from tests.sources.conftest import ADMIN
from tests.sources.servers import BIN, Postgres, valkey
from tests.sources.servers import postgres as primary_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not (BIN / "postgres").exists(), reason="needs Debian's PostgreSQL 15"),
]
BY = Principal.system("test")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Postgres, Postgres]]:
    tmp_path.chmod(0o755)
    with primary_server(tmp_path) as primary:
        replica = Postgres(tmp_path / "replica")
        replica.copy_of(primary)
        replica.start()
        try:
            yield primary, replica
        finally:
            replica.stop()


def access(server: Postgres, **more: Any) -> Access:
    return Access(server.address, "postgres", "watcher", "hidden-word", seconds=5, **more)


def figures(readings: list[Reading]) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for reading in readings:
        found.setdefault(reading.name, []).append((dict(reading.labels), reading.value))
    return found


def wait_for(what: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "It did not come to pass."
        time.sleep(0.1)
    return found


def test_primary_and_replica_tell_everything_that_is_promised(pair: tuple[Postgres, Postgres]) -> None:
    primary, replica = pair
    with primary.connect() as line, primary.connect() as other:
        line.execute("SELECT pg_stat_statements_reset()")
        for _ in range(3):
            line.execute("SELECT count(*) FROM booking WHERE amount > 7")
        _deadlock(line, other)
        dead = ({"datname": "postgres"}, 1.0)
        found = wait_for(
            lambda: (
                (got := figures(postgres.measure(access(primary))))
                and "pg_stat_replication_replay_lag_seconds" in got
                and dead in got["pg_stat_database_deadlocks"]
                and got
            )
        )
        assert {labels["collector"]: value for labels, value in found["pg_scrape_collector_success"]} == dict.fromkeys(
            ("database", "database_size", "locks", "replication", "stat_replication", "replication_slot",
             "stat_user_tables", "stat_statements"), 1.0,
        )  # fmt: skip
        assert found["pg_replication_slot_slot_is_active"] == [({"slot_name": "second"}, 1.0)]
        sees = found["pg_stat_replication_pg_wal_lsn_diff"][0][0]
        assert (sees["application_name"], sees["state"]) == ("second", "streaming")
        table = {"datname": "postgres", "schemaname": "public", "relname": "booking"}
        assert dict(found["pg_stat_user_tables_table_size_bytes"][0][0]) == table
        texts = {labels["query"]: labels["queryid"] for labels, _ in found["pg_stat_statements_query_id"]}
        asked = texts["SELECT count(*) FROM booking WHERE amount > $1"]
        calls = {labels["queryid"]: value for labels, value in found["pg_stat_statements_calls_total"]}
        assert calls[asked] == 3
        assert not any("PASSWORD" in text for text in texts)
    found = figures(postgres.measure(access(replica)))
    assert found["pg_replication_is_replica"] == [({}, 1.0)]
    assert found["pg_replication_is_connected"] == [({}, 1.0)]
    with replica.connect() as line, primary.connect() as writer:
        line.execute("SELECT pg_wal_replay_pause()")
        writer.execute("INSERT INTO booking SELECT 'late', 1, n FROM generate_series(1, 1000) n")
        behind = wait_for(lambda: _lag(access(replica)) > 0.5 and figures(postgres.measure(access(replica))))
        assert behind["pg_replication_lag_bytes"][0][1] > 0
        line.execute("SELECT pg_wal_replay_resume()")
        wait_for(lambda: _lag(access(replica)) == 0)


def _lag(way: Access) -> float:
    return figures(postgres.measure(way))["pg_replication_lag_seconds"][0][1]


def _deadlock(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
    from threading import Thread

    def lock(line: psycopg.Connection[Any], first: int, second: int) -> None:
        try:
            with line.transaction():
                line.execute("UPDATE booking SET amount = amount WHERE person = %s", [first])
                time.sleep(0.3)
                line.execute("UPDATE booking SET amount = amount WHERE person = %s", [second])
        except psycopg.errors.DeadlockDetected:
            pass

    threads = [Thread(target=lock, args=(one, 1, 2)), Thread(target=lock, args=(other, 2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_metric_asks_the_replica_and_cannot_write_to_the_primary(pair: tuple[Postgres, Postgres]) -> None:
    primary, replica = pair
    query = "SELECT clinic, sum(amount) AS value, count(DISTINCT person) AS people FROM booking GROUP BY clinic"
    wait_for(lambda: postgres.ask(access(replica), query, most=10)[1])
    source = _source("second", replica)
    made = BusinessMetric(name="paid", source=source, query=query, size_column="people")
    found, problem = measured.try_metric(
        by=ADMIN, metric=measured.save_business_metric(by=ADMIN, metric=made, now=timezone.now())
    )
    assert problem == ""
    assert found is not None
    assert ([(group.labels, group.value) for group in found.groups], found.omitted) == (
        [({"clinic": "north"}, 780.0)],
        1,
    )
    made.source = _source("main", primary, user="owner")
    made.query = "SELECT nextval('counted') AS value, 9 AS people"
    with primary.connect() as line:
        line.execute("CREATE SEQUENCE counted")
    assert "read-only" in measured.try_metric(by=ADMIN, metric=made)[1]
    made.query = "SELECT 7 AS value, 9 AS people, lo_create(0)::text AS a"  # PostgreSQL 15 lets it through
    measured.try_metric(by=ADMIN, metric=made)
    with primary.connect() as line:
        assert line.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)


def _source(name: str, server: Postgres, user: str = "watcher") -> DataSource:
    source = DataSource(name=name, address=server.address, database="postgres", user=user,
                        timeout=timedelta(seconds=2))  # fmt: skip
    return measured.save_data_source(by=ADMIN, source=source, password="hidden-word", now=timezone.now())


class House:
    """The shipped rules about databases, evaluated as often as a test wants."""

    def __init__(self) -> None:
        rows = yaml.safe_load((settings.BASE_DIR / "fixtures/alert_rules.yaml").read_text())
        for row in rows:
            if row["slug"] in ("database-server-down", "replica-disconnected"):
                quick = {**row, "pending_period": 0, "interval": 1, "group": "quick", "tests": []}
                alerting.ship_rule(quick, by=BY, now=timezone.now())

    def firing(self) -> set[tuple[str, str]]:
        """Measure and judge; return (rule, server) of what fires."""
        now = timezone.now()
        DataSource.objects.update(due_at=now)
        measuring.rounds_of(8).run(now=now)
        evaluation.evaluate(now=timezone.now())
        alerts = Alert.objects.filter(state="firing")
        return {(alert.rule.slug, alert.labels["server"]) for alert in alerts if alert.rule}


def test_the_shipped_rules_tell_a_stopped_primary_and_a_stopped_replica(pair: tuple[Postgres, Postgres]) -> None:
    primary, replica = pair
    _source("main", primary)
    _source("second", replica)
    house = House()
    assert house.firing() == set()
    primary.stop()
    wait_for(lambda: house.firing() == {("database-server-down", "main"), ("replica-disconnected", "second")})
    primary.start()
    wait_for(lambda: house.firing() == set(), 60)
    replica.stop()
    wait_for(lambda: house.firing() == {("database-server-down", "second")})
    replica.start()
    wait_for(lambda: house.firing() == set(), 60)


def test_a_valkey_tells_of_its_replica_and_the_replica_of_its_primary(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with valkey(tmp_path / "b", "--masterauth", "hidden-word") as second:
        with valkey(tmp_path / "a") as first:
            client.Redis(port=second, password="hidden-word").replicaof("127.0.0.1", first)
            line = client.Redis(port=first, password="hidden-word")
            line.set("a", 1)
            line.get("a")
            line.get("b")
            here, there = (Access(f"127.0.0.1:{port}", password="hidden-word") for port in (first, second))
            wait_for(lambda: figures(redis.measure(there))["redis_master_link_up"] == [({}, 1.0)])
            found = wait_for(
                lambda: (got := figures(redis.measure(here))).get("redis_connected_slave_lag_seconds") and got
            )
            assert found["redis_keyspace_hits_total"] == found["redis_keyspace_misses_total"] == [({}, 1.0)]
            assert found["redis_connected_slaves"] == [({}, 1.0)]
        wait_for(lambda: figures(redis.measure(there))["redis_master_link_up"] == [({}, 0.0)])
