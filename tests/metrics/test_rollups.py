"""Buckets answer what samples would: compared with the plain definition, sample by sample."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metrics.rollups import FIELDS, Buckets, coarser, falls_between, roll
from apps.promql.series import STALE

numbers = st.one_of(st.integers(-1000, 1000).map(float), st.just(math.nan), st.just(STALE), st.just(math.inf))
lives = st.lists(
    st.lists(st.tuples(st.integers(0, 2 * 3600 * 1000), numbers), max_size=30, unique_by=lambda one: one[0]).map(
        sorted
    ),
    max_size=4,
)


def columns(series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    off = np.cumsum([0, *(len(samples) for samples in series)])
    flat = [one for samples in series for one in samples]
    return off, np.array([ms for ms, _ in flat], dtype=np.int64), np.array([v for _, v in flat], dtype=np.float64)


def is_stale(value: float) -> bool:
    return bool(np.float64(value).view(np.uint64) == np.float64(STALE).view(np.uint64))


def plainly(samples, length: int) -> dict[int, dict[str, float]]:
    """One series' buckets by definition."""
    found: dict[int, list] = {}
    for ms, value in samples:
        if not is_stale(value):
            found.setdefault(math.ceil(ms / length) * length, []).append((ms, value))
    out = {}
    for at, some in found.items():
        values = [value for _, value in some]
        real = [value for value in values if not math.isnan(value)] or [math.nan]
        out[at] = {
            "min": min(real),
            "max": max(real),
            "sum": sum(values),
            "count": len(values),
            "first": values[0],
            "first_at": some[0][0],
            "last": values[-1],
            "last_at": some[-1][0],
            "lost": sum(before for before, after in itertools.pairwise(values) if after < before),
        }
    return out


def told(found: Buckets, row: int) -> dict[int, dict[str, float]]:
    part = range(int(found.off[row]), int(found.off[row + 1]))
    return {int(found.at[i]): {field: float(found.columns[field][i]) for field in FIELDS} for i in part}


def same(found: dict, wanted: dict) -> None:
    assert list(found) == list(wanted)
    for at, row in wanted.items():
        assert found[at] == pytest.approx(row, nan_ok=True, rel=1e-12, abs=1e-9)


@given(lives, st.sampled_from((300, 3600)))
def test_buckets_are_what_their_samples_say(series, resolution):
    found = roll(*columns(series), resolution)
    for row, samples in enumerate(series):
        same(told(found, row), plainly(samples, resolution * 1000))


@given(lives)
def test_hours_of_buckets_are_the_hours_of_the_samples(series):
    found = coarser(roll(*columns(series), 300), 3600)
    for row, samples in enumerate(series):
        same(told(found, row), plainly(samples, 3_600_000))


@given(lives)
def test_the_increase_of_a_counter_is_kept_whatever_it_fell_from(series):
    real = [[(ms, abs(v)) for ms, v in samples if math.isfinite(v)] for samples in series]
    found = roll(*columns(real), 300)
    between = falls_between(found)
    for row, samples in enumerate(real):
        if not samples:
            continue
        begin, end = int(found.off[row]), int(found.off[row + 1])
        own = found.columns
        values = [v for _, v in samples]
        wanted = sum(b - a if b >= a else b for a, b in itertools.pairwise(values))
        rolled = own["last"][end - 1] - own["first"][begin] + own["lost"][begin:end].sum() + between[begin:end].sum()
        assert rolled == pytest.approx(wanted)
