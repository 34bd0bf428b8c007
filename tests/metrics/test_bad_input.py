"""Whatever /api/v1/write is sent is answered as the protocol has it and counted by reason; its good part is kept."""

import asyncio
import struct
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.metrics import intake, query, registry, services
from apps.metrics.models import Batch, Metric, RetentionPolicy
from apps.metrics.samples import REASONS
from apps.promql.source import Matcher
from monitoring_portal import fastlane
from tests.metrics import remote_write as sender
from tests.metrics.test_write_api import HEADERS
from tests.wiring.lanes import ask, token

pytestmark = pytest.mark.django_db(transaction=True)

NOW = int(timezone.now().timestamp() * 1000)
GOOD = sender.series({"__name__": "good", "job": "api"}, [(NOW, 1.0)])
HOUR = 3_600_000


def one(labels: Any, ms: int = NOW, value: float = 1.0) -> bytes:
    return sender.series(labels, [(ms, value)])


def labelled(*pairs: tuple[bytes, bytes]) -> bytes:
    """A series of one sample with labels that may be no text."""
    labels = b"".join(sender.chunk(1, sender.chunk(1, name) + sender.chunk(2, value)) for name, value in pairs)
    return sender.chunk(1, labels + sender.sample(NOW, 1.0))


@pytest.fixture
def agent():
    return [*token("ingest"), *HEADERS]


def post(agent, body):
    return ask("/api/v1/write", agent, method="POST", body=body)


def counted():
    return Counter({reason: int(services.REFUSED.value(reason=reason)) for reason in REASONS})


def stored(name="good"):
    got = query.select([Matcher("__name__", "=", name)], 0, 2**50)
    return list(zip(got.ts.tolist(), got.v.tolist(), strict=True))


NAMED = {"__name__": "x"}


def named(value):
    """Words for the name of a test; bytes hold the time of the run, which differs between processes."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (one({"job": "a"}), "no_name"),
        (one({"__name__": ""}), "no_name"),
        (one({}), "no_name"),
        (one(NAMED | {"": "a"}), "invalid_name"),
        (one({"__name__": "x" * 201}), "invalid_name"),
        (one({"__name__": "a\0b"}), "invalid_name"),
        (one(NAMED | {"a\nb": "c"}), "invalid_name"),
        (one(NAMED | {"a": "b\0"}), "invalid_value"),
        (labelled((b"__name__", b"x"), (b"a", b"\xff\xfe")), "invalid_value"),
        (labelled((b"__name__", b"x"), (b"a", b"\xed\xa0\x80")), "invalid_value"),
        (one(NAMED | {"a": "b" * 1025}), "value_too_long"),
        (one(NAMED | {"a": "b" * 5_000_000}), "value_too_long"),
        (one(NAMED | {f"l{n}": "v" for n in range(31)}), "too_many_labels"),
        (one([("__name__", "x"), ("a", "1"), ("a", "2")]), "duplicate_label"),
        (one([("__name__", "x"), ("a", "1"), ("b", ""), ("a", "1")]), "duplicate_label"),
        (one([("__name__", "x"), ("__name__", "y")]), "duplicate_label"),
        (one(NAMED, NOW + HOUR), "too_far_ahead"),
        (one(NAMED, 2**63 - 1), "too_far_ahead"),
        (one(NAMED, -1), "before_1970"),
        (one(NAMED, -(2**63)), "before_1970"),
    ],
    ids=map(str, count()),
)
def test_what_cannot_be_kept_is_named_counted_and_left_out(agent, message, reason):
    before = counted()
    said = post(agent, sender.packed(GOOD, message))
    assert (said.status, REASONS[reason] in said.json["error"]) == (400, True)
    assert counted() - before == Counter({reason: 1})
    assert (stored(), stored("x")) == ([(NOW, 1.0)], [])


def test_a_series_over_its_metrics_limit_is_refused_and_those_that_are_there_go_on(agent):
    Metric.objects.create(
        name="x", series_limit=1, retention=RetentionPolicy.objects.create(category="short", raw=timedelta(days=1))
    )
    before = counted()
    assert post(agent, sender.packed(one(NAMED | {"n": "1"}))).status == 204
    said = post(agent, sender.packed(GOOD, one(NAMED | {"n": "1"}, NOW + 1), one(NAMED | {"n": "2"})))
    assert (said.status, REASONS["series_limit"] in said.json["error"]) == (400, True)
    assert counted() - before == Counter({"series_limit": 1})
    assert (len(stored()), len(stored("x"))) == (1, 2)


def test_a_sample_behind_the_window_of_its_own_series_is_refused_and_that_of_another_is_not(agent):
    before = counted()
    old = NOW - HOUR
    assert post(agent, sender.packed(GOOD)).status == 204
    late = [one({"__name__": "good", "job": "api"}, NOW - ago) for ago in (599_000, 601_000)]
    said = post(agent, sender.packed(*late, one({"__name__": "good", "job": "b"}, old)))
    assert (said.status, "2 samples were stored" in said.json["error"]) == (400, True)
    assert counted() - before == Counter({"too_old": 1})
    assert sorted(stored()) == [(old, 1.0), (NOW - 599_000, 1.0), (NOW, 1.0)]


@pytest.mark.parametrize(
    "pairs",
    [
        [("job", "api"), ("__name__", "good")],
        [("z", ""), ("__name__", "good"), ("job", "api")],
        [("job", "api"), ("a", ""), ("__name__", "good")],
    ],
)
def test_labels_in_another_order_and_empty_ones_are_the_same_series(agent, pairs):
    """Senders must sort; one that does not is understood, for the labels are sorted here anyway."""
    assert post(agent, sender.packed(GOOD)).status == 204
    assert post(agent, sender.packed(one(pairs, NOW + 1, 2.0))).status == 204
    assert stored() == [(NOW, 1.0), (NOW + 1, 2.0)]


def test_values_that_are_no_numbers_are_kept_bit_for_bit(agent):
    bits = [0x7FF0000000000002, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000000, 0x8000000000000000, 1]
    values = [struct.unpack("<d", struct.pack("<Q", number))[0] for number in bits]
    samples = [sender.series(NAMED, [(NOW + n, value)]) for n, value in enumerate(values)]
    assert post(agent, sender.packed(*samples)).status == 204
    got = query.select([Matcher("__name__", "=", "x")], 0, 2**50)
    assert got.v.view(np.uint64).tolist() == bits


BIG = sender.varint(10**9)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no snappy block"),
        (b"\xff" * 20, 400, "no snappy block"),
        (b"hello, world", 400, "no snappy block"),
        (sender.packed(GOOD)[:-5], 400, "no snappy block"),
        (sender.packed(GOOD) + b"more", 400, "no snappy block"),
        (b"\xff\x06\x00\x00sNaPpY" + sender.packed(GOOD), 400, "no snappy block"),
        (sender.packed(GOOD[:-5]), 400, "begins at byte"),
        (sender.packed(GOOD, b"\x0a\xff\x01abc"), 400, "begins at byte"),
        (sender.packed(GOOD, b"\x0a"), 400, "cut off"),
        (sender.packed(GOOD, b"\x0b"), 400, "wire type 3"),
        (sender.packed(GOOD, b"\x0a" + b"\xff" * 12), 400, "does not end"),
        (sender.packed(GOOD, sender.chunk(1, b"\x0a\x7f")), 400, "a field of"),
        (sender.packed(GOOD, sender.chunk(1, sender.label("__name__", "x") + b"\x10\x05")), 400, "wire type"),
        (BIG + b"\0" * 9, 413, "unpacks to"),
        (BIG + b"\xfe\x01\x00" * 1000, 413, "unpacks to"),
        (sender.varint(2**64 - 1) + b"\0", 413, "unpacks to"),
        (sender.varint(31_000_000) + b"\0", 400, "no snappy block"),
        (sender.packed(sender.chunk(1, bytes(33_000_000))), 413, "unpacks to"),
    ],
    ids=map(str, count()),  # the bodies hold the time, which differs between two processes of a run
)
def test_what_is_no_request_is_refused_whole(agent, body, status, words):
    before = counted()
    said = post(agent, body)
    assert (said.status, words in said.json["error"]) == (status, True), said.json
    assert Batch.objects.count() == 0
    assert counted() - before == Counter({"malformed" if status == 400 else "too_large": 1})


def test_a_request_without_anything_in_it_is_fine(agent):
    assert post(agent, sender.packed()).status == 204
    assert post(agent, sender.packed(sender.chunk(1, b""))).status == 204
    assert post(agent, sender.packed(sender.chunk(1, sender.label("__name__", "x")))).status == 204
    assert Batch.objects.count() == 0


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([(b"content-type", b"application/json")], "application/json"),
        ([(b"content-type", b"text/plain; charset=utf-8")], "text/plain"),
        ([(b"content-type", b"application/x-protobuf;proto=io.prometheus.write.v3.Request")], "1.0"),
        ([(b"content-encoding", b"gzip")], "gzip"),
        ([(b"content-encoding", b"zstd")], "zstd"),
    ],
)
def test_another_kind_of_body_is_415(headers, words):
    said = ask("/api/v1/write", [*token("ingest"), *headers], method="POST", body=sender.packed(GOOD))
    assert (said.status, words in said.json["error"]) == (415, True)
    assert Batch.objects.count() == 0


# --- Size -----------------------------------------------------------------------------------------------------------


def test_a_million_series_are_more_than_a_request_may_hold(agent):
    assert post(agent, sender.packed(one(NAMED | {"n": "0123456"}) * 1_000_000)).status == 413


@pytest.mark.slow
def test_a_million_samples_without_a_name_are_refused_and_leave_nothing_behind(agent):
    before = counted()
    said = post(agent, sender.packed(one({}) * 1_000_000, GOOD))
    assert (said.status, "1 samples were stored" in said.json["error"]) == (400, True)
    assert counted() - before == Counter({"no_name": 1_000_000})
    assert len(registry.current()) == 1


def test_large_requests_take_turns_and_one_that_waits_too_long_is_to_be_sent_again(agent, monkeypatch):
    monkeypatch.setattr(intake, "LARGE_BYTES", len(GOOD) - 1)
    monkeypatch.setattr(intake, "LARGE_PATIENCE", 0.01)
    with intake._large, intake._large:
        said = post(agent, sender.packed(GOOD))
        assert (said.status, said.headers[b"retry-after"], stored()) == (503, b"30", [])
    assert post(agent, sender.packed(GOOD)).status == 204


def test_a_refused_request_costs_memory_in_proportion_to_its_size(agent):
    post(agent, sender.packed(GOOD))
    body = sender.packed(one({}) * 20_000)
    tracemalloc.start()
    try:
        post(agent, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * 1_000


# --- In parts -------------------------------------------------------------------------------------------------------


def in_parts(agent, parts, *, ends=True):
    """Send a body in parts through the fast lane itself; return the statuses it has answered."""
    events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    events[-1]["more_body"] = not ends
    sent: list[dict[str, Any]] = []

    async def receive():
        if not events and ends:
            await asyncio.Event().wait()  # A client that has sent everything and waits for its answer.
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event):
        sent.append(event)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/write",
        "query_string": b"",
        "headers": agent,
        "client": ("192.0.2.7", 1),
    }

    async def no_django(*_):
        raise AssertionError

    # A thread of our own, whose connection is closed again: those of the lane keep theirs.
    with ThreadPoolExecutor(1) as threads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastlane, "_writers", threads)
        asyncio.run(fastlane.FastLane(no_django)(scope, receive, send))
        threads.submit(connections.close_all).result()
    return [event["status"] for event in sent if "status" in event]


def test_a_body_in_single_bytes_is_put_together(agent):
    body = sender.packed(GOOD)
    assert in_parts(agent, [body[at : at + 1] for at in range(len(body))]) == [204]
    assert stored() == [(NOW, 1.0)]


def test_a_body_that_breaks_off_stores_nothing_and_is_answered_by_nobody(agent):
    assert in_parts(agent, [sender.packed(GOOD)[:10]], ends=False) == []
    assert Batch.objects.count() == 0


# --- Anything -------------------------------------------------------------------------------------------------------

pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(
        sender.series,
        st.dictionaries(st.text(max_size=4) | st.just("__name__"), st.text(max_size=6), max_size=3),
        st.lists(st.tuples(st.integers(NOW - HOUR, NOW + HOUR), st.floats()), max_size=3),
    ),
    st.builds(sender.chunk, st.integers(0, 20), st.binary(max_size=40)),
)


_issued: list[tuple[bytes, bytes]] = []
"""The token of all examples."""


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(pieces, max_size=5), st.integers(0, 200), st.integers(0, 255), st.booleans())
def test_any_body_has_an_answer_of_the_protocol_and_what_it_stores_can_be_read(parts, at, byte, whole):
    body = bytearray(sender.packed(*parts))
    if not whole and body:
        body[at % len(body)] = byte
    before = sum(query.select([Matcher("__name__", "=~", ".+")], 0, 2**50).counts)
    if not _issued:
        _issued.extend(token("ingest"))
    said = post([*_issued, *HEADERS], bytes(body))
    assert said.status in (204, 400, 413), said.body
    got = query.select([Matcher("__name__", "=~", ".+")], 0, 2**50)
    assert got.warnings == ()
    assert sum(got.counts) >= before
