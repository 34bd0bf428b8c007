"""Numbers of a time whose samples are deleted: asked for in every way, they are what they were before."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from apps.accounts.permissions import Principal, Scope
from apps.metrics import compaction, query, rolling, services, storage, tasks, young
from apps.metrics.models import Block, Metric, RetentionPolicy, Series, Tombstone
from apps.metrics.rollups import FIELDS
from apps.metrics.samples import Samples
from apps.promql import evaluator
from apps.promql.engine import Limits
from apps.promql.errors import LimitError
from apps.promql.series import STALE
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
LATER = NOW + timedelta(hours=5)
RAW, FINE, HOURLY = timedelta(hours=24), timedelta(hours=48), timedelta(days=100)
RAW_FROM, FINE_FROM = (MS + 5 * 3_600_000 - int(kept.total_seconds() * 1000) for kept in (RAW, FINE))
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = NOW - 3 * DAY
BY = Principal.system("test")
WARNED = "this part of the answer is approximate"


@pytest.fixture(autouse=True)
def policy():
    RetentionPolicy.objects.create(category="long", raw=30 * DAY, prefixes=["long"])
    return RetentionPolicy.objects.create(category="default", raw=RAW, rollup_5m=FINE, rollup_1h=HOURLY)


def send(labels, ts, v, now=NOW):
    assert services.ingest(samples=Samples.of(labels, ts, v), by=BY, now=now, window=None).accepted == len(ts)
    while compaction.compact_log(now=now):
        pass


def life(seed):
    """Three days of a counter that falls now and then, with gaps and ends: (ts, v)."""
    rng = np.random.default_rng(seed)
    ts = (
        MS
        - 3 * 86_400_000
        + np.cumsum(rng.choice([30_000, 60_000, 59_999, 1_000_000], p=[0.4, 0.3, 0.25, 0.05], size=2500))
    )
    ts = ts[ts <= MS]
    grown = rng.integers(0, 20, len(ts))
    v = np.cumsum(grown).astype(float)
    for at in np.flatnonzero(rng.random(len(ts)) < 0.01):
        v[at:] -= v[at] - rng.integers(0, 3)
    v[rng.random(len(ts)) < 0.005] = STALE
    return ts.tolist(), v.tolist()


@pytest.fixture
def stored():
    for name in ("x", "long"):
        labels, ts, v = [], [], []
        for n in range(4):
            times, values = life(n)
            labels += [{"__name__": name, "n": str(n), "half": "ab"[n % 2]}] * len(times)
            ts += times
            v += values
        send(labels, ts, v)


def forget():
    """What is old goes, after it is rolled up."""
    # What has just been written stays for an hour.
    earlier = LATER - 2 * HOUR
    for window in rolling.due_windows(earlier):
        rolling.roll_window(window=window, now=earlier)
    for due in compaction.due_windows(earlier):
        if due.resolution != 300:
            compaction.merge_window(due=due, now=earlier)
    tasks.retain(now=LATER)
    storage.forget()
    young.forget()
    mine = Block.objects.filter(retention__category="default")
    assert not mine.filter(resolution=0, t_max__lt=RAW_FROM).exists()
    assert not mine.filter(resolution=300, t_max__lt=FINE_FROM).exists()
    assert mine.filter(resolution=3600, t_min__lt=MS - 2 * 86_400_000).exists()


def told(result):
    return {
        str(sorted(labels.items())): dict(zip(result.ts[there].tolist(), row[there].tolist(), strict=True))
        for labels, row, there in zip(result.labels.dicts(), result.v, result.ok, strict=True)
    }


def same(found, wanted):
    found, wanted = told(found), told(wanted)
    assert found.keys() == wanted.keys()
    assert wanted
    for key, row in wanted.items():
        assert found[key] == pytest.approx(row, rel=1e-9, nan_ok=True)


WAYS = (
    *(f"{name}_over_time(x[6h])" for name in ("max", "min", "sum", "count", "avg", "last", "present")),
    *("rate(x[1h])", "increase(x[1d])", "sum by (half) (rate(x[2h])) / sum by (half) (count_over_time(x[1h]))"),
    *("max_over_time(x[1h] offset 30h)", "increase(x[1d] @ end() offset 1d)", "avg_over_time(rate(x[1h])[6h:1h])"),
    *('max_over_time(x{n="1"}[3h]) - on (n) min_over_time({__name__="x", half="b"}[1h])', "rate(long[7m])"),
)


@pytest.fixture
def before_and_after(stored):
    """Asks once before and once after what is old was deleted."""

    def answers(ask, ways):
        wanted = [ask(text) for text in ways]
        forget()
        return [(ask(text), one) for text, one in zip(ways, wanted, strict=True)]

    return answers


def over_time(text, start=BEGIN, end=NOW, step=HOUR, **kw):
    return query.query_range(text, start=start, end=end, step=step, **kw)


def test_aligned_windows_are_answered_as_before_over_the_whole_time(before_and_after):
    for found, wanted in before_and_after(over_time, WAYS):
        assert not found.warnings
        same(found, wanted)


def test_finer_windows_are_answered_where_finer_buckets_are(before_and_after):
    def ask(text):
        return over_time(text, NOW - 36 * HOUR, NOW - 12 * HOUR, timedelta(minutes=35))

    ways = ("max_over_time(x[35m])", "rate(x[10m])", "avg_over_time(x[1h])", "increase(x[5m])")
    for found, wanted in before_and_after(ask, ways):
        assert not found.warnings
        same(found, wanted)


def test_one_time_and_many_expressions_at_once(before_and_after):
    at = NOW - 40 * HOUR

    def together(_text):
        twins = [text.replace("x[", "long[") for text in WAYS[:3]]
        return query.evaluate_many([*WAYS, *WAYS[:3], *twins, "sum(x) > 0"], at=at)

    [(found, wanted)] = before_and_after(together, [""])
    for some, other in zip(found[:-1], wanted[:-1], strict=True):
        same(some, other)
    for text, some in zip(WAYS, found, strict=False):
        same(query.instant(text, at=at), some)
    assert WARNED in found[-1].warnings[0]


def test_in_pieces_of_series_and_of_time_and_through_a_scope_it_is_the_same(before_and_after, monkeypatch):
    scope = Scope((("half", "=", "a"),))

    def ask(text):
        return over_time(text, scope=scope)

    for text, (found, wanted) in zip(WAYS[:-2], before_and_after(ask, WAYS[:-2]), strict=True):
        same(found, wanted)
        same(over_time(text, scope=scope, limits=Limits(held=50, seconds=30)), wanted)
        with monkeypatch.context() as patch:
            patch.setattr(evaluator, "PART_CELLS", 20)
            same(over_time(text, scope=scope), wanted)


def test_how_far_back_the_store_goes_is_told_by_its_oldest_sample_or_bucket(stored):
    first = min(life(n)[0][0] for n in range(4))
    assert query.oldest() == first
    Block.objects.filter(retention__category="long").delete()
    forget()
    assert query.oldest() == -(-first // 3_600_000) * 3_600_000


def test_an_explained_query_tells_of_the_buckets_that_it_read(stored):
    forget()
    told = query.explain("max_over_time(x[1h])", start=BEGIN, end=BEGIN + 10 * HOUR, step=HOUR)
    assert told.tree["children"][0]["samples"] == told.result.stats.samples > 0


def test_what_buckets_cannot_answer_is_close_and_carries_the_span(before_and_after):
    def ask(text):
        return over_time(text, NOW - 30 * HOUR, NOW - 6 * HOUR, HOUR)

    [(found, wanted), (rates, exact)] = before_and_after(ask, ["sum(x)", "sum(rate(x[7m]))"])
    for some in (found, rates):
        [warning] = some.warnings
        assert warning.startswith("PromQL warning: between 2026-11-03 0")
        assert "and 2026-11-03 17:00 UTC only 5-minute roll-ups are kept: this part" in warning
    assert np.nanmedian(np.abs(found.v / wanted.v - 1)) < 0.2
    assert 0.5 < np.nanmean(rates.v) / np.nanmean(exact.v) < 2
    recent = found.ts > RAW_FROM + 300_000
    np.testing.assert_array_equal(found.v[:, recent], wanted.v[:, recent])


def test_whole_hours_are_answered_by_hourly_buckets_where_they_reach_back_as_far(stored):
    forget()
    span: dict[str, Any] = {"start": NOW - 36 * HOUR, "end": NOW - 24 * HOUR, "step": HOUR}
    hourly = query.query_range("max_over_time(x[1h])", **span)
    finer = query.query_range("max_over_time(x[55m])", **span)
    assert hourly.stats.samples * 5 < finer.stats.samples
    Block.objects.filter(resolution=3600, retention__category="default", level=1).delete()
    storage.forget()
    assert query.query_range("max_over_time(x[1h])", **span).stats.samples > finer.stats.samples
    same(query.query_range("max_over_time(x[1h])", **span), hourly)


def test_hourly_buckets_show_at_every_time_of_the_hour(stored):
    forget()
    found = over_time("count(x)", BEGIN + timedelta(minutes=97), BEGIN + 10 * HOUR, HOUR)
    assert found.ok.all()
    [warning] = found.warnings
    assert "only hourly roll-ups are kept" in warning


def test_what_is_not_behind_costs_one_statement_and_warns_of_nothing(stored, django_assert_num_queries):
    forget()
    found = query.instant("sum(rate(x[5m]))", at=NOW)
    assert not found.warnings
    assert query.select([Matcher("__name__", "=", "x")], 0, MS).tiers == ()
    assert query.select([Matcher("__name__", "=", "x")], 0, MS).counts.all()


def test_a_metric_that_has_moved_is_found_under_its_old_policy(stored):
    wanted = told(over_time("sum_over_time(x[1h])"))
    forget()
    Metric.objects.filter(name="x").update(retention=RetentionPolicy.objects.get(category="long"))
    assert told(over_time("sum_over_time(x[1h])")) == wanted


def test_what_is_imported_behind_is_seen_before_and_after_it_is_rolled_up(stored):
    forget()
    at = int((BEGIN - DAY).timestamp() * 1000)
    send([{"__name__": "x", "n": "9"}] * 3, [at - 60_000, at - 1000, at + 90_000], [1.0, 5.0, 2.0], now=LATER)

    def ask():
        return query.instant("sum_over_time(x[1h])", at=BEGIN - DAY)

    # Nothing of it is rolled up: samples of a time of which no bucket is there count as they are.
    assert [row[0] for row in ask().v.tolist()] == [6.0]
    later = LATER + timedelta(hours=2)
    for window in rolling.due_windows(later):
        rolling.roll_window(window=window, now=later)
    assert [row[0] for row in ask().v.tolist()] == [6.0]
    tasks.retain(now=later)
    assert not Block.objects.filter(resolution=0, t_min=at - 60_000).exists()
    assert [row[0] for row in ask().v.tolist()] == [6.0]


def test_a_tombstone_hides_buckets_of_its_time(stored):
    forget()
    series = list(Series.objects.filter(metric__name="x", labels__n="1").values_list("pk", flat=True))
    begin = int((BEGIN + 10 * HOUR).timestamp() * 1000)
    wanted = told(over_time("count_over_time(x[1h])"))
    Tombstone.objects.create(series=series, t_min=begin - 1000, t_max=begin + 1000, by="test")
    found = told(over_time("count_over_time(x[1h])"))
    gone = {(key, t) for key, row in wanted.items() for t in row if t not in found[key]}
    assert {t for _, t in gone} == {begin, begin + 3_600_000}
    assert len({key for key, _ in gone}) == 1


def test_a_damaged_block_of_buckets_is_missing_with_a_warning(stored):
    forget()
    rows = Block.objects.filter(resolution=3600, field=FIELDS.index("lost") + 1, t_min__lt=MS - 2 * 86_400_000)
    rows.update(payload=b"x")
    storage.forget()
    assert not over_time("max_over_time(x[1h])").warnings
    found = over_time("rate(x[1h])")
    assert any("are missing: block" in text for text in found.warnings)
    assert not found.ok[:, found.ts <= FINE_FROM - 86_400_000].any()
    assert found.ok[:, -10:].any()


def test_buckets_count_towards_what_a_query_may_read(stored):
    forget()
    asked: dict[str, Any] = {"start": BEGIN, "end": NOW, "step": HOUR}
    cost = query.cost("rate(x[1h])", **asked)
    read = query.query_range("rate(x[1h])", **asked).stats.samples
    assert cost.samples == pytest.approx(read, rel=0.5)
    old: dict[str, Any] = {"start": BEGIN, "end": BEGIN + 10 * HOUR, "step": HOUR}
    assert 0 < query.cost("max_over_time(x[1h])", **old).samples < query.cost("rate(x[1h])", **old).samples
    with pytest.raises(LimitError, match="samples, more than the limit of 100"):
        query.query_range("rate(x[1h])", **old, limits=Limits(samples=100))


def test_the_samples_that_are_left_are_listed_with_the_last_ones_of_buckets(stored):
    before = told(query.instant("x[3d]", at=NOW))
    forget()
    found = query.instant("x[3d]", at=NOW)
    assert [WARNED in text for text in found.warnings] == [True, True]
    for key, row in told(found).items():
        assert {t: v for t, v in row.items() if t > RAW_FROM} == {t: v for t, v in before[key].items() if t > RAW_FROM}
        assert row.items() <= before[key].items()
        assert min(row) < min(before[key]) + 3_600_000
