"""Counters in memory: right under threads, bounded in labels, zero after a fork."""

import itertools
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core import telemetry
from apps.core.telemetry import Counter, Extent, Gauge, Histogram, Reading

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A metric name that no other test uses: metrics live as long as the process."""
    return f"test_{next(_numbers)}_total"


def found(name: str, *, close: bool = False) -> dict[tuple[str, ...], float]:
    """What the snapshot says about the metrics whose names begin with `name`, by name and label values."""
    return {
        (reading.name.removeprefix(name), *reading.labels.values()): reading.value
        for reading in telemetry.snapshot(close=close)
        if reading.name.startswith(name)
    }


def test_a_counter_adds_up_by_label(name):
    counter = Counter(name, "Things.", ("kind",))
    counter.inc(kind="a")
    counter.inc(2.5, kind="a")
    counter.inc(kind="b")
    assert found(name) == {("", "a"): 3.5, ("", "b"): 1.0}


def test_a_counter_without_labels_is_there_from_the_start(name):
    Counter(name, "Things.")
    assert found(name) == {("",): 0.0}


def test_a_counter_refuses_to_go_down(name):
    with pytest.raises(ValueError, match="cannot go down"):
        Counter(name, "Things.").inc(-1)


@pytest.mark.parametrize("labels", [{}, {"kin": "a"}, {"kind": "a", "more": "b"}])
def test_wrong_labels_are_refused(name, labels):
    with pytest.raises(ValueError, match="label"):
        Counter(name, "Things.", ("kind",)).inc(**labels)


def test_a_touched_series_stands_at_zero(name):
    Counter(name, "Things.", ("kind",)).touch(kind="a")
    assert found(name) == {("", "a"): 0.0}


def test_the_same_name_twice_is_refused(name):
    Counter(name, "Things.")
    with pytest.raises(ValueError, match="defined twice"):
        Gauge(name, "Things.")


def test_a_gauge_goes_both_ways(name):
    gauge = Gauge(name, "Level.")
    gauge.set(5)
    gauge.dec(2)
    gauge.inc()
    assert (found(name), gauge.value()) == ({("",): 4.0}, 4.0)


def test_a_histogram_counts_cumulatively_with_prometheus_edges(name):
    histogram = Histogram(name, "Seconds.", buckets=(0.5, 1.0, 5.0))
    for value in (0.1, 0.5, 0.7, 60.0):
        histogram.observe(value)
    assert found(name) == {
        ("_bucket", "0.5"): 2.0,
        ("_bucket", "1.0"): 3.0,
        ("_bucket", "5.0"): 3.0,
        ("_bucket", "+Inf"): 4.0,
        ("_sum",): 61.3,
        ("_count",): 4.0,
    }


@pytest.mark.parametrize("buckets", [(), (2.0, 1.0), (1.0, 1.0)])
def test_buckets_that_do_not_ascend_are_refused(name, buckets):
    with pytest.raises(ValueError, match="ascend"):
        Histogram(name, "Seconds.", buckets=buckets)


@given(st.lists(st.floats(min_value=0, max_value=100, allow_nan=False)))
def test_the_last_bucket_holds_every_observation(values):
    name = f"test_{next(_numbers)}_seconds"
    histogram = Histogram(name, "Seconds.")
    for value in values:
        histogram.observe(value)
    readings = found(name)
    assert readings["_bucket", "+Inf"] == readings["_count",] == len(values)
    buckets = [value for key, value in readings.items() if key[0] == "_bucket"]
    assert buckets == sorted(buckets)


def test_an_extent_keeps_the_extremes_until_its_interval_is_closed(name):
    extent = Extent(name, "Seconds.")
    for value in (3.0, 1.0, 2.0):
        extent.observe(value)
    assert found(name) == {("_min",): 1.0, ("_max",): 3.0}
    assert found(name, close=True) == {("_min",): 1.0, ("_max",): 3.0}
    assert found(name) == {}


def test_too_many_label_sets_are_counted_together_and_the_total_stays_right(name):
    counter = Counter(name, "Things.", ("kind",), limit=2)
    for kind in ("a", "b", "c", "d", "a"):
        counter.inc(kind=kind)
    assert found(name) == {("", "a"): 2.0, ("", "b"): 1.0, ("", "overflow"): 2.0}
    overflow = [r for r in telemetry.snapshot() if r.name == "portal_telemetry_overflow_total"]
    assert Reading("portal_telemetry_overflow_total", 2.0, {"metric": name}, "counter", telemetry.OVERFLOWN) in overflow


def test_no_increment_is_lost_between_threads(name):
    counter = Counter(name, "Things.", ("kind",))
    histogram = Histogram(f"x{name}", "Seconds.")

    def work() -> None:
        for _ in range(2000):
            counter.inc(kind="a")
            histogram.observe(0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counter.value(kind="a"), found(f"x{name}")["_count",]) == (16000.0, 16000.0)


def test_callbacks_are_measured_at_each_snapshot(name):
    telemetry.on_snapshot(lambda: [Reading(name, 7.0)])
    assert found(name) == {("",): 7.0}


def test_a_forked_process_that_resets_starts_at_zero_even_when_a_lock_was_held(name):
    counter = Counter(name, "Things.", ("kind",))
    counter.inc(kind="a")
    reading, writing = os.pipe()
    with counter.lock:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the child's coverage is not collected
            again = (telemetry.reset_if_forked(), telemetry.reset_if_forked())
            before = counter.value(kind="a")
            counter.inc(kind="a")
            os.write(writing, f"{again} {before} {counter.value(kind='a')}".encode())
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "(True, False) 0.0 1.0"
    assert (telemetry.reset_if_forked(), counter.value(kind="a")) == (False, 1.0)


def test_outbound_requests_are_counted_by_host_and_status():
    telemetry.outbound("a.example", 200, 0.2)
    telemetry.outbound("a.example", 0, 10.0)
    counts = {
        reading.labels["code"]: reading.value
        for reading in telemetry.snapshot()
        if reading.name.endswith("request_duration_seconds_count") and reading.labels.get("host") == "a.example"
    }
    assert counts == {"200": 1.0, "none": 1.0}
