"""From a sample's commit to the receiver of its alert: ours beside a Prometheus with its Alertmanager, in one run.

`./portal bench latency`. Both sides take the same remote-write request of one new series, judge `latency_probe > 0`
each second, have no group wait, and post to a webhook of this process. A round sends to one side, waits for its
message, then to the other, at random moments of the second. The clock starts when the write is answered, so when the
sample is committed. `on arrival` is the same rule in a group of the portal that new samples wake.
"""

import argparse
import http.server
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.portal import TOKEN
from benchmarks.rules import _free_port as free_port
from monitoring_portal.testing import Portal
from tests.metrics.remote_write import packed, series

PATIENCE: Final = 15.0


class Receiver:
    """A webhook; when each probe was first told of is kept by its number."""

    def __init__(self) -> None:
        told = self.told = {}  # type: dict[str, float]
        news = self.news = threading.Condition()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.perf_counter()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with news:
                    for alert in body["alerts"]:
                        if alert["status"] == "firing":
                            told.setdefault(alert["labels"].get("probe", ""), at)
                    news.notify_all()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, probe: str) -> float:
        with self.news:
            if not self.news.wait_for(lambda: probe in self.told, PATIENCE):
                raise SystemExit(f"Nobody told of {probe} within {PATIENCE:g} s.")
            return self.told[probe]


def write(url: str, metric: str, probe: str, value: float, token: str = "") -> float:
    """Send one sample of now; return when its commit was answered."""
    labels = {"__name__": metric, "instance": "bench", "probe": probe}
    request = urllib.request.Request(
        f"{url}/api/v1/write",
        data=packed(series(labels, [(int(time.time() * 1000), value)])),
        headers={
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
    )
    with urllib.request.urlopen(request, timeout=10):
        return time.perf_counter()


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def peers(folder: Path, hook: str, stack: ExitStack) -> str:
    """Start a Prometheus that is written to and its Alertmanager; return the address of the first."""
    web, manager = free_port(), free_port()
    (folder / "rules.yml").write_text(
        "groups: [{name: g, interval: 1s, rules: [{alert: Probe, expr: latency_probe > 0}]}]\n"
    )
    (folder / "prometheus.yml").write_text(
        "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{manager}']}}]}}]}}\n"
    )
    (folder / "am.yml").write_text(
        "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: '{hook}'}}]}}]\n"
    )
    stack.enter_context(
        running(
            folder,
            str(shutil.which("prometheus-alertmanager")),
            "--config.file=am.yml",
            "--storage.path=am",
            f"--web.listen-address=127.0.0.1:{manager}",
            "--cluster.listen-address=",
        )
    )
    stack.enter_context(
        running(
            folder,
            str(shutil.which("prometheus")),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.enable-remote-write-receiver",
            f"--web.listen-address=127.0.0.1:{web}",
        )
    )
    url = f"http://127.0.0.1:{web}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()
            return url
        except OSError:
            time.sleep(0.1)
    raise SystemExit("Prometheus did not start.")


def prepare(portal: Portal, hook: str) -> None:
    """Give the portal the rules, the receiver and a route without group wait."""
    import httpx

    with httpx.Client(base_url=portal.url, timeout=20) as admin:
        admin.get("/accounts/login/")
        form = {"username": "admin", "password": portal.password}
        admin.post("/accounts/login/", data=form | {"csrfmiddlewaretoken": admin.cookies["csrftoken"]})

        def send(path: str, body: Any) -> Any:
            headers = {"X-CSRFToken": admin.cookies["csrftoken"]}
            answer = admin.post(f"/api/v1/portal/{path}", json=body, headers=headers)
            if answer.status_code >= 300:
                raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
            return answer.json()

        send("contacts/", {"name": "bench", "kind": "webhook", "settings": {"url": hook}})
        route = {"name": "bench", "matchers": ["instance=bench"], "contacts": ["bench"], "group_by": ["..."]}
        send("routes/", {**route, "group_wait": 0, "group_interval": 1})
        send("rule-groups/", {"name": "ticks", "interval": 1})
        send("rule-groups/", {"name": "arrival", "interval": 30, "on_arrival": True})
        for group, metric in (("ticks", "latency_probe"), ("arrival", "latency_arrival")):
            levels = [{"severity": "critical", "comparison": ">", "threshold": 0}]
            send("rules/", {"slug": group, "name": group, "group": group, "expression": metric, "levels": levels})


def rounds(
    sides: dict[str, Callable[[str, float], float]], receiver: Receiver, numbers: range
) -> dict[str, list[float]]:
    """Seconds by side; no number twice, or a cooldown would hold its second firing."""
    took: dict[str, list[float]] = {side: [] for side in sides}
    for number in numbers:
        for side, send in sides.items():
            probe = f"{side.rpartition(' ')[2]}-{number}"
            time.sleep(random.uniform(0.3, 1.3))
            committed = send(probe, 1.0)
            took[side].append(receiver.wait(probe) - committed)
            send(probe, 0.0)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    chosen = parser.parse_args()
    if not all(map(shutil.which, ("prometheus", "prometheus-alertmanager"))):
        sys.exit("The peers are not on PATH: install the packages prometheus and prometheus-alertmanager.")
    receiver = Receiver()
    environment = {"MONITORING_AUTH_TOKEN": TOKEN, "OUTBOUND_ALLOW": "127.0.0.0/8"}
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        theirs = peers(folder, receiver.url, stack)
        portal = stack.enter_context(Portal(folder, environment))
        prepare(portal, receiver.url)
        time.sleep(5)
        sides: dict[str, Callable[[str, float], float]] = {
            "Prometheus + Alertmanager": lambda probe, value: write(theirs, "latency_probe", probe, value),
            "portal, ticks of 1 s": lambda probe, value: write(portal.url, "latency_probe", probe, value, TOKEN),
            "portal, on arrival": lambda probe, value: write(portal.url, "latency_arrival", probe, value, TOKEN),
        }
        try:
            rounds(sides, receiver, range(2))
            took = rounds(sides, receiver, range(2, 2 + chosen.rounds))
        except SystemExit:
            print(portal.tail())
            raise
    for side, seconds in took.items():
        p50, p95 = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.95)]
        print(f"{side:28} p50 {p50:.3f} s, p95 {p95:.3f} s, most {max(seconds):.3f} s, {len(seconds)} rounds")


if __name__ == "__main__":
    main()
