"""Random questions to a real Prometheus and to our engine, and by name what such runs have found."""

import math
import shutil

import pytest

from apps.promql.engine import instant
from apps.promql.errors import QueryError
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.source import MemorySource
from tests.promql import differential
from tests.promql.expressions import Expressions, demo

PROMETHEUS = shutil.which("prometheus")

ODD = MemorySource(
    [
        ({"__name__": "x", "i": "a"}, [0], [math.nan]),
        ({"__name__": "y", "i": "a"}, [0], [-0.25]),
        ({"__name__": "z", "i": "a"}, [0], [1.0]),
        ({"__name__": "z", "i": "b"}, [0], [2.0]),
    ]
)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("year(y)", [1970.0]),
        ("minute(y)", [0.0]),
        ("hour(y - 3600)", [23.0]),
        ("count_values without (i) ('v', label_replace(z * 0, 'v', '$1', 'i', '(.*)'))", [2.0]),
        ("count_values by (v) ('v', label_replace(z * 0, 'v', '$1', 'i', '(.*)'))", [2.0]),
        ("year(z * 2e17)", [6337749671.0, 12675497372.0]),
        ("clamp_max(x, -Inf)", [-math.inf]),
        ("clamp_min(x, Inf)", [math.inf]),
        ("clamp(x, -Inf, -Inf)", [-math.inf]),
    ],
)
def test_what_the_runs_have_found_stays_found(expr: str, expected: list[float]) -> None:
    assert instant(expr, ODD, 0).v[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("expr", "text"), [("z / 1e8", "0.00000001"), ("z * 8.272402618863368e20", "827240261886336800000"), ("x", "NaN")]
)
def test_values_counted_are_written_without_exponent(expr: str, text: str) -> None:
    assert instant(f"count_values('v', {expr})", ODD, 0).labels.texts("v")[0] == text


@pytest.mark.parametrize("expr", ["z > on () y", "z == on () vector(1)", "z > on () vector(5)", "z + on () vector(1)"])
def test_two_matches_are_refused_whatever_a_comparison_would_keep(expr: str) -> None:
    with pytest.raises(QueryError, match="must be explicit"):
        instant(expr, ODD, 0)


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus in PATH")
def test_a_real_prometheus_answers_random_questions_as_we_do() -> None:
    assert PROMETHEUS is not None
    report = differential.run(PROMETHEUS, 300, 42)
    assert not report.unexplained, str(report)
    assert report.asked == 600
    assert report.answered > 300
    assert report.refused > 0


def test_the_same_seed_asks_the_same_questions_and_all_of_them_can_be_read() -> None:
    asked = list(differential.questions(200, 7))
    assert asked == list(differential.questions(200, 7))
    assert asked != list(differential.questions(200, 8))
    for question in asked:
        assert render(parse(render(parse(question.text)))) == render(parse(question.text))


def test_an_expression_never_meets_a_border() -> None:
    """Evaluation times are seven seconds after a step; samples never stand on whole seconds."""
    supply = Expressions(1)
    assert {supply.moment() % 10_000 for _ in range(100)} == {7_000}
    assert all(t % 1_000 for series in demo() for t in series.times)


@pytest.mark.parametrize(
    "wrong",
    [
        [({"i": "a"}, {0: 1.0 + 1e-6, 60: math.nan})],
        [({"i": "a"}, {0: 1.0, 60: 0.0})],
        [({"i": "a"}, {0: 1.0})],
        [({"i": "b"}, {0: 1.0, 60: math.nan})],
        [({"i": "a"}, {0: 1.0}), ({"i": "a"}, {60: math.nan})],
        [],
    ],
)
def test_a_wrong_answer_is_told_from_a_right_one(wrong: list[tuple[dict[str, str], dict[int, float]]]) -> None:
    right = differential.Answer(series=(({"i": "a"}, {0: 1.0, 60: math.nan}),))
    same = differential.Answer(series=(({"i": "a"}, {0: 1.0 + 1e-12, 60: math.nan}),))
    assert not differential.difference(right, same)
    assert differential.difference(right, differential.Answer(series=tuple(wrong)))
    assert differential.difference(right, differential.Answer("no", "execution"))


def test_counted_values_may_differ_in_their_last_digits_only() -> None:
    one, other, wrong = (
        differential.Answer(series=(({"value": text}, {0: 1.0}),))
        for text in ("2.5000000049999", "2.500000005", "2.5001")
    )
    assert not differential.difference(one, other)
    assert differential.difference(one, wrong)
