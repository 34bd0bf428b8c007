"""The store's figures as series."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from apps.metrics.collectors import store
from apps.metrics.collectors.store import Counted
from apps.metrics.space import Room
from apps.metrics.stock import Part
from apps.promql import engine
from apps.promql.source import MemorySource

PART = Part("default", 0, 2, 3, 1000, 1900, 0, 5)


def values(readings):
    return {(one.name.removeprefix("portal_store_"), *one.labels.values()): one.value for one in readings}


def test_contents_are_told_by_category_and_resolution():
    lag = {("default", "raw"): timedelta(hours=2)}
    found = values(store.contents(Counted([PART], {"merge": 4, "roll": 0}, lag)))
    assert found == {
        ("blocks", "default", "raw"): 5,
        ("samples", "default", "raw"): 1000,
        ("block_bytes", "default", "raw"): 1900,
        ("retention_lag_seconds", "default", "raw"): 7200,
        ("windows_due", "merge"): 4,
        ("windows_due", "roll"): 0,
    }


def test_a_sample_costs_its_share_of_the_table_roll_ups_included():
    rolled = Part("default", 300, 1, 0, 50, 100, 0, 5)
    found = values(store.costs([PART, rolled], {"block": 2500, "batch": 10}))
    assert found["bytes_per_sample",] == 2.5
    assert found["table_bytes", "batch"] == 10
    assert ("bytes_per_sample",) not in values(store.costs([], {"block": 2500}))


def test_room_goes_below_zero_when_samples_are_refused():
    found = values(store.room(Room(Path("x"), free=3, total=100, least=5)))
    assert found == {("room_bytes",): -2}
    assert values(store.room(None)) == {}


def test_what_cannot_be_known_is_no_series():
    assert [*store.log(None), *store.backup(None)] == []
    assert [one.value for one in store.backup({"at": 12.0, "bytes": 7, "path": "x"})] == [12.0, 7.0]


RULES = {
    row["slug"]: row
    for row in yaml.safe_load((Path(__file__).parents[3] / "fixtures" / "alert_rules.yaml").read_text())
}
MINUTE, DAY = 60_000, 86_400_000


def judged(slug, name, values, every=MINUTE, **labels):
    """The value of a shipped rule and whether its first level is breached, `values` being the newest last."""
    end = 20 * DAY
    times = [end - every * (len(values) - 1 - at) for at in range(len(values))]
    series = [({"__name__": name, **labels}, times, [float(value) for value in values])]
    if slug == "store-refusals":
        series += [({"__name__": "portal_samples_accepted_total"}, times, [1000.0 * at for at in range(len(values))])]
    found = engine.instant(RULES[slug]["expression"], MemorySource(series), end)
    if not found.v.shape[0]:
        return None
    level = RULES[slug]["levels"][0]
    value = float(found.v[0, 0])
    return value > level["threshold"] if level["comparison"] == ">" else value < level["threshold"]


@pytest.mark.parametrize(
    ("slug", "name", "calm", "alarming"),
    [
        ("store-damaged", "portal_store_damaged_rows", [0], [1]),
        ("store-room-low", "portal_store_room_bytes", [3e9], [1.9e9]),
        ("store-room-going", "portal_store_room_bytes", [1e12] * 30, [1e10 - 1e8 * n for n in range(30)]),
        ("store-compaction-behind", "portal_store_young_age_seconds", [900], [1900]),
        ("store-too-many-young", "portal_store_young_samples", [2e6], [5e6]),
        ("store-refusals", "portal_samples_refused_total", [0] * 9, [100 * n for n in range(9)]),
        ("store-retention-behind", "portal_store_retention_lag_seconds", [3600], [90_000]),
        ("store-windows-behind", "portal_store_windows_due", [3], [13]),
        ("backup-overdue", "portal_backup_last_success_timestamp_seconds", [14 * 86400], [11 * 86400]),
    ],
)
def test_a_shipped_rule_keeps_quiet_in_calm_times_and_speaks_up_when_a_person_is_needed(slug, name, calm, alarming):
    assert judged(slug, name, calm) is False
    assert judged(slug, name, alarming) is True
    assert judged(slug, "another", [1]) is None


def test_what_is_late_or_over_a_budget_is_the_senders_to_see_to():
    assert not judged("store-refusals", "portal_samples_refused_total", [100 * n for n in range(9)], reason="too_old")
    assert not judged(
        "store-refusals", "portal_samples_refused_total", [100 * n for n in range(9)], reason="token_series_limit"
    )
