"""Which shipped rules have been seen firing and ending by a fault that was really made, and why the others have not."""

import ast
from pathlib import Path

from tests.faults.watch import shipped

HERE = Path(__file__).parent
ELSEWHERE = {
    "database-server-down", "replica-disconnected",  # tests/sources/test_replication.py: a stopped primary or replica
    "slow-endpoint", "outbound-host-failing",  # tests/e2e/test_application.py: another project under gunicorn
    "log-error-burst",  # tests/alerting/test_log_burst.py: records through the door
}  # fmt: skip

NOT_SEEN = {
    "revenue-drop": "a band is learned over weeks: tests/alerting/test_shipped_bands.py plays five of them",
    "unusual-user-behaviour": "a band is learned over weeks: tests/alerting/test_shipped_bands.py plays five of them",
    "store-room-low": "by series; a full disk under the portal's own data is tests/faults/run.py's business",
    "store-room-going": "by series: it looks at six hours of a disk",
}
"""Each of them has unit tests of its own, which stand with it."""


def watched() -> set[str]:
    """The slugs that a test of this folder gives to Watch."""
    found: set[str] = set()
    for file in HERE.glob("test_rules_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Watch":
                found |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def test_every_shipped_rule_is_seen_by_a_real_fault_or_says_why_not() -> None:
    seen = watched() | ELSEWHERE
    assert set(shipped("alert_rules")) == seen | set(NOT_SEEN)
    assert not seen & set(NOT_SEEN)
