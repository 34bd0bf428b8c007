"""`manage.py rules`: files in, files out, tests run, and what is said when something is wrong."""

import shutil
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.alerting import services
from apps.alerting.models import AlertRule, RuleGroup, RuleTest
from tests.alerting.conftest import SETUP, START, World
from tests.alerting.test_rulefiles_stored import FILE
from tests.alerting.test_ruletests import RULES, TESTS

HOT_TEST = """
tests:
- interval: 1m
  input_series:
  - {series: 'temperature{host="a"}', values: 70 85 95}
  alert_rule_test:
  - {alertname: Hot, eval_time: 0m}
  - alertname: Hot
    eval_time: 1m
    exp_alerts: [{exp_labels: {host: a, severity: warning}}]
  - alertname: Hot
    eval_time: 2m
    exp_alerts: [{exp_labels: {host: a, severity: warning}}, {exp_labels: {host: a, severity: critical}}]
"""


def run(*args: str) -> str:
    out = StringIO()
    call_command("rules", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_tests_of_files_pass_and_fail_like_promtools(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES)
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(f"rule_files: ['*les.yml']\n{TESTS}")
    assert "SUCCESS" in run("test", str(good))
    bad.write_text(f"rule_files: [rules.yml]\n{TESTS.replace('800m', '900m')}")
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 2 files failed") as error:
        call_command("rules", "test", str(good), str(bad), stdout=out)
    assert error.value.returncode == 1
    assert 'annotations {summary="/a takes 900m s on home"}' in out.getvalue()
    assert 'annotations {summary="/a takes 800m s on home"}' in out.getvalue()


def test_what_cannot_be_tested_is_said(tmp_path: Path) -> None:
    file = tmp_path / "t.yml"
    file.write_text("rule_files: [none.yml]\ntests: []\n")
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("rules", "test", str(file), stdout=out)
    assert "none.yml cannot be read" in out.getvalue()


@pytest.mark.django_db
def test_a_file_comes_in_and_goes_out(tmp_path: Path) -> None:
    file, out = tmp_path / "in.yml", tmp_path / "out.yml"
    file.write_text(FILE)
    assert "Would be: 5 new" in run("import", str(file), "--dry-run")
    assert not AlertRule.objects.exists()
    assert "+ new alert rule HighLoad (highload)" in run("import", str(file))
    run("export", "--target", "2.42", "-o", str(out))
    assert run("import", str(out)).strip() == "5 unchanged"
    assert run("export", "--target", "2.42") == out.read_text()


@pytest.mark.django_db
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "in.yml"
    file.write_text(FILE.replace("expr: absent", "expression: absent"))
    with pytest.raises(CommandError, match=r"in\.yml:\d+: the alert Gone has the unknown field 'expression'"):
        run("import", str(file))
    assert not RuleGroup.objects.exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
@pytest.mark.django_db
def test_exported_rules_and_tests_pass_under_promtool(world: World, tmp_path: Path) -> None:
    rule = world.rule()
    services.save_rule_test(by=SETUP, test=RuleTest(rule=rule, name="Hot days", text=HOT_TEST), now=START)
    tests = tmp_path / "tests"
    run("export", "--target", "2.42", "-o", str(tmp_path / "rules.yml"), "--tests", str(tests))
    files = [str(file) for file in tests.iterdir()]
    ran = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(files) == 1
    assert "SUCCESS" in run("test", *files)
