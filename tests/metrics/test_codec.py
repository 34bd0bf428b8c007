"""Bytes of samples: what is decoded is what was encoded, bit for bit; what was damaged is never decoded."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metrics import codec
from apps.metrics.codec import Columns, Corrupt, View, decode_batch, encode_batch, encode_block, offsets
from apps.metrics.storage import Cache
from apps.promql.series import STALE, STALE_BITS

values = st.one_of(
    st.floats(allow_nan=True, width=64),
    st.sampled_from([0.0, -0.0, 1.5, 1e300, float("inf"), STALE]),
    st.integers(-(10**12), 10**12).map(float),
)
times = st.integers(0, 2**41)


def bits(v):
    return np.asarray(v, dtype=np.float64).view(np.uint64).tolist()


@st.composite
def batches(draw):
    rows = draw(st.lists(st.tuples(st.integers(1, 2**45), times, values), min_size=1, max_size=60))
    series, ts, v = zip(*rows, strict=True)
    return Columns(np.array(series, np.int64), np.array(ts, np.int64), np.array(v, np.float64))


@given(batches())
@settings(max_examples=100)
def test_a_batch_comes_back_sorted_and_bit_for_bit(columns):
    back = decode_batch(encode_batch(columns))
    order = np.lexsort((columns.ts, columns.series))
    assert back.series.tolist() == columns.series[order].tolist()
    assert back.ts.tolist() == columns.ts[order].tolist()
    assert bits(back.v) == bits(columns.v[order])


@given(batches(), st.data())
@settings(max_examples=60)
def test_a_batch_with_any_flipped_byte_is_refused(columns, data):
    raw = bytearray(encode_batch(columns))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        decode_batch(bytes(raw))


@pytest.mark.parametrize("length", [0, 3, 8, 20])
def test_a_truncated_batch_is_refused(length):
    raw = encode_batch(Columns(np.array([1]), np.array([5]), np.array([1.0])))
    with pytest.raises(Corrupt):
        decode_batch(raw[:length])


def test_an_empty_batch_is_never_written():
    nothing = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="at least one"):
        encode_batch(Columns(nothing, nothing, np.zeros(0)))


def test_a_batch_of_another_codec_version_is_named_and_not_guessed(monkeypatch):
    columns = Columns(np.array([1]), np.array([5]), np.array([1.0]))
    monkeypatch.setattr(codec, "VERSION", 2)
    raw = encode_batch(columns)
    monkeypatch.setattr(codec, "VERSION", 1)
    with pytest.raises(Corrupt, match="version 2"):
        decode_batch(raw)


@st.composite
def blocks(draw):
    """(metric, series, list of timestamps, list of values) of a block's series."""
    shared = draw(st.lists(st.lists(times, min_size=1, max_size=12, unique=True).map(sorted), min_size=1, max_size=3))
    regular = st.builds(
        lambda start, step, n: [start + step * i for i in range(n)], times, st.integers(1, 60_000), st.integers(1, 20)
    )
    rows = []
    for metric in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(1, 20))):
            ts = draw(st.one_of(st.sampled_from(shared), regular))
            rows.append((metric, ts, draw(st.lists(values, min_size=len(ts), max_size=len(ts)))))
    return rows


def encode(rows, level=0):
    series = np.arange(len(rows), dtype=np.int64) * 7 + 3
    off = offsets(np.array([len(ts) for _, ts, _ in rows]))
    ts = np.array([t for _, times, _ in rows for t in times], dtype=np.int64)
    v = np.array([x for _, _, vs in rows for x in vs], dtype=np.float64)
    metric = np.array([metric for metric, _, _ in rows], dtype=np.int32)
    return encode_block(metric, series, off, ts, v, level), series


@given(blocks(), st.sampled_from([0, 1]))
@settings(max_examples=60)
def test_a_block_comes_back_bit_for_bit(rows, level):
    encoded, series = encode(rows, level)
    view = View(encoded.directory, encoded.payload, encoded.crc)
    assert view.series.tolist() == series.tolist()
    assert view.metric.tolist() == [metric for metric, _, _ in rows]
    out = np.empty(int(view.off[-1]))
    for chunk in range(len(view.chunk_off) - 1):
        begin, end = view.off[view.chunk_off[chunk]], view.off[view.chunk_off[chunk + 1]]
        view.values(chunk, out[begin:end])
    for row, (_, ts, v) in enumerate(rows):
        vec = view.vec[row]
        assert view.vectors.times[view.vectors.off[vec] : view.vectors.off[vec + 1]].tolist() == ts
        assert bits(out[view.off[row] : view.off[row + 1]]) == bits(v)


def test_equal_timestamps_are_stored_once_and_regular_ones_cost_nothing():
    regular = [1000 + 15_000 * i for i in range(100)]
    encoded, _ = encode([(1, regular, [1.0] * 100) for _ in range(32)])
    view = View(encoded.directory, encoded.payload, encoded.crc)
    assert len(view.vectors.off) == 2
    assert view.chunk_at[-1] == len(encoded.payload)


def test_series_with_colliding_hashes_keep_their_own_timestamps(monkeypatch):
    monkeypatch.setattr(codec, "vector_hashes", lambda ts, off: np.zeros(len(off) - 1, np.uint64))
    rows = [(1, [1, 2, 3], [1.0, 2.0, 3.0]), (1, [1, 2, 4], [4.0, 5.0, 6.0]), (1, [9], [7.0])]
    encoded, _ = encode(rows)
    view = View(encoded.directory, encoded.payload, encoded.crc)
    got = [view.vectors.times[view.vectors.off[v] : view.vectors.off[v + 1]].tolist() for v in view.vec]
    assert got == [[1, 2, 3], [1, 2, 4], [9]]


def test_chunks_hold_at_most_sixteen_series_and_never_mix_metrics():
    encoded, _ = encode([(metric, [1, 2], [1.0, 2.0]) for metric in (1, 2) for _ in range(17)])
    view = View(encoded.directory, encoded.payload, encoded.crc)
    assert np.diff(view.chunk_off).tolist() == [16, 1, 16, 1]


@given(blocks(), st.data())
@settings(max_examples=40)
def test_a_block_with_any_flipped_byte_is_refused(rows, data):
    encoded, _ = encode(rows)
    raw = bytearray(encoded.directory + encoded.payload)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = len(encoded.directory)
    with pytest.raises(Corrupt):
        View(bytes(raw[:cut]), bytes(raw[cut:]), encoded.crc)


def test_staleness_markers_keep_their_bits():
    encoded, _ = encode([(1, list(range(300)), [STALE if i % 7 == 0 else 0.1 * i for i in range(300)])], 1)
    view = View(encoded.directory, encoded.payload, encoded.crc)
    out = np.empty(300)
    view.values(0, out)
    assert np.flatnonzero(out.view(np.uint64) == STALE_BITS).tolist() == list(range(0, 300, 7))


def test_a_vectors_hash_is_the_sum_of_its_parts():
    ts = np.array([1, 5, 9, 1, 5, 9], np.int64)
    whole = codec.vector_hashes(ts, np.array([0, 3, 6]))
    parts = codec.vector_hashes(ts, np.array([0, 1, 3, 3, 6]))
    assert whole[0] == whole[1] == parts[0] + parts[1] == parts[3]
    assert parts[2] == 0


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-3, 3)), min_size=1, max_size=80), st.sampled_from([1, 2**40])
)
@settings(max_examples=100)
def test_packed_and_unpacked_sorting_agree(pairs, scale):
    major, minor = (np.array(column, np.int64) * scale for column in zip(*pairs, strict=True))
    assert codec.stable_order(major, minor).tolist() == np.lexsort((minor, major)).tolist()


def one_view(values, ts):
    encoded, _ = encode([(1, ts, list(values))])
    return View(encoded.directory, encoded.payload, encoded.crc)


def test_blocks_with_equal_timestamps_share_them_and_the_cache_counts_them_once():
    ts = [1000, 1900, 2950, 4000]
    views = {ident: one_view([ident, 2.0, 3.0, 4.0], ts) for ident in (1.0, 2.0)}
    first, second = views.values()
    assert first.vectors is second.vectors
    assert first.vectors is not one_view([1.0, 2.0, 3.0, 4.0], [1000, 1900, 2950, 4001]).vectors
    cache = Cache()
    cache.put({1: first})
    cache.put({2: second})
    assert cache.size == first.nbytes + second.nbytes + first.vectors.nbytes
    cache.limit = cache.size - 1
    cache.put({})
    assert (set(cache.get([1, 2])), cache.size) == ({2}, second.nbytes + first.vectors.nbytes)
    cache.limit = 0
    cache.put({})
    assert cache.size == 0


@given(blocks(), st.integers(0, 2**41), st.integers(0, 2**41))
@settings(max_examples=60)
def test_vectors_are_cut_as_each_of_their_instants_says(rows, one, other):
    tmin, tmax = sorted((one, other))
    encoded, _ = encode(rows)
    vectors = View(encoded.directory, encoded.payload, encoded.crc).vectors
    lo, hi = vectors.cut(tmin, tmax)
    stretches = [vectors.times[a:b].tolist() for a, b in pairwise(vectors.off.tolist())]
    assert [vectors.times[a:b].tolist() for a, b in zip(lo, hi, strict=True)] == [
        [t for t in ts if tmin < t <= tmax] for ts in stretches
    ]
    kept = [t for ts in stretches for t in ts if tmin < t <= tmax]
    expected = codec.vector_hashes(np.array(kept, dtype=np.int64), offsets(hi - lo), 7)
    assert vectors.hashes(lo, hi, 7).tolist() == expected.tolist()
