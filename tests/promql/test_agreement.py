"""Random queries: an instant answer equals that step of a range query, and only the engine's own errors leave it."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.promql import evaluator
from apps.promql.engine import Limits, Result, instant, query_range
from apps.promql.errors import PromQLError
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.series import STALE
from apps.promql.source import MemorySource


def source() -> MemorySource:
    """Three metrics: shared timestamps, timestamps of their own, holes, markers, odd values, buckets."""
    series = []
    for i in range(10):
        times = [t * 1000 for t in range(0, 300, 15)]
        series.append(({"__name__": "a", "i": str(i), "g": "xy"[i % 2]}, times, [float(t * i % 7) for t in times]))
    odd = [0.0, math.nan, math.inf, -math.inf, 1e300, -1e300, STALE, 5.0, -0.5, STALE, 3.0]
    for i in range(4):
        times = [t * 1000 + 137 * i for t in range(0, 300, 20 + i)]
        values = [odd[(i + k) % len(odd)] for k in range(len(times))]
        series.append(({"__name__": "b", "i": str(i), "g": "xz"[i % 2]}, times, values))
    for le, share in (("0.5", 1), ("1", 3), ("5", 2), ("+Inf", 4)):
        times = [t * 1000 for t in range(100, 200, 10)]
        series.append(({"__name__": "h", "le": le, "i": "0"}, times, [float(t // 5000 * share) for t in times]))
    for instance in "12":
        times = [t * 1000 for t in range(0, 300, 30)]
        series.append(({"__name__": "m", "instance": instance}, times, [float(t) for t in range(10)]))
    for version, begin, end in (("old", 30, 150), ("new", 140, 300), ("last", 250, 300)):
        times = [t * 1000 for t in range(begin, end, 20)]
        series.append(({"__name__": "target_info", "instance": "1", "v": version}, times, [1.0] * len(times)))
    return MemorySource(series)


SOURCE = source()

SELECTORS = st.sampled_from(["a", "b", "h", "a{i='1'}", "{__name__=~'a|b'}", "b{g!='x'}", "nothing", "a{i=~'[0-3]'}"])
OFFSETS = st.sampled_from(["", "", "", " offset 30s", " offset -20s", " @ 120", " @ 90 offset 7s"])
DURATIONS = st.sampled_from(["15s", "40s", "1m", "2m"])
NUMBERS = st.sampled_from(["0", "1", "-1", "0.5", "3", "1e9", "NaN", "Inf"])
LISTS = st.sampled_from(["", "i", "g", "i, g", "le", "__name__"])
WINDOW_NAMES = (
    "rate increase delta irate idelta deriv changes resets sum_over_time avg_over_time min_over_time max_over_time "
    "count_over_time last_over_time stddev_over_time stdvar_over_time present_over_time absent_over_time "
    "first_over_time mad_over_time ts_of_max_over_time"
)
EACH_NAMES = "abs ceil sqrt ln sgn round timestamp minute day_of_week absent sort -"
AGGREGATION_NAMES = "sum avg min max count group stddev stdvar"
WINDOW = st.sampled_from(WINDOW_NAMES.split())
EACH = st.sampled_from(EACH_NAMES.split())
AGGREGATION = st.sampled_from(AGGREGATION_NAMES.split())
RANKING = st.sampled_from(["topk", "bottomk", "quantile", "limitk", "limit_ratio"])
EDGES = st.sampled_from(["rate", "increase", "delta", "changes", "resets"])
INFO = st.sampled_from(["", ", {v=~'.+'}", ", {v=~'.*'}", ", {__name__=~'.*info'}"])
OPERATORS = st.sampled_from(["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<="])
SETS = st.sampled_from(["and", "or", "unless"])


def vectors(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    ranges = st.builds(lambda v, d, o: f"{v}[{d}]{o}", SELECTORS, DURATIONS, OFFSETS)
    subqueries = st.builds(
        lambda v, d, s, o: f"({v})[{d}:{s}]{o}", inner, DURATIONS, st.sampled_from(["", "7s"]), OFFSETS
    )
    scalars = NUMBERS | st.builds(lambda v: f"scalar({v})", inner) | st.just("time()")
    matching = st.builds(
        lambda how, labels, group: f"{how} ({labels}) {group}",
        st.sampled_from(["on", "ignoring"]),
        LISTS,
        st.sampled_from(["", "group_left ()", "group_right ()", "fill(0)", "group_left () fill_right(2)"]),
    )
    return (
        st.builds(lambda f, r: f"{f}({r})", WINDOW, ranges | subqueries)
        | st.builds(lambda f, v, d, o: f"{f}({v}[{d}] anchored{o})", EDGES, SELECTORS, DURATIONS, OFFSETS)
        | st.builds(lambda v, d, o: f"increase({v}[{d}] smoothed{o})", SELECTORS, DURATIONS, OFFSETS)
        | st.builds(lambda v, d, o: f"delta({v}[{d}] smoothed{o})", SELECTORS, DURATIONS, OFFSETS)
        | st.builds(lambda v, o: f"{v} smoothed{o}", SELECTORS, OFFSETS)
        | st.builds(lambda o, i: f"info(m{o}{i})", OFFSETS, INFO)
        | st.builds(lambda d, o, i: f"info(sum_over_time(m[{d}:20s]{o}){i})", DURATIONS, OFFSETS, INFO)
        | st.builds(lambda q, r: f"quantile_over_time({q}, {r})", scalars, ranges)
        | st.builds(lambda r, q: f"predict_linear({r}, {q})", ranges, scalars)
        | st.builds(lambda f, v: f"{f}({v})", EACH, inner)
        | st.builds(lambda v, a, b: f"clamp({v}, {a}, {b})", inner, scalars, scalars)
        | st.builds(
            lambda f, how, by, v: f"{f} {how} ({by}) ({v})",
            AGGREGATION,
            st.sampled_from(["by", "without"]),
            LISTS,
            inner,
        )
        | st.builds(lambda f, by, k, v: f"{f} by ({by}) ({k}, {v})", RANKING, LISTS, scalars, inner)
        | st.builds(lambda by, v: f"count_values by ({by}) ('v', {v})", LISTS, inner)
        | st.builds(lambda a, op, k: f"({a}) {op} {k}", inner, OPERATORS, scalars)
        | st.builds(lambda k, op, a: f"{k} {op} bool ({a})", scalars, st.sampled_from(["<", ">=", "=="]), inner)
        | st.builds(lambda a, op, m, b: f"({a}) {op} {m} ({b})", inner, OPERATORS, matching, inner)
        | st.builds(lambda a, op, b: f"({a}) {op} ({b})", inner, SETS, inner)
        | st.builds(lambda v: f"label_replace({v}, 'i', 'new-$1', 'i', '([0-2])')", inner)
        | st.builds(lambda v: f"label_join({v}, 'j', '-', 'g', 'i')", inner)
        | st.builds(lambda q, v: f"histogram_quantile({q}, {v})", scalars, inner)
        | st.builds(lambda q, v: f"histogram_quantiles({v}, 'q', {q}, 0.5)", scalars, inner)
        | st.builds(lambda q, v: f"histogram_fraction(0.2, {q}, {v})", scalars, inner)
    )


QUERIES = st.recursive(st.builds(lambda v, o: f"{v}{o}", SELECTORS, OFFSETS), vectors, max_leaves=5)
LIMITS = Limits(seconds=20.0)


def rows(result: Result, step: int) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(labels.items())): float(result.v[row, step])
        for row, labels in enumerate(result.labels.dicts())
        if result.ok[row, step]
    }


def said(result: Result) -> set[str]:
    """The warnings; a value that stands in one may differ in its last digits, as values may."""
    return {re.sub(r"\d+\.\d+(e[+-]\d+)?", lambda found: f"{float(found[0]):.9g}", text) for text in result.warnings}


@given(QUERIES, st.sampled_from([100_000, 133_337, 301_000]), st.sampled_from([1, 15_000, 7_777]))
@settings(max_examples=150)
def test_a_step_of_a_range_query_is_the_instant_answer(query: str, at: int, step: int) -> None:
    assert render(parse(render(parse(query)))) == render(parse(query))
    try:
        over_time = query_range(query, SOURCE, at - 2 * step, at + 2 * step, step, limits=LIMITS)
    except PromQLError:
        return
    wanted = rows(instant(query, SOURCE, at, limits=LIMITS), 0)
    got = rows(over_time, 2)
    assert got.keys() == wanted.keys()
    np.testing.assert_allclose([got[key] for key in wanted], list(wanted.values()), rtol=1e-6, atol=1e-9)


def test_a_query_in_parts_gives_what_it_gives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @given(QUERIES, st.sampled_from([100_000, 133_337]), st.sampled_from([5_000, 7_777]), st.sampled_from([1, 30, 45]))
    @example("histogram_quantile(scalar(stddev by () (a)), a)", 100_000, 5_000, 1)
    @settings(max_examples=150)
    def check(query: str, start: int, step: int, cells: int) -> None:
        answers: list[Result | PromQLError] = []
        for limit in (10**9, cells):
            monkeypatch.setattr(evaluator, "PART_CELLS", limit)
            try:
                answers.append(query_range(query, SOURCE, start, start + 10 * step, step, limits=LIMITS))
            except PromQLError as error:
                answers.append(error)
        at_once, in_parts = answers
        if isinstance(at_once, PromQLError) or isinstance(in_parts, PromQLError):
            assert type(at_once) is type(in_parts)
            return
        assert in_parts.labels.dicts() == at_once.labels.dicts()
        assert in_parts.ok.tolist() == at_once.ok.tolist()
        np.testing.assert_allclose(in_parts.v[at_once.ok], at_once.v[at_once.ok], rtol=1e-6, atol=1e-9)
        assert said(in_parts) == said(at_once)

    check()
