"""Counts what a Django project's views and tasks ask of its databases and caches. An app for other projects.

Queries and reads are summed up in the context of the request and counted once at its end, by view (`middleware`);
queries outside of any request or task count under `outside`. It knows neither store nor models; the portal itself does
not use it.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from django.apps import AppConfig
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import connections
from django.db.backends.signals import connection_created

from apps.core import telemetry
from apps.core.telemetry import Counter, Histogram, Reading
from apps.metrics import middleware
from apps.metrics.client import outbound, reporting, resources, tasks
from apps.metrics.middleware import SPENT, Spent

OUTSIDE: Final = "outside"
QUERIES: Final = Counter("django_db_queries_total", "Database queries by view.", ("endpoint", "alias"))
QUERY_SECONDS: Final = Counter(
    "django_db_query_seconds_total", "Seconds in database queries by view.", ("endpoint", "alias")
)
QUERY_DURATION: Final = Histogram(
    "django_db_query_duration_seconds",
    "Seconds of a database query, by connection and kind of server.",
    ("alias", "vendor"),
)
PER_REQUEST: Final = Histogram(
    "django_db_queries_per_request",
    "Database queries of a request that made any.",
    ("endpoint",),
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
ERRORS: Final = Counter("django_db_errors_total", "Database queries that failed.", ("alias", "exception"))
OPENED: Final = Counter("django_db_connections_opened_total", "Connections to a database that were made.", ("alias",))
HITS: Final = Counter("django_cache_hits_total", "Reads of a key that existed.", ("alias",))
MISSES: Final = Counter("django_cache_misses_total", "Reads of a key that did not exist.", ("alias",))
CALLS: Final = Counter("django_cache_operations_total", "Calls of a cache.", ("alias", "operation"))
CALL_SECONDS: Final = Counter("django_cache_operation_seconds_total", "Seconds in them.", ("alias", "operation"))
CACHE_ERRORS: Final = Counter("django_cache_errors_total", "Calls of a cache that failed.", ("alias", "exception"))
_MISSING: Final = object()
_kinds: set[type] = set()
"""Classes of connections that were seen."""
_OPERATIONS: Final = ("set", "add", "delete", "touch", "incr", "set_many", "delete_many")


class PortalMetrics(AppConfig):
    """`INSTALLED_APPS += ["portal_metrics.instrumentation.PortalMetrics"]`: everything here and beside is counted."""

    name = __package__ or ""
    label = "portal_metrics"

    def ready(self) -> None:
        """Count from now on: connections, caches, calls of others, tasks; report from the first request or task."""
        connection_created.connect(_made, dispatch_uid="portal_metrics")
        for connection in connections.all(initialized_only=True):
            _watch(connection)
        watch_caches()
        outbound.watch()
        tasks.watch(settle)
        hang(middleware.settle, settle)
        hang(middleware.awake, reporting.ensure)
        telemetry.on_snapshot(pools)
        telemetry.on_snapshot(resources.readings)
        if hasattr(os, "register_at_fork"):  # locks are copied as they were held
            os.register_at_fork(after_in_child=telemetry.reset)


def hang(calls: list[Any], call: Callable[..., None]) -> None:
    """Have it called, once."""
    if call not in calls:
        calls.append(call)


def settle(endpoint: str, spent: Spent) -> None:
    """Count what a request or a task has spent."""
    if spent.queries:
        total = 0.0
        for alias, (count, seconds) in spent.queries.items():
            total += count
            QUERIES.add(count, (endpoint, alias))
            QUERY_SECONDS.add(seconds, (endpoint, alias))
        PER_REQUEST.add(total, (endpoint,))
    for (alias, operation), cell in spent.caches.items():
        _count_calls(alias, operation, cell)


# --- Databases --------------------------------------------------------------------------------------------------------


def _made(connection: Any, **_: Any) -> None:
    OPENED.add(1.0, (connection.alias,))
    _watch(connection)


def _watch(connection: Any, **_: Any) -> None:
    _kinds.add(type(connection))
    if not any(isinstance(wrapper, Timed) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.append(Timed(connection.alias, connection.vendor))


class Timed:
    """A wrapper of every query of one connection."""

    def __init__(self, alias: str, vendor: str) -> None:
        self.alias = alias
        self.key = (alias, vendor)

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        except Exception as error:
            ERRORS.add(1.0, (self.alias, type(error).__name__))
            raise
        finally:
            self._add(time.perf_counter() - started)

    def _add(self, seconds: float) -> None:
        QUERY_DURATION.add(seconds, self.key)
        spent = SPENT.get()
        if spent is None:
            QUERIES.add(1.0, (OUTSIDE, self.alias))
            QUERY_SECONDS.add(seconds, (OUTSIDE, self.alias))
            return
        cell = spent.queries.get(self.alias)
        if cell is None:
            spent.queries[self.alias] = [1.0, seconds]
            return
        cell[0] += 1.0
        cell[1] += seconds


def pools() -> Iterator[Reading]:
    """Yield how the connection pools of this process stand (`OPTIONS = {"pool": …}`, Django 5.1, psycopg_pool)."""
    for alias, pool in _pools():
        told = pool.get_stats()
        size, idle = told.get("pool_size", 0), told.get("pool_available", 0)
        by = {"alias": alias}
        about = "Connections of the pool that are lent or wait to be."
        yield Reading("django_db_pool_connections", float(size - idle), {**by, "state": "used"}, help=about)
        yield Reading("django_db_pool_connections", float(idle), {**by, "state": "idle"}, help=about)
        yield Reading("django_db_pool_connections_max", float(told.get("pool_max", 0)), by, help="The most of them.")
        waiting = float(told.get("requests_waiting", 0))
        yield Reading("django_db_pool_waiting", waiting, by, help="Threads that wait for a connection.")
        for name, key, factor, text in (
            ("requests_total", "requests_num", 1.0, "Times a connection was asked for."),
            ("waits_total", "requests_queued", 1.0, "Times it was waited for."),
            ("wait_seconds_total", "requests_wait_ms", 0.001, "Seconds of waiting."),
            ("errors_total", "requests_errors", 1.0, "Times none came in time."),
        ):
            yield Reading(f"django_db_pool_{name}", float(told.get(key, 0)) * factor, by, "counter", text)


def _pools() -> Iterable[tuple[str, Any]]:
    """The pools that exist: Django keeps them on the class of the connections, which are each thread's own."""
    found: dict[str, Any] = {}
    for kind in list(_kinds):
        found |= {alias: pool for alias, pool in dict(getattr(kind, "_connection_pools", {})).items() if pool}
    return found.items()


# --- Caches -----------------------------------------------------------------------------------------------------------


def watch_caches() -> None:
    """Count the calls of each cache from its next instance on; Django makes one for each thread."""
    make = caches.create_connection
    if getattr(make, "is_watched", False):
        return

    def create(alias: str) -> BaseCache:
        return watched(make(alias), alias)

    create.is_watched = True  # type: ignore[attr-defined]
    caches.create_connection = create  # type: ignore[method-assign]


def watched(cache: Any, alias: str) -> BaseCache:
    """Replace the methods of one instance that Django's others go through, and those of `_many` that are no loops."""
    get, get_many = cache.get, cache.get_many
    clock = time.perf_counter

    def counted(key: Any, default: Any = None, version: Any = None, **more: Any) -> Any:
        started = clock()
        try:
            found = get(key, _MISSING, version, **more)
        except Exception as error:
            CACHE_ERRORS.add(1.0, (alias, type(error).__name__))
            raise
        if found is _MISSING:
            _add(alias, "get", clock() - started, 0.0, 1.0)
            return default
        _add(alias, "get", clock() - started, 1.0, 0.0)
        return found

    def counted_many(keys: Any, *args: Any, **more: Any) -> Any:
        wanted = list(keys)
        started = clock()
        try:
            found = get_many(wanted, *args, **more)
        except Exception as error:
            CACHE_ERRORS.add(1.0, (alias, type(error).__name__))
            raise
        _add(alias, "get_many", clock() - started, len(found), len(wanted) - len(found))
        return found

    cache.get = counted
    if type(cache).get_many is not BaseCache.get_many:
        cache.get_many = counted_many
    for operation in _OPERATIONS:
        if getattr(type(cache), operation) is not getattr(BaseCache, operation):
            setattr(cache, operation, _timed(getattr(cache, operation), alias, operation))
    return cache  # type: ignore[no-any-return]


def _timed(call: Callable[..., Any], alias: str, operation: str) -> Callable[..., Any]:
    clock = time.perf_counter

    def counted(*args: Any, **more: Any) -> Any:
        started = clock()
        try:
            return call(*args, **more)
        except ValueError:  # `incr` of a key that is not there: an answer
            raise
        except Exception as error:
            CACHE_ERRORS.add(1.0, (alias, type(error).__name__))
            raise
        finally:
            _add(alias, operation, clock() - started, 0.0, 0.0)

    return counted


def _add(alias: str, operation: str, seconds: float, hits: float, misses: float) -> None:
    spent = SPENT.get()
    if spent is None:
        _count_calls(alias, operation, [1.0, seconds, hits, misses])
        return
    cell = spent.caches.get((alias, operation))
    if cell is None:
        spent.caches[alias, operation] = [1.0, seconds, hits, misses]
        return
    cell[0] += 1.0
    cell[1] += seconds
    cell[2] += hits
    cell[3] += misses


def _count_calls(alias: str, operation: str, cell: list[float]) -> None:
    calls, seconds, hits, misses = cell
    CALLS.add(calls, (alias, operation))
    CALL_SECONDS.add(seconds, (alias, operation))
    if hits:
        HITS.add(hits, (alias,))
    if misses:
        MISSES.add(misses, (alias,))
