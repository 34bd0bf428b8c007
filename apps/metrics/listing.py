"""Which series, names and values there are in a span of time, as far as a scope shows them: nothing of samples.

A series counts as there from its first to its last sample as compaction wrote them down, which may lag by half an
hour; what has come since is read from the young rows.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import numpy as np
import psycopg
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING, Scope
from apps.metrics import catalog, storage, young
from apps.metrics.assembly import Tombstone
from apps.metrics.codec import Columns, Int64
from apps.metrics.storage import Range
from apps.promql.arrays import Ids
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.source import Matcher, of_scope

LAG: Final = timedelta(minutes=35)
"""How far behind its newest sample a series' `last_at` may be."""
YOUNG: Final = timedelta(hours=1)
"""Samples that are older are compacted, however far behind compaction is."""

Span = tuple[datetime | None, datetime | None]
"""From and to, both counting; None is open."""
ALWAYS: Final[Span] = (None, None)


def series(
    wanted: Sequence[Sequence[Matcher]], *, scope: Scope = EVERYTHING, span: Span = ALWAYS, now: datetime | None = None
) -> Labels:
    """The label sets, each once and unsorted, of the series that any of these matcher lists accepts."""
    narrowed = of_scope(scope.matchers)
    with storage.cursor() as cur:
        found = catalog.current().find_many(cur, [(*matchers, *narrowed) for matchers in wanted])
        found = [one for one in found if len(one.ids)]
        if not found:
            return Labels.empty()
        ids = np.concatenate([one.ids for one in found])
        labels = Labels.concat([one.labels for one in found])
        if len(found) > 1:
            ids, first = np.unique(ids, return_index=True)
            labels = labels.take(first)
        metrics = min(one.metric_min for one in found), max(one.metric_max for one in found)
        absent = _absent(cur, ids, metrics, span, now or timezone.now())
        absent = np.concatenate([absent, _gone(cur, ids, metrics)])
    return labels.take(np.flatnonzero(~np.isin(ids, absent))) if len(absent) else labels


def _absent(cur: "psycopg.Cursor[Any]", ids: Int64, metrics: tuple[int, int], span: Span, now: datetime) -> Int64:
    """Those of the series that have no samples in the span."""
    begin, end = span
    if begin is None and end is None:
        return ids[:0]
    cur.execute(
        "SELECT id, first_at IS NULL FROM metrics_series WHERE metric_id BETWEEN %(low)s AND %(high)s"
        " AND (last_at < %(begin)s::timestamptz OR first_at > %(end)s::timestamptz"
        " OR (first_at IS NULL AND %(end)s::timestamptz IS NOT NULL))",
        {"low": metrics[0], "high": metrics[1], "begin": None if begin is None else begin - LAG, "end": end},
    )
    rows = cur.fetchall()
    outside = np.array([row[0] for row in rows], dtype=np.int64)
    outside = outside[np.isin(outside, ids)]
    all_compacted = not any(is_young for _, is_young in rows)
    if not len(outside) or (all_compacted and end is not None and end < now - YOUNG):
        return outside
    return np.setdiff1d(outside, _young(cur, begin, end))


def _gone(cur: "psycopg.Cursor[Any]", ids: Int64, metrics: tuple[int, int]) -> Int64:
    """Those of the series of which nothing is left, as far as is known."""
    cur.execute("SELECT id FROM metrics_series WHERE gone_at IS NOT NULL AND metric_id BETWEEN %s AND %s", metrics)
    gone = np.array([row[0] for row in cur.fetchall()], dtype=np.int64)
    gone = gone[np.isin(gone, ids)]
    return np.setdiff1d(gone, _young(cur, None, None)) if len(gone) else gone


def _young(cur: "psycopg.Cursor[Any]", begin: datetime | None, end: datetime | None) -> Int64:
    """The series that have young samples in the span; nothing while compaction takes rows away faster than they are
    read, for that means that it writes down where series end at this moment."""
    tmin = -(2**62) if begin is None else int(begin.timestamp() * 1000) - 1
    tmax = 2**62 if end is None else int(end.timestamp() * 1000)
    for _ in range(3):
        rows = storage.snapshot(cur, Range(tmax, tmax, 0, 0, 0, 0)).young
        try:
            runs, _damaged = young.held().read(rows["id"], rows["samples"], partial(storage.fetch, cur, 0))
        except young.Gone:
            continue
        stones = storage.open_tombstones(cur)
        parts = [_seen(run.columns, tmin, tmax, stones) for run in runs]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
    return np.zeros(0, dtype=np.int64)


def _seen(columns: Columns, tmin: int, tmax: int, buried: Sequence[Tombstone]) -> Int64:
    """The series of these samples that have one in the span which no tombstone covers."""
    keep = (columns.ts > tmin) & (columns.ts <= tmax)
    for stone in buried:
        keep &= ~stone.covers(columns.series, columns.ts, columns.rank)
    return columns.series[keep]


def label_names(found: Labels) -> list[str]:
    """The names of labels that any of these sets has, sorted."""
    return sorted(name for name, column in found.cols.items() if column.any())


def label_values(found: Labels, name: str) -> list[str]:
    """The values of one label among these sets, sorted; "" (absent) is not one."""
    values: Ids = np.unique(found.column(name))
    return sorted(STRINGS.texts(values[values != 0]))


def metric_names(*, scope: Scope = EVERYTHING, span: Span = ALWAYS, now: datetime | None = None) -> list[str]:
    """Every metric name with a series in the span, sorted; where the scope is open, without reading their labels."""
    if scope.matchers:
        return label_values(series([()], scope=scope, span=span, now=now), NAME)
    begin, end = span
    with storage.cursor() as cur:
        names = catalog.current().names(cur)
        if begin is None and end is None:
            gone = _names_gone(cur)
            return [name for name in names if name not in gone]
        cur.execute(
            "SELECT name, ARRAY(SELECT id FROM metrics_series s WHERE s.metric_id = m.id) FROM metrics_metric m"
            " WHERE NOT EXISTS (SELECT FROM metrics_series s WHERE s.metric_id = m.id"
            " AND s.gone_at IS NULL AND (s.last_at IS NULL OR %(begin)s::timestamptz IS NULL OR s.last_at >= %(begin)s)"
            " AND (%(end)s::timestamptz IS NULL OR s.first_at <= %(end)s))",
            {"begin": None if begin is None else begin - LAG, "end": end},
        )
        outside = {name: np.array(ids, dtype=np.int64) for name, ids in cur.fetchall()}
        if outside:
            back = _young(cur, begin, end)
            outside = {name: ids for name, ids in outside.items() if not np.isin(ids, back).any()}
    return [name for name in names if name not in outside]


def _names_gone(cur: "psycopg.Cursor[Any]") -> set[str]:
    """Metrics that have series and nothing is left of any."""
    cur.execute(
        "SELECT name, ARRAY(SELECT id FROM metrics_series s WHERE s.metric_id = m.id) FROM metrics_metric m"
        " WHERE id IN (SELECT metric_id FROM metrics_series WHERE gone_at IS NOT NULL)"
        " AND NOT EXISTS (SELECT FROM metrics_series s WHERE s.metric_id = m.id AND s.gone_at IS NULL)"
    )
    rows = cur.fetchall()
    if not rows:
        return set()
    back = _young(cur, None, None)
    return {name for name, ids in rows if not np.isin(np.array(ids, dtype=np.int64), back).any()}
