"""Scraping: what a sample costs to read and to store, and a portal beside a Prometheus that ask the same targets.

`./portal bench scrape`, or `python -m benchmarks.scrape`. Three parts, each with what it is compared with:

1. reading an exposition of 10,000 series whose lines are known, beside the reference parser;
2. all in: a target of 10,000 series is fetched over HTTP, read, labelled and stored, again and again; CPU of the
   scraping process and of its PostgreSQL backend;
3. a running portal and a Prometheus ask 500 targets of 500 series every 30 s at the same time; CPU of either's whole
   tree of processes, less what it needs without targets (`--targets`, `--series`, `--seconds` change it).
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil

from benchmarks.ingest import Peer, cpu_of, free_port
from benchmarks.promql import TOKEN, Client, use_database
from monitoring_portal.testing import Portal

LARGE: Final = 10_000
VARIANTS: Final = 8
KEY: Final = "benchmark-" + "x" * 50
ROUNDS: Final = 12
PARSE_LIMIT, ALL_IN_LIMIT = 1.5, 3.0
"""Microseconds a sample."""


# --- Targets --------------------------------------------------------------------------------------------------------


def body(series: int, seed: int) -> bytes:
    """Counters as services show them, some hundred bytes a line; the seed changes every value."""
    numbers = random.Random(seed)
    lines = []
    for n in range(series):
        if n % 50 == 0:
            name = f"http_requests_{n // 50:03}_total"
            lines += [f"# HELP {name} Requests that were served.", f"# TYPE {name} counter"]
        labels = f'method="GET",handler="/api/v1/things/{n % 50}",code="200",zone="eu-central-{n % 3}"'
        lines.append(f"{name}{{{labels}}} {numbers.random() * 1e6:.3f}")
    return ("\n".join(lines) + "\n").encode()


class _Shown(asyncio.Protocol):
    """Answers every request with the next variant of one body; costs next to nothing."""

    answers: Sequence[bytes] = ()
    count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            _Shown.count += 1
            self.transport.write(self.answers[_Shown.count // 500 % VARIANTS])


def _serve(series: int, port: int, ready: Connection) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n"
    bodies = [body(series, seed) for seed in range(VARIANTS)]
    _Shown.answers = [head % len(one) + one for one in bodies]

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Shown, "127.0.0.1", port, backlog=1024)
        ready.send(True)
        await server.serve_forever()

    asyncio.run(run())


class Targets:
    """A process that shows metrics."""

    def __init__(self, series: int) -> None:
        self.port = free_port()
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(series, self.port, there), daemon=True)
        self._process.start()
        here.recv()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


# --- 1 and 2 --------------------------------------------------------------------------------------------------------


def reading() -> None:
    """Part 1."""
    from prometheus_client.parser import text_string_to_metric_families

    from apps.metrics.protocols.exposition import Reader

    reader, bodies = Reader(), [body(LARGE, seed) for seed in range(VARIANTS)]
    began = time.perf_counter()
    reader.read(bodies[0])
    first = time.perf_counter() - began
    took = []
    for number in range(ROUNDS * 2):
        began = time.perf_counter()
        reader.read(bodies[number % VARIANTS])
        took.append(time.perf_counter() - began)
    began = time.perf_counter()
    sum(len(family.samples) for family in text_string_to_metric_families(bodies[1].decode()))
    theirs = time.perf_counter() - began
    ours = sorted(took)[len(took) // 2]
    print(f"reading {LARGE} series, us a sample: {1e6 * ours / LARGE:.2f} known (limit {PARSE_LIMIT}), ", end="")
    print(f"{1e6 * first / LARGE:.1f} the first time; reference parser {1e6 * theirs / LARGE:.1f}, ", end="")
    print(f"ratio {ours / theirs:.3f}")


def all_in(portal: Portal) -> None:
    """Part 2, in this process, into the portal's store."""
    from django.db import connection
    from django.utils import timezone

    from apps.accounts.permissions import Principal
    from apps.sources import services
    from apps.sources.models import ScrapeJob, ScrapeTarget
    from apps.sources.scraping import Scraper

    targets = Targets(LARGE)
    by = Principal.system("benchmark")
    every = timedelta(days=1)
    job = ScrapeJob(name="large", interval=every, targets=[{"targets": [targets.address]}], sample_limit=LARGE)
    scraper = Scraper(threads=1)
    # Far from now, so that the portal's own scraper leaves it to this one.
    soon = timezone.now()
    services.save_job(by=by, job=job, now=soon + timedelta(hours=12))
    own, theirs, wall = [], [], []
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = psutil.Process(cursor.fetchone()[0])
    for number in range(ROUNDS):
        ScrapeTarget.objects.update(due_at=soon + timedelta(hours=12))
        before, at = backend.cpu_times(), time.perf_counter()
        cpu = time.process_time()
        due = scraper.claim(until=soon + timedelta(hours=13), now=timezone.now())
        visits = [scraper.visit(one) for one in due]
        scraper._store(visits, timezone.now())  # noqa: SLF001
        if number > 1:
            after = backend.cpu_times()
            own.append(time.process_time() - cpu)
            wall.append(time.perf_counter() - at)
            theirs.append(after.user + after.system - before.user - before.system)
    row = ScrapeTarget.objects.get(job=job)
    if row.health != "up" or row.kept != LARGE:
        raise SystemExit(f"The large target was not scraped: {row.health} {row.error}")
    ours, server = sorted(own)[len(own) // 2], sum(theirs) / len(theirs)
    print(
        f"all in, {LARGE} series fetched, read, labelled, stored; us of CPU a sample: {1e6 * ours / LARGE:.2f} here "
        f"+ {1e6 * server / LARGE:.2f} PostgreSQL = {1e6 * (ours + server) / LARGE:.2f} (limit {ALL_IN_LIMIT}); "
        f"{1e6 * sorted(wall)[len(wall) // 2] / LARGE:.2f} by the clock"
    )
    services.delete_job(by=by, job=job, now=timezone.now())
    ScrapeTarget.objects.all().delete()
    targets.stop()


# --- 3 --------------------------------------------------------------------------------------------------------------


def side_by_side(portal: Portal, folder: Path, count: int, series: int, seconds: float) -> None:
    """Part 3."""
    from django.utils import timezone

    from apps.accounts.permissions import Principal
    from apps.sources import services
    from apps.sources.models import ScrapeJob

    targets = Targets(series)
    groups = [
        {
            "targets": [targets.address],
            "labels": {"instance": f"host-{n:04}.example.internal:9100", "__metrics_path__": f"/metrics/{n}"},
        }
        for n in range(count)
    ]
    trees = {"ours": portal.pids["supervisor"]}
    peer = _prometheus(folder, groups)
    if peer is not None:
        trees["prom"] = peer.pid
    idle = _cores(trees, 15.0)
    services.save_job(by=Principal.system("benchmark"), job=ScrapeJob(name="many", targets=groups), now=timezone.now())
    if peer is not None:
        (folder / "prom" / "targets.yml").write_text(_yaml(groups))
    time.sleep(45)  # every target is asked once, and its series are made
    with_load = _cores(trees, seconds)
    samples = count * series / 30
    asked = _count(portal.url, 'sum(up{job="many"})')
    late = _count(portal.url, "sum(portal_scrapes_late_total)")
    if asked < count:
        raise SystemExit(f"Only {asked:.0f} of {count} targets are up: the figures would be of something else.")
    print(f"{count} targets of {series} series every 30 s ({samples:.0f} samples a second), {asked:.0f} of them up:")
    used = {}
    for name in trees:
        used[name] = with_load[name] - idle[name]
        print(
            f"  {name}: {used[name]:.3f} cores more than the {idle[name]:.3f} without targets "
            f"= {1e6 * used[name] / samples:.1f} us of CPU a sample, everything included"
        )
    if "prom" in used:
        print(f"  ratio ours / Prometheus {used['ours'] / max(used['prom'], 1e-6):.2f}; scrapes begun late: {late:.0f}")
        peer.stop()  # type: ignore[union-attr]
    targets.stop()


def _cores(trees: dict[str, int], seconds: float) -> dict[str, float]:
    before = {name: cpu_of(pid) for name, pid in trees.items()}
    time.sleep(seconds)
    return {name: (cpu_of(pid) - before[name]) / seconds for name, pid in trees.items()}


def _count(url: str, query: str) -> float:
    import orjson

    status, answer = Client(url).ask(f"/api/v1/query?query={quote(query)}")
    rows = orjson.loads(answer)["data"]["result"] if status == 200 else []
    return float(rows[0]["value"][1]) if rows else 0.0


def _yaml(groups: Sequence[dict[str, Any]]) -> str:
    import yaml

    return yaml.safe_dump(list(groups))


def _prometheus(folder: Path, groups: Sequence[dict[str, Any]]) -> Peer | None:
    program = shutil.which("prometheus")
    if program is None:
        print("no prometheus on PATH (Debian: prometheus)")
        return None
    own = folder / "prom"
    own.mkdir()
    (own / "targets.yml").write_text("[]\n")
    (own / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: many\n  scrape_interval: 30s\n  file_sd_configs:\n"
        f"  - {{files: ['{own}/targets.yml'], refresh_interval: 5s}}\n"
    )
    port = free_port()
    command = [
        program,
        f"--config.file={own / 'prometheus.yml'}",
        f"--storage.tsdb.path={own / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return Peer("prom", command, own / "data", f"http://127.0.0.1:{port}", own / "log")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=500)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long part 3 is measured")
    parser.add_argument("--quick", action="store_true", help="parts 1 and 2 only")
    given = parser.parse_args(argv)
    with suppress(ValueError, OSError):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], 65_536), limits[1]))
    print(f"{os.cpu_count()} cores")
    reading()
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as name:
        folder = Path(name)
        (folder / "ours").mkdir()
        portal = Portal(folder / "ours", {"MONITORING_AUTH_TOKEN": TOKEN, "SECRET_KEY": KEY})
        portal.start()
        try:
            use_database(portal.database_url, portal.redis_url)
            from monitoring_portal import celery

            celery.configure()
            all_in(portal)
            if not given.quick:
                side_by_side(portal, folder, given.targets, given.series, given.seconds)
        finally:
            portal.stop()


if __name__ == "__main__":
    main()
