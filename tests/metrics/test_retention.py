"""What is too old goes with a proof; a series that falls silent may come back at any moment."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal
from apps.metrics import compaction, query, registry, retention, services, tasks
from apps.metrics.models import Block, RetentionPolicy, Series
from apps.metrics.samples import Samples
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
DAY = 86_400_000
BY = Principal.system("test")


def send(*ages, now=NOW):
    samples = Samples.of([{"__name__": "x"}] * len(ages), [MS - age for age in ages], [1.0] * len(ages))
    assert services.ingest(samples=samples, by=BY, now=now, window=None).accepted == len(ages)


def count():
    return len(query.select([Matcher("__name__", "=", "x")], 0, MS + 90 * DAY).ts)


def test_old_blocks_go_young_ones_stay_and_the_audit_trail_proves_it(monkeypatch):
    send(0, 29 * DAY, 31 * DAY, 32 * DAY, 33 * DAY)
    compaction.compact_log(now=NOW)
    doomed = list(Block.objects.filter(t_max__lt=MS - 30 * DAY))
    monkeypatch.setattr(retention, "ROWS", 2)
    tasks.retain(now=NOW)
    assert count() == 2
    proofs = [entry.after or {} for entry in AuditEntry.objects.filter(verb="metrics.expire").order_by("id")]
    assert [(proof["blocks"], proof["samples"]) for proof in proofs] == [(2, 2), (1, 1)]
    windows = {window: counts for proof in proofs for window, counts in proof["windows"].items()}
    assert windows == {str(block.window): [1, block.samples, block.crc] for block in doomed}
    tasks.retain(now=NOW)
    assert AuditEntry.objects.filter(verb="metrics.expire").count() == 2


def test_each_policy_keeps_its_own_time():
    RetentionPolicy.objects.create(category="short", raw=timedelta(days=1), prefixes=["x"])
    send(0, 2 * DAY)
    compaction.compact_log(now=NOW)
    tasks.retain(now=NOW)
    assert count() == 1
    assert AuditEntry.objects.get(verb="metrics.expire").target_label == "short"


def test_a_silent_series_is_marked_then_removed_a_day_later():
    send(0)
    compaction.compact_log(now=NOW)
    later = NOW + timedelta(days=30, hours=4)
    tasks.retain(now=NOW + timedelta(days=30))
    assert Series.objects.get().gone_at is None
    tasks.retain(now=later)
    assert Series.objects.get().gone_at == later
    tasks.retain(now=later + timedelta(hours=23))
    assert Series.objects.exists()
    tasks.retain(now=later + timedelta(hours=25))
    assert not Series.objects.exists()
    assert AuditEntry.objects.get(verb="metrics.remove_series").after == {"series": 1}


def silenced():
    send(0)
    compaction.compact_log(now=NOW)
    later = NOW + timedelta(days=31)
    tasks.retain(now=later)
    assert Series.objects.get().gone_at is not None
    return later


def test_a_marked_series_that_speaks_again_is_alive_again(monkeypatch):
    later = silenced()
    registry.forget()
    send(-31 * DAY, now=later)
    assert Series.objects.get().gone_at is None


def test_a_process_that_remembers_a_marked_series_looks_it_up_again_within_the_hour(monkeypatch):
    later = silenced()
    known = registry.current()
    monkeypatch.setattr(known, "_validated", known._validated - registry.REVALIDATE)
    send(-31 * DAY, now=later)
    assert Series.objects.get().gone_at is None


@pytest.mark.parametrize("slept", [registry.REVALIDATE, registry.FORGET_ALL + 1])
def test_a_removed_series_gets_a_new_row_when_it_speaks_again(monkeypatch, slept):
    later = silenced()
    known = registry.current()
    old = Series.objects.get().pk
    if slept == registry.REVALIDATE:
        known._validated -= slept
        known.revalidate()
    tasks.retain(now=later + timedelta(days=2))
    assert not Series.objects.exists()
    known._validated -= slept
    send(-33 * DAY, now=later + timedelta(days=2))
    assert Series.objects.get().pk != old
    assert count() == 1


def test_compaction_revives_a_series_whose_sample_was_under_way():
    later = silenced()
    send(-31 * DAY, now=later)
    assert Series.objects.get().gone_at is not None
    compaction.compact_log(now=later)
    assert Series.objects.get().gone_at is None
