"""Shipped rules of databases and caches, seen firing and ending by faults of real servers.

A stopped primary and a stopped replica are in tests/sources/test_replication.py.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from apps.metrics.collectors import postgres as own
from apps.sources import measured
from apps.sources.models import BusinessMetric, DataSource
from tests.faults.watch import Watch, waited_since
from tests.sources.conftest import ADMIN
from tests.sources.servers import BIN, Postgres, deadlock, postgres, valkey

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not (BIN / "postgres").exists(), reason="needs Debian's PostgreSQL 15"),
]


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    folder = tmp_path_factory.mktemp("server")
    folder.chmod(0o755)
    with postgres(folder) as server:
        yield server


def source(watch: Watch, name: str, address: str, kind: str = "postgres") -> DataSource:
    made = DataSource(name=name, kind=kind, address=address, timeout=timedelta(seconds=3))
    if kind == "postgres":
        made.database, made.user = "postgres", "watcher"
    return measured.save_data_source(by=ADMIN, source=made, password="hidden-word", now=watch.now)


@contextlib.contextmanager
def held(server: Postgres, number: int) -> Iterator[None]:
    """So many connections that nobody closes."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(contextlib.closing(server.connect()))
        yield


def test_two_sessions_that_wait_for_each_other_are_a_deadlock(primary: Postgres) -> None:
    watch = Watch("deadlocks")
    source(watch, "main", primary.address)
    watch.passes(30)
    with primary.connect() as one, primary.connect() as other:
        deadlock(one, other)
    alert = watch.fires("deadlocks", "warning", within=120, each=lambda: time.sleep(0.2))  # statistics come late
    assert (alert.labels["server"], alert.labels["datname"]) == ("main", "postgres")
    watch.resolves("deadlocks", within=720, pace=60)


def test_connections_that_nobody_closes_use_a_server_up(primary: Postgres) -> None:
    watch = Watch("server-connections")
    source(watch, "main", primary.address)
    watch.passes(30)
    assert watch.firing() == {}
    with held(primary, 16):
        alert = watch.fires("server-connections", "warning", within=120)
        assert waited_since(alert).total_seconds() >= 60
    watch.resolves("server-connections", within=60)


def test_the_portals_own_database_is_used_up(primary: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its collector looks at another server: to use up the test's own would fail all other tests."""
    with primary.connect() as line:
        monkeypatch.setattr(own, "connection", line)
        monkeypatch.setattr(own, "transaction", SimpleNamespace(atomic=line.transaction))
        watch = Watch("database-connections", collectors=("postgres",))
        watch.passes(45)
        assert watch.firing() == {}
        with held(primary, 16):
            watch.fires("database-connections", "warning", within=150)
        watch.resolves("database-connections", within=60)


def test_a_replica_whose_replay_is_paused_falls_behind_and_its_slot_is_unread(
    tmp_path: Path, primary: Postgres
) -> None:
    tmp_path.chmod(0o755)
    replica = Postgres(tmp_path / "replica")
    replica.copy_of(primary)
    replica.start()
    try:
        watch = Watch("replication-lag", "replica-disconnected", "replication-slot-unread")
        source(watch, "main", primary.address)
        source(watch, "second", replica.address)
        watch.passes(30, lambda: time.sleep(0.3))
        assert watch.firing() == {}
        with replica.connect() as there, primary.connect() as here:
            there.execute("SELECT pg_wal_replay_pause()")
            here.execute("INSERT INTO booking SELECT 'late', 1, n FROM generate_series(1, 1000) n")
            time.sleep(30.5)  # the servers' own clocks say how far behind it is
            alert = watch.fires("replication-lag", "warning", within=180)
            assert alert.labels["server"] == "second"
            assert waited_since(alert).total_seconds() >= 120
            there.execute("SELECT pg_wal_replay_resume()")
            watch.resolves("replication-lag", within=120, each=lambda: time.sleep(0.3))
        replica.stop()
        alert = watch.fires("replication-slot-unread", "warning", within=700)
        assert alert.labels["slot_name"] == "second"
        replica.start()
        watch.resolves("replication-slot-unread", within=120, each=lambda: time.sleep(0.5))
    finally:
        replica.stop()


def test_a_query_whose_table_is_gone_gives_no_figures(primary: Postgres) -> None:
    watch = Watch("business-metric-failing")
    there = source(watch, "main", primary.address)
    query = "SELECT clinic, sum(amount) AS value, count(*) AS people FROM booking GROUP BY clinic"
    made = BusinessMetric(name="paid", source=there, query=query, size_column="people", timeout=timedelta(seconds=2))
    measured.save_business_metric(by=ADMIN, metric=made, now=watch.now)
    watch.passes(30)
    with primary.connect() as line:
        line.execute("ALTER TABLE booking RENAME TO bookings")
        try:
            alert = watch.fires("business-metric-failing", "warning", within=960)
            assert waited_since(alert).total_seconds() >= 900
        finally:
            line.execute("ALTER TABLE bookings RENAME TO booking")
    watch.resolves("business-metric-failing", within=30)


def test_a_valkey_that_is_full_used_up_and_gone(tmp_path: Path) -> None:
    watch = Watch("redis-memory", "server-connections", "database-server-down")
    limits = ("--maxmemory", "8mb", "--maxmemory-policy", "noeviction", "--maxclients", "40")
    with valkey(tmp_path, *limits) as port:
        source(watch, "cache", f"127.0.0.1:{port}", kind="redis")
        watch.passes(30)
        assert watch.firing() == {}
        client = redis.Redis(port=port, password="hidden-word")
        number = 0
        while int(client.info("memory")["used_memory"]) < 7_700_000:
            client.set(f"key{number}", bytes(20_000))
            number += 1
        alert = watch.fires("redis-memory", "warning", within=420)
        assert waited_since(alert).total_seconds() >= 300
        client.flushall()
        watch.resolves("redis-memory", within=60)
        with contextlib.ExitStack() as stack:
            for _ in range(33):
                other = stack.enter_context(contextlib.closing(redis.Redis(port=port, password="hidden-word")))
                other.ping()
            assert watch.fires("server-connections", "warning", within=120).labels["server"] == "cache"
        watch.resolves("server-connections", within=60)
        client.close()
    assert watch.fires("database-server-down", "critical", within=120).labels["server"] == "cache"
    with valkey(tmp_path, port=port):
        watch.resolves("database-server-down", within=60)


def test_a_cache_that_throws_out_what_is_old_is_no_fault(tmp_path: Path) -> None:
    watch = Watch("redis-memory")
    with valkey(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru") as port:
        source(watch, "cache", f"127.0.0.1:{port}", kind="redis")
        client = redis.Redis(port=port, password="hidden-word")
        keys = iter(range(1_000_000))

        def write() -> None:
            for _ in range(200):
                client.set(f"key{next(keys)}", bytes(20_000))

        write()
        watch.passes(420, write)
        assert int(client.info("stats")["evicted_keys"]) > 1000
        assert watch.firing() == {}
        client.close()
