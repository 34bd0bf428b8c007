"""What pushing costs, protocol by protocol, in one run: remote write 2.0 against 1.0, OTLP, StatsD with what it loses.

`./portal bench push`, or `python -m benchmarks.push`. The same samples as requests of 2,000, read and stored in a
PostgreSQL of its own; CPU is this process's alone for reading, and both for storing. StatsD packets come from another
process at a steady 50,000 a second, then as fast as it can.
"""

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.store import Cpu, server

SERIES: Final = 10_000
REQUEST: Final = 2_000
ROUNDS: Final = 10
OTLP_LIMIT: Final = 6.0
"""Microseconds of a data point of a number, read and stored."""
RATE: Final = 50_000
"""StatsD packets a second."""
STATSD_SERIES: Final = 500

SENDER: Final = """
import socket, sys, time
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.1", port))
packets = [b"web.hits:%d|c|#route:/api/%d,method:GET" % (1 + n % 7, n % {series}) for n in range(5000)]
begun, sent = time.perf_counter(), 0
while time.perf_counter() - begun < seconds:
    due = int((time.perf_counter() - begun) * rate) if rate else sent + 1000
    if due <= sent:
        time.sleep(0.0005)
        continue
    for number in range(sent, min(due, sent + 1000)):
        out.send(packets[number % 5000])
        sent += 1
print(sent, time.perf_counter() - begun)
"""


def labels_of(number: int) -> dict[str, str]:
    return {
        "__name__": f"bench_requests_{number // 100}_total",
        "instance": "10.0.0.1:9100",
        "job": "api",
        "method": "GET",
        "route": f"/api/v1/things/{number % 100}",
    }


def remote_write(ms: int) -> list[bytes]:
    from tests.metrics import remote_write as one

    return [
        one.packed(*(one.series(labels_of(n), [(ms, n + 0.5)]) for n in range(begin, begin + REQUEST)))
        for begin in range(0, SERIES, REQUEST)
    ]


def remote_write_2(ms: int) -> list[bytes]:
    from tests.metrics.remote_write_2 import Message, packed

    bodies = []
    for begin in range(0, SERIES, REQUEST):
        message = Message()
        for n in range(begin, begin + REQUEST):
            message.series(labels_of(n), [(ms, n + 0.5)], (1, f"Requests of kind {n // 100}.", ""))
        bodies.append(packed(message.body))
    return bodies


def otlp_sums(ms: int, *, temporality: int = 2) -> list[bytes]:
    from tests.metrics.otlp import point, protobuf, request, total

    start = ms - 15_000 if temporality == 1 else ms - 3_600_000
    bodies = []
    for begin in range(0, SERIES // 100, REQUEST // 100):
        metrics = [
            total(
                f"bench.otlp.{temporality}.{m}",
                *(point(ms, n * 3, start, route=f"/api/v1/things/{n}", method="GET", code=200) for n in range(100)),
                unit="By",
                temporality=temporality,
            )
            for m in range(begin, begin + REQUEST // 100)
        ]
        bodies.append(protobuf(request(*metrics)))
    return bodies


def otlp_histograms(ms: int) -> list[bytes]:
    from tests.metrics.otlp import histogram, point, protobuf, request

    shape = {"count": "40", "sum": 3.5, "bucketCounts": ["3"] * 15, "explicitBounds": [n / 4 for n in range(14)]}
    points = [point(ms, start=ms - 3_600_000, route=f"/api/{n}") | shape for n in range(100)]
    return [protobuf(request(*(histogram(f"bench.took.{m}", *points, unit="s") for m in range(6))))]


class Sender:
    """Posts requests as the fast lane does."""

    def __init__(self) -> None:
        from apps.accounts.permissions import Principal

        self.by = Principal.system("benchmarks.push")

    def post(self, serve: Callable[[Any, Any], Any], body: bytes, kind: bytes) -> None:
        from apps.core.lanes import Request

        said = serve(self.by, Request("POST", "/", body=body, headers=((b"content-type", kind),)))
        assert said.status in (200, 204), said.body


def stored(
    what: str, serve: Callable[[Any, Any], Any], made: Callable[[int], list[bytes]], kind: bytes, count: int, cpu: Cpu
) -> float:
    """Send rounds 15 s apart; print and return what a point of a known series costs: microseconds of this process."""
    sender = Sender()
    ms = int(time.time() * 1000) - ROUNDS * 15_000
    rounds = [made(ms + n * 15_000) for n in range(ROUNDS)]
    for body in rounds[0] + rounds[1]:
        sender.post(serve, body, kind)
    cpu.lap()
    begun = time.perf_counter()
    for bodies in rounds[2:]:
        for body in bodies:
            sender.post(serve, body, kind)
    wall = time.perf_counter() - begun
    client, at_server = cpu.lap()
    points = count * (ROUNDS - 2)
    cost = client / points * 1e6
    size = sum(map(len, rounds[2])) / count
    print(
        f"{what:44} {cost:6.2f} µs here + {at_server / points * 1e6:5.2f} µs in PostgreSQL a point"
        f"  ({points / wall:9,.0f}/s, {size:5.1f} bytes)",
        flush=True,
    )
    return cost


def statsd(rate: int, seconds: float, cpu: Cpu) -> float:
    """Receive packets of another process; print and return the share that was lost."""
    from django.utils import timezone

    from apps.metrics import statsd_server

    listening = statsd_server.listen("127.0.0.1:0")
    made = statsd_server.Server(listening)
    received, dropped = statsd_server.PACKETS.value(), statsd_server.DROPPED.value()
    made.start()
    cpu.lap()
    text = SENDER.replace("{series}", str(STATSD_SERIES))
    arguments = [sys.executable, "-c", text, str(listening.getsockname()[1]), str(rate), str(seconds)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as sender:
        flushes = 0
        while sender.poll() is None:
            time.sleep(0.2)
            flushes += 1
            if flushes % 10 == 0:
                made.flush(now=timezone.now())
        out, _ = sender.communicate()
    sent, taken = int(out.split()[0]), float(out.split()[1])
    time.sleep(0.7)
    made.flush(now=timezone.now())
    made.stopping.set()
    client, _ = cpu.lap()
    got, lost = statsd_server.PACKETS.value() - received, statsd_server.DROPPED.value() - dropped
    buffer = listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    listening.close()
    print(
        f"StatsD {sent / taken:9,.0f} packets/s sent, {got / taken:9,.0f}/s taken, {lost / sent:7.3%} lost and counted"
        f"  ({client / got * 1e6:4.2f} µs a packet, buffer {buffer / 1e6:.1f} MB, uncounted {sent - got - lost:,.0f})",
        flush=True,
    )
    return lost / sent


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of StatsD, at each rate")
    options = parser.parse_args(argv)
    with server() as pid:
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        from apps.metrics import otlp_api, write_api

        cpu = Cpu(pid)
        one, two = b"application/x-protobuf", b"application/x-protobuf;proto=io.prometheus.write.v2.Request"
        first = stored("remote write 1.0", write_api.write, remote_write, one, SERIES, cpu)
        second = stored("remote write 2.0, with metadata", write_api.write, remote_write_2, two, SERIES, cpu)
        print(f"    2.0 against 1.0: {second / first:.2f}")
        cost = stored("OTLP, cumulative sums", otlp_api.take, otlp_sums, one, SERIES, cpu)
        print(
            f"    limit {OTLP_LIMIT} µs: {'kept' if cost <= OTLP_LIMIT else 'BROKEN'}; against 1.0: {cost / first:.2f}"
        )
        deltas: Callable[[int], list[bytes]] = lambda ms: otlp_sums(ms, temporality=1)  # noqa: E731
        stored("OTLP, delta sums", otlp_api.take, deltas, one, SERIES, cpu)
        stored("OTLP, histograms of 17 series each", otlp_api.take, otlp_histograms, one, 600, cpu)
        statsd(RATE, options.seconds, cpu)
        statsd(0, options.seconds, cpu)


if __name__ == "__main__":
    main()
