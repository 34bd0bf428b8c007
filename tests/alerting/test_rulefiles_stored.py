"""Rule files into the database and out of it: all or nothing, idempotent, byte for byte the same."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Forbidden, Principal
from apps.alerting import services
from apps.alerting.models import Alert, AlertRule, RecordingRule, RuleGroup, RuleTest
from apps.alerting.services.rulefiles import Report
from tests.alerting.conftest import SETUP, START, World
from tests.alerting.test_defaults import ship
from tests.alerting.test_services import ALICE, CHARLIE

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


@needs_promtool
def test_promtool_takes_all_shipped_rules_and_they_come_back(world: World, tmp_path: Path) -> None:
    ship(world)
    text = export("2.42")
    check_rules(tmp_path, text)
    assert {action for action, _, _ in actions(load(text))} == {"unchanged"}
    forget_rules()
    load(text)
    assert export("2.42") == text


def test_a_dry_run_says_the_same_and_writes_nothing() -> None:
    entries = AuditEntry.objects.count()
    planned = load(FILE, dry_run=True)
    assert not RuleGroup.objects.exists()
    assert AuditEntry.objects.count() == entries
    done = load(FILE)
    assert actions(planned) == actions(done)
    assert planned.as_dict()["counts"] == {"new": 5, "changed": 0, "unchanged": 0, "removed": 0, "kept": 0}


def test_what_changes_is_said_and_what_a_file_cannot_say_stays() -> None:
    load(FILE)
    AlertRule.objects.filter(slug="highload").update(runbook="Look.", type="system", cooldown=timedelta(hours=1))
    text = FILE.replace("for: 5m", "for: 10m").replace(">  4", "> 5").replace("interval: 1m", "interval: 30s")
    text = text.replace("avg by (host) (load1)", "max by (host) (load1)")
    report = load(text)
    assert [
        (change.slug or change.name, change.details) for change in report.changes if change.action == "changed"
    ] == [
        ("hosts", ("interval: 1m → 30s",)),
        ("host:load:mean", ("expression: avg by (host) (load1) → max by (host) (load1)",)),
        ("highload", ("levels: critical > 4 → critical > 5", "for: 5m → 10m")),
    ]
    rule = AlertRule.objects.get(slug="highload")
    assert (rule.runbook, rule.type, rule.cooldown) == ("Look.", "system", timedelta(hours=1))


def test_one_wrong_rule_keeps_all_others_out() -> None:
    text = FILE.replace("for: 5m", "for: 100d").replace("interval: 1m", "interval: 2d")
    with pytest.raises(ValidationError) as error:
        load(text)
    assert error.value.message_dict == {
        "file": ["f.yml:3: the group 'hosts': interval: Between 1 second and 1 day."],
    }
    with pytest.raises(ValidationError, match=r"f.yml:9: the alert HighLoad: pending_period: Between 0 seconds and 90"):
        load(FILE.replace("for: 5m", "for: 100d"))
    assert not AlertRule.objects.exists()


@pytest.mark.parametrize(
    ("remove", "gone"),
    [("nothing", set()), ("groups", {"gone", "host:load:mean"}), ("all", {"gone", "host:load:mean", "other", "rest"})],
)
def test_what_is_not_in_the_file_goes_only_where_that_is_asked_for(world: World, remove: str, gone: set[str]) -> None:
    load(FILE)
    world.rule("other", group=world.group("rest"))
    world.rule("off", group=RuleGroup.objects.get(name="hosts"), enabled=False)
    head, _, tail = FILE.partition("  - record")
    kept = head + "  - alert: HighLoad" + tail.partition("  - alert: HighLoad")[2].partition("  - alert: Gone")[0]
    report = load(kept, remove=remove)
    assert {change.slug or change.name for change in report.changes if change.action == "removed"} == gone
    assert AlertRule.objects.filter(slug="off").exists()
    assert ("kept", "alert rule", "off") in actions(report) or remove == "nothing"
    left = set(AlertRule.objects.values_list("slug", flat=True))
    assert left == {"highload", "highload-critical", "gone", "other", "off"} - gone


def test_a_group_stands_in_one_file_only() -> None:
    with pytest.raises(ValidationError, match=r"b.yml:3: the group 'hosts' stands in a.yml \(line 3\) already"):
        services.import_rules(by=ALICE, files=[("a.yml", FILE), ("b.yml", FILE)], now=START)


def test_a_label_that_follows_the_value_is_pointed_out() -> None:
    report = load(FILE.replace("severity: page", "severity: '{{ if gt $value 9.0 }}page{{ end }}'"))
    assert "f.yml:9: the label severity of HighLoad follows the value" in report.notes[0]


def test_an_export_refuses_by_name_what_cannot_be_said(world: World) -> None:
    rule = world.rule("soft", levels=[("warning", ">", 5.0)])
    rule.levels.update(comparison="", threshold=None, recovery_expression="down")
    world.rule("kept", keep_firing_for=60)
    world.rule("off", enabled=False)
    with pytest.raises(ValidationError) as error:
        export("2.37")
    kept, soft = error.value.messages
    assert kept == "The rule kept uses keep_firing_for (since 2.42); Prometheus 2.37 does not have that."
    assert soft.startswith("The rule soft has no plain counterpart for its recovery expression")
    found = services.export_rules(by=ALICE, target="2.37", partial=True)
    assert found.text.endswith("groups: []\n")
    assert len(found.refused) == 2
    assert "The rule off is switched off and was left out." in found.notes
    with pytest.raises(ValidationError, match="too old"):
        export("1.8")


def test_who_may_not_edit_may_not_import() -> None:
    with pytest.raises(Forbidden):
        services.import_rules(by=CHARLIE, files=[("f.yml", FILE)], now=START)
    assert services.export_rules(by=CHARLIE, target="3.0").text.endswith("groups: []\n")


def test_imported_rules_fire_as_their_text_says(world: World) -> None:
    load("""
groups:
- name: plain
  interval: 10s
  rules:
  - alert: Hot
    expr: 80 < temperature
    labels: {severity: page}
    annotations: {summary: '{{ $labels.host }} has {{ $value }}'}
  - alert: Gone
    expr: absent(temperature{host="b"})
""")
    world.tick(85.0, host="a")
    found = {alert.labels["alertname"]: alert for alert in Alert.objects.active()}
    assert found["Hot"].labels == {"alertname": "Hot", "host": "a", "severity": "page"}
    assert (found["Hot"].annotations, found["Hot"].severity) == ({"summary": "a has 85"}, "critical")
    assert found["Gone"].labels == {"alertname": "Gone", "host": "b"}
    world.tick(75.0, host="a")
    assert [alert.labels["alertname"] for alert in Alert.objects.active()] == ["Gone"]


FAILS = "tests: [{promql_expr_test: [{expr: '1', exp_samples: [{value: 2}]}]}]"
GONE = "tests: [{alert_rule_test: [{alertname: Gone, eval_time: 0, exp_alerts: [{exp_labels: {job: node}}]}]}]"


def test_an_import_that_breaks_a_test_is_refused_unless_somebody_insists() -> None:
    load(FILE)
    gone = AlertRule.objects.get(slug="gone")
    services.save_rule_test(by=SETUP, test=RuleTest(rule=gone, name="Gone at once", text=GONE), now=START)
    text = FILE.replace('absent(up{job="node"})', "absent(up)")
    assert len(load(text, dry_run=True).failing) == 1
    with pytest.raises(ValidationError, match="Gone at once: alertname: Gone"):
        load(text)
    assert AlertRule.objects.get(slug="gone").expression == 'absent(up{job="node"})'
    load(text, although_tests_fail=True)
    entry = AuditEntry.objects.filter(verb="alerting.import_rules").latest("id")
    assert entry.after is not None
    assert len(entry.after["saved_although_failed"]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FAILS, "expected"),
        ("tests: []", "It expects nothing"),
        ("rule_files: [x]\n" + FAILS, "rule_files has no place here"),
        ("tests: {", "Line 2"),
    ],
)
def test_a_test_that_fails_or_is_none_is_not_kept(world: World, text: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        services.save_rule_test(by=SETUP, test=RuleTest(rule=world.rule(), name="t", text=text), now=START)
    assert not RuleTest.objects.exists()


def test_a_rule_that_breaks_the_test_of_its_group_is_refused(world: World) -> None:
    rule = world.rule()
    test = RuleTest(group=rule.group, name="t", text=HOT.replace("Hot", rule.name))
    services.save_rule_test(by=SETUP, test=test, now=START)
    rule.expression = "temperature + 50"
    with pytest.raises(ValidationError, match="alertname: Hot"):
        services.save_rule(by=SETUP, rule=rule, levels=[{"severity": "warning", "comparison": ">", "threshold": 80.0}],
                           now=START)  # fmt: skip


HOT = "tests: [{input_series: [{series: temperature, values: 70}], alert_rule_test: [{alertname: Hot, eval_time: 0}]}]"


def test_an_import_runs_tests_of_other_groups_that_read_what_it_records(world: World) -> None:
    rule = world.rule(expression="host:load:mean")
    text = HOT.replace("series: temperature", "series: 'load1{host=\"a\"}'")
    load(FILE)
    services.save_rule_test(by=SETUP, test=RuleTest(rule=rule, name="t", text=text), now=START)
    with pytest.raises(ValidationError, match="alertname: Hot"):
        load(FILE.replace("avg by (host) (load1)", "avg by (host) (load1) + 50"))


def test_more_rules_than_a_request_can_wait_for_are_refused_but_by_the_command(monkeypatch):
    monkeypatch.setattr("apps.alerting.services.rulefiles.MOST_RULES", 1)
    text = "groups:\n- name: g\n  rules:\n  - {record: a, expr: '1'}\n  - {record: b, expr: '2'}\n"
    with pytest.raises(ValidationError, match="2 rules are more than the 1"):
        services.import_rules(by=Principal.system("test", via="api"), files=[("f", text)], now=START)
    services.import_rules(by=Principal.system("test", via="command"), files=[("f", text)], now=START)


CEPH = Path("/etc/prometheus/ceph/ceph_default_alerts.yml")


@pytest.mark.skipif(not CEPH.exists(), reason="Debian's ceph-prometheus-alerts is not here")
def test_the_alerts_of_ceph_come_in_whole_and_again_without_a_change():
    text = CEPH.read_text()
    rules = text.count("- alert:")
    report = services.import_rules(by=ALICE, files=[("ceph.yml", text)], now=START)
    assert rules > 50
    assert report.counts()["new"] == rules + text.count("- name:")
    again = services.import_rules(by=ALICE, files=[("ceph.yml", text)], now=START)
    assert {change.action for change in again.changes} == {"unchanged"}
