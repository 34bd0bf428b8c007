"""Values as text, many at once: what an encoder writes in one go is what is written one by one."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from apps.promql.result import number, numbers

EVERYDAY = st.one_of(
    st.floats(1e-4, 1e15, exclude_max=True),
    st.floats(-1e6, 1e6),
    st.integers(-(10**14), 10**14).map(float),
    st.sampled_from([0.0, -0.0, 1e-4, 10.0, 100.25, 999_999_999_999_999.0]),
)


@given(st.lists(st.one_of(EVERYDAY, st.floats()), max_size=20))
@example([0.0, 1e15])
@example([-0.0, 1e-5, 2.0])
@example([1.0, float("nan")])
def test_many_numbers_are_written_as_each_of_them(values):
    assert numbers(np.array(values, dtype=np.float64)) == [number(value) for value in values]


@given(st.lists(EVERYDAY, min_size=2, max_size=20))
def test_numbers_of_everyday_size_are_written_as_each_of_them(values):
    assert numbers(np.array(values)) == [number(value) for value in values]
