"""Maintenance windows as iCalendar (RFC 5545). Pure: rows in, text out.

Each occurrence of the next year is an event of its own with times in UTC, so that no calendar has to know our time
zones and every one shows the hours that the portal will keep.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from apps.alerting.matching import spelled
from apps.alerting.models import MaintenanceWindow

AHEAD: Final = timedelta(days=366)
BACK: Final = timedelta(days=30)
MOST: Final = 2000
"""Events of one window."""


def write(windows: Iterable[MaintenanceWindow], *, now: datetime, address: str) -> str:
    """Return the calendar; `address` is the page that shows the windows."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Monitoring Portal//Maintenance//EN", "CALSCALE:GREGORIAN"]
    lines += ["METHOD:PUBLISH", "X-WR-CALNAME:Maintenance"]
    for window in windows:
        lines += _events(window, now, address)
    lines.append("END:VCALENDAR")
    return "".join(f"{folded}\r\n" for line in lines for folded in _folded(line))


def _events(window: MaintenanceWindow, now: datetime, address: str) -> Iterator[str]:
    spans = window.times.spans(now - BACK, now + AHEAD)
    for _, (begin, end) in zip(range(MOST), spans, strict=False):
        yield "BEGIN:VEVENT"
        yield f"UID:maintenance-{window.pk}-{_stamp(begin)}@monitoring-portal"
        yield f"DTSTAMP:{_stamp(window.updated_at)}"
        yield f"DTSTART:{_stamp(begin)}"
        yield f"DTEND:{_stamp(end)}"
        yield f"SUMMARY:{_text(window.name)}"
        about = f"{window.description}\n{spelled(window.parsed)}".strip()
        yield f"DESCRIPTION:{_text(about)}"
        yield f"URL:{address}"
        yield "TRANSP:TRANSPARENT"
        yield "END:VEVENT"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return escaped.replace("\r\n", "\\n").replace("\n", "\\n").replace("\r", "\\n")


def _folded(line: str) -> Iterator[str]:
    """Lines of at most 75 bytes, cut between characters; what goes on begins with a space."""
    rest, room = line, 75
    while len(rest.encode()) > room:
        cut = room
        while len(rest[:cut].encode()) > room:
            cut -= 1
        yield (" " if room < 75 else "") + rest[:cut]
        rest, room = rest[cut:], 74
    yield (" " if room < 75 else "") + rest
