"""Range functions against the plain-Python oracle: irregular samples, shared timestamps, markers, NaN, small blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql import windows
from apps.promql.engine import instant, query_range
from apps.promql.series import STALE, STALE_BITS, Ragged
from apps.promql.source import MemorySource
from tests.promql import naive

Data = list[tuple[dict[str, str], list[int], list[float]]]

FUNCTIONS = {
    "rate": "rate(x[{w}ms] offset {o}ms)",
    "increase": "increase(x[{w}ms] offset {o}ms)",
    "delta": "delta(x[{w}ms] offset {o}ms)",
    "irate": "irate(x[{w}ms] offset {o}ms)",
    "idelta": "idelta(x[{w}ms] offset {o}ms)",
    "deriv": "deriv(x[{w}ms] offset {o}ms)",
    "predict_linear": "predict_linear(x[{w}ms] offset {o}ms, 60)",
    "changes": "changes(x[{w}ms] offset {o}ms)",
    "resets": "resets(x[{w}ms] offset {o}ms)",
    "sum_over_time": "sum_over_time(x[{w}ms] offset {o}ms)",
    "avg_over_time": "avg_over_time(x[{w}ms] offset {o}ms)",
    "count_over_time": "count_over_time(x[{w}ms] offset {o}ms)",
    "min_over_time": "min_over_time(x[{w}ms] offset {o}ms)",
    "max_over_time": "max_over_time(x[{w}ms] offset {o}ms)",
    "last_over_time": "last_over_time(x[{w}ms] offset {o}ms)",
    "present_over_time": "present_over_time(x[{w}ms] offset {o}ms)",
    "stdvar_over_time": "stdvar_over_time(x[{w}ms] offset {o}ms)",
    "stddev_over_time": "stddev_over_time(x[{w}ms] offset {o}ms)",
    "quantile_over_time": "quantile_over_time(0.3, x[{w}ms] offset {o}ms)",
}

NUMBERS = st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, 7.0, 100.0, 0.1])
TIMES = st.lists(st.integers(0, 120), min_size=0, max_size=14, unique=True).map(sorted)


@st.composite
def series(draw: st.DrawFn, values: st.SearchStrategy[float]) -> Data:
    """Up to three clocks; one of them has enough series to be worked on as a matrix."""
    out: Data = []
    for clock, count in enumerate(draw(st.sampled_from([(1,), (2, 1), (9,), (9, 1, 8)]))):
        times = [t * 500 for t in draw(TIMES)]
        for row in range(count):
            listed = draw(st.lists(values, min_size=len(times), max_size=len(times)))
            out.append(({"__name__": "x", "clock": str(clock), "row": str(row)}, times, listed))
    return out


def answer(name: str, samples: naive.Samples, step: int, width: int, offset: int) -> float | None:
    end = step - offset
    live = [(t, v) for t, v in samples if np.float64(v).view(np.uint64) != STALE_BITS]
    return naive.function(name, naive.over_window(live, end, width), end, width, step)


def same(got: float, wanted: float) -> bool:
    return (math.isnan(got) and math.isnan(wanted)) or math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("cells", [windows.CELLS_PER_BLOCK, 24])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_agrees_with_the_oracle(name: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CELLS_PER_BLOCK", cells)
    monkeypatch.setattr(windows, "DENSE_CELLS", cells * 8)

    @given(
        series(NUMBERS | st.just(STALE) | st.just(math.nan)),
        st.integers(0, 20_000),
        st.sampled_from([1, 500, 700, 5_000, 15_000]),
        st.integers(1, 40),
        st.sampled_from([1, 500, 2_000, 7_500, 60_000]),
        st.sampled_from([0, -500, 3_000]),
    )
    @settings(max_examples=25)
    def check(
        data: Data,
        start: int,
        step: int,
        n: int,
        width: int,
        offset: int,
    ) -> None:
        result = query_range(
            FUNCTIONS[name].format(w=width, o=offset), MemorySource(data), start, start + (n - 1) * step, step
        )
        rows = {(labels["clock"], labels["row"]): i for i, labels in enumerate(result.labels.dicts())}
        for labels, times, values in data:
            samples = list(zip(times, values, strict=True))
            wanted = [answer(name, samples, t, width, offset) for t in range(start, start + n * step, step)]
            row = rows.get((labels["clock"], labels["row"]))
            if row is None:
                assert wanted == [None] * n
                continue
            for got, here, want in zip(result.v[row], result.ok[row], wanted, strict=True):
                assert here == (want is not None)
                assert want is None or same(float(got), want)

    check()


@given(
    series(NUMBERS | st.just(STALE)), st.integers(0, 80_000), st.sampled_from([1, 1_000, 15_000]), st.integers(1, 20)
)
def test_an_instant_selector_gives_the_newest_sample_that_is_not_stale(
    data: Data, start: int, step: int, n: int
) -> None:
    result = query_range("x", MemorySource(data), start, start + (n - 1) * step, step, lookback_ms=5_000)
    rows = {(labels["clock"], labels["row"]): i for i, labels in enumerate(result.labels.dicts())}
    for labels, times, values in data:
        row = rows.get((labels["clock"], labels["row"]))
        for k in range(n):
            window = naive.over_window(list(zip(times, values, strict=True)), start + k * step, 5_000)
            want = window[-1][1] if window and not math.isnan(window[-1][1]) else None
            got = float(result.v[row, k]) if row is not None and result.ok[row, k] else None
            assert got == want


def ragged(times: list[list[int]], clock: list[int] | None = None) -> Ragged:
    source = MemorySource([({"__name__": "x", "i": str(i)}, ts, [float(t) for t in ts]) for i, ts in enumerate(times)])
    found = source.ragged
    return Ragged(found.labels, found.ts, found.v, found.off, clock=None if clock is None else np.array(clock))


def test_clocks_are_equal_for_equal_timestamps_only() -> None:
    clocks = ragged([[1, 2], [1, 2], [2, 1 + 2], [1], [], [], [1, 2]]).clocks().tolist()
    assert clocks[0] == clocks[1] == clocks[6]
    assert clocks[4] == clocks[5]
    assert len(set(clocks)) == 4


def test_the_clock_of_the_store_is_believed() -> None:
    assert ragged([[1], [1]], clock=[5, 9]).clocks().tolist() == [5, 9]


@pytest.mark.parametrize("count", [1, 9])
def test_sums_that_cancel_out_keep_their_digits(count: int) -> None:
    values = [1e100, 1.0, -1e100, 2.5, 1.0]
    source = MemorySource([({"__name__": "x", "i": str(i)}, list(range(1, 6)), values) for i in range(count)])
    for over_time in (query_range("sum_over_time(x[1m])", source, 4, 5, 1), instant("sum_over_time(x[1m])", source, 5)):
        assert over_time.v[:, -1].tolist() == [4.5] * count
    assert instant("avg_over_time(x[1m])", source, 5).v[:, 0].tolist() == [0.9] * count


def test_an_average_does_not_overflow() -> None:
    source = MemorySource([({"__name__": "x", "i": i}, [1, 2, 3], [1.7e308] * 3) for i in "abcdefghi"])
    assert instant("avg_over_time(x[1m])", source, 3).v[0, 0] == pytest.approx(1.7e308)
    np.testing.assert_allclose(query_range("avg_over_time(x[1m])", source, 2, 3, 1).v, np.full((9, 2), 1.7e308))
    assert instant("avg(x)", source, 3).v.tolist() == [[pytest.approx(1.7e308)]]
    assert math.isinf(instant("sum_over_time(x[1m])", source, 3).v[0, 0])


def test_a_poisonous_sample_leaves_later_windows_alone() -> None:
    source = MemorySource([({"__name__": "x"}, [1000, 2000, 3000, 4000], [math.nan, 1e308, 2.0, 3.0])])
    result = query_range("sum_over_time(x[2s])", source, 4000, 4000, 1000)
    assert result.v[0].tolist() == [5.0]


def test_a_pinned_window_with_a_parameter_of_its_own_at_each_step() -> None:
    source = MemorySource(
        [({"__name__": "x", "i": str(i)}, [0, 1000, 2000], [0.0, 1.0 + i, 2.0]) for i in range(9)]
        + [({"__name__": "q"}, [0, 1000, 2000], [0.0, 0.5, 1.0])]
    )
    result = query_range("quantile_over_time(scalar(q), x{i='0'}[3s] @ 2)", source, 0, 2000, 1000)
    assert result.v[0].tolist() == [0.0, 1.0, 2.0]
    many = query_range("sum(predict_linear(x[3s] @ 2, time()))", source, 0, 2000, 1000)
    assert many.v.shape == (1, 3)
    assert len(set(many.v[0].tolist())) == 3
