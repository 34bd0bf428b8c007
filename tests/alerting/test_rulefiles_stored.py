"""Rule files into the database and out of it: all or nothing, idempotent, byte for byte the same."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from apps.accounts.models import AuditEntry
from apps.alerting import services
from apps.alerting.models import AlertRule, RecordingRule, RuleGroup
from apps.alerting.services.rulefiles import Report
from tests.alerting.conftest import START, World
from tests.alerting.test_services import ALICE

pytestmark = pytest.mark.django_db
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")

FILE = """
groups:
- name: hosts
  interval: 1m
  rules:
  - record: host:load:mean
    expr: avg by (host) (load1)
    labels: {team: web}
  - alert: HighLoad
    expr: host:load:mean  >  4   # many
    for: 5m
    keep_firing_for: 1m
    labels: {severity: page}
    annotations:
      summary: |
        {{ $labels.host }} is at {{ $value }}.
        Look at it.
  - alert: HighLoad
    expr: 8 < host:load:mean
    labels: {severity: critical}
  - alert: Gone
    expr: absent(up{job="node"})
"""


def load(text: str, **kw: object) -> Report:
    return services.import_rules(by=ALICE, files=[("f.yml", text)], now=START, **kw)  # type: ignore[arg-type]


def export(target: str = "2.42") -> str:
    return services.export_rules(by=ALICE, target=target).text


def actions(report: Report) -> list[tuple[str, str, str]]:
    return [(change.action, change.kind, change.slug or change.name) for change in report.changes]


def forget_rules() -> None:
    AlertRule.objects.all().delete()
    RecordingRule.objects.all().delete()
    RuleGroup.objects.all().delete()


def check_rules(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(text)
    ran = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}\n{text}"


def test_an_import_keeps_what_the_file_says() -> None:
    load(FILE)
    high, critical, gone = (AlertRule.objects.get(slug=slug) for slug in ("highload", "highload-critical", "gone"))
    assert (high.expression, str(high.levels.get())) == ("host:load:mean", "critical > 4")
    assert high.labels == {"severity": "page"}
    assert (high.pending_period, high.keep_firing_for) == (timedelta(minutes=5), timedelta(minutes=1))
    assert str(critical.levels.get()) == "critical > 8"
    assert critical.labels == {}
    assert (gone.expression, str(gone.levels.get())) == ('absent(up{job="node"})', "warning")
    assert gone.labels == {"severity": "{{ $labels.severity }}"}
    assert RecordingRule.objects.get().labels == {"team": "web"}
    assert RuleGroup.objects.get(name="hosts").interval == timedelta(minutes=1)
    assert AuditEntry.objects.filter(verb="alerting.import_rules", actor_name="alice").count() == 1


def test_the_same_file_twice_changes_nothing() -> None:
    load(FILE)
    assert {action for action, _, _ in actions(load(FILE))} == {"unchanged"}


def test_out_in_and_out_again_are_the_same_bytes(world: World) -> None:
    load(FILE)
    world.rule("slow", "latency or vector(1)", service="shop", labels={"team": "{{ $labels.x }}"})
    world.rule("odd", "scalar(up)", levels=[("info", ">=", -1.5)], labels={"severity": "P5"}, service="a{{b")
    world.record("a:b", "b:c * 2")
    world.record("b:c", "sum(up)")
    first = export()
    assert {action for action, _, _ in actions(load(first))} == {"unchanged"}
    forget_rules()
    assert {action for action, _, _ in actions(load(first))} == {"new"}
    assert export() == first
    assert {level.severity for level in AlertRule.objects.get(slug="slow").levels.all()} == {"warning", "critical"}


@needs_promtool
def test_promtool_takes_the_shipped_rules_and_those_of_a_file(world: World, tmp_path: Path) -> None:
    load(FILE)
    world.rule("slow", "latency or vector(1)", service="shop")
    check_rules(tmp_path, export())
