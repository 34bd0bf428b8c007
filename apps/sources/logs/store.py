"""The SQL of log rows: runs in and out by binary cursor, past the ORM, and what packing and retention need."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from apps.metrics.codec import Corrupt, Int64
from apps.metrics.storage import cursor
from apps.sources.logs import columns
from apps.sources.logs.columns import Run, Tally

_INSERT: Final = """
INSERT INTO sources_logrun (received_at, is_young, t_min, t_max, records, size, stored, templates, tally, payload)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b, %b)
"""
_REWRITE: Final = """
UPDATE sources_logrun SET t_min = %s, t_max = %s, records = %s, size = %s, stored = %s, templates = %s, tally = %b,
       payload = %b
 WHERE id = %s
"""
_LIST: Final = """
SELECT id, t_max, records FROM sources_logrun
 WHERE t_max >= %(start)s AND t_min < %(end)s AND bad_at IS NULL
   AND (%(templates)s::bigint[] IS NULL OR templates && %(templates)s::bigint[])
 ORDER BY t_max DESC, id DESC LIMIT %(limit)s
"""
_TALLIES: Final = """
SELECT tally FROM sources_logrun
 WHERE t_max >= %(start)s AND t_min < %(end)s AND bad_at IS NULL
   AND (%(templates)s::bigint[] IS NULL OR templates && %(templates)s::bigint[])
 ORDER BY t_max DESC LIMIT %(limit)s
"""
LOCK: Final = 0x6C6F6773
"""Key of the advisory lock ("logs") under which runs are packed or rewritten."""
MOST_RUNS: Final = 50_000
FEW: Final = 2_000
"""Beyond so many templates the rows are not chosen by them, only what is in them."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A run by its row; `t_max`, when its newest record was, in ms."""

    id: int
    t_max: int
    records: int


def size_of(run: Run) -> int:
    """Return the characters of the texts, which is nearly their bytes, and 8 for each time."""
    return 8 * len(run) + sum(map(len, run.message)) + sum(map(len, run.attributes)) + sum(map(len, run.host))


def insert(run: Run, *, now: datetime, is_young: bool = True) -> None:
    """Write a run; acknowledged once the transaction around it has committed."""
    with cursor() as cur:
        cur.execute(_INSERT, (now, is_young, *_row(run, is_young)))


def rewrite(ident: int, run: Run, *, is_young: bool) -> bool:
    """Put what is left of a run in its place; tell whether it was there."""
    with cursor() as cur:
        cur.execute(_REWRITE, (*_row(run, is_young), ident))
        return bool(cur.rowcount)


def delete(ident: int) -> bool:
    """Delete a run; tell whether it was there."""
    with cursor() as cur:
        cur.execute("DELETE FROM sources_logrun WHERE id = %s", [ident])
        return bool(cur.rowcount)


def _row(run: Run, is_young: bool) -> tuple[Any, ...]:
    payload = columns.encode(run, columns.QUICK if is_young else columns.THOROUGH)
    tally = columns.encode_tally(columns.tally_of(run))
    ids = np.unique(run.template).tolist()
    span = (int(run.at.min()), int(run.at.max()))
    return (*span, len(run), size_of(run), len(payload) + len(tally), ids, tally, payload)


def listed(start: int, end: int, templates: Sequence[int] | None) -> list[Listed]:
    """Return the runs that may hold records of start <= at < end (ms) and of these templates, newest first."""
    with cursor() as cur:
        cur.execute(_LIST, _wanted(start, end, templates))
        return [Listed(*row) for row in cur.fetchall()]


def _wanted(start: int, end: int, templates: Sequence[int] | None) -> dict[str, Any]:
    few = None if templates is None or len(templates) > FEW else list(templates)
    return {"start": start, "end": end, "templates": few, "limit": MOST_RUNS}


def tallies(start: int, end: int, templates: Sequence[int] | None) -> Tally:
    """Return the counts of all runs with records in that time as one, of those that can be read."""
    with cursor() as cur:
        cur.execute(_TALLIES, _wanted(start, end, templates), binary=True)
        rows = cur.fetchall()
    found = []
    for (packed,) in rows:
        with suppress(Corrupt):
            found.append(columns.decode_tally(bytes(packed)))
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Tally(none, none, none)
    slot, template, count = (
        np.concatenate([getattr(t, name) for t in found]) for name in ("slot", "template", "count")
    )
    keep = (slot >= start // columns.GRID_MS) & (slot * columns.GRID_MS < end)
    return Tally(slot[keep], template[keep], count[keep])


def read(ids: Sequence[int]) -> dict[int, bytes]:
    """Return the payloads of those rows that are there still."""
    with cursor() as cur:
        cur.execute("SELECT id, payload FROM sources_logrun WHERE id = ANY(%s)", [list(ids)], binary=True)
        return {ident: bytes(payload) for ident, payload in cur.fetchall()}


def mark_bad(ident: int, now: datetime) -> None:
    """Set a damaged run aside."""
    with cursor() as cur:
        cur.execute("UPDATE sources_logrun SET bad_at = %s WHERE id = %s AND bad_at IS NULL", [now, ident])


def hours_of(at: Int64) -> Int64:
    """Return the hour (since 1970) of times in ms: runs never reach over two, so that retention is exact."""
    hours: Int64 = at // 3_600_000
    return hours
