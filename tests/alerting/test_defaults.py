"""The shipped rules load through the verbs, are evaluated without an error, and are never shipped twice."""

import shutil
import subprocess
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import call_command

from apps.alerting import ruletests, services
from apps.alerting.models import AlertRule, GroupRun, RecordingRule, RuleTest
from apps.alerting.plans import question
from apps.alerting.services import ruletests as stored_tests
from apps.core.defaults import write_once
from tests.alerting.conftest import SETUP, World


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((settings.BASE_DIR / "fixtures" / f"{name}.yaml").read_text())
    return found


def ship(world: World, *, tests: bool = False) -> int:
    """Write all of them."""
    written = 0
    for name, write in {"recording_rules": services.ship_recording_rule, "alert_rules": services.ship_rule}.items():
        written += len(
            write_once(
                name,
                [row if tests else {**row, "tests": ()} for row in rows(name)],
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
    assert ("tests" in row) is ("band" not in row)  # a band is learned: see test_shipped_bands.py


def test_every_shipped_recording_rule_is_read_by_a_test() -> None:
    alerts = [row for row in rows("alert_rules") if "tests" in row]
    texts = [test["text"] for row in alerts + rows("recording_rules") for test in row.get("tests", ())]
    asked = [expression for text in texts for expression in ruletests.read(text).expressions]
    asked += [row["expression"] for row in alerts]
    read = {name for expression in asked for name in question(expression).reads or ()}
    assert {row["name"] for row in rows("recording_rules")} <= read


def test_the_tests_of_shipped_rules_stand_with_them_and_pass(world: World) -> None:
    ship(world, tests=True)
    assert stored_tests.failing(RuleTest.objects.all()) == {}
    stored = set(RuleTest.objects.values_list("rule__slug", "name"))
    assert stored == {
        (row.get("slug"), test["name"])
        for name in ("alert_rules", "recording_rules")
        for row in rows(name)
        for test in row.get("tests", ())
    }


def test_a_shipped_test_refuses_no_change_of_its_rule_until_somebody_changes_it(world: World) -> None:
    row = next(row for row in rows("alert_rules") if row["slug"] == "slow-response")
    rule = services.ship_rule(row, by=SETUP, now=world.now)
    levels = [{"severity": "warning", "comparison": ">", "threshold": 99_999.0}]
    services.save_rule(by=SETUP, rule=rule, levels=levels, now=world.now)
    assert services.shipped_tests_that_fail(rule)
    changed = [{"name": test["name"], "text": test["text"] + "\n"} for test in row["tests"]]
    with pytest.raises(ValidationError):
        services.save_rule(by=SETUP, rule=rule, levels=levels, tests=changed, now=world.now)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_promtool_agrees_with_the_tests_of_shipped_rules(world: World, tmp_path: Path) -> None:
    ship(world, tests=True)
    tests = tmp_path / "tests"
    given = ("--target", "2.42", "--partial", "-o", str(tmp_path / "rules.yml"), "--tests", str(tests))
    call_command("rules", "export", *given, stdout=StringIO(), stderr=StringIO())
    files = sorted(map(str, tests.iterdir()))
    assert len(files) == RuleTest.objects.count()
    ran = subprocess.run(
        ["promtool", "test", "rules", *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_an_edited_default_stays_and_a_deleted_one_stays_away(world: World) -> None:
    ship(world)
    rule = AlertRule.objects.order_by("slug")[0]
    AlertRule.objects.filter(pk=rule.pk).update(name="Mine")
    gone = AlertRule.objects.order_by("slug")[1]
    services.delete_rule(by=SETUP, rule=gone, now=world.now)
    assert ship(world) == 0
    assert AlertRule.objects.get(pk=rule.pk).name == "Mine"
    assert not AlertRule.objects.filter(slug=gone.slug).exists()
