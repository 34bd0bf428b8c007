"""The sender of the wheel: it posts, keeps, backs off, begins anew in a fork, and troubles nobody."""

import gzip
import logging
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from apps.core import sending
from apps.core.sending import Feed, Sender


class Portal(ThreadingHTTPServer):
    """Takes what is posted, and answers `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Portal

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.taken.append((self.path, headers, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"said")

    def do_GET(self) -> None:  # what a followed redirect would be
        self.server.taken.append((self.path, {}, b""))

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Numbers(Feed):
    """Its parcels are numbers, each once."""

    path = "/numbers"
    every = 0.01

    def __init__(self, *, keeps: bool = False) -> None:
        self.keeps = keeps
        self.next = 0
        self.most = 10_000
        self.lasts = 0
        self.forks = 0

    def take(self, *, last: bool) -> bytes | None:
        self.lasts += last
        if self.next >= self.most:
            return None
        self.next += 1
        return str(self.next).encode()

    def forked(self) -> None:
        self.forks += 1


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal]:
    monkeypatch.setattr(sending, "FIRST", 0.01)
    with Portal() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def begin() -> Iterator[Callable[..., Sender]]:
    begun: list[Sender] = []

    def make(address: str, *feeds: Feed, token: str = "") -> Sender:
        sender = Sender(address, token, list(feeds))
        begun.append(sender)
        sender.ensure()
        return sender

    yield make
    for sender in begun:
        sender.stop()


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("It did not come.")


def bodies(portal: Portal) -> list[bytes]:
    return [body for _, _, body in portal.taken]


def test_what_feeds_hold_is_posted_with_the_token_and_a_last_time_at_the_end(portal, begin):
    numbers = Numbers()
    sender = begin(portal.address + "/", numbers, token="a-token")
    until(lambda: len(portal.taken) >= 3)
    sender.stop()
    path, headers, _ = portal.taken[0]
    assert (path, headers["authorization"], headers["content-type"]) == (
        "/numbers",
        "Bearer a-token",
        Feed.content_type,
    )
    assert bodies(portal) == [str(n + 1).encode() for n in range(numbers.next)]
    assert numbers.lasts == 1


def test_a_large_parcel_is_packed(portal, begin):
    class Large(Numbers):
        def take(self, *, last: bool) -> bytes | None:
            return b"x" * 10_000

    begin(portal.address, Large())
    until(lambda: portal.taken)
    _, headers, body = portal.taken[0]
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) < 200
    assert body == b"x" * 10_000


def test_a_feed_that_keeps_loses_nothing_while_the_portal_is_away_and_catches_up_at_once(portal, begin, caplog):
    caplog.set_level(logging.INFO, logger=sending.__name__)
    numbers = Numbers(keeps=True)
    numbers.most = 20
    portal.status = 503
    begin(portal.address, numbers)
    until(lambda: len(portal.taken) >= 3)
    portal.status = 200
    until(lambda: b"20" in bodies(portal))
    assert list(dict.fromkeys(bodies(portal))) == [str(n + 1).encode() for n in range(20)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "answers 503: said" in caplog.text


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Retry-After": "\xb2"}])
def test_an_answer_that_breaks_off_or_makes_no_sense_loses_nothing(portal, begin, headers):
    numbers = Numbers(keeps=True)
    numbers.most = 3
    portal.status, portal.headers = 503, headers
    begin(portal.address, numbers)
    until(lambda: len(portal.taken) >= 2)
    portal.status, portal.headers = 200, {}
    until(lambda: b"3" in bodies(portal))
    assert bodies(portal)[:2] == [b"1", b"1"]


def test_a_feed_that_does_not_keep_takes_anew(portal, begin):
    numbers = Numbers()
    portal.status = 503
    begin(portal.address, numbers)
    until(lambda: len(portal.taken) >= 3)
    assert bodies(portal)[:3] == [b"1", b"2", b"3"]


def test_a_parcel_that_is_refused_for_what_it_holds_is_dropped_and_said_once(portal, begin, caplog):
    portal.status = 400
    begin(portal.address, Numbers(keeps=True))
    until(lambda: len(portal.taken) >= 3)
    assert bodies(portal)[:3] == [b"1", b"2", b"3"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (401, {}, "does not accept the token (401)"),
        (404, {}, "is not that of a portal"),
        (307, {"Location": "http://elsewhere.example/"}, "points to http://elsewhere.example/"),
    ],
)
def test_what_is_wrong_is_said_so_that_it_can_be_mended(portal, begin, caplog, status, headers, sentence):
    portal.status, portal.headers = status, headers
    begin(portal.address, Numbers(), token="a-token")
    until(lambda: len(portal.taken) >= 2)
    assert sentence in caplog.text
    assert len(caplog.records) == 1
    assert "a-token" not in caplog.text


def test_a_redirect_takes_the_token_nowhere(portal, begin):
    portal.status, portal.headers = 302, {"Location": f"{portal.address}/elsewhere"}
    begin(portal.address, Numbers(), token="a-token")
    until(lambda: len(portal.taken) >= 2)
    assert {path for path, _, _ in portal.taken} == {"/numbers"}


def test_it_asks_less_and_less_often(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    sender = Sender("http://127.0.0.1:1")
    waits = []
    for _ in range(7):
        sender._note(sending.Trouble("away"), 15.0)
        waits.append(sender._not_before - 100.0)
    assert waits == [15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    sender._note(sending.Trouble("busy", wait=10_000.0), 15.0)
    assert sender._not_before - 100.0 == 300.0


def test_one_that_raises_does_not_end_the_others(portal, begin, caplog):
    class Broken(Numbers):
        def take(self, *, last: bool) -> bytes | None:
            raise RuntimeError("no")

    numbers = Numbers()
    begin(portal.address, Broken(), numbers)
    until(lambda: numbers.next >= 5)
    assert len([record for record in caplog.records if "Broken" in record.message]) == 1


def test_a_feed_that_is_full_is_asked_at_once(portal, begin):
    numbers = Numbers(keeps=True)
    numbers.every, numbers.most = 1000.0, 0
    sender = begin(portal.address, numbers)
    until(lambda: sender._turns[0].due > time.monotonic() + 100)
    numbers.most = 3
    sender.wake(numbers)
    until(lambda: len(portal.taken) == 3)


def test_a_fork_begins_anew_with_a_thread_of_its_own(portal, begin):
    numbers = Numbers()
    sender = begin(portal.address, numbers)
    until(lambda: portal.taken)
    child = os.fork()
    if not child:  # pragma: no cover - the child
        numbers.next = 1_000_000
        numbers.most = 2_000_000
        sender.ensure()
        time.sleep(0.5)
        sender.stop()
        os._exit(0 if numbers.forks == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert b"1000001" in bodies(portal)
    assert numbers.forks == 0


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-Drop: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_answer_that_drips_for_ever_does_not_hold_the_sender(begin, monkeypatch, caplog, said):
    monkeypatch.setattr(sending, "FIRST", 0.01)
    monkeypatch.setattr(sending, "TIMEOUT", 0.3)
    calls, is_over = [], threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            calls.append(self.client_address)
            with suppress(OSError):
                self.request.sendall(said)
                while not is_over.wait(0.02):
                    self.request.sendall(b"1")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        begin(f"http://127.0.0.1:{server.server_address[1]}", Numbers(keeps=True))
        until(lambda: len(calls) >= 2)
        is_over.set()
        server.shutdown()
        thread.join()
    assert "did not end in time" in caplog.text or "timed out" in caplog.text


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no address to send to"):
        Sender("portal.example")
