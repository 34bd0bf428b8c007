"""Maintenance windows as iCalendar (RFC 5545). Pure: rows in, text out.

Each occurrence of the next year is an event of its own with times in UTC, so that no calendar has to know our time
zones and every one shows the hours that the portal will keep.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from apps.accounts.icaltext import document, escaped, stamp
from apps.alerting.matching import spelled
from apps.alerting.models import MaintenanceWindow

AHEAD: Final = timedelta(days=366)
BACK: Final = timedelta(days=30)
MOST: Final = 2000
"""Events of one window."""


def write(windows: Iterable[MaintenanceWindow], *, now: datetime, address: str) -> str:
    """Return the calendar; `address` is the page that shows the windows."""
    lines = [line for window in windows for line in _events(window, now, address)]
    return document("Maintenance", lines, product="Maintenance")


def _events(window: MaintenanceWindow, now: datetime, address: str) -> Iterator[str]:
    spans = window.times.spans(now - BACK, now + AHEAD)
    for _, (begin, end) in zip(range(MOST), spans, strict=False):
        yield "BEGIN:VEVENT"
        yield f"UID:maintenance-{window.pk}-{stamp(begin)}@monitoring-portal"
        yield f"DTSTAMP:{stamp(window.updated_at)}"
        yield f"DTSTART:{stamp(begin)}"
        yield f"DTEND:{stamp(end)}"
        yield f"SUMMARY:{escaped(window.name)}"
        about = f"{window.description}\n{spelled(window.parsed)}".strip()
        yield f"DESCRIPTION:{escaped(about)}"
        yield f"URL:{address}"
        yield "TRANSP:TRANSPARENT"
        yield "END:VEVENT"
