"""What a query would read is told from the catalog and the list of stored rows, before anything is decoded."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.db import connection

from apps.accounts.permissions import Principal, Scope
from apps.metrics import catalog, compaction, query, registry, services, sizing, storage, young
from apps.metrics.samples import Samples
from apps.promql.engine import Limits
from apps.promql.errors import Cancelled, DeadlineExceeded, LimitError

NOW = datetime(2026, 11, 1, 13, 59, 59, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
EVERY = 15_000
HOUR = timedelta(hours=1)


def send(names: list[str], series: int, samples: int) -> None:
    """The newest so many samples of so many series of each name, in one ingest a scrape."""
    for age in reversed(range(samples)):
        labels = [{"__name__": name, "n": str(n), "half": "ab"[n % 2]} for name in names for n in range(series)]
        rows = Samples.of(labels, [MS - age * EVERY] * len(labels), [float(age)] * len(labels))
        services.ingest(samples=rows, by=Principal.system("test"), now=NOW, window=None)


@pytest.fixture(params=["young", "compacted"])
def stored(request, db):
    send(["big"], 300, 40)
    send([f"small{n}" for n in range(8)], 5, 40)
    if request.param == "compacted":
        compaction.compact_log(now=NOW)


@pytest.mark.parametrize(
    ("asked", "series", "samples"),
    [
        ("big", 300, 300 * 20),
        ("big{n='7'}", 1, 20),
        ("big{half='a'}", 150, 150 * 20),
        ("small3", 5, 100),
        ("small3{n='1'}", 1, 20),
        ("{__name__=~'small.*'}", 40, 800),
        ("{n='1'}", 9, 180),
        ("count_over_time(big[10m])", 300, 300 * 40),
        ("max_over_time(big[2m30s:1m])", 300, 300 * 30),
        ("big - big offset 5m", 300, 300 * 40),
        ("nothing", 0, 0),
    ],
)
def test_the_cost_of_a_query_is_about_what_it_reads(stored, asked, series, samples):
    told = query.cost(asked, start=NOW, end=NOW, step=None)
    assert told.series == series
    assert abs(told.samples - samples) <= max(0.25 * samples, 2)
    read = query.instant(asked, at=NOW).stats
    assert abs(told.samples - read.samples) <= max(0.25 * samples, 2)


def test_the_cost_is_of_what_the_scope_shows(stored):
    narrow = Scope((("half", "=", "a"),))
    assert query.cost("big", start=NOW, end=NOW, step=None, scope=narrow).series == 150
    assert query.cost("big", start=NOW, end=NOW, step=None, scope=narrow, limits=Limits(series=149)).refused


def test_a_query_over_budget_is_refused_before_a_payload_is_fetched(stored, monkeypatch):
    young.forget()
    storage.forget()
    fetched = []
    monkeypatch.setattr(storage, "fetch", lambda *a: fetched.append(a))
    with pytest.raises(LimitError, match=r"the query reads \d+ samples, more than the limit of 100"):
        query.query_range("rate(big[5m])", start=NOW - HOUR, end=NOW, step=HOUR, limits=Limits(samples=100))
    with pytest.raises(LimitError, match="reads 300 series, more than the limit of 10"):
        query.instant("big", at=NOW, limits=Limits(series=10))
    assert fetched == []


@pytest.mark.parametrize(
    "asked", ["sum by (half) (rate(big[5m]))", "count(big @ 1793541599 or small1)", "big and small3", "big[2m]"]
)
def test_a_query_in_pieces_reads_the_same_from_the_store(stored, asked):
    whole = query.instant(asked, at=NOW)
    pieces = query.instant(asked, at=NOW, limits=Limits(held=50, seconds=30))
    assert pieces.to_api() == whole.to_api()


def test_one_look_serves_the_estimate_and_the_reading(stored, monkeypatch):
    looks = []

    def snapshot(cur, bounds, real=storage.snapshot):
        looks.append(bounds)
        return real(cur, bounds)

    monkeypatch.setattr(storage, "snapshot", snapshot)
    query.instant("sum(rate(big[5m])) + sum(small1)", at=NOW)
    assert len(looks) == 1


def test_reading_is_given_up_when_nobody_waits(stored):
    storage.forget()
    young.forget()
    asked = iter([False, False])
    with pytest.raises(Cancelled):
        query.instant("sum(big)", at=NOW, cancelled=lambda: next(asked, True))


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_answer_ends_with_the_querys_time(monkeypatch):
    def slow(cur, bounds):
        cur.execute("SELECT pg_sleep(20)")
        raise AssertionError("it was not stopped")

    send(["big"], 1, 1)
    catalog.forget()
    registry.forget()
    monkeypatch.setattr(storage, "snapshot", slow)
    with pytest.raises(DeadlineExceeded, match=r"the database did not answer within 0\.2 seconds"):
        query.instant("big", at=NOW, limits=Limits(seconds=0.2))
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


def test_a_row_counts_by_the_share_of_its_time_and_series():
    row = storage.BlockRow(1, 0, 1000, 1999, 5, 5, 1, 100, 10_000, 0)
    ids = np.arange(1, 101, dtype=np.int64)
    for wanted, tmin, tmax, samples in (
        (ids, 0, 5000, 10_000),
        (ids[:1], 0, 5000, 100),
        (ids, 1499, 5000, 5_000),
        (ids, 2000, 5000, 0),
    ):
        sought = sizing.Sought(tmin, tmax, wanted, ids, {4: 50, 6: 100})
        assert sought.in_blocks([row]) == pytest.approx(samples)
    mixed = storage.BlockRow(1, 0, 1000, 1999, 5, 6, 1, 300, 10_000, 0)
    assert sizing.Sought(0, 5000, ids, ids, {4: 50, 6: 100}).in_blocks([mixed]) == pytest.approx(5_000)
