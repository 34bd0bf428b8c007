"""The fast lane and what guards Django behind it."""

import asyncio
import json
import threading
from typing import Any

import pytest

from apps.dashboards import health
from apps.metrics.query import Outrun
from monitoring_portal import fastlane
from monitoring_portal.fastlane import READ, Answer, FastLane, Lane, bounded


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


def test_a_store_that_cannot_be_read_now_is_503_with_a_sentence():
    def outrun(by: Any, scope: Any) -> Answer:
        raise Outrun("Try again.")

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "client": ("127.0.0.1", 1)}
    answer = asyncio.run(FastLane(reader)._answer(Lane(READ, None, outrun), scope))
    assert (answer.status, json.loads(answer.body)) == (503, {"error": "Try again."})


def test_a_ready_probe_is_answered_also_where_the_database_hangs(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    monkeypatch.setattr(health, "is_ready", lambda: hangs.wait(5))
    lane = fastlane.FastLane(reader)
    scope: dict[str, Any] = {"path": "/-/ready", "method": "GET", "headers": [], "client": None}

    async def ask() -> int:
        answer = await lane._answer(fastlane.ROUTES["/-/ready"], scope)
        hangs.set()
        return answer.status

    assert asyncio.run(ask()) == 503
