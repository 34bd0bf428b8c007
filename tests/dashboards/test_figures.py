"""The arithmetic of the seed's figures, without a database."""

import numpy as np
import pytest
from rest_framework.exceptions import ValidationError

from apps.dashboards.facade import metric_reading, request_reading, time_range
from apps.dashboards.overview_text import sparkline
from apps.dashboards.request_figures import _quantile, increments, step_for
from apps.dashboards.system_figures import steps_for
from apps.promql.labels import Labels
from apps.promql.series import Ragged
from tests.clock import NOW

MS = int(NOW.timestamp() * 1000)


def ragged(*series):
    return Ragged(
        labels=Labels.from_dicts([{"endpoint": str(n)} for n in range(len(series))]),
        ts=np.array([t for one in series for t, _ in one], dtype=np.int64),
        v=np.array([v for one in series for _, v in one], dtype=np.float64),
        off=np.cumsum([0, *map(len, series)]).astype(np.int64),
    )


@pytest.mark.parametrize(
    ("samples", "grown"),
    [
        ([(1, 5), (2, 7), (3, 7)], [5, 2, 0]),
        ([(1, 5), (2, 3)], [5, 3]),
        ([(-1, 5), (1, 8)], [3]),
        ([(1, 5), (2, float("nan")), (3, 6)], [5, 1]),
        ([], []),
    ],
)
def test_counters_grow_by_whole_requests(samples, grown):
    assert increments(ragged(samples), 0).amount.tolist() == grown


def test_each_series_counts_by_itself():
    found = increments(ragged([(1, 5), (2, 7)], [(1, 100), (2, 101)]), 0)
    assert found.row.tolist() == [0, 0, 1, 1]
    assert found.amount.tolist() == [5, 2, 100, 1]


@pytest.mark.parametrize(
    ("hours", "combinations", "step"), [(1, 1, 15), (24, 1, 30), (24, 20, 600), (24 * 30, 20, 21600)]
)
def test_the_step_keeps_the_answer_within_its_rows(hours, combinations, step):
    assert step_for(0, hours * 3_600_000, combinations) == step * 1000


def test_quantiles_interpolate_within_the_bucket():
    edges, cumulated = np.array([0.1, 1.0, np.inf]), np.array([90.0, 100.0, 100.0])
    assert _quantile(0.95, edges, cumulated) == pytest.approx(0.55)
    assert _quantile(0.5, edges, cumulated) == pytest.approx(0.1 * 50 / 90)


def test_a_quantile_beyond_the_last_bound_is_that_bound():
    assert _quantile(0.99, np.array([1.0, np.inf]), np.array([1.0, 100.0])) == 1.0


@pytest.mark.parametrize(
    ("text", "range_"),
    [("", (MS - 86_400_000, MS)), ("5,", (5, MS)), ("5,9", (5, 9)), (f"{MS - 10}, {MS}", (MS - 10, MS))],
)
def test_time_ranges_by_table(text, range_):
    assert time_range(text, now=NOW) == range_


@pytest.mark.parametrize("text", ["9,5", "x,y", "1e3,", "-5,9", "0,99999999999999999"])
def test_odd_time_ranges_are_refused(text):
    with pytest.raises(ValidationError):
        time_range(text, now=NOW)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("x", "object"),
        ({}, "endpoint"),
        ({"endpoint": "/a"}, "responseTime"),
        ({"endpoint": "/a", "responseTime": True}, "responseTime"),
        ({"endpoint": "/a", "responseTime": -1}, "negative"),
        ({"endpoint": "/a", "responseTime": 1, "statusCode": 42}, "statusCode"),
        ({"endpoint": "/a", "responseTime": 1, "method": "G T"}, "method"),
        ({"endpoint": "/a", "responseTime": float("nan")}, "finite"),
        ({"endpoint": "/a", "responseTime": 1, "timestamp": "now"}, "timestamp"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(row, complaint):
    with pytest.raises(ValueError, match=complaint):
        request_reading(row, "performance", NOW)


def test_a_pushed_request_keeps_neither_query_string_nor_user():
    row = {"endpoint": "/a?token=s3cret", "method": "post", "responseTime": 120, "statusCode": 201, "userId": "anna"}
    reading = request_reading(row, "performance", NOW)
    assert reading.labels == {"endpoint": "/a", "method": "POST", "code": "201", "job": "push"}
    assert (reading.value, reading.timestamp_ms) == (0.12, MS)


def test_a_pushed_metric_carries_its_type_as_category():
    reading = metric_reading({"name": "bookings", "value": 3, "labels": {"clinic": 7}}, "business", NOW)
    assert dict(reading.labels) == {"clinic": "7", "category": "business", "job": "push"}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"value": 1}, "name"),
        ({"name": "x"}, "value"),
        ({"name": "x", "value": 1, "labels": [1]}, "labels"),
        ({"name": "x", "value": 1, "labels": {"__name__": "y"}}, "__name__"),
    ],
)
def test_a_wrong_metric_says_what_is_wrong(row, complaint):
    with pytest.raises(ValueError, match=complaint):
        metric_reading(row, "business", NOW)


def test_sparklines_are_flat_where_nothing_moves():
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.parametrize(("span", "step"), [(3_600_000, 15_000), (86_400_000, 180_000), (30 * 86_400_000, 5_190_000)])
def test_the_steps_end_with_the_range_and_are_few(span, step):
    steps = steps_for(MS - span, MS)
    assert steps.step == step
    assert (steps.end - steps.start) % steps.step == 0
    assert steps.start - (MS - span) < step
    assert (steps.end - steps.start) // steps.step <= 500
