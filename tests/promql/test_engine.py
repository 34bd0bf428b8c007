"""The engine from outside: shapes of answers, limits, shared fetches, warnings, traps of the language."""

import inspect
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from apps.promql.engine import Limits, Result, evaluate_many, instant, query_range
from apps.promql.errors import DeadlineExceeded, LimitError, ParseError, PromQLError, QueryError
from apps.promql.result import number
from apps.promql.series import STALE, Ragged
from apps.promql.source import Matcher, MemorySource, Request


def memory(text: str, every: int = 60_000) -> MemorySource:
    """Lines of `name{label="value"} 1 2 _ stale`, one sample every minute from 0."""
    from apps.promql.parser import parse_matchers

    series = []
    for line in text.strip().splitlines():
        head, _, values = line.strip().partition(" ")
        labels = {matcher.name: matcher.value for matcher in parse_matchers(head)}
        points = [
            (i * every, STALE if value == "stale" else float(value))
            for i, value in enumerate(values.split())
            if value != "_"
        ]
        series.append((labels, [t for t, _ in points], [v for _, v in points]))
    return MemorySource(series)


def values(result: Result) -> dict[tuple[tuple[str, str], ...], list[float | None]]:
    return {
        tuple(sorted(labels.items())): [v if here else None for v, here in zip(row, ok, strict=True)]
        for labels, row, ok in zip(result.labels.dicts(), result.v.tolist(), result.ok.tolist(), strict=True)
    }


HOSTS = memory(
    """
    up{host="a"} 1 1 0
    up{host="b"} 0 1 1
    load{host="a",cpu="0"} 1 2 3
    load{host="a",cpu="1"} 4 5 6
    load{host="b",cpu="0"} 7 8 stale
    """
)


def test_a_vector_is_given_as_prometheus_gives_it() -> None:
    assert instant('up{host="a"} == 0', HOSTS, 120_000).to_api() == {
        "resultType": "vector",
        "result": [{"metric": {"__name__": "up", "host": "a"}, "value": [120.0, "0"]}],
    }


def test_a_matrix_is_sorted_by_labels_and_has_holes() -> None:
    result = query_range("load", HOSTS, 0, 120_000, 60_000)
    assert [labels.get("cpu") for labels in result.labels.dicts()] == ["0", "0", "1"]
    by_host = values(query_range("sum by (host) (load)", HOSTS, 0, 120_000, 60_000))
    assert by_host == {(("host", "a"),): [5.0, 7.0, 9.0], (("host", "b"),): [7.0, 8.0, None]}


def test_scalars_strings_and_raw_samples() -> None:
    assert instant("1 + 1", HOSTS, 1_500).to_api() == {"resultType": "scalar", "result": [1.5, "2"]}
    assert instant('"text"', HOSTS, 0).to_api() == {"resultType": "string", "result": [0.0, "text"]}
    raw = instant('load{host="b"}[10m]', HOSTS, 120_000)
    assert raw.to_api()["result"] == [
        {"metric": {"__name__": "load", "host": "b", "cpu": "0"}, "values": [[0.0, "7"], [60.0, "8"]]}
    ]
    assert query_range("time()", HOSTS, 0, 60_000, 30_000).v.tolist() == [[0.0, 30.0, 60.0]]


@pytest.mark.parametrize(("ms", "text"), [(-1, "-0.001"), (-1_500, "-1.500"), (-2_000, "-2"), (0, "0"), (70, "0.070")])
def test_times_are_written_in_seconds(ms: int, text: str) -> None:
    assert b"".join(instant("1", HOSTS, ms).json_slices()).endswith(b'[%s,"1"]}' % text.encode())


@pytest.mark.parametrize(("expr", "text"), [("1e21", "1" + "0" * 21), ("1e-7", "0.0000001"), ("-1 / 0", "-Inf")])
def test_a_scalar_is_written_without_an_exponent_and_a_vector_with_one(expr: str, text: str) -> None:
    assert instant(expr, HOSTS, 0).to_api()["result"] == [0.0, text]
    (row,) = instant(f"vector({expr})", HOSTS, 0).to_api()["result"]
    assert float(row["value"][1]) == float(text)


@pytest.mark.parametrize(
    "expr", ["load", "1", '"a\\"\\n"', "load[5m]", "vector(NaN)", "load / 0", "absent(nothing{a='é\\\\'})"]
)
@pytest.mark.parametrize("points", [1, 10_000])
def test_the_fast_json_is_the_same_as_the_slow_one(expr: str, points: int) -> None:
    result = instant(expr, HOSTS, 60_000)
    assert json.loads(b"".join(result.json_slices(points))) == result.to_api()


BYTES = [
    r'"\xff"',
    r"label_replace(up, 'a', '\xff', '', '')",
    r"label_join(up, 'a', '\xff', 'host', 'host')",
]


@pytest.mark.parametrize("expr", BYTES)
def test_bytes_that_are_no_utf8_leave_as_replacement_characters(expr: str) -> None:
    result = instant(expr, HOSTS, 60_000)
    assert "\ufffd" in b"".join(result.json_slices()).decode()
    assert "\ufffd" in json.dumps(result.to_api(), ensure_ascii=False)


def test_the_fast_json_of_a_matrix_with_holes() -> None:
    result = query_range("load", HOSTS, 0, 120_500, 20_100)
    assert json.loads(b"".join(result.json_slices(3))) == result.to_api()
    assert len(list(result.json_slices(3))) > 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e16, "15000000000000000"),
        (123456789012345680.0, "123456789012345680"),
        (1e-6, "0.000001"),
        (1.25e-5, "0.0000125"),
        (1e-7, "1e-07"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert number(value) == text
    assert math.isnan(value) or float(text) == value


class Counting:
    """A source that remembers what it was asked."""

    def __init__(self, source: MemorySource) -> None:
        self.source = source
        self.asked: list[Request] = []

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        self.asked.append(Request(tuple(matchers), tmin, tmax))
        return self.source.select(matchers, tmin, tmax)


class Batching(Counting):
    """A source that takes all requests at once."""

    calls = 0

    def select_many(self, requests: Sequence[Request]) -> list[Ragged]:
        self.calls += 1
        return [self.select(request.matchers, request.tmin, request.tmax) for request in requests]


def test_windows_are_left_open_and_offset_and_at_move_them() -> None:
    source = Counting(HOSTS)
    instant("up + rate(up[1m] offset 30s) + (up @ 100) + max_over_time(up[2m:30s])", source, 3_600_000)
    ranges = sorted((request.tmin, request.tmax) for request in source.asked)
    assert ranges == [(-200_000, 100_000), (3_210_000, 3_600_000)]


def test_far_apart_ranges_of_one_selector_are_not_read_as_one() -> None:
    source = Counting(HOSTS)
    instant("up - up offset 1d", source, 600_000)
    assert len(source.asked) == 2


def test_many_expressions_share_one_fetch_and_keep_their_errors() -> None:
    source = Batching(HOSTS)
    answers = evaluate_many(["sum(up)", "sum(", "up", "sum(up)", "up + on() load", "1"], source, 60_000)
    assert source.calls == 1
    assert len(source.asked) == 2
    assert isinstance(answers[1], ParseError)
    assert isinstance(answers[4], QueryError)
    assert answers[0] is answers[3]
    kinds = [answer.kind for answer in answers]
    assert kinds == ["vector", "bad_data", "vector", "vector", "execution", "scalar"]
    assert isinstance(answers[0], Result)
    assert answers[0].v.tolist() == [[2.0]]
    assert answers[0].stats.samples == 4


class Refusing(Counting):
    """A source that refuses one metric."""

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        if matchers[0].value == "load":
            raise LimitError("too many series")
        return super().select(matchers, tmin, tmax)


class RefusingBatch(Refusing):
    def select_many(self, requests: Sequence[Request]) -> list[Ragged]:
        return [self.select(request.matchers, request.tmin, request.tmax) for request in requests]


@pytest.mark.parametrize("source", [Refusing(HOSTS), RefusingBatch(HOSTS)])
def test_a_refused_selector_fails_only_the_expressions_that_need_it(source: Refusing) -> None:
    answers = evaluate_many(["up", "sum(load)", "count(up)"], source, 60_000)
    assert [answer.kind for answer in answers] == ["vector", "execution", "vector"]
    with pytest.raises(LimitError, match="too many series"):
        instant("load", source, 0)


def test_a_query_without_selectors_asks_for_nothing() -> None:
    source = Batching(HOSTS)
    instant("vector(1)", source, 0)
    assert source.calls == 0


@pytest.mark.parametrize(
    ("limits", "expr", "says"),
    [
        (Limits(steps=2), "up", "maximum resolution of 2 points"),
        (Limits(subquery_steps=30), "max_over_time(up[1h:1m])", "subquery has"),
        (Limits(samples=3), "up", "samples, more than the limit of 3"),
        (Limits(cells=5), "load", "values, more than the limit of 5"),
        (Limits(cells=5), "rate(load[5m])", "values, more than the limit of 5"),
        (Limits(cells=9), "count_values('v', load)", "values, more than the limit of 9"),
        (Limits(cells=5), "load @ 60", "values, more than the limit of 5"),
    ],
)
def test_limits_name_the_number_and_the_limit(limits: Limits, expr: str, says: str) -> None:
    with pytest.raises(LimitError, match=says) as caught:
        query_range(expr, HOSTS, 0, 120_000, 60_000, limits=limits)
    assert caught.value.kind == "execution"


@pytest.mark.parametrize(
    "expr", ["label_replace(up, 'a', '{0}', '', '')", "label_join(up, 'a', '{0}', 'host', 'host')"]
)
def test_labels_that_a_query_makes_are_not_endless(expr: str) -> None:
    with pytest.raises(LimitError, match="longer than the limit"):
        instant(expr.format("x" * 5000), HOSTS, 0)


def test_raw_samples_are_limited_too() -> None:
    with pytest.raises(LimitError, match="more than the limit of 3"):
        instant("load[1h]", HOSTS, 120_000, limits=Limits(samples=3))
    with pytest.raises(LimitError, match="values, more than"):
        instant("load[1h]", HOSTS, 120_000, limits=Limits(cells=5))


def test_a_query_that_runs_too_long_is_stopped() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        instant("sum(up)", HOSTS, 0, limits=Limits(seconds=-1.0))
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize(("start", "end", "step"), [(0, 10, 0), (0, 10, -1), (10, 0, 1), (2**60, 2**60, 1)])
def test_an_impossible_grid_is_refused(start: int, end: int, step: int) -> None:
    with pytest.raises(ParseError):
        query_range("up", HOSTS, start, end, step)


@pytest.mark.parametrize("expr", ["up[5m]", '"text"', "up[5m:1m]"])
def test_a_range_query_wants_numbers(expr: str) -> None:
    with pytest.raises(ParseError, match="invalid expression type"):
        query_range(expr, HOSTS, 0, 60_000, 60_000)


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("up + on() load", "found duplicate series for the match group {} on the right hand-side"),
        ("load + on(host) up", "many-to-one matching must be explicit"),
        ("up * on(host) group_left load", "many-to-many matching not allowed"),
        ("label_replace(up, 'host', '', 'host', '.*')", "same labelset"),
        ("sum by (__name__) (-{host='a'}) or -up", "same labelset"),
        ("topk(NaN, up)", "Parameter value is NaN"),
        ("topk(1e300, up)", "overflows int64"),
        ("count_values('\\xff', up)", "invalid label name"),
        ("double_exponential_smoothing(up[5m], 2, 0.5)", "invalid smoothing factor"),
    ],
)
def test_errors_of_evaluation_say_what_happened(expr: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        instant(expr, HOSTS, 60_000)
    assert says in str(caught.value)
    assert caught.value.kind == "execution"


def test_warnings_and_infos_point_at_their_place() -> None:
    result = instant("quantile(2, up)\n + on () quantile(-1, up)", HOSTS, 60_000)
    assert result.warnings == (
        "PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)",
        "PromQL warning: quantile value should be between 0 and 1, got -1 (2:19)",
    )
    buckets = memory('b{le="1"} 5\nb{le="2"} 3\nb{le="+Inf"} 9\nb{le="x"} 1')
    found = instant("histogram_quantile(0.5, b)", buckets, 0)
    where = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile"
    told = f"input to histogram_quantile needed to be fixed for monotonicity (see {where}) for metric name"
    assert found.infos == (f'PromQL info: {told} "b" (1:25)',)
    assert found.warnings == (
        'PromQL warning: bucket label "le" is missing or has a malformed value of "x" for metric name "b" (1:25)',
    )
    assert {"warnings", "infos"} <= found.to_api().keys()


def test_warnings_do_not_pile_up() -> None:
    result = query_range("quantile(time(), up)", HOSTS, 2_000, 200_000, 1_000)
    assert len(result.warnings) == 51
    assert result.warnings[-1] == "PromQL warning: there are more than these 50"


def test_the_stores_warnings_reach_the_answer() -> None:
    class Torn(MemorySource):
        def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
            return Ragged.empty(("a block is unreadable",))

    assert instant("sum(up)", Torn(), 0).warnings == ("a block is unreadable",)


NAMES: list[tuple[str, list[dict[str, str]]]] = [
    ("up", [{"__name__": "up"}]),
    ("-up", [{}]),
    ("up > 0", [{"__name__": "up"}]),
    ("up > bool 0", [{}]),
    ("up + 1", [{}]),
    ("abs(up)", [{}]),
    ("last_over_time(up[5m])", [{"__name__": "up"}]),
    ("max_over_time(up[5m])", [{}]),
    ("last_over_time(abs(up)[5m:1m])", [{}]),
    ("sum by (__name__) (up)", [{"__name__": "up"}]),
    ("sum by (__name__) (rate(up[5m]))", [{}]),
    ("label_replace(-up, '__name__', 'x', '', '')", [{"__name__": "x"}]),
    ("label_join(-up, 'old', '', '__name__')", [{"old": "up"}]),
    ("up or -up", [{"__name__": "up"}]),
    ("sort(up)", [{"__name__": "up"}]),
    ("topk(1, up)", [{"__name__": "up"}]),
    ("timestamp(up)", [{}]),
    ("up and up", [{"__name__": "up"}]),
]


@pytest.mark.parametrize(("expr", "metrics"), NAMES)
@pytest.mark.parametrize("mode", ["instant", "range"])
def test_names_are_dropped_when_the_query_ends(expr: str, metrics: list[dict[str, str]], mode: str) -> None:
    source = memory("up 1 2 3")
    at_once, over_time = instant(expr, source, 120_000), query_range(expr, source, 60_000, 120_000, 60_000)
    result = at_once if mode == "instant" else over_time
    assert result.labels.dicts() == metrics


PRECEDENCE: list[tuple[str, float]] = [
    ("-2 ^ 2", -4.0),
    ("2 ^ 3 ^ 2", 512.0),
    ("2 ^ -1", 0.5),
    ("(-Inf) ^ 0.5", math.inf),
    ("scalar(vector(-Inf) ^ 0.5)", math.inf),
    ("1 / (vector(0) * -1) ^ 0.5 == bool Inf", 1.0),
    ("9 ^ 0.5", 3.0),
    ("1 + 2 * 3 % 4", 3.0),
    ("-1 * 2 + 3", 1.0),
    ("5 - 3 - 1", 1.0),
    ("-7 % 4", -3.0),
    ("1 == bool 1 + 0", 1.0),
    ("0x10 + 1_0", 26.0),
    ("1m30s", 90.0),
    ("scalar(vector(3)) atan2 0", math.pi / 2),
    ("scalar(round(vector(2.5)))", 3.0),
    ("scalar(round(vector(-2.5)))", -2.0),
    ("scalar(clamp(vector(5), 7, 9))", 7.0),
    ("scalar(sgn(vector(-3)))", -1.0),
    ("scalar(year(vector(951782400)))", 2000.0),
    ("scalar(month(vector(951782400)))", 2.0),
    ("scalar(day_of_month(vector(951782400)))", 29.0),
    ("scalar(day_of_year(vector(951782400)))", 60.0),
    ("scalar(days_in_month(vector(951782400)))", 29.0),
    ("scalar(day_of_week(vector(951782400)))", 2.0),
    ("scalar(hour(vector(951785999)))", 0.0),
    ("scalar(minute(vector(951785999)))", 59.0),
    ("scalar(year(vector(-1)))", 1969.0),
]


@pytest.mark.parametrize(("expr", "value"), PRECEDENCE)
def test_arithmetic_and_calendar(expr: str, value: float) -> None:
    assert instant(expr, HOSTS, 0).v[0, 0] == pytest.approx(value)


TRAPS: list[tuple[str, list[tuple[dict[str, str], float]]]] = [
    ("1 < up", []),
    ("0 < up{host='a'}", [({"__name__": "up", "host": "a"}, 1.0)]),
    ("up{host='a'} * on(host) group_right up", [({"host": "a"}, 1.0)]),
    (
        "load * on(host) group_left(zone) label_replace(up, 'zone', 'z', 'host', 'a')",
        [
            ({"host": "a", "cpu": "0", "zone": "z"}, 2.0),
            ({"host": "a", "cpu": "1", "zone": "z"}, 5.0),
            ({"host": "b", "cpu": "0"}, 8.0),
        ],
    ),
    ("up unless on(host) load{host='a'}", [({"__name__": "up", "host": "b"}, 1.0)]),
    ("absent(up)", []),
    ("absent(up{host='c', x=~'y', host2=''})", [({"host": "c"}, 1.0)]),
    ("absent_over_time(nothing{a='b'}[5m])", [({"a": "b"}, 1.0)]),
    ("vector(scalar(up))", [({}, math.nan)]),
    ("count_values('v', up)", [({"v": "1"}, 2.0)]),
    ("topk(1, load)", [({"__name__": "load", "host": "b", "cpu": "0"}, 8.0)]),
    ("topk(0, load)", []),
    ("min(up / 0 - up / 0)", [({}, math.nan)]),
    ("clamp(up, 3, 2)", []),
    ("sum(nothing)", []),
    ("nothing + up", []),
    ("sum without (cpu) (load{host='a'})", [({"host": "a"}, 7.0)]),
    ("timestamp(up{host='a'} offset 30s)", [({"host": "a"}, 0.0)]),
    ("timestamp(-up{host='a'})", [({"host": "a"}, 60.0)]),
    ("load{cpu='1'} - ignoring(cpu) fill(10) up", [({"host": "a"}, 4.0), ({"host": "b"}, 9.0)]),
    ("load{cpu='1'} - ignoring(cpu) fill_right(10) nothing", [({"host": "a"}, -5.0)]),
    ("nothing / fill_left(0) up{host='a'}", [({"host": "a"}, 0.0)]),
    ("limitk(1, load)", [({"__name__": "load", "host": "a", "cpu": "0"}, 2.0)]),
    ("histogram_quantiles(load, 'q', 0.5)", []),
    (
        "label_replace(up{host='a'}, 'h', '${1}-$2$$', 'host', '(.)(x)?')",
        [({"__name__": "up", "host": "a", "h": "a-$"}, 1.0)],
    ),
]


@pytest.mark.parametrize(("expr", "rows"), TRAPS)
def test_traps_of_the_language(expr: str, rows: list[tuple[dict[str, str], float]]) -> None:
    result = instant(expr, HOSTS, 60_000)
    got = sorted(zip(result.labels.dicts(), result.v[:, 0].tolist(), strict=True), key=lambda pair: str(pair[0]))
    wanted: list[Any] = sorted(rows, key=lambda pair: str(pair[0]))
    assert [labels for labels, _ in got] == [labels for labels, _ in wanted]
    np.testing.assert_allclose([v for _, v in got], [v for _, v in wanted])


def test_sorting_is_for_instants_only() -> None:
    by_value = instant("sort_desc(load)", HOSTS, 60_000)
    assert by_value.v[:, 0].tolist() == [8.0, 5.0, 2.0]
    in_range = query_range("sort(load)", HOSTS, 0, 60_000, 60_000)
    assert in_range.warnings == (
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)",
    )


def test_a_series_that_changes_its_name_midway_is_one_series() -> None:
    source = memory("a 1 _ _\nb _ 2 3")
    result = query_range("-{__name__=~'a|b'}", source, 0, 120_000, 60_000, lookback_ms=30_000)
    assert values(result) == {(): [-1.0, -2.0, -3.0]}


def test_pinned_parts_are_the_same_at_each_step() -> None:
    result = query_range("sum(load @ 60) + 0 * time()", HOSTS, 0, 120_000, 60_000)
    assert result.v.tolist() == [[15.0, 15.0, 15.0]]
    ends = query_range("up{host='a'} @ end()", HOSTS, 0, 120_000, 60_000)
    assert ends.v.tolist() == [[0.0, 0.0, 0.0]]


def test_equal_answers_come_in_equal_order() -> None:
    source = MemorySource([({"__name__": "x", "i": str(i)}, [0], [0.1 * i]) for i in range(500)])
    first = instant("sum by (i) (x) or sum(x)", source, 0)
    again = instant("sum by (i) (x) or sum(x)", source, 0)
    assert first.labels.dicts() == again.labels.dicts()
    assert first.v.tobytes() == again.v.tobytes()


def test_every_failure_of_a_query_is_an_error_of_the_engine() -> None:
    assert issubclass(ParseError, PromQLError)
    assert {error.kind for error in (ParseError, QueryError, LimitError, DeadlineExceeded)} == {
        "bad_data",
        "execution",
        "timeout",
    }


def test_a_caller_with_little_stack_left_gets_an_error_and_no_crash() -> None:
    expr = "abs(" * 99 + "x" + ")" * 99
    instant(expr, memory("x 1"), 0)  # parsed once, with room

    def below(frames: int) -> None:
        if frames:
            below(frames - 1)
        else:
            instant(expr, memory("x 1"), 0)

    with pytest.raises(LimitError, match="nested too deep"):
        below(sys.getrecursionlimit() - len(inspect.stack()) - 150)
