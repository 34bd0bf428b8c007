"""What goes beyond a limit of series is refused sample by sample and by name; what is active counts, nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
import yaml
from django.db import connection

from apps.accounts.permissions import Principal
from apps.accounts.rights import Quota, Right
from apps.metrics import census, headroom, registry, services
from apps.metrics.models import Census, Metric, MetricCount, Series, SeriesBudget, TokenCount
from apps.metrics.samples import Samples
from apps.metrics.throttle import Throttle
from apps.promql import engine
from apps.promql.source import MemorySource

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.now(tz=UTC)
MS = int(NOW.timestamp() * 1000)
PORTAL = Principal.system("test")


def agent(number=7, **quota):
    return Principal("token", str(number), "agent", frozenset({Right.INGEST}), quota=Quota(**quota))


def send(*names, by=PORTAL, metric="x"):
    """(how many were stored, the reasons of the others) of a sample of each series."""
    labels = [{"__name__": metric, "n": str(name)} for name in names]
    written = services.ingest(samples=Samples.of(labels, [MS] * len(names), [1.0] * len(names)), by=by, now=NOW)
    return written.accepted, [rejection.reason for rejection in written.rejected]


def test_a_token_has_its_own_limit_and_others_go_on():
    send(1, 2)
    assert send(1, 2, 3, 4, 5, by=agent(series=2)) == (4, ["token_series_limit"])
    assert send(8, 9, by=agent(8, series=1)) == (1, ["token_series_limit"])
    assert send(7) == (1, [])
    assert sorted(Series.objects.values_list("token", flat=True), key=str) == [7, 7, 8, None, None, None]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"per_token": 2}, "token_series_limit"),
        ({"per_metric": 2}, "series_limit"),
        ({"series": 2}, "store_series_limit"),
    ],
)
def test_the_budget_counts_where_nothing_else_is_said(budget, reason):
    SeriesBudget.objects.create(**budget)
    assert send(1, 2, 3, by=agent()) == (2, [reason])
    registry.forget()
    assert send(1, 2, 3, 4, by=agent()) == (2, [reason] * 2), "after a start anew"


def test_a_metrics_own_limit_comes_before_the_budget():
    SeriesBudget.objects.create(per_metric=1)
    send(1)
    Metric.objects.update(series_limit=3)
    assert send(2, 3, 4) == (2, ["series_limit"])
    assert send(1, metric="y") == (1, [])


@pytest.mark.parametrize("is_counted", [False, True], ids=["without census", "with census"])
def test_what_has_not_spoken_for_a_day_makes_room(is_counted):
    token = agent(series=2)
    send(1, 2, by=token)
    long_ago = NOW - timedelta(hours=25)
    Series.objects.filter(labels={"n": "1"}).update(created_at=long_ago, last_at=long_ago)
    if is_counted:
        census.take(now=NOW)
    registry.forget()
    assert send(3, 4, by=token) == (1, ["token_series_limit"])


def test_a_census_and_what_came_since_are_the_whole():
    send(*range(10), by=agent())
    census.take(now=NOW)
    assert (MetricCount.objects.get().active, TokenCount.objects.get().live) == (10, 10)
    registry.forget()
    send(*range(10, 15), by=agent())
    registry.forget()
    assert send(*range(15, 20), by=agent(series=17)) == (2, ["token_series_limit"] * 3)


def test_what_another_process_makes_is_seen_when_a_limit_is_near(monkeypatch):
    monkeypatch.setattr(headroom, "SOONEST", 0.0)
    send(1, by=agent(series=5))
    other = registry.Registry()
    slots, _ = other.slots(["a", "b", "c"], lambda index: {"__name__": "x", "n": f"other{index}"})
    other.resolve(slots, headroom.Maker(7, 5))
    assert send(2, 3, by=agent(series=5)) == (1, ["token_series_limit"])


def test_a_refused_series_is_refused_again_without_asking_and_let_in_later(monkeypatch, django_assert_num_queries):
    send(1, 2, by=agent(series=1))
    refused = "2" if Series.objects.get().labels == {"n": "1"} else "1"
    with django_assert_num_queries(0):
        known = registry.current()
        slots, _ = known.slots(["k"], lambda _: {"__name__": "x", "n": refused})
        assert known.resolve(slots, headroom.Maker(7, 1)) == {int(slots[0]): "token_series_limit"}
    monkeypatch.setattr(registry, "monotonic", lambda: registry.BARRED + monotonic() + 1)
    assert send(refused, by=agent(series=2)) == (1, [])


def test_a_process_that_remembers_too_much_that_was_refused_starts_anew(monkeypatch):
    monkeypatch.setattr(registry, "MOST_BARRED", 3)
    first = registry.current()
    send(*range(10), by=agent(series=2))
    assert registry.current() is not first
    made = [row.labels["n"] for row in Series.objects.all()]
    assert send(*made, by=agent(series=2)) == (2, [])


def test_the_census_counts_what_comes_and_ends():
    send(*range(6))
    rows = list(Series.objects.order_by("id"))
    for row, created, last, gone in zip(
        rows,
        (0, 2, 30, 30, 30, 40 * 24),
        (0, 0, 1, 10, 40, None),
        (None, None, None, None, None, 3),
        strict=True,
    ):
        row.created_at = NOW - timedelta(hours=created)
        row.last_at = None if last is None else NOW - timedelta(hours=last)
        row.gone_at = None if gone is None else NOW - timedelta(hours=gone)
        row.save(update_fields=["created_at", "last_at", "gone_at"])
    census.take(now=NOW)
    found = MetricCount.objects.get()
    assert {name: getattr(found, name) for name in census.COLUMNS} == {
        "live": 5,
        "active": 4,
        "new_hour": 1,
        "new_day": 2,
        "ended_hour": 1,
        "ended_day": 3,
    }
    Series.objects.all().delete()
    census.take(now=NOW)
    assert (MetricCount.objects.count(), TokenCount.objects.count()) == (0, 0)
    assert Census.objects.get().counted_at == NOW


def test_a_series_whose_transaction_still_runs_is_counted_once(another_connection):
    send(1)
    metric = Series.objects.get().metric_id
    with another_connection.cursor() as other:
        other.execute("BEGIN")
        other.execute(
            "INSERT INTO metrics_series (metric_id, fingerprint, labels, token) VALUES (%s, %s, '{}', 7)",
            [metric, b"f" * 16],
        )
        census.take(now=NOW)
        other.execute("COMMIT")
    registry.forget()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM metrics_series")
    assert send(2, 3, 4, by=agent(series=2)) == (1, ["token_series_limit"] * 2)


# --- How fast ---------------------------------------------------------------------------------------------------------
def test_a_bucket_lets_bursts_through_and_holds_the_average():
    throttle = Throttle()
    stored = 0
    clock = 0.0
    while clock < 100:
        if throttle.wait("a", 10, clock) == 0:
            throttle.take("a", 10, 40, clock)
            stored += 40
        clock += 0.5
    assert 1000 <= stored <= 1000 + 50 + 40
    assert throttle.wait("b", 10, clock) == 0


def test_the_wait_is_until_something_fits_again():
    throttle = Throttle()
    throttle.take("a", 10, 250, 0.0)
    assert throttle.wait("a", 10, 0.0) == pytest.approx(20.1)
    assert throttle.wait("a", 10, 20.2) == 0


# --- The shipped rules ------------------------------------------------------------------------------------------------
RULES = {
    row["slug"]: row
    for row in yaml.safe_load((Path(__file__).parents[2] / "fixtures" / "alert_rules.yaml").read_text())
}


def judged(slug, **series):
    """The values of a shipped rule over series of a sample a minute, by name, the newest last."""
    rows = [
        ({"__name__": name, "reason": "token_series_limit"}, [MS - 60_000 * n for n in range(len(v))][::-1], v)
        for name, v in series.items()
    ]
    return engine.instant(RULES[slug]["expression"], MemorySource(rows), MS).v[:, 0].tolist()


def test_the_shipped_rules_speak_up_when_series_are_refused_and_before():
    assert judged("series-refused", portal_samples_refused_total=[0.0] * 10) == [0]
    assert judged("series-refused", portal_samples_refused_total=[0.0, 0.0, 50.0])[0] > 0
    assert judged("series-refused", portal_samples_accepted_total=[0.0, 5.0]) == []
    assert judged("series-budget-nearly-used", portal_series_active=[81.0], portal_series_budget=[100.0]) == [81]
    assert judged("deletion-stuck", portal_store_open_tombstones=[2.0]) == [2]
