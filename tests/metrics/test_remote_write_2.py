"""Remote write 2.0: the published receiver rules as a table, and whatever a sender may encode."""

import contextlib
import struct
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.metrics import query, registry
from apps.metrics.models import Metric
from apps.metrics.protocols import remote_write_2
from apps.metrics.protocols.protobuf import Malformed
from apps.metrics.samples import ListedKeys
from apps.promql.series import STALE
from apps.promql.source import Matcher
from tests.metrics import remote_write as one
from tests.metrics.remote_write_2 import Message, packed
from tests.wiring.lanes import ask, token

TWO = b"application/x-protobuf;proto=io.prometheus.write.v2.Request"
UP = {"__name__": "up", "job": "api"}
NOW = 1_790_000_000_000
names = st.text(min_size=1, max_size=20)
times = st.one_of(st.integers(NOW - 10**9, NOW + 10**9), st.integers(-(2**63), 2**63 - 1))
values = st.one_of(st.just(0.0), st.just(-0.0), st.just(STALE), st.floats())
rows = st.tuples(
    st.dictionaries(names, st.text(max_size=40), max_size=5),
    st.lists(st.tuples(times, values), min_size=1, max_size=3),
    st.sampled_from([None, (1, "Help.", "seconds")]),
)


def message(series):
    made = Message()
    for labels, samples, about in series:
        made.series(labels, samples, about)
    return made.body


def read(body):
    found = remote_write_2.decode(body).samples
    return sorted(
        repr((found.labels_of(index), int(found.ts[index]), struct.pack("<d", found.v[index])))
        for index in range(len(found))
    )


def meant(series):
    return sorted(repr((labels, ms, struct.pack("<d", v))) for labels, samples, _ in series for ms, v in samples)


@given(st.lists(rows, max_size=8))
def test_what_was_sent_is_what_is_read(series):
    assert read(message(series)) == meant(series)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(body):
    with contextlib.suppress(Malformed):
        found = remote_write_2.decode(body).samples
        for index in range(len(found)):
            found.labels_of(index)


@given(st.lists(rows, min_size=1, max_size=4), st.data())
def test_a_body_cut_anywhere_is_malformed_or_a_whole_beginning(series, data):
    body = message(series)
    with contextlib.suppress(Malformed):
        assert set(read(body[: data.draw(st.integers(0, len(body)))])) <= set(meant(series))


def test_a_series_has_the_same_key_whatever_its_references_are():
    first, second = Message().series(UP, [(NOW, 1.0)]), Message()
    for number in range(300):
        second.ref(f"another {number}")
    second.series(UP, [(NOW, 0.0)])
    keys = [*remote_write_2.decode(first.body).samples.keys, *remote_write_2.decode(second.body).samples.keys]
    assert len(set(keys)) == 1


def test_no_key_of_2_0_is_one_of_1_0():
    (key,) = remote_write_2.decode(message([(UP, [(NOW, 1.0)], None)])).samples.keys
    assert isinstance(key, bytes)
    assert key.startswith(bytes(4))


# --- Through the lane: the rules of the specification -----------------------------------------------------------------
@pytest.fixture
def agent():
    return [*token("ingest"), (b"content-type", TWO), (b"content-encoding", b"snappy")]


def post(agent, body):
    return ask("/api/v1/write", agent, method="POST", body=packed(body))


def now_ms():
    return int(timezone.now().timestamp() * 1000)


def stored(name="up"):
    return query.select([Matcher("__name__", "=", name)], 0, 2**50).v.tolist()


def written(said):
    kinds = (b"samples", b"histograms", b"exemplars")
    return [int(said.headers[b"x-prometheus-remote-write-%s-written" % kind]) for kind in kinds]


HISTOGRAM, EXEMPLAR = one.chunk(3, b"\x08\x01"), one.chunk(4, b"")
GOOD = (UP, 0, 1.0, b"")
RULES: dict[str, tuple[list[Any], int, int, str]] = {
    # what is sent: (labels, ms from now, value, more)…; → status, samples written, words of the answer
    "a good request is 204": ([GOOD], 204, 1, ""),
    "several series": ([GOOD, (UP | {"n": "2"}, 1, 2.0, b"")], 204, 2, ""),
    "exemplars are not kept and nothing is wrong with them": ([(UP, 0, 1.0, EXEMPLAR)], 204, 1, ""),
    "native histograms are not kept and said to be": ([GOOD, (UP | {"n": "h"}, 0, None, HISTOGRAM)], 400, 1, "native"),
    "a series without samples": ([GOOD, (UP | {"n": "e"}, 0, None, b"")], 400, 1, "neither a sample nor a histogram"),
    "no metric name": ([GOOD, ({"job": "x"}, 0, 1.0, b"")], 400, 1, "no metric name"),
    "a label twice": ([GOOD, ([*UP.items(), ("job", "b")], 0, 1.0, b"")], 400, 1, "a label twice"),
    "too far ahead": ([GOOD, (UP | {"n": "a"}, 3_600_000, 1.0, b"")], 400, 1, "10 minutes ahead"),
    "before 1970": ([GOOD, (UP | {"n": "b"}, -(2**50), 1.0, b"")], 400, 1, "before 1970"),
    "nothing good at all": ([({"job": "x"}, 0, 1.0, b"")], 400, 0, "no metric name"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rule", RULES)
def test_receiver_rule(rule, agent):
    series, status, count, words = RULES[rule]
    made, stamp = Message(), now_ms()
    for labels, ms, value, more in series:
        made.series(labels, [] if value is None else [(stamp + ms, value)], more=more)
    said = post(agent, made.body)
    assert (said.status, written(said)) == (status, [count, 0, 0])
    assert words in said.body.decode()
    assert len(stored()) == count


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-type", b"application/x-protobuf; proto=io.prometheus.write.v2.Request")], 204),
        ([(b"content-type", b'application/x-protobuf;charset=utf-8;proto="io.prometheus.write.v2.Request"')], 204),
        ([(b"content-type", b"application/json")], 415),
        ([(b"content-type", b"application/json;proto=io.prometheus.write.v2.Request")], 415),
        ([(b"content-type", b"application/x-protobuf;proto=io.prometheus.write.v3.Request")], 415),
        ([(b"content-type", TWO), (b"content-encoding", b"zstd")], 415),
        ([(b"content-type", TWO), (b"content-encoding", b"snappy")], 204),
        ([(b"content-type", TWO)], 204),
        ([(b"content-type", b"application/x-protobuf;proto=prometheus.WriteRequest")], 400),
        ([(b"content-type", b"application/x-protobuf")], 400),
    ],
)
def test_what_the_headers_say_decides_how_the_body_is_read(headers, status):
    body = packed(Message().series(UP, [(now_ms(), 1.0)]).body)
    said = ask("/api/v1/write", [*token("ingest"), *headers], method="POST", body=body)
    assert said.status == status
    assert (stored() == [1.0]) is (status == 204)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "body",
    [
        one.series(UP, [(NOW, 1.0)]),
        b"\xff",
        one.chunk(5, one.chunk(1, b"\x80")),
        one.chunk(5, one.chunk(1, b"\xff\xff\xff\xff\xff\x01")),
        one.chunk(4, b"abc")[:-1],
        one.chunk(5, b"\x12\x01"),
    ],
)
def test_what_is_no_request_of_2_0_is_400_and_says_that_nothing_was_written(body, agent):
    said = post(agent, body)
    assert (said.status, written(said)) == (400, [0, 0, 0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("refs", [b"\x01", b"\x01\x63", b"\x01\x02\x03"])
def test_references_outside_of_the_table_or_without_a_partner_cost_their_series_only(refs, agent):
    made, stamp = Message().series(UP, [(now_ms(), 1.0)]), now_ms()
    made.parts.append(one.chunk(5, one.chunk(1, refs) + one.sample(stamp, 1.0)))
    said = post(agent, made.body)
    assert (said.status, written(said), stored()) == (400, [1, 0, 0], [1.0])
    assert "labels of the series cannot be read" in said.json["error"]


@pytest.mark.django_db(transaction=True)
def test_metadata_is_kept_with_the_metric(agent):
    made = Message()
    for number in range(3):
        made.series({"__name__": "jobs_total", "n": str(number)}, [(now_ms(), 1.0)], (1, "Jobs that ran.", "jobs"))
    assert post(agent, made.body).status == 204
    metric = Metric.objects.get(name="jobs_total")
    assert (metric.type, metric.help, metric.unit) == ("counter", "Jobs that ran.", "jobs")


@pytest.mark.django_db(transaction=True)
def test_both_versions_write_the_same_series_and_stale_markers_stay_what_they_are(agent):
    stamp = now_ms()
    assert post(agent, Message().series(UP, [(stamp, 1.0), (stamp + 1, STALE)]).body).status == 204
    said = ask("/api/v1/write", agent[:1], method="POST", body=packed(one.series(UP, [(stamp + 2, 3.0)])))
    assert said.status == 204
    assert len(registry.current()) == 1
    found = query.select([Matcher("__name__", "=", "up")], 0, 2**50).v
    assert struct.pack("<3d", *found) == struct.pack("<3d", 1.0, STALE, 3.0)


# --- Tables that come again -------------------------------------------------------------------------------------------
def listed(found):
    assert isinstance(found.samples.keys, ListedKeys)
    return found.samples.keys.listed


def test_a_table_that_comes_again_is_read_as_it_was_the_first_time():
    tables = remote_write_2.Tables(remote_write_2.Symbols())
    rows = [({**UP, "instance": f"web-{number}"}, [(NOW, number + 1.0)], None) for number in range(20)]
    first, again = (remote_write_2.decode(message(rows), tables) for _ in range(2))
    assert list(again.samples.keys) == list(first.samples.keys)
    assert [again.samples.labels_of(index) for index in range(20)] == [row[0] for row in rows]
    assert listed(again) is listed(first)
    assert len(listed(again)) == 20


def test_tables_are_bounded_and_begin_anew():
    tables = remote_write_2.Tables(remote_write_2.Symbols(), most=30)
    for turn in range(10):
        rows = [({**UP, "turn": f"{turn} {number}"}, [(NOW, 1.0)], None) for number in range(10)]
        found = remote_write_2.decode(message(rows), tables)
        assert [found.samples.labels_of(index) for index in range(10)] == [row[0] for row in rows]
        assert len(listed(found)) <= 50
