"""Shipped rules that look back for hours or weeks, seen firing and ending: a disk that really fills, a business that
goes on for five weeks and then loses its payments and its people.

Days pass by the watch's clock; what was before the fault comes in by the same doors as what follows.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apps.alerting import adaptive
from apps.core.telemetry import Reading
from apps.metrics import compaction
from apps.metrics import services as metrics
from apps.metrics.collectors import store
from apps.metrics.samples import Samples
from tests.faults.disk import NoDisk, SmallDisk
from tests.faults.watch import Watch, waited_since
from tests.sources.conftest import ADMIN

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
GB = 10**9


# --- The disk of the portal's data -----------------------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path, settings: Any) -> Iterator[SmallDisk]:
    """Twelve GB for the portal's data, of which its file takes what is written and no more."""
    try:
        with SmallDisk(tmp_path / "data", 12 * GB) as made:
            settings.DATA = str(made.folder)
            yield made
    except NoDisk as reason:
        pytest.skip(str(reason))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Watch], Watch]:
    """Give the store's collector the watch's clock."""

    def of(watch: Watch) -> Watch:
        monkeypatch.setattr(store, "timezone", SimpleNamespace(now=lambda: watch.now))
        return watch

    return of


def test_a_disk_with_little_room_warns_before_samples_are_refused(
    disk: SmallDisk, clock: Callable[[Watch], Watch]
) -> None:
    watch = clock(Watch("store-room-low", collectors=("store",)))
    watch.passes(180)
    assert watch.firing() == {}
    disk.fill(leave=int(2.5 * GB))
    watch.fires("store-room-low", "warning", within=180)
    disk.fill(leave=int(1.3 * GB))
    alert = watch.fires("store-room-low", "critical", within=180)
    assert alert.value is not None
    assert 0 < alert.value < 0.5 * GB
    disk.free_it()
    watch.resolves("store-room-low", within=90)


def test_a_disk_that_fills_by_the_hour_is_told_in_time_and_ends_when_what_filled_it_is_gone(
    disk: SmallDisk, clock: Callable[[Watch], Watch]
) -> None:
    watch = clock(Watch("store-room-going", collectors=("store",)))

    def grown(an_hour: float) -> None:
        """Four minutes' worth of it."""
        if an_hour:
            disk.fill(leave=disk.free - int(an_hour / 15))
        watch.judge(3)

    watch.passes(3600, lambda: grown(0), pace=60)
    assert watch.firing() == {}, "a disk that stays as it is will do for ever"
    slow, fast = (lambda: grown(0.4 * GB)), (lambda: grown(3 * GB))
    alert = watch.fires("store-room-going", "warning", within=4 * 3600, each=slow, pace=60)
    assert alert.value is not None
    assert 6 < alert.value < 72, "hours until samples are refused"
    watch.fires("store-room-going", "error", within=4 * 3600, each=fast, pace=60)
    assert disk.free > GB, "somebody is told while samples are still taken"
    disk.free_it()
    # Six hours remember the fall for a while after it has ended.
    watch.resolves("store-room-going", within=2 * 3600, each=lambda: grown(0), pace=60)


# --- A business ------------------------------------------------------------------------------------------------------
MONDAY = datetime(2026, 11, 23, 10, tzinfo=UTC)
EVERY = 300
PAYMENTS, PEOPLE = "payment", "user_active"
MOST = {PAYMENTS: 900.0, PEOPLE: 120.0}


def usual(at: np.ndarray) -> np.ndarray:
    """How busy it is (0 to 1) at these times (s): at noon on weekdays, little at night and on weekends."""
    hours = at / 3600
    weekend = np.isin(hours // 24 % 7, (2, 3))  # 1970 began on a Thursday
    busy: np.ndarray = 0.2 + np.where(weekend, 0.15, 0.8) * np.exp(-((((hours % 24) - 12) / 4) ** 2))
    return busy


def five_weeks() -> None:
    """What was told in five weeks, and what the shipped recording rules made of it."""
    at = np.arange(MONDAY.timestamp() - 35 * 86_400, MONDAY.timestamp(), EVERY)
    chance = np.random.default_rng(11)
    told = {name: most * usual(at) * (1 + chance.normal(0, 0.03, len(at))) for name, most in MOST.items()}
    hour = np.convolve(told[PAYMENTS], np.ones(12))[: len(at)]
    columns = [*told.items(), ("revenue", hour), ("activeUsers", told[PEOPLE])]
    readings = [
        Reading(name, value, timestamp_ms=int(moment * 1000))
        for name, values in columns
        for moment, value in zip(at[12:].tolist(), values[12:].tolist(), strict=True)
    ]
    written = metrics.backfill(samples=Samples.from_readings(readings, at=MONDAY), by=ADMIN, now=MONDAY)
    assert written.accepted == len(readings)
    while compaction.compact_log(now=MONDAY):
        pass


def test_payments_that_stop_and_people_who_stay_away_are_not_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: MONDAY)
    watch = Watch("revenue-drop", "unusual-user-behaviour")
    adaptive.forget()
    five_weeks()

    def told(*names: str) -> None:
        """What comes in by the door of events, and what the bands learn of it."""
        at = watch.now.timestamp()
        if at % EVERY == 0:
            events = [Reading(name, float(MOST[name] * usual(np.array(at)))) for name in names]
            metrics.record_events(readings=events, by=ADMIN, now=watch.now)
        adaptive.learn(now=watch.now)

    watch.passes(2700, lambda: told(PAYMENTS, PEOPLE), pace=60)
    assert watch.firing() == {}, "a Monday like every other"
    alert = watch.fires("revenue-drop", "error", within=3600, each=lambda: told(PEOPLE), pace=60)
    assert waited_since(alert) >= timedelta(minutes=10)
    assert watch.firing() == {"revenue-drop": "error"}, "people come, and cannot pay"
    watch.fires("unusual-user-behaviour", "warning", within=1500, each=told, pace=60)
    watch.resolves("unusual-user-behaviour", within=900, each=lambda: told(PAYMENTS, PEOPLE), pace=60)
    watch.resolves("revenue-drop", within=3600, each=lambda: told(PAYMENTS, PEOPLE), pace=60)
