"""What buckets answer is what the samples said that are gone; where it is not quite that, a warning says so."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metrics import tiers
from apps.metrics.assembly import Assembled
from apps.metrics.rollups import Buckets, coarser, roll
from apps.metrics.storage import NEVER
from apps.promql import engine, rolled
from apps.promql.source import MemorySource, Request, matching

HOUR = 3_600_000
DAY = 12 * HOUR
EXACT = [f"{name}(x[%s])" for name in sorted(rolled.EXACT) if name != "absent_over_time"]


def cut(buckets: Buckets, until: np.ndarray) -> Buckets:
    kept = buckets.at <= np.repeat(until, np.diff(buckets.off))
    off = np.concatenate([[0], np.cumsum(kept)])[buckets.off]
    return Buckets(off, buckets.at[kept], {field: column[kept] for field, column in buckets.columns.items()})


class Forgetful:
    """A store in memory whose samples up to `raw_from` are gone but for some that are left; each series has its own
    `raw_from` and `fine_from` (None: 5-minute buckets are all there)."""

    def __init__(self, series, gone, left=frozenset()):
        whole = MemorySource(series).ragged
        self.off, self.labels = whole.off, whole.labels
        self.raw = np.array([raw for raw, _ in gone[: whole.size]], dtype=np.int64)
        fine = np.array([NEVER if fine is None else min(fine, raw) for raw, fine in gone[: whole.size]], dtype=np.int64)
        self.until = {300: self.raw, 3600: fine}
        buckets = roll(whole.off, whole.ts, whole.v, 300)
        self.stored = {300: cut(buckets, self.raw), 3600: cut(coarser(buckets, 3600), fine)}
        kept = (whole.ts > np.repeat(self.raw, whole.counts)) | (whole.ts % 7 == 0 if left else False)
        self.samples = whole.keep(kept)

    def select(self, matchers, tmin, tmax):
        return self.select_many([Request(tuple(matchers), tmin, tmax)])[0]

    def select_many(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        raw = self.samples.keep((self.samples.ts > request.tmin) & (self.samples.ts <= request.tmax))
        got = Assembled(raw.off, raw.ts, raw.v, raw.clocks())
        stored = {
            resolution: Buckets(one.off, one.at, {field: one.columns[field] for field in request.fields})
            for resolution, one in self.stored.items()
        }
        found = tiers.tiers(got, stored, self.until, request.width)
        whole = type(raw)(raw.labels, raw.ts, raw.v, raw.off, tiers=found)
        return whole.take(np.flatnonzero(matching(self.labels, request.matchers)))


numbers = st.one_of(st.integers(0, 50).map(float), st.integers(-9, 9).map(float), st.just(math.nan))
life = st.lists(
    st.tuples(st.one_of(st.integers(1, DAY), st.integers(1, 720).map(lambda n: n * 60_000)), numbers),
    min_size=1,
    max_size=60,
    unique_by=lambda one: one[0],
).map(sorted)
lives = st.lists(life, min_size=1, max_size=3)
hours = st.integers(0, 12).map(lambda n: n * HOUR)
gone = st.lists(st.tuples(hours, st.one_of(st.none(), hours)), min_size=3, max_size=3)


def series_of(some):
    return [({"__name__": "x", "n": str(n)}, [t for t, _ in one], [v for _, v in one]) for n, one in enumerate(some)]


def told(result):
    return {
        tuple(sorted(labels.items())): {
            t: v for t, v, ok in zip(result.ts.tolist(), row.tolist(), there.tolist(), strict=True) if ok
        }
        for labels, row, there in zip(result.labels.dicts(), result.v, result.ok, strict=True)
    }


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        assert found[key] == pytest.approx(row, rel=1e-9, abs=1e-9, nan_ok=True)


def both(text, some, spans, start, end, step, left=frozenset()):
    series = series_of(some)
    wanted = engine.query_range(text, MemorySource(series), start, end, step)
    return engine.query_range(text, Forgetful(series, spans, left), start, end, step), wanted


@settings(max_examples=120)
@given(st.sampled_from(EXACT), lives, gone, st.integers(1, 13), st.integers(1, 5), st.booleans())
def test_buckets_answer_aligned_windows_as_samples_do(text, some, spans, width, step, left):
    found, wanted = both(text % f"{width}h", some, spans, HOUR, 16 * HOUR, step * HOUR, {1} if left else frozenset())
    assert not found.warnings
    same(told(found), told(wanted))


@settings(max_examples=80)
@given(st.sampled_from(EXACT), lives, st.lists(hours, min_size=3, max_size=3), st.integers(1, 90), st.integers(1, 40))
def test_finer_buckets_answer_finer_windows(text, some, spans, width, step):
    times = (300_000, 13 * HOUR, step * 300_000)
    found, wanted = both(text % f"{5 * width}m", some, [(raw, None) for raw in spans], *times)
    assert not found.warnings
    same(told(found), told(wanted))


OTHERS = (
    *(f"{name}(x[%s])" for name in ("irate", "changes", "stddev_over_time", "deriv", "ts_of_max_over_time")),
    *("quantile_over_time(0.5, x[%s])", "predict_linear(x[%s], 60)", "x", "timestamp(x)", "x offset %s"),
    *("max_over_time(x[%s:7m])", "sum_over_time(rate(x[10m])[%s:5m])", "increase(x[%s] anchored)", "x smoothed"),
    *("sum(rate(x[%s] @ 20000))", "increase(x[%s] offset 5m)", "rate(x[%s] smoothed)", "absent_over_time(x[%s])"),
)


@settings(max_examples=150)
@given(
    st.sampled_from([*EXACT, *OTHERS]),
    lives,
    gone,
    st.integers(60, DAY // 1000),
    st.integers(1, 16 * 3600),
    st.sampled_from((61, 300, 1800, 3600, 3601)),
)
def test_what_differs_from_the_samples_answer_carries_a_warning(text, some, spans, width, start, step):
    asked = text.replace("%s", f"{width}s")
    found, wanted = both(asked, some, spans, start * 1000, (start + 20 * step) * 1000, step * 1000)
    assert all("roll-ups are kept: this part of the answer is approximate" in text for text in found.warnings)
    if not found.warnings:
        same(told(found), told(wanted))


@settings(max_examples=100)
@given(lives, gone, st.integers(60, DAY // 1000), st.integers(1, 16 * 3600))
def test_samples_that_are_asked_for_are_the_last_ones_of_buckets_where_they_are_gone(some, spans, width, at):
    series = series_of(some)
    asked = f"x[{width}s]"
    wanted = told(engine.instant(asked, MemorySource(series), at * 1000))
    result = engine.instant(asked, Forgetful(series, spans), at * 1000)
    found = told(result)
    for key, row in found.items():
        raw = spans[int(dict(key)["n"])][0]
        assert str({t: v for t, v in row.items() if t > raw}) == str(
            {t: v for t, v in wanted.get(key, {}).items() if t > raw}
        )
        assert row.keys() <= {t for t, _ in some[int(dict(key)["n"])]}
    if not result.warnings:
        assert str(found) == str(wanted)
