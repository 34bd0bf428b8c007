"""Whoever shows something to somebody hands on what that somebody may see: reads at the edges name their scope."""

import ast
import inspect
from pathlib import Path

import pytest

from apps.alerting import statistics
from apps.metrics import listing, query

ROOT = Path(__file__).resolve().parents[2]
READS = {
    f"{module.__name__.rpartition('.')[2]}.{name}"
    for module in (query, listing, statistics)
    for name, thing in vars(module).items()
    if inspect.isfunction(thing) and "scope" in inspect.signature(thing).parameters and not name.startswith("_")
} | {"query.Source"}
EDGES = sorted(
    path
    for pattern in (
        "dashboards/**/*.py", "*/api.py", "*/*_api.py", "*/prometheus_*.py", "*/admin.py", "*/views.py",
        "*/consumers.py", "*/exposition.py",
    )
    for path in (ROOT / "apps").glob(pattern)
)  # fmt: skip


@pytest.mark.parametrize("path", EDGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_read_at_the_edge_names_its_scope(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    silent = [
        f"line {call.lineno}: {ast.unparse(call.func)}"
        for call in calls
        if ast.unparse(call.func) in READS
        and "scope" not in {keyword.arg for keyword in call.keywords}
        and not any("scope" in ast.unparse(argument).lower() for argument in call.args)
    ]
    assert silent == []


def test_the_reads_are_known():
    assert {"query.select", "query.instant", "query.query_range", "listing.series", "statistics.stats"} <= READS
