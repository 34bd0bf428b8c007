"""anchored and smoothed against their definition, sample by sample in plain Python; xxHash against known answers."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql.ast import Edges
from apps.promql.edges import Look, at_once, over_windows
from apps.promql.hashing import encoded, label_hashes, xxh64
from apps.promql.series import Grid
from apps.promql.source import MemorySource
from tests.promql.naive import Samples

LOOKBACK = 50
NAMES = st.sampled_from(
    [
        *((name, "anchored") for name in ("rate", "increase", "delta", "changes", "resets")),
        *((name, "smoothed") for name in ("rate", "increase", "delta", "")),
    ]
)
SERIES = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0, 8.0, math.nan])),
    max_size=12,
    unique_by=lambda sample: sample[0],
).map(sorted)


def value_at(samples: Samples, time: int, *, counter: bool) -> float | None:
    """On the line through the samples around a time within the lookback; the last one's where none follows."""
    before = [(t, v) for t, v in samples if time - LOOKBACK < t <= time]
    after = [(t, v) for t, v in samples if time < t <= time + LOOKBACK]
    if not before:
        return None
    (t1, v1) = before[-1]
    if not after or t1 == time:
        return v1
    (t2, v2) = after[0]
    if counter and v2 < v1:
        v1 = 0.0
    return v1 + (v2 - v1) * ((time - t1) / 1000) / ((t2 - t1) / 1000)


def edges(name: str, how: str, samples: Samples, end: int, width: int) -> float | None:
    start = end - width
    counter = name in ("rate", "increase")
    inside = [(t, v) for t, v in samples if start < t <= end]
    before = [(t, v) for t, v in samples if start - LOOKBACK < t <= start]
    after = [(t, v) for t, v in samples if end < t <= end + LOOKBACK]
    if how == "anchored":
        points = [v for _, v in before[-1:] + inside]
        if not inside:
            return None
    else:
        if not (before or inside) or not (inside or after):
            return None
        near = before[-1:] + inside + after[:1]
        left = interpolated(near, start, counter=counter) if before else inside[0][1]
        right = interpolated(near, end, counter=counter)
        points = [left, *(v for _, v in inside), right]
    pairs = list(pairwise(points))
    if name == "resets":
        return float(sum(b < a for a, b in pairs))
    if name == "changes":
        return float(sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs))
    change = points[-1] - points[0] + (sum(a for a, b in pairs if b < a) if counter else 0.0)
    return change / (width / 1000) if name == "rate" else change


def interpolated(near: Samples, time: int, *, counter: bool) -> float:
    for (t1, v1), (t2, v2) in pairwise(near):
        if t1 <= time < t2:
            if t1 == time:
                return v1
            base = 0.0 if counter and v2 < v1 else v1
            return base + (v2 - base) * ((time - t1) / 1000) / ((t2 - t1) / 1000)
    return near[-1][1]


@given(st.lists(SERIES, min_size=1, max_size=3), NAMES, st.sampled_from([10, 35, 120]), st.sampled_from([7, 40]))
@settings(max_examples=200)
def test_edges_are_what_they_are_defined_as(
    series: list[Samples], named: tuple[str, Edges], width: int, step: int
) -> None:
    name, how = named
    loaded = [({"i": str(i)}, [t for t, _ in samples], [v for _, v in samples]) for i, samples in enumerate(series)]
    ragged = MemorySource(loaded).ragged
    grid = Grid(20, step, 8)
    look = Look(ragged, grid, grid, width if name else 0, LOOKBACK, lambda: None)
    v, ok = over_windows(name, how, look) if name else at_once(look)
    for row, samples in enumerate(series):
        for column, end in enumerate(grid.times().tolist()):
            wanted = edges(name, how, samples, end, width) if name else value_at(samples, end, counter=False)
            got = float(v[row, column]) if ok[row, column] else None
            assert (got is None) == (wanted is None), (row, end, got, wanted)
            if got is not None and wanted is not None:
                np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxhash_gives_the_published_answers(data: bytes, wanted: int) -> None:
    assert xxh64([data]).tolist() == [wanted]
    assert xxh64([b"x" * 40, data, b"yy", data]).tolist()[1::2] == [wanted, wanted]


def test_label_sets_are_hashed_as_prometheus_3_keeps_them() -> None:
    assert encoded({"b": "é", "a": "1"}) == b"\x01a\x011\x01b\x02\xc3\xa9"
    assert encoded({"a": "x" * 255}) == b"\x01a\xff\xff\x00\x00" + b"x" * 255
    hashes = label_hashes([{"i": str(i)} for i in range(10_000)]) / 2.0**64
    assert [round((hashes < share).mean(), 1) for share in (0.1, 0.5, 0.9)] == [0.1, 0.5, 0.9]
