"""Pieces to arrays: against a dictionary that takes the samples in order of rank."""

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metrics import assembly, codec
from apps.metrics.assembly import Piece, Wanted, assemble
from apps.metrics.codec import Columns, Sorted, View, decode_batch, encode_batch, encode_block, offsets

SERIES = 5


@st.composite
def stores(draw):
    """Pieces in order of rank, each {series: {ts: value}} and whether it is a block."""
    pieces = []
    for rank in range(draw(st.integers(1, 6))):
        base = draw(st.sampled_from([0, 100, 200]))
        content = {}
        for series in range(SERIES):
            ts = draw(st.lists(st.integers(base, base + 40), max_size=8, unique=True))
            if ts:
                content[series] = {t: float(rank * 1000 + t) for t in sorted(ts)}
        if content:
            pieces.append((rank, draw(st.booleans()), content))
    return pieces


def piece(rank, is_block, content):
    series = np.array(sorted(content), np.int64)
    off = offsets(np.array([len(content[s]) for s in series.tolist()]))
    ts = np.array([t for s in series.tolist() for t in content[s]], np.int64)
    v = np.array([x for s in series.tolist() for x in content[s].values()], np.float64)
    if is_block:
        made = encode_block((series // 2).astype(np.int32), series, off, ts, v, 0)
        return Piece(rank, int(ts.min()), View(made.directory, made.payload, made.crc), f"block {rank}")
    columns = decode_batch(encode_batch(Columns(np.repeat(series, np.diff(off)), ts, v)))
    return Piece(rank, int(ts.min()), Sorted(columns), f"batch {rank}")


WAYS = st.tuples(st.sampled_from([0, codec.FEW]), st.sampled_from([1, assembly.LONG]))
"""Thresholds with which little data takes the ways of much data, too."""


@given(
    stores(),
    st.permutations(range(SERIES + 1)),
    st.integers(1, SERIES),
    st.integers(-1, 120),
    st.integers(0, 300),
    WAYS,
)
@settings(max_examples=150)
def test_every_sample_once_in_order_and_the_highest_rank_wins(store, order, count, tmin, length, ways):
    tmax = tmin + length
    few, long = ways
    truth: dict[int, dict[int, float]] = {}
    for _, _, content in store:
        for series, samples in content.items():
            truth.setdefault(series, {}).update(samples)
    wanted = order[:count]
    with mock.patch.object(codec, "FEW", few), mock.patch.object(assembly, "LONG", long):
        got = assemble(Wanted.of(np.array(wanted, np.int64)), [piece(*one) for one in store], tmin, tmax)
    for row, series in enumerate(wanted):
        expected = sorted((t, x) for t, x in truth.get(series, {}).items() if tmin < t <= tmax)
        begin, end = got.off[row], got.off[row + 1]
        assert list(zip(got.ts[begin:end].tolist(), got.v[begin:end].tolist(), strict=True)) == expected
    vectors = [tuple(got.ts[got.off[i] : got.off[i + 1]].tolist()) for i in range(count)]
    for i in range(count):
        for j in range(count):
            assert (vectors[i] == vectors[j]) == (got.clock[i] == got.clock[j])


def test_of_equal_instants_in_one_batch_the_last_sent_counts():
    columns = Columns(np.array([1, 1, 1]), np.array([5, 5, 5]), np.array([1.0, 3.0, 2.0]))
    piece = Piece(1, 5, Sorted(decode_batch(encode_batch(columns))), "batch 1")
    got = assemble(Wanted.of(np.array([1])), [piece], 0, 10)
    assert (got.ts.tolist(), got.v.tolist()) == ([5], [2.0])
