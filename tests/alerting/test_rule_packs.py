"""More than 300 alert rules of the kinds that people write, as one file: all come in, and go out as promtool wants."""

import shutil
import subprocess
from pathlib import Path

import pytest

from apps.accounts.rights import Principal
from apps.alerting import rulefiles, services
from apps.alerting.models import AlertRule
from tests.alerting.conftest import START, World

PACKS = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "rule_packs").glob("*.yml"))
BY = Principal.system("test", via="command")
PROMTOOL = shutil.which("promtool")


def one_file() -> str:
    """All packs as one rule file."""
    return "groups:\n" + "".join(pack.read_text().partition("groups:\n")[2] for pack in PACKS)


def test_the_packs_hold_more_than_300_distinct_alert_rules():
    found = rulefiles.read_all([(pack.name, pack.read_text()) for pack in PACKS])
    alerts = [alert for group in found.groups for alert in group.alerts]
    assert len(alerts) > 300
    assert len({alert.name for alert in alerts}) == len(alerts)
    assert len({" ".join(alert.expression.split()) for alert in alerts}) == len(alerts)


@pytest.mark.django_db
def test_one_file_of_all_packs_comes_in_whole_and_again_changes_nothing(world: World):
    first = services.import_rules(by=BY, files=[("packs.yml", one_file())], now=START)
    assert AlertRule.objects.count() > 300, first
    again = services.import_rules(by=BY, files=[("packs.yml", one_file())], now=START)
    assert {change.action for change in again.changes} == {"unchanged"}


@pytest.mark.django_db
def test_what_goes_out_comes_in_as_the_same_rules(world: World, tmp_path: Path):
    services.import_rules(by=BY, files=[("packs.yml", one_file())], now=START)
    out = services.export_rules(by=BY, target="2.42").text
    again = services.import_rules(by=BY, files=[("export.yml", out)], now=START)
    assert {change.action for change in again.changes} == {"unchanged"}
    if PROMTOOL is not None:
        (tmp_path / "rules.yml").write_text(out)
        command = [PROMTOOL, "check", "rules", "rules.yml"]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH; CI installs the package prometheus")
@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.stem)
def test_promtool_takes_each_pack(pack: Path):
    said = subprocess.run([str(PROMTOOL), "check", "rules", str(pack)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
