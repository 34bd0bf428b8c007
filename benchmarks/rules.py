"""A thousand rules of one series each, ten of them firing: a tick of ours beside one of a real Prometheus, in one run.

`./portal bench rules`, or `python -m benchmarks.rules`. The same 10,000 series and the same 1,000 alert rules in one
group on both sides. Ours is `alerting.evaluation.evaluate` whole: what is due, the questions, the verdicts, one
transaction with ALERTS and the group's row, on a PostgreSQL with fsync. Theirs is what Prometheus says of itself,
`prometheus_rule_group_last_duration_seconds`. Both run at the same time of the same machine, tick by tick in turn.
"""

import argparse
import http.server
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.store import RIGHTS_OF, START, START_MS, Cpu, server
from monitoring_portal import embedded

SERIES: Final = 10_000
HOSTS: Final = 100
FIRING: Final = 10
INTERVAL: Final = timedelta(seconds=10)
SCRAPE: Final = 5
EVALUATION: Final = 1
"""Seconds between two scrapes and between two evaluations of the other side: it must have many in a short run."""

SHAPES: Final = {
    "threshold": '{metric}{{instance="host-{host}:9100"}} > {limit}',
    "rate": 'rate({metric}{{instance="host-{host}:9100"}}[5m]) > {limit}',
    "mixed": "",
}
"""Rules by name; mixed are four shapes, one of them an aggregation and one a ratio of two series."""
MIXED: Final = (
    '{metric}{{instance="host-{host}:9100"}} > {limit}',
    'avg_over_time({metric}{{instance="host-{host}:9100"}}[5m]) > {limit}',
    'sum by (job) ({metric}{{instance="host-{host}:9100"}}) > {limit}',
    '{metric}{{instance="host-{host}:9100"}} / on (instance) {other}{{instance="host-{host}:9100"}} > {limit}',
)


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert rule as both sides get it."""

    name: str
    expression: str


def names(number: int) -> dict[str, str]:
    """The labels of one of the series."""
    host, metric = divmod(number, SERIES // HOSTS)
    return {"__name__": f"bench_{metric}", "instance": f"host-{host}:9100", "job": "node", "zone": f"z{host % 4}"}


def rules_of(kind: str, count: int) -> list[Rule]:
    """One rule for each of the first series; all values are positive, so the first FIRING breach zero."""
    made = []
    for number in range(count):
        host, metric = divmod(number, SERIES // HOSTS)
        form = MIXED[number % len(MIXED)] if kind == "mixed" else SHAPES[kind]
        limit = 0.001 + number / 1e6 if number < FIRING else 1e15 + number
        text = form.format(metric=f"bench_{metric}", other=f"bench_{(metric + 1) % 100}", host=host, limit=repr(limit))
        made.append(Rule(f"Bench{number}", text))
    return made


def values(step: int) -> np.ndarray[Any, Any]:
    """float64[SERIES] of one moment: counters, so that a rate is positive, too."""
    return np.arange(1, SERIES + 1) * (step + 1.0)


@contextmanager
def messages() -> Iterator[None]:
    """A Valkey as the portal starts it: what changes is told to pages and wakes the senders."""
    folder = Path(tempfile.mkdtemp(prefix="portal-bench-"))
    valkey = embedded.Valkey(folder, folder / "s", log=folder / "valkey.log")
    valkey.prepare()
    process = valkey.start()
    try:
        embedded.wait_ready(valkey, process)
        os.environ["REDIS_URL"] = valkey.url
        yield
    finally:
        embedded.stop(process, embedded.Valkey.stop_signal, 10)
        shutil.rmtree(folder, ignore_errors=True)


# --- Ours -----------------------------------------------------------------------------------------------------------


class Portal:
    """The store and the rules of this process."""

    def __init__(self, cpu: Cpu, rules: list[Rule]) -> None:
        from apps.accounts.permissions import Principal
        from apps.alerting import services
        from apps.alerting.models import Alert, AlertRule, Incident, RuleGroup, Transition

        self.by = Principal.system(RIGHTS_OF)
        self.cpu = cpu
        self.labels = [names(number) for number in range(SERIES)]
        self.keys = ["\xff".join(f"{k}={v}" for k, v in one.items()).encode() for one in self.labels]
        self.step = 0
        for model in (Transition, Alert, Incident, AlertRule, RuleGroup):
            model.objects.all().delete()
        setup = Principal.system("test")
        for _ in range(31):
            self.feed()
        group = services.save_group(by=setup, group=RuleGroup(name="bench", interval=INTERVAL), now=self.now)
        for rule in rules:
            made = services.rule_from_dict(
                {"slug": rule.name.lower(), "name": rule.name, "expression": rule.expression}, group=group
            )
            services.save_rule(by=setup, rule=made, levels=[{"severity": "warning"}], now=self.now)

    @property
    def now(self) -> Any:
        return START + INTERVAL * self.step + timedelta(seconds=2)

    def feed(self) -> None:
        """One round of all series."""
        from apps.metrics import services
        from apps.metrics.samples import Samples

        self.step += 1
        stamp = np.full(SERIES, START_MS + self.step * INTERVAL // timedelta(milliseconds=1))
        samples = Samples(self.keys, self.labels.__getitem__, stamp, values(self.step))
        services.ingest(samples=samples, by=self.by, now=self.now)

    def tick(self) -> tuple[float, float, float]:
        """(seconds, CPU-seconds of this process, of the database) of one evaluation, after a round of samples."""
        from apps.alerting import evaluation

        self.feed()
        self.cpu.lap()
        started = time.perf_counter()
        evaluated = evaluation.evaluate(now=self.now)
        took = time.perf_counter() - started
        assert evaluated == 1
        return took, *self.cpu.lap()

    def firing(self) -> int:
        from apps.alerting.models import Alert

        return Alert.objects.filter(state="firing").count()


# --- Theirs ---------------------------------------------------------------------------------------------------------


class _Exposition(http.server.BaseHTTPRequestHandler):
    """The same series for a scrape."""

    started = time.monotonic()
    heads = tuple(
        '{__name__}{{instance="{instance}",job="{job}",zone="{zone}"}}'.format(**names(number))
        for number in range(SERIES)
    )

    def do_GET(self) -> None:
        step = int((time.monotonic() - self.started) / SCRAPE)
        rows = zip(self.heads, values(step).tolist(), strict=True)
        body = "".join([f"{head} {value}\n" for head, value in rows]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: a scrape a second is no news."""


def expose() -> None:
    """Serve them until this process is ended; a process of its own, since ours is the one that is measured."""
    target = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Exposition)
    print(target.server_address[1], flush=True)
    target.serve_forever()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CONFIG: Final = """
global: {{scrape_interval: {scrape}s, evaluation_interval: {evaluation}s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: bench
    honor_labels: true
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """A real one on a free port; its rules see what it scrapes from this process."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.seen = 0.0
        self.process = psutil.Process(pid)

    def cpu(self) -> tuple[float, float]:
        """CPU-seconds that it has used and evaluations that it has done, so far."""
        used = self.process.cpu_times()
        return used.user + used.system, self.metric("prometheus_rule_group_iterations_total{")

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def tick(self) -> float:
        """Seconds that the newest evaluation took, waited for where it was seen before."""
        while True:
            at = self.metric("prometheus_rule_group_last_evaluation_timestamp_seconds{")
            if at > self.seen:
                self.seen = at
                return self.metric("prometheus_rule_group_last_duration_seconds{")
            time.sleep(0.05)

    def firing(self) -> int:
        with urllib.request.urlopen(f"{self.url}/api/v1/alerts", timeout=10) as answer:
            return bytes(answer.read()).count(b'"state":"firing"')


@contextmanager
def prometheus(binary: str, rules: list[Rule]) -> Iterator[Prometheus]:
    """Started, fed and evaluating; stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="portal-bench-"))
    target = subprocess.Popen([sys.executable, "-m", "benchmarks.rules", "--expose"], stdout=subprocess.PIPE)
    assert target.stdout is not None
    config = CONFIG.format(scrape=SCRAPE, evaluation=EVALUATION, port=int(target.stdout.readline()))
    (folder / "prometheus.yml").write_text(config)
    port = _free_port()
    listed = "".join(
        f"      - alert: {rule.name}\n        expr: '{rule.expression}'\n        labels: {{severity: warning}}\n"
        for rule in rules
    )
    (folder / "rules.yml").write_text(f"groups:\n  - name: bench\n    rules:\n{listed}")
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )
    try:
        other = Prometheus(f"http://127.0.0.1:{port}", process.pid)
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{other.url}/-/ready", timeout=10):
                    break
            except OSError as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("Prometheus did not start:\n" + (folder / "log").read_text()[-2000:]) from error
                time.sleep(0.2)
        yield other
    finally:
        process.terminate()
        process.wait(30)
        target.terminate()
        target.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


# --- The run --------------------------------------------------------------------------------------------------------


def middle(taken: list[float]) -> str:
    ordered = sorted(taken)
    return (
        f"{statistics.median(ordered) * 1000:7.1f} ms  (best {ordered[0] * 1000:.1f}, worst {ordered[-1] * 1000:.1f})"
    )


def compare(cpu: Cpu, kind: str, count: int, ticks: int, binary: str | None) -> None:
    """Print both sides' figures for one kind of rules."""
    rules = rules_of(kind, count)
    ours = Portal(cpu, rules)
    for _ in range(3):
        ours.tick()  # statements are prepared, rules parsed, alerts begun
    mine: list[tuple[float, float, float]] = []
    theirs: list[float] = []
    used = evaluated = 0.0
    if binary is None:
        mine = [ours.tick() for _ in range(ticks)]
    else:
        with prometheus(binary, rules) as other:
            until = time.monotonic() + 60
            while other.firing() < FIRING and time.monotonic() < until:
                time.sleep(0.5)
            before = other.cpu()
            for _ in range(ticks):
                theirs.append(other.tick())
                mine.append(ours.tick())
            assert other.firing() == FIRING, other.firing()
            used, evaluated = (now - then for now, then in zip(other.cpu(), before, strict=True))
    assert ours.firing() == FIRING, ours.firing()
    wall = [one for one, _, _ in mine]
    print(f"\n{kind}: {count} rules, {FIRING} firing, {ticks} ticks")
    print(f"  ours            {middle(wall)}")
    print(f"  CPU a tick      {statistics.median(one for _, one, _ in mine) * 1000:7.1f} ms of the worker, ", end="")
    print(f"{statistics.mean(one for _, _, one in mine) * 1000:.1f} ms of the database")
    if theirs:
        print(f"  Prometheus      {middle(theirs)}")
        print(f"  its CPU a tick  {used / evaluated * 1000:7.1f} ms, a fifth of a scrape of {SERIES:,} series included")
        best = min(wall) / min(theirs)
        print(f"  ours / theirs   {statistics.median(wall) / statistics.median(theirs):7.2f}     ", end="")
        print(f"(goal ≤ 1.0; of the best of each {best:.2f})")


def main() -> None:
    """Run every kind asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=1_000)
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--kinds", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--profile", action="store_true", help="where the time of one of our ticks goes")
    parser.add_argument("--expose", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.expose:
        expose()
    binary = None if options.alone else shutil.which("prometheus")
    if binary is None and not options.alone:
        print("There is no Prometheus in PATH: ours only.")
    with server() as pid, messages():
        import django

        django.setup()
        from monitoring_portal.celery import configure

        configure()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        for kind in options.kinds:
            if options.profile:
                profile(Cpu(pid), kind, options.rules)
            else:
                compare(Cpu(pid), kind, options.rules, options.ticks, binary)


def profile(cpu: Cpu, kind: str, count: int) -> None:
    """The functions of one tick by their own time."""
    import cProfile
    import pstats

    ours = Portal(cpu, rules_of(kind, count))
    for _ in range(3):
        ours.tick()
    watch = cProfile.Profile()
    for _ in range(5):
        ours.feed()
        from apps.alerting import evaluation

        watch.enable()
        evaluation.evaluate(now=ours.now)
        watch.disable()
    pstats.Stats(watch).sort_stats("tottime").print_stats(45)
    pstats.Stats(watch).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
