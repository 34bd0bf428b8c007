"""OTLP metrics: read as Prometheus reads them, protobuf and JSON alike, deltas added once."""

import contextlib
import gzip
import math
import struct
import zlib

import numpy as np
import orjson
import pytest
from django.utils import timezone
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from apps.accounts.models import Token
from apps.accounts.permissions import forget_tokens
from apps.metrics import accumulation, intake, query, registry, services
from apps.metrics.accumulation import Totals, Verdict
from apps.metrics.models import DeltaTotals, Metric
from apps.metrics.protocols import otlp, otlp_json, unpacking
from apps.metrics.protocols.protobuf import Malformed
from apps.metrics.throttle import Throttle
from apps.promql.series import STALE
from apps.promql.source import Matcher
from tests.metrics.otlp import DELTA, attributes, gauge, histogram, point, protobuf, request, total
from tests.wiring.lanes import ask, token

NOW = 1_790_000_000_000
JOB = {"job": "web/shop", "instance": "i-1", "otel_scope_name": "lib"}


def read(body):
    found = otlp.decode(body).samples
    rows = []
    for index in range(len(found)):
        labels = found.labels_of(index)
        assert isinstance(labels, dict)
        name = labels.pop("__name__")
        if name != "target_info":
            extra = {key: text for key, text in labels.items() if key not in JOB}
            rows.append((name, extra, int(found.ts[index]), float(found.v[index])))
    return sorted(rows, key=repr)


# --- Reading ----------------------------------------------------------------------------------------------------------
def test_gauges_sums_histograms_and_summaries_become_series():
    took = point(NOW, a="x") | {"count": "6", "sum": 4.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.5, 1]}
    quantiles = point(NOW) | {"count": "4", "sum": 9.0, "quantileValues": [{"quantile": 0.5, "value": 2.0}]}
    told = request(
        gauge("cpu.used", point(NOW, 0.5), unit="1"),
        total("requests", point(NOW, 7, code=200)),
        total("queue.size", point(NOW, -2), monotonic=False),
        histogram("took", took, unit="s"),
        {"name": "old", "summary": {"dataPoints": [quantiles]}},
    )
    assert read(protobuf(told)) == sorted(
        [
            ("cpu_used_ratio", {}, NOW, 0.5),
            ("requests_total", {"code": "200"}, NOW, 7.0),
            ("queue_size", {}, NOW, -2.0),
            ("took_seconds_bucket", {"a": "x", "le": "0.5"}, NOW, 1.0),
            ("took_seconds_bucket", {"a": "x", "le": "1.0"}, NOW, 3.0),
            ("took_seconds_bucket", {"a": "x", "le": "+Inf"}, NOW, 6.0),
            ("took_seconds_sum", {"a": "x"}, NOW, 4.5),
            ("took_seconds_count", {"a": "x"}, NOW, 6.0),
            ("old", {"quantile": "0.5"}, NOW, 2.0),
            ("old_sum", {}, NOW, 9.0),
            ("old_count", {}, NOW, 4.0),
        ],
        key=repr,
    )


def test_resource_and_scope_become_labels_and_target_info():
    scope = {"name": "lib", "version": "2", "attributes": attributes({"a.b": 1})}
    found = otlp.decode(protobuf(request(gauge("g", point(NOW, 1.0)), scope=scope))).samples
    assert [found.labels_of(index) for index in range(2)] == [
        {"__name__": "g", **JOB, "otel_scope_version": "2", "otel_scope_a_b": "1"},
        {"__name__": "target_info", "job": "web/shop", "instance": "i-1", "host_name": "h1"},
    ]
    assert found.ts.tolist() == [NOW, NOW]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (True, "true"), (200, "200"), (-(2**63), str(-(2**63))), (1.0, "1"), (0.25, "0.25"), ("", None),
        ([1, "a", [True]], '[1,"a",[true]]'), ({"b": 1, "a": "x"}, '{"a":"x","b":1}'),
    ],
)  # fmt: skip
def test_an_attribute_of_any_kind_is_a_text(told, text):
    ((_, labels, _, _),) = read(protobuf(request(gauge("g", point(NOW, 1.0, key=told)))))
    assert labels.get("key", "") == (text or "")


whole = st.integers(-(2**63), 2**63 - 1)
numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), whole)
names = st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text)
words = st.one_of(st.text(max_size=8), whole, st.booleans())


def made(ms, told, start, flags, extra):
    return point(ms, told, start, flags) | {"attributes": attributes(extra)}


points = st.lists(
    st.builds(
        made,
        st.integers(1, 2**43),
        numbers,
        st.integers(0, 2**43),
        st.sampled_from([0, 0, 1]),
        st.dictionaries(names, words, max_size=3),
    ),
    max_size=5,
)


@settings(max_examples=60)
@given(points)
def test_json_and_protobuf_say_the_same(some):
    told = request(total("a.b", *some), gauge("g", *some))
    packed = protobuf(told)
    ours = otlp_json.to_protobuf(orjson.dumps(told))
    assert list(map(repr, read(ours))) == list(map(repr, read(packed)))
    first = otlp.decode(packed).samples
    again = otlp.decode(packed, known=set(first.keys)).samples
    assert (list(again.keys), again.ts.tolist(), repr(again.v.tolist())) == (
        list(first.keys), first.ts.tolist(), repr(first.v.tolist()),
    )  # fmt: skip


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(body):
    with contextlib.suppress(Malformed):
        found = otlp.decode(body).samples
        for index in range(len(found)):
            found.labels_of(index)


@settings(max_examples=60)
@given(points, st.data())
def test_a_body_cut_or_changed_anywhere_is_a_request_or_malformed(some, data):
    bounds = point(NOW) | {"count": "3", "sum": 1.0, "bucketCounts": ["1", "2"], "explicitBounds": [1.0]}
    body = bytearray(protobuf(request(gauge("g", *some), histogram("h", bounds))))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    for part in (bytes(body), bytes(body[:place])):
        with contextlib.suppress(Malformed):
            found = otlp.decode(part).samples
            for index in range(len(found)):
                found.labels_of(index)


keys = st.sampled_from(sorted({key for known in otlp_json.SCHEMA.values() for key in known}))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), whole, st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=100)
@given(json_values)
def test_any_json_is_a_request_or_malformed(told):
    with contextlib.suppress(Malformed):
        otlp.decode(otlp_json.to_protobuf(orjson.dumps(told)))


@pytest.mark.parametrize(
    "field",
    [{"asInt": "x"}, {"asInt": 1.5}, {"asDouble": "x"}, {"timeUnixNano": -1}, {"attributes": {}}, {"flags": "MAYBE"}],
)
def test_a_wrong_type_in_json_is_named(field):
    (name,) = field
    told = request(gauge("g", point(NOW, 1.0) | field))
    with pytest.raises(Malformed, match=rf"resourceMetrics\[0\].*dataPoints\[0\]\.{name}"):
        otlp_json.to_protobuf(orjson.dumps(told))


# --- Adding deltas ----------------------------------------------------------------------------------------------------
spans = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 5), st.integers(1, 9)), max_size=12)


@given(spans, st.integers(1, 4))
def test_a_total_is_the_sum_of_the_deltas_that_were_added_and_each_interval_is_added_once(some, requests):
    known = Totals.none()
    counted: dict[int, float] = {}
    added: dict[int, list[tuple[int, int]]] = {}
    for part in np.array_split(np.arange(len(some)), requests):
        rows = [some[index] for index in part.tolist()]
        series = np.array([row[0] for row in rows], dtype=np.int64)
        starts = np.array([row[1] for row in rows], dtype=np.int64)
        ends = starts + np.array([row[2] for row in rows], dtype=np.int64)
        deltas = np.array([row[3] for row in rows], dtype=np.float64)
        totals, verdict = accumulation.accumulate(known, series, starts, ends, deltas)
        good = verdict == Verdict.ADDED
        for one, start, end, delta in zip(series[good], starts[good], ends[good], deltas[good], strict=True):
            for other in added.setdefault(int(one), []):
                assert other[1] <= start or end <= other[0]
            added[int(one)].append((int(start), int(end)))
            counted[int(one)] = counted.get(int(one), 0.0) + float(delta)
        known = known.after(series[good], ends[good], totals[good])
    _, stands = known.of(np.array(sorted(counted), dtype=np.int64))
    assert dict(zip(sorted(counted), stands.tolist(), strict=True)) == counted


# --- Through the lane -------------------------------------------------------------------------------------------------
@pytest.fixture
def agent():
    return token("ingest")


def now_ms():
    return int(timezone.now().timestamp() * 1000)


def post(agent, told, *, as_json=False, path="/v1/metrics", **headers):
    body = told if isinstance(told, bytes) else orjson.dumps(told) if as_json else protobuf(told)
    kind = b"application/json" if as_json else b"application/x-protobuf"
    more = [(name.replace("_", "-").encode(), text) for name, text in headers.items()]
    return ask(path, [*agent, (b"content-type", kind), *more], method="POST", body=body)


def partial(said):
    if said.headers[b"content-type"] == b"application/json":
        return json_format.Parse(said.body, ExportMetricsServiceResponse()).partial_success
    return ExportMetricsServiceResponse.FromString(said.body).partial_success


def stored(name):
    return query.select([Matcher("__name__", "=", name)], 0, 2**50).v.tolist()


db = pytest.mark.django_db(transaction=True)


@db
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("path", ["/v1/metrics", "/api/v1/otlp/v1/metrics"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_answered_200_is_stored(agent, as_json, path, packed):
    told = request(gauge("g", point(now_ms(), 1.5)), total("requests", point(now_ms(), 3), unit="1"))
    body = orjson.dumps(told) if as_json else protobuf(told)
    headers = {"content_encoding": b"gzip"} if packed else {}
    said = post(agent, gzip.compress(body, mtime=0) if packed else body, as_json=as_json, path=path, **headers)
    assert (said.status, said.body) == (200, b"{}" if as_json else b"")
    assert (stored("g"), stored("requests_total"), stored("target_info")) == ([1.5], [3.0], [1.0])


@db
def test_type_help_and_unit_are_kept(agent):
    post(agent, request(total("io", point(now_ms(), 3), unit="By")))
    metric = Metric.objects.get(name="io_bytes_total")
    assert (metric.type, metric.help, metric.unit) == ("counter", "About io.", "By")


@db
@pytest.mark.parametrize("as_json", [False, True])
def test_refused_points_are_counted_and_named_and_the_rest_is_kept(agent, as_json):
    stamp = now_ms()
    exponential = {"dataPoints": [point(stamp) | {"count": "1", "scale": 2}] * 2, "aggregationTemporality": 2}
    wrong = point(stamp) | {"count": "1", "sum": 1.0, "bucketCounts": ["1", "2", "3"], "explicitBounds": [1.0]}
    said = post(
        agent,
        request(
            gauge("g", point(stamp, 1.0), point(stamp + 3_600_000, 2.0, n=1), point(0, 1.0, n=2)),
            total("s", point(stamp, 1.0), temporality=0),
            histogram("h", wrong),
            {"name": "exp.h", "exponentialHistogram": exponential},
        ),
        as_json=as_json,
    )
    assert (said.status, stored("g")) == (200, [1.0])
    found = partial(said)
    assert found.rejected_data_points == 6
    for words in ("10 minutes ahead", "no time", "delta or cumulative", "one bucket more", "2: exponential", "exp.h"):
        assert words in found.error_message


@db
def test_a_histogram_that_is_refused_is_one_point_however_many_series_it_has(agent):
    late = point(now_ms() + 3_600_000) | {"count": "1", "sum": 1.0, "bucketCounts": ["1", "0"], "explicitBounds": [1.0]}
    assert partial(post(agent, request(histogram("h", late)))).rejected_data_points == 1


@db
def test_deltas_add_up_and_a_repeated_request_adds_nothing(agent):
    start = now_ms() - 60_000
    first = request(total("hits", point(start + 10_000, 5, start), temporality=DELTA))
    second = request(total("hits", point(start + 20_000, 7, start + 10_000), temporality=DELTA))
    for told in (first, first, second, second):
        said = post(agent, told)
        assert (said.status, said.body) == (200, b"")
    assert stored("hits_total") == [5.0, 12.0]


@db
def test_totals_of_deltas_survive_a_new_process(agent):
    start = now_ms() - 60_000
    post(agent, request(total("hits", point(start + 10_000, 5, start), temporality=DELTA)))
    registry.forget()
    post(agent, request(total("hits", point(start + 20_000, 7, start + 10_000), temporality=DELTA)))
    assert stored("hits_total") == [5.0, 12.0]


@db
def test_a_total_and_its_sample_are_one_transaction(agent, monkeypatch):
    start = now_ms() - 60_000
    told = request(total("hits", point(start + 10_000, 5, start), temporality=DELTA))

    def broken(*_, **__):
        raise RuntimeError("the disk fell out")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTotals, "save", broken)
        assert post(agent, told).status == 500
    assert stored("hits_total") == []
    post(agent, told)
    assert stored("hits_total") == [5.0]


@db
def test_a_late_or_overlapping_delta_is_refused_by_name(agent):
    start = now_ms() - 60_000

    def hits(begin, end):
        span = point(start + end, 1, start + begin)
        return partial(post(agent, request(total("hits", span, temporality=DELTA))))

    assert hits(10_000, 20_000).rejected_data_points == 0
    assert "ends before the newest one" in hits(1_000, 9_000).error_message
    assert "begins before the newest one" in hits(15_000, 25_000).error_message
    assert stored("hits_total") == [1.0]


@db
def test_deltas_of_a_histogram_add_up_bucket_by_bucket(agent):
    start = now_ms() - 60_000
    for number in range(2):
        begin = start + number * 10_000
        span = point(begin + 10_000, start=begin) | {
            "count": "3", "sum": 2.0, "bucketCounts": ["1", "2"], "explicitBounds": [1.0],
        }  # fmt: skip
        post(agent, request(histogram("h", span, temporality=DELTA)))
    assert (sorted(stored("h_bucket")), stored("h_sum"), stored("h_count")) == ([1, 2, 3, 6], [2, 4], [3, 6])


@db
def test_a_counter_that_begins_anew_gets_a_zero_where_it_does(agent):
    begun = now_ms() - 50_000
    post(agent, request(total("hits", point(begun + 10_000, 5, begun))))
    post(agent, request(total("hits", point(begun + 20_000, 7, begun))))
    post(agent, request(total("hits", point(begun + 40_000, 9, begun + 30_000))))
    assert stored("hits_total") == [0.0, 5.0, 7.0, 0.0, 9.0]


@db
def test_a_counter_that_began_long_ago_gets_no_zero(agent):
    post(agent, request(total("hits", point(now_ms(), 5, now_ms() - 86_400_000))))
    assert stored("hits_total") == [5.0]


@db
def test_no_recorded_value_is_a_stale_marker(agent):
    stamp = now_ms()
    wrong = point(stamp, flags=1) | {"count": "0", "explicitBounds": [1.0]}
    post(agent, request(total("hits", point(stamp, 0, stamp - 1000, flags=1)), histogram("h", wrong)))
    found = [*stored("hits_total"), *stored("h_count")]
    assert struct.pack("<2d", *found) == struct.pack("<2d", STALE, STALE)


@db
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff", {}, 400),
        (b"[1]", {}, 400),
        (b"x" * 30, {"content_encoding": b"gzip"}, 400),
        (gzip.compress(b"x", mtime=0)[:-5], {"content_encoding": b"gzip"}, 400),
        (b"", {"content_encoding": b"zstd"}, 415),
        (gzip.compress(bytes(unpacking.MOST_BYTES + 1), mtime=0), {"content_encoding": b"gzip"}, 413),
    ],
    ids=["no message", "another type", "no gzip", "cut off", "another packing", "a bomb"],
)
def test_what_is_no_request_is_refused_with_a_status_in_the_same_format(agent, as_json, body, headers, status):
    said = post(agent, body, as_json=as_json, **headers)
    kind = b"application/json" if as_json else b"application/x-protobuf"
    assert (said.status, said.headers[b"content-type"]) == (status, kind)
    if as_json:
        assert set(said.json) == {"code", "message"}


@db
def test_a_bomb_of_gzip_in_gzip_stays_small(agent):
    bomb = gzip.compress(zlib.compress(bytes(10**8)))
    assert post(agent, bomb, content_encoding=b"gzip").status in (400, 413)
    members = gzip.compress(bytes(10**7)) * 4
    assert post(agent, members, content_encoding=b"gzip").status == 413


@db
def test_another_kind_of_body_is_415(agent):
    said = ask("/v1/metrics", [*agent, (b"content-type", b"text/plain")], method="POST", body=b"x")
    assert said.status == 415


@db
def test_a_full_disk_and_an_empty_bucket_may_be_tried_again(agent, monkeypatch):
    told = request(gauge("g", *(point(now_ms(), 1.0, n=n) for n in range(20))))
    with monkeypatch.context() as patch:
        patch.setattr(services, "disk_problem", lambda: "Only 0.1 GB are free.")
        patch.setattr(services, "_space", (-math.inf, None))
        said = post(agent, told)
        assert (said.status, said.headers[b"retry-after"]) == (503, b"30")
    services._space = (-math.inf, None)
    monkeypatch.setattr(intake, "THROTTLE", Throttle())
    Token.objects.update(samples_per_second=1)
    forget_tokens()
    assert post(agent, told).status == 200
    said = post(agent, told)
    assert said.status == 429
    assert int(said.headers[b"retry-after"]) > 1


@db
@pytest.mark.parametrize("ns", [1, 4_102_444_800 * 10**9, 2**63, 2**64 - 1])
def test_clocks_from_1970_and_2100_are_refused_or_kept_but_break_nothing(agent, ns):
    told = request(gauge("g", point(1, 1.0) | {"timeUnixNano": str(ns)}))
    said = post(agent, told)
    assert said.status == 200
    assert partial(said).rejected_data_points == (ns > 1)


@db
def test_a_point_with_too_many_attributes_is_refused_alone(agent):
    wide = point(now_ms(), 1.0) | {
        "attributes": [{"key": f"k{n}", "value": {"stringValue": "v"}} for n in range(20_000)]
    }
    said = post(agent, request(gauge("g", wide, point(now_ms(), 2.0))))
    assert partial(said).rejected_data_points == 1
    assert "more than 30 labels" in partial(said).error_message
    assert stored("g") == [2.0]


@db
def test_resources_of_one_sender_need_no_name(agent):
    assert post(agent, request(gauge("g", point(now_ms(), 1.0)), resource={"host.name": "h"})).status == 200
    assert (stored("g"), stored("target_info")) == ([1.0], [])
