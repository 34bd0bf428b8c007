"""Prometheus' own test scripts, where they lie beside the project: all of them pass, and the page says so."""

import pytest

from tests.promql.score import PAGE, RUNNER, SCRIPTS, evals, page, scores

PLAIN = 951
"""All evals without experimental features."""
ALL = 1272
"""All evals with experimental features too."""


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS.is_dir() or not RUNNER.is_file(), reason="no conformance scripts beside the project")
def test_prometheus_own_scripts_pass() -> None:
    ran = evals()
    failed = [f"{each['file']}:{each['line']} {each['detail']}" for each in ran if each["status"] == "fail"]
    total = scores(ran)["total"]
    assert (total.plain, total.passed) == (PLAIN, ALL), failed
    assert not [each for each in ran if each["kind"] == "crash"]
    repeated = [each for each in ran if "fail" in (each.get("range_mode"), each.get("at_mode"))]
    assert not repeated
    assert PAGE.read_text() == page(ran), "out of date: run `python -m tests.promql.score`"
