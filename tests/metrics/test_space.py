"""Samples are refused while PostgreSQL still has room, wherever it writes, and taken again by themselves."""

import shutil
from collections import namedtuple

import pytest
from django.db import connection
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.dashboards.health import Status, health
from apps.metrics import compaction, services, space, tasks
from apps.metrics.samples import Samples
from apps.metrics.space import Room
from monitoring_portal.setup import load_defaults

Usage = namedtuple("Usage", "total used free")
GB = 10**9
BY = Principal.system("test")


@pytest.fixture
def disks(monkeypatch, settings, tmp_path):
    """Free and total bytes by the end of a folder's path; what is not named has plenty."""
    settings.DATA = tmp_path
    found: dict[str, tuple[int, int]] = {}

    def usage(folder):
        for end, (free, total) in found.items():
            if str(folder).endswith(end):
                return Usage(total, total - free, free)
        return Usage(1000 * GB, 500 * GB, 500 * GB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(services, "FREE_CHECK", 0.0)
    return found


def send():
    now = timezone.now()
    samples = Samples.of([{"__name__": "x"}], [int(now.timestamp() * 1000)], [1.0])
    return services.ingest(samples=samples, by=BY, now=now).accepted


@pytest.mark.parametrize(
    ("free", "total", "left"),
    [(6 * GB, 10 * GB, 5 * GB), (6 * GB, 100 * GB, 1 * GB), (GB // 2, 10 * GB, -GB // 2), (4 * GB, 100 * GB, -1 * GB)],
)
def test_a_gigabyte_or_a_twentieth_stays_free_whichever_is_more(disks, free, total, left):
    disks[""] = (free, total)
    room = space.tightest(share=0.05, least=GB)
    assert room is not None
    assert room.left == left
    assert (room.problem is None) is (left >= 0)


@pytest.mark.parametrize("place", space.PLACES[1:])
def test_the_tightest_disk_counts_be_it_the_logs(disks, place):
    disks[place] = (GB // 4, 50 * GB)
    room = space.tightest(share=0.05, least=GB)
    assert room is not None
    assert str(room.folder).endswith(place)
    assert "0.2 GB (0%) are free on the disk of" in str(room.problem)


def test_somebody_elses_database_is_somebody_elses_disk(disks, monkeypatch):
    disks[""] = (0, GB)
    monkeypatch.setitem(connection.settings_dict, "HOST", "db.example")
    assert space.tightest(share=0.05, least=GB) is None


def test_a_problem_says_what_to_do(tmp_path):
    assert "shorten a retention policy" in str(Room(tmp_path, 1, 100, 5).problem)


@pytest.mark.django_db(transaction=True)
def test_samples_are_refused_and_taken_again_by_themselves(disks):
    load_defaults(now=timezone.now())
    assert send() == 1
    disks["postgres/pg_wal"] = (GB // 2, 50 * GB)
    with pytest.raises(services.StoreFull, match="pg_wal"):
        send()
    with pytest.raises(services.StoreFull):
        services.store_past(samples=Samples.of([{"__name__": "x"}], [1], [1.0]), by=BY, now=timezone.now())
    disks.clear()
    assert send() == 1


@pytest.mark.django_db
def test_health_and_the_overview_say_so(disks):
    disks["postgres"] = (GB // 2, 50 * GB)
    found = health(now=timezone.now())
    assert found.status == "unhealthy"
    assert found.checks["store"].status is Status.FAIL
    assert "samples are refused below 2.5 GB" in found.checks["store"].message
    disks.clear()
    assert health(now=timezone.now()).checks["store"].status is not Status.FAIL


@pytest.mark.django_db
def test_nothing_is_merged_while_there_is_no_room_for_the_copy(disks, monkeypatch):
    merged = []
    monkeypatch.setattr(compaction, "due_windows", lambda now: ["a window"])
    monkeypatch.setattr(compaction, "merge_window", lambda due, now: merged.append(due))
    disks[""] = (GB // 2, 50 * GB)
    tasks.merge(now=timezone.now())
    assert merged == []
    disks.clear()
    tasks.merge(now=timezone.now())
    assert merged == ["a window"]
