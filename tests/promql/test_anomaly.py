"""The streaming detector: no look-ahead, robust against what series are like, better than mean ± 3 sigma."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql.functions.anomaly import WARM_UP, Floats, Index, detect
from benchmarks.anomaly import compare, labelled

MINUTE = 60_000


def times(count: int) -> Index:
    return np.arange(count, dtype=np.int64) * 5 * MINUTE


def noise(count: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(100.0, 3.0, count)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 700), kind=st.sampled_from(["gauge", "counter", "day", "holes"]))
def test_what_comes_later_changes_no_score(seed: int, cut: int, kind: str) -> None:
    chance = np.random.default_rng(seed)
    ts = np.cumsum(chance.integers(1, 2 * 60, 700) * MINUTE)
    v = chance.standard_t(2, 700) * 10 ** chance.uniform(-3, 6)
    if kind == "counter":
        v = np.cumsum(np.abs(v))
        v[400:] -= v[400]
    elif kind == "day":
        v = np.sin(ts / 86_400_000 * 2 * np.pi) + chance.normal(0, 0.05, 700)
    elif kind == "holes":
        v[chance.random(700) < 0.3] = np.nan
    assert np.array_equal(detect(ts[:cut], v[:cut]), detect(ts, v)[:cut])


@given(st.lists(st.floats(), min_size=WARM_UP + 20, max_size=WARM_UP + 60))
def test_whatever_the_numbers_a_score_is_between_0_and_1(values: list[float]) -> None:
    scores = detect(np.arange(len(values)), values)
    assert scores.shape == (len(values),)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_constant_series_scores_nothing_until_it_changes() -> None:
    v = np.full(600, 45.0)
    assert not detect(times(600), v).any()
    v[400] = 45.1
    scores = detect(times(600), v)
    assert scores[400] > 0.9
    assert np.count_nonzero(scores) == 1


def test_an_anomaly_that_lasts_is_told_once_at_its_begin() -> None:
    v = noise(2000)
    v[1500:1560] += 60
    told = np.flatnonzero(detect(times(2000), v) >= 0.5)
    assert told[told >= 1500].tolist()[0] == 1500
    assert len(told[told >= 1500]) <= 2


def test_a_counter_is_scored_by_its_rate_and_a_reset_is_no_anomaly() -> None:
    growth = np.random.default_rng(3).poisson(300, 2000).astype(float)
    growth[1700:1710] *= 5
    v = np.cumsum(growth)
    v[1200:] -= v[1199]
    scores = detect(times(2000), v)
    assert scores[1700:1704].max() >= 0.5
    assert scores[1195:1210].max() < 0.5


def test_a_day_unlike_the_days_before_is_seen_though_its_values_are_ordinary() -> None:
    ts = times(14 * 288)
    v = 50 + 30 * np.sin(2 * np.pi * np.arange(len(ts)) / 288) + np.random.default_rng(5).normal(0, 1, len(ts))
    v[10 * 288 + 40 : 10 * 288 + 100] = 50
    scores = detect(ts, v)
    assert scores[10 * 288 + 40 : 10 * 288 + 100].max() >= 0.5


def test_missing_samples_score_nothing_and_cost_nothing() -> None:
    v = noise(1500)
    holes = v.copy()
    holes[::7] = np.nan
    holes[700:760] = np.inf
    there = np.isfinite(holes)
    scores = detect(times(1500), holes)
    assert not scores[~there].any()
    assert np.array_equal(scores[there], detect(times(1500)[there], holes[there]))


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        detect([1, 2, 3], [1.0])


def test_it_is_better_than_three_sigma_on_the_labelled_series() -> None:
    ours, plain = compare(labelled(range(2)))["all"]
    assert ours.precision > 0.7
    assert ours.recall > 0.9
    assert ours.precision > 3 * plain.precision
    assert ours.recall > plain.recall
