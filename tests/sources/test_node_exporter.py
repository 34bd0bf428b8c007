"""A real node_exporter over TLS with a password; and beside a real Prometheus, which finds the same series."""

import datetime as dt
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.sources.conftest import job, only, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
EXPORTER = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter") or ""
PROMETHEUS = shutil.which("prometheus") or ""
HASH = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
"""bcrypt of "test", from exporter-toolkit's documentation."""
MOVING = {"go_gc_duration_seconds", "promhttp_metric_handler_requests_total", "node_scrape_collector_success"}
"""Families whose series may come and go, or whose values move, between two scrapes of one second."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate(folder) -> str:
    """Write a key and a certificate for exporter.test; return the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exporter.test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("exporter.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    (folder / "cert.pem").write_text(pem)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def started(command: list[str], port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: listening(port) or process.poll() is not None)
    assert process.poll() is None, "it did not start"
    return process


def stopped(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(10)


@pytest.fixture
def exporter(tmp_path) -> Iterator[tuple[str, str]]:
    """(address, CA) of a node_exporter that wants TLS and a password."""
    if not EXPORTER:
        pytest.skip("node_exporter is not installed")
    pem = certificate(tmp_path)
    config = tmp_path / "web.yml"
    config.write_text(
        f"tls_server_config: {{cert_file: {tmp_path}/cert.pem, key_file: {tmp_path}/key.pem}}\n"
        f"basic_auth_users: {{me: {HASH}}}\n"
    )
    port = free_port()
    told = subprocess.run([EXPORTER, "--help"], capture_output=True, text=True, check=False)
    flag = "--web.config.file" if "--web.config.file" in told.stdout + told.stderr else "--web.config"
    process = started([EXPORTER, f"--web.listen-address=127.0.0.1:{port}", f"{flag}={config}"], port)
    yield f"127.0.0.1:{port}", pem
    stopped(process)


def test_node_exporter_is_scraped_over_tls_with_a_password(exporter, rounds):
    address, pem = exporter
    given = {"scheme": "https", "ca": pem, "server_name": "exporter.test", "auth": "basic", "auth_name": "me"}
    job(address, name="node", secrets={"credential": "test"}, **given)
    rounds.run()
    row = only()
    assert (row.health, row.error, row.refused) == ("up", "", 0)
    assert row.kept > 300
    assert rounds.values("node_uname_info")
    job(address, name="wrong", secrets={"credential": "guess"}, **given)
    job(address, name="nameless", secrets={"credential": "test"}, **given | {"server_name": ""})
    job(address, name="unknown", secrets={"credential": "test"}, **given | {"ca": ""})
    rounds.run()
    from apps.sources.models import ScrapeTarget

    errors = {str(row.job): row.error for row in ScrapeTarget.objects.all().with_job()}
    assert errors["wrong"] == "The target answered with HTTP status 401 instead of 200."
    assert "certificate verify failed" in errors["nameless"]
    assert "certificate verify failed" in errors["unknown"]


def test_the_portal_and_a_real_prometheus_find_the_same_series_with_the_same_values(tmp_path, rounds):
    if not (EXPORTER and PROMETHEUS):
        pytest.skip("node_exporter or prometheus is not installed")
    port, own = free_port(), free_port()
    names = ("uname", "filesystem", "meminfo", "cpu", "netclass", "loadavg", "time", "filefd")
    still = ["--collector.disable-defaults", *(f"--collector.{name}" for name in names)]
    processes = [started([EXPORTER, f"--web.listen-address=127.0.0.1:{port}", *still], port)]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n- job_name: node\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n"
        f"  - {{targets: ['127.0.0.1:{port}'], labels: {{zone: x}}}}\n"
    )
    try:
        processes.append(
            started(
                [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
                 f"--web.listen-address=127.0.0.1:{own}"],
                own,
            )
        )  # fmt: skip
        api = f"http://127.0.0.1:{own}/api/v1"
        wait_for(lambda: len(asked(f'{api}/query?query={{job="node"}}')) > 50, 20)
        job(name="node", targets=[{"targets": [f"127.0.0.1:{port}"], "labels": {"zone": "x"}}])
        rounds.run()
        time.sleep(1.2)
        theirs = {key_of(one["metric"]): float(one["value"][1]) for one in asked(f'{api}/query?query={{job="node"}}')}
    finally:
        for process in processes:
            stopped(process)
    ours = {}
    found = rounds.everything("node")
    for labels, value in found:
        ours[key_of(labels)] = value
    steady = {key for key in {*ours, *theirs} if dict(key)["__name__"] not in MOVING}
    assert {key for key in steady if key in ours} == {key for key in steady if key in theirs}
    same = [key for key in steady if ours[key] == theirs[key] or ours[key] != ours[key]]
    constant = [key for key in steady if dict(key)["__name__"].endswith(("_info", "_size_bytes", "MemTotal_bytes"))]
    assert constant
    assert set(constant) <= set(same)
    assert len(same) > len(steady) * 0.6


def asked(url: str) -> list:
    base, _, question = url.partition("query=")
    try:
        with urllib.request.urlopen(f"{base}query={quote(question)}", timeout=5) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code != 503:  # a Prometheus that is still starting
            raise
        return []


def key_of(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))
