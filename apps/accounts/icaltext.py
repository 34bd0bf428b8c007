"""Writes iCalendar (RFC 5545): lines folded and escaped, moments in UTC, zones with their changes. Pure."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

ROOM: Final = 75
"""Bytes of a line."""
_A_DAY: Final = timedelta(days=1)
_A_MINUTE: Final = timedelta(minutes=1)


def document(name: str, lines: Iterable[str], *, product: str) -> str:
    """Return the calendar of these events' lines."""
    head = ["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:-//Monitoring Portal//{product}//EN", "CALSCALE:GREGORIAN"]
    head += ["METHOD:PUBLISH", f"X-WR-CALNAME:{escaped(name)}"]
    return "".join(f"{part}\r\n" for line in [*head, *lines, "END:VCALENDAR"] for part in folded(line))


def stamp(at: datetime) -> str:
    """Write a moment in UTC."""
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def escaped(text: str) -> str:
    """Write a text as a value: what separates values is escaped, a line's end is spelled."""
    text = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return text.replace("\r\n", "\\n").replace("\n", "\\n").replace("\r", "\\n")


def folded(line: str) -> Iterator[str]:
    """Yield lines of at most 75 bytes, cut between characters; what goes on begins with a space."""
    rest, room = line, ROOM
    while len(rest.encode()) > room:
        cut = room
        while len(rest[:cut].encode()) > room:
            cut -= 1
        yield (" " if room < ROOM else "") + rest[:cut]
        rest, room = rest[cut:], ROOM - 1
    yield (" " if room < ROOM else "") + rest


def time_zone(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[str]:
    """Yield the lines of a VTIMEZONE that holds from start to end, each change of the clocks by its date."""
    yield "BEGIN:VTIMEZONE"
    yield f"TZID:{zone.key}"
    yield from _observance("STANDARD", start, start, zone)
    for at in _changes(zone, start, end):
        kind = "DAYLIGHT" if at.astimezone(zone).dst() else "STANDARD"
        yield from _observance(kind, at - _A_MINUTE, at, zone)
    yield "END:VTIMEZONE"


def _observance(kind: str, before: datetime, at: datetime, zone: ZoneInfo) -> Iterator[str]:
    offset = before.astimezone(zone).utcoffset() or timedelta()
    yield f"BEGIN:{kind}"
    yield f"DTSTART:{(at.astimezone(UTC) + offset).strftime('%Y%m%dT%H%M%S')}"
    yield f"TZOFFSETFROM:{_offset(offset)}"
    yield f"TZOFFSETTO:{_offset(at.astimezone(zone).utcoffset() or timedelta())}"
    yield f"TZNAME:{at.astimezone(zone).tzname()}"
    yield f"END:{kind}"


def _changes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the minutes from which the zone has another offset."""
    at = start.astimezone(UTC).replace(second=0, microsecond=0)
    while at < end:
        after = at + _A_DAY
        if at.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            low, high = at, after
            while high - low > _A_MINUTE:
                middle = low + (high - low) // 2
                middle = middle.replace(second=0, microsecond=0)
                if middle.astimezone(zone).utcoffset() == at.astimezone(zone).utcoffset():
                    low = middle
                else:
                    high = middle
            yield high
        at = after


def _offset(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
