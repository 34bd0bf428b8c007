"""Reads iCalendar files (RFC 5545) of other people's calendars: what happens when within a span of time.

Such a file is anybody's: its rules may repeat each second, or for ever without an occurrence, and its parser loads
10 MB of modules. So a child process reads it, with little memory and a deadline, and is killed when it does not answer.

The file is both sides: imported it is the parent; run by its path it is the child, which alone loads `icalendar`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

MOST_BYTES: Final = 2_000_000
MOST_EVENTS: Final = 5_000
MOST_OCCURRENCES: Final = 5_000
MOST_PROBLEMS: Final = 20
SECONDS: Final = 10.0
_MEMORY: Final = 512 * 1024 * 1024
_LONGEST: Final = timedelta(days=366)
_A_DAY: Final = timedelta(days=1)


class CalendarError(ValueError):
    """A file that cannot be used; says why in a sentence."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One occurrence of an event, from (inclusive) and to (exclusive) in UTC; `day` is set where it lasts whole days.

    `people` are the names and mail addresses of those who attend.
    """

    start: datetime
    end: datetime
    summary: str
    people: tuple[str, ...] = ()
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says of the span that was asked for, in order, and what of it could not be understood."""

    occurrences: tuple[Occurrence, ...]
    problems: tuple[str, ...] = ()


def read(data: bytes, *, start: datetime, end: datetime, zone: ZoneInfo, seconds: float = SECONDS) -> Reading:
    """Return what happens in [start, end). Times without a zone and whole days are the zone's.

    Raises CalendarError: too large, no calendar, too many events, or not read within the seconds.
    """
    check_size(data)
    asked = {"start": start.timestamp(), "end": end.timestamp(), "zone": zone.key}
    try:
        child = subprocess.run(
            [sys.executable, "-I", __file__],
            input=json.dumps(asked).encode() + b"\n" + data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        answer = json.loads(child.stdout)
    except subprocess.TimeoutExpired:
        raise CalendarError(
            f"The calendar could not be read within {seconds:g} s: an event repeats too often, or for ever without "
            "an occurrence."
        ) from None
    except (OSError, ValueError):
        raise CalendarError("The calendar could not be read: it needs more memory or time than it may have.") from None
    if "error" in answer:
        raise CalendarError(answer["error"])
    return Reading(tuple(map(_occurrence, answer["occurrences"])), tuple(answer["problems"]))


def days(data: bytes, *, start: date, end: date) -> list[tuple[date, str]]:
    """Return each whole day within [start, end) that an event of a calendar of holidays covers, and its name."""
    zone = ZoneInfo("UTC")
    span = (datetime.combine(day, time(), UTC) for day in (start, end))
    found: dict[date, str] = {}
    for one in read(data, start=next(span), end=next(span), zone=zone).occurrences:
        if one.day is None:
            continue
        for number in range((one.end - one.start) // _A_DAY):
            if start <= (day := one.day + number * _A_DAY) < end:
                found.setdefault(day, one.summary)
    return sorted(found.items())


def check_size(data: bytes) -> None:
    """Raise CalendarError where the file is too large, or none."""
    if len(data) > MOST_BYTES:
        raise CalendarError(f"The file is larger than {MOST_BYTES // 1_000_000} MB.")
    if b"BEGIN:VCALENDAR" not in data[:10_000].upper():
        raise CalendarError("That is no calendar: an .ics file begins with BEGIN:VCALENDAR.")
    if b"END:VCALENDAR" not in data[-10_000:].upper():
        raise CalendarError("The calendar breaks off: an .ics file ends with END:VCALENDAR.")


def _occurrence(row: list[Any]) -> Occurrence:
    start, end, summary, people, day = row
    moments = [datetime.fromtimestamp(each, UTC) for each in (start, end)]
    return Occurrence(moments[0], moments[1], summary, tuple(people), date.fromisoformat(day) if day else None)


# --- The child -------------------------------------------------------------------------------------------------------
def expand(data: bytes, *, start: datetime, end: datetime, zone: ZoneInfo) -> Reading:
    """Read in this process, without a deadline: for the child and for tests with files of their own."""
    import icalendar
    import recurring_ical_events

    if (count := data.upper().count(b"BEGIN:VEVENT")) > MOST_EVENTS:
        raise CalendarError(f"The calendar has {count} events; {MOST_EVENTS} at most are read.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        calendars: Any = icalendar.Calendar.from_ical(text, multiple=True)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CalendarError(f"The calendar cannot be read: {str(error)[:200]}.") from None
    found: list[Occurrence] = []
    problems: list[str] = []
    for calendar in calendars:
        event: Any
        for event in calendar.walk("VEVENT"):
            if not isinstance(event.get("DTSTART"), icalendar.vDDDTypes):
                problems.append(f"{_title(event)!r} has no time that can be read.")
                calendar.subcomponents = [each for each in calendar.subcomponents if each is not event]
            elif (name := event["DTSTART"].params.get("TZID")) and _is_floating(event["DTSTART"].dt):
                problems.append(f"{_title(event)!r} is in the time zone {str(name)[:60]!r}, which is not known.")
        # A day more on either side: whole days and times without a zone are placed by it below.
        query: Any = recurring_ical_events.of(calendar, skip_bad_series=True)
        for number, event in enumerate(query.between(start - _A_DAY, end + _A_DAY)):
            if number >= MOST_OCCURRENCES:
                raise CalendarError(f"The calendar has more than {MOST_OCCURRENCES} occurrences in that time.")
            if str(event.get("STATUS", "")).upper() == "CANCELLED":
                continue
            begin, after = event["DTSTART"].dt, event["DTEND"].dt
            one = Occurrence(
                _moment(begin, zone), _moment(after, zone), _title(event), tuple(_people(event)),
                None if isinstance(begin, datetime) else begin,
            )  # fmt: skip
            if one.start < end and one.end > start and one.start < one.end <= one.start + _LONGEST:
                found.append(one)
    return Reading(tuple(sorted(found, key=lambda one: (one.start, one.end, one.summary))), tuple(problems))


def _is_floating(at: date | datetime) -> bool:
    return isinstance(at, datetime) and at.tzinfo is None


def _moment(at: date | datetime, zone: ZoneInfo) -> datetime:
    if not isinstance(at, datetime):
        at = datetime.combine(at, time(), zone)
    return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)


def _title(event: Any) -> str:
    return str(event.get("SUMMARY", "")).strip()[:300]


def _people(event: Any) -> Iterator[str]:
    given = event.get("ATTENDEE", [])
    for attendee in (given if isinstance(given, list) else [given])[:50]:
        address = str(attendee)
        yield address[7:] if address.lower().startswith("mailto:") else address
        if name := str(getattr(attendee, "params", {}).get("CN", "")):
            yield name


def answer() -> None:
    """The child: a line of JSON {start, end, zone} and the file in, the occurrences or an error out."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS)))
    except ImportError:  # Windows: the deadline alone
        pass
    asked = json.loads(sys.stdin.buffer.readline())
    start, end = (datetime.fromtimestamp(asked[name], UTC) for name in ("start", "end"))
    try:
        found = expand(sys.stdin.buffer.read(), start=start, end=end, zone=ZoneInfo(asked["zone"]))
        rows = [
            [one.start.timestamp(), one.end.timestamp(), one.summary, one.people, one.day and one.day.isoformat()]
            for one in found.occurrences
        ]
        said: dict[str, Any] = {"occurrences": rows, "problems": found.problems[:MOST_PROBLEMS]}
    except CalendarError as error:
        said = {"error": str(error)}
    except Exception as error:  # a parser's many errors: whoever gave the file is told, not a log
        said = {"error": f"The calendar cannot be read: {type(error).__name__}: {str(error)[:200]}."}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    answer()
