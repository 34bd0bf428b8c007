"""PromQL over HTTP beside a real Prometheus: the same samples, the same requests, in one run, and the same answers.

`./portal bench promql`, or `python -m benchmarks.promql`; `prometheus` is taken from PATH. Starts a portal and a
Prometheus of its own on loopback, loads both by their ordinary ways in (ingest and compaction; remote write), checks
that the answers agree, then asks both in turns (ours, theirs, theirs, ours) over one connection each that stays open.
A ratio is the median over pairs; CPU counts the web process and PostgreSQL on our side. Evaluation times never fall on
a sample, so that the closed windows of Prometheus 2 see what left-open ones see.
"""

import argparse
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np
import psutil
from numpy.typing import NDArray

from monitoring_portal.testing import Portal
from tests.metrics.remote_write import chunk, label, packed

TOKEN: Final = "benchmark-token-of-the-portal"
STEP_MS: Final = 30_000
COUNTERS: Final = 80
GAUGES: Final = 20
IDLE: Final = 2.0
MEMORY_LIMIT: Final = 300.0
"""Megabytes by which the web process may grow for one query."""


# --- The data -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """ts int64[steps, hosts] ms, v float64[steps, hosts * 100], labels of each column; series of a host share their ts.

    Hosts are scraped 100 to 13,960 ms (of 15,000) after the evaluation times; one host in ten jitters by up to 20 ms.
    """

    hosts: int
    ts: NDArray[np.int64]
    v: NDArray[np.float64]
    labels: list[dict[str, str]]

    @property
    def steps(self) -> int:
        return len(self.ts)

    def times(self, low: int, high: int) -> NDArray[np.int64]:
        """int64[high - low, series]"""
        return self.ts[low:high].repeat(COUNTERS + GAUGES, axis=1)


def make(hosts: int, hours: float, end_ms: int) -> Data:
    """Counters with a reset in one host of fifty; gauges, half of them of full precision."""
    rng = np.random.default_rng(11)
    steps = int(hours * 3_600_000 / STEP_MS)
    offset = 100 + np.arange(hosts) * 13_860 // max(1, hosts - 1) + (np.arange(hosts) % 2) * 15_000
    ts = end_ms - STEP_MS * np.arange(steps, 0, -1)[:, None] + offset
    ts[:, ::10] += rng.integers(-20, 21, (steps, len(range(0, hosts, 10))))
    v = np.empty((steps, hosts, COUNTERS + GAUGES))
    v[:, :, :60] = np.cumsum(rng.poisson(rng.uniform(0.2, 200, (hosts, 60)), (steps, hosts, 60)), axis=0)
    v[:, :, 60:80] = np.cumsum(np.round(rng.exponential(3.0, (steps, hosts, 20)), 2), axis=0)
    for host in range(0, hosts, 50):
        at = int(rng.integers(steps // 4, steps))
        v[at:, host, :COUNTERS] -= v[at, host, :COUNTERS]
    walk = np.cumsum(rng.standard_normal((steps, hosts, GAUGES)), axis=0) + 50
    walk[:, :, 10:] = np.round(np.clip(walk[:, :, 10:], 0, 100), 1)
    v[:, :, COUNTERS:] = walk
    names = [f"bench_counter_{n:02}_total" for n in range(COUNTERS)] + [f"bench_gauge_{n:02}" for n in range(GAUGES)]
    labels = [
        {"__name__": name, "host": f"host-{host:03}", "job": "bench", "n": name[6:], "zone": f"z{host % 4}"}
        for host in range(hosts)
        for name in names
    ]
    return Data(hosts, ts, v.reshape(steps, -1), labels)


# --- Prometheus -----------------------------------------------------------------------------------------------------


def write_request(labels: list[bytes], ts: NDArray[np.int64], v: NDArray[np.float64]) -> bytes:
    """A packed prometheus.WriteRequest: labels as encoded fields, ts and v [series, samples]; times of six bytes."""
    series, samples = ts.shape
    frame = np.empty((series, samples, 18), dtype=np.uint8)
    frame[..., :3] = (0x12, 16, 0x09)
    frame[..., 3:11] = np.ascontiguousarray(v, dtype="<f8").view(np.uint8).reshape(series, samples, 8)
    frame[..., 11] = 0x10
    for place in range(6):
        frame[..., 12 + place] = (ts >> (7 * place)) & 127 | (128 if place < 5 else 0)
    return packed(*(chunk(1, own + frame[row].tobytes()) for row, own in enumerate(labels)))


class Prometheus:
    """A Prometheus of its own that scrapes nothing and takes remote write."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise SystemExit("No prometheus on PATH; install the package of that name.")
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"
        config.write_text("global: {}\n")
        self.url = f"http://127.0.0.1:{port}"
        self.version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = self.version.split()[2]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--web.enable-remote-write-receiver",
                    "--storage.tsdb.retention.time=90d",
                ],
                stdout=log,
                stderr=log,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with closing(Client(self.url)) as client:
                    if client.ask("/-/ready")[0] == 200:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("Prometheus did not become ready.")

    def load(self, data: Data) -> None:
        """All samples, half an hour at a time."""
        encoded = [b"".join(label(name, value) for name, value in sorted(labels.items())) for labels in data.labels]
        with closing(Client(self.url)) as client:
            for low in range(0, data.steps, 60):
                ts = data.times(low, low + 60).T
                v = data.v[low : low + 60].T
                for first in range(0, len(encoded), 1000):
                    some = slice(first, first + 1000)
                    status, answer = client.ask("/api/v1/write", write_request(encoded[some], ts[some], v[some]))
                    if status // 100 != 2:
                        raise SystemExit(f"Prometheus refused samples: {status} {answer[:300]!r}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


# --- The portal -----------------------------------------------------------------------------------------------------


def load_portal(data: Data) -> None:
    """All samples by ingest, compacted as they come; the last half hour stays in the log, in rows of 5,000."""
    from apps.accounts.permissions import Principal
    from apps.metrics import compaction, services
    from apps.metrics.samples import Samples

    by = Principal.system("benchmarks.promql")
    series = data.v.shape[1]
    keys = list(range(series))

    def write(low: int, high: int, part: slice) -> None:
        ts, v = data.times(low, high)[:, part].ravel(), data.v[low:high, part].ravel()
        mine = keys[part] * (high - low)
        samples = Samples(mine, lambda i: data.labels[mine[i]], ts, v)
        written = services.ingest(samples=samples, by=by, now=_now(), window=None)
        if written.accepted != len(mine):
            raise SystemExit(f"The portal refused samples: {written.rejected[:3]}")

    young = max(0, data.steps - 60)
    at_once = max(1, 50_000 // series)
    waiting = 0
    for low in range(0, young, at_once):
        high = min(low + at_once, young)
        write(low, high, slice(None))
        waiting += (high - low) * series
        if waiting >= 1_000_000:
            compaction.compact_log(now=_now())
            waiting = 0
    compaction.compact_log(now=_now())
    for due in compaction.due_windows(_now()):
        compaction.merge_window(due=due, now=_now())
    for low in range(young, data.steps):
        for first in range(0, series, 5_000):
            write(low, low + 1, slice(first, first + 5_000))


def _now() -> datetime:
    return datetime.now(UTC)


def use_database(url: str, redis: str) -> None:
    """Make this process a client of a running portal's store."""
    os.environ.update(DATABASE_URL=url, REDIS_URL=redis, DJANGO_SETTINGS_MODULE="monitoring_portal.settings")
    os.environ.setdefault("SECRET_KEY", "benchmark-" + "x" * 50)
    import django

    django.setup()


# --- Requests -------------------------------------------------------------------------------------------------------


class Client:
    """One HTTP connection that stays open; as little as possible of its own in the measured time."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.host = address.netloc
        self.address = (address.hostname, address.port)
        self.used = -math.inf
        self.socket = socket.socket()
        self.fresh()

    def fresh(self) -> None:
        """Connect anew after a pause: servers close what is idle for some seconds."""
        if time.monotonic() - self.used > IDLE:
            self.socket.close()
            self.socket = socket.create_connection(self.address, timeout=120)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.used = time.monotonic()

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, body)"""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\n"
        if body is not None:
            head += (
                f"Content-Length: {len(body)}\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n"
            )
        self.socket.sendall(head.encode() + b"\r\n" + (body or b""))
        got = bytearray()
        while (end := got.find(b"\r\n\r\n")) < 0:
            self._more(got)
        headers = bytes(got[:end]).lower()
        status = int(headers[9:12])
        if b"transfer-encoding: chunked" in headers:
            while not got.endswith(b"\r\n0\r\n\r\n"):
                self._more(got)
            self.used = time.monotonic()
            return status, _unchunked(bytes(got[end + 4 :]))
        mark = headers.find(b"content-length:")
        length = int(headers[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
        while len(got) < end + 4 + length:
            self._more(got)
        self.used = time.monotonic()
        return status, bytes(got[end + 4 :])

    def _more(self, got: bytearray) -> None:
        part = self.socket.recv(1 << 20)
        if not part:
            raise OSError("The server closed the connection.")
        got += part

    def close(self) -> None:
        self.socket.close()


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


@dataclass(frozen=True)
class Row:
    """One question, and what the ratio ours / theirs may be."""

    name: str
    query: str
    limit: float
    hours: float = 0.0
    step: int = 0

    def path(self, at: int) -> str:
        """The request for data that ends at a time (s)."""
        if not self.step:
            return f"/api/v1/query?query={quote(self.query)}&time={at}"
        span = f"start={at - round(self.hours * 3600)}&end={at}&step={self.step}"
        return f"/api/v1/query_range?query={quote(self.query)}&{span}"


def rows(hours: float) -> list[Row]:
    day = hours - 0.1
    many = '{__name__=~"bench_gauge_0.+"}[5m]'
    return [
        Row("sum by (host)(rate(x[5m])), 1 h", 'sum by (host) (rate({__name__=~"bench_counter_.+"}[5m]))', 0.5, 1, 15),
        Row("sum(x), 1 h at 15 s", 'sum({__name__=~"bench_.+"})', 0.5, 1, 15),
        Row("count by (__name__)(x), instant", 'count by (__name__) ({__name__=~".+"})', 0.7),
        Row("max_over_time(x[5m]), a day", f"max by (zone) (max_over_time({many}))", 0.3, day, 60),
        Row("quantile_over_time(0.9, x[5m]), a day", f"max by (zone) (quantile_over_time(0.9, {many}))", 0.3, day, 60),
        Row("one series, instant", 'bench_gauge_07{host="host-011"}', 6),
        Row("one series, 1 h", 'bench_gauge_07{host="host-011"}', 6, 1, 15),
        Row("rate of one series, 1 h", 'rate(bench_counter_07_total{host="host-011"}[5m])', 6, 1, 15),
    ]


def answer(client: Client, path: str) -> Any:
    client.fresh()
    status, body = client.ask(path)
    if status != 200:
        raise SystemExit(f"{path}\n{status} {body[:500]!r}")
    return json.loads(body)["data"]


def difference(ours: Any, theirs: Any) -> float:
    """The largest relative difference between two answers; anything but values must be equal."""
    if ours["resultType"] != theirs["resultType"]:
        raise SystemExit(f"resultType {ours['resultType']} is not {theirs['resultType']}")
    mine, other = (
        {json.dumps(one["metric"], sort_keys=True): one.get("values", [one.get("value")]) for one in data["result"]}
        for data in (ours, theirs)
    )
    if mine.keys() != other.keys() or not mine:
        raise SystemExit(
            f"{len(mine)} series, theirs {len(other)}; not in both: {sorted(mine.keys() ^ other.keys())[:4]}"
        )
    worst = 0.0
    for key, points in mine.items():
        if [at for at, _ in points] != [at for at, _ in other[key]]:
            raise SystemExit(f"{key}: values at other times")
        v, w = (np.array([float(value) for _, value in side]) for side in (points, other[key]))
        with np.errstate(all="ignore"):
            far = np.where(
                (v == w) | (np.isnan(v) & np.isnan(w)), 0.0, np.abs(v - w) / np.maximum(np.abs(v), np.abs(w))
            )
        worst = max(worst, float(far.max(initial=0.0)))
    if worst > 1e-9:
        raise SystemExit(f"The answers differ by up to {worst:.1e}.")
    return worst


# --- Measuring ------------------------------------------------------------------------------------------------------


class Meter:
    """CPU-seconds and the peak of resident memory of some processes and their children."""

    def __init__(self, *pids: int) -> None:
        self.pids = pids

    def _family(self) -> Iterator[psutil.Process]:
        for pid in self.pids:
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)

    def cpu(self) -> float:
        total = 0.0
        for process in self._family():
            # In nanoseconds, where the sums that psutil gives count in ticks of 10 ms.
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
        return total

    def reset_peak(self) -> float:
        """Forget the peak so far; the first process's resident MB now."""
        Path(f"/proc/{self.pids[0]}/clear_refs").write_text("5")
        return self.resident("VmRSS")

    def resident(self, field: str = "VmHWM") -> float:
        status = Path(f"/proc/{self.pids[0]}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1000


@dataclass(frozen=True)
class Measured:
    """One row's outcome: milliseconds are medians, `low` and `high` the quartiles of the ratio over pairs."""

    name: str
    limit: float
    ratio: float
    low: float
    high: float
    cpu_ratio: float
    ours_ms: float
    theirs_ms: float
    ours_cpu_ms: float
    theirs_cpu_ms: float
    growth_mb: float
    pairs: int
    difference: float

    @property
    def passed(self) -> bool:
        return self.ratio <= self.limit and self.growth_mb < MEMORY_LIMIT


def measure(row: Row, at: int, ours: Client, theirs: Client, our: Meter, their: Meter, seconds: float) -> Measured:
    path = row.path(at)
    before = our.reset_peak()
    mine = answer(ours, path)
    growth = our.resident() - before
    far = difference(mine, answer(theirs, path))
    for client in (ours, theirs):
        client.fresh()
        for _ in range(3):
            client.ask(path)
    took: tuple[list[float], list[float]] = ([], [])
    cpu = [0.0, 0.0]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(took[0]) < 6:
        for side in (0, 1, 1, 0):
            client, meter = ((ours, our), (theirs, their))[side]
            # CPU is read once for several requests: reading it costs more than a small query.
            many = max(1, min(50, int(0.02 / (statistics.median(took[side]) if took[side] else 1.0))))
            client.fresh()
            used = meter.cpu()
            for _ in range(many):
                started = time.perf_counter()
                client.ask(path)
                took[side].append(time.perf_counter() - started)
            cpu[side] += meter.cpu() - used
    count = min(map(len, took))
    # Equal shares of both sides' time line: a burst of other work on this machine falls on both.
    shares = max(3, min(40, count // 4))
    ratios = sorted(
        statistics.median(a) / statistics.median(b)
        for a, b in zip(_shares(took[0], shares), _shares(took[1], shares), strict=True)
    )
    mean = [cpu[side] / len(took[side]) * 1000 for side in (0, 1)]
    return Measured(
        row.name,
        row.limit,
        statistics.median(ratios),
        ratios[len(ratios) // 4],
        ratios[len(ratios) * 3 // 4],
        mean[0] / mean[1],
        statistics.median(took[0]) * 1000,
        statistics.median(took[1]) * 1000,
        mean[0],
        mean[1],
        growth,
        count,
        far,
    )


def _shares(values: list[float], count: int) -> list[list[float]]:
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [values[a:b] for a, b in pairwise(edges)]


def show(done: list[Measured]) -> None:
    """Print a Markdown table."""
    print("\n| query | limit | ratio | quartiles | CPU ratio | ours ms | theirs ms | ours CPU ms | + MB | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for one in done:
        print(
            f"| {one.name} | {one.limit:g} | {one.ratio:.2f} | {one.low:.2f}-{one.high:.2f} | {one.cpu_ratio:.2f} "
            f"| {one.ours_ms:.2f} | {one.theirs_ms:.2f} | {one.ours_cpu_ms:.2f} | {one.growth_mb:.0f} "
            f"| {'PASS' if one.passed else 'MISS'} |"
        )


@contextmanager
def loaded(folder: Path, hosts: int, hours: float) -> Iterator[tuple[Portal, Prometheus, int]]:
    """(portal, Prometheus, the end of their data in s): loaded, unless the folder holds both from an earlier run."""
    note = folder / "loaded.json"
    portal = Portal(folder, {"MONITORING_AUTH_TOKEN": TOKEN})
    prometheus = Prometheus(folder / "prometheus")
    try:
        with portal:
            if note.exists():
                end_ms = json.loads(note.read_text())["end_ms"]
            else:
                end_ms = (int(time.time()) // 60 - 1) * 60_000
                data = make(hosts, hours, end_ms)
                print(f"{data.v.size:,} samples of {data.v.shape[1]:,} series over {hours:g} h")
                started = time.perf_counter()
                prometheus.load(data)
                print(f"  into Prometheus {prometheus.version}: {time.perf_counter() - started:.0f} s", flush=True)
                started = time.perf_counter()
                use_database(portal.database_url, portal.redis_url)
                load_portal(data)
                print(f"  into the portal: {time.perf_counter() - started:.0f} s", flush=True)
                del data
                note.write_text(json.dumps({"end_ms": end_ms, "hosts": hosts, "hours": hours}))
            yield portal, prometheus, end_ms // 1000
    finally:
        prometheus.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=100, help="hosts of 100 series each")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--seconds", type=float, default=8, help="how long a row is asked, in all")
    parser.add_argument("--quick", action="store_true", help="20 hosts, 3 hours, 2 seconds a row: does it run?")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--folder", type=Path, help="keep the loaded data here, and use it again next time")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    if given.quick:
        given.hosts, given.hours, given.seconds = 20, 3, 2
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with loaded(folder, given.hosts, given.hours) as (portal, prometheus, at):
            our = Meter(portal.pids["web"], portal.pids["postgres"])
            their = Meter(prometheus.process.pid)
            done = []
            with closing(Client(portal.url)) as ours, closing(Client(prometheus.url)) as theirs:
                for row in rows(given.hours):
                    if given.only in row.name:
                        done.append(measure(row, at, ours, theirs, our, their, given.seconds))
                        print(f"  {row.name}: {done[-1].ratio:.2f}", file=sys.stderr, flush=True)
            print(
                f"\nPrometheus {prometheus.version}, Python {sys.version.split()[0]}, numpy {np.__version__}, ", end=""
            )
            print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
            show(done)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in done], indent=1) + "\n")


if __name__ == "__main__":
    main()
