"""The shipped rules without a threshold, over five weeks of a business: an ordinary weekend is quiet, a drop is not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from apps.alerting import adaptive, evaluation, services
from apps.alerting.models import Alert
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from tests.alerting.conftest import SETUP, World
from tests.alerting.test_defaults import rows

SATURDAY = datetime(2026, 11, 21, tzinfo=UTC)
MONDAY = SATURDAY + timedelta(days=2)
TEN, ELEVEN = MONDAY + timedelta(hours=10), MONDAY + timedelta(hours=11)
EVERY = timedelta(minutes=5)


def usual(at: datetime) -> float:
    """Busy at noon on weekdays, little at night and on weekends."""
    hour = at.hour + at.minute / 60
    return 30 + (120 if at.weekday() < 5 else 20) * float(np.exp(-(((hour - 12) / 4) ** 2)))


def stored(world: World, name: str, value: Callable[[datetime], float]) -> None:
    """Five weeks of samples until Monday at noon."""
    chance = np.random.default_rng(7)
    end = MONDAY + timedelta(hours=12)
    moments = [end - EVERY * n for n in range(35 * 288)][::-1]
    readings = [
        Reading(name, value(at) + float(chance.normal(0, 2)), timestamp_ms=int(at.timestamp() * 1000)) for at in moments
    ]
    metrics.ingest(samples=Samples.from_readings(readings, at=end), by=SETUP, now=end)


def seen(begin: datetime, end: datetime, every: timedelta) -> dict[str, list[datetime]]:
    """Learn and evaluate until then; when there was an alert, by its state."""
    at, found = begin, dict[str, list[datetime]]()
    while at < end:
        adaptive.learn(now=at)
        assert evaluation.evaluate(now=at + timedelta(seconds=5)) == 1
        for state in Alert.objects.exclude(state="resolved").values_list("state", flat=True):
            found.setdefault(state, []).append(at)
        at += every
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "name", "factor"), [("revenue-drop", "revenue", 0.2), ("unusual-user-behaviour", "activeUsers", 2.0)]
)
def test_a_shipped_band_is_quiet_over_the_weekend_and_speaks_up_when_monday_is_not_as_usual(
    world: World, slug: str, name: str, factor: float
) -> None:
    adaptive.forget()
    stored(world, name, lambda at: usual(at) * (factor if TEN <= at < ELEVEN else 1))
    row = next(row for row in rows("alert_rules") if row["slug"] == slug)
    services.ship_rule(row, by=SETUP, now=SATURDAY)
    assert seen(SATURDAY, TEN, timedelta(minutes=30)) == {}, "not even for a moment"
    odd = seen(TEN, TEN + timedelta(minutes=12), timedelta(seconds=15))
    assert odd["firing"][0] == TEN + timedelta(minutes=10), "what is odd for less than ten minutes passes"
    alert = Alert.objects.get()
    assert (alert.type, alert.annotations["model"].split(",")[0]) == (slug, "hour of week")
    after = seen(ELEVEN, ELEVEN + timedelta(minutes=7), timedelta(seconds=15))
    assert after.get("firing", []) == []
