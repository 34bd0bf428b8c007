"""A real Prometheus sends its alerts to the portal, amtool works on it, and the portal tells a real Alertmanager."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN
from tests.e2e.receivers import until
from tests.e2e.test_story import Administrator

PROGRAMS = {name: shutil.which(name) for name in ("prometheus", "amtool", "prometheus-alertmanager")}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(PROGRAMS.values()), reason="CI installs the packages prometheus and prometheus-alertmanager"
    ),
]
PATIENCE = 60
RULES = """
groups:
  - name: wire
    interval: 1s
    rules:
      - alert: FromPrometheus
        expr: vector(1) unless on() (wire_is_fine == 1)
        labels: {severity: page, team: wire}
        annotations: {summary: "It is {{ $value }}"}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    """A program of the machine until the end of the block."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module")
def prometheus(portal: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with sending(portal, tmp_path_factory.mktemp("prometheus"), RULES) as port:
        yield port


@contextmanager
def sending(portal: Portal, folder: Path, rules: str) -> Iterator[int]:
    """A Prometheus that sends the alerts of these rules (rules.yml) to the portal; gives its port."""
    (folder / "rules.yml").write_text(rules)
    where = portal.url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {evaluation_interval: 1s}\n"
        "rule_files: [rules.yml]\n"
        "alerting:\n"
        "  alertmanagers:\n"
        f"    - authorization: {{credentials: {TOKEN}}}\n"
        "      path_prefix: /alertmanager\n"
        f"      static_configs: [{{targets: ['{where}']}}]\n"
    )
    port = free_port()
    options = [
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=2s",
        "--web.enable-lifecycle",
    ]
    with running(folder, str(PROGRAMS["prometheus"]), *options):
        yield port


class Amtool:
    """amtool on the portal; the token is the password of its address."""

    def __init__(self, portal: Portal) -> None:
        self.url = portal.url.replace("://", f"://anybody:{TOKEN}@")

    def __call__(self, *arguments: str) -> str:
        command = [str(PROGRAMS["amtool"]), f"--alertmanager.url={self.url}", *arguments]
        environment = {**os.environ, "HOME": "/nonexistent", "USER": "amtool"}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def alerts(self, *arguments: str) -> list[dict]:
        return json.loads(self("--output=json", "alert", "query", *arguments))


@pytest.fixture(scope="module")
def amtool(portal: Portal) -> Amtool:
    return Amtool(portal)


def test_a_real_prometheus_sends_its_alerts_here(portal, prometheus, amtool):
    (alert,) = until(lambda: amtool.alerts("alertname=FromPrometheus"), PATIENCE, "the alert of Prometheus")
    assert alert["labels"] == {"alertname": "FromPrometheus", "severity": "page", "team": "wire"}
    assert alert["annotations"] == {"summary": "It is 1"}
    told = httpx.get(f"{portal.url}/api/monitoring/alerts", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    (seen,) = [one for one in told["alerts"] if one["type"] == "FromPrometheus"]
    assert (seen["severity"], seen["message"]) == ("CRITICAL", "It is 1")


def test_amtool_adds_queries_and_expires_silences(portal, prometheus, amtool):
    until(lambda: amtool.alerts("alertname=FromPrometheus"), PATIENCE, "the alert of Prometheus")
    ident = amtool("silence", "add", "--comment=planned", "--duration=1h", "alertname=FromPrometheus").strip()
    assert ident in amtool("silence", "query", "alertname=FromPrometheus")
    assert amtool.alerts("alertname=FromPrometheus") == []
    (alert,) = amtool.alerts("--silenced", "alertname=FromPrometheus")
    assert alert["status"]["silencedBy"] == [ident]
    amtool("silence", "update", "--duration=2h", "--comment=longer", ident)
    assert "longer" in amtool("silence", "query")
    amtool("silence", "expire", ident)
    assert amtool.alerts("alertname=FromPrometheus") != []
    assert ident not in amtool("silence", "query")


def test_amtool_reads_the_configuration_and_tests_routes(portal, amtool):
    assert "receiver:" in amtool("config", "show")
    assert amtool("config", "routes", "test", "severity=critical").strip()
    assert amtool("config", "routes", "show").strip()
    assert "portal" in amtool("cluster", "show")


def test_an_alert_that_prometheus_sees_end_ends_here(portal, amtool, tmp_path):
    rules = RULES.replace("FromPrometheus", "EndsSoon")
    with sending(portal, tmp_path, rules) as port:
        until(lambda: amtool.alerts("alertname=EndsSoon"), PATIENCE, "the alert of Prometheus")
        (tmp_path / "rules.yml").write_text(rules.replace("vector(1)", "vector(1) < 0"))
        httpx.post(f"http://127.0.0.1:{port}/-/reload").raise_for_status()
        until(lambda: not amtool.alerts("alertname=EndsSoon"), PATIENCE, "the end of the alert")


def test_the_portal_tells_a_real_alertmanager(portal, tmp_path):
    port = free_port()
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    options = [
        "--config.file=alertmanager.yml",
        "--storage.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    there = f"http://127.0.0.1:{port}"
    admin = Administrator(portal)

    def known() -> list[dict]:
        found = httpx.get(f"{there}/api/v2/alerts", params={"filter": 'alertname="wire-test"'}).json()
        return found if isinstance(found, list) else []

    with running(tmp_path, str(PROGRAMS["prometheus-alertmanager"]), *options):
        contact = {"name": "peer", "kind": "alertmanager", "settings": {"url": there}}
        admin.send("POST", "contacts/", contact)
        route = {"name": "to the peer", "matchers": ["alertname=wire-test"], "contacts": ["peer"], "group_wait": 0}
        admin.send("POST", "routes/", route)
        with httpx.Client(base_url=portal.url, headers={"Authorization": f"Bearer {TOKEN}"}) as program:
            body = {"type": "wire-test", "severity": "WARNING", "message": "Told onwards"}
            ident = program.post("/api/monitoring/alerts", json=body).json()["alert"]["id"]
            (alert,) = until(known, PATIENCE, "the alert in the Alertmanager")
            assert (alert["labels"]["severity"], alert["annotations"]["summary"]) == ("warning", "Told onwards")
            assert alert["endsAt"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            program.put("/api/monitoring/alerts", json={"alertId": ident, "resolvedBy": "me"}).raise_for_status()
            until(lambda: not known(), PATIENCE, "its end in the Alertmanager")
