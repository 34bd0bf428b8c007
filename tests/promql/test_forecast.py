"""Forecasts and scores: against the same methods in plain Python, on known series, and what no input may do to them."""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql import forecast, windows
from apps.promql.engine import Result, instant, query_range
from apps.promql.errors import ParseError, QueryError
from apps.promql.functions import FUNCTIONS
from apps.promql.series import STALE
from apps.promql.source import MemorySource

EXTENSIONS = sorted(name for name, function in FUNCTIONS.items() if function.extension)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

Samples = list[tuple[int, float]]


def memory(*series: Sequence[tuple[int, float]]) -> MemorySource:
    return MemorySource(
        [
            ({"__name__": "x", "i": str(i)}, [t for t, _ in samples], [v for _, v in samples])
            for i, samples in enumerate(series)
        ]
    )


def every(step: int, values: Sequence[float], start: int = 0) -> Samples:
    return [(start + i * step, float(v)) for i, v in enumerate(values)]


def one(expr: str, *series: Sequence[tuple[int, float]], at: int) -> list[float]:
    result = instant(expr, memory(*series), at)
    return [v for v, ok in zip(result.v[:, 0].tolist(), result.ok[:, 0].tolist(), strict=True) if ok]


# -- on series whose answer is known -----------------------------------------------------------------------------------

LINE = every(MINUTE, [2 * i for i in range(61)])
SPIKED = [(t, 1e6 if 20 <= i < 32 else v) for i, (t, v) in enumerate(LINE)]
FLAT = every(MINUTE, [7.0] * 61)
TEN_DAYS = every(HOUR, [10 * math.sin(2 * math.pi * i / 24) + i / 24 for i in range(24 * 10)])
DAILY = TEN_DAYS[: 24 * 8]
"""Eight days of a daily wave that climbs by one a day."""
STEP = every(MINUTE, [i % 3 for i in range(40)] + [10 + i % 3 for i in range(21)])
NOISE = every(MINUTE, [math.sin(i * i) for i in range(61)])


@pytest.mark.parametrize(
    ("expr", "samples", "at", "expected"),
    [
        ("forecast_linear(x[2h], 600)", LINE, HOUR, [140]),
        ("forecast_linear(x[2h], 600)", SPIKED, HOUR, [140]),
        ("forecast_linear(x[2h], -600)", LINE, HOUR, [100]),
        ("forecast_linear(x[2h], 600)", FLAT, HOUR, [7]),
        ("forecast_linear(x[2h], 600, 3)", FLAT, HOUR, [7]),
        ("forecast_linear(x[2h], 600, -3)", LINE, HOUR, [140]),
        ("forecast_linear(x[2h] offset 10m, 600)", LINE, HOUR + 10 * MINUTE, [140]),
        ("forecast_linear(x[2h] @ 3600, 600)", LINE, 5 * HOUR, [140]),
        ("forecast_linear(x[2h], NaN)", LINE, HOUR, []),
        ("forecast_linear(x[2h], Inf)", LINE, HOUR, []),
        ("forecast_linear(x[2h], 600)", LINE[:1], HOUR, []),
        ("forecast_linear(x[2h], 600, 2)", LINE[:7], HOUR, []),
        ("time_until_above(x[2h], 240)", LINE, HOUR, [3600]),
        ("time_until_above(x[2h], 120)", LINE, HOUR, [0]),
        ("time_until_above(x[2h], 12)", LINE, HOUR, [0]),
        ("time_until_below(x[2h], 12)", LINE, HOUR, [math.inf]),
        ("time_until_below((-x)[2h:1m], -240)", LINE, HOUR, [3600]),
        ("time_until_above(x[2h], 8)", FLAT, HOUR, [math.inf]),
        ("time_until_above(x[2h], 7)", FLAT, HOUR, [0]),
        ("time_until_above(x[2h], Inf)", LINE, HOUR, [math.inf]),
        ("time_until_above(x[2h], NaN)", LINE, HOUR, []),
        ("forecast_seasonal(x[8d], 0, 86400)", DAILY, 8 * DAY - HOUR, [DAILY[-1][1]]),
        ("forecast_seasonal(x[8d], 21600, 1d)", DAILY, 8 * DAY, [10 + 8.25]),
        ("forecast_seasonal(x[8d], 3 * 86400, 1d)", DAILY, 8 * DAY, [11]),
        ("forecast_seasonal(x[4d], 3 * 86400 + 21600, 1d)", DAILY, 8 * DAY, [21.25]),
        ("forecast_seasonal(x[8d], 21600, 1d)", DAILY[:20], 8 * DAY, [10 + 0.25]),
        ("forecast_seasonal(x[8d], 0, 1d)", DAILY[:20], 20 * HOUR, []),
        ("forecast_seasonal(x[8d], 0, 30d)", DAILY, 8 * DAY, []),
        ("forecast_seasonal(x[8d], 0, NaN)", DAILY, 8 * DAY, []),
        ("forecast_seasonal(x[2h], 0, 1)", FLAT[:1], HOUR, [7]),
        ("anomaly_score(x[2h])", FLAT, HOUR, [0]),
        ("anomaly_score(x[2h])", [*FLAT[:-1], (HOUR, 8.0)], HOUR, [math.inf]),
        ("anomaly_score(x[2h])", [*FLAT[:-1], (HOUR, 6.0)], HOUR, [-math.inf]),
        ("anomaly_score(x[2h])", every(MINUTE, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]), HOUR, [6 / (1.4826 * 2)]),
        ("anomaly_score(x[2h])", every(MINUTE, [0] * 9 + [1, 4]), HOUR, [4 / (1.2533 * 0.1)]),
        ("anomaly_score(x[2h])", every(MINUTE, range(8)), HOUR, []),
        ("anomaly_score(x[10d], 1d)", TEN_DAYS, 10 * DAY - HOUR, [0]),
        ("anomaly_score(x[8d], 1d)", DAILY, 8 * DAY - HOUR, []),
        ("anomaly_score(x[8d], 30d)", DAILY, 8 * DAY, []),
        ("level_shift(x[2h])", STEP, HOUR, [10]),
        ("ts_of_level_shift(x[2h])", STEP, HOUR, [2400]),
        ("level_shift(x[2h])", FLAT, HOUR, [0]),
        ("level_shift(x[2h])", NOISE, HOUR, [0]),
        ("ts_of_level_shift(x[2h])", NOISE, HOUR, []),
        ("level_shift(x[2h], 1e-30)", STEP, HOUR, [0]),
        ("level_shift(x[2h], NaN)", STEP, HOUR, []),
        ("level_shift(x[2h])", STEP[:1], HOUR, []),
        ("level_shift(x[2h])", STEP[:2], HOUR, [0]),
    ],
)
def test_series_whose_answer_is_known(expr: str, samples: Samples, at: int, expected: list[float]) -> None:
    np.testing.assert_allclose(one(expr, samples, at=at), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_nan_infinities_and_markers_are_samples_that_are_not_there(name: str) -> None:
    parameters = {"forecast_linear": ", 60, 1", "forecast_seasonal": ", 60, 600, 1", "anomaly_score": ", 600"}
    expr = f"{name}(x[1h]{parameters.get(name, ', 0.05')})"
    spoiled = [(t + 7, odd) for (t, _), odd in zip(NOISE, [math.nan, math.inf, -math.inf, STALE] * 20, strict=False)]
    dirty = sorted(STEP + spoiled)
    assert one(expr, dirty, at=HOUR) == one(expr, STEP, at=HOUR)
    assert one(expr, spoiled, at=HOUR) == []
    # Shared timestamps and timestamps of their own take different ways through the engine.
    rows = [[(t, v if (i + row) % 5 else math.nan) for i, (t, v) in enumerate(STEP)] for row in range(12)]
    together = query_range(expr, memory(*rows), HOUR - 5 * MINUTE, HOUR, MINUTE)
    numbers = [int(i) for i in together.labels.texts("i")]
    for row, samples in enumerate(rows[i] for i in numbers):
        alone = query_range(
            expr, memory([each for each in samples if not math.isnan(each[1])]), HOUR - 5 * MINUTE, HOUR, MINUTE
        )
        assert alone.ok[0].tolist() == together.ok[row].tolist()
        np.testing.assert_allclose(alone.v[alone.ok], together.v[row][together.ok[row]])


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ("forecast_seasonal(x[1h], 0, 0)", "season of forecast_seasonal() must be a positive number of seconds, got 0"),
        ("forecast_seasonal(x[1h], 0, -1)", "got -1"),
        ("anomaly_score(x[1h], -Inf)", "got -Inf"),
        ("level_shift(x[1h], 0)", "significance of level_shift() must lie between 0 and 1"),
        ("ts_of_level_shift(x[1h], 1)", "significance of ts_of_level_shift()"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(expr: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        instant(expr, memory(LINE), HOUR)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_plain_promql_refuses_them_by_name(name: str) -> None:
    needed = len(FUNCTIONS[name].args) - FUNCTIONS[name].optional - 1
    expr = f"sum({name}(x[1h]{', 60' * needed}))"
    assert instant(expr, memory(LINE), HOUR) is not None
    with pytest.raises(ParseError, match=rf"{name}\(\) is an extension"):
        instant(expr, memory(LINE), HOUR, plain=True)


def test_they_work_on_subqueries_and_inside_expressions_and_drop_the_name() -> None:
    expr = "max_over_time(time_until_above(sum(x)[30m:1m], 240)[10m:1m]) < 2 * 3600"
    assert one(expr, LINE, at=HOUR) == pytest.approx([3600 + 540])
    result = instant("forecast_linear(x[2h], 600)", memory(LINE, FLAT), HOUR)
    assert result.labels.dicts() == [{"i": "0"}, {"i": "1"}]


def test_a_parameter_may_differ_from_step_to_step() -> None:
    result = query_range("forecast_linear(x[1h] @ 3600, time() - 3600)", memory(LINE), HOUR, 2 * HOUR, 30 * MINUTE)
    np.testing.assert_allclose(result.v[0], [120, 180, 240])
    missing = query_range("forecast_linear(x[1h] @ 3600, scalar(x))", memory(LINE), HOUR, 2 * HOUR, 30 * MINUTE)
    assert missing.ok[0].tolist() == [True, False, False]


def test_bands_lie_around_the_forecast_and_hold_what_they_say() -> None:
    chance = np.random.default_rng(5)
    days = [[20 * math.sin(2 * math.pi * i / 288) + chance.normal() for i in range(288 * 15)] for _ in range(20)]
    source = memory(*(every(5 * MINUTE, values) for values in days))
    low, middle, high = (
        query_range(f"forecast_seasonal(x[14d], 0, 1d, {k})", source, 14 * DAY, 15 * DAY - 300_000, HOUR).v
        for k in (-2, 0, 2)
    )
    np.testing.assert_allclose(high - middle, middle - low)
    real = query_range("x", source, 14 * DAY, 15 * DAY - 300_000, HOUR).v
    assert 0.90 < ((low <= real) & (real <= high)).mean() < 0.99  # two sigmas are 95 %
    assert np.abs(middle - real).mean() < 1


def test_scores_of_noise_are_those_of_a_normal_distribution() -> None:
    chance = np.random.default_rng(6)
    source = memory(*(every(5 * MINUTE, chance.normal(size=600).tolist()) for _ in range(20)))
    scores = query_range("anomaly_score(x[1d])", source, DAY, 2 * DAY, 5 * MINUTE).v
    assert abs(float(scores.mean())) < 0.1
    assert 0.9 < float(scores.std()) < 1.1


@pytest.mark.parametrize("samples", [30, 65, 288, 2016])
def test_the_robust_line_is_nearly_as_steady_as_least_squares_and_stands_an_outage(samples: int) -> None:
    chance = np.random.default_rng(8)
    noise = chance.normal(size=(200, samples)) + np.arange(samples) * 0.1
    source = memory(*(every(MINUTE, row.tolist()) for row in noise))
    robust, plain = (
        instant(f"{name}_linear(x[1w], 0)", source, samples * MINUTE).v for name in ("forecast", "predict")
    )
    assert robust.std() < 1.35 * plain.std()
    noise[:, samples // 5 : samples // 5 + samples // 4] = 0.0
    out = memory(*(every(MINUTE, row.tolist()) for row in noise))
    assert abs(instant("forecast_linear(x[1w], 0)", out, samples * MINUTE).v.mean() - samples * 0.1) < 1.5


def test_level_shifts_in_noise_are_as_rare_as_asked() -> None:
    chance = np.random.default_rng(7)
    source = memory(*(every(MINUTE, chance.normal(size=60).tolist()) for _ in range(600)))
    found = instant("level_shift(x[2h], 0.05) != 0", source, HOUR)
    assert len(found.labels) / 600 < 0.05  # Pettitt's approximation is on the safe side


# -- against plain Python ----------------------------------------------------------------------------------------------


def naive_spread(distances: list[float]) -> float:
    sizes = [abs(d) for d in distances]
    return 1.4826 * statistics.median(sizes) or 1.2533 * sum(sizes) / len(sizes)


def naive_slope(samples: Samples) -> float:
    size = math.ceil(len(samples) / 64)
    runs = [samples[max(0, i - size) : i] for i in range(len(samples), size - 1, -size)]
    points = [tuple(statistics.median(part) for part in zip(*run, strict=True)) for run in runs]
    return statistics.median((u - v) / ((s - t) / 1000) for (s, u), (t, v) in combinations(points, 2))


def naive_line(samples: Samples, end: int) -> tuple[float, float, list[float]]:
    slope = naive_slope(samples)
    if len(samples) > 64:
        slope += naive_slope([(t, v - slope * (t - end) / 1000) for t, v in samples])
    left = [v - slope * (t - end) / 1000 for t, v in samples]
    level = statistics.median(left)
    return slope, level, [each - level for each in left]


def naive_linear(samples: Samples, end: int, ahead: float, sigmas: float) -> float | None:
    if len(samples) < (8 if sigmas else 2):
        return None
    slope, level, left = naive_line(samples, end)
    xs = [(t - end) / 1000 for t, _ in samples]
    mean = sum(xs) / len(xs)
    error = math.sqrt(1 + 1 / len(xs) + (ahead - mean) ** 2 / sum((x - mean) ** 2 for x in xs)) if sigmas else 0
    return level + slope * ahead + (sigmas * naive_spread(left) * error if sigmas else 0)


def naive_reach(samples: Samples, season: float) -> float:
    spacing = (samples[-1][0] - samples[0][0]) / max(1, len(samples) - 1)
    return min(max(min(season / 48, 1_800_000), 0.6 * spacing), season / 2.0001)


def naive_expected(samples: Samples, target: float, season: float) -> tuple[float, list[float]]:
    reach = naive_reach(samples, season)
    at_point = [
        (t, v)
        for t, v in samples
        for cycles in [(target - t) / season]
        if abs(cycles - round(cycles)) * season <= reach and round(cycles) >= 1
    ]
    slopes = []
    for i, (t, v) in enumerate(samples):
        if t < samples[0][0] + season - reach or i == 0:
            continue
        j = min(range(len(samples)), key=lambda j: (abs(samples[j][0] - (t - season)), j))
        if abs(samples[j][0] - (t - season)) <= reach and j < i:
            slopes.append((v - samples[j][1]) / ((t - samples[j][0]) / 1000))
    slope = statistics.median(slopes) if slopes else 0.0
    carried = [v + slope * (target - t) / 1000 for t, v in at_point]
    middle = statistics.median(carried) if carried else math.nan
    return middle, [exact(each - middle, samples) for each in carried]


def exact(distance: float, samples: Samples) -> float:
    return 0.0 if abs(distance) <= 1e-12 * max(abs(v) for _, v in samples) else distance


def naive_seasonal(samples: Samples, end: int, ahead: float, season: float, sigmas: float) -> float | None:
    if not samples:
        return None
    middle, left = naive_expected(samples, end + ahead * 1000, season * 1000)
    if len(left) < (8 if sigmas else 1):
        return None
    return middle + (sigmas * naive_spread(left) if sigmas else 0)


def naive_score(samples: Samples, season: float | None) -> float | None:
    if season is None:
        others = [v for _, v in samples[:-1]]
        if len(others) < 8:
            return None
        middle = statistics.median(others)
        left = [v - middle for v in others]
    else:
        if not samples:
            return None
        middle, left = naive_expected(samples, samples[-1][0], season * 1000)
        if len(left) < 8:
            return None
    off, sigma = exact(samples[-1][1] - middle, samples), naive_spread(left)
    return 0.0 if not off else off / sigma if sigma else math.copysign(math.inf, off)


def naive_shift(samples: Samples, chance: float) -> float | None:
    values = [v for _, v in samples]
    n = len(values)
    if n < 2:
        return None
    u = [sum((a > b) - (a < b) for a in values[:t] for b in values[t:]) for t in range(1, n)]
    split = max(range(n - 1), key=lambda t: (abs(u[t]), -t))
    if 2 * math.exp(-6 * u[split] ** 2 / (n**3 + n**2)) >= chance:
        return 0.0
    return statistics.median(values[split + 1 :]) - statistics.median(values[: split + 1])


CASES: dict[str, Callable[[Samples, int], float | None]] = {
    "forecast_linear(x[20m], 90)": lambda s, end: naive_linear(s, end, 90, 0),
    "forecast_linear(x[20m], 90, 2)": lambda s, end: naive_linear(s, end, 90, 2),
    "forecast_seasonal(x[20m], 45, 300)": lambda s, end: naive_seasonal(s, end, 45, 300, 0),
    "forecast_seasonal(x[20m], 700, 240, -1.5)": lambda s, end: naive_seasonal(s, end, 700, 240, -1.5),
    "anomaly_score(x[20m])": lambda s, end: naive_score(s, None),
    "anomaly_score(x[20m], 180)": lambda s, end: naive_score(s, 180),
    "level_shift(x[20m], 0.2)": lambda s, end: naive_shift(s, 0.2),
}

HISTORIES = st.lists(
    st.tuples(st.integers(1, 40), st.integers(-20, 20) | st.sampled_from([0, 0, 500])), min_size=0, max_size=150
)


def history(steps: list[tuple[int, int]]) -> Samples:
    t, samples = 0, []
    for after, value in steps:
        t += after * 1000
        samples.append((t, float(value)))
    return samples


@pytest.mark.parametrize("expr", CASES)
@given(st.lists(HISTORIES, min_size=1, max_size=3), st.booleans(), st.integers(1, 60))
@settings(max_examples=25)
def test_the_engine_agrees_with_plain_python(
    expr: str, steps: list[list[tuple[int, int]]], alike: bool, step: int
) -> None:
    series = [history(each) for each in steps]
    if alike:  # ten series with equal timestamps are computed as one matrix
        series = [[(t, v + row * (i % 3)) for i, (t, v) in enumerate(series[0])] for row in range(10)]
    end = max((samples[-1][0] for samples in series if samples), default=0)
    result = query_range(expr, memory(*series), max(0, end - 3 * step * 1000), end, step * 1000)
    rows = {int(labels["i"]): row for row, labels in enumerate(result.labels.dicts())}
    for i, samples in enumerate(series):
        for column, at in enumerate(result.ts.tolist()):
            window = [(t, v) for t, v in samples if at - 20 * MINUTE < t <= at]
            expected = CASES[expr](window, at)
            got = None if i not in rows or not result.ok[rows[i], column] else float(result.v[rows[i], column])
            assert (got is None) == (expected is None), (samples, at)
            if got is not None and expected is not None:
                assert got == pytest.approx(expected, rel=1e-7, abs=1e-7), (samples, at)


# -- what may never happen ---------------------------------------------------------------------------------------------

ANY = st.floats(width=64) | st.sampled_from([0.0, 1e308, -1e308, 5e-324, STALE])
CALLS = (
    "forecast_linear(x[5m], 60, 2)",
    "forecast_seasonal(x[5m], 60, 50, 2)",
    "time_until_below(x[5m], 0)",
    "anomaly_score(x[5m])",
    "anomaly_score(x[5m], 50)",
    "level_shift(x[5m])",
    "ts_of_level_shift(x[5m], 0.3)",
)


def cells(result: Result) -> dict[tuple[str, int], float]:
    return {
        (labels["i"], t): v
        for labels, row, ok in zip(result.labels.dicts(), result.v.tolist(), result.ok.tolist(), strict=True)
        for t, v, here in zip(result.ts.tolist(), row, ok, strict=True)
        if here
    }


@pytest.mark.parametrize("expr", CALLS)
@given(st.lists(st.lists(ANY, max_size=40), min_size=1, max_size=9), st.integers(0, 400))
@settings(max_examples=25)
def test_no_input_is_an_error_and_the_future_changes_nothing(expr: str, values: list[list[float]], now: int) -> None:
    series = [every(10_000, row) for row in values]
    whole = cells(query_range(expr, memory(*series), 0, 400_000, 50_000))
    known = [[(t, v) for t, v in samples if t <= now * 1000] for samples in series]
    past = {at: v for at, v in whole.items() if at[1] <= now * 1000}
    seen = {
        at: v for at, v in cells(query_range(expr, memory(*known), 0, 400_000, 50_000)).items() if at[1] <= now * 1000
    }
    assert past.keys() == seen.keys()
    np.testing.assert_allclose([past[at] for at in seen], list(seen.values()), rtol=1e-9)
    assert not any(math.isnan(v) for v in whole.values())


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = memory(*([(t, v * row) for t, v in STEP] for row in range(1, 20)))
    for expr in CALLS:
        answers = []
        for size in (10**6, 100):
            monkeypatch.setattr(forecast, "CELLS", size)
            monkeypatch.setattr(windows, "DENSE_CELLS", size)
            answers.append(cells(query_range(expr.replace("5m", "40m"), source, HOUR - 10 * MINUTE, HOUR, MINUTE)))
        assert answers[0] == answers[1]
        assert len(answers[0]) > 10 or expr.startswith("ts_of")


@given(st.lists(st.sampled_from([1.0, 2.0, 2.5, -3.0, 0.0]), min_size=1, max_size=12))
def test_equal_values_share_their_rank(values: list[float]) -> None:
    expected = [sum(b < a for b in values) + (1 + sum(b == a for b in values)) / 2 for a in values]
    assert forecast.ranks(np.array(values)).tolist() == expected
