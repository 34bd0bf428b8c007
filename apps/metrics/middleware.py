"""Counts web requests by URL pattern, method and exact status code; Django's middleware and the bare ASGI lane use it.

It keeps its figures in this process (`apps.core.telemetry`) and knows neither store nor models: another Django project
gets it as a wheel (`manage.py client`, docs/how-to/django.md). The label is the pattern, never the path: what
visitors type must not become series.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from apps.core.telemetry import Counter, Extent, Gauge, Histogram

UNMATCHED = "unmatched"
STATIC = "static"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
GONE = 499
"""The status under which a request counts whose client left before the answer (nginx' number for it)."""
EXPECTED = (Http404, PermissionDenied, BadRequest)
"""Exceptions that are a view's way to answer 4xx: they count by their status code alone."""

_BY = ("endpoint", "method", "code")
REQUESTS = Counter("http_requests_total", "Requests answered.", _BY)
DURATION = Histogram("http_request_duration_seconds", "Seconds until the answer began.", _BY)
EXTENT = Extent("http_request_duration_seconds", "Shortest and longest request of the interval, in seconds.", _BY)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests being answered now.")
EXCEPTIONS = Counter("http_exceptions_total", "Exceptions that views raised.", ("endpoint", "exception"))
FIRST_SEEN = Gauge(
    "http_exception_first_seen_timestamp_seconds",
    "When this process first saw the exception, in seconds since 1970.",
    ("endpoint", "exception"),
)
LAST_SEEN = Gauge(
    "http_exception_last_seen_timestamp_seconds",
    "When this process last saw the exception, in seconds since 1970.",
    ("endpoint", "exception"),
)


class Spent:
    """What a request, or a task, has asked of databases and caches so far; counted at its end."""

    __slots__ = ("caches", "queries")

    def __init__(self) -> None:
        self.queries: dict[str, list[float]] = {}
        """By alias, [queries, seconds]."""
        self.caches: dict[tuple[str, str], list[float]] = {}
        """By alias and operation, [calls, seconds, hits, misses]."""


SPENT: ContextVar[Spent | None] = ContextVar("spent", default=None)
"""Of the request or task of this context; None outside of them, and where nothing but requests is counted."""
settle: list[Callable[[str, Spent], None]] = []
"""Called at the end of each request with its endpoint and what it spent (`client.instrumentation` hangs here)."""
awake: list[Callable[[], None]] = []
"""Called as each request begins: something that must run in every process looks after itself here."""

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


def observe(endpoint: str, method: str, code: int, seconds: float) -> None:
    """Count one answered request; `endpoint` is a route (a trailing slash does not make another one)."""
    _count(endpoint.rstrip("/") or "/", method, code, seconds)


def _count(endpoint: str, method: str, code: int, seconds: float) -> None:
    key = (endpoint, method if method in METHODS else "other", str(code))
    REQUESTS.add(1.0, key)
    DURATION.add(seconds, key)
    EXTENT.add(seconds, key)


def pattern_of(request: HttpRequest) -> str:
    """Return the URL pattern that the request was resolved to, such as `/alerts/<int:pk>/`."""
    match = request.resolver_match
    if match is not None and match.route is not None:
        return "/" + match.route.removeprefix("^").removesuffix("$").removesuffix("\\Z")
    # Static files are answered before the URL is resolved.
    prefix = settings.STATIC_URL
    return STATIC if prefix and len(prefix) > 1 and request.path.startswith(prefix) else UNMATCHED


def note_exception(endpoint: str, error: BaseException, at: float) -> None:
    """Count an exception by class and pattern; `at` in seconds since 1970."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    labels = {"endpoint": endpoint, "exception": name}
    EXCEPTIONS.inc(**labels)
    if not FIRST_SEEN.value(**labels):
        FIRST_SEEN.set(at, **labels)
    LAST_SEEN.set(at, **labels)


class RequestMetrics:
    """Middleware, synchronous and asynchronous; stands first, so that it times the others too."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        if self.is_async:
            return self._later(request)
        for call in awake:
            call()
        spent = Spent()
        token = SPENT.set(spent)
        IN_FLIGHT.add(1.0, ())
        started = time.perf_counter()
        code = 500
        try:
            response = self.get_response(request)
            code = getattr(response, "status_code", 500)
            return response
        finally:
            SPENT.reset(token)
            self._finish(request, code, started, spent)

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        for call in awake:
            call()
        spent = Spent()
        token = SPENT.set(spent)
        IN_FLIGHT.add(1.0, ())
        started = time.perf_counter()
        code = 500
        try:
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
            code = response.status_code
            return response
        except asyncio.CancelledError:
            code = GONE
            raise
        finally:
            SPENT.reset(token)
            self._finish(request, code, started, spent)

    def _finish(self, request: HttpRequest, code: int, started: float, spent: Spent) -> None:
        IN_FLIGHT.add(-1.0, ())
        endpoint = pattern_of(request)
        _count(endpoint, request.method or "", code, time.perf_counter() - started)
        for call in settle:
            call(endpoint, spent)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Django calls this with what a view raised, before it makes a response of it."""
        if not isinstance(exception, EXPECTED):
            note_exception(pattern_of(request), exception, time.time())
