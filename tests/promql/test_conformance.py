"""Prometheus' own test scripts, where they lie beside the project: the score may not fall."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
RUNNER = SHARED / "tools" / "promqltest.py"
SCRIPTS = SHARED / "promqltest"

PLAIN = 951
"""All evals without experimental features."""
ALL = 1272
"""All evals with experimental features too."""


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS.is_dir() or not RUNNER.is_file(), reason=f"no conformance scripts in {SHARED.name}/")
def test_prometheus_own_scripts_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, RUNNER, SCRIPTS, "--plugin", "tests.promql.adapter:Adapter", "--json", report],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    evals = json.loads(report.read_text())["evals"]
    ran = [each for each in evals if each["status"] != "skip"]
    plain = [each for each in ran if not each["experimental"]]
    failed = [f"{each['file']}:{each['line']} {each['detail']}" for each in plain if each["status"] == "fail"]
    assert sum(each["status"] == "pass" for each in plain) >= PLAIN, failed
    assert sum(each["status"] == "pass" for each in ran) >= ALL
    assert not [each for each in ran if each["kind"] == "crash"]
    repeated = [each for each in ran if "fail" in (each.get("range_mode"), each.get("at_mode"))]
    assert not repeated
