"""What `store check` sees between rows, and what `repair` makes of it."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.metrics import care, compaction, query, rolling, services, storage
from apps.metrics.models import Block, Metric, RetentionPolicy, RolledWindow, Series
from apps.metrics.samples import Samples
from apps.promql.source import Matcher
from monitoring_portal.setup import load_defaults

pytestmark = pytest.mark.django_db(transaction=True)
BY = Principal.system("test")
OLD = 600 * storage.WINDOW_MS


@pytest.fixture(autouse=True)
def defaults():
    load_defaults(now=timezone.now())
    RetentionPolicy.objects.update(rollup_5m=timedelta(days=100_000), rollup_1h=timedelta(days=100_000))


def put(value=1.0, at=OLD + 1000, name="x"):
    now = timezone.now()
    services.backfill(samples=Samples.of([{"__name__": name}], [at], [value]), by=BY, now=now)
    assert compaction.compact_log(now=now)


def kinds():
    return {one.kind: one for one in care.examine()}


def mend():
    found = list(care.examine())
    if any(one.kind == care.ROUNDS for one in found):
        care.make_way()
    return care.repair(findings=found, by=BY, now=timezone.now())


def value(at=OLD + 1000, name="x"):
    found = query.select([Matcher("__name__", "=", name)], at - 1, at)
    return found.v.tolist()


def test_a_sound_store_has_no_findings():
    put()
    rolling.roll_window(window=OLD, now=timezone.now())
    assert kinds() == {}


def test_a_window_that_counts_as_rolled_up_without_roll_ups_is_rolled_up_again():
    put()
    rolling.roll_window(window=OLD, now=timezone.now())
    Block.objects.filter(resolution=3600).delete()
    found = kinds()
    assert (set(found), found[care.ROLLUP].ident) == ({care.ROLLUP}, OLD)
    assert mend()["windows rolled up"] == 1
    assert kinds() == {}
    assert RolledWindow.objects.get().window == OLD


def test_damaged_roll_ups_are_made_anew_while_their_samples_stand():
    put(42.0)
    rolling.roll_window(window=OLD, now=timezone.now())
    Block.objects.filter(resolution=300).update(crc=0)
    mend()
    assert {one.kind for one in care.examine()} == {care.CHECKSUM}
    assert Block.objects.filter(resolution=300, bad_at=None).exists()


def test_rounds_from_another_cluster_are_numbered_anew_and_later_samples_win_again():
    put(1.0)
    put(2.0)
    rolling.roll_window(window=OLD, now=timezone.now())
    ahead = 2**40
    Block.objects.update(round=care.FIRST_ROUND + ahead)
    first, second = Block.objects.filter(resolution=0).order_by("id").values_list("pk", flat=True)
    Block.objects.filter(pk=second).update(round=care.FIRST_ROUND + ahead + 5)
    RolledWindow.objects.update(round=care.FIRST_ROUND + ahead + 5)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE metrics_series SET xid = %s::text::xid8", [str(ahead)])
    assert value() == [2.0]
    assert care.ROUNDS in kinds()
    assert mend()[care.ROUNDS] == 1
    assert kinds() == {}
    assert value() == [2.0]
    rounds = dict(Block.objects.filter(resolution=0).values_list("pk", "round"))
    assert 1 < rounds[first] < rounds[second]
    assert RolledWindow.objects.get().round == rounds[second]
    put(3.0)
    assert value() == [3.0]


def test_the_counter_of_transactions_makes_way_for_many_rounds():
    put()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        before = cursor.fetchone()[0]
        cursor.execute(
            'INSERT INTO metrics_rolledwindow ("window", round, made_at)'
            " SELECT n, 1e12::bigint + n, now() FROM generate_series(1, %s + 500) AS n",
            [before],
        )
    care.make_way()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        assert cursor.fetchone()[0] >= before + 500


def test_samples_of_a_series_without_row_are_a_note():
    put()
    put(name="y")
    Series.objects.filter(metric=Metric.objects.get(name="y")).delete()
    found = kinds()
    assert not found[care.SERIES].is_damage
    assert set(found) == {care.SERIES}


def test_merged_blocks_of_one_run_that_share_series_are_a_note():
    put(1.0)
    put(2.0)
    Block.objects.update(level=1, round=7)
    found = kinds()
    assert not found[care.OVERLAP].is_damage
    assert set(found) == {care.OVERLAP}


def test_a_block_outside_its_window_is_damage_that_repair_leaves():
    put()
    Block.objects.update(window=OLD - storage.WINDOW_MS)
    assert set(kinds()) == {care.BOUNDS}
    assert mend() == {}
