"""Samples pushed over HTTP into a running portal, a Prometheus and a VictoriaMetrics: the same bytes, in one run.

`./portal bench ingest`, or `python -m benchmarks.ingest`; peers are taken from PATH and left out, with a word, where
they are missing. 100 hosts of 100 series every 30 s, one sample a series as Prometheus sends it, remote write 1.0 by
two senders over connections that stay open. Each part of the data goes to all three one after the other, in turns of
order; then each is left alone until it is calm. CPU is user and system of the whole tree of processes, less what the
same tree needs without load: for the portal web, database, compaction and merging, until nothing is left to be done.

`--flat` sends up to ten million samples (`--long`: a hundred) and draws what one costs against how many there are.
`--steady` sends 200,000 a second for some time and asks meanwhile.
"""

import argparse
import math
import multiprocessing
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import cramjam
import numpy as np
import orjson
import psutil
import psycopg
from numpy.typing import NDArray

from benchmarks.promql import TOKEN, Client, use_database
from benchmarks.store import values
from monitoring_portal.testing import Portal
from tests.metrics.remote_write import chunk, label, sample

HOSTS: Final = 100
SERIES: Final = 10_000
STEP_MS: Final = 30_000
WINDOW_MS: Final = 7_200_000
SETTLE_MS: Final = 600_000
SENDERS: Final = 2
CPU_LIMITS: Final = {5_000: 1.5, 2_000: 1.7, 500: 2.5}
"""CPU-seconds a million samples, by samples a request."""
BYTES_LIMIT: Final = 2.0
ONE_SERIES_LIMIT: Final = 3.0
"""Milliseconds for one series of ten thousand, in the store, over all that is there."""
CALM: Final = 0.1
"""Cores that a target may use, beyond what it needs anyway, to count as calm."""
PATIENCE: Final = 90.0


# --- What is sent ---------------------------------------------------------------------------------------------------


def label_sets(series: int) -> list[dict[str, str]]:
    """As a node exporter's: about 130 bytes a series."""
    return [
        {
            "__name__": f"ingest_metric_{n % 100:02}_total",
            "instance": f"host-{n // 100:05}.example.internal:9100",
            "job": "node",
            "mode": ("idle", "user", "system", "iowait")[n % 4],
            "zone": f"eu-central-{n // 100 % 4}",
        }
        for n in range(series)
    ]


class Frames:
    """Requests of some series in one fixed order: a template whose values and times are filled in."""

    def __init__(self, labels: Sequence[dict[str, str]]) -> None:
        parts = []
        ends = []
        size = 0
        for one in labels:
            body = b"".join(label(*pair) for pair in sorted(one.items())) + sample(2**41 - 1, 1.0)
            parts.append(chunk(1, body))
            size += len(parts[-1])
            ends.append(size)
        self._template = np.frombuffer(b"".join(parts), dtype=np.uint8)
        end = np.array(ends)[:, None]
        self._values = end - 15 + np.arange(8)
        self._times = end - 6 + np.arange(6)

    def body(self, ts: NDArray[np.int64], v: NDArray[np.float64]) -> bytes:
        """One packed request: ts int64[n] ms, v float64[n]."""
        out = self._template.copy()
        out[self._values] = np.ascontiguousarray(v, dtype="<f8").view(np.uint8).reshape(-1, 8)
        seven = ts[:, None] >> np.arange(0, 42, 7) & 127
        seven[:, :5] |= 128
        out[self._times] = seven
        return bytes(cramjam.snappy.compress_raw(out.tobytes()))


@dataclass(frozen=True)
class Part:
    """A stretch of the data: all series at `steps` times from `start_ms`, sent in requests of `size` samples."""

    number: int
    start_ms: int
    steps: int
    size: int


def bodies(part: Part, share: int) -> Iterator[bytes]:
    """What one of the senders sends of a part, in order."""
    mine = SERIES // SENDERS
    first = share * mine
    labels = label_sets(SERIES)[first : first + mine]
    v = values(part.steps, seed=part.number)[:, first : first + mine]
    cuts = [slice(at, min(at + part.size, mine)) for at in range(0, mine, part.size)]
    frames = [Frames(labels[cut]) for cut in cuts]
    # Each host is scraped at a moment of its own.
    offset = (np.arange(first, first + mine) // 100) * 137 % STEP_MS
    for step in range(part.steps):
        ts = part.start_ms + step * STEP_MS + offset
        for cut, frame in zip(cuts, frames, strict=True):
            yield frame.body(ts[cut], v[step, cut])


def _send(share: int, pipe: Connection) -> None:
    """A sender's process: makes the requests of a part, and sends them to each address that it is told."""
    os.nice(5)
    while (part := pipe.recv()) is not None:
        packed = list(bodies(part, share))
        pipe.send(len(packed))
        while (url := pipe.recv()) is not None:
            took = []
            with closing(Client(url)) as client:
                for body in packed:
                    began = time.perf_counter()
                    status, answer = client.ask("/api/v1/write", body)
                    took.append(time.perf_counter() - began)
                    if status // 100 != 2:
                        raise SystemExit(f"{url} refused samples: {status} {answer[:300]!r}")
            pipe.send(took)


class Senders:
    """Two processes, so that what they need is in nobody's figures."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for share in range(SENDERS):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_send, args=(share, there), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> "Senders":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def prepare(self, part: Part) -> None:
        for pipe in self._pipes:
            pipe.send(part)
        for pipe in self._pipes:
            pipe.recv()

    def send(self, url: str) -> list[float]:
        """Send the part to an address; how long each request took (s)."""
        for pipe in self._pipes:
            pipe.send(url)
        return [seconds for pipe in self._pipes for seconds in pipe.recv()]

    def done(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)


# --- Where it is sent -----------------------------------------------------------------------------------------------


def cpu_of(pid: int) -> float:
    """User and system seconds of a process and all it has started, those that have ended included."""
    total = 0.0
    with_children = [psutil.Process(pid)]
    with_children += with_children[0].children(recursive=True)
    for one in with_children:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_of(pid: int) -> float:
    """The most memory a process has had (MB, resident; what it shares included)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Target:
    """What takes remote write."""

    name: str
    url: str
    pid: int

    def __init__(self) -> None:
        self.idle: dict[str, float] = {}
        """Cores that each of its processes uses without load."""

    def cpu(self) -> dict[str, float]:
        """CPU-seconds of its processes so far."""
        return {self.name: cpu_of(self.pid)}

    def settle(self) -> None:
        """Wait until what was sent is dealt with."""
        calm = 0
        deadline = time.monotonic() + PATIENCE
        while calm < 2 and time.monotonic() < deadline:
            before = cpu_of(self.pid)
            time.sleep(1)
            calm = calm + 1 if cpu_of(self.pid) - before < sum(self.idle.values()) + CALM else 0

    def look_idle(self, seconds: float) -> None:
        before = self.cpu()
        time.sleep(seconds)
        self.idle = {name: (used - before[name]) / seconds for name, used in self.cpu().items()}

    def stored(self) -> int:
        """Bytes on disk, once everything is compacted as far as it goes."""
        raise NotImplementedError

    def peaks(self) -> dict[str, float]:
        return {self.name: peak_of(self.pid)}

    def ask(self, query: str, at: float) -> list[Any]:
        with closing(Client(self.url)) as client:
            status, body = client.ask(f"/api/v1/query?query={quote(query)}&time={at:.3f}&nocache=1")
        if status != 200:
            raise SystemExit(f"{self.name}: {query}: {status} {body[:300]!r}")
        return list(orjson.loads(body)["data"]["result"])

    def count(self, first_ms: int, last_ms: int) -> int:
        """How many samples of the benchmark it holds, by count_over_time of each metric."""
        at = last_ms / 1000 + 60
        span = math.ceil(at - first_ms / 1000) + 60
        found = 0
        for n in range(100):
            for row in self.ask(f"sum(count_over_time(ingest_metric_{n:02}_total[{span}s]))", at):
                found += int(float(row["value"][1]))
        return found


class Peer(Target):
    """A program of somebody else's, with a folder of its own."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, url: str, log: Path) -> None:
        super().__init__()
        self.name = name
        self.folder = folder
        self.url = url
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.pid = self.process.pid
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                with closing(Client(url)) as client:
                    if client.ask("/health" if name == "vm" else "/-/ready")[0] == 200:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{name} did not become ready: {log.read_text()[-500:]}")

    def post(self, path: str) -> bytes:
        with closing(Client(self.url)) as client:
            status, body = client.ask(path, b"")
        if status != 200:
            raise SystemExit(f"{self.name}{path}: {status} {body[:300]!r}")
        return body

    def stored(self) -> int:
        if self.name == "prom":
            told = orjson.loads(self.post("/api/v1/admin/tsdb/snapshot"))
            return folder_size(self.folder / "snapshots" / told["data"]["name"])
        self.post("/internal/force_flush")
        self.post("/internal/force_merge")
        self.settle()
        return folder_size(self.folder)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def prometheus(folder: Path) -> Peer | str:
    """A Prometheus that scrapes nothing, or why there is none."""
    program = shutil.which("prometheus")
    if program is None:
        return "no prometheus on PATH (Debian: prometheus)"
    folder.mkdir()
    config = folder / "prometheus.yml"
    config.write_text("global: {}\n")
    port = free_port()
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=90d",
    ]
    return Peer("prom", command, folder / "data", f"http://127.0.0.1:{port}", folder / "log")


def victoria(folder: Path) -> Peer | str:
    """A VictoriaMetrics, or why there is none."""
    program = shutil.which("victoria-metrics")
    if program is None:
        return "no victoria-metrics on PATH (Debian: victoria-metrics)"
    folder.mkdir()
    port = free_port()
    command = [
        program,
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=3",
        "-search.latencyOffset=0s",
    ]
    return Peer("vm", command, folder / "data", f"http://127.0.0.1:{port}", folder / "log")


class Ours(Target):
    """A running portal. What its clock does with windows that are closed is done here, so that it can be charged.

    The samples are of the past: their windows are closed before they are full, and the portal's own merge would work
    on halves of them, which it never has to do with what is sent as it happens. So its lease is held meanwhile.
    """

    name = "ours"
    HELD: Final = ("metrics.merge", "metrics.roll", "metrics.retain", "metrics.census")

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        super().__init__()
        self.portal = Portal(folder, {"MONITORING_AUTH_TOKEN": TOKEN, **(environment or {})})
        self.portal.start()
        self.url = self.portal.url
        self.pid = self.portal.pids["supervisor"]
        self._rounds = count(1)
        self._merging = 0.0
        self._settled_peak = 0.0
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        addresses = (self.portal.database_url, self.portal.redis_url)
        self._keeper = spawn.Process(target=_keep, args=(*addresses, there), daemon=True)
        self._keeper.start()
        self._pipe.recv()

    def cpu(self) -> dict[str, float]:
        found = {"other": cpu_of(self.pid), "merging": self._merging}
        for name, pid in self.portal.pids.items():
            if name in ("web", "slow", "postgres"):
                found[name] = cpu_of(pid)
                found["other"] -= found[name]
        return found

    def hold(self) -> None:
        """Take the leases of the loops whose work `settle` does."""
        for name in self.HELD:
            self.sql(
                "UPDATE core_loop SET claimed_until = clock_timestamp() + interval '1 day' WHERE name = %s", [name]
            )

    def settle(self) -> None:
        self._keep("settle")

    def roll(self) -> float:
        """Make the roll-ups that the default policy asks for; CPU-seconds, the database's included."""
        before = sum(self.cpu().values())
        self._keep("roll")
        return sum(self.cpu().values()) - before

    def _keep(self, what: str) -> None:
        self._pipe.send((what, next(self._rounds)))
        seconds, self._settled_peak = self._pipe.recv()
        self._merging += seconds

    def one_series(self) -> tuple[float, float, int]:
        """(nothing cached, cached: ms to read one series whole; its samples) in the store."""
        self._pipe.send(("one", 0))
        found: tuple[float, float, int] = self._pipe.recv()
        return found

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        with psycopg.connect(self.portal.database_url, autocommit=True) as connection:
            found = connection.execute(statement, parameters)
            return found.fetchone() if found.description else None

    def samples(self) -> int:
        """Samples that are stored, the portal's own included."""
        return int(
            self.sql(
                "SELECT coalesce((SELECT sum(samples) FROM metrics_batch), 0)"
                " + coalesce((SELECT sum(samples) FROM metrics_block WHERE resolution = 0), 0)"
            )[0]
        )

    def standing(self) -> int:
        """Bytes of the store's tables as they stand, with room that the next rows will take."""
        return int(self.sql(_SIZES)[0])

    def stored(self) -> int:
        for table in ("metrics_batch", "metrics_block"):
            self.sql(f"VACUUM FULL {table}")
        return self.standing()

    def tables(self) -> list[tuple[str, int, int, int]]:
        """(table, bytes of its rows, of its indexes, its rows), the largest first."""
        found = []
        for table in TABLES:
            told = self.sql(
                f"SELECT pg_table_size('metrics_{table}'), pg_indexes_size('metrics_{table}'), count(*)"
                f" FROM metrics_{table}"
            )
            found.append((table, *told))
        return sorted(found, key=lambda row: -row[1])

    def peaks(self) -> dict[str, float]:
        found = {name: peak_of(pid) for name, pid in self.portal.pids.items() if name in ("web", "slow", "worker")}
        server = psutil.Process(self.portal.pids["postgres"])
        found["a PostgreSQL backend"] = max(peak_of(one.pid) for one in [server, *server.children(recursive=True)])
        found["merging"] = self._settled_peak
        return found

    def stop(self) -> None:
        self._keeper.terminate()
        self._keeper.join()
        self.portal.stop()


TABLES: Final = ("block", "series", "batch", "metric", "tombstone")
_SIZES: Final = "SELECT " + " + ".join(f"pg_total_relation_size('metrics_{table}')" for table in TABLES)


def _keep(database: str, redis: str, pipe: Connection) -> None:
    """The process that does for `Ours` what is due to windows that are closed."""
    use_database(database, redis)
    from datetime import UTC, datetime, timedelta

    from apps.metrics import compaction, rolling

    pipe.send("ready")
    while True:
        what, number = pipe.recv()
        now = datetime.now(UTC) + timedelta(hours=number)  # what came late is merged at most each half hour
        began = time.process_time()
        if what == "settle":
            while compaction.young(now).samples:
                if not compaction.compact_log(now=now):
                    time.sleep(0.1)  # the portal is at it
            for due in compaction.due_windows(now):
                compaction.merge_window(due=due, now=now)
        elif what == "roll":
            for window in rolling.due_windows(now):
                rolling.roll_window(window=window, now=now)
            for due in compaction.due_windows(now):
                compaction.merge_window(due=due, now=now)
        else:
            pipe.send(_one_series())
            continue
        pipe.send((time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _one_series() -> tuple[float, float, int]:
    """(ms to read one series with nothing cached, and again; its samples)."""
    from apps.metrics import query, storage
    from apps.promql.source import Matcher

    wanted = [
        Matcher("__name__", "=", "ingest_metric_42_total"),
        Matcher("instance", "=", "host-00037.example.internal:9100"),
    ]
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(49):
        cold = number < 9
        if cold:
            storage.forget()
        began = time.perf_counter()
        found = query.select(wanted, 0, 2**60)
        taken[not cold].append((time.perf_counter() - began) * 1000)
    return statistics.median(taken[0]), statistics.median(taken[1]), int(found.counts.sum())


# --- The comparison -------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What one target did with the requests of one size."""

    samples: int = 0
    by_process: Counter[str] = field(default_factory=Counter)
    """CPU-seconds."""
    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    """CPU-seconds a million of each part, which tell the noise."""

    @property
    def per_million(self) -> float:
        return sum(self.by_process.values()) / self.samples * 1e6


@contextmanager
def targets(folder: Path, peers: bool) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        ours = Ours(folder)
        stack.callback(ours.stop)
        found: list[Target] = [ours]
        for make in (prometheus, victoria) if peers else ():
            peer = make(folder / make.__name__)
            if isinstance(peer, str):
                print(f"Left out: {peer}.")
            else:
                stack.callback(peer.stop)
                found.append(peer)
        yield found


def charge(target: Target, senders: Senders, samples: int, tally: Tally) -> None:
    """Send the part, wait until it is dealt with, and write down what it took."""
    before, began = target.cpu(), time.perf_counter()
    took = senders.send(target.url)
    tally.seconds += time.perf_counter() - began
    target.settle()
    wall = time.perf_counter() - began
    used = {name: now - before[name] - target.idle[name] * wall for name, now in target.cpu().items()}
    tally.samples += samples
    tally.by_process.update(used)
    tally.took += took
    tally.each.append(sum(used.values()) / samples * 1e6)


def beginning(parts: int, hours: float, now: float) -> tuple[int, int]:
    """(start of the first part, ms from one part to the next): whole windows that are over when the last is sent."""
    stride = math.ceil(hours * 3_600_000 / WINDOW_MS) * WINDOW_MS
    end = (int(now * 1000) - SETTLE_MS) // WINDOW_MS * WINDOW_MS
    return end - parts * stride, stride


def compare(hours: float, sizes: Sequence[int], repeats: int, peers: bool) -> bool:
    """The table; True where every limit is kept."""
    order = [size for turn in range(repeats) for size in (sizes if turn % 2 == 0 else sizes[::-1])]
    steps = round(hours * 3_600_000 / STEP_MS)
    first, stride = beginning(len(order), hours, time.time())
    with tempfile.TemporaryDirectory(prefix="portal-ingest-") as name, Senders() as senders:
        folder = Path(name)
        folder.chmod(0o711)
        with targets(folder, peers) as found:
            ours = next(target for target in found if isinstance(target, Ours))
            warm = Part(0, first - WINDOW_MS, 1, 500)
            senders.prepare(warm)
            for target in found:
                senders.send(target.url)
            senders.done()
            ours.hold()
            for target in found:
                target.settle()
                target.look_idle(10)
            tallies = {(target.name, size): Tally() for target in found for size in sizes}
            for number, size in enumerate(order):
                part = Part(number + 1, first + number * stride, steps, size)
                senders.prepare(part)
                for target in found if number % 2 == 0 else found[::-1]:
                    charge(target, senders, steps * SERIES, tallies[target.name, size])
                senders.done()
            sent = (len(order) * steps + 1) * SERIES
            return _told(found, tallies, sizes, sent, first - WINDOW_MS, first + len(order) * stride)


def _told(
    found: Sequence[Target],
    tallies: dict[tuple[str, int], Tally],
    sizes: Sequence[int],
    sent: int,
    first_ms: int,
    last_ms: int,
) -> bool:
    ours = next(target for target in found if isinstance(target, Ours))
    well = True
    print(f"\n{sent:,} samples of 10,000 series at 30 s; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    idle = ", ".join(f"{target.name} {sum(target.idle.values()):.3f}" for target in found)
    print(f"cores without load, which are taken off: {idle}\n")
    print(f"{'a request':>9} {'':6} {'CPU-s/M':>8} {'each part':>18} {'samples/s':>10} {'p50 ms':>7} {'p95 ms':>7}")
    for size in sizes:
        mine = tallies["ours", size].per_million
        for target in found:
            tally = tallies[target.name, size]
            took = np.array(tally.took) * 1000
            each = " ".join(f"{one:.2f}" for one in tally.each)
            said = ""
            if target is ours:
                said = verdict(mine, CPU_LIMITS.get(size, math.inf))
                well &= mine <= CPU_LIMITS.get(size, math.inf)
            else:
                said = f"ours/{target.name} {mine / tally.per_million:.2f}"
            print(
                f"{size:>9,} {target.name:6} {tally.per_million:8.2f} {each:>18} {tally.samples / tally.seconds:10,.0f}"
                f" {np.median(took):7.1f} {np.percentile(took, 95):7.1f}   {said}"
            )
    print("\nours by process, CPU-s/M:")
    for size in sizes:
        tally = tallies["ours", size]
        parts = ", ".join(f"{name} {used / tally.samples * 1e6:.2f}" for name, used in tally.by_process.most_common())
        print(f"{size:>9,} {parts}")
    print("\nheld, by count_over_time of each metric:")
    for target in found:
        held = target.count(first_ms, last_ms)
        well &= held == sent
        print(f"  {target.name:6} {held:,} of {sent:,}  {'PASS' if held == sent else 'MISS'}")
    cold, warm, samples = ours.one_series()
    well &= warm <= ONE_SERIES_LIMIT
    print(f"\none series of 10,000, {samples:,} samples, in the store: {warm:.2f} ms", end="   ")
    print(f"{verdict(warm, ONE_SERIES_LIMIT)}; nothing cached: {cold:.2f} ms")
    standing = ours.standing()
    print("\nbytes a sample on disk, compacted, indexes included:")
    for target in found:
        size_of = target.stored() / sent
        said = ""
        if target is ours:
            said = f"{verdict(size_of, BYTES_LIMIT)}; as it stands, room for new rows included: {standing / sent:.2f}"
            well &= size_of <= BYTES_LIMIT
        print(f"  {target.name:6} {size_of:6.2f}   {said}")
    for table, heap, indexes, rows in ours.tables():
        each = f"; {(heap + indexes) / rows:.0f} bytes a row" if table == "series" else ""
        print(f"         {heap / sent:6.3f} {table}, {indexes / sent:.3f} its indexes{each}")
    before = ours.stored()
    seconds = ours.roll()
    more = ours.stored() - before
    print(f"\nroll-ups of 5 min and 1 h, which peers have not: {seconds / sent * 1e6:.2f} CPU-s/M more, ", end="")
    print(f"{more / sent:.2f} bytes a sample more")
    print("\nmost memory (MB, what is shared included):")
    for target in found:
        print("  " + ", ".join(f"{name} {size:.0f}" for name, size in target.peaks().items()))
    return well


def verdict(value: float, limit: float) -> str:
    return "" if limit == math.inf else f"{'PASS' if value <= limit else 'MISS'} (≤ {limit})"


# --- Cost against size ----------------------------------------------------------------------------------------------


def flat(most: int, drawing: Path | None) -> bool:
    """What a million samples cost, the more there are; True where the last cost is within a fifth of the first."""
    steps = 100
    parts = most // (steps * SERIES)
    points: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory(prefix="portal-ingest-") as name, Senders() as senders:
        folder = Path(name)
        folder.chmod(0o711)
        ours = Ours(folder)
        try:
            first, stride_ms = beginning(parts, 2, time.time())
            senders.prepare(Part(0, first - WINDOW_MS, 1, 5_000))
            senders.send(ours.url)
            senders.done()
            ours.hold()
            ours.settle()
            ours.look_idle(10)
            for number in range(parts):
                senders.prepare(Part(number + 1, first + number * stride_ms, steps, 5_000))
                tally = Tally()
                charge(ours, senders, steps * SERIES, tally)
                senders.done()
                points.append(((number + 1) * steps * SERIES, tally.per_million))
        finally:
            ours.stop()
    print(f"{'samples':>12} {'CPU-s/M':>8}")
    for mark in (10**6, 10**7, 10**8):
        some = [cost for size, cost in points if mark / 2 < size <= mark]
        if some and mark <= most:
            print(f"{mark:>12,} {statistics.median(some):8.2f}  (median of the last {len(some)} million)")
    if drawing is not None:
        drawing.write_text(svg(points, "CPU-seconds a million samples (dashed: limit), all processes"))
    early = statistics.median(cost for _, cost in points[:5])
    late = statistics.median(cost for _, cost in points[-5:])
    print(f"the last five million cost {late / early:.2f} times the first five")
    return late / early <= 1.2


def svg(points: Sequence[tuple[int, float]], title: str) -> str:
    """A drawing: samples stored (logarithmic) against CPU-seconds a million."""
    width, height, left, bottom = 640, 300, 50, 260
    low, high = math.log10(points[0][0]), max(math.log10(points[-1][0]), 7)
    top = max(2.0, *(cost for _, cost in points)) * 1.1

    def x(size: float) -> float:
        return left + (math.log10(size) - low) / (high - low) * (width - left - 20)

    def y(cost: float) -> float:
        return bottom - cost / top * (bottom - 20)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        "<style>text { font-size: 12px }</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for power in range(math.floor(low), math.ceil(high) + 1):
        if low <= power <= high:
            at = x(10**power)
            lines.append(f'<line x1="{at:.0f}" y1="20" x2="{at:.0f}" y2="{bottom}" stroke="#ddd"/>')
            lines.append(f'<text x="{at:.0f}" y="{bottom + 18}" text-anchor="middle">10^{power}</text>')
    for half in range(int(top * 2) + 1):
        cost = half / 2
        lines.append(f'<line x1="{left}" y1="{y(cost):.0f}" x2="{width - 20}" y2="{y(cost):.0f}" stroke="#eee"/>')
        lines.append(f'<text x="{left - 8}" y="{y(cost) + 4:.0f}" text-anchor="end">{cost:g}</text>')
    limit = y(CPU_LIMITS[5_000])
    lines.append(
        f'<line x1="{left}" y1="{limit:.0f}" x2="{width - 20}" y2="{limit:.0f}" stroke="#b33" stroke-dasharray="5 4"/>'
    )
    path = " ".join(f"{x(size):.1f},{y(cost):.1f}" for size, cost in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="#2563eb" stroke-width="2"/>')
    lines.append(f'<text x="{left}" y="14">{title}</text>')
    lines.append(f'<text x="{width - 20}" y="{height - 6}" text-anchor="end">samples stored</text></svg>')
    return "\n".join(lines) + "\n"


# --- A steady load --------------------------------------------------------------------------------------------------

QUESTIONS: Final = (
    'ingest_metric_42_total{instance="host-00037.example.internal:9100"}',
    "sum by (zone) (rate(ingest_metric_07_total[2m]))",
    "topk(5, ingest_metric_71_total)",
    "avg_over_time(ingest_metric_80_total[5m])",
)


def _pace(share: int, url: str, series: int, rate: float, seconds: float, pipe: Connection) -> None:
    """A sender that keeps to a rate: all its series at each tick, in requests of 5,000, stamped with the moment."""
    mine = series // SENDERS
    labels = label_sets(series)[share * mine : (share + 1) * mine]
    cuts = [slice(at, min(at + 5_000, mine)) for at in range(0, mine, 5_000)]
    frames = [Frames(labels[cut]) for cut in cuts]
    v = np.random.default_rng(share).integers(0, 10**6, mine).astype(float)
    every = series / rate
    client = Client(url)
    took, late, sent, kept = [], 0.0, 0, None
    for cut, frame in zip(cuts, frames, strict=True):  # the series are made before anything counts
        client.ask("/api/v1/write", frame.body(np.full(cut.stop - cut.start, round(time.time() * 1000)), v[cut]))
    pipe.send("ready")
    pipe.recv()
    client.fresh()
    began = time.monotonic()
    for tick in count():
        due = began + tick * every
        if due > began + seconds:
            break
        if (wait := due - time.monotonic()) > 0:
            time.sleep(wait)
        late = max(late, -wait)
        v += np.arange(mine) % 17
        stamp = np.full(mine, round(time.time() * 1000))
        for cut, frame in zip(cuts, frames, strict=True):
            body = frame.body(stamp[cut], v[cut])
            asked = time.perf_counter()
            status, answer = client.ask("/api/v1/write", body)
            took.append(time.perf_counter() - asked)
            if status // 100 == 2:
                sent += cut.stop - cut.start
            else:
                kept = f"{status} {answer[:200]!r}"
    pipe.send((sent, time.monotonic() - began, late, took, kept))


def steady(seconds: float, rate: float, series: int, drawing: Path | None) -> bool:
    """So many samples a second, and questions meanwhile; what a million costs, the more there are."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="portal-ingest-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        ours = Ours(folder)
        try:
            pipes = []
            for share in range(SENDERS):
                here, there = spawn.Pipe()
                spawn.Process(target=_pace, args=(share, ours.url, series, rate, seconds, there), daemon=True).start()
                there.close()
                pipes.append(here)
            for pipe in pipes:
                pipe.recv()
            time.sleep(15)  # what was made is compacted, counted and quiet
            ours.look_idle(10)
            before, began, held = cpu_of(ours.pid), time.monotonic(), ours.samples()
            points: list[tuple[int, float]] = []
            for pipe in pipes:
                pipe.send("go")
            asked: dict[str, list[float]] = {question: [] for question in QUESTIONS}
            over = threading.Event()
            asking = threading.Thread(target=_ask, args=(ours.url, asked, over))
            asking.start()
            memory: dict[str, float] = {}
            lag = 0
            while time.monotonic() - began < seconds:
                time.sleep(min(5.0, seconds / 4))
                lag = max(lag, int(ours.sql("SELECT coalesce(sum(samples), 0) FROM metrics_batch")[0]))
                spent = cpu_of(ours.pid) - before - sum(ours.idle.values()) * (time.monotonic() - began)
                if (stored := ours.samples() - held) > 0:
                    points.append((stored, spent / stored * 1e6))
                for one, size in ours.peaks().items():
                    memory[one] = max(memory.get(one, 0.0), size)
            told = [pipe.recv() for pipe in pipes]
            over.set()
            asking.join()
            used = cpu_of(ours.pid) - before
            wall = time.monotonic() - began
            if drawing is not None:
                drawing.write_text(
                    svg(points, "CPU-seconds a million samples so far, questions included (dashed: limit)")
                )
            well = _steady_told(ours, rate, told, asked, used / wall, lag, memory)
            return _flat_told(points) and well
        finally:
            ours.stop()


def _steady_told(
    ours: Ours,
    rate: float,
    told: Sequence[Any],
    asked: dict[str, list[float]],
    cores: float,
    lag: int,
    memory: dict[str, float],
) -> bool:
    sent = sum(one[0] for one in told)
    reached = sum(one[0] / one[1] for one in told)
    took = np.array([seconds for one in told for seconds in one[3]]) * 1000
    for one in told:
        if one[4]:
            print(f"refused: {one[4]}")
    print(f"{sent:,} samples, {reached:,.0f} a second of {rate:,.0f} wanted; senders at most ", end="")
    print(
        f"{max(one[2] for one in told):.1f} s behind their time; {ours.samples():,} stored, the portal's own included"
    )
    print(f"requests of 5,000: p50 {np.median(took):.0f} ms, p95 {np.percentile(took, 95):.0f} ms; {cores:.2f} cores")
    print(f"young samples at most: {lag:,}")
    every = np.concatenate([np.array(seconds) for seconds in asked.values()]) * 1000
    print(f"{len(every)} questions meanwhile: p50 {np.median(every):.1f} ms, p95 {np.percentile(every, 95):.1f} ms")
    for question, seconds in asked.items():
        if seconds:
            ms = np.array(seconds) * 1000
            print(f"  {np.median(ms):7.1f} ms p50 {np.percentile(ms, 95):7.1f} ms p95  {question}")
    print("most memory (MB): " + ", ".join(f"{name} {size:.0f}" for name, size in memory.items()))
    return reached >= 0.98 * rate


def _flat_told(points: Sequence[tuple[int, float]]) -> bool:
    """What a million has cost at 10^6, 10^7 and 10^8, and in each tenth: the last within a fifth of the first.

    The first million is cheaper than any that follows: compaction has hardly begun.
    """
    print("CPU-seconds a million samples so far, all processes, questions included:")
    for mark in (10**6, 10**7, 10**8):
        if mark <= 1.2 * points[-1][0]:
            size, cost = min(points, key=lambda point: abs(point[0] - mark))
            print(f"  {size:>12,} {cost:5.2f}")
    ends = [(0, 0.0), *(points[len(points) * tenth // 10 - 1] for tenth in range(1, 11) if len(points) >= 10)]
    tenths = [(to * cost - start * before) / (to - start) for (start, before), (to, cost) in pairwise(ends)]
    if not tenths:
        return True
    print("in each tenth of it: " + " ".join(f"{cost:.2f}" for cost in tenths), end="; ")
    print(f"the last cost {tenths[-1] / tenths[0]:.2f} times the first")
    return tenths[-1] / tenths[0] <= 1.2


def _ask(url: str, asked: dict[str, list[float]], over: threading.Event) -> None:
    client = Client(url)
    while not over.is_set():
        for question, took in asked.items():
            client.fresh()
            began = time.perf_counter()
            status, body = client.ask(f"/api/v1/query?query={quote(question)}")
            took.append(time.perf_counter() - began)
            if status != 200:
                print(f"{question}: {status} {body[:200]!r}")
            over.wait(0.25)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hours", type=float, default=4, help="of data a part; two parts for each size of requests")
    options.add_argument("--requests", default="5000,2000,500", help="samples a request")
    options.add_argument("--quick", action="store_true", help="one part of half an hour for each size")
    options.add_argument("--alone", action="store_true", help="without the peers")
    options.add_argument("--flat", action="store_true", help="cost against size instead, up to ten million samples")
    options.add_argument("--long", action="store_true", help="with --flat: up to a hundred million")
    options.add_argument("--drawing", type=Path, help="with --flat or --steady: where to draw the cost (SVG)")
    options.add_argument("--steady", action="store_true", help="a load of so many samples a second instead")
    options.add_argument("--rate", type=float, default=200_000)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--series", type=int, default=100_000)
    given = options.parse_args()
    sizes = [int(size) for size in given.requests.split(",")]
    if given.steady:
        well = steady(given.seconds, given.rate, given.series, given.drawing)
    elif given.flat or given.long:
        well = flat(10**8 if given.long else 10**7, given.drawing)
    else:
        well = compare(0.5 if given.quick else given.hours, sizes, 1 if given.quick else 2, not given.alone)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
