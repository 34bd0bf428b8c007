"""Writes docs/generated/promql-score.md: what Prometheus' own scripts say of the engine, script by script.

    python -m tests.promql.score

They lie beside the project; where they do not, the page stays as it is. A test holds page and score together.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
SHARED: Final = ROOT.parent / "shared"
RUNNER: Final = SHARED / "tools" / "promqltest.py"
SCRIPTS: Final = SHARED / "promqltest"
PAGE: Final = ROOT / "docs" / "generated" / "promql-score.md"


class Score(NamedTuple):
    """Evals of one script: passed and run without experimental features, and all of them."""

    plain: int
    plain_run: int
    passed: int
    run: int


def evals() -> list[dict[str, Any]]:
    """Every eval of the scripts that works on floats, as the runner reports it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [sys.executable, RUNNER, SCRIPTS, "--plugin", "tests.promql.adapter:Adapter", "--json", report],
            cwd=ROOT,
            check=False,
            capture_output=True,
        )
        found: list[dict[str, Any]] = json.loads(report.read_text())["evals"]
    return [each for each in found if each["status"] != "skip"]


def scores(ran: list[dict[str, Any]]) -> dict[str, Score]:
    """By script, and "total" last."""
    counts: dict[str, Counter[str]] = {}
    for each in ran:
        for name in (Path(each["file"]).stem, "total"):
            count = counts.setdefault(name, Counter())
            kinds = ("run",) if each["experimental"] else ("run", "plain_run")
            count.update(kinds)
            if each["status"] == "pass":
                count.update({"run": "passed", "plain_run": "plain"}[kind] for kind in kinds)
    order = [*sorted(counts.keys() - {"total"}), "total"]
    return {name: Score(*(counts[name][kind] for kind in Score._fields)) for name in order}


def page(ran: list[dict[str, Any]]) -> str:
    rows = [
        f"| {name} | {_share(score.plain, score.plain_run)} | {_share(score.passed, score.run)} |"
        for name, score in scores(ran).items()
    ]
    modes = {mode: sum(each.get(mode) == "pass" for each in ran) for mode in ("range_mode", "at_mode")}
    return "\n".join(
        [
            "# PromQL score",
            "",
            "_Written by `python -m tests.promql.score`; a test holds it together with what it measures._",
            "",
            "Prometheus' own test scripts of August 2026, evals on floats. Those with native histograms or start",
            "timestamps do not count: the store keeps floats. Experimental is what Prometheus has behind a flag.",
            "",
            "| script | without experimental features | all |",
            "|---|---|---|",
            *rows,
            "",
            f"Besides, {modes['range_mode']} instant evals are repeated in range mode,",
            f"and {modes['at_mode']} pinned with `@`.",
            "",
        ]
    )


def _share(passed: int, run: int) -> str:
    return f"{passed} / {run}" if run else ""


if __name__ == "__main__":
    PAGE.write_text(page(evals()))
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
