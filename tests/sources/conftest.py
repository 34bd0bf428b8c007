"""A target that shows what a test wants, a job that asks it, and a scraper that works in turn."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.accounts.rights import ALL_RIGHTS, ROLES
from apps.metrics import query, registry
from apps.promql.source import Matcher
from apps.sources import services
from apps.sources.models import ScrapeJob, ScrapeTarget
from apps.sources.scraping import Scraper

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ADMIN = Principal("user", "1", "ann", ALL_RIGHTS)
EDITOR = Principal("user", "2", "ed", ROLES["editor"])


class Target(ThreadingHTTPServer):
    """Shows `body`, whatever the path; `answer`, if set, does everything by itself. `asked`: headers of requests."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body: bytes = b'a 1\nb{x="1"} 2\n'
        self.status = 200
        self.headers: dict[str, str] = {"Content-Type": "text/plain; version=0.0.4"}
        self.answer: Any = None
        self.asked: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.stop = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Target
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        self.server.paths.append(self.path)
        if self.server.answer is not None:
            self.close_connection = True
            self.server.answer(self)
            return
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Target]:
    server = Target()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def target() -> Iterator[Target]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry.forget()
    yield
    registry.forget()


class Clock:
    """The scraper's clock, moved by the test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Round:
    """Scrapes tick by tick and reads what was stored."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.scraper = Scraper(threads=8, clock=self.clock)

    def run(self) -> int:
        return self.scraper.run(now=self.clock.now)

    def next(self) -> int:
        """Go to the earliest tick and scrape."""
        due = ScrapeTarget.objects.filter(dropped=False, due_at__isnull=False).order_by("due_at").first()
        assert due is not None
        assert due.due_at is not None
        self.clock.now = max(self.clock.now, due.due_at)
        return self.run()

    def values(self, name: str, **labels: str) -> dict[str, list[float]]:
        """Values by label set, as text; a staleness marker is nan."""
        matchers = [Matcher("__name__", "=", name), *(Matcher(key, "=", value) for key, value in labels.items())]
        start = int((NOW - timedelta(hours=1)).timestamp() * 1000)
        got = query.select(matchers, start, start + 7_200_000)
        return {
            ",".join(f"{k}={v}" for k, v in sorted(row.items()) if k not in ("__name__", "job", "instance")): got.v[
                a:b
            ].tolist()
            for row, a, b in zip(got.labels.dicts(), got.off, got.off[1:], strict=False)
        }

    def everything(self, job: str) -> list[tuple[dict[str, str], float]]:
        """The newest sample of every series of a job."""
        start = int((NOW - timedelta(hours=1)).timestamp() * 1000)
        got = query.select([Matcher("job", "=", job)], start, start + 7_200_000)
        return [(row, float(got.v[end - 1])) for row, end in zip(got.labels.dicts(), got.off[1:], strict=True)]

    def times(self, name: str) -> np.ndarray:
        start = int((NOW - timedelta(hours=1)).timestamp() * 1000)
        return query.select([Matcher("__name__", "=", name)], start, start + 7_200_000).ts


@pytest.fixture
def rounds() -> Round:
    return Round()


def job(*addresses: str, by: Principal = ADMIN, secrets: Any = None, now: datetime = NOW, **values: Any) -> ScrapeJob:
    """A job of these addresses."""
    given: dict[str, Any] = {"name": "web", "targets": [{"targets": list(addresses), "labels": {}}]} | values
    return services.save_job(by=by, job=ScrapeJob(**given), now=now, secrets=secrets)


def only() -> Any:
    """The one target there is."""
    return ScrapeTarget.objects.get()


def wait_for(what: Any, seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("It did not come to pass.")


def ticking(scraper: Scraper, until: Any) -> None:
    """Let the clock tick until something has come to pass, and end what it began.

    A driver that lived on would store into the next test's tables, of series whose rows went with this one's.
    """

    def ticked() -> Any:
        scraper.tick(now=timezone.now())
        return until()

    try:
        wait_for(ticked)
    finally:
        scraper.stop()
