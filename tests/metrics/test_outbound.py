"""Calls of other hosts are counted as they leave, whatever library makes them, and hosts are bounded."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from apps.metrics.client import outbound

CALLS = """
import asyncio, sys, urllib.error, urllib.request
from apps.core import telemetry
from apps.metrics.client import outbound

outbound.watch()
outbound.watch()
import httpx, requests, urllib3  # watched although they come later

url, shut = sys.argv[1:]
requests.get(url)
urllib3.PoolManager(retries=2).request("GET", url + "missing")
httpx.get(url)

async def later():
    async with httpx.AsyncClient() as client:
        await client.get(url)

asyncio.run(later())
urllib.request.urlopen(url).read()
try:
    urllib.request.urlopen(url + "missing")
except urllib.error.HTTPError:
    pass
urllib.request.urlopen("data:,nothing").read()
for call in (requests.get, httpx.get):
    try:
        call(shut)
    except Exception:
        pass
counted = {(r.labels["host"], r.labels["code"]): r.value for r in telemetry.snapshot()
           if r.name == "http_client_request_duration_seconds_count"}
errors = {r.labels["exception"] for r in telemetry.snapshot() if r.name == "http_client_errors_total"}
waiting = [r.value for r in telemetry.snapshot() if r.name == "http_client_requests_in_flight"]
print(sorted(counted.items()), sorted(errors), waiting)
"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.mark.slow
def test_each_library_is_watched_once_and_what_brings_no_answer_counts_by_its_error():
    with HTTPServer(("127.0.0.1", 0), _Handler) as server, HTTPServer(("127.0.0.1", 0), _Handler) as closed:
        shut = f"http://localhost:{closed.server_port}/"
        closed.server_close()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", CALLS, f"http://127.0.0.1:{server.server_port}/", shut]
        done = subprocess.run(
            command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=60, check=False
        )
        server.shutdown()
        thread.join()
    assert done.stderr == ""
    assert done.stdout.strip() == (
        "[(('127.0.0.1', '200'), 4.0), (('127.0.0.1', '404'), 2.0), (('localhost', 'none'), 2.0)] "
        "['ConnectError', 'NewConnectionError'] [0.0]"
    )


def test_hosts_are_bounded_for_users_may_choose_them(monkeypatch):
    monkeypatch.setattr(outbound, "_hosts", set())
    seen = {outbound.host_of(f"User-{number}.example.") for number in range(1000)}
    assert len(seen) == outbound.MOST_HOSTS + 1
    assert outbound.OTHER in seen
    assert outbound.host_of("USER-0.example") == "user-0.example"
    assert outbound.host_of(None) == outbound.OTHER
