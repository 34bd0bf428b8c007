"""Counts what a Django project's views ask of its databases and caches. An app of its own for other projects.

Queries are summed up in the request's context and counted once at its end, by view (`middleware`); those outside of any
request, as in tasks, count under `outside`. It knows neither store nor models; the portal itself does not use it.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from django.apps import AppConfig
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import connections
from django.db.backends.signals import connection_created

from apps.core.telemetry import Counter
from apps.metrics.middleware import QUERIES, QUERY_SECONDS, SPENT

OUTSIDE: Final = "outside"
ERRORS: Final = Counter("django_db_errors_total", "Database queries that failed.", ("alias", "exception"))
HITS: Final = Counter("django_cache_hits_total", "Reads of a key that existed.", ("alias",))
MISSES: Final = Counter("django_cache_misses_total", "Reads of a key that did not exist.", ("alias",))
_MISSING: Final = object()


class PortalMetrics(AppConfig):
    """`INSTALLED_APPS += ["portal_metrics.instrumentation.PortalMetrics"]`: databases and caches are counted."""

    name = __package__ or ""
    label = "portal_metrics"

    def ready(self) -> None:
        """Count the queries of every connection, and the reads of every cache, that is made from now on."""
        connection_created.connect(_watch, dispatch_uid="portal_metrics")
        for connection in connections.all(initialized_only=True):
            _watch(connection)
        watch_caches()


def _watch(connection: Any, **_: Any) -> None:
    if not any(isinstance(wrapper, _Timed) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.append(_Timed(connection.alias))


class _Timed:
    """A wrapper of every query of one connection."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        except Exception as error:
            ERRORS.inc(alias=self.alias, exception=type(error).__name__)
            raise
        finally:
            self._add(time.perf_counter() - started)

    def _add(self, seconds: float) -> None:
        spent = SPENT.get()
        if spent is None:
            QUERIES.inc(endpoint=OUTSIDE, alias=self.alias)
            QUERY_SECONDS.inc(seconds, endpoint=OUTSIDE, alias=self.alias)
            return
        cell = spent.setdefault(self.alias, [0.0, 0.0])
        cell[0] += 1
        cell[1] += seconds


def watch_caches() -> None:
    """Count hits and misses of each cache from its next instance on; Django makes one for each thread."""
    make = caches.create_connection
    if getattr(make, "is_watched", False):
        return

    def create(alias: str) -> BaseCache:
        return _watched(make(alias), alias)

    create.is_watched = True  # type: ignore[attr-defined]
    caches.create_connection = create  # type: ignore[method-assign]


def _watched(cache: Any, alias: str) -> BaseCache:
    """Replace `get` (and `get_many`, where it is not a loop over `get`) of one instance; the rest goes through them."""
    get, get_many = cache.get, cache.get_many

    def counted(key: Any, default: Any = None, version: int | None = None) -> Any:
        found = get(key, _MISSING, version)
        if found is _MISSING:
            MISSES.inc(alias=alias)
            return default
        HITS.inc(alias=alias)
        return found

    def counted_many(keys: Any, version: int | None = None) -> dict[Any, Any]:
        wanted = list(keys)
        found: dict[Any, Any] = get_many(wanted, version)
        HITS.inc(len(found), alias=alias)
        MISSES.inc(len(wanted) - len(found), alias=alias)
        return found

    cache.get = counted
    if type(cache).get_many is not BaseCache.get_many:
        cache.get_many = counted_many
    return cache  # type: ignore[no-any-return]
