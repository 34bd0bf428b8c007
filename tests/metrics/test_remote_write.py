"""Remote write 1.0: whatever a sender may encode is read as it was meant, and what is no request is said so."""

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metrics.protocols import remote_write, unpacking
from apps.metrics.protocols.protobuf import Malformed
from tests.metrics import remote_write as sender

NOW = 1_790_000_000_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
names = st.text(min_size=1, max_size=20)
times = st.one_of(st.integers(NOW - 10**9, NOW + 10**9), st.integers(-(2**63), 2**63 - 1))
values = st.one_of(st.just(0.0), st.just(-0.0), st.just(STALE), st.floats())
rows = st.tuples(
    st.dictionaries(names, st.text(max_size=40), max_size=5), st.lists(st.tuples(times, values), max_size=3)
)


def read(request: remote_write.Request) -> list[tuple[object, int, bytes]]:
    some = request.samples
    return [
        (some.labels_of(index), int(some.ts[index]), struct.pack("<d", some.v[index])) for index in range(len(some))
    ]


def meant(series: list) -> list[tuple[object, int, bytes]]:
    return [(labels, ms, struct.pack("<d", value)) for labels, samples in series for ms, value in samples]


def ordered(found: list) -> list[str]:
    return sorted(map(repr, found))


@given(st.lists(rows, max_size=8))
def test_what_was_sent_is_what_is_read(series):
    body = b"".join(sender.series(labels, samples) for labels, samples in series)
    found = remote_write.decode(body)
    assert ordered(read(found)) == ordered(meant(series))
    again = remote_write.decode(body, known=set(found.samples.keys))
    assert ordered(read(again)) == ordered(meant(series))


@given(st.lists(rows, min_size=1, max_size=4), st.data())
def test_a_body_cut_anywhere_is_malformed_or_a_whole_beginning(series, data):
    body = b"".join(sender.series(labels, samples) for labels, samples in series)
    end = data.draw(st.integers(0, len(body)))
    try:
        found = remote_write.decode(body[:end])
    except Malformed:
        return
    assert set(ordered(read(found))) <= set(ordered(meant(series)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(body):
    for read_one in (unpacking.unsnapped, remote_write.decode):
        with contextlib.suppress(Malformed, unpacking.TooLarge):
            read_one(body)


def test_a_label_that_ends_like_a_sample_is_a_label():
    fake = sender.sample(NOW, 1.5).decode("latin-1")
    found = remote_write.decode(sender.chunk(1, sender.label("a", fake)) + sender.series({"a": fake}, [(NOW, 2.0)]))
    assert read(found) == [({"a": fake}, NOW, struct.pack("<d", 2.0))]


def test_the_key_is_the_same_however_the_sample_is_written():
    labels = {"__name__": "up", "job": "x"}
    body = b"".join(sender.series(labels, samples) for samples in ([(NOW, 1.0)], [(NOW, 0.0)], [(NOW, 1.0), (5, 0.0)]))
    assert len(set(remote_write.decode(body).samples.keys)) == 1


def test_labels_twice_are_refused_by_name():
    found = remote_write.decode(sender.series([("a", "1"), ("a", "2")], [(NOW, 1.0)]))
    assert found.samples.labels_of(0) == "duplicate_label"


def test_histograms_and_exemplars_are_counted_and_metadata_is_kept():
    odd = sender.chunk(1, sender.label("__name__", "x") + sender.chunk(4, b"") + sender.chunk(3, b""))
    found = remote_write.decode(odd + sender.metadata("x", 1, "Help.", "bytes") + sender.metadata("y", 99, "", ""))
    assert (found.histograms, found.exemplars, len(found.samples)) == (1, 1, 0)
    assert found.samples.meta == {"x": ("counter", "Help.", "bytes"), "y": ("unknown", "", "")}


def test_a_bomb_is_refused_before_it_is_unpacked():
    with pytest.raises(unpacking.TooLarge):
        unpacking.unsnapped(sender.varint(unpacking.MOST_BYTES + 1) + b"\0" * 10)


def test_a_packed_request_is_unpacked():
    body = sender.series({"__name__": "up"}, [(NOW, math.inf)])
    assert unpacking.unsnapped(sender.packed(body)) == body


@given(st.lists(st.tuples(st.text(max_size=140), st.text(max_size=140)), max_size=4), st.binary(max_size=3), st.data())
def test_labels_read_the_short_way_are_those_read_by_the_rules(pairs, noise, data):
    key = b"".join(sender.label(*pair) for pair in pairs)
    at = data.draw(st.integers(0, len(key)))
    for mutated in (key, key[:at], key[:at] + noise + key[at:], key[:at] + noise + key[at + len(noise) :]):
        usual = remote_write._usual_labels(mutated)
        assert usual is None or usual == remote_write._any_labels(mutated)
    short = all(len(text.encode()) < 60 for pair in pairs for text in pair)
    if short and len(dict(pairs)) == len(pairs):
        assert remote_write._usual_labels(key) == dict(pairs)
