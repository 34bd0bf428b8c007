"""Packs young runs of records together, and deletes what is kept no longer or is too much. Run by a loop.

Packing, under an advisory lock of its own:
1. Read young runs of the oldest hour that is due (PACK_AFTER old, or PACK_RECORDS of them), as many as fit into memory.
2. Sort by template and time, write few large runs, delete exactly what was read, in one transaction.
3. Add what they hold to their templates: records, first and last seen.
"""

import logging
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final

import numpy as np
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest, Least

from apps.accounts import audit
from apps.accounts.permissions import Principal
from apps.core.telemetry import Gauge
from apps.metrics.codec import Corrupt
from apps.metrics.storage import cursor
from apps.sources.logs import columns, deletion, services, store
from apps.sources.logs.columns import Run, joined, part
from apps.sources.logs.records import datetime_of
from apps.sources.models import LogDeletion, LogShare, LogTemplate

log = logging.getLogger(__name__)

BY: Final = Principal.system("sources.logs")
PACK_AFTER: Final = timedelta(minutes=5)
PACK_RECORDS: Final = 20_000
READ_RECORDS: Final = 60_000
READ_CHARACTERS: Final = 48_000_000
"""One more run than fits is read at most: what is packed at once stays far under what a run may unpack to."""
ROWS: Final = 500
ROOM: Final = 0.95
"""Share of the bytes that is left where there were too many."""
GRACE: Final = timedelta(days=1)
SHARES: Final = timedelta(days=31)
"""How long it is kept who brought how much."""
SECONDS: Final = 20.0
"""For which one tick packs: what is left waits for the next."""

STORED: Final = Gauge("portal_log_stored_bytes", "Bytes that log records take, packed.")
KEPT: Final = Gauge("portal_log_records", "Log records that are kept.")
YOUNG: Final = Gauge("portal_log_young_runs", "Runs of log records that are not packed yet.")

_DUE: Final = """
SELECT t_min / 3600000 AS hour FROM sources_logrun WHERE is_young AND bad_at IS NULL
 GROUP BY 1 HAVING min(received_at) < %s OR sum(records) >= %s ORDER BY 1 LIMIT 1
"""
_YOUNG: Final = """
SELECT id, payload, size, received_at FROM (
    SELECT id, payload, size, received_at, sum(records) OVER (ORDER BY id) - records AS before,
           sum(size) OVER (ORDER BY id) - size AS characters
      FROM sources_logrun WHERE is_young AND bad_at IS NULL AND t_min / 3600000 = %s) AS rows
 WHERE before < %s AND characters < %s ORDER BY id
"""
_SIZES: Final = """
SELECT coalesce(sum(stored), 0), coalesce(sum(records), 0), count(*) FILTER (WHERE is_young) FROM sources_logrun
"""
_BEYOND: Final = """
SELECT t_max FROM (SELECT t_max, sum(stored) OVER (ORDER BY t_max DESC, id DESC) AS upto FROM sources_logrun) AS rows
 WHERE upto > %s ORDER BY t_max DESC LIMIT 1
"""
_EXPIRE: Final = """
DELETE FROM sources_logrun WHERE id = ANY(ARRAY(
    SELECT id FROM sources_logrun WHERE t_max < %s ORDER BY t_max LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING records, stored, t_min, t_max
"""


def tend(*, now: datetime) -> None:
    """Go on with deletions, pack what is due, delete what has to go, and say how much there is."""
    deletion.carry_out(now=now)
    until = monotonic() + SECONDS
    while pack(now=now) and monotonic() < until:
        pass
    expire(now=now)
    with cursor() as cur:
        cur.execute(_SIZES)
        stored, records, young = cur.fetchone() or (0, 0, 0)
    STORED.set(float(stored))
    KEPT.set(float(records))
    YOUNG.set(float(young))


def pack(*, now: datetime) -> int:
    """Make few large runs of the young ones of one hour; return how many it took (0: nothing is due)."""
    with transaction.atomic(), cursor() as cur:
        cur.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [store.LOCK])
        if not (cur.fetchone() or (False,))[0]:
            return 0
        if LogDeletion.objects.filter(applied_at=None).exists():
            return 0  # what it is about lies where it lay when it was asked for
        cur.execute(_DUE, [now - PACK_AFTER, PACK_RECORDS])
        due = cur.fetchone()
        if due is None:
            return 0
        cur.execute(_YOUNG, [due[0], READ_RECORDS, READ_CHARACTERS], binary=True)
        rows = cur.fetchall()
        good, runs = [], []
        for ident, payload, *_ in rows:
            try:
                runs.append(columns.decode(bytes(payload)))
                good.append(ident)
            except Corrupt as error:
                log.error("Log run %d is damaged and is set aside: %s.", ident, error)
                store.mark_bad(ident, now)
        if runs:
            _replace(cur, good, joined(runs), max(row[3] for row in rows))
    return len(rows)


def _replace(cur: Any, ids: list[int], run: Run, received: datetime) -> None:
    """Write the records anew, delete the rows that held them."""
    order = np.argsort(run.at, kind="stable")
    for begin in range(0, len(order), PACK_RECORDS):
        store.insert(part(run, order[begin : begin + PACK_RECORDS]), now=received, is_young=False)
    cur.execute("DELETE FROM sources_logrun WHERE id = ANY(%s)", [ids])
    if cur.rowcount != len(ids):
        raise RuntimeError("Log runs were deleted while they were packed; nothing was changed.")
    templates, counts = np.unique(run.template, return_counts=True)
    for ident, count in zip(templates.tolist(), counts.tolist(), strict=True):
        times = run.at[run.template == ident]
        LogTemplate.objects.filter(pk=ident).update(
            records=F("records") + count,
            first_at=Least("first_at", datetime_of(int(times.min()))),
            last_at=Greatest("last_at", datetime_of(int(times.max()))),
        )


def expire(*, now: datetime) -> int:
    """Delete records older than they are kept, or beyond the bytes that they may take; return how many runs."""
    oldest = now - services.kept()
    # By whole hours, as runs are cut: else every half minute would leave its proof.
    total = _delete_before(int(oldest.timestamp()) // 3600 * 3_600_000, "age")
    total += _over_budget()
    # A day longer than their records: a process may still put one under a template that it remembers.
    LogTemplate.objects.filter(last_at__lt=oldest - GRACE).delete()
    LogShare.objects.filter(day__lt=(now - SHARES).date()).delete()
    return total


def _over_budget() -> int:
    most = services.intake().stored_bytes
    with cursor() as cur:
        cur.execute(_SIZES)
        row = cur.fetchone()
        if row is None or row[0] <= most:
            return 0
        cur.execute(_BEYOND, [int(most * ROOM)])  # some room, so that the next tick does not come too late again
        row = cur.fetchone()
    return 0 if row is None else _delete_before(int(row[0]) + 1, "bytes")


def _delete_before(cutoff: int, reason: str) -> int:
    """Delete runs that end before the time (ms), few a statement, each with its proof in the audit trail."""
    total = 0
    while True:
        with transaction.atomic(), cursor() as cur:
            cur.execute(_EXPIRE, [cutoff, ROWS])
            gone = cur.fetchall()
            if gone:
                audit.record(
                    by=BY,
                    verb="sources.expire_logs",
                    target=("sources.logrun", "", "log records"),
                    after={
                        "reason": reason,
                        "older_than_ms": cutoff,
                        "runs": len(gone),
                        "records": sum(row[0] for row in gone),
                        "bytes": sum(row[1] for row in gone),
                        "from_ms": min(row[2] for row in gone),
                        "to_ms": max(row[3] for row in gone),
                    },
                )
        total += len(gone)
        if len(gone) < ROWS:
            return total
