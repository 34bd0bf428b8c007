"""SIGKILL of every part under load: every acknowledged sample is there once, and all that a Prometheus holds is, too.

`PORTAL_FAULT_SECONDS` sets for how long the parts are killed; `./portal bench faults` runs it for ten minutes.
"""

import os
from pathlib import Path

import pytest

from tests.faults.peer import PROGRAM
from tests.faults.run import PARTS, Run

SECONDS = float(os.environ.get("PORTAL_FAULT_SECONDS", "10"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("portal-crashes")]


def test_nothing_acknowledged_is_lost_or_doubled_whoever_is_killed(tmp_path: Path) -> None:
    outcome = Run(tmp_path).go(SECONDS, prometheus=PROGRAM is not None)
    found = outcome.account
    assert found.refused == []
    assert found.unsent == 0
    assert (found.whole.missing, found.whole.doubled) == (0, 0), found
    assert found.whole.acknowledged == found.whole.stored > 1000
    assert {kill.part for kill in outcome.kills} == set(PARTS)
    if outcome.peer is not None:
        assert (outcome.peer.missing, outcome.peer.different, outcome.peer.unheld) == (0, 0, 0), outcome.peer
        assert outcome.peer.markers > 0
