"""The fast lane and what guards Django behind it."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError

from apps.accounts import fastauth
from apps.accounts.rights import Principal, Right
from apps.core.lanes import Answer, Lane, Request
from apps.dashboards import health
from apps.metrics.query import Outrun
from monitoring_portal import fastlane
from monitoring_portal.fastlane import FastLane, bounded


def exchange(
    app: Any, headers: list[tuple[bytes, bytes]], parts: list[bytes], path: str = "/", query: bytes = b""
) -> tuple[int, dict[str, Any]]:
    """Send one request in parts through the ASGI application; return its status and JSON."""
    sent: list[dict[str, Any]] = []
    events = [{"type": "http.request", "body": part, "more_body": n < len(parts) - 1} for n, part in enumerate(parts)]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    scope = {"type": "http", "path": path, "query_string": query, "headers": headers}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


async def reader(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the whole body and says how much it was."""
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size, more = size + len(event["body"]), event["more_body"]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps({"size": size}).encode()})


@pytest.fixture(autouse=True)
def limit(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000


def test_a_body_within_the_limit_passes():
    assert exchange(bounded(reader), [], [b"x" * 500_000, b"x" * 500_000]) == (200, {"size": 1_000_000})


def test_a_declared_large_body_is_refused_before_it_is_read():
    status, body = exchange(bounded(reader), [(b"content-length", b"1000001")], [])
    assert (status, "larger than 1 MB" in body["error"]) == (413, True)


def test_a_large_body_in_undeclared_parts_is_refused_when_it_grows_too_large():
    assert exchange(bounded(reader), [], [b"x" * 600_000, b"x" * 600_000, b"x"])[0] == 413


def test_a_senseless_length_is_refused():
    assert exchange(bounded(reader), [(b"content-length", b"-1")], [])[0] == 413


@pytest.mark.parametrize(("path", "query"), [("/a\0b", b""), ("/a", b"q=%00")])
def test_an_address_with_a_nul_is_refused(path, query):
    status, body = exchange(bounded(reader), [], [], path, query)
    assert (status, "NUL" in body["error"]) == (400, True)


def http(path: str, method: str = "GET", headers: Any = (), query: bytes = b"") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
    }


class Client:
    """One request through the fast lane; `leave` is what happens when the client goes."""

    def __init__(self, lane: Lane, path: str = "/lane", **scope: Any) -> None:
        self.app = FastLane(reader, {"/lane": lane, "/lane/<name>/end": lane})
        self.scope = http(path, **scope)
        self.sent: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.events:
            return self.events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)

    async def ask(self) -> tuple[int, bytes]:
        await self.app(self.scope, self.receive, self.send)
        return self.sent[0]["status"], b"".join(event["body"] for event in self.sent[1:])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


def lane(serve: Any) -> Lane:
    return Lane(frozenset({"GET", "POST"}), Right.QUERY, serve)


@pytest.fixture
def anybody(monkeypatch):
    monkeypatch.setattr(fastauth, "identify", lambda scope, right, told="": (Principal.system("test"), None))


def test_a_store_that_cannot_be_read_now_is_503_with_a_sentence(anybody):
    def outrun(by: Any, request: Any) -> Answer:
        raise Outrun("Try again.")

    status, body = asyncio.run(Client(lane(outrun)).ask())
    assert (status, json.loads(body)) == (503, {"error": "Try again."})


def test_a_lane_that_breaks_is_500_and_says_nothing_of_why(anybody, caplog):
    def broken(by: Any, request: Any) -> Answer:
        raise ZeroDivisionError("secret")

    status, body = asyncio.run(Client(lane(broken)).ask())
    assert (status, b"secret" in body, "secret" in caplog.text) == (500, False, True)


def test_a_ready_probe_is_answered_also_where_the_database_hangs(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    monkeypatch.setattr(health, "is_ready", lambda: hangs.wait(5))
    client = Client(fastlane.ROUTES["/-/ready"])

    async def ask() -> int:
        status, _ = await client.ask()
        hangs.set()
        return status

    assert asyncio.run(ask()) == 503


def test_a_large_answer_leaves_in_parts(anybody):
    parts = [b"x" * 50_000] * 5
    client = Client(lane(lambda by, request: Answer(200, slices=iter(parts))))
    assert asyncio.run(client.ask()) == (200, b"".join(parts))
    assert [len(event["body"]) for event in client.sent[1:]] == [100_000, 50_000, 50_000, 50_000, 0]
    assert b"content-length" not in client.headers


def test_a_large_answer_is_packed_where_the_client_takes_it(anybody):
    parts = [bytes([n]) * 50_000 for n in range(5)]
    for serve in (lambda by, request: Answer(200, slices=iter(parts)), lambda by, request: Answer(200, parts[0])):
        client = Client(lane(serve), headers=[(b"accept-encoding", b"deflate, gzip")])
        _, body = asyncio.run(client.ask())
        assert client.headers[b"content-encoding"] == b"gzip"
        assert gzip.decompress(body) in (b"".join(parts), parts[0])
        assert len(body) < 2_000


def test_an_answer_that_breaks_off_has_no_end(anybody, caplog):
    def slices() -> Any:
        yield b"x" * 100_000
        raise ZeroDivisionError

    client = Client(lane(lambda by, request: Answer(200, slices=slices())))
    asyncio.run(client.ask())
    assert client.sent[-1]["more_body"] is True
    assert "broke off" in caplog.text


def test_a_client_that_leaves_cancels_its_request(anybody, monkeypatch):
    monkeypatch.setattr(fastlane, "WATCHED_AFTER", 0.0)
    began, ended = threading.Event(), threading.Event()

    def patient(by: Any, request: Any) -> Answer:
        began.set()
        while not request.cancelled():
            time.sleep(0.005)
        ended.set()
        return Answer(499)

    client = Client(lane(patient))

    async def ask_and_leave() -> None:
        asked = asyncio.create_task(client.app(client.scope, client.receive, client.send))
        await asyncio.to_thread(began.wait, 10)
        client.gone.set()
        await asked

    asyncio.run(ask_and_leave())
    assert ended.is_set()
    assert client.sent == []


def test_the_slow_queries_of_one_caller_wait_for_each_other_and_hold_up_nobody_else(anybody, monkeypatch):
    monkeypatch.setattr(fastlane, "SHARE", 1)
    release = threading.Event()
    served: list[bytes] = []

    def slow(by: Any, request: Any) -> Answer:
        served.append(request.query)
        release.wait(10)
        return Answer(204)

    shared = FastLane(reader, {"/lane": lane(slow), "/quick": lane(lambda by, request: Answer(204))})

    def client(path: str, token: bytes, query: bytes = b"") -> Client:
        one = Client(lane(slow), path, headers=[(b"authorization", token)], query=query)
        one.app = shared
        return one

    async def ask() -> tuple[int, list[bytes], list[int]]:
        busy = [asyncio.create_task(client("/lane", b"mara", query).ask()) for query in (b"first", b"second")]
        status, _ = await asyncio.wait_for(client("/quick", b"vic").ask(), 5)
        before = list(served)
        release.set()
        return status, before, [done[0] for done in await asyncio.gather(*busy)]

    assert asyncio.run(ask()) == (204, [b"first"], [204, 204])
    assert shared.shares.is_idle


@pytest.mark.parametrize(("method", "status"), [("DELETE", 405), ("HEAD", 405), ("OPTIONS", 204)])
def test_other_methods_are_told_which_there_are(method, status):
    client = Client(lane(lambda by, request: Answer(200)), method=method)
    assert asyncio.run(client.ask())[0] == status
    assert client.headers[b"allow"] == b"GET, OPTIONS, POST"


def test_a_part_of_the_address_is_captured_and_a_nul_in_it_refused(anybody):
    serve = lane(lambda by, request: Answer(200, request.captured["name"].encode()))
    assert asyncio.run(Client(serve, "/lane/some%name/end").ask()) == (200, b"some%name")
    assert asyncio.run(Client(serve, "/lane/a\0b/end").ask())[0] == 400


def test_parameters_come_from_the_body_first_and_from_a_form_only(anybody):
    def serve(by: Any, request: Any) -> Answer:
        return Answer(200, json.dumps([request.one("a"), request.every("b[]")]).encode())

    form = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
    client = Client(lane(serve), method="POST", headers=[form], query=b"a=query&b[]=3")
    client.events = [{"type": "http.request", "body": b"a=body&b%5B%5D=1&b[]=2", "more_body": False}]
    assert json.loads(asyncio.run(client.ask())[1]) == ["body", ["1", "2", "3"]]
    client = Client(lane(serve), method="POST", query=b"a=query")
    client.events = [{"type": "http.request", "body": b"a=body", "more_body": False}]
    assert json.loads(asyncio.run(client.ask())[1]) == ["query", []]


@pytest.mark.parametrize(
    ("query", "words"), [(b"a=%00", "NUL"), (b"&".join([b"a=1"] * 10_001), "cannot be read")], ids=["nul", "many"]
)
def test_parameters_that_cannot_be_kept_are_refused(anybody, query, words):
    def serve(by: Any, request: Any) -> Answer:
        return Answer(200, request.one("a").encode())

    status, body = asyncio.run(Client(lane(serve), query=query).ask())
    assert (status, words in body.decode()) == (400, True)


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused_on_the_lane_too(anybody, declared):
    headers = [(b"content-length", b"1000001")] if declared else []
    client = Client(lane(lambda by, request: Answer(200)), method="POST", headers=headers)
    client.events = [{"type": "http.request", "body": b"x" * 600_000, "more_body": True}] * 2
    status, body = asyncio.run(client.ask())
    assert (status, "larger than 1 MB" in body.decode()) == (413, True)


def test_a_body_that_drips_in_for_ever_is_given_up(anybody, monkeypatch):
    monkeypatch.setattr(fastlane, "BODY_PATIENCE", 0.01)
    client = Client(lane(lambda by, request: Answer(200)), method="POST")
    client.events = [{"type": "http.request", "body": b"x", "more_body": True}]
    status, body = asyncio.run(client.ask())
    assert (status, "did not end" in body.decode(), client.headers[b"connection"]) == (408, True, b"close")


def test_a_refusal_tells_how_to_come_in(monkeypatch):
    client = Client(lane(lambda by, request: Answer(200)))
    refusal = fastauth.Refusal(401, "Who are you?")
    monkeypatch.setattr(fastauth, "identify", lambda scope, right, told="": (Principal.anonymous(), refusal))
    assert asyncio.run(client.ask()) == (401, b'{"error":"Who are you?"}')
    assert client.headers[b"www-authenticate"].startswith(b"Bearer")
    refusal = fastauth.Refusal(429, "Wait.", 7)
    client.sent.clear()
    client.events = [{"type": "http.request", "body": b"", "more_body": False}]
    asyncio.run(client.ask())
    assert client.headers[b"retry-after"] == b"7"


def test_a_client_that_takes_nothing_is_given_up(anybody, monkeypatch):
    monkeypatch.setattr(fastlane, "STALLED", 0.01)
    client = Client(lane(lambda by, request: Answer(200, slices=iter([b"x" * 100_000] * 3))))
    stuck = asyncio.Event()

    async def ask() -> None:
        async def send(event: dict[str, Any]) -> None:
            client.sent.append(event)
            if event["type"] == "http.response.body":
                await stuck.wait()

        await client.app(client.scope, client.receive, send)

    asyncio.run(ask())
    assert [event.get("more_body") for event in client.sent] == [None, True]


def together(ends: Any) -> tuple[list[Any], Any]:
    """(what happened in order, a lane whose requests share what ends so)."""
    happened: list[Any] = []

    @contextmanager
    def shared() -> Iterator[None]:
        happened.append("begin")
        yield
        happened.append("end")
        ends()

    def serve(by: Any, request: Any) -> Answer:
        happened.append(request.query)
        return Answer(204)

    return happened, Lane(frozenset({"POST"}), Right.INGEST, serve, together=shared)


def answered(one: Any) -> list[int]:
    """The statuses that three requests of this lane get when they wait at the same time."""
    requests = [(one, http("/lane"), Request("POST", "/lane", query)) for query in (b"1", b"2", b"3")]
    return [said.status for said in fastlane._answers(requests)]


def test_requests_that_are_served_together_are_answered_when_what_they_share_has_ended(anybody):
    happened, one = together(lambda: None)
    assert answered(one) == [204, 204, 204]
    assert happened == ["begin", b"1", b"2", b"3", "end"]


def test_where_the_database_goes_away_before_that_none_of_them_is_acknowledged(anybody):
    def ends() -> None:
        raise OperationalError("gone")

    _, one = together(ends)
    assert answered(one) == [503, 503, 503]


def test_where_it_fails_otherwise_each_is_served_by_itself(anybody, caplog):
    def ends() -> None:
        raise ZeroDivisionError

    happened, one = together(ends)
    assert answered(one) == [204, 204, 204]
    assert happened == ["begin", b"1", b"2", b"3", "end", b"1", b"2", b"3"]


def test_what_waits_at_the_same_time_on_a_lane_is_served_together(anybody):
    happened, one = together(lambda: None)
    shared = FastLane(reader, {"/lane": one})

    async def ask() -> list[int]:
        clients = [Client(one, method="POST", query=b"%d" % number) for number in range(4)]
        for client in clients:
            client.app = shared
        return [status for status, _ in await asyncio.gather(*(client.ask() for client in clients))]

    assert asyncio.run(ask()) == [204] * 4
    assert happened == [b"0", "begin", b"1", b"2", b"3", "end"]
