"""Bare ASGI callables for the hot paths, tried before Django's handler (a tenth of its cost a request).

`ROUTES` is the whole list: the rooms' tables of lanes, each with its methods, the right that is needed (None: open to
all) and the callable. They share `accounts` authentication with the API, and the every-route test walks this table
beside Django's.

One request:
1. The body is read on the event loop, at most as large as the portal takes.
2. One hop to a thread: who is it, may they, evaluate, render the beginning; the database connection goes back.
   Requests that write samples make it together with those that wait at the same time, and share one commit.
3. What is large is rendered in that pool slice by slice, so that the loop is free and the client sets the pace.
While 2 runs, a client that leaves cancels it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import InterfaceError, OperationalError

from apps.accounts import fastauth
from apps.accounts.permissions import Principal, Right
from apps.alerting import changes_api, intake_api
from apps.alerting import prometheus_api as alerting
from apps.core.lanes import READ, Answer, BadRequest, Lane, Lanes, Request
from apps.dashboards import health
from apps.metrics import (
    deletion_api,
    exposition,
    flushed,
    gateway_api,
    otlp_api,
    prometheus_api,
    prometheus_status,
    query,
    query_api,
    write_api,
)
from apps.metrics.middleware import GONE, observe
from apps.oncall import alertmanager_api
from apps.sources import beacon_api, ping_api
from apps.sources.logs import api as logs_api
from monitoring_portal.gathering import Gathering
from monitoring_portal.postgresql.kept import KEPT

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

THREADS: Final = 32
"""Requests of lanes that are served at once; those beyond wait. Most may be heavy queries that stand in line."""
WATCHED_AFTER: Final = 0.1
"""Seconds after which a request is worth watching for its client to leave."""
BODY_PATIENCE: Final = 120.0
"""Seconds within which a body has to be here: one that drips in for ever would hold its memory for ever."""
STALLED: Final = 60.0
"""Seconds that a client may take for one part of an answer before it is given up, with the memory it holds."""

SHARE: Final = THREADS // 2
"""Those of them that one caller may have at once: nobody's slow queries hold up everybody."""

_threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="lane")
_writers: Final = ThreadPoolExecutor(THREADS // 4, thread_name_prefix="write")
"""Samples do not wait behind queries."""
ALONE: Final = 190_000
"""Bytes of a body that is served by itself: packed by snappy it may hold more than others should wait for."""


def _healthy(by: Principal, request: Request) -> Answer:
    return Answer(200, b"The portal is up.\n")


def _ready(by: Principal, request: Request) -> Answer:
    return Answer(200, b"The portal is ready.\n") if health.is_ready() else Answer(503, b"The portal is not ready.\n")


def _metrics(by: Principal, request: Request) -> Answer:
    return Answer(200, flushed.render(by.scope), exposition.CONTENT_TYPE)


ROUTES: dict[str, Lane] = {
    "/-/healthy": Lane(READ, None, _healthy, summary="Whether the web process runs."),
    "/-/ready": Lane(READ, None, _ready, summary="Whether it can answer requests that need the database."),
    "/metrics": Lane(READ, Right.READ, _metrics, summary="The portal's own figures in Prometheus' text format."),
    **prometheus_api.LANES,
    **prometheus_status.LANES,
    **query_api.LANES,
    **write_api.LANES,
    **otlp_api.LANES,
    **gateway_api.LANES,
    **deletion_api.LANES,
    **alerting.LANES,
    **intake_api.LANES,
    **changes_api.LANES,
    **alertmanager_api.LANES,
    **ping_api.LANES,
    **beacon_api.LANES,
    **logs_api.LANES,
}


# --- Bodies ---------------------------------------------------------------------------------------------------------


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


class TooLarge(Exception):
    """The body is larger than the portal takes."""


class Left(Exception):
    """The client left before it had sent its request."""


class TooSlow(Exception):
    """The body did not end in time."""


async def body_of(scope: Scope, receive: Receive) -> bytes:
    """Read the whole body. Raises TooLarge, TooSlow, Left."""
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            return await _whole_body(scope, receive)
    except TimeoutError:
        raise TooSlow from None


async def _whole_body(scope: Scope, receive: Receive) -> bytes:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    declared = fastauth.header(scope, b"content-length") or "0"
    if not declared.isdigit() or int(declared) > limit:
        raise TooLarge
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Left
        part = event.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        parts.append(part)
        if not event.get("more_body", False):
            return b"".join(parts)


# --- Serving --------------------------------------------------------------------------------------------------------


def answer(lane: Lane, scope: Scope, request: Request) -> Answer:
    """Authenticate and serve one request, with every error in the lane's own shape. Blocks."""
    try:
        if "\0" in request.path:
            raise BadRequest("The address holds a NUL (%00), which no text here can.")
        if lane.right is None:
            return lane.serve(fastauth.anonymous(scope), request)
        told = lane.secret(request) if lane.secret is not None else ""
        by, refusal = fastauth.identify(scope, lane.right_for(request.method), told)
        if refusal is not None:
            return _refused(lane, refusal)
        return lane.serve(by, request)
    except BadRequest as error:
        return lane.refuse(400, str(error))
    except query.Outrun as error:
        return lane.refuse(503, str(error))
    except (OperationalError, InterfaceError) as error:
        return _database_is_away(lane, request, error)
    except Exception:
        log.exception("%s failed", request.path)
        return lane.refuse(500, "The portal failed to answer; its web log says why.")


def _database_is_away(lane: Lane, request: Request, error: Exception) -> Answer:
    log.error("%s failed, for the database is away: %s", request.path, error)
    return lane.refuse(503, "The database does not answer; try again in a few seconds.")


def _refused(lane: Lane, refusal: fastauth.Refusal) -> Answer:
    said = lane.refuse(refusal.status, refusal.sentence)
    headers = said.headers
    if refusal.status == 401:
        headers = (*headers, (b"www-authenticate", b'Bearer realm="monitoring"'))
    if refusal.retry_after:
        headers = (*headers, (b"retry-after", str(refusal.retry_after).encode()))
    return Answer(said.status, said.body, said.content_type, headers)


def _in_thread(lane: Lane, scope: Scope, request: Request) -> Answer:
    """Answer and begin to render, then give this thread's connection back, or keep it in order.

    Django does so at the end of its requests; here there is none, and a connection that a dead server has cut would
    fail in its thread for ever.
    """
    KEPT.begin()
    try:
        return answer(lane, scope, request).begun(packed="gzip" in request.header(b"accept-encoding"))
    finally:
        KEPT.end()


Asked = tuple[Lane, Scope, Request]


def _in_thread_together(asked: Sequence[Asked]) -> list[Answer]:
    """Answer several requests of lanes with the same `together`, as `_in_thread` answers one."""
    KEPT.begin()
    try:
        return [said.begun(packed=False) for said in _answers(asked)]
    finally:
        KEPT.end()


def _answers(asked: Sequence[Asked]) -> list[Answer]:
    """No answer counts before what they share has ended well; where it has not, each is served by itself."""
    together = asked[0][0].together
    if together is None or len(asked) == 1:
        return [answer(*one) for one in asked]
    try:
        with together():
            said = [answer(*one) for one in asked]
    except (OperationalError, InterfaceError) as error:
        return [_database_is_away(lane, request, error) for lane, _, request in asked]
    except Exception:
        log.exception("%d requests failed together and are served one by one", len(asked))
        return [answer(*one) for one in asked]
    return said


class FastLane:
    """ASGI application: serves `routes`, hands everything else to Django."""

    def __init__(self, django: App, routes: Mapping[str, Lane] = ROUTES) -> None:
        self.django = django
        self.bounded_django = bounded(django)
        self.lanes = Lanes(routes)
        self.shares = _Shares()
        self.gatherings: dict[object, Gathering[Asked, Answer]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.django(scope, receive, send)
            return
        found = self.lanes.find(scope["path"])
        if found is None:
            await self.bounded_django(scope, receive, send)
            return
        written, lane, captured = found
        started = time.perf_counter()
        said, request = await self._ask(lane, scope, receive, captured)
        observe(written, scope["method"], GONE if said is None else said.status, time.perf_counter() - started)
        if said is not None:
            await _send(said, request, send)

    async def _ask(
        self, lane: Lane, scope: Scope, receive: Receive, captured: Mapping[str, str]
    ) -> tuple[Answer | None, Request]:
        """The answer, or None where nobody waits for it any more."""
        left = _Left()
        request = Request(
            scope["method"],
            scope["path"],
            scope["query_string"],
            b"",
            scope["headers"],
            fastauth.address_of(scope),
            captured,
            left.happened,
        )
        if request.method == "OPTIONS":
            return Answer(204, headers=(_allow(lane),)), request
        if request.method not in lane.methods:
            said = lane.refuse(405, f"This address answers {' and '.join(sorted(lane.methods))} only.")
            return Answer(405, said.body, said.content_type, (_allow(lane),)), request
        try:
            body = await body_of(scope, receive)
        except TooLarge:
            said = lane.refuse(413, too_large())
            return Answer(413, said.body, said.content_type, ((b"connection", b"close"),)), request
        except TooSlow:
            said = lane.refuse(408, f"The body of the request did not end within {BODY_PATIENCE:g} s.")
            return Answer(408, said.body, said.content_type, ((b"connection", b"close"),)), request
        except Left:
            return None, request
        if body:
            request = replace(request, body=body)
        loop = asyncio.get_running_loop()
        if lane.right is None:
            # Probes want an answer even where the database hangs, and never wait behind queries.
            asked = asyncio.to_thread(_in_thread, lane, scope, request)
            try:
                return await asyncio.wait_for(asked, health.PATIENCE), request
            except TimeoutError:
                return lane.refuse(503, f"No answer within {health.PATIENCE:g} s."), request
        if lane.together is not None and len(body) <= ALONE:
            return await self._gathering(lane.together).ask((lane, scope, request), len(body)), request
        watching = loop.call_later(WATCHED_AFTER, left.watch, receive)
        try:
            if lane.right_for(request.method) == Right.INGEST:
                said = await loop.run_in_executor(_writers, _in_thread, lane, scope, request)
            else:
                async with self.shares.of(_caller(request)):
                    said = await loop.run_in_executor(_threads, _in_thread, lane, scope, request)
        finally:
            watching.cancel()
            left.stop()
        return (None if left.happened() else said), request

    def _gathering(self, together: object) -> Gathering[Asked, Answer]:
        found = self.gatherings.get(together)
        if found is None:
            found = self.gatherings[together] = Gathering(_writers, _in_thread_together, rounds=THREADS // 4)
        return found


def _caller(request: Request) -> tuple[str, ...]:
    """Who asks, as far as it is known before they are: by what they send to say so."""
    told = tuple(request.header(name) for name in (b"authorization", b"x-api-key", b"cookie"))
    return told if any(told) else (request.address,)


class _Shares:
    """A turn for each caller's requests: at most SHARE of them are served at once, the others wait without a thread."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, ...], tuple[asyncio.Semaphore, int]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody is remembered."""
        return not self._waiting

    @asynccontextmanager
    async def of(self, caller: tuple[str, ...]) -> AsyncIterator[None]:
        """One of the caller's turns."""
        turns, users = self._waiting.get(caller, (asyncio.Semaphore(SHARE), 0))
        self._waiting[caller] = turns, users + 1
        try:
            async with turns:
                yield
        finally:
            turns, users = self._waiting.pop(caller)
            if users > 1:
                self._waiting[caller] = turns, users - 1


class _Left:
    """Whether the client of one request has left; watched only once the request takes long."""

    def __init__(self) -> None:
        self._gone = False
        self._task: asyncio.Task[None] | None = None

    def happened(self) -> bool:
        """Asked from the thread that serves."""
        return self._gone

    def watch(self, receive: Receive) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait(receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _allow(lane: Lane) -> tuple[bytes, bytes]:
    return b"allow", ", ".join(sorted({*lane.methods, "OPTIONS"})).encode()


async def _send(said: Answer, request: Request, send: Send) -> None:
    """Send an answer, in parts where it has slices; one that breaks off is closed without an end."""
    headers = [
        (b"content-type", said.content_type.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *said.headers,
    ]
    if said.slices is None:
        if said.status != 204:
            headers.append((b"content-length", str(len(said.body)).encode()))
        await send({"type": "http.response.start", "status": said.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else said.body})
        return
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    loop = asyncio.get_running_loop()
    part: bytes | None = said.body
    try:
        while part is not None:
            body = {"type": "http.response.body", "body": part, "more_body": True}
            await asyncio.wait_for(send(body), STALLED)
            part = await loop.run_in_executor(_threads, _next, said.slices)
    except TimeoutError:
        log.info("%s was given up: its client took nothing for %g s", request.path, STALLED)
        return
    except Exception:
        log.exception("%s broke off", request.path)
        return
    await send({"type": "http.response.body", "body": b""})


def _next(slices: Iterator[bytes]) -> bytes | None:
    return next(slices, None)
