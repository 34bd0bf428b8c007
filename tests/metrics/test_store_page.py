"""The admin's page about the store, and the filter for what is damaged."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.permissions import Principal
from apps.dashboards import admin_index
from apps.metrics import compaction, services, store_page
from apps.metrics.admin import BlockAdmin
from apps.metrics.models import Block
from apps.metrics.samples import Samples
from monitoring_portal.setup import load_defaults

CALM: dict[str, Any] = {"lags": {}, "due": {"merge": 0, "roll": 0}, "damaged": {"batch": 0, "block": 0}, "is_own": True}


@pytest.fixture
def client(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def fill(now):
    load_defaults(now=now)
    at = int(now.timestamp() * 1000)
    names = ("portal_store_room_bytes", "portal_store_young_samples")
    series = [{"__name__": name} for name in names for _ in range(60)]
    ts = [at - 60_000 * n for _ in names for n in range(60)]
    services.backfill(samples=Samples.of(series, ts, [5e9] * 60 + [3.0] * 60), by=Principal.system("test"), now=now)
    compaction.compact_log(now=now)


@pytest.mark.django_db(transaction=True)
def test_the_page_shows_figures_with_their_course_and_what_lies_where(client, settings, tmp_path):
    settings.DATA = tmp_path
    fill(timezone.now())
    page = client.get(reverse("admin:metrics_block_store")).content.decode()
    assert "4.7\xa0GB" in page
    assert page.count("<polyline") == 2
    assert "Room over a day: " in page
    assert "<td>default</td><td>raw</td>" in page
    assert "There never was a backup" in page


@pytest.mark.django_db
def test_an_empty_store_has_a_page_and_the_list_of_blocks_leads_to_it(client):
    page = client.get(reverse("admin:metrics_block_store"))
    assert page.status_code == 200
    assert "Nothing is compacted yet" in page.content.decode()
    assert (
        reverse("admin:metrics_block_store") in client.get(reverse("admin:metrics_block_changelist")).content.decode()
    )


@pytest.mark.django_db
def test_whoever_sees_a_part_only_does_not_see_the_whole_store(client, monkeypatch):
    monkeypatch.setattr(BlockAdmin, "has_store_permission", lambda self, request: False)
    assert client.get(reverse("admin:metrics_block_store")).status_code == 403
    monkeypatch.setattr(admin_index, "_sees_the_store", lambda request: False)
    listed = client.get(reverse("admin:metrics_block_changelist")).content.decode()
    assert reverse("admin:metrics_block_store") not in listed


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("wanted", "count"), [("yes", 1), ("no", 1), (None, 2)])
def test_damaged_rows_can_be_listed_alone(client, wanted, count):
    now = timezone.now()
    fill(now)
    fill(now)
    first = Block.objects.order_by("id")[0]
    Block.objects.filter(pk=first.pk).update(bad_at=now)
    Block.objects.exclude(pk__in=Block.objects.order_by("id").values_list("pk", flat=True)[:2]).delete()
    found = client.get(reverse("admin:metrics_block_changelist"), {"damaged": wanted} if wanted else {})
    assert found.context["cl"].result_count == count


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "never was a backup"),
        ({"damaged": {"batch": 0, "block": 2}}, "2 damaged block rows"),
        ({"due": {"merge": 13, "roll": 0}}, "13 windows wait to be merged"),
        ({"lags": {("default", "raw"): timedelta(days=2)}}, "default (raw) is kept 48.0 h longer"),
    ],
)
@pytest.mark.django_db
def test_what_somebody_should_do_is_said(change, words):
    found = store_page.todos(timezone.now(), **{**CALM, "backup": None, **change})
    assert any(words in row["text"] for row in found)


@pytest.mark.django_db
def test_an_old_backup_is_told_and_a_new_one_or_somebody_elses_database_is_not():
    now = timezone.now()
    old, new = ({"at": (now - timedelta(days=days)).timestamp(), "path": "x", "bytes": 1} for days in (9, 1))
    assert "9 days old" in store_page.todos(now, **CALM, backup=old)[0]["text"]
    assert store_page.todos(now, **CALM, backup=new) == []
    assert store_page.todos(now, **{**CALM, "is_own": False}, backup=None) == []


@pytest.mark.django_db
def test_a_full_disk_comes_first(monkeypatch):
    monkeypatch.setattr(services, "disk_problem", lambda: "Only 0.1 GB are free.")
    found = store_page.todos(timezone.now(), **CALM, backup=None)
    assert found[0] == {"tone": "critical", "text": "Only 0.1 GB are free.", "url": found[0]["url"]}
