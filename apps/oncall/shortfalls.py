"""What is wrong with who is on call in the days to come: nobody, somebody who cannot be told, somebody twice. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from apps.oncall.rotation import Clash, Gap, Shift, doubles

WARNED: Final = timedelta(days=7)
"""So long before somebody is told of it."""
SEEN: Final = timedelta(days=21)
"""So far is looked: what comes again within it is the same thing, not a new one."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a schedule says of the time from now on: shifts, gaps (nobody at all), clashes; `away` says who cannot be
    told, and why.
    """

    name: str
    zone: ZoneInfo
    shifts: Sequence[Shift]
    gaps: Sequence[Gap]
    clashes: Sequence[Clash] = ()
    away: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One thing that is wrong: first from `starts_at`, altogether for `hours` of the next seven days.

    What comes again for the same reason, or about the same people, is one: `subject`.
    """

    schedule: int
    kind: str
    subject: str
    text: str
    starts_at: datetime
    hours: float


@dataclass(frozen=True, slots=True)
class _Span:
    start: datetime
    end: datetime
    subject: str
    text: str


def shortfalls(
    outlooks: Mapping[int, Outlook], names: Mapping[int, str], *, now: datetime
) -> dict[tuple[int, str, str], Shortfall]:
    """Return what is wrong by (schedule, kind, subject), of all that begins within SEEN."""
    spans: dict[tuple[int, str, str], list[_Span]] = {}

    def add(schedule: int, kind: str, start: datetime, end: datetime, subject: str, text: str) -> None:
        spans.setdefault((schedule, kind, subject), []).append(_Span(start, end, subject, text))

    by_name = {outlook.name: ident for ident, outlook in outlooks.items()}
    for ident, outlook in outlooks.items():
        for gap in outlook.gaps:
            add(ident, "gap", gap.start, gap.end, gap.reason, f"Nobody is on call: {gap.reason}")
        for shift in outlook.shifts:
            if shift.person in outlook.away:
                why = outlook.away[shift.person]
                add(ident, "unreachable", shift.start, shift.end, str(shift.person), f"Nobody would be told: {why}")
        for clash in outlook.clashes:
            both = " and ".join(names.get(person, "somebody who is gone") for person in clash.people)
            subject = "-".join(map(str, sorted(clash.people)))
            add(ident, "clash", clash.start, clash.end, subject, f"Overrides for {both}: {clash.reason}")
    for double in doubles({outlook.name: outlook.shifts for outlook in outlooks.values()}):
        (person,) = double.people
        first, second = double.schedules
        text = f"{names.get(person, 'Somebody who is gone')} is {double.reason}"
        add(by_name[first], "double", double.start, double.end, f"{person} {by_name[second]}", text)
    return {
        (schedule, kind, subject): _told(schedule, kind, outlooks[schedule].zone, found, now)
        for (schedule, kind, subject), found in spans.items()
    }


def _told(schedule: int, kind: str, zone: ZoneInfo, found: Sequence[_Span], now: datetime) -> Shortfall:
    found = sorted(found, key=lambda span: span.start)
    first = found[0]
    # Those that have begun are left out where others follow: their rest shrinks, and the sum must not grow back later.
    near = [span for span in found if now < span.start < now + WARNED] or [first]
    hours = sum(_length(span, now).total_seconds() for span in near) / 3600
    more = sum(span.start < now + WARNED for span in found) - 1
    times = "once" if more == 1 else "twice" if more == 2 else f"{more} times"
    again = f", and {times} more within {WARNED.days} days" if more > 0 else ""
    text = f"{first.text}. {_when(first, zone, now)}{again}."
    return Shortfall(schedule, kind, first.subject[:300], text, first.start, hours)


def _length(span: _Span, now: datetime) -> timedelta:
    """How long it lasts; what has no end in sight does not grow with each day that comes into sight."""
    return SEEN if span.end >= now + SEEN else span.end - span.start


def _when(span: _Span, zone: ZoneInfo, now: datetime) -> str:
    begins = "Now" if span.start <= now else f"From {span.start.astimezone(zone):%a %-d %b %H:%M}"
    ends = f"until {span.end.astimezone(zone):%a %-d %b %H:%M}" if span.end < now + SEEN else "with no end in sight"
    return f"{begins} {ends} ({zone.key})"


def is_news(found: Shortfall, told_hours: float | None, seen_at: datetime | None, *, now: datetime) -> bool:
    """Whether somebody has to be told of it: near and never told, or longer by an hour than it was when told.

    One that begins earlier than it did when it was last seen (`seen_at`) is news, too: time only brings it nearer.
    """
    if found.starts_at >= now + WARNED:
        return False
    is_earlier = seen_at is not None and found.starts_at < seen_at - timedelta(hours=1)
    return told_hours is None or is_earlier or found.hours > told_hours + 1


def listed(texts: Iterable[str]) -> str:
    """Write findings as lines."""
    return "\n".join(f"- {text}" for text in texts)
