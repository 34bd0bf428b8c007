"""The picture in an e-mail: whatever the values, it is a PNG with round ticks around them."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.notifications import chart
from apps.notifications.message import Curve

START = 1_764_000_000
numbers = st.floats(allow_nan=True, allow_infinity=True)
curves = st.builds(
    Curve,
    title=st.text(max_size=50),
    start=st.just(START),
    step=st.integers(1, 7200),
    values=st.lists(st.none() | numbers, min_size=1, max_size=120).map(tuple),
    unit=st.sampled_from(["", "percent", "bytes", "seconds", "ms", "bytes/s", "req/s", "Ω"]),
    threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    since=st.sampled_from([0, START + 60]),
)


@given(curves)
@settings(max_examples=25)
def test_any_curve_is_a_picture_or_says_that_there_is_nothing_to_draw(curve: Curve):
    if not any(value is not None and abs(value) < float("inf") for value in curve.values):
        with pytest.raises(ValueError, match="no values"):
            chart.draw(curve)
        return
    picture = Image.open(io.BytesIO(chart.draw(curve, chart.DARK)))
    assert picture.size == (chart.WIDTH * chart.DENSITY, chart.HEIGHT * chart.DENSITY)


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20),
    st.none() | st.floats(-1e300, 1e300),
)
def test_ticks_are_few_rise_and_hold_everything(values: list[float], threshold: float | None):
    ticks = chart.scale(values, threshold)
    shown = [*values, *([] if threshold is None else [threshold])]
    slack = (ticks[-1] - ticks[0]) * 1e-6
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    assert ticks[0] - slack <= min(shown)
    assert max(shown) <= ticks[-1] + slack


@pytest.mark.parametrize(
    ("values", "threshold", "ticks"),
    [
        ([35, 95.4], 90, [0, 25, 50, 75, 100]),
        ([1000, 1001], None, [1000, 1000.25, 1000.5, 1000.75, 1001]),
        ([5], None, [4.5, 4.75, 5, 5.25, 5.5]),
        ([0], None, [-1, -0.5, 0, 0.5, 1]),
        ([-3, 4], None, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round(values: list[float], threshold: float | None, ticks: list[float]):
    assert chart.scale(values, threshold) == pytest.approx(ticks)


def test_times_are_round_and_inside_the_curve():
    curve = Curve("x", START, 60, (1.0,) * 120)
    assert [chart._clock(at) for at in chart.times(curve)] == ["16:30", "17:00", "17:30"]


def test_the_picture_is_told_in_words():
    curve = Curve("Memory", START, 60, (50.0, None, 93.5), "percent", 90.0)
    assert chart.words(curve) == (
        "Memory from 16:00 to 16:02 UTC: last 93.5 %, lowest 50 %, highest 93.5 %, threshold 90 %."
    )
