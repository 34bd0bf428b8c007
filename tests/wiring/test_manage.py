"""Django's command line knows which commands need a running portal."""

import runpy
import sys
from pathlib import Path

import pytest

NEEDS = runpy.run_path(str(Path(__file__).resolve().parents[2] / "manage.py"))["needs"]


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("rules test rules_test.yml", "none"),
        ("rules import rules.yml --dry-run", "running"),
        ("rules export --help", "none"),
        ("monitoring health", "none"),
        ("monitoring on", "running"),
        ("check --deploy", "none"),
        ("docs", "any"),
        ("migrate", "running"),
        ("", "none"),
    ],
)
def test_servers_are_asked_for_where_a_command_needs_them(monkeypatch, words, needed):
    monkeypatch.setattr(sys, "argv", ["manage.py", *words.split()])
    assert NEEDS() == needed
