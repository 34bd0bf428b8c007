"""Canonical text and layout: read back it is the same expression, and a real Prometheus lays it out alike."""

import random
import re
import shutil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql.ast import Expr, Number, Selector, Subquery, walk
from apps.promql.errors import ParseError
from apps.promql.parser import parse
from apps.promql.printer import pretty, render
from tests.promql import differential
from tests.promql.expressions import Expressions

PROMETHEUS = shutil.which("prometheus")

LONG = 'requests_total{instance="server-with-a-name-1",job="the-long-name-of-a-job",path="/some/long/path"}'
LAYOUTS = [
    ("up", "up"),
    (f"rate({LONG}[5m])", f"rate(\n  {LONG}[5m]\n)"),
    (f"{LONG} / on(job) group_left({'x' * 20}) up", f"  {LONG}\n/ on (job) group_left ({'x' * 20})\n  up"),
    (f"sum by (job) (({LONG}) > bool 5)", f"sum by (job) (\n    (\n      {LONG}\n    )\n  > bool\n    5\n)"),
    (f"topk(3, {LONG})", f"topk(\n  3,\n  {LONG}\n)"),
    (f"-({LONG} + 12345)", f"-(\n    {LONG}\n  +\n    12345\n)"),
    (f"a + b * {LONG}", f"  a\n+\n    b\n  *\n    {LONG}"),
    (
        f"max_over_time(({LONG} + 1)[5m:1m] offset 1h)",
        f"max_over_time(\n  (\n      {LONG}\n    +\n      1\n  )[5m:1m] offset 1h\n)",
    ),
    (
        f"label_replace(up, 'a', '$1', 'instance', '(.*)-{'y' * 70}')",
        f'label_replace(\n  up,\n  "a",\n  "$1",\n  "instance",\n  "(.*)-{"y" * 70}"\n)',
    ),
    ("'" + "é" * 60 + "'", '"' + "é" * 60 + '"'),
]


@pytest.mark.parametrize(("text", "laid_out"), LAYOUTS)
def test_what_is_longer_than_a_line_is_laid_out(text: str, laid_out: str) -> None:
    assert pretty(parse(text)) == laid_out


def content(node: Expr) -> list[Any]:
    """What an expression says, node by node, whatever the order of its matchers."""
    out: list[Any] = []
    for each in walk(node):
        if isinstance(each, Selector):
            out.append((sorted(map(str, each.matchers)), each.offset, each.at, each.edges, each.offset_later))
        else:
            names = ["window", "window_later", "step", "step_later", "offset", "at", "offset_later", "value", "op"]
            names += ["matching", "bool_modifier", "grouping", "without", "func"]
            out.append((type(each), repr([getattr(each, name, None) for name in names])))
    return out


DURATIONS = st.recursive(
    st.sampled_from(["1", "0.7", "5m", "1h30m", "250ms", "step()", "range()", "STEP()"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/%^"), inner)
        | st.builds("{} {} {}".format, inner, st.sampled_from("+-*"), inner)
        | st.builds("-{}".format, inner)
        | st.builds("{}({}, {})".format, st.sampled_from(["min_of", "MAX_OF"]), inner, inner)
    ),
    max_leaves=6,
)


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=300)
def test_a_printed_expression_reads_as_the_same(seed: int, on_lines: bool) -> None:
    tree = parse(Expressions(seed).query())
    printed = pretty(tree) if on_lines else render(tree)
    again = parse(printed)
    assert content(again) == content(tree)
    assert (pretty(again) if on_lines else render(again)) == printed


@given(DURATIONS, st.sampled_from(["x[step() + ({})]", "x offset (step() + ({}))", "(x[5m:step() * ({})])"]))
@settings(max_examples=300)
def test_a_printed_duration_reads_as_the_same(duration: str, around: str) -> None:
    try:
        tree = parse(around.format(duration))
    except ParseError:  # a part that is constant may be no duration
        return
    assert content(parse(render(tree))) == content(tree)


def large(node: Expr) -> bool:
    return isinstance(node, Number) and not 1e-4 <= abs(node.value) < 1e6


def by_version(text: str) -> str:
    """Prometheus 2 prints large numbers with an exponent and forgets to indent a subquery that fits on its line."""
    text = re.sub(r"(?m)^ +", "", text)
    return re.sub(r"-?\d[\d.]*e[+-]\d+", lambda found: format(float(found.group()), "f").rstrip("0").rstrip("."), text)


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus in PATH")
def test_a_real_prometheus_lays_expressions_out_alike() -> None:
    assert PROMETHEUS is not None
    chance = random.Random(5)
    compared = 0
    with differential.Prometheus(PROMETHEUS) as peer:
        for seed in range(300):
            text = f"{Expressions(seed).query()} {chance.choice('+/')} ({Expressions(seed + 1000).query()})"
            answer = peer.ask("/api/v1/format_query", {"query": text})
            if answer["status"] != "success":
                continue
            tree = parse(text)
            layout, wanted = pretty(tree), answer["data"]
            compared += 1
            same = any(isinstance(node, Subquery) or large(node) for node in walk(tree))
            assert layout == wanted or (same and by_version(layout) == by_version(wanted))
    assert compared > 150
