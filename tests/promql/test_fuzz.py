"""Whatever text and numbers come in, only the engine's own errors go out, and nothing that the process keeps grows."""

import random
from collections.abc import Callable
from functools import partial
from time import monotonic

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apps.promql import engine, labels, parser, source
from apps.promql.errors import PromQLError
from apps.promql.functions import FUNCTIONS
from apps.promql.labels import STRINGS
from apps.promql.limits import Limits
from apps.promql.parser import DEPTH_LIMIT, TEXT_LIMIT, parse
from apps.promql.printer import render
from apps.promql.result import Result
from apps.promql.source import MemorySource
from tests.promql.expressions import BASE, END, Expressions, demo

SOURCE = MemorySource(demo())
LIMITS = Limits(subquery_steps=2_000, cells=200_000, seconds=5.0)
QUICK = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

TOKENS = st.sampled_from(
    [
        *"+-*/%^<>=!(){}[],@:.#'\"`~\\ \n\t\0",
        *(
            "==",
            "!=",
            "=~",
            "!~",
            ">=",
            "<=",
            "and",
            "or",
            "unless",
            "bool",
            "on",
            "ignoring",
            "by",
            "without",
            "offset",
        ),
        *(
            "without",
            "group_left",
            "group_right",
            "fill",
            "fill_left",
            "atan2",
            "inf",
            "nan",
            "start",
            "end",
            "step",
            "range",
        ),
        *(
            "0",
            "1",
            "1e999",
            "0x",
            "0x1F",
            "1_000",
            "9" * 400,
            "1e-400",
            ".5",
            "5.",
            "1m",
            "1h30m",
            "1m1h",
            "9" * 30 + "y",
        ),
        *("demo_up", 'demo_up{job="api"}', "demo_degrees[5m]", "[5m]", "[5m:]", "[1ms:1ms]", "@ start()", "@ 1e300"),
        *(
            '"text"',
            "'\\xff'",
            '"\\udc80"',
            "é",
            "\U0001f600",
            "\ud800",
            "\u2028",
            "\x7f",
            "__name__",
            "le",
            "(?i",
            "$1",
        ),
        *FUNCTIONS,
        *("sum", "topk", "count_values", "quantile", "limitk", "limit_ratio", "histogram_count", "holt_winters"),
    ]
)


def ask(text: str) -> None:
    """Reads, prints and evaluates: anything but an answer or a PromQLError is a failure."""
    try:
        tree = parse(text)
    except PromQLError as error:
        str(error).encode("utf-8", "surrogatepass")
        return
    assert render(parse(render(tree))) == render(tree)
    answers(lambda: engine.instant(text, SOURCE, END - 20_003, limits=LIMITS))
    answers(lambda: engine.query_range(text, SOURCE, END - 200_003, END - 3, 50_000, limits=LIMITS))


def answers(run: Callable[[], Result]) -> None:
    """With something that can be written down, be it an error of the engine's own."""
    try:
        b"".join(run().json_slices()).decode()
    except PromQLError as error:
        str(error).encode("utf-8", "surrogatepass")


@given(st.text())
@settings(QUICK, max_examples=150)
@example("\ud800")
@example('{"\\ud800"}')
@example("'\\xff'")
def test_any_text(text: str) -> None:
    ask(text)


@given(st.lists(TOKENS, max_size=25), st.sampled_from(["", " "]))
@settings(QUICK, max_examples=400)
def test_any_row_of_tokens(tokens: list[str], between: str) -> None:
    ask(between.join(tokens))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
@settings(QUICK, max_examples=250)
def test_expressions_with_faults_in_them(seed: int, fault: int) -> None:
    text, chance = Expressions(seed).query(), random.Random(fault)
    for _ in range(chance.randrange(1, 4)):
        low = chance.randrange(len(text) + 1)
        high = min(len(text), low + chance.randrange(8))
        other = Expressions(chance.randrange(10**9)).query()
        at = chance.randrange(len(other) + 1)
        text = (
            text[:low] + chance.choice(["", text[low:high] * 2, other[at : at + 12], "(", ")", "9" * 30]) + text[high:]
        )
    ask(text)


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(TOKENS, max_size=5))
@settings(QUICK, max_examples=200)
def test_any_arguments(name: str, arguments: list[str]) -> None:
    ask(f"{name}({', '.join(arguments)})")


DEEP: dict[str, Callable[[int], str]] = {
    "brackets": lambda n: "(" * n + "1" + ")" * n,
    "open": lambda n: "(" * n,
    "signs": lambda n: "-" * n + "demo_up",
    "sums": lambda n: "+".join(["demo_up"] * n),
    "powers": lambda n: "^".join(["2"] * n),
    "alternatives": lambda n: " or ".join(["demo_up"] * n),
    "calls": lambda n: "abs(" * n + "demo_up" + ")" * n,
    "aggregations": lambda n: "sum(" * n + "demo_up" + ")" * n,
    "subqueries": lambda n: "max_over_time(" * n + "demo_up" + "[1m:1s])" * n,
    "matchers": lambda n: "demo_up{" + ",".join(['job!=""'] * n) + "}",
    "labels": lambda n: "sum by (" + ",".join(f"a{i}" for i in range(n)) + ") (demo_up)",
    "durations": lambda n: "demo_up[" + "(" * n + "1" + ")" * n + "]",
    "units": lambda n: "demo_up[" + "1h" * n + "]",
    "comments": lambda n: "#\n" * n + "1",
    "regex": lambda n: 'demo_up{job=~"' + "(" * n + "a" + ")*" * n + '"}',
    "repeats": lambda n: 'demo_up{job=~"' + "(a{1,100}){1,100}" * n + '"}',
    "join": lambda n: "label_join(demo_up, 'x', '-', " + ", ".join(["'job'"] * n) + ")",
    "escapes": lambda n: '"' + "\\x41" * n + '"',
    "digits": lambda n: "9" * n,
    "octal": lambda n: "07" * n,
    "hex": lambda n: "0x" + "f" * n,
}


@pytest.mark.parametrize("shape", DEEP)
@pytest.mark.parametrize("size", [3, DEPTH_LIMIT - 3, DEPTH_LIMIT + 3, 3_000, 20_000, TEXT_LIMIT])
def test_nests_and_chains_of_any_size(shape: str, size: int) -> None:
    ask(DEEP[shape](size))


NUMBERS = st.sampled_from(
    ["0", "-1", "1e300", "-1e300", "5e-324", "NaN", "Inf", "-Inf", "9007199254740993", "1e18", "2 ^ 63"]
)


@given(
    st.sampled_from(
        [
            "topk({n}, demo_up)",
            "limitk({n}, demo_up)",
            "quantile({n}, demo_up)",
            "round(demo_up, {n})",
            "clamp(demo_up, {n}, {m})",
            "predict_linear(demo_up[5m], {n})",
            "forecast_linear(demo_up[5m], {n}, {m})",
            "forecast_seasonal(demo_up[5m], {n}, {m}, {n})",
            "time_until_above(demo_up[5m], {n})",
            "anomaly_score(demo_up[5m], {n})",
            "level_shift(demo_up[5m], {n})",
            "double_exponential_smoothing(demo_up[5m], {n}, {m})",
            "histogram_quantile({n}, demo_seconds_bucket)",
            "histogram_fraction({n}, {m}, demo_seconds_bucket)",
            "year(vector({n}))",
            "day_of_year(vector({n}) * {m})",
            "count_values('v', vector({n}) * {m})",
            "demo_up * {n} % {m}",
            "vector({n} ^ {m})",
            "demo_up offset {n}",
            "demo_up @ {n}",
            "demo_up[{n}:{m}]",
            "max_over_time(demo_up[1h:{n}])",
        ]
    ),
    NUMBERS,
    NUMBERS,
)
@settings(QUICK, max_examples=200)
def test_any_number_anywhere(template: str, n: str, m: str) -> None:
    ask(template.format(n=n, m=m))


TIMES = (0, -1, BASE, 2**53, 2**55, -(2**55), 2**62, 2**63, 2**70, -(2**70))
AT_ANY_TIME = (
    "rate(demo_up[5m] offset 1y)",
    "year()",
    "max_over_time(demo_up[1h:1m] offset -100y)",
    "forecast_seasonal(demo_up[1h], 1e9, 1e9)",
    "demo_up @ end()",
)


@pytest.mark.parametrize("text", AT_ANY_TIME)
@pytest.mark.parametrize("step", [1, 60_000, 2**40, 2**62, 2**70], ids=hex)
def test_any_time(text: str, step: int) -> None:
    for at in TIMES:
        answers(partial(engine.instant, text, SOURCE, at, limits=LIMITS))
        answers(partial(engine.query_range, text, SOURCE, at, at + 3 * step, step, limits=LIMITS))


def test_ever_new_texts_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees, programs of regular expressions and label values that queries make are kept, but only so many."""
    moment = [monotonic()]  # strings that other tests have made are no younger
    monkeypatch.setattr(labels, "MADE_LEAST", 40)
    monkeypatch.setattr(labels, "MADE_SECONDS", 10)
    monkeypatch.setattr(STRINGS, "_clock", lambda: moment[0])
    templates = (
        'demo_up{{job=~"never-{i}.*"}}',
        'label_replace(demo_up, "made", "{i}-$1", "job", "(.*)")',
        'label_join(demo_up, "made", "{i}", "job", "instance")',
        'count_values("made", demo_requests_total * 1.{i})',
        'absent(nothing{{made="{i}"}})',
        'histogram_quantiles(demo_seconds_bucket, "q", 0.{i})',
    )
    sizes = []
    for i in range(900, 1_100):
        moment[0] += 1.0
        for template in templates:
            engine.instant(template.format(i=i), SOURCE, END - 20_003, limits=LIMITS)
        sizes.append((len(STRINGS), len(STRINGS._texts)))
    # An instant's answers are good for ten seconds here: some hundred strings, however long it goes on.
    assert max(sizes[100:]) <= (sizes[99][0] + 40, sizes[99][1] + 40)
    assert source.compiled.cache_info().maxsize is not None
    assert parser._cached.cache_info().maxsize is not None
