"""Of a long chart no spike is lost: each step shows the sample farthest from the average of its own."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from apps.accounts.permissions import EVERYTHING, Principal
from apps.dashboards import plots, spikes
from apps.dashboards.panels import Panel, Query
from apps.dashboards.timespan import Span
from apps.metrics import services as metrics
from apps.metrics.query import WAITED_FOR
from apps.metrics.samples import Samples

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = Span(NOW - timedelta(days=1), NOW - timedelta(days=1), NOW, timedelta(minutes=5))
HOUR = Span(NOW - timedelta(hours=1), NOW - timedelta(hours=1), NOW, timedelta(seconds=15))
BY = Principal.system("test", via="command")


@pytest.mark.parametrize(
    ("text", "is_bare"),
    [
        ("queue", True),
        ('(queue{host="a"})', True),
        ("queue offset 1h", False),
        ("queue @ 12", False),
        ('{__name__=~"queue|stack"}', False),
        ("sum(queue)", False),
        ("rate(queue[5m])", False),
        ("queue + 1", False),
        ("queue{", False),
    ],
)
def test_only_samples_as_they_are_are_condensed(text, is_bare):
    assert (spikes.selector_of(text, DAY) is not None) is is_bare
    assert spikes.selector_of(text, HOUR) is None, "each sample has a step of its own"


def put(samples):
    names = [{"__name__": "queue", "host": host} for host, _, _ in samples]
    times = [int(at.timestamp() * 1000) for _, at, _ in samples]
    metrics.ingest(samples=Samples.of(names, times, [value for *_, value in samples]), by=BY, now=NOW, window=None)


@pytest.mark.django_db
def test_a_peak_and_a_dip_of_one_sample_stay_on_a_chart_of_a_day():
    quarter = timedelta(seconds=15)
    peak, dip = NOW - timedelta(hours=9, seconds=100), NOW - timedelta(hours=3, seconds=100)
    put([("a", NOW - n * quarter, 10.0) for n in range(5760)])
    put([("a", peak + timedelta(seconds=1), 90.0), ("a", dip + timedelta(seconds=1), -70.0)])
    panel = Panel("p", "Queue", "count", (Query("queue", "{host}"),), minimum=None)
    found = plots.plot(panel, DAY, plots.UNWATCHED, scope=EVERYTHING)
    (series,) = found["series"]
    assert (np.nanmax(series["values"]), np.nanmin(series["values"])) == (90.0, -70.0)
    assert found["condensed"] is True
    assert found["count"] == 289
    short = plots.plot(panel, HOUR, plots.UNWATCHED, scope=EVERYTHING)
    assert short["condensed"] is False


@pytest.mark.django_db
def test_samples_that_are_rarer_than_steps_leave_no_gaps():
    put([("a", NOW - timedelta(minutes=4 * n), float(n)) for n in range(30)])
    span = Span(NOW - timedelta(hours=1), NOW - timedelta(hours=1), NOW, timedelta(minutes=1))
    found = spikes.query_range("queue", span, scope=EVERYTHING, limits=WAITED_FOR)
    assert found.ok.all()


@pytest.mark.django_db
def test_ten_thousand_series_are_twenty_lines_and_how_many_more_there_are():
    at = int(NOW.timestamp() * 1000)
    names = [{"__name__": "queue", "host": f"h{n:05}"} for n in range(10_000)]
    metrics.ingest(samples=Samples.of(names, [at] * 10_000, list(map(float, range(10_000)))), by=BY, now=NOW)
    panel = Panel("p", "Queue", "count", (Query("queue", "{host}"),))
    found = plots.plot(panel, DAY, plots.UNWATCHED, scope=EVERYTHING)
    assert [row["name"] for row in found["series"]][:2] == ["h09999", "h09998"]
    assert (len(found["series"]), found["more"]) == (20, 9_980)


def test_names_are_bounded():
    assert len(plots.legend("{host}", {"host": "x" * 100_000})) == plots.LONGEST_NAME
