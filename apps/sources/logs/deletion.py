"""Deletes log records on request: runs that hold some are rewritten in their place, exactly, each once.

1. `begin` writes the row that says which, under the lock of packing: what was stored until then lies in runs up to
   `last`, and stays there, for nothing is packed while a deletion is open.
2. `carry_out` goes through those runs by ascending id. What is meant leaves the row that holds it, with the counts
   beside it; a row of which nothing is left goes. How far it came is written in the same transaction: a process killed
   anywhere has done a part and goes on behind it.
3. When no run is left the deletion is applied, and the audit trail has an entry with the runs rewritten and the records
   that went. A damaged run cannot be rewritten: it is set aside as ever, and nobody reads it.
"""

import logging
from dataclasses import asdict
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final

import numpy as np
from django.db import transaction

from apps.accounts import audit
from apps.accounts.permissions import Principal, Scope
from apps.metrics.codec import Corrupt, Int64
from apps.metrics.storage import cursor
from apps.sources.logs import columns, search, store
from apps.sources.logs.columns import part
from apps.sources.logs.search import Wanted
from apps.sources.models import LogDeletion

log = logging.getLogger(__name__)

BY: Final = Principal.system("sources.logs")
FIRST_MS: Final = 0
LAST_MS: Final = 253_402_214_400_000
"""9999-12-31, which all stretches of 15 s fit into: everything that is stored lies before."""
SECONDS: Final = 20.0
"""For which one tick deletes."""
AT_ONCE: Final = 4
CHARACTERS: Final = 32_000_000
"""Runs that are looked through in one transaction, by number and by what they unpack to; one at least."""

_NEXT: Final = """
SELECT id, payload, is_young FROM (
    SELECT id, payload, is_young, sum(size) OVER (ORDER BY id) - size AS characters FROM sources_logrun
     WHERE id > %(reached)s AND id <= %(last)s AND t_max >= %(start)s AND t_min < %(end)s AND bad_at IS NULL
       AND (%(templates)s::bigint[] IS NULL OR templates && %(templates)s::bigint[])
     ORDER BY id LIMIT %(most)s) AS rows
 WHERE characters <= %(characters)s ORDER BY id
"""


def names_something(wanted: Wanted) -> bool:
    """Whether it means less than everything that is stored."""
    return wanted != Wanted(FIRST_MS, LAST_MS)


def preview(wanted: Wanted, *, scope: Scope) -> search.Counts:
    """Count by level what would go, as far as a search may look. Raises BadSearch."""
    return search.counts(wanted, scope=scope, step=timedelta(milliseconds=wanted.end - wanted.start))


def begin(wanted: Wanted, *, by: Principal, now: datetime) -> LogDeletion:
    """Write down what is to go, of what they may see, in the caller's transaction; waits for a round of packing."""
    with cursor() as cur:
        cur.execute("SELECT pg_advisory_xact_lock(%s, 0)", [store.LOCK])
        cur.execute("SELECT nextval(pg_get_serial_sequence('sources_logrun', 'id'))")
        (last,) = cur.fetchone() or (0,)
    scope = [list(matcher) for matcher in by.scope.matchers]
    return LogDeletion.objects.create(wanted=asdict(wanted), scope=scope, by=by.name[:200], created_at=now, last=last)


def carry_out(*, now: datetime, seconds: float = SECONDS) -> int:
    """Go on with open deletions for so many seconds; return how many are still open."""
    until = monotonic() + seconds
    left = 0
    for ident in LogDeletion.objects.filter(applied_at=None).order_by("pk").values_list("pk", flat=True):
        while not (is_done := _go_on(ident, now)) and monotonic() < until:
            pass
        left += not is_done
    return left


def wanted_of(row: LogDeletion) -> Wanted:
    """Return the filter of a deletion."""
    return Wanted(**{**row.wanted, "levels": tuple(row.wanted["levels"])})


def _go_on(ident: int, now: datetime) -> bool:
    """Look through the next runs of a deletion, in one transaction; tell whether it is over."""
    with transaction.atomic(), cursor() as cur:
        cur.execute("SELECT pg_advisory_xact_lock(%s, 0)", [store.LOCK])
        row = LogDeletion.objects.select_for_update().filter(pk=ident, applied_at=None).first()
        if row is None:
            return True
        wanted = wanted_of(row)
        scope = Scope(tuple((name, operator, value) for name, operator, value in row.scope))
        ids = search.chosen(wanted, scope, most=None)
        few = None if ids is None or len(ids) > store.FEW else ids.tolist()
        asked = {"reached": row.reached, "last": row.last, "start": wanted.start, "end": wanted.end, "templates": few}
        cur.execute(_NEXT, {**asked, "most": AT_ONCE, "characters": CHARACTERS}, binary=True)
        found = cur.fetchall()
        for run, payload, is_young in found:
            gone = _cut(run, bytes(payload), is_young, wanted, ids, now)
            row.records += gone
            row.runs += gone > 0
            row.reached = run
        if not found:
            row.applied_at = now
            _prove(row)
        row.save()
    return not found


def _cut(ident: int, payload: bytes, is_young: bool, wanted: Wanted, ids: Int64 | None, now: datetime) -> int:
    """Take out of a run what is wanted; return how many records went."""
    try:
        run = columns.decode(payload)
    except Corrupt as error:
        log.error("Log run %d is damaged and is set aside: %s.", ident, error)
        store.mark_bad(ident, now)
        return 0
    places = search.matching(run, wanted, ids)
    if not len(places):
        return 0
    kept = np.delete(np.arange(len(run), dtype=np.int64), places)
    is_there = store.rewrite(ident, part(run, kept), is_young=is_young) if len(kept) else store.delete(ident)
    return len(places) if is_there else 0  # else its time was over meanwhile


def _prove(row: LogDeletion) -> None:
    proof: dict[str, Any] = {"runs_rewritten": row.runs, "records_deleted": row.records}
    before = {"deleted_by": row.by, "deleted_at": row.created_at}
    audit.record(by=BY, verb="sources.clear_logs", target=row, before=before, after=proof)
