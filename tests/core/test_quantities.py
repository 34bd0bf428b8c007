"""Numbers with units and spans in words."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.quantities import UNITS, quantity, span


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (93.04, "percent", "93 %"),
        (0.0421, "percent", "0.042 %"),
        (0.0016, "/s", "0.0016/s"),
        (1536, "bytes", "1.5 KiB"),
        (1234567, "count", "1.23457e+06"),
        (12.5, "", "12.5"),
        (250, "ms", "250 ms"),
        (2500, "ms", "2.5 s"),
        (0.25, "seconds", "250 ms"),
        (7500, "seconds", "2 h 5 min"),
        (12_000, "req/s", "12 k req/s"),
        (3, "req/s", "3 req/s"),
        (2 * 1024**3, "bytes/s", "2 GiB/s"),
        (4, "widgets", "4 widgets"),
        (float("nan"), "percent", "NaN"),
        (float("-inf"), "bytes", "-Inf"),
    ],
)
def test_a_quantity_is_a_short_number_with_its_unit(value: float, unit: str, text: str):
    assert quantity(value, unit) == text


@given(st.floats(), st.sampled_from(["", "count", *UNITS]))
def test_any_number_has_words(value: float, unit: str):
    assert quantity(value, unit)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (300, "5 min"), (12_000, "3 h 20 min"), (7200, "2 h"), (190_000, "2 d 4 h")],
)
def test_a_span_has_its_two_largest_parts(seconds: int, text: str):
    assert span(timedelta(seconds=seconds)) == text
