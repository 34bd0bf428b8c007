"""A real Prometheus that scrapes what changes and remote-writes it, and what it holds, read by its remote read.

Remote read tells samples bit for bit, staleness markers among them, which no query does.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import cramjam

from apps.metrics.protocols.protobuf import fields, signed
from tests.metrics.remote_write import chunk, varint

PROGRAM: Final = shutil.which("prometheus")
STALE: Final = 0x7FF0000000000002

Series = dict[frozenset[tuple[str, str]], dict[int, int]]
"""By label set: the bits of each value by its time (ms)."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Exporter:
    """A target of which every scrape differs: counters that start anew, gauges without number, series that go and come,
    and every so often nothing at all."""

    def __init__(self) -> None:
        self.scrapes = 0
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.scrapes += 1
                body = outer.page(outer.scrapes)
                with contextlib.suppress(OSError):  # A scrape that was given up on a busy machine.
                    self.send_response(200 if body else 500)
                    self.send_header("Content-Type", "text/plain; version=0.0.4")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def page(self, turn: int) -> bytes:
        """The page of one scrape; none where it fails."""
        if turn % 23 == 0:
            return b""
        lines = [f'odd_value{{kind="{value}"}} {value}' for value in ("NaN", "+Inf", "-Inf", "-0", "1e-320")]
        lines += [f'jumps_total{{n="{n}"}} {turn * n % 997}' for n in range(40)]
        lines += [f'walk{{n="{n}"}} {math.sin(turn / (n + 1))!r}' for n in range(40)]
        lines += [f'visitor{{turn="{turn // 5}"}} 1', f"steady {turn}"]
        lines += [f'took_seconds_bucket{{le="{le}"}} {turn * 3}' for le in ("0.1", "1", "+Inf")]
        return ("# TYPE jumps_total counter\n" + "\n".join(lines) + "\n").encode()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Prometheus:
    """Debian's Prometheus over a folder, writing to a portal."""

    def __init__(self, folder: Path, url: str, token: str, target: str) -> None:
        assert PROGRAM is not None
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}]},
                {"job_name": "odd", "static_configs": [{"targets": [target]}]},
            ],
            "remote_write": [
                {
                    "url": f"{url}/api/v1/write",
                    "authorization": {"credentials": token},
                    "remote_timeout": "10s",
                    "queue_config": {"max_backoff": "1s", "batch_send_deadline": "1s", "max_shards": 4},
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(str(PROGRAM), f"--config.file={self.folder / 'prometheus.yml'}"),
                    *(f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"),
                    # All of the run fits into a remote read that answers in one piece.
                    *("--storage.remote.read-sample-limit=0", "--log.level=warn"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        deadline = time.monotonic() + 30
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Prometheus did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.1)
        return self

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def figure(self, name: str) -> float:
        """The sum of one of its own figures, as it tells it now."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def held(self, begin_ms: int, end_ms: int) -> Series:
        """All of its samples with begin <= time <= end, by remote read."""
        everything = chunk(3, b"\x08\x02" + chunk(2, b"__name__") + chunk(3, b".*"))
        query = b"\x08" + varint(begin_ms) + b"\x10" + varint(end_ms) + everything
        request = urllib.request.Request(
            f"{self.url}/api/v1/read",
            data=bytes(cramjam.snappy.compress_raw(chunk(1, query))),
            headers={"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            body = bytes(cramjam.snappy.decompress_raw(answer.read()))
        return {labels: samples for result in _inside(body, 1) for labels, samples in map(_series, _inside(result, 1))}


def _inside(message: bytes, field: int) -> Iterator[bytes]:
    return (value for number, _, value in fields(message) if number == field and isinstance(value, bytes))


def _series(message: bytes) -> tuple[frozenset[tuple[str, str]], dict[int, int]]:
    pairs = []
    for label in _inside(message, 1):
        name, value = (next(_inside(label, field), b"").decode() for field in (1, 2))
        pairs.append((name, value))
    samples = {}
    for sample in _inside(message, 2):
        told: Mapping[int, object] = {number: value for number, _, value in fields(sample)}
        bits, at = told.get(1, bytes(8)), told.get(2, 0)
        assert isinstance(bits, bytes)
        assert isinstance(at, int)
        samples[signed(at)] = int(struct.unpack("<Q", bits)[0])
    return frozenset(pairs), samples
