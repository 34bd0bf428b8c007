"""What every test shares: a database that is empty before each, and browser tests at the end."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.backends.postgresql.creation import DatabaseCreation
from django.test import TestCase, TransactionTestCase
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from playwright.sync_api import Browser, sync_playwright

from monitoring_portal.settings import redis_database
from monitoring_portal.testing import chromium_path

OF_THE_CODE = {"django_migrations", "django_content_type", "auth_permission"}
"""Tables whose rows come with the code: to write them anew after each test took 180 statements."""
OF_THE_REGISTRY = {"metrics_series", "metrics_metric", "metrics_retentionpolicy"}
"""Tables that the registry of series writes on a connection of its own: a rollback of the test does not reach them."""


@cache
def _which_hold_rows() -> str:
    tables = sorted(set(connection.introspection.django_table_names(only_existing=True)) - OF_THE_CODE)
    return " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})" for table in tables)


def emptied() -> set[str]:
    """Empty the tables of the test database, with triggers and foreign keys off; return those that held rows."""
    connection.close_if_unusable_or_obsolete()
    connection.ensure_connection()
    raw = connection.connection
    found = {table for (table,) in raw.execute(_which_hold_rows(), prepare=True)}
    if found:
        deletions = "".join(f"DELETE FROM {table};" for table in sorted(found))
        raw.execute(f"SET session_replication_role = replica; {deletions} SET session_replication_role = origin")
    return found


roll_back = TestCase._fixture_teardown  # type: ignore[attr-defined]


def nothing_is_left() -> None:
    """Empty the tables after an ordinary test; only the registry may have committed what is to go."""
    left = emptied() - OF_THE_REGISTRY
    assert not left, f"This test has committed rows of {', '.join(sorted(left))} without being marked as transactional."


def _after_a_test(self: TestCase) -> None:
    roll_back(self)
    nothing_is_left()


def _after_a_transactional_test(self: TransactionTestCase) -> None:
    emptied()


TestCase._fixture_teardown = _after_a_test  # type: ignore[attr-defined]
TransactionTestCase._fixture_teardown = _after_a_transactional_test  # type: ignore[attr-defined]
# A connection of its own would cost each test 15 ms: what the server knows of a hundred tables is known by connection.
TransactionTestCase._should_reload_connections = lambda self: False  # type: ignore[attr-defined]


def _drop(self: Any, test_database_name: str, verbosity: int) -> None:
    """Drop the test database with its sessions: threads of pools keep theirs as long as their process lives."""
    with self._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE {self.connection.ops.quote_name(test_database_name)} WITH (FORCE)")


DatabaseCreation._destroy_test_db = _drop  # type: ignore[attr-defined]

# How long an example takes on a busy machine says nothing about it.
hypothesis.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("untimed")


def pytest_configure() -> None:
    """Each worker has a Redis database of its own for its cache: clearing it is no business of the others."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    settings.CACHES["default"]["LOCATION"] = redis_database(4 + number % 12)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups that share a whole portal come first, for they take longest; tests with a browser last, in all workers.

    Last, for an event loop of Playwright would disturb asynchronous tests after it.
    """
    groups = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("xdist_group"))}
    with_browser = {item for item in items if item.get_closest_marker("browser")}
    groups_with_browser = {groups.get(item) for item in with_browser} - {None}
    for item in with_browser:
        item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (item in with_browser or groups.get(item) in groups_with_browser, item not in groups))


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
