"""The admin's page about the store: its figures with a day's course each, what lies where, and what somebody should do.

Read-only, and about the whole store: for those who may see all of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from apps.accounts.permissions import EVERYTHING
from apps.metrics import query, services, space, stock
from apps.metrics.models import Batch
from apps.promql.errors import PromQLError

DAY: Final = timedelta(days=1)
STEP: Final = timedelta(minutes=20)
BACKUP_AGE: Final = timedelta(days=8)
BEHIND: Final = timedelta(minutes=30)
MANY_WINDOWS: Final = 12

Row = dict[str, Any]


def number(value: float) -> str:
    """A number for people.

    >>> number(1234567.0), number(2.5), number(0.0), number(1234.4)
    ('1.23 M', '2.50', '0', '1,234')
    """
    for size, sign in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.2f} {sign}"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"


def seconds(value: float) -> str:
    """A duration for people.

    >>> seconds(42), seconds(600), seconds(7300)
    ('42 s', '10 min', '2.0 h')
    """
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(value: float) -> str:
    """Bytes for people."""
    return filesizeformat(value)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its title, how it is asked for, how its value reads, and what it means."""

    title: str
    expression: str
    shown: Callable[[float], str]
    note: str


FIGURES: Final = (
    Figure("Samples a second", "sum(rate(portal_samples_accepted_total[5m]))", number, "taken, over five minutes"),
    Figure("Refused a second", "sum(rate(portal_samples_refused_total[5m]))", number, "by all reasons"),
    Figure("Samples in the log", "max(portal_store_young_samples)", number, "not compacted yet; two million are many"),
    Figure("Compaction behind", "max(portal_store_young_age_seconds)", seconds, "age of the oldest row; up to 10 min"),
    Figure("Bytes a sample", "portal_store_bytes_per_sample", number, "on disk, with indexes and roll-ups"),
    Figure("Blocks", "sum(portal_store_blocks)", number, "rows of compacted samples"),
    Figure("Database", "max(pg_database_size_bytes)", size, "all tables on disk"),
    Figure("Write-ahead log", "pg_wal_size_bytes", size, "PostgreSQL's own; up to 2 GB by itself"),
    Figure("Room", "portal_store_room_bytes", size, "until samples are refused"),
)


def context(now: datetime) -> Row:
    """What the page shows."""
    parts = stock.parts()
    lags = stock.overdue(parts, now)
    due, damaged, backup = stock.work_due(now), stock.damaged(), stock.last_backup()
    return {
        "cards": [_card(figure, now) for figure in FIGURES],
        "todos": todos(now, lags=lags, due=due, damaged=damaged, backup=backup, is_own=space.is_own()),
        "parts": [_part(part, lags[part.category, part.label]) for part in parts],
        "refused": sorted(stock.refusals(now).items(), key=lambda pair: -pair[1]),
        "backup": backup and {**backup, "at": datetime.fromtimestamp(backup["at"], tz=UTC)},
        "due": due,
    }


def _part(part: stock.Part, lag: timedelta) -> Row:
    return {
        "part": part,
        "size": size(part.stored),
        "density": f"{part.stored / part.samples:.2f}" if part.samples else "",
        "oldest": datetime.fromtimestamp(part.oldest / 1000, tz=UTC),
        "newest": datetime.fromtimestamp(part.newest / 1000, tz=UTC),
        "overdue": seconds(lag.total_seconds()) if lag else "",
    }


def _card(figure: Figure, now: datetime) -> Row:
    """The figure's course over a day, and its newest value."""
    card: Row = {"title": figure.title, "value": "–", "note": figure.note, "points": "", "told": ""}
    try:
        found = query.query_range(figure.expression, start=now - DAY, end=now, step=STEP, scope=EVERYTHING)
    except PromQLError:
        return card
    if not found.v.shape[0]:
        return card
    values = [value if ok else math.nan for value, ok in zip(found.v[0].tolist(), found.ok[0].tolist(), strict=True)]
    known = [value for value in values if math.isfinite(value)]
    if known:
        card["value"] = figure.shown(known[-1])
        card["points"] = points(values) if len(known) > 1 else ""
        card["told"] = f"{figure.title} over a day: {figure.shown(min(known))} to {figure.shown(max(known))}"
    return card


def points(values: list[float]) -> str:
    """A line through the values in a box of 100 by 24, from the least (0 where none is below) to the greatest.

    >>> points([0.0, 2.0, 1.0])
    '0,23 50,1 100,12'
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(0.0, *known), max(known)
    span, wide = (high - low) or 1.0, max(len(values) - 1, 1)
    return " ".join(
        f"{round(100 * at / wide, 1):g},{round(23 - 22 * (value - low) / span, 1):g}"
        for at, value in enumerate(values)
        if math.isfinite(value)
    )


def todos(
    now: datetime,
    *,
    lags: dict[tuple[str, str], timedelta],
    due: dict[str, int],
    damaged: dict[str, int],
    backup: Row | None,
    is_own: bool,
) -> list[Row]:
    """What somebody should see to, most urgent first."""
    found: list[Row] = []
    if (problem := services.disk_problem()) is not None:
        found.append({"tone": "critical", "text": problem, "url": reverse("admin:metrics_retentionpolicy_changelist")})
    for table, count in damaged.items():
        if count:
            noun = f"{count} damaged {table} row{'s' if count > 1 else ''}"
            text = f"{noun}: `./portal manage store check` says what is missing, a backup has it."
            url = f"{reverse(f'admin:metrics_{table}_changelist')}?damaged=yes"
            found.append({"tone": "error", "text": text, "url": url})
    if (lag := _log_lag(now)) > BEHIND:
        text = f"Compaction is {seconds(lag.total_seconds())} behind: does the slow worker run (var/log/slow.log)?"
        found.append({"tone": "warning", "text": text, "url": ""})
    for work, count in due.items():
        if count > MANY_WINDOWS:
            words = "be merged" if work == "merge" else "be rolled up"
            found.append(
                {"tone": "warning", "text": f"{count} windows wait to {words}; see var/log/slow.log.", "url": ""}
            )
    for (category, resolution), over in lags.items():
        if over > DAY:
            text = f"{category} ({resolution}) is kept {seconds(over.total_seconds())} longer than its policy says."
            found.append({"tone": "warning", "text": text, "url": reverse("admin:metrics_retentionpolicy_changelist")})
    if is_own and backup is None:
        found.append(
            {"tone": "warning", "text": "There never was a backup: `./portal backup DIR` makes one.", "url": ""}
        )
    elif is_own and backup is not None:
        age = now - datetime.fromtimestamp(backup["at"], tz=UTC)
        if age > BACKUP_AGE:
            text = f"The last backup is {age.days} days old: `./portal backup DIR --keep 7` makes one."
            found.append({"tone": "warning", "text": text, "url": ""})
    return found


def _log_lag(now: datetime) -> timedelta:
    oldest = Batch.objects.filter(bad_at=None).order_by("id").values_list("received_at", flat=True).first()
    return now - oldest if oldest is not None else timedelta(0)
