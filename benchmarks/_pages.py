"""What the benchmarks of pages and of live push share: a portal with a day of 1,000 series, a dashboard of 20 panels,
people who are logged in."""

import json
import subprocess
import sys
import time
from typing import Any, Final

import httpx
import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks.ingest import Frames
from monitoring_portal.testing import ROOT, Portal

TOKEN: Final = "benchmark-token-of-the-portal"
HOSTS: Final = 100
STEP_MS: Final = 30_000
DASHBOARD: Final = "bench"
PLAIN: Final = (("temperature_celsius", 40, 15), ("memory_used_bytes", 4e9, 2e9), ("queue_length", 20, 18))
"""Gauges: name, middle and swing."""
COUNTERS: Final = (
    *(("requests_total", "code", code, rate) for code, rate in (("200", 40), ("404", 2), ("500", 1), ("503", 0.2))),
    *(("cpu_seconds_total", "mode", mode, rate) for mode, rate in (("user", 0.3), ("system", 0.1), ("iowait", 0.02))),
)
"""Counters: name, label, its value, and how much a second they grow."""
SECOND: Final = "bench_second"
"""One more series: the second (since 1970) of its own sample, so that an answer tells which samples it has."""
WINDOW: Final = "[$__rate_interval]"
ONE: Final = 'host="host-007"'
PANELS: Final = (
    ("timeseries", "Requests by code", "sum by (code) (rate(bench_requests_total[$__rate_interval]))"),
    ("timeseries", "Busiest hosts", "topk(5, sum by (host) (rate(bench_requests_total[$__rate_interval])))"),
    ("timeseries", "CPU by mode", "sum by (mode) (rate(bench_cpu_seconds_total[$__rate_interval]))"),
    ("timeseries", "Hottest CPUs", 'topk(8, rate(bench_cpu_seconds_total{mode="user"}[$__rate_interval]))'),
    ("timeseries", "Temperature", "avg(bench_temperature_celsius)"),
    ("timeseries", "Highest temperature", "max(bench_temperature_celsius)"),
    ("timeseries", "Temperature, p95", "quantile(0.95, bench_temperature_celsius)"),
    ("timeseries", "Memory of the ten largest", "topk(10, bench_memory_used_bytes)"),
    ("timeseries", "Memory in all", "sum(bench_memory_used_bytes)"),
    ("timeseries", "Newest sample", "max(bench_second)"),
    ("timeseries", "Longest queues", "topk(5, max by (host) (bench_queue_length))"),
    (
        "timeseries",
        "Error ratio",
        f"sum(rate(bench_requests_total{{code=~'5..'}}{WINDOW})) / sum(rate(bench_requests_total{WINDOW}))",
    ),
    ("timeseries", "CPU of one host", f"rate(bench_cpu_seconds_total{{{ONE}}}[$__rate_interval])"),
    ("timeseries", "Requests of one host", f"rate(bench_requests_total{{{ONE}}}[$__rate_interval])"),
    ("timeseries", "Memory of one host", f"bench_memory_used_bytes{{{ONE}}}"),
    ("timeseries", "Average of an hour", f"avg_over_time(bench_temperature_celsius{{{ONE}}}[1h])"),
    ("stat", "Hosts with a queue", "count(bench_queue_length > 30)"),
    ("timeseries", "Spread of temperature", "stddev(bench_temperature_celsius)"),
    ("gauge", "Coolest", "min(bench_temperature_celsius)"),
    ("table", "Requests in an hour", "topk(20, sum by (host, code) (increase(bench_requests_total[1h])))"),
)

SETUP: Final = """
import json, sys
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone
from apps.accounts.models import User
from apps.dashboards.models import Dashboard
given = json.loads(sys.stdin.read())
if given["document"]:
    Dashboard.objects.get_or_create(slug=given["slug"], defaults=dict(
        title="Twenty panels", document=given["document"], updated_at=timezone.now()))
keys = []
for number in range(given["sessions"]):
    name = f"bench-{number % given['people']}"
    user = User.objects.filter(username=name).first() or User.objects.create_user(name)
    user.groups.add(Group.objects.get_or_create(name=given["role"])[0])
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    keys.append(session.session_key)
print("KEYS", json.dumps(keys))
"""


def label_sets() -> list[dict[str, str]]:
    """The 1,000 series, ten of each host, and the one that tells the time."""
    found = []
    for number in range(HOSTS):
        own = {"host": f"host-{number:03}", "zone": f"zone-{number % 4}", "job": "bench"}
        found += [{"__name__": f"bench_{name}", **own, label: value} for name, label, value, _ in COUNTERS]
        found += [{"__name__": f"bench_{name}", **own} for name, _, _ in PLAIN]
    return [*found, {"__name__": SECOND, "job": "bench"}]


def values(second: float) -> NDArray[np.float64]:
    """What all series say at that second."""
    host = np.arange(HOSTS)
    wave = np.sin(second / 3_000 + host)
    columns = [rate * (1 + host % 7 / 7) * (second + 900 * np.sin(second / 900 + host)) for *_, rate in COUNTERS]
    columns += [middle + swing * wave for _, middle, swing in PLAIN]
    return np.append(np.stack(columns, axis=1).ravel(), second)


class Sender:
    """Writes all series at one time, as a Prometheus would, in one request."""

    def __init__(self, url: str) -> None:
        self._frames = Frames(label_sets())
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

    def send(self, ms: int) -> None:
        v = values(ms / 1000)
        body = self._frames.body(np.full(len(v), ms), v)
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        answer = self._client.post("/api/v1/write", content=body, headers=headers)
        if answer.status_code >= 300:
            raise SystemExit(f"Writing ended with {answer.status_code}: {answer.text[:300]}")


def fill(portal: Portal, hours: float) -> Sender:
    """Send so many hours up to now, and wait until they are compacted as they would be."""
    sender = Sender(portal.url)
    end = int(time.time() * 1000) // STEP_MS * STEP_MS
    for ms in range(end - int(hours * 3_600_000), end + 1, STEP_MS):
        sender.send(ms)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with psycopg.connect(portal.database_url) as connection:
            row = connection.execute("SELECT coalesce(sum(samples), 0) FROM metrics_batch").fetchone()
        if row and row[0] < 1_100_000:
            break
        time.sleep(1)
    return sender


def document() -> dict[str, Any]:
    """The dashboard of twenty panels, three in a row."""
    return {
        "panels": [
            {"id": f"p{n}", "kind": kind, "title": title, "x": n % 3 * 8, "y": n // 3 * 8, "w": 8, "h": 8}
            | {"queries": [{"expression": text}]}
            for n, (kind, title, text) in enumerate(PANELS)
        ]
    }


def prepare(
    portal: Portal, *, sessions: int, people: int = 20, role: str = "viewer", with_dashboard: bool = True
) -> list[str]:
    """Make the dashboard and log so many browsers in; returns their session keys."""
    given = {
        "slug": DASHBOARD, "document": document() if with_dashboard else None, "sessions": sessions, "people": people,
        "role": role,
    }  # fmt: skip
    keys: list[str] = json.loads(shell(portal, SETUP, "KEYS", given=json.dumps(given)))
    return keys


def shell(portal: Portal, code: str, word: str, *, given: str = "") -> str:
    """Run code in the portal's shell; returns what stands behind the word that begins a line of what it prints."""
    environment = portal.environment | {"DATABASE_URL": portal.database_url, "REDIS_URL": portal.redis_url}
    command = (sys.executable, "manage.py", "shell", "-v", "0", "-c", code)
    found = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    line = next((line for line in found.stdout.splitlines() if line.startswith(f"{word} ")), None)
    if line is None:
        raise SystemExit(f"Preparing ended with {found.returncode}: {found.stdout}{found.stderr}")
    return line.removeprefix(f"{word} ")
