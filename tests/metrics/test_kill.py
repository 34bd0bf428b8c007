"""Kill -9 at any moment: nothing acknowledged is lost, nothing is there twice, and the next process goes on.

A child process ingests (one or two at a time, which share a commit), compacts and merges in threads and says on a pipe
what it is about to write and what was acknowledged; this test kills it at random moments and reads.
`PORTAL_FAULT_SECONDS` sets for how long (CI: 30).
"""

import os
import random
import time

import pytest

from apps.metrics import catalog, query, storage, young
from apps.promql.source import Matcher
from tests.killing import run_and_kill

SECONDS = float(os.environ.get("PORTAL_FAULT_SECONDS", "30" if os.environ.get("CI") else "8"))
SERIES = 50
START = 1_793_534_400_000

CHILD = f"""
import os, sys, threading
import django
from django.conf import settings
name = sys.argv[1]
settings.DATABASES["default"]["NAME"] = name
django.setup()
import numpy as np
from datetime import datetime, timedelta, UTC
from django.db import connection
from apps.accounts.permissions import Principal
from apps.metrics import compaction, services
from apps.metrics.samples import Samples

compaction.BLOCK_SAMPLES = 1000
START, SERIES = {START}, {SERIES}
by = Principal.system("test")
now = datetime.fromtimestamp(START / 1000, tz=UTC) + timedelta(minutes=5)

def compact():
    while True:
        compaction.compact_log(now=now)

def merge():
    turn = 0
    while True:
        turn += 1
        due = compaction.Due(0, START // 7_200_000 * 7_200_000, turn % 5 == 0)
        compaction.merge_window(due=due, now=now)

def loud(body):
    try:
        body()
    except BaseException as error:  # A thread that died quietly would leave a test of ingest alone.
        os.write(1, b"e%s\\n" % repr(error).encode().replace(b" ", b"_"))
        os._exit(1)

for body in (compact, merge):
    threading.Thread(target=loud, args=(body,), daemon=True).start()
number = int(sys.argv[2])
labels = [{{"__name__": "x", "n": str(n)}} for n in range(SERIES)]
while True:
    some = range(number, number + 1 + number % 3)
    os.write(1, b"".join(b"t%d\\n" % one for one in some))
    with services.one_commit():
        for one in some:
            samples = Samples.of(labels, np.full(SERIES, START + one), np.full(SERIES, float(one)))
            services.ingest(samples=samples, by=by, now=now, window=None)
    os.write(1, b"".join(b"a%d\\n" % one for one in some))
    number = some.stop
"""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_at_any_moment_loses_and_doubles_nothing():
    chance = random.Random(11)
    tried: set[int] = set()
    acknowledged: set[int] = set()
    rounds = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or rounds < 2:
        attempts, done = run_and_kill(CHILD, max(tried, default=0) + 1, chance.uniform(0.05, 0.8))
        tried.update(attempts)
        acknowledged.update(done)
        rounds += 1
        catalog.forget()
        storage.forget()
        young.forget()
        got = query.select([Matcher("__name__", "=", "x")], 0, START + 10**9)
        assert got.warnings == ()
        assert got.size == SERIES
        for row in range(SERIES):
            part = slice(got.off[row], got.off[row + 1])
            found = (got.ts[part] - START).tolist()
            assert got.v[part].tolist() == found
            assert len(set(found)) == len(found)
            assert acknowledged <= set(found) <= tried
    assert len(acknowledged) > 10 * rounds
