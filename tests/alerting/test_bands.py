"""Adaptive bands: pure learning without look-ahead, and at work on stored samples."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from django.core.exceptions import ValidationError

from apps.accounts.models import AuditEntry
from apps.alerting import adaptive, bands, services
from apps.alerting.bands import Floats, Memory, Terms, Widened
from apps.alerting.models import AdaptiveBand, Alert, BandSeries
from apps.core.telemetry import Reading
from apps.metrics import query
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from tests.alerting.conftest import SETUP, World
from tests.alerting.test_defaults import rows as setup_rows

USUAL = Terms()
MONDAY = int(datetime(2026, 10, 5, tzinfo=UTC).timestamp()) // 3600


def week(hours: int, seed: int = 1) -> Floats:
    """Busy by day, quiet at night and on the weekend: float64[1, hours, 12]."""
    chance = np.random.default_rng(seed)
    hour = np.arange(hours)
    level = 100 + 40 * np.sin(2 * np.pi * (hour % 24) / 24) - 30 * (hour // 24 % 7 >= 5)
    return np.asarray(level[None, :, None] + chance.normal(0, 2, (1, hours, 12)))


def taught(values: Floats, terms: Terms = USUAL) -> Memory:
    memory = Memory.empty(len(values), MONDAY)
    for hour in range(values.shape[1]):
        bands.learn(memory, values[:, hour], terms)
    return memory


def at(memory: Memory, hour: int, terms: Terms = USUAL, wider: float = 1.0) -> bands.Band:
    found = bands.expect(memory, MONDAY + hour, terms)
    return bands.band(found, (MONDAY + hour) * 3_600_000 + 1_800_000, terms, np.array([wider] * len(memory.middle)))


def test_after_two_weeks_the_hour_of_the_week_is_expected() -> None:
    values = week(5 * 168)
    memory = taught(values[:, : 3 * 168])
    assert bands.expect(memory, MONDAY + 3 * 168, Terms()).model.tolist() == [2]
    for hour in (3 * 168, 3 * 168 + 10):
        band = at(memory, hour)
        assert abs(band.expected[0] - np.median(values[0, hour])) < 3
        assert (np.abs(values[0, hour] - band.expected) < band.upper - band.expected).all()


@pytest.mark.parametrize(("hours", "model"), [(30, 0), (3 * 24, 1), (15 * 24, 2)])
def test_a_shorter_season_serves_until_two_of_the_longer_are_known_and_it_says_so(hours: int, model: int) -> None:
    found = bands.expect(taught(week(hours)), MONDAY + hours, Terms(warm_up=1))
    assert found.model.tolist() == [model]
    text = bands.model_text(model, hours)
    assert text.startswith(("no season", "hour of day", "hour of week")[model])
    assert ("once 2" in text) == (model < 2)


def test_nothing_is_expected_before_the_warm_up_is_over() -> None:
    memory = taught(week(20))
    assert np.isnan(at(memory, 20, Terms(warm_up=48)).expected).all()
    assert not np.isnan(at(memory, 20, Terms(warm_up=10)).expected).any()


def test_what_comes_later_changes_nothing_and_looking_ahead_is_refused() -> None:
    values = week(400)
    early = at(taught(values[:, :300]), 300)
    values[:, 300:] += 1000
    assert at(taught(values[:, :300]), 300).expected == early.expected
    with pytest.raises(ValueError, match="ahead"):
        bands.expect(taught(values), MONDAY + 399, Terms())


def test_an_outage_in_the_history_neither_moves_nor_widens_the_band_much() -> None:
    values = week(3 * 168)
    clean = at(taught(values), 3 * 168)
    values[:, 340:352] = 0
    dirty = at(taught(values), 3 * 168)
    assert abs(dirty.expected[0] - clean.expected[0]) < 3
    assert dirty.upper[0] - dirty.lower[0] < 1.5 * (clean.upper[0] - clean.lower[0])


def test_a_trend_is_followed() -> None:
    hours = 4 * 168
    values = week(hours) + np.linspace(0, 200, hours)[None, :, None]
    assert abs(at(taught(values), hours).expected[0] - (week(hours + 1)[0, hours].mean() + 200)) < 12


def test_a_holiday_is_expected_to_be_a_sunday() -> None:
    closed = Terms(holiday=lambda day: day == date(2026, 10, 26))
    memory = taught(week(3 * 168))
    noon = 3 * 168 + 12
    assert at(memory, noon, closed).expected[0] < at(memory, noon).expected[0] - 20


def test_direction_and_least_deviation_decide_what_counts() -> None:
    band = bands.Band(np.array([100.0]), np.array([90.0]), np.array([110.0]))
    low = np.array([50.0])
    assert bands.score(low, band, "both").tolist() == [5.0]
    assert bands.score(low, band, "below").tolist() == [5.0]
    assert bands.score(low, band, "above").tolist() == [0.0]
    memory = taught(week(400))
    assert at(memory, 400, Terms(least=70)).upper[0] - at(memory, 400, Terms(least=70)).lower[0] == pytest.approx(140)


def test_feedback_makes_the_band_just_wide_enough_for_that_hour_and_its_neighbours() -> None:
    widened = Widened().by(34, 2.0)
    assert [round(widened.at(slot), 2) for slot in (32, 33, 34, 35, 36)] == [1, 2.1, 2.1, 2.1, 1]
    assert widened.by(34, 0.5) is widened
    assert Widened().by(0, 1e9).at(167) == bands.MOST_WIDENED


def test_a_memory_survives_its_bytes() -> None:
    memory = taught(week(50))
    again = bands.unpack([(memory.first, bands.pack(memory, 0))])
    assert again.first == memory.first
    assert np.allclose(again.middle, memory.middle, rtol=1e-6)
    assert bands.expect(again, MONDAY + 50, Terms()).model.tolist() == [1]


# --- At work ----------------------------------------------------------------------------------------------------


def history(world: World, hours: int, name: str = "load", **labels: str) -> None:
    """Samples each five minutes, 100 with noise, up to the world's now."""
    chance = np.random.default_rng(3)
    own = {"instance": "a", **labels} if name == "load" else labels
    begin = world.now - timedelta(hours=hours)
    readings = [
        Reading(name, float(value), own, timestamp_ms=round(moment.timestamp() * 1000))
        for number, value in enumerate(chance.normal(100, 2, hours * 12))
        for moment in [begin + timedelta(minutes=5 * number)]
    ]
    metrics.ingest(samples=Samples.from_readings(readings, at=world.now), by=SETUP, now=world.now)


@pytest.fixture
def adapted(world: World) -> World:
    adaptive.forget()
    history(world, 60)
    rule = world.rule("odd-load", "load", levels=[("warning", "", None)])
    services.make_adaptive(by=SETUP, rule=rule, on=True, now=world.now)
    assert adaptive.learn(now=world.now) == 1
    return world


def test_outside_its_band_an_adaptive_rule_fires_and_says_what_it_expected(adapted: World) -> None:
    adapted.tick(101.0, name="load", instance="a")
    assert not Alert.objects.exists()
    adapted.tick(180.0, name="load", instance="a")
    alert = Alert.objects.get()
    assert alert.state == "firing"
    assert alert.value == 180
    assert "most likely" in alert.annotations["expected_range"]
    assert alert.annotations["model"].startswith("hour of day, from 2 days")
    assert "UTC" in alert.annotations["training_window"]
    assert alert.threshold is not None
    assert 100 < alert.threshold < 140
    adapted.tick(100.0, name="load", instance="a")
    alert.refresh_from_db()
    assert alert.state == "resolved"


def test_bands_and_score_are_series(adapted: World) -> None:
    adapted.tick(101.0, name="load", instance="a")
    found = {
        name: query.only_value(query.instant(f'{name}{{band="odd-load", instance="a"}}', at=adapted.now))
        for name in (adaptive.LOWER, adaptive.UPPER, adaptive.SCORE)
    }
    assert all(value is not None for value in found.values()), found
    assert found[adaptive.LOWER] < 100 < found[adaptive.UPPER]  # type: ignore[operator]
    assert found[adaptive.SCORE] < 1  # type: ignore[operator]


def test_feedback_widens_the_band_is_audited_and_ends_the_alert(adapted: World) -> None:
    adapted.tick(130.0, name="load", instance="a")
    alert = Alert.objects.get()
    assert alert.state == "firing"
    factors = services.not_an_anomaly(by=SETUP, alert=alert, now=adapted.now)
    assert all(factor > 1 for factor in factors.values())
    assert AuditEntry.objects.filter(verb="alerting.not_an_anomaly").count() == 1
    adapted.tick(130.0, name="load", instance="a")
    alert.refresh_from_db()
    assert alert.state == "resolved"
    with pytest.raises(ValidationError, match="adaptive"):
        services.not_an_anomaly(by=SETUP, alert=Alert(key="alert_x"), now=adapted.now)


def test_what_is_learned_survives_a_restart_and_goes_on_by_the_hour(adapted: World) -> None:
    before = BandSeries.objects.get()
    adaptive.forget()
    adapted.wait(3600)
    assert adaptive.learn(now=adapted.now) == 1
    assert adaptive.learn(now=adapted.now) == 0
    after = BandSeries.objects.get()
    assert len(after.hours) == len(before.hours) + 12


def test_a_series_that_is_new_is_not_judged_until_it_is_known(adapted: World) -> None:
    adapted.tick(9_999.0, name="load", instance="new")
    assert not Alert.objects.exists()


def test_a_changed_expression_is_learned_anew(adapted: World) -> None:
    rule = AdaptiveBand.objects.get().rule
    assert rule is not None
    rule.expression = "load * 2"
    services.save_rule(
        by=SETUP, rule=rule, levels=[{"severity": "warning", "comparison": "", "threshold": None}], now=adapted.now
    )
    assert not BandSeries.objects.exists()
    assert AdaptiveBand.objects.get().learned_until is None


def test_a_band_of_its_own_needs_a_group_and_an_expression(world: World) -> None:
    with pytest.raises(ValidationError) as refused:
        services.save_band(by=SETUP, band=AdaptiveBand(slug="x y", width=0), now=world.now)
    assert set(refused.value.message_dict) == {"slug", "group", "expression", "width"}
    band = AdaptiveBand(slug="own", group=world.group(), expression="load")
    assert services.save_band(by=SETUP, band=band, now=world.now).watched == "load"


def test_an_expression_that_fails_costs_its_band_and_says_so(world: World) -> None:
    history(world, 3)
    band = AdaptiveBand(slug="own", group=world.group(), expression='load + on () group_left () {__name__=~"lo.*"}')
    services.save_band(by=SETUP, band=band, now=world.now)
    history(world, 3, twin="b")
    adaptive.learn(now=world.now)
    band.refresh_from_db()
    assert band.error
    assert world.tick(100.0, name="load", instance="a") == 1


def test_the_shipped_rule_fires_when_revenue_falls_below_what_is_usual(world: World) -> None:
    adaptive.forget()
    row = next(row for row in setup_rows("alert_rules") if row["slug"] == "revenue-drop")
    quick = {**row, "pending_period": 0, "group": "house", "interval": 10}
    rule = services.ship_rule(quick, by=SETUP, now=world.now)
    history(world, 60, name="revenue")
    assert adaptive.learn(now=world.now) == 1
    world.tick(140.0, name="revenue")
    assert not Alert.objects.exists(), "more than usual is no drop"
    world.tick(20.0, name="revenue")
    alert = Alert.objects.get(rule=rule)
    assert (alert.state, alert.severity) == ("firing", "error")
    assert alert.annotations["summary"].startswith("20 was paid in the last hour")
    world.tick(100.0, name="revenue")
    alert.refresh_from_db()
    assert alert.state == "resolved"
