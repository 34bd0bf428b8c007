"""What is accepted, what is refused and why, and that it is there once acknowledged."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.db import transaction

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Forbidden, Principal, Right, Scope
from apps.core.telemetry import Reading
from apps.metrics import query, registry, services
from apps.metrics.models import Batch, Metric, RetentionPolicy, Series
from apps.metrics.samples import REASONS, Meta, Samples
from apps.promql.series import STALE, STALE_BITS
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
BY = Principal.system("test")


def send(*rows, now=NOW, **options):
    """Each row: (labels or name, ms before now, value)."""
    labels = [{"__name__": row[0]} if isinstance(row[0], str) else row[0] for row in rows]
    samples = Samples.of(labels, [MS - row[1] for row in rows], [float(row[2]) for row in rows])
    return services.ingest(samples=samples, by=BY, now=now, **options)


def read(name="x", span=10**9, **options):
    got = query.select([Matcher("__name__", "=", name)], MS - span, MS + 10**7, **options)
    return {
        tuple(sorted(labels.items())): list(zip((MS - got.ts[a:b]).tolist(), got.v[a:b].tolist(), strict=True))
        for labels, a, b in zip(got.labels.dicts(), got.off, got.off[1:], strict=False)
    }


def reasons(written):
    return [rejection.reason for rejection in written.rejected]


def test_what_was_acknowledged_can_be_read_at_once():
    assert send(("x", 1000, 1.5), ("x", 0, 2.5)).accepted == 2
    assert read() == {(("__name__", "x"),): [(1000, 1.5), (0, 2.5)]}


def test_readings_share_labels_and_their_own_label_wins():
    readings = [Reading("x", 1.0, {"a": "1"}, "counter", "Help."), Reading("x", 2.0, {"a": "2", "job": "own"})]
    services.ingest(samples=Samples.from_readings(readings, NOW, {"job": "node"}), by=BY, now=NOW)
    assert read() == {
        (("__name__", "x"), ("a", "1"), ("job", "node")): [(0, 1.0)],
        (("__name__", "x"), ("a", "2"), ("job", "own")): [(0, 2.0)],
    }
    metric = Metric.objects.get()
    assert (metric.name, metric.type, metric.help) == ("x", "counter", "Help.")


def test_the_order_of_labels_does_not_make_another_series():
    send(({"__name__": "x", "a": "1", "b": "2"}, 5, 1), ({"b": "2", "__name__": "x", "a": "1", "c": ""}, 4, 2))
    assert Series.objects.count() == 1


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"a": "1"}, "no_name"),
        ({"__name__": "x" * 201}, "invalid_name"),
        ({"__name__": "x\0"}, "invalid_name"),
        ({"__name__": "x", "": "1"}, "invalid_name"),
        ({"__name__": "x", "a\n": "1"}, "invalid_name"),
        ({"__name__": "x", "a": "\0"}, "invalid_value"),
        ({"__name__": "x", "a": "\ud800"}, "invalid_value"),
        ({"__name__": "x", "a": "v" * 1025}, "value_too_long"),
        ({"__name__": "x", "a": "€" * 342}, "value_too_long"),
        ({"__name__": "x"} | {f"l{i}": "v" for i in range(31)}, "too_many_labels"),
    ],
)
def test_bad_labels_are_refused_with_their_reason_and_the_others_stored(labels, reason):
    written = send(("x", 0, 1), (labels, 0, 2), ("y", 0, 3))
    assert written.accepted == 2
    assert [(r.index, r.reason) for r in written.rejected] == [(1, reason)]
    assert written.rejected[0].text == REASONS[reason]


def test_names_in_utf8_are_names():
    send(({"__name__": "temperatur.außen", "größe": "12 µm"}, 0, 1))
    assert read("temperatur.außen")


def test_late_samples_count_from_their_own_series_newest():
    assert send(("x", 0, 1)).accepted == 1
    written = send(("x", 600_001, 2), ("x", 600_000, 3), ("y", 10**7, 4))
    assert [(r.index, r.reason) for r in written.rejected] == [(0, "too_old")]
    assert written.accepted == 2


def test_the_backlog_of_a_sender_is_in_order_and_welcome():
    for age in (9_000_000, 6_000_000, 3_000_000, 0):
        assert send(("x", age, age)).accepted == 1


def test_samples_from_the_future_and_before_1970_are_refused():
    written = send(("x", -600_001, 1), ("x", -600_000, 2), ("x", MS + 1, 3))
    assert reasons(written) == ["too_far_ahead", "before_1970"]


def test_refusals_and_acceptances_are_counted():
    accepted, refused = services.ACCEPTED.value(), services.REFUSED.value(reason="too_far_ahead")
    send(("x", -600_001, 1), ("x", 0, 2), ("y", 0, 2))
    assert services.ACCEPTED.value() == accepted + 2
    assert services.REFUSED.value(reason="too_far_ahead") == refused + 1


def test_a_sample_sent_twice_is_there_once_and_the_last_value_counts():
    send(("x", 0, 1))
    send(("x", 0, 1))
    send(("x", 0, 7))
    assert read() == {(("__name__", "x"),): [(0, 7.0)]}


def test_staleness_markers_keep_their_bits():
    send(("x", 0, STALE))
    got = query.select([Matcher("__name__", "=", "x")], 0, MS)
    assert got.v.view(np.uint64).tolist() == [int(STALE_BITS)]
    assert query.latest([], at=NOW) == []


def test_an_ingest_joins_its_callers_transaction_and_disappears_with_it():
    with transaction.atomic():
        send(("x", 0, 1))
        assert read() == {(("__name__", "x"),): [(0, 1.0)]}
        transaction.set_rollback(True)
    assert read() == {}
    assert Batch.objects.count() == 0
    assert Series.objects.count() == 1
    assert send(("x", 10**6, 1)).accepted == 1


def test_a_process_that_starts_anew_finds_its_series_again():
    send(("x", 0, 1))
    registry.forget()
    assert send(("x", 0, 2)).accepted == 1
    assert Series.objects.count() == 1


def test_a_limit_refuses_new_series_and_nothing_else():
    send(({"__name__": "x", "a": "1"}, 10, 1))
    Metric.objects.update(series_limit=2)
    rows = [({"__name__": "x", "a": str(i)}, 0, 1) for i in range(1, 6)]
    written = send(*rows)
    assert (written.accepted, reasons(written)) == (2, ["series_limit"] * 3)
    assert Series.objects.count() == 2


def test_a_new_metric_joins_the_policy_with_the_longest_fitting_prefix():
    for category, prefixes in (("short", ["http_"]), ("long", ["http_request_", "rpc_"])):
        RetentionPolicy.objects.create(category=category, raw=timedelta(days=1), prefixes=prefixes)
    send(("http_request_x", 0, 1), ("http_x", 0, 1), ("x", 0, 1))
    policies = dict(Metric.objects.values_list("name", "retention__category"))
    assert policies == {"http_request_x": "long", "http_x": "short", "x": "default"}


def test_what_is_known_about_a_metric_is_filled_in_and_never_overwritten():
    def describe(**meta):
        registry.forget()
        samples = Samples.of([{"__name__": "x"}], [MS], [1.0], {"x": Meta(**meta)})
        services.ingest(samples=samples, by=BY, now=NOW)
        return Metric.objects.values_list("type", "help", "unit").get()

    assert describe() == ("unknown", "", "")
    assert describe(type="gauge") == ("gauge", "", "")
    assert describe(type="counter", help="Help.") == ("gauge", "Help.", "")


def test_a_full_disk_refuses_everything_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(services, "FREE_BYTES", 10**18)
    monkeypatch.setattr(services, "_space", (float("-inf"), None))
    with pytest.raises(services.StoreFull, match="are free on the disk"):
        send(("x", 0, 1))
    assert Batch.objects.count() == 0
    monkeypatch.undo()


def test_ingest_and_backfill_need_their_rights():
    nobody = Principal("token", "1", "t", frozenset({Right.READ}))
    samples = Samples.of([{"__name__": "x"}], [MS], [1.0])
    for verb in (services.ingest, services.backfill):
        with pytest.raises(Forbidden):
            verb(samples=samples, by=nobody, now=NOW)


def test_backfill_takes_any_age_twice_and_leaves_an_entry_each_time():
    send(("x", 0, 1))
    samples = Samples.of([{"__name__": "x"}] * 2, [MS - 10**10, MS - 10**9], [5.0, 6.0])
    for _ in range(2):
        assert services.backfill(samples=samples, by=BY, now=NOW, source="old.csv").accepted == 2
    assert read(span=2 * 10**10) == {(("__name__", "x"),): [(10**10, 5.0), (10**9, 6.0), (0, 1.0)]}
    entries = AuditEntry.objects.filter(verb="metrics.backfill")
    assert [(entry.after or {})["samples"] for entry in entries] == [2, 2]


def test_a_large_ingest_becomes_several_rows_in_one_transaction(monkeypatch):
    monkeypatch.setattr(services, "ROW_SAMPLES", 3)
    send(*[("x", age, age) for age in range(10)])
    assert Batch.objects.count() == 4
    assert len(read()[("__name__", "x"),]) == 10


def test_a_scope_hides_what_its_matchers_refuse():
    send(({"__name__": "x", "team": "a"}, 0, 1), ({"__name__": "x", "team": "b"}, 0, 2), ({"__name__": "y"}, 0, 3))
    scope = Scope((("team", "=", "a"),))
    assert list(read(scope=scope).values()) == [[(0, 1.0)]]
    assert query.metric_names(scope) == ["x"]
    assert query.label_values("team", (), scope) == ["a"]
    assert query.metric_names() == ["x", "y"]


def test_queries_see_series_that_another_process_made():
    send(({"__name__": "x", "a": "1"}, 0, 1))
    assert len(read()) == 1
    registry.forget()
    send(({"__name__": "x", "a": "2"}, 0, 1), ("y", 0, 1))
    assert len(read()) == 2
    assert query.instant("count({__name__=~'.+'})", at=NOW).v.tolist() == [[3.0]]


def test_switching_collection_is_audited():
    assert query.collection_on()
    services.switch_collection(by=BY, on=False, now=NOW)
    assert not query.collection_on()
    entry = AuditEntry.objects.get(verb="metrics.switch_collection")
    assert (entry.before, entry.after) == ({"on": True}, {"on": False})
