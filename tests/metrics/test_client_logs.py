"""What another project logs reaches the portal by the one sender of its process, and never troubles who logs."""

import gzip
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from apps.core import sending
from apps.metrics.client import reporting
from apps.metrics.client.logs import PortalHandler
from apps.sources.logs.formats import Defaults, read_json

log = logging.Logger("shop.views")  # noqa: LOG001
"""Without a parent: what pytest keeps of a log goes from worker to runner, which takes nothing but UTF-8."""


class Portal(ThreadingHTTPServer):
    """Takes what is posted; `status` is its answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.raw: list[bytes] = []
        self.bodies: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Portal

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        if self.path == "/api/v1/portal/logs":
            self.server.raw.append(body)
            self.server.bodies.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def portal(settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal]:
    server = Portal()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.PORTAL_METRICS_URL = f"http://127.0.0.1:{server.server_port}"
    settings.PORTAL_METRICS_SERVICE = "shop"
    monkeypatch.setattr(sending, "FIRST", 0.0)
    monkeypatch.setattr("apps.core.logbook.LogFeed.every", 0.02)
    monkeypatch.setattr(reporting, "_sender", sending.Sender(settings.PORTAL_METRICS_URL, "t"))
    yield server
    reporting.stop()
    server.shutdown()
    server.server_close()


@pytest.fixture
def handler() -> Iterator[PortalHandler]:
    made = PortalHandler("INFO")
    log.addHandler(made)
    yield made
    log.removeHandler(made)


def until(what: Any, seconds: float = 5.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_what_is_logged_arrives_as_the_portal_reads_it(portal, handler):
    log.error("order %d is late", 7, extra={"order": 7})
    assert until(lambda: portal.bodies)
    found = read_json(json.dumps(portal.bodies[0]).encode(), Defaults(0))
    (record,) = found.records
    assert (record.service, record.level, record.message) == ("shop", "error", "order 7 is late")
    assert '"extra.order":"7"' in record.attributes
    assert found.key


def test_what_json_cannot_hold_does_not_take_the_other_records_with_it(portal, handler):
    log.error("no file %s", os.fsdecode(b"caf\xe9"), extra={"share": math.nan, "size": 10**30})
    log.error("the next one")
    assert until(lambda: sum(len(body["records"]) for body in portal.bodies) == 2)
    found = [record for raw in portal.raw for record in read_json(raw, Defaults(0)).records]
    assert [record.message for record in found] == ["no file caf?", "the next one"]
    assert '"extra.share":"nan"' in found[0].attributes


def test_a_parcel_that_did_not_arrive_is_sent_again_under_its_key(portal, handler):
    portal.status = 503
    log.error("one")
    assert until(lambda: portal.bodies)
    portal.status = 200
    assert until(lambda: len(portal.bodies) > 1)
    assert portal.bodies[0] == portal.bodies[1]


def test_what_the_sender_says_of_a_portal_that_is_away_is_not_sent_to_it(portal, handler):
    logging.getLogger("apps.core.sending").addHandler(handler)
    logging.getLogger("apps.core.sending").error("it does not answer")
    logging.getLogger("apps.core.sending").removeHandler(handler)
    assert not handler.waiting


def test_without_an_address_nothing_waits_and_nothing_fails(settings, handler):
    settings.PORTAL_METRICS_URL = ""
    log.error("nobody hears it")
    assert (handler.is_off, len(handler.waiting)) == (True, 0)
