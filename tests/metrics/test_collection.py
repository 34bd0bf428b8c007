"""Rounds of collectors: when they are due, what one that fails or hangs costs, what is stored and what is ended."""

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django import forms
from hypothesis import given
from hypothesis import strategies as st

from apps.core.telemetry import Reading
from apps.metrics import collection, query, services
from apps.metrics.collection import Collection, Due, Outcome, Round, Runner, plan, tick
from apps.metrics.collectors import HOST, OWN, Collector, NoData
from apps.metrics.models import CollectionSwitch, CollectorSetting
from apps.metrics.presence import Presence
from apps.promql.series import STALE_BITS
from apps.promql.source import Matcher

NOW = datetime(2026, 11, 23, 12, 0, 7, 345678, tzinfo=UTC)
EVERY = timedelta(seconds=15)


def at(seconds: float) -> datetime:
    """`seconds` after noon."""
    return datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(seconds=seconds)


class Steady(Collector):
    """Two series."""

    kind = "steady"
    label = "Steady"

    def collect(self):
        return [Reading("test_a", 1.0, {"x": "1"}), Reading("test_a", 2.0, {"x": "2"})]


class Fading(Collector):
    """One series less in every round."""

    kind = "fading"
    label = "Fading"

    def __init__(self, config=None):
        super().__init__(config)
        self.left = 2

    def collect(self):
        self.left -= 1
        return [Reading("test_b", 1.0, {"x": str(number)}) for number in range(self.left + 1)]


class Failing(Collector):
    """Yields one series and breaks."""

    kind = "failing"
    label = "Failing"
    job = OWN

    def collect(self):
        yield Reading("test_half", 1.0)
        raise OSError("the sensor is gone")


class Hanging(Collector):
    """Hangs until it is let go."""

    kind = "hanging"
    label = "Hanging"
    deadline = 0.05
    gate = threading.Event()
    started = 0

    def collect(self):
        type(self).started += 1
        self.gate.wait(30)
        return [Reading("test_late", 1.0)]


class Nothing(Collector):
    """Has nothing to measure."""

    kind = "nothing"
    label = "Nothing"

    def collect(self):
        raise NoData("no such hardware")


class Elsewhere(Steady):
    """Runs on another platform."""

    kind = "elsewhere"
    label = "Elsewhere"
    platforms = ("plan9",)


class Configured(Collector):
    """Has a setting."""

    kind = "configured"
    label = "Configured"

    class Config(forms.Form):
        level = forms.IntegerField(min_value=1, initial=7)

    def collect(self):
        return [Reading("test_level", float(self.config["level"]))]


KINDS = {one.kind: one for one in (Steady, Fading, Failing, Hanging, Nothing, Elsewhere, Configured)}


@pytest.fixture
def runner():
    Hanging.gate.clear()
    Hanging.started = 0
    yield Runner(KINDS)
    Hanging.gate.set()


def due(kind: str, **config: object) -> Due:
    return Due(kind, config, at(0), at(15))


@pytest.mark.parametrize(
    ("now", "every", "expected"),
    [(7.3, 15, 0), (15, 15, 15), (29.999, 15, 15), (30.5, 30, 30), (31, 2.5, 30), (0.4, 1, 0)],
)
def test_the_tick_is_the_last_multiple_of_the_interval(now, every, expected):
    assert tick(at(now), timedelta(seconds=every)) == at(expected)


@given(
    st.integers(0, 10**15).map(lambda microseconds: collection.EPOCH + timedelta(microseconds=microseconds)),
    st.integers(1, 86_400_000).map(lambda ms: timedelta(milliseconds=ms)),
)
def test_a_tick_is_never_ahead_nor_a_whole_interval_behind(now, every):
    found = tick(now, every)
    assert found <= now < found + every
    assert (found - collection.EPOCH) % every == timedelta(0)


@pytest.mark.parametrize(
    ("every", "due_at", "runs", "now", "expected"),
    [
        (15, None, 0, 7.3, (7, 12.3)),
        (15, 3600, 0, 7.3, (7, 12.3)),
        (15, 12.3, 1, 12.0, None),
        (15, 12.3, 1, 12.4, (12, 15)),
        (15, 15, 2, 14.9, None),
        (15, 15, 2, 15.8, (15, 30)),
        (15, 15, 2, 47, (45, 60)),
        (15, None, 5, 20, (15, 30)),
        (2, None, 0, 7.3, (6, 8)),
        (2, 8, 1, 8.1, (8, 10)),
    ],
    ids=[
        "first round at once", "first round of this process though another ran lately", "second round not yet",
        "second round after five seconds", "third round not yet", "third round on the tick",
        "missed ticks are not caught up", "settings row without due time", "short interval: no extra rounds",
        "short interval: on the tick",
    ],
)  # fmt: skip
def test_when_a_collector_is_due_and_how_it_is_stamped(every, due_at, runs, now, expected):
    found = plan(timedelta(seconds=every), None if due_at is None else at(due_at), runs, at(now))
    assert found == (None if expected is None else (at(expected[0]), at(expected[1])))


def test_one_that_fails_stops_no_other_and_nothing_of_it_is_kept(runner):
    failing, steady, nothing = runner.run([due("failing"), due("steady"), due("nothing")])
    assert (failing.error, failing.readings, failing.job) == ("OSError: the sensor is gone", [], OWN)
    assert (steady.error, len(steady.readings), steady.job) == ("", 2, HOST)
    assert (nothing.error, nothing.readings) == ("", [])


def test_one_that_hangs_is_left_behind_and_not_started_again_until_it_ends(runner):
    hanging, steady = runner.run([due("hanging"), due("steady")])
    assert "did not finish within" in hanging.error
    assert len(steady.readings) == 2
    [again] = runner.run([due("hanging")])
    assert "has not finished" in again.error
    assert Hanging.started == 1
    stuck = runner._stuck["hanging"]
    Hanging.gate.set()
    stuck.join(10)
    [after] = runner.run([due("hanging")])
    assert (after.error, len(after.readings), Hanging.started) == ("", 1, 2)


def test_a_collector_of_another_platform_is_passed_over(runner):
    assert runner.run([due("elsewhere")]) == [Outcome("elsewhere", HOST, 0.0)]


def test_a_kind_that_no_file_provides_is_an_outcome():
    [outcome] = Runner().run([due("gone")])
    assert "No plug-in of kind 'gone'" in outcome.error


def test_settings_are_cleaned_and_a_change_makes_the_collector_anew(runner):
    levels = [runner.run([due("configured", **config)])[0].readings[0].value for config in ({}, {"level": 3})]
    assert levels == [7.0, 3.0]


def test_settings_that_do_not_fit_are_said(runner):
    [outcome] = runner.run([due("configured", level=0)])
    assert "level" in outcome.error


def test_a_collector_lives_from_round_to_round(runner):
    counts = [len(runner.run([due("fading")])[0].readings) for _ in range(2)]
    assert counts == [2, 1]


def test_a_series_that_stops_is_ended_once():
    presence = Presence()
    both = [Reading("a", 1.0, {"x": "1"}), Reading("a", 1.0, {"x": "2"})]
    assert presence.update("s", both, 1) == []
    [marker] = presence.update("s", both[:1], 2)
    assert (marker.labels, marker.timestamp_ms) == ({"x": "2"}, 2)
    assert np.float64(marker.value).view(np.uint64) == STALE_BITS
    assert presence.update("s", both[:1], 3) == []
    assert [one.labels for one in presence.end("s", 4)] == [{"x": "1"}]
    assert presence.end("s", 5) == []


def test_a_round_adds_duration_success_and_up():
    outcomes = [
        (Outcome("cpu", HOST, 0.5, [Reading("m", 3.0)]), at(0)),
        (Outcome("redis", OWN, 0.1, error="away"), at(0)),
    ]
    found = {(r.name, r.labels.get("collector", ""), r.labels["job"]): r.value for r in Round("h").readings(outcomes)}
    assert found == {
        ("m", "", "node"): 3.0,
        ("portal_collector_duration_seconds", "cpu", "portal"): 0.5,
        ("portal_collector_success", "cpu", "portal"): 1.0,
        ("portal_collector_duration_seconds", "redis", "portal"): 0.1,
        ("portal_collector_success", "redis", "portal"): 0.0,
        ("up", "", "node"): 1.0,
        ("up", "", "portal"): 0.0,
    }


def test_a_job_is_up_while_one_of_its_collectors_worked_last_though_this_round_held_only_one_that_failed():
    rounds = Round("h")
    rounds.readings([(Outcome("cpu", HOST, 0.1), at(0)), (Outcome("disk", HOST, 0.1), at(0))])
    found = rounds.readings([(Outcome("disk", HOST, 0.1, error="x"), at(5))])
    assert [one.value for one in found if one.name == "up"] == [1.0]


# --- With the store -----------------------------------------------------------------------------------------------


@pytest.fixture
def collecting(transactional_db, runner, monkeypatch):
    """A collection of the test collectors, and a function that enables some of them."""
    monkeypatch.setattr(collection, "instance", lambda: "host-a")
    made = Collection(runner)
    CollectorSetting.objects.all().delete()
    for kind in ("steady", "fading", "failing"):
        CollectorSetting.objects.create(kind=kind, every=EVERY)
    return made


def stored(name: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(job, x or collector) -> [(seconds after noon, value)], a staleness marker as -1."""
    got = query.select([Matcher("__name__", "=", name)], 0, 2**62)
    noon = at(0).timestamp() * 1000
    return {
        (labels["job"], labels.get("x") or labels.get("collector", "")): [
            ((ts - noon) / 1000, -1.0 if bits == STALE_BITS else value)
            for ts, value, bits in zip(
                got.ts[begin:end].tolist(), got.v[begin:end].tolist(), got.v[begin:end].view(np.uint64), strict=True
            )
        ]
        for labels, begin, end in zip(got.labels.dicts(), got.off[:-1], got.off[1:], strict=True)
    }


def test_the_first_rounds_come_at_zero_and_five_seconds_and_then_on_the_tick(collecting):
    for second in (7.3, 8.3, 12.1, 12.4, 13, 14, 15.2, 16, 30.1):
        collecting.collect(now=at(second))
    assert [moment for moment, _ in stored("test_a")["node", "1"]] == [7, 12, 15, 30]


def test_a_round_is_one_ingest(collecting, monkeypatch):
    calls = []
    real = services.ingest

    def counting(**kwargs):
        calls.append(len(kwargs["samples"]))
        return real(**kwargs)

    monkeypatch.setattr(services, "ingest", counting)
    assert collecting.collect(now=at(7)) == sum(calls)
    assert len(calls) == 1


def test_series_of_one_round_share_their_timestamp_and_carry_job_and_instance(collecting):
    collecting.collect(now=NOW)
    got = query.select([Matcher("instance", "=", "host-a")], 0, 2**62)
    assert set(got.ts.tolist()) == {int(at(7).timestamp() * 1000)}
    assert set(got.labels.texts("job")) == {"node", "portal"}


def test_what_stops_is_ended_with_a_marker_and_what_fails_with_its_success_at_zero(collecting):
    collecting.collect(now=at(0))
    collecting.collect(now=at(5))
    assert stored("test_b")["node", "1"] == [(0, 1.0), (5, -1.0)]
    assert stored("test_b")["node", "0"] == [(0, 1.0), (5, 1.0)]
    assert stored("portal_collector_success")["portal", "failing"] == [(0, 0.0), (5, 0.0)]
    assert stored("test_half") == {}


def test_settings_show_how_the_last_run_went_and_when_the_next_is_due(collecting):
    collecting.collect(now=at(0))
    steady, failing = (CollectorSetting.objects.get(kind=kind) for kind in ("steady", "failing"))
    assert (steady.last_at, steady.due_at, steady.error, steady.claimed_until) == (at(0), at(5), "", None)
    assert failing.error == "OSError: the sensor is gone"
    assert steady.duration is not None


def test_nothing_runs_while_collection_is_off_and_every_series_is_ended_once(collecting):
    collecting.collect(now=at(0))
    CollectionSwitch.objects.update_or_create(pk=1, defaults={"on": False})
    assert collecting.collect(now=at(10)) > 0
    assert stored("test_a")["node", "1"] == [(0, 1.0), (10, -1.0)]
    assert stored("up")["node", ""] == [(0, 1.0), (10, -1.0)]
    assert collecting.collect(now=at(20)) == 0
    CollectionSwitch.objects.update(on=True)
    collecting.collect(now=at(21))
    assert stored("test_a")["node", "1"][-1] == (21, 1.0)


def test_a_collector_that_is_switched_off_ends_its_own_series_only(collecting):
    collecting.collect(now=at(0))
    CollectorSetting.objects.filter(kind="steady").update(enabled=False)
    collecting.collect(now=at(5))
    assert stored("test_a")["node", "1"] == [(0, 1.0), (5, -1.0)]
    assert stored("portal_collector_success")["portal", "steady"][-1] == (5, -1.0)
    assert stored("up")["node", ""] == [(0, 1.0), (5, 1.0)]


def test_a_row_that_another_worker_has_claimed_is_left_to_it(collecting):
    CollectorSetting.objects.filter(kind="steady").update(claimed_until=datetime(2100, 1, 1, tzinfo=UTC))
    collecting.collect(now=at(0))
    assert stored("test_a") == {}
    assert stored("test_b")


def test_a_round_that_could_not_be_stored_ends_its_series_in_the_next_one(collecting, monkeypatch):
    collecting.collect(now=at(0))

    def refuse(**kwargs):
        raise services.StoreFull("no space")

    with monkeypatch.context() as broken:
        broken.setattr(services, "ingest", refuse)
        with pytest.raises(services.StoreFull):
            collecting.collect(now=at(5))
    collecting.collect(now=at(15))
    assert stored("test_b")["node", "1"] == [(0, 1.0), (15, -1.0)]


@pytest.mark.django_db(transaction=True)
def test_a_whole_round_of_this_machine_is_stored_and_read_back():
    CollectorSetting.objects.all().delete()
    for kind in ("cpu", "meminfo", "filesystem", "postgres", "redis"):
        CollectorSetting.objects.create(kind=kind, every=EVERY)
    assert Collection().collect(now=at(0)) > 50
    [used] = query.latest([Matcher("__name__", "=", "node_memory_MemAvailable_bytes")], at=at(1))
    assert 0 < used.value < 1e15
    expression = "count(100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes) > 0)"
    assert query.instant(expression, at=at(1)).v.tolist() == [[1.0]]
