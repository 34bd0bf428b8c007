"""What a process counts about itself gets into the store: on the tick, with a start at zero, through outages."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps.accounts.permissions import EVERYTHING, Scope
from apps.core import telemetry
from apps.core.telemetry import LOGIN_FAILURES, Reading
from apps.metrics import collection, flushed, middleware, query, services, telemetry_flush
from apps.metrics.models import CollectionSwitch
from apps.metrics.telemetry_flush import Flusher
from apps.promql.series import STALE_BITS
from apps.promql.source import Matcher

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """`seconds` after noon."""
    return NOON + timedelta(seconds=seconds)


def counter(value: float, **labels: str) -> Reading:
    return Reading("test_flush_total", value, labels, "counter", "Things.")


def written(readings: list[Reading]) -> set[tuple[str, float, float]]:
    """(label x, seconds after noon, value) of the test counter; a staleness marker is NaN and shows as -1."""
    return {
        (
            r.labels.get("x", ""),
            (r.timestamp_ms or 0) / 1000 - NOON.timestamp(),
            r.value if r.value == r.value else -1.0,
        )
        for r in readings
        if r.name.startswith("test_")
    }


@pytest.fixture
def flusher():
    return Flusher("web", started=at(0))


def ms(seconds: float) -> int:
    return int(at(seconds).timestamp() * 1000)


def test_a_new_counter_begins_at_zero_one_flush_earlier(flusher):
    assert written(flusher.readings([counter(3.0, x="a")], ms(2))) == {("a", 0, 0.0), ("a", 2, 3.0)}
    second = written(flusher.readings([counter(4.0, x="a"), counter(1.0, x="b")], ms(15)))
    assert second == {("a", 15, 4.0), ("b", 2, 0.0), ("b", 15, 1.0)}


def test_a_gauge_is_not_given_a_zero_that_nobody_measured(flusher):
    assert written(flusher.readings([Reading("test_level", 3.0)], ms(2))) == {("", 2, 3.0)}


def test_what_is_no_longer_counted_is_ended(flusher):
    flusher.readings([counter(1.0, x="a"), Reading("test_min", 1.0, {"x": "m"})], ms(2))
    assert ("m", 15, -1.0) in written(flusher.readings([counter(1.0, x="a")], ms(15)))


def test_every_series_says_which_process_it_is_of(flusher):
    [reading] = [r for r in flusher.readings([Reading("test_level", 1.0)], ms(2)) if r.name == "test_level"]
    assert reading.labels == {"instance": collection.instance(), "job": "portal", "process": "web"}


# --- With the store -----------------------------------------------------------------------------------------------


@pytest.fixture
def stored(transactional_db, flusher):
    telemetry.reset()
    return flusher


def series(name: str, **labels: str) -> list[tuple[float, float]]:
    """The samples of one series as (seconds after noon, value)."""
    got = query.select([Matcher("__name__", "=", name), *(Matcher(k, "=", v) for k, v in labels.items())], 0, 2**62)
    assert got.size <= 1
    ended = got.v.view("uint64") == STALE_BITS
    return [
        ((ts - ms(0)) / 1000, -1.0 if stale else value)
        for ts, value, stale in zip(got.ts.tolist(), got.v.tolist(), ended.tolist(), strict=True)
    ]


def only(expression: str, seconds: float) -> float:
    """The value of an expression that gives one series."""
    result = query.instant(expression, at=at(seconds))
    assert result.v.shape == (1, 1)
    return float(result.v[0, 0])


def test_the_first_request_shows_in_a_rate(stored):
    middleware.observe("/x", "GET", 200, 0.01)
    stored.flush(now=at(2), at=at(2))
    assert only('sum(increase(http_requests_total{endpoint="/x"}[1m]))', 2) > 0


def test_a_database_outage_loses_no_count_and_no_beginning(stored, monkeypatch):
    stored.flush(now=at(2), at=at(2))
    middleware.observe("/x", "GET", 200, 0.01)

    def refuse(**kwargs):
        raise services.StoreFull("no space")

    with monkeypatch.context() as broken:
        broken.setattr(services, "ingest", refuse)
        with pytest.raises(services.StoreFull):
            stored.flush(now=at(15), at=at(15))
    middleware.observe("/x", "GET", 200, 0.01)
    stored.flush(now=at(30), at=at(30))
    assert series("http_requests_total", endpoint="/x") == [(2, 0.0), (30, 2.0)]


def test_nothing_is_stored_while_collection_is_off(stored):
    LOGIN_FAILURES.inc()
    stored.flush(now=at(2), at=at(2))
    CollectionSwitch.objects.update_or_create(pk=1, defaults={"on": False})
    stored.flush(now=at(15), at=at(15))
    stored.flush(now=at(30), at=at(30))
    assert series("portal_login_failures_total") == [(0, 0.0), (2, 1.0), (2.001, -1.0)]


def test_the_last_flush_of_a_process_ends_its_series(stored):
    stored.flush(now=at(2), at=at(2))
    stored.end(now=at(3))
    assert series("http_requests_in_flight")[-1] == (2.001, -1.0)
    assert flushed.render(EVERYTHING, now=at(4)) == b""


def test_the_metrics_page_shows_the_last_flush_of_every_process(stored):
    middleware.observe("/x", "GET", 200, 0.2)
    stored.flush(now=at(2), at=at(2))
    Flusher("worker", started=at(0)).flush(now=at(2), at=at(2))
    families = {
        family.name: family for family in text_string_to_metric_families(flushed.render(EVERYTHING, now=at(9)).decode())
    }
    requests = {tuple(sorted(s.labels.items()))[-1]: s.value for s in families["http_requests"].samples}
    assert requests == {("process", "web"): 1.0, ("process", "worker"): 1.0}
    histogram = families["http_request_duration_seconds"]
    assert (histogram.type, histogram.documentation) == ("histogram", "Seconds until the answer began.")
    assert families["http_requests_in_flight"].type == "gauge"


def test_the_metrics_page_forgets_a_process_that_was_killed(stored):
    stored.flush(now=at(2), at=at(2))
    assert flushed.render(EVERYTHING, now=at(40)) != b""
    assert flushed.render(EVERYTHING, now=at(2) + flushed.FRESH) == b""


def test_the_metrics_page_shows_no_more_than_the_scope(stored):
    stored.flush(now=at(2), at=at(2))
    assert flushed.render(Scope((("process", "=", "other"),)), now=at(3)) == b""


@pytest.mark.django_db(transaction=True)
def test_a_started_process_flushes_soon_counts_failures_and_flushes_once_more_when_it_stops(monkeypatch):
    monkeypatch.setattr(telemetry_flush, "FIRST", 0.01)
    flushed = threading.Event()
    real = Flusher.flush
    fail = [True]

    def flush(self, *, now, at):
        if fail:
            fail.pop()
            monkeypatch.setattr(telemetry_flush, "EVERY", timedelta(milliseconds=50))
            raise OSError("the database is away")
        count = real(self, now=now, at=at)
        flushed.set()
        return count

    monkeypatch.setattr(Flusher, "flush", flush)
    before = telemetry_flush.FAILURES.value()
    telemetry_flush.start("test")
    first = telemetry_flush._thread
    assert first is not None
    telemetry_flush.start("test")
    assert telemetry_flush._thread is first
    assert flushed.wait(20)
    telemetry_flush.stop(timeout=20)
    assert not first.is_alive()
    assert telemetry_flush.FAILURES.value() == before + 1
    got = query.select(
        [Matcher("process", "=", "test"), Matcher("__name__", "=", "process_resident_memory_bytes")], 0, 2**62
    )
    assert got.v[:-1].min() > 1e6
    assert got.v[-1:].view("uint64")[0] == STALE_BITS
