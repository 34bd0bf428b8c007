"""What is stored, in figures: by category and resolution, on disk, and what is still to be done with it.

`parts` and `work_due` look at every block's row (not at its bytes): a fifth of a second for half a million of them, so
whoever asks regularly asks every few minutes. The others are cheap.
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING
from apps.metrics import census, compaction, query, rolling, storage
from apps.metrics.models import RetentionPolicy

LAST_BACKUP: Final = "last-backup.json"
"""In the data folder, written by `./portal backup`."""


@dataclass(frozen=True, slots=True)
class Part:
    """The blocks of one category and resolution (s; 0: raw). Times in ms; roll-ups count numbers of buckets."""

    category: str
    resolution: int
    fresh: int
    merged: int
    samples: int
    stored: int
    oldest: int
    newest: int

    @property
    def blocks(self) -> int:
        return self.fresh + self.merged

    @property
    def label(self) -> str:
        return {0: "raw", 300: "5m", 3600: "1h"}.get(self.resolution, str(self.resolution))


_PARTS: Final = """
SELECT p.category, b.resolution, count(*) FILTER (WHERE b.level = 0), count(*) FILTER (WHERE b.level = 1),
       sum(b.samples), sum(octet_length(b.directory) + octet_length(b.payload)), min(b.t_min), max(b.t_max)
  FROM metrics_block b JOIN metrics_retentionpolicy p ON p.id = b.retention_id GROUP BY 1, 2 ORDER BY 1, 2
"""
_TABLES: Final = """
SELECT pg_total_relation_size('metrics_batch'), pg_total_relation_size('metrics_block'),
       pg_total_relation_size('metrics_series')
"""
_DAMAGED: Final = """
SELECT (SELECT count(*) FROM metrics_batch WHERE bad_at IS NOT NULL),
       (SELECT count(*) FROM metrics_block WHERE bad_at IS NOT NULL)
"""


def parts() -> list[Part]:
    """Everything that is compacted."""
    with storage.cursor() as cur:
        return [Part(str(row[0]), *map(int, row[1:])) for row in cur.execute(_PARTS).fetchall()]


def table_bytes() -> dict[str, int]:
    """Bytes on disk, indexes included."""
    with storage.cursor() as cur:
        found = cur.execute(_TABLES).fetchone() or (0, 0, 0)
    return dict(zip(("batch", "block", "series"), map(int, found), strict=True))


def damaged() -> dict[str, int]:
    """Rows that are marked as damaged."""
    with storage.cursor() as cur:
        found = cur.execute(_DAMAGED).fetchone() or (0, 0)
    return dict(zip(("batch", "block"), map(int, found), strict=True))


def log_bytes() -> int | None:
    """Bytes of PostgreSQL's write-ahead log; None where this user may not look."""
    with storage.cursor() as cur:
        (may,) = cur.execute("SELECT has_function_privilege('pg_ls_waldir()', 'execute')").fetchone() or (False,)
        if not may:
            return None
        (found,) = cur.execute("SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()").fetchone() or (0,)
        return int(found)


def work_due(now: datetime) -> dict[str, int]:
    """Windows that wait to be merged, and to be rolled up."""
    return {"merge": len(compaction.due_windows(now)), "roll": len(rolling.due_windows(now))}


def overdue(found: list[Part], now: datetime) -> dict[tuple[str, str], timedelta]:
    """By how much the oldest samples of each part have outlived their policy; zero where they have not."""
    policies = {policy.category: policy for policy in RetentionPolicy.objects.all()}
    lags = {}
    for part in found:
        policy = policies[part.category]
        kept = {0: policy.raw, 300: policy.rollup_5m, 3600: policy.rollup_1h}[part.resolution] or timedelta(0)
        # A block goes as a whole, when its newest sample is too old.
        window = timedelta(milliseconds=storage.WINDOWS_MS[part.resolution])
        oldest = datetime.fromtimestamp(part.oldest / 1000, tz=UTC)
        lags[part.category, part.label] = max(now - kept - window - oldest, timedelta(0))
    return lags


def last_backup() -> dict[str, Any] | None:
    """When (`at`, epoch seconds), where (`path`), how large (`bytes`) the last backup was; None: never, or unknown."""
    try:
        found = json.loads((Path(settings.DATA) / LAST_BACKUP).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"at", "path", "bytes"} <= found.keys() else None


def refusals(now: datetime) -> dict[str, float]:
    """Samples refused over the last day, by reason."""
    found = query.instant("sum by (reason) (increase(portal_samples_refused_total[1d]))", at=now, scope=EVERYTHING)
    rows = zip(found.labels.dicts(), found.v[:, 0].tolist(), strict=True)
    return {labels.get("reason", ""): count for labels, count in rows if math.isfinite(count) and count >= 1}


def summary(now: datetime | None = None) -> dict[str, Any]:
    """Everything at once, JSON-safe."""
    now = now or timezone.now()
    found, tables, young = parts(), table_bytes(), compaction.young(now)
    raw = [part for part in found if part.resolution == 0]
    samples, stored = sum(part.samples for part in raw), sum(part.stored for part in raw)
    everything = samples + young.samples
    lags = overdue(found, now)
    due = work_due(now)
    with storage.cursor() as cur:
        metrics, series = cur.execute(
            "SELECT (SELECT count(*) FROM metrics_metric), (SELECT count(*) FROM metrics_series WHERE gone_at IS NULL)"
        ).fetchone() or (0, 0)
    backup = last_backup()
    return {
        "metrics": int(metrics),
        "series": int(series),
        "samples": everything,
        "bytes_a_sample": round(stored / samples, 2) if samples else None,
        "bytes_a_sample_on_disk": round((tables["batch"] + tables["block"]) / everything, 2) if everything else None,
        "log_rows": young.rows,
        "log_samples": young.samples,
        "log_lag_seconds": round((now - young.oldest).total_seconds(), 1) if young.oldest else 0.0,
        "log_bytes_on_disk": tables["batch"],
        "blocks_level_0": sum(part.fresh for part in found),
        "blocks_level_1": sum(part.merged for part in found),
        "block_samples": samples,
        "block_bytes_on_disk": tables["block"],
        "series_bytes_on_disk": tables["series"],
        "oldest": _iso(min((part.oldest for part in raw), default=None)),
        "newest": _iso(max((part.newest for part in raw), default=None)),
        "damaged_rows": sum(damaged().values()),
        "windows_to_merge": due["merge"],
        "windows_to_roll_up": due["roll"],
        "last_backup": _iso(backup["at"] * 1000) if backup else None,
        "refused_in_a_day": {reason: round(count) for reason, count in refusals(now).items()},
        "series_by_metric": [{"metric": row.pop("metric__name"), **row} for row in census.top()],
        "parts": [
            {
                "category": part.category,
                "resolution": part.label,
                "blocks": part.blocks,
                "samples": part.samples,
                "bytes": part.stored,
                "oldest": _iso(part.oldest),
                "newest": _iso(part.newest),
                "overdue_seconds": round(lags[part.category, part.label].total_seconds()),
            }
            for part in found
        ],
    }


def _iso(ms: float | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat(timespec="seconds")
