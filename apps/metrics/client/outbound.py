"""Counts calls of other services by host, status and class of error: urllib3 (so requests, too), httpx, urllib.

A library is watched from the moment it is imported; nothing is imported for it. Hosts are bounded: what users may
choose (web hooks) must not become series.
"""

import functools
import logging
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from apps.core.sending import Opener
from apps.core.telemetry import OUTBOUND, Counter, Gauge

log = logging.getLogger(__name__)

MOST_HOSTS: Final = 50
"""Hosts that a process tells apart; the others are `other`."""
OTHER: Final = "other"
NO_ANSWER: Final = "none"
ERRORS: Final = Counter(
    "http_client_errors_total", "Outbound HTTP requests that brought no answer.", ("host", "exception")
)
IN_FLIGHT: Final = Gauge("http_client_requests_in_flight", "Outbound HTTP requests that wait for their answer.")

_hosts: set[str] = set()


def host_of(name: Any) -> str:
    """Return the host as a label: lower case, and `other` once there are too many."""
    host = str(name or "").lower().rstrip(".")[:253] or OTHER
    if host in _hosts:
        return host
    if len(_hosts) >= MOST_HOSTS:
        return OTHER
    _hosts.add(host)
    return host


class Call:
    """One outbound request, as a context; `code` is set by whoever gets an answer."""

    __slots__ = ("code", "host", "started")

    def __init__(self, host: Any) -> None:
        self.host = host_of(host)
        self.code = NO_ANSWER

    def __enter__(self) -> "Call":
        IN_FLIGHT.add(1.0, ())
        self.started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.perf_counter() - self.started
        IN_FLIGHT.add(-1.0, ())
        OUTBOUND.add(seconds, (self.host, self.code))
        if kind is not None and self.code == NO_ANSWER:
            ERRORS.add(1.0, (self.host, kind.__name__))


def _urllib3(module: ModuleType) -> None:
    pool: Any = module.HTTPConnectionPool
    make = pool._make_request  # noqa: SLF001 - `urlopen` calls itself for each retry and redirect

    @functools.wraps(make)
    def counted(self: Any, *args: Any, **more: Any) -> Any:
        with Call(self.host) as call:
            answer = make(self, *args, **more)
            call.code = str(answer.status)
            return answer

    pool._make_request = counted  # noqa: SLF001


def _httpx(module: ModuleType) -> None:
    plain: Any = module.HTTPTransport
    later: Any = module.AsyncHTTPTransport
    handle, handle_later = plain.handle_request, later.handle_async_request

    @functools.wraps(handle)
    def counted(self: Any, request: Any) -> Any:
        with Call(request.url.host) as call:
            answer = handle(self, request)
            call.code = str(answer.status_code)
            return answer

    @functools.wraps(handle_later)
    async def counted_later(self: Any, request: Any) -> Any:
        with Call(request.url.host) as call:
            answer = await handle_later(self, request)
            call.code = str(answer.status_code)
            return answer

    plain.handle_request, later.handle_async_request = counted, counted_later


def _urllib(module: ModuleType) -> None:
    opener: Any = module.OpenerDirector
    opens = opener._open  # noqa: SLF001 - what one request comes down to, redirects each by itself

    @functools.wraps(opens)
    def counted(self: Any, request: Any, data: Any = None) -> Any:
        if isinstance(self, Opener) or urlsplit(request.full_url).scheme not in ("http", "https"):
            return opens(self, request, data)
        with Call(urlsplit(request.full_url).hostname) as call:
            answer = opens(self, request, data)
            call.code = str(getattr(answer, "status", None) or NO_ANSWER)
            return answer

    opener._open = counted  # noqa: SLF001


WATCHED: Final[dict[str, Callable[[ModuleType], None]]] = {
    "urllib3.connectionpool": _urllib3,
    "httpx": _httpx,
    "urllib.request": _urllib,
}
_done: set[str] = set()


def watch() -> None:
    """Watch the libraries that are imported, and each other from its import on."""
    for name in WATCHED:
        if (module := sys.modules.get(name)) is not None:
            _patch(name, module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _patch(name: str, module: ModuleType) -> None:
    """Watch one library; a version that is built otherwise is left alone."""
    if name not in _done:
        _done.add(name)
        try:
            WATCHED[name](module)
        except AttributeError as error:
            log.warning("Calls by %s are not counted: %s.", name, error)


class _Finder(MetaPathFinder):
    """Finds nothing by itself: it has the libraries watched as soon as they are there."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the others find, with a loader that watches afterwards."""
        if name not in WATCHED or name in _done:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, name)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, name: str) -> None:
        self.loader = loader
        self.name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _patch(self.name, module)
