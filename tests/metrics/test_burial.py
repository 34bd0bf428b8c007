"""What is deleted on request is hidden at once, goes from the bytes with a proof, and keeps nothing new away."""

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Forbidden, Principal
from apps.accounts.rights import Right, Scope
from apps.metrics import burial, compaction, listing, query, retention, rolling, services, storage, tasks
from apps.metrics.codec import View, decode_batch
from apps.metrics.models import Batch, Block, RetentionPolicy, RolledWindow, Series, Tombstone
from apps.metrics.rollups import FIELDS
from apps.metrics.samples import Samples
from apps.promql.source import Matcher
from tests.wiring.lanes import ask, token

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
MINUTE = 60_000
HOUR = 60 * MINUTE
BY = Principal.system("test")
ANNA = [Matcher("user", "=", "anna")]
EVERYBODY = [Matcher("__name__", "=", "visits")]


def send(*rows, now=NOW):
    """Rows of (user, age in ms, value)."""
    labels = [{"__name__": "visits", "user": user} for user, _, _ in rows]
    samples = Samples.of(labels, [MS - age for _, age, _ in rows], [float(value) for *_, value in rows])
    assert services.ingest(samples=samples, by=BY, now=now, window=None).accepted == len(rows)


def read():
    """{user: {age: value}} as readers see it."""
    got = query.select(EVERYBODY, -1, MS + HOUR)
    seen = {}
    for row, labels in enumerate(got.labels.dicts()):
        part = slice(got.off[row], got.off[row + 1])
        seen[labels["user"]] = dict(zip((MS - got.ts[part]).tolist(), got.v[part].tolist(), strict=True))
    return seen


def delete(selectors=(ANNA,), now=NOW, **span):
    return services.delete_series(by=BY, selectors=list(selectors), now=now, **span)


def ages_in_bytes(ident):
    """Ages of the samples of a series in all stored rows, whatever readers are shown; of buckets of their ends."""
    found = []
    with storage.cursor() as cur:
        for _, payload in storage.fetch(cur, 0, list(Batch.objects.values_list("pk", flat=True))):
            columns = decode_batch(payload)
            found += columns.ts[columns.series == ident].tolist()
        for _, *parts in storage.fetch(cur, 1, list(Block.objects.values_list("pk", flat=True))):
            view = View(*parts)
            for row in np.flatnonzero(view.series == ident).tolist():
                begin = view.vectors.off[view.vec[row]]
                found += view.vectors.times[begin : begin + view.counts[row]].tolist()
    return sorted({MS - at for at in found})


def id_of(user):
    return Series.objects.get(labels={"user": user}).pk


def compacted():
    compaction.compact_log(now=NOW)
    for due in compaction.due_windows(NOW):
        compaction.merge_window(due=due, now=NOW)


@pytest.mark.parametrize("stored", ["young", "blocks", "both"])
def test_samples_are_hidden_at_once_and_then_gone_from_the_bytes(stored):
    send(("anna", 9 * HOUR, 1), ("bob", 9 * HOUR, 2))
    if stored != "young":
        compacted()
    if stored != "blocks":
        send(("anna", 5, 3), ("bob", 5, 4))
    anna, before = id_of("anna"), read()
    assert len(delete().ids) == 1
    assert read() == {"bob": before["bob"]}
    assert ages_in_bytes(anna) != []
    assert burial.bury(now=NOW) == 0
    assert ages_in_bytes(anna) == []
    assert read() == {"bob": before["bob"]}
    stone = Tombstone.objects.get()
    assert (stone.applied_at, stone.samples) == (NOW, len(before["anna"]))


def test_names_and_labels_are_hidden_at_once():
    send(("anna", 0, 1), ("bob", 0, 1))
    delete()
    assert query.label_values("user") == ["bob"]
    assert listing.series([EVERYBODY]).dicts() == [{"__name__": "visits", "user": "bob"}]
    delete([EVERYBODY])
    assert query.metric_names() == listing.metric_names(span=(NOW - timedelta(days=1), NOW), now=NOW) == []


def test_only_the_span_goes_both_ends_included():
    send(*(("anna", age, age) for age in (4, 3, 2, 1)))
    delete(start=NOW - timedelta(milliseconds=3), end=NOW - timedelta(milliseconds=2))
    assert read() == {"anna": {4: 4.0, 1: 1.0}}
    burial.bury(now=NOW)
    assert ages_in_bytes(id_of("anna")) == [1, 4]
    assert Series.objects.get().gone_at is None


@pytest.mark.parametrize("when", ["before it is applied", "after", "compacted before"])
def test_what_is_written_afterwards_is_there_whatever_its_times(when):
    send(("anna", HOUR, 1), ("anna", 5, 1))
    compacted()
    delete()
    if when == "after":
        burial.bury(now=NOW)
    send(("anna", HOUR, 7), ("anna", 0, 8))
    if when == "compacted before":
        compacted()
    assert read() == {"anna": {HOUR: 7.0, 0: 8.0}}
    assert query.label_values("user") == ["anna"]
    assert burial.bury(now=NOW) == 0
    compacted()
    assert read() == {"anna": {HOUR: 7.0, 0: 8.0}}
    assert Series.objects.get().gone_at is None


def test_of_one_instant_the_old_value_goes_and_the_new_one_stays_when_both_are_merged():
    send(("anna", 9 * HOUR, 1), ("bob", 9 * HOUR, 1))
    compaction.compact_log(now=NOW)
    delete()
    send(("anna", 9 * HOUR, 2))
    compaction.compact_log(now=NOW)
    for due in compaction.due_windows(NOW):
        compaction.merge_window(due=due, now=NOW)
    assert read() == {"anna": {9 * HOUR: 2.0}, "bob": {9 * HOUR: 1.0}}
    Tombstone.objects.all().delete()
    assert read() == {"anna": {9 * HOUR: 2.0}, "bob": {9 * HOUR: 1.0}}


def test_a_deleted_series_loses_its_row_a_day_later_unless_it_speaks_again():
    send(("anna", 0, 1), ("bob", 0, 1))
    delete([EVERYBODY])
    tasks.bury(now=NOW)
    send(("bob", -HOUR, 2), now=NOW + timedelta(hours=1))
    compaction.compact_log(now=NOW + timedelta(hours=1))
    assert retention.remove_gone(now=NOW + timedelta(hours=23)) == 0
    assert retention.remove_gone(now=NOW + timedelta(hours=25)) == 1
    assert [row.labels for row in Series.objects.all()] == [{"user": "bob"}]


def test_the_audit_trail_tells_who_deleted_what_and_what_went():
    send(("anna", 9 * HOUR, 1), ("anna", 0, 1))
    compacted()
    delete()
    asked = AuditEntry.objects.get(verb="metrics.delete_series")
    assert (asked.target_label, (asked.after or {})["series"]) == ('{user="anna"}', 1)
    burial.bury(now=NOW)
    proof = AuditEntry.objects.get(verb="metrics.bury")
    before, after = proof.before or {}, proof.after or {}
    assert before["deleted_by"] == "test"
    assert (after["blocks_rewritten"], after["samples_dropped"]) == (2, 2)


def test_buckets_go_where_a_deletion_covers_any_of_their_time_and_are_made_again_of_what_is_left():
    RetentionPolicy.objects.create(
        category="rolled", raw=timedelta(days=30), rollup_5m=timedelta(days=60), prefixes=["visits"]
    )
    begin = (MS // (2 * HOUR) - 5) * 2 * HOUR
    ages = [MS - begin - minute * MINUTE for minute in (1, 4, 7, 30)]
    send(*(("anna", age, 1) for age in ages))
    compaction.compact_log(now=NOW)
    for window in rolling.due_windows(NOW):
        rolling.roll_window(window=window, now=NOW)
    at = datetime.fromtimestamp((begin + MINUTE) / 1000, tz=UTC)
    delete(start=at, end=at)
    assert not RolledWindow.objects.exists()
    burial.bury(now=NOW)
    anna = id_of("anna")
    with storage.cursor() as cur:
        buckets = [
            View(*row[1:])
            for row in storage.fetch(cur, 1, list(Block.objects.filter(resolution=300).values_list("pk", flat=True)))
        ]
    ends = {int(at) - begin for view in buckets for at in view.vectors.times}
    assert (len(buckets), ends) == (len(FIELDS), {10 * MINUTE, 30 * MINUTE})
    for window in rolling.due_windows(NOW):
        rolling.roll_window(window=window, now=NOW)
    assert {MS - age - begin for age in ages_in_bytes(anna)} >= {5 * MINUTE, 10 * MINUTE, 30 * MINUTE}


def test_killed_between_any_two_rewrites_it_hides_and_goes_on(monkeypatch):
    send(*(("anna", age * 3 * HOUR, age) for age in range(1, 6)), ("bob", 3 * HOUR, 1))
    compaction.compact_log(now=NOW)
    delete()
    real, calls = compaction.write_blocks, []

    def dies(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("killed")
        return real(*args, **options)

    monkeypatch.setattr(burial, "write_blocks", dies)
    with pytest.raises(RuntimeError):
        burial.bury(now=NOW)
    assert read() == {"bob": {3 * HOUR: 1.0}}
    assert Tombstone.objects.get().applied_at is None
    assert burial.bury(now=NOW) == 0
    assert read() == {"bob": {3 * HOUR: 1.0}}
    assert ages_in_bytes(Tombstone.objects.get().series[0]) == []
    assert Tombstone.objects.get().samples == 5


def test_a_damaged_block_keeps_its_tombstone_open():
    send(("anna", 9 * HOUR, 1))
    compaction.compact_log(now=NOW)
    Block.objects.update(crc=0)
    delete()
    assert burial.bury(now=NOW) == burial.bury(now=NOW) == 1
    assert Block.objects.get().bad_at == NOW


def test_many_series_are_several_tombstones(monkeypatch):
    monkeypatch.setattr(burial, "IDS", 2)
    send(*((f"user-{n}", 5, n) for n in range(5)))
    delete([EVERYBODY])
    assert [len(stone.series) for stone in Tombstone.objects.order_by("id")] == [2, 2, 1]
    assert read() == {}
    assert burial.bury(now=NOW) == 0


def test_only_administrators_delete_and_a_token_only_what_it_sees():
    send(("anna", 0, 1), ("bob", 0, 1))
    with pytest.raises(Forbidden):
        services.delete_series(by=Principal("user", "1", "eve", frozenset({Right.EDIT})), selectors=[ANNA], now=NOW)
    narrow = Principal("token", "1", "t", frozenset({Right.ADMINISTER}), Scope((("user", "=", "bob"),)))
    services.delete_series(by=narrow, selectors=[EVERYBODY], now=NOW)
    assert list(read()) == ["anna"]


@pytest.mark.parametrize("selectors", [[], [[]], [[Matcher("user", "!=", "x")]], [ANNA, [Matcher("user", "=~", ".*")]]])
def test_a_selector_that_demands_nothing_deletes_nothing(selectors):
    send(("anna", 0, 1))
    with pytest.raises(ValidationError):
        delete(selectors)
    assert read() == {"anna": {0: 1.0}}


def test_a_round_of_compaction_that_has_begun_is_waited_for(another_connection):
    send(("anna", 0, 1))
    with another_connection.cursor() as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", [compaction.LOCKS, compaction.ROLLING])
        with storage.cursor() as cur:
            cur.execute("SET lock_timeout = '100ms'")
        try:
            with pytest.raises(Exception, match="lock timeout"):
                delete()
        finally:
            with storage.cursor() as cur:
                cur.execute("SET lock_timeout = 0")
        other.execute("ROLLBACK")
    assert read() == {"anna": {0: 1.0}}


# --- The doors --------------------------------------------------------------------------------------------------------
def admin_api(path, *parameters):
    return ask(f"/api/v1/admin/tsdb/{path}", token("admin"), dict(parameters), method="POST")


def test_prometheus_admin_api_deletes_and_cleans():
    send(("anna", 9 * HOUR, 1), ("bob", 9 * HOUR, 2))
    compacted()
    assert admin_api("delete_series", ("match[]", 'visits{user="anna"}')).status == 204
    assert list(read()) == ["bob"]
    assert admin_api("clean_tombstones").status == 204
    assert ages_in_bytes(id_of("anna")) == []


def test_prometheus_admin_api_takes_a_span():
    send(("anna", 2 * HOUR, 1), ("anna", HOUR, 2))
    at = (MS - HOUR) / 1000
    said = admin_api("delete_series", ("match[]", "visits"), ("start", str(at)), ("end", str(at)))
    assert (said.status, read()) == (204, {"anna": {2 * HOUR: 1.0}})


@pytest.mark.parametrize(
    "query", [[], [("match[]", "{}")], [("match[]", "visits"), ("start", "x")], [("match[]", '{a=~"("}')]]
)
def test_a_deletion_that_cannot_be_meant_is_bad_data(query):
    assert admin_api("delete_series", *query).error[:2] == (400, "bad_data")


def test_what_cannot_be_cleaned_yet_is_said():
    send(("anna", 9 * HOUR, 1))
    compaction.compact_log(now=NOW)
    Block.objects.update(crc=0)
    delete()
    assert admin_api("clean_tombstones").error[:2] == (503, "unavailable")


def test_the_command_asks_deletes_and_names_what_went(monkeypatch):
    send(("anna", HOUR, 1), ("bob", HOUR, 1))
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    with pytest.raises(CommandError, match="Nothing was deleted"):
        call_command("store", "delete", 'visits{user="anna"}', stdout=out)
    call_command("store", "delete", 'visits{user="anna"}', "--yes", stdout=out)
    assert "Deleted about 1 samples of 1 series." in out.getvalue()
    assert (list(read()), Tombstone.objects.filter(applied_at=None).count()) == (["bob"], 0)
