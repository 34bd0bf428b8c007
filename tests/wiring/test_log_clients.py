"""Real agents and libraries send logs over real HTTP: OpenTelemetry's Python SDK, and syslog-ng's http destination."""

import logging
import shutil
import socket
import subprocess
import time
from pathlib import Path

import orjson
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from apps.accounts.permissions import EVERYTHING
from apps.sources.logs import search
from apps.sources.logs.search import Line, Wanted

pytestmark = pytest.mark.django_db(transaction=True)
SYSLOG_NG = shutil.which("syslog-ng") or "/usr/sbin/syslog-ng"
CONFIGURATION = """\
@version: 3.35
options {{ stats-freq(0); keep-hostname(yes); }};
source s_in {{ network(ip("127.0.0.1") port({port}) transport("tcp") flags(syslog-protocol)); }};
{destination}
log {{ source(s_in); destination(d_portal); }};
"""


def lines() -> list[Line]:
    """Everything that is stored, oldest first."""
    return search.page(Wanted(0, 2**45), scope=EVERYTHING, limit=100).lines[::-1]


@pytest.mark.filterwarnings("ignore:.LoggingHandler. in")
@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_opentelemetrys_sdk_sends_what_python_logs(server, secret, compression):
    exporter = OTLPLogExporter(
        endpoint=f"{server}/v1/logs", headers={"Authorization": f"Bearer {secret}"}, compression=compression
    )
    provider = LoggerProvider(resource=Resource.create({"service.name": "shop", "host.name": "h1"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    log = logging.getLogger("shop.orders")
    handler = LoggingHandler(logger_provider=provider)
    log.addHandler(handler)
    try:
        log.warning("order %d is late", 7, extra={"customer": "c1"})
        log.error("it broke", exc_info=ValueError("no"))
    finally:
        log.removeHandler(handler)
        provider.shutdown()
    broke, late = sorted(lines(), key=lambda line: line.level)
    assert (late.level, late.service, late.host, late.message) == ("warning", "shop", "h1", "order 7 is late")
    assert (broke.level, broke.message) == ("error", "it broke")
    assert orjson.loads(late.attributes)["customer"] == "c1"
    assert orjson.loads(broke.attributes)["exception.type"] == "ValueError"


def documented(server: str, secret: str) -> str:
    """The destination that docs/logs.md tells users of syslog-ng to write."""
    text = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
    found = text[text.index("destination d_portal {") :]
    found = found[: found.index("};") + 2]
    return found.replace("https://portal.example", server).replace("TOKEN", secret)


@pytest.mark.skipif(not Path(SYSLOG_NG).exists(), reason="Debian's syslog-ng-core and syslog-ng-mod-http are not here")
def test_syslog_ng_sends_as_documented(server, secret, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = tmp_path / "syslog-ng.conf"
    configuration.write_text(CONFIGURATION.format(port=port, destination=documented(server, secret)))
    files = ["-f", configuration, "-R", tmp_path / "persist", "-c", tmp_path / "ctl", f"--pidfile={tmp_path}/pid"]
    agent = subprocess.Popen([SYSLOG_NG, "-F", "-e", "--no-caps", *files], stderr=subprocess.PIPE)
    try:
        sent = b"<11>1 2026-11-29T11:50:16.003Z web1 nginx 78 - - upstream timed out"
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", port)) as there:
                    there.sendall(sent + b"\n")
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        for _ in range(200):
            if lines():
                break
            time.sleep(0.05)
    finally:
        agent.kill()
        _, said = agent.communicate()
    assert [(line.level, line.service, line.host, line.message) for line in lines()] == [
        ("error", "nginx", "web1", "upstream timed out")
    ], said.decode()
