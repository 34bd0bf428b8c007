"""Aggregations and histograms against plain Python, with series that come and go."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql import histogram
from apps.promql.aggregate import Groups, count_values, quantile, ranked, simple
from apps.promql.labels import SMALL, Labels
from apps.promql.result import number
from apps.promql.series import Vec
from tests.promql import naive

Cell = float | None
Rows = list[tuple[str, list[Cell]]]

VALUES = st.none() | st.sampled_from([0.0, 1.0, 1.0, -2.5, 7.0, 100.0, math.nan])


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """(group, a cell for each of 1-3 steps)"""
    n = draw(st.integers(1, 3))
    return draw(st.lists(st.tuples(st.sampled_from("abc"), st.lists(VALUES, min_size=n, max_size=n)), min_size=1))


def vector(data: Rows) -> Vec:
    cells = np.array([[math.nan if cell is None else cell for cell in each] for _, each in data])
    ok = np.array([[cell is not None for cell in each] for _, each in data])
    labels = Labels.from_dicts([{"g": group, "i": str(i)} for i, (group, _) in enumerate(data)])
    return Vec(labels, cells, ok, np.zeros(len(data), dtype=np.bool_))


def cells(vec: Vec) -> dict[tuple[str, int], float]:
    return {
        (labels.get("g", "") + labels.get("v", ""), step): float(vec.v[row, step])
        for row, labels in enumerate(vec.labels.dicts())
        for step in range(vec.v.shape[1])
        if vec.ok[row, step]
    }


def grouped(data: Rows) -> dict[tuple[str, int], list[float]]:
    out: dict[tuple[str, int], list[float]] = defaultdict(list)
    for group, each in data:
        for step, cell in enumerate(each):
            if cell is not None:
                out[group, step].append(cell)
    return out


def assert_same(got: dict[tuple[str, int], float], wanted: dict[tuple[str, int], float]) -> None:
    assert got.keys() == wanted.keys()
    for key, value in wanted.items():
        assert got[key] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("op", ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"])
def test_aggregations_agree_with_the_oracle(op: str) -> None:
    @given(rows(), st.sampled_from([1, SMALL]))
    @settings(max_examples=30)
    def check(data: Rows, repeat: int) -> None:
        data = data * repeat
        got = cells(simple(op, Groups(vector(data), ("g",), without=False)))
        assert_same(got, {key: naive.aggregate(op, values) for key, values in grouped(data).items()})

    check()


@given(rows(), st.sampled_from([0.7, 0.0, 1.0, -1.0, 2.0, math.nan]))
def test_quantiles_agree_with_the_oracle(data: Rows, q: float) -> None:
    n = len(data[0][1])
    got = cells(quantile(Groups(vector(data), ("g",), without=False), np.full(n, q)))
    assert_same(got, {key: naive.quantile(q, values) for key, values in grouped(data).items()})


@given(rows(), st.integers(0, 4), st.booleans())
def test_the_k_best_are_the_k_best(data: Rows, k: int, largest: bool) -> None:
    vec = vector(data)
    best = ranked(Groups(vec, ("g",), without=False), np.full(vec.v.shape[1], float(k)), largest=largest)
    names = best.labels.dicts()
    for (group, step), values in grouped(data).items():
        got = [float(best.v[i, step]) for i, s in enumerate(names) if s["g"] == group and best.ok[i, step]]
        numbers = sorted((v for v in values if not math.isnan(v)), reverse=largest)
        wanted = (numbers + [math.nan] * (len(values) - len(numbers)))[:k]
        key = sorted(wanted, key=lambda v: (math.isnan(v), v))
        assert np.array_equal(sorted(got, key=lambda v: (math.isnan(v), v)), key, equal_nan=True)
    if vec.v.shape[1] == 1:
        assert best.ordered


@given(rows())
def test_the_best_at_each_step_are_the_best_at_that_step(data: Rows) -> None:
    """Range queries find them by partition, instant ones by sorting: the same series either way, ties included."""
    data = [(group, [*each, each[0]]) for group, each in data]
    vec = vector(data)
    for largest in (True, False):
        over_time = ranked(Groups(vec, ("g",), without=False), np.full(vec.v.shape[1], 2.0), largest=largest)
        for step in range(vec.v.shape[1]):
            once = Vec(vec.labels, vec.v[:, [step]], vec.ok[:, [step]], vec.drop)
            best = ranked(Groups(once, ("g",), without=False), np.array([2.0]), largest=largest)
            names = [
                labels for labels, here in zip(over_time.labels.dicts(), over_time.ok[:, step], strict=True) if here
            ]
            assert sorted(names, key=str) == sorted(best.labels.dicts(), key=str)


@given(rows())
def test_counting_values(data: Rows) -> None:
    got = cells(count_values(Groups(vector(data), ("g",), without=False), "v", lambda series, steps: None))
    wanted: dict[tuple[str, int], float] = defaultdict(float)
    for (group, step), values in grouped(data).items():
        for value in values:
            wanted[group + number(value), step] += 1
    assert_same(got, wanted)


def test_large_terms_that_cancel_out_are_summed_exactly() -> None:
    data: Rows = [("a", [1e100]), ("a", [1.0]), ("a", [-1e100]), ("a", [2.5])]
    assert cells(simple("sum", Groups(vector(data), (), without=False))) == {("", 0): 3.5}
    assert cells(simple("avg", Groups(vector(data), (), without=False))) == {("", 0): 0.875}


def test_without_keeps_the_other_labels() -> None:
    groups = Groups(vector([("a", [1.0]), ("b", [1.0])]), ("i",), without=True)
    assert groups.labels.dicts() == [{"g": "a"}, {"g": "b"}]


BOUNDS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.0, 2.0, 10.0]), min_size=0, max_size=5).map(
    lambda bounds: [*sorted(bounds), math.inf]
)


@st.composite
def histograms(draw: st.DrawFn) -> list[tuple[str, list[float], list[Cell]]]:
    counts = st.none() | st.sampled_from([0.0, 1.0, 2.0, 2.0 + 1e-14, 5.0, 9.0])
    out = []
    for name in draw(st.sampled_from(["a", "ab", "abc"])):
        bounds = draw(BOUNDS)
        bounds = bounds if draw(st.booleans()) else bounds[:-1] or [1.0]
        out.append((name, bounds, draw(st.lists(counts, min_size=len(bounds), max_size=len(bounds)))))
    return out


@given(histograms(), st.sampled_from([0.0, 0.3, 0.5, 0.99, 1.0, -1.0, 2.0, math.nan]))
@settings(max_examples=120)
def test_histograms_in_a_matrix_give_what_single_histograms_give(
    data: list[tuple[str, list[float], list[Cell]]], q: float
) -> None:
    sets = [{"g": name, "le": repr(b) + "0" * i} for name, bounds, _ in data for i, b in enumerate(bounds)]
    sets = [{**labels, "le": "+Inf" if "inf" in labels["le"] else labels["le"]} for labels in sets]
    listed = [count for _, _, counts in data for count in counts]
    vec = Vec(
        Labels.from_dicts(sets),
        np.array([[0.0 if c is None else c] for c in listed]),
        np.array([[c is not None] for c in listed]),
        np.zeros(len(listed), dtype=np.bool_),
    )
    found = histogram.buckets(vec)
    got, _ = histogram.quantiles(found, np.array([q]))
    shares = histogram.fractions(found, np.array([q]), np.array([q + 0.8]))
    wanted, wanted_shares = {}, {}
    for name, bounds, counts in data:
        there = [(b, c) for b, c in zip(bounds, counts, strict=True) if c is not None]
        some_bounds, some_counts = [b for b, _ in there], [c for _, c in there]
        if there:
            wanted[name, 0] = histogram.quantile(q, some_bounds, some_counts)[0]
            wanted_shares[name, 0] = histogram.fraction(q, q + 0.8, some_bounds, some_counts)
    assert_same(cells(got), wanted)
    assert_same(cells(shares), wanted_shares)


@pytest.mark.parametrize(
    ("q", "value"),
    [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (0.75, 4.0), (0.9, 4.0), (1.0, 4.0), (-0.1, -math.inf), (1.1, math.inf)],
)
def test_a_quantile_is_interpolated_in_its_bucket(q: float, value: float) -> None:
    assert histogram.quantile(q, [1.0, 2.0, 4.0, math.inf], [25.0, 50.0, 75.0, 100.0]) == (value, False)


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [([1.0, 2.0], [1.0, 2.0]), ([math.inf], [3.0]), ([1.0, math.inf], [0.0, 0.0]), ([], [])],
)
def test_a_histogram_without_an_open_end_or_observations_has_no_quantile(
    bounds: list[float], counts: list[float]
) -> None:
    assert math.isnan(histogram.quantile(0.5, bounds, counts)[0])


@pytest.mark.parametrize(
    ("lower", "upper", "share"),
    [
        (0.0, 1.0, 0.25),
        (0.5, 3.0, 0.5),
        (-math.inf, math.inf, 1.0),
        (4.0, math.inf, 0.25),
        (5.0, 9.0, 0.0),
        (2.0, 2.0, 0.0),
        (math.nan, 1.0, math.nan),
    ],
)
def test_a_fraction_counts_what_lies_between(lower: float, upper: float, share: float) -> None:
    got = histogram.fraction(lower, upper, [1.0, 2.0, 4.0, math.inf], [25.0, 50.0, 75.0, 100.0])
    assert got == pytest.approx(share, nan_ok=True)
