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
from typing import Final

import numpy as np
from django.db import close_old_connections
from django.utils import timezone

from apps.sources import heartbeats
from apps.sources.models import Heartbeat
from monitoring_portal.demo import clinic, story

log = logging.getLogger(__name__)
EVERY: Final = 15.0
CALLS: Final = (("Nightly backup", 86_400), ("Insurance export", 3600))
"""Heartbeats and how often they call (s). The laboratory's import is late: that is the story."""


class Clinic(BaseHTTPRequestHandler):
    """Its metrics, and pages that checks ask; payments fail while the provider refuses them."""

    def do_GET(self) -> None:
        """Answer."""
        now = np.full(1, time.time())
        if self.path == "/metrics":
            self._answer(200, story.exposition(float(now[0])))
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
    """Listen at the demo's port, or at any where that is taken."""
    with contextlib.suppress(OSError):
        return ThreadingHTTPServer(("127.0.0.1", story.PORT), Clinic)
    return ThreadingHTTPServer(("127.0.0.1", 0), Clinic)


def live_on(*, since: float, now: datetime, told: float = 0.0) -> None:
    """What happened from since (s) until now: events (those until told stand already), heartbeats' calls, troubles."""
    until = now.timestamp()
    if told < until:
        story.push_events(since=max(since, told), until=until, now=now)
    for name, every in CALLS:
        if since // every < until // every:
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
    server = listen()
    threading.Thread(target=server.serve_forever, name="clinic", daemon=True).start()
    story.point_at(server.server_address[1], now=timezone.now())
    since = time.time()
    while not stopping.wait(EVERY - time.time() % EVERY):
        now = timezone.now()
        # After a pause (a laptop that slept) only the last minutes are lived again.
        since = max(since, (now - timedelta(minutes=10)).timestamp())
        try:
            close_old_connections()
            live_on(since=since, now=now, told=told)
            since = now.timestamp()
        except Exception:
            log.exception("The demo's clinic could not tell what happened; it tries again in %.0f s.", EVERY)
    server.shutdown()


def main() -> None:
    """Be the role."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    run(stopping)
    sys.stdout.flush()
