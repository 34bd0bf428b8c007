"""Events get a millisecond of their own."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.permissions import Principal
from apps.core.telemetry import Reading
from apps.metrics import query, retention, services
from apps.metrics.events import place
from apps.promql.source import Matcher
from tests.clock import NOW

BY = Principal.system("tests")

EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)))


@given(EVENTS, st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 9))))
def test_no_event_shares_an_instant_or_comes_before_its_own(events, taken):
    placed = place(events, taken)
    cells = [(series, at) for (series, _), at in zip(events, placed, strict=True)]
    assert len(set(cells)) == len(cells)
    assert not taken & set(cells)
    assert all(at >= wanted for (_, wanted), at in zip(events, placed, strict=True))


def test_an_event_alone_keeps_its_time():
    assert place([("a", 7)], []) == [7]


@pytest.mark.django_db(transaction=True)
def test_every_event_counts_also_those_of_one_instant():
    at = int(NOW.timestamp() * 1000)
    reading = Reading("http_request_seconds", 0.2, {"endpoint": "/a"}, timestamp_ms=at)
    for _ in range(2):
        written = services.record_events(readings=[reading, reading], by=BY, now=NOW)
        assert written.accepted == 2
    found = query.select([Matcher("__name__", "=", "http_request_seconds")], at - 1, at + 100)
    assert found.ts.tolist() == [at, at + 1, at + 2, at + 3]


@pytest.mark.django_db(transaction=True)
def test_an_id_is_remembered_for_a_week():
    reading = Reading("payment", 5.0)
    assert services.record_events(readings=[reading], ids=["p-1"], by=BY, now=NOW).new_series == 1
    assert retention.drop_receipts(now=NOW + retention.RECEIPTS_KEPT) == 0
    assert services.record_events(readings=[reading], ids=["p-1"], by=BY, now=NOW) == services.Written(1, (), 0)
    assert retention.drop_receipts(now=NOW + retention.RECEIPTS_KEPT + timedelta(seconds=1)) == 1
