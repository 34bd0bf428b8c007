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
