"""What every test shares: a flush that respects append-only tables, and browser tests at the end."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from playwright.sync_api import Browser, sync_playwright

from monitoring_portal.settings import redis_database
from monitoring_portal.testing import chromium_path


def _flush_by_delete(
    self: DatabaseOperations,
    style: object,
    tables: list[str],
    *,
    reset_sequences: bool = False,
    allow_cascade: bool = False,
) -> list[str]:
    """Empty the tables by DELETE (27 ms where TRUNCATE takes 130), with triggers and foreign keys off."""
    return [
        "SET session_replication_role = replica;",
        *(f"DELETE FROM {self.quote_name(table)};" for table in tables),
        "SET session_replication_role = origin;",
    ]


DatabaseOperations.sql_flush = _flush_by_delete  # type: ignore[method-assign,assignment]
# How long an example takes on a busy machine says nothing about it.
hypothesis.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("untimed")


def pytest_configure() -> None:
    """Each worker has a Redis database of its own for its cache: clearing it is no business of the others."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    settings.CACHES["default"]["LOCATION"] = redis_database(4 + number % 12)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests run last, in one worker: an event loop of Playwright would disturb asynchronous tests after it."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(autouse=True, scope="session")
def _real_broker() -> None:
    """Wakes go to the run's own Valkey; an unconfigured Celery would look for another broker for ever."""
    from monitoring_portal import celery

    celery.configure()


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """Processes remember series, rows and tokens; between tests the tables are emptied under this one."""
    from apps.dashboards import shared
    from apps.metrics import catalog, registry, storage, young
    from apps.sources.logs import services as logs

    for memory in (registry, catalog, storage, young, logs, shared):
        memory.forget()


@pytest.fixture(autouse=True)
def _nothing_left_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Series, their metrics and the default policy commit on a connection of their own, and outlive a rollback."""
    from apps.metrics import registry

    used: list[dict[str, object]] = []
    second = registry._second_connection

    def noted() -> AbstractContextManager[Any]:
        used.append(connection.get_connection_params())
        return second()

    monkeypatch.setattr(registry, "_second_connection", noted)
    yield  # set up before the database is, and so torn down after its rollback
    if used:
        with psycopg.connect(**used[-1], autocommit=True) as raw:  # type: ignore[arg-type]
            raw.execute("SET session_replication_role = replica")
            for table in ("series", "metric", "retentionpolicy"):
                raw.execute(f"DELETE FROM metrics_{table}")


@pytest.fixture(autouse=True)
def _census_waits_for_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A census counts what is below the oldest open transaction of the server, which may be another worker's test."""
    from apps.metrics import census
    from apps.metrics.models import MetricCount, Series

    take = census.take

    def taken(*, now: datetime) -> None:
        for _ in range(300):
            take(now=now)
            if MetricCount.objects.exists() or not Series.objects.exists():
                return
            time.sleep(0.1)

    monkeypatch.setattr(census, "take", taken)


@pytest.fixture
def another_connection(transactional_db: None) -> Iterator[object]:
    """Return a second, independent connection to the test database, for tests of what others see."""
    other = connection.copy()
    other.connect()
    yield other
    other.close()


def browser_path() -> str:
    """Return where Chromium is; a test that wants one fails where there is none."""
    found = chromium_path()
    if found is None:
        pytest.fail("No Chromium on PATH: install the package chromium, or run the tests by ./portal test.")
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
