"""Kill -9 at any moment: every acknowledged log record is there once, also where its sender sent it again.

A child process takes requests at the door of logs and packs them in a thread, and says on a pipe what it was sent and
what it acknowledged; this test kills it at random moments, has its successor be sent again what nobody acknowledged
(under the same key, as the senders do) and reads. `PORTAL_FAULT_SECONDS` sets for how long.
"""

import os
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.permissions import Scope
from apps.sources.logs import search, services
from apps.sources.logs.search import Wanted
from apps.sources.models import LogRun
from tests.killing import run_and_kill

SECONDS = float(os.environ.get("PORTAL_FAULT_SECONDS", "6"))
RECORDS = 4
"""Of each request."""

CHILD = f"""
import os, sys, threading
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
import orjson
from datetime import timedelta
from django.utils import timezone
from apps.accounts.permissions import Principal
from apps.accounts.rights import Right
from apps.core.lanes import Request
from apps.sources.logs import api, upkeep

by = Principal("token", "7", "agent", frozenset({{Right.INGEST}}))

def pack():
    try:
        while True:
            upkeep.pack(now=timezone.now() + timedelta(hours=1))
    except BaseException as error:  # a thread that died quietly would leave a test of the door alone
        os.write(1, b"e%s\\n" % repr(error).encode().replace(b" ", b"_"))
        os._exit(1)

threading.Thread(target=pack, daemon=True).start()
number = int(sys.argv[2])
while True:
    os.write(1, b"t%d\\n" % number)
    records = [{{"message": f"request {{number}} of {{n}}", "service": "web"}} for n in range({RECORDS})]
    body = orjson.dumps({{"key": f"k{{number}}", "records": records}})
    said = api.LANES["/api/v1/portal/logs"].serve(by, Request("POST", "/api/v1/portal/logs", b"", body))
    if said.status != 200:
        os.write(1, b"e%s\\n" % bytes(said.body).replace(b" ", b"_"))
    os.write(1, b"a%d\\n" % number)
    number += 1
"""


def stored() -> Counter[str]:
    """How often each message is there."""
    services.forget()
    now = int(datetime.now(tz=UTC).timestamp() * 1000)
    wanted = Wanted(now - 3_600_000, now + 60_000)
    page = search.page(wanted, scope=Scope(), limit=1000)
    found = Counter(line.message for line in page.lines)
    while page.cursor is not None:
        page = search.page(wanted, scope=Scope(), limit=1000, cursor=page.cursor)
        found.update(line.message for line in page.lines)
    counts = search.counts(wanted, scope=Scope(), step=timedelta(minutes=1)).levels
    assert sum(int(each.sum()) for each in counts.values()) == found.total()
    return found


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_loses_and_doubles_no_log_record() -> None:
    chance = random.Random(11)
    first, rounds, again = 1, 0, 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or rounds < 3:
        sent, acknowledged = run_and_kill(CHILD, first, chance.uniform(0.05, 0.8))
        rounds += 1
        last = max(acknowledged, default=first - 1)
        again += max(sent) > last
        first = last + 1
    found = stored()
    whole = {f"request {number} of {n}" for number in range(1, first) for n in range(RECORDS)}
    assert {message for message in whole if found[message] != 1} == set()
    # The last request was acknowledged by nobody: it is there once as a whole, or not at all.
    rest = {message: times for message, times in found.items() if message not in whole}
    assert rest in ({}, {f"request {first} of {n}": 1 for n in range(RECORDS)})
    assert LogRun.objects.filter(is_young=False).exists(), "nothing was packed meanwhile"
    assert again > 0, "no kill came in the middle of a request"
    assert first > 10 * rounds
