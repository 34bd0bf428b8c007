"""Shipped rules of the store and of the log intake, seen firing and ending by faults that are made to happen.

Hours pass by the watch's clock. What the portal's slow worker does in its loops is done here, or held up as the fault.
"""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from django.db import connection

from apps.core.lanes import Request
from apps.metrics import care, census, compaction, storage, tasks
from apps.metrics import services as metrics
from apps.metrics.collectors import store
from apps.metrics.models import Block, Metric, RetentionPolicy, SeriesBudget
from apps.metrics.samples import Samples
from apps.promql.source import Matcher
from apps.sources.logs import api
from apps.sources.logs import services as logs
from apps.sources.models import LogIntake
from monitoring_portal import backup
from tests.faults.watch import Watch
from tests.sources.conftest import ADMIN

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the store's collector the watch's clock, and have it look at the blocks each time."""

    def of(watch: Watch) -> Watch:
        monkeypatch.setattr(store, "timezone", SimpleNamespace(now=lambda: watch.now))
        return watch

    monkeypatch.setattr(store, "COUNTED_EVERY", 0.0)
    return of


def put(watch: Watch, *times: datetime, name: str = "x") -> None:
    """Store a sample of each time."""
    stamps = [int(at.timestamp() * 1000) for at in times]
    samples = Samples.of([{"__name__": name}] * len(stamps), stamps, [1.0] * len(stamps))
    assert metrics.backfill(samples=samples, by=ADMIN, now=watch.now).accepted == len(times)


# --- What is stored --------------------------------------------------------------------------------------------------
def test_a_block_that_rots_is_told_and_holds_up_a_deletion_until_it_is_dropped(clock: Any, tmp_path: Path) -> None:
    watch = clock(Watch("store-damaged", "deletion-stuck", collectors=("store",)))
    put(watch, watch.now - timedelta(days=3))
    compaction.compact_log(now=watch.now)
    watch.passes(60)
    assert watch.firing() == {}
    rotten = Block.objects.get(t_max__lt=(watch.now - timedelta(days=2)).timestamp() * 1000)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE metrics_block SET payload = set_byte(payload, 0, get_byte(payload, 0) # 255) WHERE id = %s",
            [rotten.pk],
        )
    found = list(care.examine())
    assert [(one.kind, one.ident) for one in found] == [(care.CHECKSUM, rotten.pk)]
    care.repair(findings=found, by=ADMIN, now=watch.now)
    alert = watch.fires("store-damaged", "error", within=90)
    assert (alert.labels["table"], alert.value) == ("block", 1)

    metrics.delete_series(by=ADMIN, selectors=[[Matcher("__name__", "=", "x")]], now=watch.now)

    def in_vain() -> None:
        tasks.bury(now=watch.now)
        watch.judge(3)

    watch.fires("deletion-stuck", "warning", within=23_000, each=in_vain, pace=60)
    assert care.drop_damaged(findings=list(care.examine()), by=ADMIN, now=watch.now, folder=tmp_path) == 1
    watch.resolves("deletion-stuck", within=60, each=lambda: tasks.bury(now=watch.now))
    watch.resolves("store-damaged", within=90)


def test_samples_of_a_month_ago_stay_while_their_roll_ups_are_not_made(clock: Any) -> None:
    watch = clock(Watch("store-retention-behind", "store-windows-behind", collectors=("store",)))
    kept = {"raw": timedelta(days=30), "rollup_5m": timedelta(days=400)}
    metrics.save_retention(by=ADMIN, policy=RetentionPolicy(category=RetentionPolicy.DEFAULT, **kept))
    old = watch.now - timedelta(days=40)
    put(watch, *(old + n * timedelta(milliseconds=storage.WINDOW_MS) for n in range(14)))
    compaction.compact_log(now=watch.now)

    def in_vain() -> None:
        tasks.retain(now=watch.now)
        watch.judge(3)

    watch.fires("store-windows-behind", "warning", within=4000, each=in_vain, pace=60)
    alert = watch.fires("store-retention-behind", "warning", within=600, each=lambda: tasks.retain(now=watch.now))
    assert (alert.labels["category"], alert.labels["resolution"]) == (RetentionPolicy.DEFAULT, "raw")
    tasks.roll(now=watch.now)
    tasks.retain(now=watch.now)
    watch.resolves("store-windows-behind", within=120)
    watch.resolves("store-retention-behind", within=120)


def test_samples_wait_while_somebody_holds_up_compaction(another_connection: Any) -> None:
    watch = Watch("store-compaction-behind", "store-too-many-young")

    def compact() -> None:
        tasks.compact(now=watch.now)

    watch.passes(30, compact)
    with another_connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, 0)", [compaction.LOCKS])
    watch.fires("store-compaction-behind", "warning", within=2400, each=compact, pace=60)
    assert watch.firing() == {"store-compaction-behind": "warning"}

    keys = [("flood", n) for n in range(100)] * 10_500
    stamps = int((watch.now - timedelta(hours=3)).timestamp() * 1000) + np.arange(len(keys)) // 100
    for part in range(4):
        flood = Samples(
            keys, lambda n: {"__name__": "flood", "n": str(n % 100)}, stamps + part * 20_000, np.ones(len(keys))
        )
        metrics.backfill(samples=flood, by=ADMIN, now=watch.now)
    watch.fires("store-too-many-young", "warning", within=600, each=compact, pace=60)
    with another_connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock_all()")
    watch.resolves("store-too-many-young", within=60, each=compact)
    watch.resolves("store-compaction-behind", within=60, each=compact)


def test_nobody_makes_a_backup_for_nine_days(
    clock: Any, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA = str(tmp_path)
    watch = clock(Watch("backup-overdue", collectors=("store",)))

    def seconds() -> float:
        return watch.now.timestamp()

    monkeypatch.setattr(backup, "time", SimpleNamespace(time=seconds))
    monkeypatch.setattr(backup, "recorded", lambda *_: None)
    postgres: Any = SimpleNamespace(url="")

    def made() -> None:
        backup.note(postgres, tmp_path, tmp_path / "portal-backup-1", {"bytes": 1, "kind": "copy", "rows": 1})

    watch.passes(60)
    made()
    watch.passes(60)
    watch.round(7.9 * 86_400)
    assert watch.firing() == {}, "a week and a day are everyday, and no backup at all is no news"
    watch.round(0.2 * 86_400)
    watch.fires("backup-overdue", "warning", within=120)
    watch.round(24 * 86_400)
    watch.fires("backup-overdue", "error", within=120)
    made()
    watch.resolves("backup-overdue", within=120)


# --- Budgets of series -----------------------------------------------------------------------------------------------
def test_a_label_with_ever_new_values_is_refused_until_it_is_gone() -> None:
    watch = Watch("series-refused")
    ids = count()

    def sent(*names: str) -> int:
        at = int(watch.now.timestamp() * 1000)
        samples = Samples.of([{"__name__": "x", "id": name} for name in names], [at] * len(names), [1.0] * len(names))
        return metrics.ingest(samples=samples, by=ADMIN, now=watch.now).accepted

    watch.passes(60, lambda: sent("a"))
    Metric.objects.filter(name="x").update(series_limit=2)
    assert watch.firing() == {}
    alert = watch.fires("series-refused", "warning", within=120, each=lambda: sent("a", f"n{next(ids)}", "b"))
    assert alert.labels["reason"] == "series_limit"
    watch.resolves("series-refused", within=720, pace=60, each=lambda: sent("a"))


def test_the_budget_of_all_series_is_nearly_used_until_it_is_raised() -> None:
    watch = Watch("series-budget-nearly-used")

    def counted() -> None:
        census.take(now=watch.now)

    watch.passes(60, counted)
    assert watch.firing() == {}
    budget = SeriesBudget.objects.create(series=round(census.ACTIVE.value() * 1.15))
    watch.fires("series-budget-nearly-used", "warning", within=900, each=counted, pace=60)
    budget.series *= 2
    budget.save()
    watch.resolves("series-budget-nearly-used", within=60, each=counted)


# --- Logs ------------------------------------------------------------------------------------------------------------
def test_a_sender_of_logs_is_turned_away_until_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch("log-intake-full")
    watch.now = watch.now.astimezone(UTC).replace(hour=21, minute=0, second=0, microsecond=0)
    monkeypatch.setattr("django.utils.timezone.now", lambda: watch.now)
    logs.save_log_intake(by=ADMIN, settings=LogIntake(pk=1, records_per_day=1_000))

    def pushed(records: int = 250) -> int:
        logs.forget()
        body = orjson.dumps([{"message": f"request {n} took too long"} for n in range(records)])
        return api.LANES["/api/v1/portal/logs"].serve(ADMIN, Request("POST", "/api/v1/portal/logs", b"", body)).status

    assert [pushed() for _ in range(4)] == [200] * 4
    watch.passes(60)
    assert watch.firing() == {}
    watch.fires("log-intake-full", "warning", within=60, each=lambda: pushed(1))
    watch.passes(900, lambda: pushed(1))
    assert watch.firing() == {"log-intake-full": "warning"}
    midnight = watch.now.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    watch.round((midnight - watch.now).total_seconds())
    assert pushed() == 200
    watch.resolves("log-intake-full", within=660, pace=60, each=lambda: pushed(1))
