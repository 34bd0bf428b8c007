"""Our own scripts: what Prometheus' scripts do not ask of floats, the portal's extensions, budgets."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.promql.promqltest import Case, cases
from tests.promql.score import ROOT, RUNNER

FOLDER = Path(__file__).parent / "scripts"
ALL = [(path, case) for path in sorted(FOLDER.glob("*.test")) for case in cases(path)]


@pytest.mark.parametrize("case", [case for _, case in ALL], ids=[f"{path.stem}:{case.line}" for path, case in ALL])
def test_scripts_pass(case: Case) -> None:
    case.check()


@pytest.mark.parametrize(
    ("eval_lines", "wrong"),
    [
        ("eval instant at 1m x\n  x 3\n", "instead of"),
        ("eval instant at 1m x\n  y 2\n", "__name__"),
        ("eval instant at 1m x\n", "__name__"),
        ('eval instant at 1m x\n  x 2\n  x{a="b"} 2\n', "__name__"),
        ("eval instant at 1m x\n  expect fail\n", "expected to fail"),
        ("eval instant at 1m x +\n  x 2\n", "unexpected end"),
        ("eval instant at 1m rate(x[5m])\n  expect no_info\n  {} 0.01\n", "might not be a counter"),
        ("eval instant at 1m x\n  expect warn\n  x 2\n", "no warn"),
        ("eval instant at 1m 1\n  2\n", "scalar|1m|1"),
        ("eval range from 0 to 1m step 1m x\n  x 1 2 3\n", "more than 2 steps"),
        ("eval range from 0 to 1m step 1m x\n  x 1 _\n", "instead of"),
        ('eval instant at 1m 1 / 0 + "a"\n  expect fail msg: no\n', "must contain only scalar"),
    ],
)
def test_the_reader_notices_what_is_wrong(tmp_path: Path, eval_lines: str, wrong: str) -> None:
    script = tmp_path / "wrong.test"
    script.write_text(f"load 1m\n  x 1 2\n\n{eval_lines}")
    [case] = cases(script)
    with pytest.raises(AssertionError, match=wrong):
        case.check()


@pytest.mark.skipif(not RUNNER.is_file(), reason="no other runner of scripts beside the project")
def test_another_runner_of_the_format_agrees() -> None:
    names = [path for path in sorted(FOLDER.glob("*.test")) if path.stem != "budgets"]
    done = subprocess.run(
        [sys.executable, RUNNER, *names, "--plugin", "tests.promql.adapter:Adapter", "--min-pass", "1"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
