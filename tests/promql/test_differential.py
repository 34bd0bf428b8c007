"""Random questions to a real Prometheus and to our engine, and by name what such runs have found."""

import math

import pytest

from apps.promql.engine import instant
from apps.promql.errors import QueryError
from apps.promql.source import MemorySource

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
        ("year(z * 2e17)", [6337749671.0, 12675497372.0]),
        ("clamp_max(x, -Inf)", [-math.inf]),
        ("clamp_min(x, Inf)", [math.inf]),
        ("clamp(x, -Inf, -Inf)", [-math.inf]),
    ],
)
def test_what_the_runs_have_found_stays_found(expr: str, expected: list[float]) -> None:
    assert instant(expr, ODD, 0).v[:, 0].tolist() == expected


@pytest.mark.parametrize(("expr", "text"), [("z / 1e8", "0.00000001"), ("z * 8.272402618863368e20", "827240261886336800000"), ("x", "NaN")])
def test_values_counted_are_written_without_exponent(expr: str, text: str) -> None:
    assert instant(f"count_values('v', {expr})", ODD, 0).labels.texts("v")[0] == text


@pytest.mark.parametrize("expr", ["z > on () y", "z == on () vector(1)", "z > on () vector(5)", "z + on () vector(1)"])
def test_two_matches_are_refused_whatever_a_comparison_would_keep(expr: str) -> None:
    with pytest.raises(QueryError, match="must be explicit"):
        instant(expr, ODD, 0)
