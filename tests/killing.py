"""A child process that is killed in the middle of its work, for tests of what is left then."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from django.db import connection


def run_and_kill(program: str, first: int, seconds: float) -> tuple[list[int], list[int]]:
    """(numbers tried, numbers acknowledged) by a child that is killed some time after its first line of each.

    The program gets the name of the test's database and the first number, and writes `t7` as it begins with number 7,
    `a7` as that is acknowledged, and `e…` for what must not happen.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(connection.settings_dict["NAME"]), str(first)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "monitoring_portal.settings"},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        head = child.stdout.readline() + child.stdout.readline()
        assert head.startswith(b"t"), child.poll()
        time.sleep(seconds)
    finally:
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
    lines = (head + rest).split()
    assert [line for line in lines if line.startswith(b"e")] == []
    return (
        [int(line[1:]) for line in lines if line.startswith(b"t")],
        [int(line[1:]) for line in lines if line.startswith(b"a")],
    )
