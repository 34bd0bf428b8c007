"""StatsD and DogStatsD: what lines mean, what they come to, and a real client over a real socket."""

import math
import socket
import time
from collections.abc import Iterator

import pytest
from datadog.dogstatsd.base import DogStatsd
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.permissions import EVERYTHING
from apps.metrics import intake, query, services, statsd, statsd_server
from apps.metrics.protocols.statsd import Refused, head_of
from apps.metrics.statsd import Totals


def told(*packets):
    totals = Totals()
    totals.add([packet if isinstance(packet, bytes) else packet.encode() for packet in packets])
    found = {}
    for one in totals.flush():
        labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
        found[f"{one.name}{{{labels}}}" if labels else one.name] = one.value
    return found, dict(totals.refused)


# --- Lines ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("packets", "found"),
    [
        (["a.b-c:1|c", "a.b-c:2|c"], {"a_b_c": 3.0}),
        (["a:1|c|@0.1"], {"a": 10.0}),
        (["a:1|c\nb:2|g\n"], {"a": 1.0, "b": 2.0}),
        (["a:5|g", "a:3|g", "a:5|g"], {"a": 5.0}),
        (["a:5|g", "a:+2|g", "a:-4|g"], {"a": 3.0}),
        (["a:0|g", "a:-4|g"], {"a": -4.0}),
        (["a:x|s", "a:y|s", "a:x|s"], {"a": 2.0}),
        (["a:1|c|#k:v,flag", "a:1|c|#flag,k:v"], {"a{flag=true,k=v}": 2.0}),
        (["a:1|c|#k:v:w,9:x,é:y"], {"a{_=y,_9=x,k=v:w}": 1.0}),
        (["a:1|c|#k:v|c:container|e:it-false|card:low|T1656581400"], {"a{k=v}": 1.0}),
        (["a:1:2:3|c"], {"a": 6.0}),
        (["9a:1|c"], {"_9a": 1.0}),
    ],
)
def test_lines_come_to(packets, found):
    assert told(*packets) == (found, {})


def test_timers_are_histograms_in_seconds_and_weigh_what_their_rate_says():
    found, _ = told("t:250|ms|@0.5", "t:20:7000|ms")
    assert (found["t_count"], found["t_sum"]) == (4.0, pytest.approx(2 * 0.25 + 0.02 + 7.0))
    edges = ("0.01", "0.025", "0.25", "5.0", "10.0", "+Inf")
    assert [found[f"t_bucket{{le={edge}}}"] for edge in edges] == [0, 1, 3, 3, 4, 4]


@pytest.mark.parametrize("kind", ["h", "d"])
def test_histograms_and_distributions_keep_their_unit(kind):
    found, _ = told(f"t:250|{kind}")
    assert (found["t_sum"], found["t_bucket{le=100.0}"], found["t_bucket{le=500.0}"]) == (250.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        ("a", "malformed"), ("a:1", "malformed"), ("a:x|c", "malformed"), (":1|c", "malformed"), ("a:|c", "malformed"),
        ("a:1|z", "malformed"), ("a:1|c|@0", "malformed"), ("a:1|c|@x", "malformed"), ("a:-1|c", "malformed"),
        ("a:nan|c", "malformed"), ("a:inf|g", "malformed"), ("a:1e400|ms", "malformed"), (b"\xff:1|c", "malformed"),
        (b"a:1|c|#\xff:1", "malformed"), ("_e{5,4}:title|text", "unsupported"), ("_sc|name|0", "unsupported"),
        ("a" * 10_000 + ":1|c", "too_large"), ("\0:1|c|#a:b\0", None),
    ],
)  # fmt: skip
def test_a_line_that_is_not_taken_is_counted_by_reason(packet, reason):
    found, refused = told(packet, "good:1|c")
    assert found["good"] == 1.0
    assert refused == ({reason: 1} if reason else {})


def test_a_name_has_one_kind():
    found, refused = told("a:1|c", "a:1|g")
    assert (found, refused) == ({"a": 1.0}, {"two_kinds": 1})


def test_series_are_bounded(monkeypatch):
    monkeypatch.setattr(statsd, "MOST_SERIES", 3)
    found, refused = told(*(f"a:1|c|#n:{n}" for n in range(5)))
    assert (len(found), refused) == (3, {"store_series_limit": 2})


def test_series_that_nobody_sends_any_more_end():
    totals = Totals()
    totals.add([b"a:1|c", b"b:1|c"])
    for _ in range(statsd.IDLE + 1):
        totals.add([b"b:1|c"])
        last = totals.flush()
    assert [reading.name for reading in last] == ["b"]
    totals.add([b"a:1|g"])
    assert {reading.name: reading.type for reading in totals.flush()} == {"a": "gauge", "b": "counter"}


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_packets_are_taken_or_counted(packets):
    totals = Totals()
    totals.add(packets)
    assert all(math.isfinite(reading.value) for reading in totals.flush())
    lines = [line for packet in packets for line in packet.split(b"\n") if line]
    assert totals.lines <= len(lines)


@given(st.binary(max_size=20), st.binary(max_size=40))
def test_any_head_is_read_or_refused(name, tail):
    try:
        head = head_of(name, tail)
    except Refused:
        return
    assert head.weight >= 1


# --- The server -------------------------------------------------------------------------------------------------------
@pytest.fixture
def server() -> Iterator[statsd_server.Server]:
    listening = statsd_server.listen("127.0.0.1:0")
    made = statsd_server.Server(listening)
    made.start()
    yield made
    made.stopping.set()
    made._receiver.join(5)
    listening.close()


def received(server, count):
    """Wait until so many packets were added up since the fixture began."""
    end = time.monotonic() + 10
    while server.totals.lines < count and time.monotonic() < end:
        time.sleep(0.01)
    assert server.totals.lines >= count


def value(text):
    found = query.instant(text, at=timezone.now(), scope=EVERYTHING)
    return found.v[:, 0].tolist()


db = pytest.mark.django_db(transaction=True)


@db
def test_a_dogstatsd_client_is_understood(server):
    client = DogStatsd(
        host="127.0.0.1",
        port=server.socket.getsockname()[1],
        disable_telemetry=True,
        disable_buffering=True,
        disable_background_sender=True,
        namespace="shop",
        constant_tags=["env:test"],
        origin_detection_enabled=False,
    )
    before = intake.REFUSED.value(protocol="statsd", token="system", reason="unsupported")
    client.increment("orders", 3, tags=["kind:new"])
    client.increment("orders", tags=["kind:new"])
    client.gauge("stock", 17.5)
    client.timing("took", 250)
    client.histogram("size", 42)
    client.distribution("weight", 7)
    client.set("users", "mara")
    client.event("deployed", "version 2")
    client.service_check("up", 0)
    received(server, 9)
    client.close_socket()
    server.flush(now=timezone.now())
    assert value('shop_orders{kind="new", env="test", job="statsd"}') == [4.0]
    assert (value("shop_stock"), value("shop_users")) == ([17.5], [1.0])
    assert (value("shop_took_sum"), value("shop_size_count"), value("shop_weight_sum")) == ([0.25], [1.0], [7.0])
    assert intake.REFUSED.value(protocol="statsd", token="system", reason="unsupported") == before + 2


@db
def test_a_new_counter_begins_at_zero_and_goes_on_after_a_flush_that_failed(server, monkeypatch):
    to = server.socket.getsockname()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"hits:2|c", to)
    received(server, 1)
    server.previous_ms -= 20_000

    def away(**_):
        raise RuntimeError("away")

    with monkeypatch.context() as patch:
        patch.setattr(services, "ingest", away)
        with pytest.raises(RuntimeError):
            server.flush(now=timezone.now())
    sender.sendto(b"hits:3|c", to)
    received(server, 1)
    server.flush(now=timezone.now())
    sender.close()
    assert value("hits") == [5.0]
    assert value("increase(hits[1m])")[0] > 0


@db
def test_a_flood_is_bounded_and_what_was_dropped_is_counted(server):
    if server.drops() is None:
        pytest.skip("this system does not tell")
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    to = server.socket.getsockname()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sent = 20_000
    with server.lock:  # the receiver is held up
        for _ in range(sent):
            sender.sendto(b"flood:1|c", to)
    sender.close()
    before = statsd_server.DROPPED.value()
    time.sleep(0.7)
    server.flush(now=timezone.now())
    dropped = statsd_server.DROPPED.value() - before
    (kept,) = value("flood")
    assert kept + dropped == sent
    assert dropped > 0


def test_an_address_that_is_taken_or_wrong_is_said():
    with statsd_server.listen("127.0.0.1:0") as taken, pytest.raises(statsd_server.Address, match="choose another"):
        statsd_server.listen(f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(statsd_server.Address, match="host:port"):
        statsd_server.address_of("8125")
