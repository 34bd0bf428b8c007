"""The shipped rules load through the verbs, are evaluated without an error, and are never shipped twice."""

from functools import partial
from typing import Any

import pytest
import yaml
from django.conf import settings

from apps.alerting import services
from apps.alerting.models import AlertRule, GroupRun, RecordingRule, RuleTest
from apps.core.defaults import write_once
from tests.alerting.conftest import SETUP, World


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((settings.BASE_DIR / "fixtures" / f"{name}.yaml").read_text())
    return found


def ship(world: World) -> int:
    written = 0
    for name, write in {"recording_rules": services.ship_recording_rule, "alert_rules": services.ship_rule}.items():
        written += len(
            write_once(
                name,
                rows(name),
                key=services.natural_key,
                write=partial(write, by=SETUP, now=world.now),
                now=world.now,
            )
        )
    return written


def test_shipped_rules_are_evaluated_without_an_error_on_an_empty_store(world: World) -> None:
    assert ship(world) == AlertRule.objects.count() + RecordingRule.objects.count()
    world.wait(15)
    world.tick()
    runs = list(GroupRun.objects.select_related("group"))
    lines = [line for run in runs for kind in ("rules", "recording") for line in run.results[kind].values()]
    assert len(lines) == AlertRule.objects.count() + RecordingRule.objects.count()
    assert [line["error"] for line in lines if "error" in line] == []


@pytest.mark.parametrize("row", rows("alert_rules"), ids=lambda row: row["slug"])
def test_a_shipped_rule_says_what_it_means_and_what_to_do(row: dict[str, Any]) -> None:
    assert row["annotations"]["summary"]
    assert row["annotations"]["description"]
    assert row["runbook"].startswith("1. ")
    assert row["runbook"].count("\n") >= 2
    if row["type"] == "security":
        assert row["tests"]


def test_the_tests_of_shipped_security_rules_stand_with_them_and_pass(world: World) -> None:
    ship(world)  # saving runs them; one that fails would refuse its rule
    assert set(RuleTest.objects.values_list("rule__slug", flat=True)) == {
        row["slug"] for row in rows("alert_rules") if "tests" in row
    }


def test_an_edited_default_stays_and_a_deleted_one_stays_away(world: World) -> None:
    ship(world)
    rule = AlertRule.objects.order_by("slug")[0]
    AlertRule.objects.filter(pk=rule.pk).update(name="Mine")
    gone = AlertRule.objects.order_by("slug")[1]
    services.delete_rule(by=SETUP, rule=gone, now=world.now)
    assert ship(world) == 0
    assert AlertRule.objects.get(pk=rule.pk).name == "Mine"
    assert not AlertRule.objects.filter(slug=gone.slug).exists()
