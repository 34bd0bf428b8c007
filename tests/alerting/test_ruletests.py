"""promtool's tests of rules on our own clock: notation, recording rules that feed alerts, and what a failure says."""

import shutil
import subprocess
from pathlib import Path

import pytest

from apps.alerting import plainrules, rulefiles, ruletests

RULES = """
groups:
- name: requests
  interval: 30s
  rules:
  - alert: Slow
    expr: path:latency:mean > 0.5
    for: 2m
    keep_firing_for: 2m
    labels:
      severity: warning
      team: '{{ $labels.path }}-team'
    annotations:
      summary: '{{ $labels.path }} takes {{ $value | humanize }} s on {{ $externalLabels.site }}'
  - record: path:latency:mean
    expr: avg by (path) (latency)
"""

TESTS = """
evaluation_interval: 1m
tests:
- name: slow for a while
  interval: 1m
  external_labels:
    site: home
  input_series:
  - series: latency{path="/a", host="x"}
    values: 0.1 0.7x4 0.1x9
  - series: latency{path="/a", host="y"}
    values: 0.1 0.9x4 0.1x9
  - series: latency{path="/b", host="x"}
    values: 0.1x3 _x2 stale
  alert_rule_test:
  - alertname: Slow
    eval_time: 2m
  - alertname: Slow
    eval_time: 3m30s
    exp_alerts:
    - exp_labels: {path: /a, severity: warning, team: /a-team}
      exp_annotations:
        summary: /a takes 800m s on home
  - alertname: Slow
    eval_time: 7m
    exp_alerts:
    - exp_labels: {path: /a, severity: warning, team: /a-team}
      exp_annotations: {summary: /a takes 800m s on home}
  - alertname: Slow
    eval_time: 8m
  promql_expr_test:
  - expr: path:latency:mean
    eval_time: 4m
    exp_samples:
    - {labels: 'path:latency:mean{path="/a"}', value: 0.8}
    - {labels: 'path:latency:mean{path="/b"}', value: 0.1}
  - expr: count_over_time(ALERTS{alertstate="firing"}[20m])
    eval_time: 10m
    exp_samples:
    - {labels: '{alertname="Slow", alertstate="firing", path="/a", severity="warning", team="/a-team"}', value: 5}
  - expr: path:latency:mean{path="/b"}
    eval_time: 6m
    exp_samples: []
  - expr: sum(latency) * 1
    eval_time: 0
    exp_samples:
    - {labels: '{}', value: 3.0000000000000004e-1}
"""


def failures(tests: str, rules: str = RULES) -> list[str]:
    groups = plainrules.plans(rulefiles.read(rules).groups)
    return ruletests.run(ruletests.read(tests), groups)


def promtool(tmp_path: Path, tests: str, rules: str = RULES) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "tests.yml").write_text(f"rule_files: [rules.yml]\n{tests}")
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")


def test_recording_rules_feed_alerts_on_a_simulated_clock() -> None:
    assert failures(TESTS) == []


@needs_promtool
def test_promtool_agrees(tmp_path: Path) -> None:
    # There the recording rule has to come first; here its place in the file does not matter.
    head, alert, record = RULES.partition("  - alert")[0], *RULES.partition("  - alert")[2].split("  - record")
    ran = promtool(tmp_path, TESTS, f"{head}  - record{record}  - alert{alert}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
