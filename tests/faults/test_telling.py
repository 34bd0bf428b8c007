"""SIGKILL of who tells, and the broker gone: every message arrives, in order, and hardly any twice.

`PORTAL_FAULT_ALERTS` and `PORTAL_FAULT_KILLS` make it longer; `./portal bench faults --telling` is the long run.
"""

import os
from pathlib import Path

import pytest

from tests.faults.telling import PARTS, TellingRun

ALERTS = int(os.environ.get("PORTAL_FAULT_ALERTS", "120"))
KILLS = int(os.environ.get("PORTAL_FAULT_KILLS", "8"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("portal-crashes")]


def test_no_message_is_lost_whoever_of_those_that_tell_is_killed(tmp_path: Path) -> None:
    told = TellingRun(tmp_path).go(alerts=ALERTS, a_second=10, kills=KILLS)
    assert told.missing == []
    assert told.misordered == []
    assert told.told_again == 0
    # What had reached its receiver and was not written down yet: at most one message a contact and kill.
    assert told.doubled <= 5 * len(told.kills)
    assert {kill.part for kill in told.kills} <= set(PARTS)
    assert len(told.kills) > KILLS / 2
