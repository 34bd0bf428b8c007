"""The process that lets the demo's clinic live on: it answers scrapes and checks, pushes events, calls heartbeats.

It listens on this machine alone and knows the portal only through its verbs and its scraper.
"""

import contextlib
import logging
import signal
import sys
import threading
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from django.conf import settings
from django.db import close_old_connections, connection
from django.utils import timezone

from apps.sources import heartbeats
from apps.sources.models import Heartbeat
from monitoring_portal import embedded
from monitoring_portal.demo import clinic, desk, gate, story

log = logging.getLogger(__name__)
EVERY: Final = 15.0


class Clinic(BaseHTTPRequestHandler):
    """The clinic's metrics, and pages that checks ask; payments fail while the provider refuses them."""

    began = 0.0
    """When the demo was first written (s)."""

    def do_GET(self) -> None:
        """Answer."""
        now = np.full(1, time.time())
        if self.path == "/metrics":
            self._answer(200, story.exposition(float(now[0]), self.began))
        elif self.path == "/payments" and clinic.PAYMENTS.share(now)[0]:
            self._answer(503, "The payment provider refuses payments.")
        else:
            self._answer(200, "The clinic is open.")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
        """Say nothing: a scrape each few seconds is no news."""


def listen() -> ThreadingHTTPServer:
    """Listen where the portal asks, or at any port where that is taken."""
    with contextlib.suppress(OSError):
        return ThreadingHTTPServer(("127.0.0.1", story.port()), Clinic)
    return ThreadingHTTPServer(("127.0.0.1", 0), Clinic)


def open_gates() -> dict[str, gate.Gate]:
    """Let the demo's PostgreSQL and Valkey be reached by who measures them; gates by kind of server."""
    places = {
        "postgres": (Path(connection.get_connection_params()["host"]) / embedded.POSTGRES_SOCKET, gate.postgres),
        "redis": (Path(urlsplit(settings.REDIS_URL).path), gate.valkey),
    }
    return {
        kind: gate.Gate(port, place, user=desk.READER, password=desk.password(), keeper=keeper).opened()
        for port, (kind, (place, keeper)) in enumerate(places.items(), story.PORT + 1)
    }


def live_on(*, since: float, now: datetime, told: float = 0.0) -> None:
    """What happened from since (s) until now: events (those until told stand already), heartbeats' calls, troubles."""
    until = now.timestamp()
    if told < until:
        story.push_events(since=max(since, told), until=until, now=now)
    for name, minutes in story.BEATS:
        every = 60 * minutes
        is_late = name == story.LATE and until < story.began() + clinic.RESULTS  # that is the story
        if since // every < until // every and not is_late:
            beat = Heartbeat.objects.filter(name=name, enabled=True).first()
            if beat is not None:
                heartbeats.ping(beat=beat, call=heartbeats.Call("success", agent="curl/8.5.0"), now=now)
    for trouble in clinic.TROUBLES:
        for begin in trouble.begins(since - clinic.DAY, until):
            for at, step in story.moments(trouble, begin):
                if since < at <= until:
                    step(now)


def run(stopping: threading.Event) -> None:
    """Serve and live until told to stop; a round that fails is logged and the next one goes on from where it was."""
    told = story.catch_up(now=timezone.now())
    Clinic.began = story.began()
    server = listen()
    threading.Thread(target=server.serve_forever, name="clinic", daemon=True).start()
    story.point_at(server.server_address[1], now=timezone.now())
    desk.make()
    desk.live_on(now=timezone.now())
    gates = open_gates()
    story.measured({kind: made.address for kind, made in gates.items()}, now=timezone.now())
    since = time.time()
    while not stopping.wait(EVERY - time.time() % EVERY):
        now = timezone.now()
        # After a pause (a laptop that slept) only the last minutes are lived again.
        since = max(since, (now - timedelta(minutes=10)).timestamp())
        try:
            close_old_connections()
            live_on(since=since, now=now, told=told)
            desk.live_on(now=now)
            since = now.timestamp()
        except Exception:
            log.exception("The demo's clinic could not tell what happened; it tries again in %.0f s.", EVERY)
    for one in (server, *gates.values()):
        one.shutdown()


def main() -> None:
    """Be the role."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    run(stopping)
    sys.stdout.flush()
