"""How many series may still be made: in all, of a metric, and by a token. What goes beyond is refused by name.

A limit counts the series that spoke (or were made) within a day: what ended earlier makes room, however long its
samples are kept. Counting a million rows at each new series would cost more than the series, so three numbers add up:

1. what the last census found (`census`, each minute);
2. the rows inserted since, which an index tells; looked at every 10 s, and more often the nearer a limit is;
3. what this process itself has made since that look.

So one process is exact; what others make within a second near a limit (10 s far from it) may go beyond it. A series
that comes back after all of its samples were gone is let in: it has its row already.
"""

import threading
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal

import psycopg

from apps.metrics.models import SeriesBudget

FRESH: Final = 10.0
SOONEST: Final = 1.0
"""Seconds for which a look at the new rows is good: far from the limits, and near them."""

Key = tuple[Literal["store", "metric", "token"], int]
WHOLE: Final[Key] = ("store", 0)
REASONS: Final[Mapping[str, str]] = {
    "metric": "series_limit",
    "token": "token_series_limit",
    "store": "store_series_limit",
}


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes series: the id of a token and its own limit, if it has one; no token: the portal itself or a person."""

    token: int | None = None
    limit: int | None = None


NOBODY: Final = Maker()

_BUDGET: Final = "SELECT series, per_token, per_metric FROM metrics_seriesbudget"
_SINCE: Final = """
SELECT metric_id, token, count(*) FROM metrics_series
 WHERE xid >= coalesce((SELECT since FROM metrics_census), 0)::text::xid8 AND gone_at IS NULL
   AND coalesce(last_at, created_at) > now() - interval '1 day'
 GROUP BY metric_id, token
"""
_COUNTED: Final[Mapping[str, str]] = {
    "store": "SELECT 0, coalesce(sum(active), 0) FROM metrics_tokencount WHERE 0 = ANY(%s)",
    "metric": "SELECT metric_id, active FROM metrics_metriccount WHERE metric_id = ANY(%s)",
    "token": "SELECT token, active FROM metrics_tokencount WHERE token = ANY(%s)",
}


class Headroom:
    """What one process knows of the limits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._counted: dict[Key, int] = {}
        self._since: Tally[Key] = Tally()
        self._own: Tally[Key] = Tally()

    def admit(
        self, cursor: "psycopg.Cursor[Any]", metrics: Sequence[int], limits: Mapping[int, int | None], maker: Maker
    ) -> list[str | None]:
        """For each new series, given by its metric: None, or why it is refused (a key of `samples.REASONS`).

        `limits`: each metric's own, None where it has none. What is admitted counts as made.
        """
        found = cursor.execute(_BUDGET).fetchone()
        every, per_token, per_metric = found or _shipped()
        allowed: dict[Key, int] = {
            ("metric", ident): per_metric if own is None else own for ident, own in limits.items()
        }
        allowed[WHOLE] = every
        if maker.token is not None:
            allowed["token", maker.token] = per_token if maker.limit is None else maker.limit
        wanted: Tally[Key] = Tally({("metric", ident): count for ident, count in Tally(metrics).items()})
        for key in allowed:
            if key[0] != "metric":
                wanted[key] = len(metrics)
        with self._lock:
            self._look(cursor, allowed, wanted)
            room = {key: limit - self._used(key) for key, limit in allowed.items()}
            others = [key for key in allowed if key[0] != "metric"]
            return [self._admitted(room, (("metric", ident), *others)) for ident in metrics]

    def _admitted(self, room: dict[Key, int], keys: Sequence[Key]) -> str | None:
        for key in keys:
            if room[key] <= 0:
                return REASONS[key[0]]
        for key in keys:
            room[key] -= 1
            self._own[key] += 1
        return None

    def _used(self, key: Key) -> int:
        return self._counted[key] + self._since[key] + self._own[key]

    def _look(self, cursor: "psycopg.Cursor[Any]", allowed: Mapping[Key, int], wanted: Mapping[Key, int]) -> None:
        """Look at the database again where what is known is too old for how near the limits are."""
        age = monotonic() - self._looked
        self._fetch(cursor, [key for key in allowed if key not in self._counted])
        near = any(self._is_near(key, limit, wanted[key]) for key, limit in allowed.items())
        if age < (SOONEST if near else FRESH):
            return
        self._counted.clear()
        self._since.clear()
        self._own.clear()
        for metric, token, count in cursor.execute(_SINCE).fetchall():
            self._since["metric", metric] += count
            self._since["token", token or 0] += count
            self._since[WHOLE] += count
        self._fetch(cursor, list(allowed))
        self._looked = monotonic()

    def _is_near(self, key: Key, limit: int, wanted: int) -> bool:
        """Whether that many do not fit, or a quarter of what was left at the last look has been made here since."""
        used, own = self._used(key), self._own[key]
        return used + wanted > limit or 4 * (own + wanted) > limit - used + own

    def _fetch(self, cursor: "psycopg.Cursor[Any]", keys: Sequence[Key]) -> None:
        for kind, query in _COUNTED.items():
            idents = [ident for word, ident in keys if word == kind]
            if idents:
                self._counted |= {(kind, ident): 0 for ident in idents}  # type: ignore[misc]
                self._counted |= {(kind, row[0]): int(row[1]) for row in cursor.execute(query, [idents]).fetchall()}  # type: ignore[misc]


def _shipped() -> tuple[int, int, int]:
    shipped = SeriesBudget()
    return shipped.series, shipped.per_token, shipped.per_metric
