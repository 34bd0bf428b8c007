"""Lays shifts out on a week or a month of the reader's time zone. Pure: plans in, places out.

Places are shares of the span's real time (percent), so that a day of 23 or 25 hours is drawn as long as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from apps.oncall.rotation import Gap, Shift, by_day

COLOURS: Final = 8
_A_DAY: Final = timedelta(days=1)
_SLIVER: Final = 0.15
"""Percent under which nothing is to be seen."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is shown: from (inclusive) and to (exclusive) in UTC, its days, and the dates to go to."""

    start: datetime
    end: datetime
    days: tuple[date, ...]
    back: date
    forth: date
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Something drawn on a lane. `tone`: a colour's class, or `nobody`; `words` say it in full."""

    x: str
    width: str
    label: str
    tone: str
    words: str
    is_override: bool = False
    is_away: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a day begins, and whether it is today."""

    x: str
    middle: str
    day: date
    is_today: bool


def week(on: date, zone: ZoneInfo) -> Span:
    """Return the week of that date, Monday first."""
    first = on - on.weekday() * _A_DAY
    days = tuple(first + number * _A_DAY for number in range(7))
    last = days[-1]
    years = f"{last:%Y}" if first.year == last.year else ""
    title = f"{first:%-d %b}{'' if years else f' {first:%Y}'} – {last:%-d %b} {last:%Y}"
    return Span(_at(first, zone), _at(last + _A_DAY, zone), days, first - 7 * _A_DAY, first + 7 * _A_DAY, title)


def month(on: date, zone: ZoneInfo) -> Span:
    """Return the whole weeks that the month of that date touches."""
    first = on.replace(day=1)
    following = (first + 31 * _A_DAY).replace(day=1)
    begins = first - first.weekday() * _A_DAY
    ends = following + (7 - following.weekday()) % 7 * _A_DAY
    days = tuple(begins + number * _A_DAY for number in range((ends - begins).days))
    back = (first - _A_DAY).replace(day=1)
    return Span(_at(begins, zone), _at(ends, zone), days, back, following, f"{first:%B %Y}")


def marks(span: Span, zone: ZoneInfo, today: date) -> list[Mark]:
    """Return where each day begins."""
    found = []
    for day in span.days:
        begin, after = _at(day, zone), _at(day + _A_DAY, zone)
        middle = _share(begin + (after - begin) / 2, span)
        found.append(Mark(_percent(_share(begin, span)), _percent(middle), day, day == today))
    return found


def now_at(span: Span, now: datetime) -> str:
    """Return where the present moment is; empty where it is not shown."""
    return _percent(_share(now, span)) if span.start <= now < span.end else ""


def colours(people: Sequence[int]) -> dict[int, str]:
    """Return a colour's class for each person, the same as long as nobody comes before them."""
    return {person: f"s{number % COLOURS + 1}" for number, person in enumerate(sorted(set(people)))}


def bars(
    shifts: Sequence[Shift], span: Span, zone: ZoneInfo, names: Mapping[int, str], tones: Mapping[int, str],
    away: Mapping[int, str] | None = None,
) -> list[Bar]:  # fmt: skip
    """Return the shifts as bars."""
    away = away or {}
    found = []
    for shift in shifts:
        name = names.get(shift.person, "somebody who is gone")
        words = f"{name}, {spelled(shift.start, shift.end, zone)}, {shift.reason}"
        if shift.person in away:
            words += f"; cannot be told: {away[shift.person]}"
        bar = _bar(shift.start, shift.end, span, name, tones.get(shift.person, "s7"), words)
        if bar is not None:
            found.append(
                Bar(bar.x, bar.width, name, bar.tone, words, shift.is_override, shift.person in away)
            )  # fmt: skip
    return found


def holes(gaps: Sequence[Gap], span: Span, zone: ZoneInfo) -> list[Bar]:
    """Return the times with nobody as bars."""
    rows = [
        _bar(gap.start, gap.end, span, "nobody", "nobody", f"Nobody, {spelled(gap.start, gap.end, zone)}: {gap.reason}")
        for gap in gaps
    ]
    return [row for row in rows if row is not None]


@dataclass(frozen=True, slots=True)
class Cell:
    """Who is on call on a day by one schedule: names in order with their colours; `has_gap`: for some of it nobody."""

    schedule: str
    people: tuple[tuple[str, str], ...]
    has_gap: bool
    has_override: bool


def cells(
    schedule: str, shifts: Sequence[Shift], gaps: Sequence[Gap], span: Span, zone: ZoneInfo,
    names: Mapping[int, str], tones: Mapping[int, str],
) -> dict[date, Cell]:  # fmt: skip
    """Return what stands in each day of a month."""
    people: dict[date, dict[str, str]] = {}
    overridden, open_days = set(), set()
    for shift in shifts:
        for day, _, _ in by_day(zone, max(shift.start, span.start), min(shift.end, span.end)):
            name = names.get(shift.person, "somebody who is gone")
            people.setdefault(day, {})[name] = tones.get(shift.person, "s7")
            if shift.is_override:
                overridden.add(day)
    for gap in gaps:
        open_days |= {day for day, _, _ in by_day(zone, max(gap.start, span.start), min(gap.end, span.end))}
    return {
        day: Cell(schedule, tuple(people.get(day, {}).items()), day in open_days, day in overridden)
        for day in span.days
    }


def spelled(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Write from when to when on the zone's clock."""
    begin, after = start.astimezone(zone), end.astimezone(zone)
    last = f"{after:%H:%M}" if begin.date() == after.date() else f"{after:%a %-d %b %H:%M}"
    return f"{begin:%a %-d %b %H:%M} – {last}"


def _bar(start: datetime, end: datetime, span: Span, label: str, tone: str, words: str) -> Bar | None:
    begin, after = _share(max(start, span.start), span), _share(min(end, span.end), span)
    if after - begin < _SLIVER:
        return None
    return Bar(_percent(begin), _percent(after - begin), label, tone, words)


def _share(at: datetime, span: Span) -> float:
    return (at - span.start) / (span.end - span.start) * 100


def _percent(share: float) -> str:
    return f"{share:.3f}%"


def _at(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
