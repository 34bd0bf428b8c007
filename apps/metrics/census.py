"""Counts the series: how many there are, how many speak, come and end, by metric and by the token that made them.

One pass over the rows each minute, so that pages, limits and the API read few rows instead of a million.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from django.db import transaction

from apps.core.telemetry import Gauge
from apps.metrics import storage
from apps.metrics.models import Census, MetricCount, SeriesBudget

LIVE: Final = Gauge("portal_series_live", "Series of which samples are kept.")
ACTIVE: Final = Gauge("portal_series_active", "Series that spoke within a day: what the series budget counts.")
BUDGET: Final = Gauge("portal_series_budget", "Active series in all, beyond which new ones are refused.")
NEW_HOUR: Final = Gauge("portal_series_new_hour", "Series that were made within the last hour.")

LAG: Final = timedelta(minutes=45)
"""How far behind its newest sample a series' `last_at` may be (compaction.SEEN_EVERY): later ones have not ended."""
COLUMNS: Final = ("live", "active", "new_hour", "new_day", "ended_hour", "ended_day")

_COUNT: Final = """
SELECT metric_id, coalesce(token, 0),
       count(*) FILTER (WHERE gone_at IS NULL),
       count(*) FILTER (WHERE gone_at IS NULL AND coalesce(last_at, created_at) > %(day)s),
       count(*) FILTER (WHERE created_at > %(hour)s),
       count(*) FILTER (WHERE created_at > %(day)s),
       count(*) FILTER (WHERE coalesce(last_at, gone_at) BETWEEN %(ended_hour)s AND %(ended)s),
       count(*) FILTER (WHERE coalesce(last_at, gone_at) BETWEEN %(ended_day)s AND %(ended)s)
  FROM metrics_series WHERE xid < %(since)s::text::xid8
 GROUP BY 1, 2
"""
_WRITE: Final = """
INSERT INTO {table} AS old ({key}, {columns})
SELECT * FROM unnest(%s::bigint[], {arrays}) AS new({key}, {columns}) ORDER BY 1
ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE ({old}) IS DISTINCT FROM ({new})
"""


def take(*, now: datetime) -> None:
    """Count all series and write the counts down."""
    with transaction.atomic(), storage.cursor() as cur:
        cur.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        since = int((cur.fetchone() or (0,))[0])
        ended = now - LAG
        cur.execute(
            _COUNT,
            {
                "since": str(since),
                "hour": now - timedelta(hours=1),
                "day": now - timedelta(days=1),
                "ended": ended,
                "ended_hour": ended - timedelta(hours=1),
                "ended_day": ended - timedelta(days=1),
            },
        )
        metrics: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
        tokens: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
        for metric, token, *counts in cur.fetchall():
            for sums in (metrics[metric], tokens[token]):
                for place, count in enumerate(counts):
                    sums[place] += count
        _write(cur, "metrics_metriccount", "metric_id", metrics)
        _write(cur, "metrics_tokencount", "token", tokens)
        Census.objects.update_or_create(pk=1, defaults={"counted_at": now, "since": since})
    total = dict(zip(COLUMNS, map(sum, zip(*tokens.values(), strict=True)), strict=True)) if tokens else {}
    LIVE.set(total.get("live", 0))
    ACTIVE.set(total.get("active", 0))
    NEW_HOUR.set(total.get("new_hour", 0))
    BUDGET.set((SeriesBudget.objects.first() or SeriesBudget()).series)


def _write(cur: "psycopg.Cursor[Any]", table: str, key: str, counts: Mapping[int, list[int]]) -> None:
    """Make the table hold exactly these counts; rows that stay the same are not touched."""
    statement = _WRITE.format(
        table=table,
        key=key,
        columns=", ".join(COLUMNS),
        arrays=", ".join(["%s::int[]"] * len(COLUMNS)),
        changes=", ".join(f"{name} = excluded.{name}" for name in COLUMNS),
        old=", ".join(f"old.{name}" for name in COLUMNS),
        new=", ".join(f"excluded.{name}" for name in COLUMNS),
    )
    cur.execute(f"DELETE FROM {table} WHERE {key} <> ALL(%s)", [list(counts)])
    if counts:
        cur.execute(statement, [list(counts), *(list(column) for column in zip(*counts.values(), strict=True))])


def top(limit: int = 10, *, by: str = "live") -> list[dict[str, Any]]:
    """The metrics with the greatest of a count (a name of COLUMNS), with all of their counts."""
    found = MetricCount.objects.filter(**{f"{by}__gt": 0}).order_by(f"-{by}", "metric__name")[:limit]
    return list(found.values("metric__name", *COLUMNS))
