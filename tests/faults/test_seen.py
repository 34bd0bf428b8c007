"""Which shipped rules have been seen firing and ending by a fault that was really made: every one."""

import ast
from pathlib import Path

from tests.faults.watch import shipped

HERE = Path(__file__).parent
ELSEWHERE = {
    "database-server-down", "replica-disconnected",  # tests/sources/test_replication.py: a stopped primary or replica
    "slow-endpoint", "outbound-host-failing",  # tests/e2e/test_application.py: another project under gunicorn
    "log-error-burst",  # tests/alerting/test_log_burst.py: records through the door
}  # fmt: skip


def watched() -> set[str]:
    """The slugs that a test of this folder gives to Watch."""
    found: set[str] = set()
    for file in HERE.glob("test_rules_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Watch":
                found |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def test_every_shipped_rule_is_seen_by_a_real_fault() -> None:
    assert watched() | ELSEWHERE == set(shipped("alert_rules"))
