"""The shipped rules load through the verbs, are evaluated without an error, and are never shipped twice."""

from functools import partial
from typing import Any

import yaml
from django.conf import settings

from apps.alerting import services
from apps.alerting.models import AlertRule, GroupRun, RecordingRule
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


def test_an_edited_default_stays_and_a_deleted_one_stays_away(world: World) -> None:
    ship(world)
    rule = AlertRule.objects.order_by("slug")[0]
    AlertRule.objects.filter(pk=rule.pk).update(name="Mine")
    gone = AlertRule.objects.order_by("slug")[1]
    services.delete_rule(by=SETUP, rule=gone, now=world.now)
    assert ship(world) == 0
    assert AlertRule.objects.get(pk=rule.pk).name == "Mine"
    assert not AlertRule.objects.filter(slug=gone.slug).exists()
