"""The store of samples, measured whole: ingest, compaction, vacuum and reads, beside one row per sample.

`./portal bench store`, or `python -m benchmarks.store`. Starts a PostgreSQL of its own with the portal's settings
(fsync on). CPU counts this process and every process of the server, so compaction and vacuum are in the figures.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from monitoring_portal import embedded

HOSTS = 100
PER_HOST = 100
STEP_MS = 30_000
START = datetime(2026, 10, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
RIGHTS_OF = "benchmarks.store"


@contextmanager
def server() -> Iterator[int]:
    """A throw-away PostgreSQL as the portal starts it; gives its process id."""
    folder = Path(tempfile.mkdtemp(prefix="portal-bench-"))
    folder.chmod(0o711)
    postgres = embedded.Postgres(folder, folder / "s", log=folder / "postgres.log")
    postgres.prepare()
    process = postgres.start()
    try:
        embedded.wait_ready(postgres, process)
        os.environ["DATABASE_URL"] = postgres.url
        os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:1/0")
        os.environ.setdefault("SECRET_KEY", "benchmark-" + "x" * 50)
        os.environ["DJANGO_SETTINGS_MODULE"] = "monitoring_portal.settings"
        yield process.pid
    finally:
        from django.db import connections

        connections.close_all()
        embedded.stop(process, embedded.Postgres.stop_signal, 20)
        shutil.rmtree(folder, ignore_errors=True)


class Cpu:
    """CPU-seconds of this process and of the server since the last look."""

    def __init__(self, server_pid: int) -> None:
        self.server = psutil.Process(server_pid)
        self.last = self._now()

    def _now(self) -> tuple[float, float]:
        own = self.server.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in self.server.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return time.process_time(), total

    def lap(self) -> tuple[float, float]:
        """(client, server) since the last lap."""
        now, before = self._now(), self.last
        self.last = now
        return now[0] - before[0], now[1] - before[1]


def values(steps: int, seed: int = 7) -> np.ndarray[Any, Any]:
    """float64[steps, 10,000]: per host 66 counters, 27 gauges (10 of full precision) and 7 constants."""
    rng = np.random.default_rng(seed)
    out = np.empty((steps, HOSTS, PER_HOST))
    counters = rng.poisson(rng.uniform(0.2, 200, (HOSTS, 56)), (steps, HOSTS, 56))
    out[:, :, :56] = np.cumsum(counters, axis=0) + rng.integers(0, 10**6, (HOSTS, 56))
    out[:, :, 56:66] = np.cumsum(np.round(rng.exponential(3.0, (steps, HOSTS, 10)), 2), axis=0)
    out[:, :, 66:76] = np.cumsum(rng.standard_normal((steps, HOSTS, 10)), axis=0) + 50
    out[:, :, 76:86] = np.round(np.clip(np.cumsum(rng.standard_normal((steps, HOSTS, 10)), axis=0) + 50, 0, 100), 1)
    out[:, :, 86:93] = 4096.0 * np.cumsum(rng.integers(-200, 200, (steps, HOSTS, 7)), axis=0) + 2**31
    out[:, :, 93:] = rng.integers(1, 64, (HOSTS, 7))
    return out.reshape(steps, HOSTS * PER_HOST)


def label_sets(prefix: str, hosts: int = HOSTS) -> list[dict[str, str]]:
    return [
        {"__name__": f"{prefix}_{n}", "instance": f"host-{host}:9100", "job": "node", "zone": f"z{host % 4}"}
        for host in range(hosts)
        for n in range(PER_HOST)
    ]


def baseline(cpu: Cpu, data: np.ndarray[Any, Any], size: int) -> tuple[float, float, float]:
    """One row per sample by binary COPY, `size` rows a transaction: (client s/M, server s/M, bytes a sample)."""
    import psycopg
    from django.db import connection

    with connection.cursor() as setup:
        setup.execute("CREATE TABLE naive (series int8, ts int8, v float8, PRIMARY KEY (series, ts))")
    raw = connection.connection
    count = 0
    cpu.lap()
    for step in range(min(len(data), 50)):
        rows = list(enumerate(data[step].tolist()))
        for begin in range(0, len(rows), size):
            with (
                raw.transaction(),
                psycopg.Cursor(raw) as cursor,
                cursor.copy("COPY naive FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(["int8", "int8", "float8"])
                for series, value in rows[begin : begin + size]:
                    copy.write_row((series, START_MS + step * STEP_MS, value))
        count += len(rows)
    client, at_server = cpu.lap()
    with connection.cursor() as after:
        after.execute("SELECT pg_total_relation_size('naive')")
        stored = int((after.fetchone() or (0,))[0])
        after.execute("DROP TABLE naive")
    return client / count * 1e6, at_server / count * 1e6, stored / count


def timed(body: Callable[[], Any], times: int, before: Callable[[], Any] = lambda: None) -> tuple[float, float]:
    """(median, best) in ms."""
    taken = []
    for _ in range(times):
        before()
        start = time.perf_counter()
        body()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken), min(taken)


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=240, help="rounds of 10,000 samples (240: two hours)")
    parser.add_argument("--batch", type=int, default=5_000, help="samples an ingest")
    options = parser.parse_args()
    with server() as pid:
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        measure(Cpu(pid), options.steps, options.batch)


def measure(cpu: Cpu, steps: int, batch: int) -> None:
    from django.db import connection

    from apps.accounts.permissions import Principal
    from apps.metrics import compaction, query, services, storage
    from apps.metrics.samples import Samples
    from apps.promql.source import Matcher

    by = Principal.system(RIGHTS_OF)
    data = values(steps)
    labels = label_sets("bench")
    body = b"".join(text := ["\xff".join(f"{k}={v}" for k, v in one.items()).encode() for one in labels])
    edges = np.cumsum([0, *map(len, text)]).tolist()
    spans = list(pairwise(edges))
    total = data.size

    naive_client, naive_server, naive_bytes = baseline(cpu, data, batch)

    def merge(now: datetime) -> None:
        for due in compaction.due_windows(now):
            compaction.merge_window(due=due, now=now)

    now = START
    services.ingest(samples=Samples(text, labels.__getitem__, np.full(10_000, START_MS - 1), data[0]), by=by, now=now)
    parts = {"ingest": [0.0, 0.0], "level 0": [0.0, 0.0], "level 1": [0.0, 0.0], "vacuum": [0.0, 0.0]}

    def charge(name: str) -> None:
        for index, seconds in enumerate(cpu.lap()):
            parts[name][index] += seconds

    cpu.lap()
    wall = time.perf_counter()
    for step in range(steps):
        now = START + timedelta(milliseconds=step * STEP_MS)
        for begin in range(0, 10_000, batch):
            part = slice(begin, begin + batch)
            mine = [body[a:b] for a, b in spans[part]]  # as a protocol cuts label bytes out of a request
            samples = Samples(mine, labels.__getitem__, np.full(len(mine), START_MS + step * STEP_MS), data[step, part])
            services.ingest(samples=samples, by=by, now=now)
        if step % 100 == 99:
            charge("ingest")
            compaction.compact_log(now=now)
            charge("level 0")
    charge("ingest")
    wall_ingest = time.perf_counter() - wall
    young = timed(lambda: query.select([Matcher("__name__", "=", "bench_70")], 0, 2**60), 5)
    cpu.lap()
    compaction.compact_log(now=now)
    charge("level 0")
    merge(now + timedelta(hours=3))
    charge("level 1")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM metrics_batch")
        cursor.execute("VACUUM metrics_block")
    charge("vacuum")
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(length(directory) + length(payload)), sum(samples), count(*) FROM metrics_block")
        stored, kept, rows = cursor.fetchone() or (0, 1, 0)

    everything = [Matcher("__name__", "=~", "bench_.*")]
    got = query.select(everything, 0, 2**60)
    assert (len(got.ts), got.size) == (kept, 10_000)
    cold = timed(lambda: query.select(everything, 0, 2**60), 7, storage.forget)

    long = label_sets("long", 10)
    hours = 14 * 3600 * 1000 // STEP_MS
    drift = np.cumsum(np.random.default_rng(3).standard_normal((hours, len(long))), axis=0).round(2)
    for step in range(hours):
        stamp = START_MS + step * STEP_MS
        at = datetime.fromtimestamp(stamp / 1000, tz=UTC)
        services.ingest(samples=Samples.of(long, np.full(len(long), stamp), drift[step]), by=by, now=at)
        if step % 240 == 239:
            compaction.compact_log(now=at)
    compaction.compact_log(now=at)
    merge(at + timedelta(hours=3))
    one = [Matcher("__name__", "=", "long_5"), Matcher("instance", "=", "host-3:9100")]
    assert query.select(one, 0, 2**60).counts.tolist() == [hours]
    one_cold = timed(lambda: query.select(one, 0, 2**60), 9, storage.forget)
    one_warm = timed(lambda: query.select(one, 0, 2**60), 30)
    ten = [Matcher("__name__", "=~", "long_.*"), Matcher("instance", "=", "host-3:9100")]
    ten_warm = timed(lambda: query.select(ten, 0, 2**60), 15)

    print(f"\n{total:,} samples, 10,000 series at 30 s, {batch:,} an ingest, {os.cpu_count()} CPUs, unpaced\n")
    print(f"{'CPU-seconds a million samples':34} {'client':>8} {'server':>8} {'sum':>8}")
    whole = [0.0, 0.0]
    for name, (client, at_server) in parts.items():
        whole = [whole[0] + client, whole[1] + at_server]
        print(f"  {name:32} {_per(client, total)} {_per(at_server, total)} {_per(client + at_server, total)}")
    print(f"  {'the store, all of it':32} {_per(whole[0], total)} {_per(whole[1], total)} {_per(sum(whole), total)}")
    print(
        f"  {'one row per sample (COPY)':32} {naive_client:8.2f} {naive_server:8.2f} {naive_client + naive_server:8.2f}"
    )
    print(f"  ratio {(naive_client + naive_server) / (sum(whole) / total * 1e6):.1f}; goal of the store: 1.0")
    print(f"\nbytes a sample: {stored / kept:.2f} in {rows} blocks; one row per sample {naive_bytes:.1f}")
    print(f"samples a second, one client, level 0 in between: {total / wall_ingest:,.0f}")
    print("\nread into arrays                        median   best (ms)")
    for name, (median, best) in {
        f"{kept / 1e6:.1f} M samples of 10,000 series": cold,
        "100 series, young rows (cached)": young,
        "one series, 14 h, nothing cached": one_cold,
        "one series, 14 h, cached": one_warm,
        "100 series, 14 h, cached": ten_warm,
    }.items():
        print(f"  {name:36} {median:8.1f} {best:8.1f}")


def _per(seconds: float, samples: int) -> str:
    return f"{seconds / samples * 1e6:8.3f}"


if __name__ == "__main__":
    main()
