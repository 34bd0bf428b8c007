"""Bare ASGI callables for the hot paths, tried before Django's handler (a tenth of its cost a request).

`ROUTES` is the whole list: path, methods, the right that is needed (None: open to all) and the callable. They share
`accounts` authentication with the API, and the every-route test walks this table beside Django's.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections

from apps.accounts import fastauth
from apps.accounts.permissions import Principal, Right
from apps.dashboards import health
from apps.metrics import exposition, query
from apps.metrics.middleware import observe

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """A finished response of the fast lane."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Lane:
    """One fast route; `serve` gets the caller and the scope, and may block (it runs in a thread)."""

    methods: frozenset[str]
    right: Right | None
    serve: Callable[[Principal, Scope], Answer]


def _healthy(by: Principal, scope: Scope) -> Answer:
    return Answer(200, b"The portal is up.\n")


def _ready(by: Principal, scope: Scope) -> Answer:
    return Answer(200, b"The portal is ready.\n") if health.is_ready() else Answer(503, b"The portal is not ready.\n")


def _metrics(by: Principal, scope: Scope) -> Answer:
    return Answer(200, exposition.render(by.scope), exposition.CONTENT_TYPE)


def _serve(lane: Lane, by: Principal, scope: Scope) -> Answer:
    """Serve, then give this thread's connection back to the pool, where a broken one is replaced.

    Django does so at the end of its requests; here there is none, and a connection that a dead server has cut would
    fail in its thread for ever.
    """
    try:
        return lane.serve(by, scope)
    finally:
        connections.close_all()


READ = frozenset({"GET", "HEAD"})
ROUTES: dict[str, Lane] = {
    "/-/healthy": Lane(READ, None, _healthy),
    "/-/ready": Lane(READ, None, _ready),
    "/metrics": Lane(READ, Right.READ, _metrics),
}


def bounded(app: App) -> App:
    """Answer 413 to a request whose body is larger than the portal takes, before it is spooled to disk.

    And 400 to an address with a NUL, which is in no text that the database keeps: it would fail each look-up by it.
    """

    async def bounded_app(scope: Scope, receive: Receive, send: Send) -> None:
        if b"%00" in scope["query_string"] or "\0" in scope["path"]:
            await refuse(send, 400, "The address holds a NUL (%00), which no text here can.")
            return
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > limit:
            await refuse(send, 413, too_large())
            return
        size = 0
        over = False

        async def counted() -> dict[str, Any]:
            nonlocal size, over
            event = await receive()
            size += len(event.get("body", b""))
            if size > limit and not over:
                over = True
                await refuse(send, 413, too_large())
            # To Django it is a client that left: it drops the request and what it has spooled.
            return {"type": "http.disconnect"} if over else event

        async def unless_refused(event: dict[str, Any]) -> None:
            if not over:
                await send(event)

        await app(scope, counted, unless_refused)

    return bounded_app


def too_large() -> str:
    """Return the sentence for a body beyond the limit."""
    return f"The request is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1_000_000} MB; send it in parts."


async def refuse(send: Send, status: int, words: str) -> None:
    """Answer an error as JSON and end the connection, for the rest of the body may still be on its way."""
    body = orjson.dumps({"error": words})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class FastLane:
    """ASGI application: serves `ROUTES`, hands everything else to Django."""

    def __init__(self, django: App) -> None:
        self.django = django

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = ROUTES.get(scope["path"].rstrip("/") or "/") if scope["type"] == "http" else None
        if lane is None:
            await (bounded(self.django) if scope["type"] == "http" else self.django)(scope, receive, send)
            return
        started = time.perf_counter()
        answer = await self._answer(lane, scope)
        observe(scope["path"], scope["method"], answer.status, time.perf_counter() - started)
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if answer.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="monitoring"'))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _answer(self, lane: Lane, scope: Scope) -> Answer:
        if scope["method"] not in lane.methods:
            return Answer(405, b'{"error": "This address answers GET only."}', "application/json")
        try:
            if lane.right is None:
                # Probes want an answer even where the database hangs.
                asked = asyncio.to_thread(_serve, lane, fastauth.anonymous(scope), scope)
                return await asyncio.wait_for(asked, health.PATIENCE)
            by, refusal = await sync_to_async(fastauth.identify)(scope, lane.right)
            if refusal is not None:
                return Answer(refusal.status, refusal.body, "application/json")
            return await asyncio.to_thread(_serve, lane, by, scope)
        except TimeoutError:
            return Answer(503, f"No answer within {health.PATIENCE:g} s.\n".encode())
        except query.Outrun as error:
            return Answer(503, orjson.dumps({"error": str(error)}), "application/json")
        except Exception:
            log.exception("%s failed", scope["path"])
            return Answer(500, b'{"error": "The portal failed to answer; its web log says why."}', "application/json")
