"""Prometheus' HTTP API over the store: shapes, words and codes as a real Prometheus gives them."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.rights import Principal
from apps.metrics import services
from apps.metrics.samples import Samples
from tests.wiring.lanes import ask, token

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())


def ingest(*series: dict[str, str], at: datetime = NOW, value: float = 1.0) -> None:
    labels = [{"__name__": "up", **one} for one in series]
    stamps = [int(at.timestamp() * 1000)] * len(labels)
    services.ingest(samples=Samples.of(labels, stamps, [value] * len(labels)), by=Principal.system("test"), now=NOW)


@pytest.fixture
def query(db):
    return token("query")


def test_an_instant_query_answers_a_vector(query):
    ingest({"job": "api"}, value=0.5)
    said = ask("/api/v1/query", query, {"query": "up", "time": SECONDS})
    assert said.body == (
        b'{"status":"success","data":{"resultType":"vector","result":'
        b'[{"metric":{"__name__":"up","job":"api"},"value":[%d,"0.5"]}]}}' % SECONDS
    )


def test_a_range_query_answers_a_matrix(query):
    ingest({"job": "api"}, at=NOW - timedelta(minutes=1))
    said = ask("/api/v1/query_range", query, {"query": "up", "start": SECONDS - 120, "end": SECONDS, "step": "1m"})
    assert said.data == {
        "resultType": "matrix",
        "result": [{"metric": {"__name__": "up", "job": "api"}, "values": [[SECONDS - 60, "1"], [SECONDS, "1"]]}],
    }


ERRORS = [
    ("query", {}, 400, "bad_data", 'invalid parameter "query": 1:1: parse error: no expression found in input'),
    (
        "query",
        {"query": "up", "time": "abc"},
        400,
        "bad_data",
        "invalid parameter \"time\": Invalid time value for 'time': cannot parse \"abc\" to a valid timestamp",
    ),
    (
        "query",
        {"query": "up", "timeout": "abc"},
        400,
        "bad_data",
        'invalid parameter "timeout": cannot parse "abc" to a valid duration',
    ),
    ("query_range", {"query": "up"}, 400, "bad_data", 'invalid parameter "start": cannot parse "" to a valid timestamp'),
    (
        "query_range",
        {"query": "up", "start": 1, "end": 0, "step": 1},
        400,
        "bad_data",
        'invalid parameter "end": end timestamp must not be before start time',
    ),
    (
        "query_range",
        {"query": "up", "start": 1, "end": 2, "step": 0},
        400,
        "bad_data",
        'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
        "Try a positive integer",
    ),
    (
        "query_range",
        {"query": "up", "start": 1, "end": 2, "step": "x"},
        400,
        "bad_data",
        'invalid parameter "step": cannot parse "x" to a valid duration',
    ),
    (
        "query_range",
        {"query": "up", "start": 1, "end": 200_000, "step": 1},
        400,
        "bad_data",
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
    ),
    (
        "query_range",
        {"query": "up[5m]", "start": 1, "end": 2, "step": 1},
        400,
        "bad_data",
        'invalid parameter "query": invalid expression type "range vector" for range query, '
        "must be Scalar or instant Vector",
    ),
    (
        "query",
        {"query": "up", "lookback_delta": "x"},
        400,
        "bad_data",
        'error parsing lookback delta duration: cannot parse "x" to a valid duration',
    ),
    ("query", {"query": "up", "limit": "-1"}, 400, "bad_data", 'invalid parameter "limit": limit must be non-negative'),
    ("series", {}, 400, "bad_data", "no match[] parameter provided"),
    (
        "series",
        {"match[]": "up", "start": "x"},
        400,
        "bad_data",
        "invalid parameter \"start\": Invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
    ),
    (
        "labels",
        {"match[]": '{job=~".*"}'},
        400,
        "bad_data",
        'invalid parameter "match[]": 1:1: parse error: vector selector must contain at least one non-empty matcher',
    ),
    ("metadata", {"limit": "x"}, 400, "bad_data", "limit must be a number"),
    ("format_query", {}, 400, "bad_data", 'invalid parameter "query": 1:1: parse error: no expression found in input'),
    ("query_exemplars", {}, 400, "bad_data", "1:1: parse error: no expression found in input"),
]


@pytest.mark.parametrize(("path", "parameters", "status", "kind", "words"), ERRORS)
def test_a_wrong_request_is_told_in_the_words_of_prometheus(query, path, parameters, status, kind, words):
    assert ask(f"/api/v1/{path}", query, parameters).error == (status, kind, words)
