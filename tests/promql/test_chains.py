"""Chains of operators: one level deep for the reader, however long; read, printed, planned and evaluated in a loop."""

import pytest

from apps.promql.ast import Binary
from apps.promql.engine import explain, instant, query_range
from apps.promql.errors import LimitError
from apps.promql.parser import parse
from apps.promql.printer import pretty, render
from apps.promql.source import MemorySource

LONG = 999
SOURCE = MemorySource([({"__name__": "x", "i": str(i)}, [1_000, 2_000], [1.0, 2.0]) for i in range(3)])


@pytest.mark.parametrize("operator", ["+", "or", "and", "> bool", "* on (i)"])
def test_a_long_chain_is_read_and_printed(operator: str) -> None:
    text = f" {operator} ".join(["x"] * LONG)
    tree = parse(text)
    assert isinstance(tree, Binary)
    assert tree.depth == 2
    assert render(tree) == text
    assert render(parse(pretty(tree))) == text


def test_a_long_chain_is_evaluated_at_one_time_and_over_time() -> None:
    text = " + ".join(["x"] * LONG)
    assert instant(text, SOURCE, 2_000).v[:, 0].tolist() == [2.0 * LONG] * 3
    over_time = query_range(text, SOURCE, 1_000, 3_000, 1_000)
    assert over_time.v.tolist() == [[LONG, 2.0 * LONG, 2.0 * LONG]] * 3


def test_a_long_chain_that_is_pinned_is_evaluated_once_for_all_steps() -> None:
    text = " + ".join(["x @ 1"] * LONG) + " + x"
    over_time = query_range(text, SOURCE, 1_000, 2_000, 1_000)
    assert over_time.v.tolist() == [[LONG + 1.0, LONG + 2.0]] * 3


def test_a_chain_within_brackets_counts_as_a_level_of_its_own() -> None:
    inner = " + ".join(["x"] * 300)
    tree = parse(f"sum({inner}) / sum(({inner}) - (x))")
    assert tree.depth == 6
    assert instant(render(tree), SOURCE, 2_000).v.tolist() == [[300 / 299]]


def test_a_chain_that_is_too_long_for_a_tree_is_not_explained() -> None:
    with pytest.raises(LimitError, match="too deep for a tree"):
        explain(" + ".join(["x"] * 300), SOURCE, 2_000, 2_000, None)
