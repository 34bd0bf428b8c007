"""A rule's condition taken apart."""

import pytest

from apps.promql.conditions import split
from apps.promql.errors import ParseError


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("responseTime > 5000", ("responseTime", ">", 5000.0)),
        (" responseTime  >=  5e3 ", ("responseTime", ">=", 5000.0)),
        ("5000 < responseTime", ("responseTime", ">", 5000.0)),
        ("0 == up", ("up", "==", 0.0)),
        ("(up == 0)", ("up", "==", 0.0)),
        ("up == (-1)", ("up", "==", -1.0)),
        ("age > 5m", ("age", ">", 300.0)),
        ("sum by (a) (rate(x[5m])) / 2 != 1", ("sum by (a) (rate(x[5m])) / 2", "!=", 1.0)),
        ("a > 1 > 2", ("a > 1", ">", 2.0)),
        ("responseTime", ("responseTime", None, None)),
        ("a > b", ("a > b", None, None)),
        ("a > bool 1", ("a > bool 1", None, None)),
        ("a > 1 and b > 2", ("a > 1 and b > 2", None, None)),
        ("a > 2 * 3", ("a > 2 * 3", None, None)),
        ("a > NaN", ("a > NaN", None, None)),
    ],
)
def test_a_condition_is_an_expression_and_a_level(text: str, answer: tuple[str, str | None, float | None]) -> None:
    assert split(text) == answer


def test_a_condition_that_is_no_promql_says_where() -> None:
    with pytest.raises(ParseError, match="1:4"):
        split("a >")
