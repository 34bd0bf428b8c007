"""Compaction changes where samples are, never which: beside readers, writers, crashes, another compactor, damage."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from django.db import connection, transaction

from apps.accounts.permissions import Principal
from apps.metrics import catalog, compaction, query, registry, selection, services, storage, young
from apps.metrics.models import Batch, Block, Series, Tombstone
from apps.metrics.samples import Samples
from apps.metrics.storage import WINDOW_MS
from apps.promql.series import STALE, STALE_BITS
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
WINDOW = MS // WINDOW_MS * WINDOW_MS
LATER = NOW + timedelta(hours=3)
BY = Principal.system("test")
X = [Matcher("__name__", "=", "x")]


def send(rows, name="x"):
    """rows: (series number, ms before now, value)."""
    labels = [{"__name__": name, "n": str(n)} for n, _, _ in rows]
    samples = Samples.of(labels, [MS - age for _, age, _ in rows], [float(v) for _, _, v in rows])
    assert services.ingest(samples=samples, by=BY, now=NOW, window=None).accepted == len(rows)


def read(matchers=X, tmin=0, tmax=MS + 10**9):
    got = query.select(matchers, tmin, tmax)
    assert got.warnings == ()
    return {
        int(labels["n"]): dict(zip((MS - got.ts[a:b]).tolist(), got.v[a:b].tolist(), strict=True))
        for labels, a, b in zip(got.labels.dicts(), got.off, got.off[1:], strict=False)
    }


def merge_all(now=LATER):
    for due in compaction.due_windows(now):
        compaction.merge_window(due=due, now=now)


def test_compaction_and_merging_change_nothing_that_is_read():
    rows = [(n, age * 15_000, n * 1000 + age) for n in range(40) for age in range(30)]
    send(rows[::2])
    send(rows[1::2])
    truth = {n: {age * 15_000: n * 1000.0 + age for age in range(30)} for n in range(40)}
    assert read() == truth
    assert compaction.compact_log(now=NOW) == 2
    assert (Batch.objects.count(), Block.objects.get().level) == (0, 0)
    assert read() == truth
    merge_all()
    assert Block.objects.get().level == 1
    assert read() == truth


def test_noting_when_series_spoke_hardly_touches_an_index():
    def updates():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
            cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'metrics_series'")
            return np.array(cursor.fetchone())

    # Old versions make room once nobody can see them. A transaction that is open on this server, be it another worker's
    # test in its own database, puts that off: then other series are tried.
    for tries in range(20):
        before = updates()
        for hours in (9, 6, 3, 0):
            send([(n, hours * 3_600_000, 1) for n in range(300)], name=f"x{tries}")
            compaction.compact_log(now=NOW)
        all_of_them, in_their_page = updates() - before
        assert all_of_them == 1200
        if in_their_page >= 1080:
            break
        time.sleep(0.5)
    assert in_their_page >= 1080


def test_the_log_is_due_by_samples_by_rows_and_by_age():
    assert not compaction.young(NOW).due(NOW)
    send([(1, 0, 1)])
    assert not compaction.young(NOW).due(NOW + timedelta(minutes=9))
    assert compaction.young(NOW).due(NOW + timedelta(minutes=10))
    assert compaction.Young(1, 1_000_000, NOW).due(NOW)
    assert compaction.Young(compaction.TRIGGER_ROWS, 1_000, NOW).due(NOW)


def test_the_later_write_wins_wherever_both_are():
    for value in range(1, 4):
        send([(1, 0, value)])
        assert read() == {1: {0: float(value)}}
        compaction.compact_log(now=NOW)
        assert read() == {1: {0: float(value)}}
    merge_all()
    assert read() == {1: {0: 3.0}}
    send([(1, 0, 4)])
    compaction.compact_log(now=NOW)
    assert read() == {1: {0: 4.0}}
    merge_all(LATER + timedelta(hours=1))
    assert read() == {1: {0: 4.0}}
    assert Block.objects.get().samples == 1


def test_a_round_of_the_log_beside_a_merge_still_wins_over_it():
    send([(1, 0, 1)])
    compaction.compact_log(now=NOW)
    send([(1, 0, 2)])
    compaction.compact_log(now=NOW)
    late, early = Block.objects.order_by("-round")
    late.pk, early.pk = Block.objects.order_by("pk").values_list("pk", flat=True)
    assert late.round > early.round
    assert read() == {1: {0: 2.0}}
    compaction.merge_window(due=compaction.Due(0, WINDOW, False), now=NOW)
    assert Block.objects.get().round == late.round
    assert read() == {1: {0: 2.0}}


def test_open_windows_are_merged_after_eight_rounds_and_whole_once_closed():
    for age in range(17):
        send([(1, age, age)])
        compaction.compact_log(now=NOW)
        if age < 7:
            assert compaction.due_windows(NOW) == []
        for due in compaction.due_windows(NOW):
            assert not due.closed
            compaction.merge_window(due=due, now=NOW)
    assert Counter(Block.objects.values_list("level", flat=True)) == {1: 2, 0: 1}
    assert compaction.due_windows(LATER) == [compaction.Due(0, WINDOW, True)]
    merge_all()
    assert Block.objects.get().samples == 17
    assert compaction.due_windows(LATER) == []
    assert read() == {1: {age: float(age) for age in range(17)}}


def test_late_samples_of_a_closed_window_are_merged_in_again_but_not_at_once():
    send([(1, 0, 1)])
    compaction.compact_log(now=NOW)
    merge_all()
    send([(1, 5, 2)])
    compaction.compact_log(now=LATER)
    assert compaction.due_windows(LATER + timedelta(minutes=29)) == []
    merge_all(LATER + timedelta(minutes=31))
    assert Block.objects.get().samples == 2


def test_a_round_is_cut_by_window_and_by_size(monkeypatch):
    monkeypatch.setattr(compaction, "BLOCK_SAMPLES", 10)
    rows = [(n, window * WINDOW_MS + age, n + age) for n in range(5) for window in range(3) for age in range(6)]
    send(rows)
    truth = read()
    compaction.compact_log(now=NOW)
    assert len(set(Block.objects.values_list("window", flat=True))) == 3
    assert max(Block.objects.values_list("samples", flat=True)) <= 10
    assert read() == truth
    monkeypatch.setattr(compaction, "MERGE_SAMPLES", 13)
    merge_all(LATER)
    assert set(Block.objects.values_list("level", flat=True)) == {1}
    assert read() == truth


def test_metrics_of_different_policies_never_share_a_block():
    from apps.metrics.models import Metric, RetentionPolicy

    short = RetentionPolicy.objects.create(category="short", raw=timedelta(hours=2))
    send([(1, 0, 1)], name="x")
    send([(1, 0, 2)], name="y")
    Metric.objects.filter(name="y").update(retention=short)
    compaction.compact_log(now=NOW)
    assert sorted(Block.objects.values_list("retention__category", flat=True)) == ["default", "short"]


def test_a_round_keeps_the_last_of_equal_instants():
    owner, ts = np.array([1, 0, 1, 1, 0]), np.array([7, 5, 7, 6, 5])
    order, counts = compaction._sorted_once(owner, ts, 3)
    assert (order.tolist(), counts.tolist()) == ([4, 3, 2], [1, 2, 0])


def test_first_and_last_instants_are_written_by_compaction():
    send([(1, 60_000, 1), (1, 0, 2)])
    assert Series.objects.get().last_at is None
    compaction.compact_log(now=NOW)
    series = Series.objects.get()
    assert (series.first_at, series.last_at) == (NOW - timedelta(minutes=1), NOW)
    registry.forget()
    late = Samples.of([{"__name__": "x", "n": "1"}], [MS - 3_600_000], [1.0])
    assert services.ingest(samples=late, by=BY, now=NOW).rejected[0].reason == "too_old"


def test_samples_of_an_unknown_series_are_kept_and_counted():
    send([(1, 0, 1), (2, 0, 2)])
    Series.objects.filter(labels={"n": "2"}).delete()
    before = compaction.UNKNOWN.value()
    compaction.compact_log(now=NOW)
    assert compaction.UNKNOWN.value() == before + 1
    assert sum(Block.objects.values_list("samples", flat=True)) == 2


def test_staleness_markers_survive_both_levels():
    send([(1, 5, 1), (1, 0, STALE)])
    compaction.compact_log(now=NOW)
    merge_all()
    got = query.select(X, 0, MS)
    assert got.v.view(np.uint64).tolist()[1] == int(STALE_BITS)


def test_buried_samples_are_hidden_at_once_and_gone_after_the_next_rewrite():
    send([(1, 5, 1), (1, 0, 2), (2, 5, 3)])
    ident = Series.objects.get(labels={"n": "1"}).pk
    stone = Tombstone.objects.create(series=[ident], t_min=MS - 5, t_max=MS - 1, by="test")
    assert read() == {1: {0: 2.0}, 2: {5: 3.0}}
    compaction.compact_log(now=NOW)
    stone.delete()
    assert read() == {1: {0: 2.0}, 2: {5: 3.0}}
    Tombstone.objects.create(series=[ident], t_min=0, t_max=MS, by="test")
    merge_all()
    Tombstone.objects.all().delete()
    assert read() == {2: {5: 3.0}}


# --- Two at once, and crashes ---------------------------------------------------------------------------------------


def test_of_two_compactors_one_returns(another_connection):
    send([(1, 0, 1)])
    with another_connection.cursor() as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(%s, 0)", [compaction.LOCKS])
        assert compaction.compact_log(now=NOW) == 0
        other.execute("ROLLBACK")
    assert compaction.compact_log(now=NOW) == 1


def test_a_merge_leaves_the_window_to_who_holds_its_lock(another_connection):
    send([(1, 0, 1)])
    compaction.compact_log(now=NOW)
    with another_connection.cursor() as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", [compaction.LOCKS, WINDOW // WINDOW_MS])
        assert compaction.merge_window(due=compaction.Due(0, WINDOW, True), now=LATER) == 0
        other.execute("ROLLBACK")
    assert compaction.merge_window(due=compaction.Due(0, WINDOW, True), now=LATER) == 1


class Crash(Exception):
    """Stands for a process that ends here: its transaction is rolled back."""


def crash_at(monkeypatch, number):
    """Have the number-th SQL statement from now on fail before it runs; returns the count of those seen."""
    seen = [0]
    original = psycopg.Cursor.execute

    def execute(self, *args, **kwargs):
        seen[0] += 1
        if seen[0] == number:
            raise Crash
        return original(self, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    return seen


@pytest.mark.parametrize("work", ["log", "merge"])
def test_a_crash_at_any_statement_loses_and_doubles_nothing(monkeypatch, work):
    send([(n, age * 1000, n + age) for n in range(3) for age in range(4)])
    if work == "merge":
        compaction.compact_log(now=NOW)
        send([(n, age * 1000, n - age) for n in range(3) for age in range(2, 6)])
        compaction.compact_log(now=NOW)
    truth = read()

    def run():
        if work == "log":
            return compaction.compact_log(now=NOW)
        return compaction.merge_window(due=compaction.Due(0, WINDOW, True), now=LATER)

    statement = 0
    while True:
        statement += 1
        with monkeypatch.context() as patch:
            seen = crash_at(patch, statement)
            try:
                run()
            except Crash:
                pass
            else:
                break
        storage.forget()
        young.forget()
        assert read() == truth
    assert seen[0] == statement - 1 >= 6
    storage.forget()
    young.forget()
    assert read() == truth
    assert Batch.objects.count() == 0


def test_a_crash_at_any_statement_of_an_ingest_leaves_all_of_it_or_nothing(monkeypatch):
    rows = [(n, 0, n) for n in range(3)]
    statement = 0
    while True:
        statement += 1
        with monkeypatch.context() as patch:
            crash_at(patch, statement)
            try:
                send(rows)
            except Crash:
                pass
            else:
                break
        assert read() == {}
    assert statement > 6
    assert read() == {n: {0: float(n)} for n in range(3)}
    assert Series.objects.count() == 3


def test_rows_that_vanish_under_compaction_undo_it(monkeypatch):
    send([(1, 0, 1)])
    send([(2, 0, 2)])
    original = compaction._write_rounds

    def meanwhile(cur, samples, now):
        original(cur, samples, now)
        cur.execute("DELETE FROM metrics_batch WHERE id = (SELECT min(id) FROM metrics_batch)")

    monkeypatch.setattr(compaction, "_write_rounds", meanwhile)
    with pytest.raises(compaction.Overtaken, match="1 of 2 rows"):
        compaction.compact_log(now=NOW)
    assert read() == {1: {0: 1.0}, 2: {0: 2.0}}


# --- Damage ---------------------------------------------------------------------------------------------------------


def damage(model):
    row = model.objects.latest("id")
    payload = bytearray(bytes(row.payload))
    payload[len(payload) // 2] ^= 0x55
    model.objects.filter(pk=row.pk).update(payload=bytes(payload))
    storage.forget()
    young.forget()
    return row.pk


@pytest.mark.parametrize("model", [Batch, Block])
def test_damage_is_a_warning_with_its_span_and_never_silence(model):
    send([(1, 5_000, 1), (2, 5_000, 2)])
    if model is Block:
        compaction.compact_log(now=NOW)
    else:
        send([(1, 0, 3)])
    pk = damage(model)
    before = selection.DAMAGED.value()
    for _ in range(2):
        got = query.select(X, 0, MS)
        assert len(got.warnings) == 1
        assert "are missing" in got.warnings[0]
        assert f"{model._meta.model_name} {pk} is damaged (checksum mismatch)" in got.warnings[0]
        assert len(got.ts) == (0 if model is Block else 2)
    assert selection.DAMAGED.value() == before + 1
    assert model.objects.get(pk=pk).bad_at is not None


def test_compaction_sets_a_damaged_row_aside_and_goes_on(caplog):
    send([(1, 5_000, 1)])
    pk = damage(Batch)
    send([(1, 0, 3)])
    assert compaction.compact_log(now=NOW) == 1
    assert compaction.compact_log(now=NOW) == 0
    assert Batch.objects.get().pk == pk
    assert "is damaged" in caplog.text
    assert not compaction.young(NOW).due(LATER)
    assert "batch" in query.select(X, 0, MS).warnings[0]


def test_a_merge_goes_on_without_a_damaged_block(caplog):
    send([(1, 5_000, 1)])
    compaction.compact_log(now=NOW)
    pk = damage(Block)
    send([(1, 0, 3)])
    compaction.compact_log(now=NOW)
    assert compaction.merge_window(due=compaction.Due(0, WINDOW, True), now=LATER) == 1
    assert Block.objects.get(pk=pk).bad_at is not None
    assert sorted(Block.objects.values_list("level", flat=True)) == [0, 1]
    assert f"Block {pk} is damaged" in caplog.text


# --- Readers beside writers and compactors --------------------------------------------------------------------------


@pytest.mark.slow
def test_readers_beside_a_busy_compactor_see_everything_acknowledged_exactly_once():  # noqa: C901
    acknowledged = [0]
    stop = threading.Event()
    problems = []

    def in_thread(body):
        def run():
            try:
                while not stop.is_set():
                    body()
            except Exception as error:
                problems.append(repr(error))
                stop.set()
            finally:
                connection.close()

        return threading.Thread(target=run)

    def write():
        number = acknowledged[0]
        samples = Samples.of(
            [{"__name__": "x", "n": str(n)} for n in range(20)], np.full(20, WINDOW + number), np.full(20, number)
        )
        services.ingest(samples=samples, by=BY, now=NOW, window=None)
        acknowledged[0] = number + 1

    def compact():
        compaction.compact_log(now=NOW)

    def merge():
        for due in compaction.due_windows(NOW):
            compaction.merge_window(due=due, now=NOW)

    def look():
        before = acknowledged[0]
        got = query.select(X, WINDOW - 1, WINDOW + 10**6)
        if before and not (got.size == 20 and got.warnings == ()):
            raise AssertionError((got.size, got.warnings))
        for a, b in zip(got.off, got.off[1:], strict=False):
            found = got.ts[a:b] - WINDOW
            if not (len(found) >= before and np.array_equal(found, np.arange(len(found)))):
                raise AssertionError((before, found.tolist()))
            if not np.array_equal(got.v[a:b], found):
                raise AssertionError("values")

    threads = [in_thread(body) for body in (write, compact, compact, merge, look, look)]
    for thread in threads:
        thread.start()
    stop.wait(6)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert acknowledged[0] > 20
    look()
    catalog.forget()
    storage.forget()
    young.forget()
    look()


def test_writers_of_the_same_new_series_in_opposite_order_do_not_deadlock():
    problems = []

    def write(order):
        try:
            known = registry.Registry()
            for start in range(0, 300, 30):
                keys = [{"__name__": "x", "n": str(n)} for n in range(start, start + 30)][::order]
                slots, _ = known.slots([k["n"] for k in keys], keys.__getitem__)
                known.resolve(slots)
                assert (known.ids[slots] > 0).all()
        except Exception as error:
            problems.append(repr(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert Series.objects.count() == 300


def test_a_series_that_commits_late_with_a_lower_id_is_still_found(another_connection):
    send([(1, 0, 1)])
    metric = Series.objects.get().metric_id
    with another_connection.cursor() as other:
        other.execute("BEGIN")
        other.execute(
            "INSERT INTO metrics_series (metric_id, fingerprint, labels) VALUES (%s, %s, %s)",
            [metric, b"late", '{"n": "9"}'],
        )
        send([(2, 0, 2)])
        assert set(read()) == {1, 2}
        other.execute("COMMIT")
    ident = Series.objects.get(labels={"n": "9"}).pk
    assert ident < Series.objects.get(labels={"n": "2"}).pk
    with transaction.atomic():
        columns, payload = _one(ident)
        storage.insert_batch(columns, payload, NOW)
    assert read()[9] == {0: 9.0}


def _one(ident):
    from apps.metrics.codec import Columns, encode_batch

    columns = Columns(np.array([ident]), np.array([MS]), np.array([9.0]))
    return columns, encode_batch(columns)
