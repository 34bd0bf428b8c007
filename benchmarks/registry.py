"""The registry of series at a million: making, knowing, finding, counting and deleting them.

`./portal bench registry`, or `python -m benchmarks.registry [--series N]`. Series are made by remote write requests as
a sender packs them, against a PostgreSQL of its own with the portal's settings. CPU counts this process and the server.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil

from benchmarks.store import Cpu, server

PER_METRIC = 10_000
REQUEST = 2_000
STEPS = 10


def rss() -> float:
    """Megabytes of this process."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


@contextmanager
def told(what: str, cpu: Cpu, count: int = 0) -> Iterator[None]:
    """Print what a part took: seconds of the clock, CPU of both, growth of this process."""
    before, begun = rss(), time.perf_counter()
    cpu.lap()
    yield
    taken = time.perf_counter() - begun
    client, at_server = cpu.lap()
    rate = f"  {count / taken:10,.0f}/s" if count else " " * 14
    after = rss()
    print(
        f"{what:58} {taken:8.2f} s{rate}  CPU {client:6.1f} + {at_server:6.1f} s"
        f"  {after - before:+7.0f} MB = {after:,.0f} MB",
        flush=True,
    )


def labels_of(number: int, generation: str = "") -> tuple[tuple[str, str], ...]:
    pod = number % PER_METRIC
    return (
        ("__name__", f"bench_metric_{number // PER_METRIC}"),
        ("instance", f"10.{pod >> 8 & 255}.{pod & 255}.7:9100"),
        ("job", "kubernetes-pods"),
        ("namespace", f"team-{pod % 40}"),
        ("pod", f"web-{generation}{pod:06x}-{pod * 2654435761 % 2**32:08x}"),
    )


def bodies(numbers: range, ms: int, generation: str = "") -> Iterator[tuple[int, bytes]]:
    """(series, request) of one sample each."""
    from tests.metrics import remote_write as sender

    for begin in range(numbers.start, numbers.stop, REQUEST):
        some = range(begin, min(begin + REQUEST, numbers.stop))
        yield (
            len(some),
            sender.packed(*(sender.series(labels_of(number, generation), [(ms, 1.5)]) for number in some)),
        )


class Sender:
    """Posts requests as the fast lane does, and compacts as the loop does."""

    def __init__(self) -> None:
        from apps.accounts.permissions import Principal

        self.by = Principal.system("benchmarks.registry")
        self.longest = 0.0

    def post(self, body: bytes) -> None:
        from apps.core.lanes import Request
        from apps.metrics import write_api

        begun = time.perf_counter()
        said = write_api.write(self.by, Request("POST", "/api/v1/write", body=body))
        self.longest = max(self.longest, time.perf_counter() - begun)
        assert said.status == 204, said.body

    def all(self, made: list[tuple[int, bytes]]) -> None:
        for _, body in made:
            self.post(body)


def compact() -> None:
    from django.utils import timezone

    from apps.metrics import compaction

    while compaction.compact_log(now=timezone.now()):
        pass


def make(total: int, cpu: Cpu, ms: int) -> None:
    sender = Sender()
    part = total // STEPS
    for begin in range(0, part * STEPS, part):
        made = list(bodies(range(begin, begin + part), ms))
        sender.longest = 0.0
        with told(f"{begin:,} to {begin + part:,} series made", cpu, part):
            sender.all(made)
        print(f"    longest request {sender.longest * 1000:.0f} ms")
        del made
        with told("    compacted", cpu, part):
            compact()


def known(total: int, cpu: Cpu, ms: int) -> None:
    from apps.metrics import registry

    part = min(total, 200_000)
    sender = Sender()
    made = list(bodies(range(part), ms + 15_000))
    with told(f"{part:,} samples of known series", cpu, part):
        sender.all(made)
    registry.forget()
    with told(f"the same in a process that starts anew: {part:,} looked up", cpu, part):
        sender.all(made)
    compact()


def reads(cpu: Cpu, now: Callable[[], Any]) -> None:
    from apps.accounts.permissions import EVERYTHING
    from apps.metrics import catalog, census, listing, query

    def once(what: str, body: Callable[[], Any]) -> None:
        with told(f"    {what}", cpu):
            found = body()
        print(f"      → {found}")

    with told("census", cpu):
        census.take(now=now())
    with told("census, nothing new", cpu):
        census.take(now=now())
    once("top metrics", lambda: len(census.top()))
    catalog.forget()
    one = 'count(bench_metric_1{namespace="team-3"})'

    def counted() -> Any:
        return query.instant(one, at=now(), scope=EVERYTHING).v.tolist()

    once("one metric, first time", counted)
    once("one metric, again", counted)
    once("names", lambda: len(listing.metric_names()))
    once("all series, first time (catalog load)", lambda: listing.series([()]).size)
    once("all series, again", lambda: listing.series([()]).size)
    once("values of a label of a million", lambda: len(query.label_values("pod")))


def churn(total: int, cpu: Cpu, seconds: int, now: Callable[[], Any]) -> None:
    """2,000 new series a second, and a query a second of a metric that gets them and of one that does not."""
    from apps.accounts.permissions import EVERYTHING
    from apps.metrics import query

    sender = Sender()
    ms = int(now().timestamp() * 1000)
    made = [
        body
        for second in range(seconds)
        for _, body in bodies(range(second * REQUEST, (second + 1) * REQUEST), ms, generation="b")
    ]
    taken: dict[str, list[float]] = {"write": [], "busy metric": [], "calm metric": []}
    begun = time.perf_counter()
    with told(f"{seconds} s of 2,000 new series each, unpaced", cpu, seconds * REQUEST):
        for body in made:
            for what, act in (
                ("write", lambda body=body: sender.post(body)),
                ("busy metric", lambda: query.instant("count(bench_metric_0)", at=now(), scope=EVERYTHING)),
                ("calm metric", lambda: query.instant("count(bench_metric_70)", at=now(), scope=EVERYTHING)),
            ):
                start = time.perf_counter()
                act()
                taken[what].append((time.perf_counter() - start) * 1000)
    print(f"    share of real time: {(time.perf_counter() - begun) / seconds:.0%}")
    for what, times in taken.items():
        times.sort()
        print(f"    {what:12} median {times[len(times) // 2]:6.1f} ms, longest {times[-1]:6.1f} ms")


def explosion(cpu: Cpu, now: Callable[[], Any]) -> None:
    """New labels without end from one token, far beyond its limit."""
    from apps.accounts.permissions import Principal
    from apps.accounts.rights import Quota, Right
    from apps.core.lanes import Request
    from apps.metrics import registry, write_api

    by = Principal("token", "1", "wild", frozenset({Right.INGEST}), quota=Quota(1_000))
    ms = int(now().timestamp() * 1000)
    made = list(bodies(range(200_000), ms, generation="wild"))
    statuses = set()
    with told("200,000 new series of a token that may have 1,000", cpu, 200_000):
        for _, body in made:
            statuses.add(write_api.write(by, Request("POST", "/api/v1/write", body=body)).status)
    print(f"    statuses {statuses}, {len(registry.current()):,} label sets remembered")
    with told("the same 200,000 again", cpu, 200_000):
        for _, body in made:
            write_api.write(by, Request("POST", "/api/v1/write", body=body))


def delete(cpu: Cpu, now: Callable[[], Any]) -> None:
    from apps.metrics import burial, query, services
    from apps.promql.source import Matcher

    by = Sender().by
    wanted = [[Matcher("namespace", "=", "team-3"), Matcher("__name__", "=~", "bench_metric_.*")]]
    compact()
    with told("one namespace deleted (hidden)", cpu):
        found = services.delete_series(by=by, selectors=wanted, now=now())
    print(f"    {len(found.ids):,} series")
    with told("a query of one metric while it is hidden", cpu):
        query.instant("count(bench_metric_1)", at=now())
    with told("out of the stored rows", cpu):
        left = burial.bury(now=now())
    print(f"    {left} tombstones open")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=60, help="of churn")
    options = parser.parse_args()
    with server() as pid:
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection
        from django.utils import timezone

        call_command("migrate", verbosity=0)
        from apps.metrics.models import SeriesBudget

        SeriesBudget.objects.create(series=10 * options.series, per_token=options.series, per_metric=options.series)
        cpu = Cpu(pid)
        ms = int((timezone.now() - timedelta(seconds=60)).timestamp() * 1000)
        print(f"{rss():,.0f} MB at the start")
        make(options.series, cpu, ms)
        known(options.series, cpu, ms)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_relation_size('metrics_series'), pg_indexes_size('metrics_series')")
            table, indexes = cursor.fetchone()
        print(f"series on disk: {table / options.series:.0f} B a row, {indexes / options.series:.0f} B of indexes")
        reads(cpu, timezone.now)
        churn(options.series, cpu, options.seconds, timezone.now)
        explosion(cpu, timezone.now)
        delete(cpu, timezone.now)


if __name__ == "__main__":
    main()
