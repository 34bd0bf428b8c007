"""Hours of a week in a time zone, closed on holidays: pure values that say whether a moment lies within them.

Daylight saving needs no case of its own: a moment has exactly one wall-clock time in its zone. An hour that a clock
skips is never within, one that it repeats is within twice.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT: Final = 24 * 60
MOST_LINES: Final = 100
FORESEEN: Final = timedelta(days=60)
"""How far ahead the next opening or closing is looked for."""
_MINUTE: Final = timedelta(minutes=1)
_LINE: Final = re.compile(
    r"(?P<days>[a-z]{3}(?:-[a-z]{3})?(?:,[a-z]{3}(?:-[a-z]{3})?)*)\s+"
    r"(?P<begin>\d{1,2}:\d\d)\s*-\s*(?P<end>\d{1,2}:\d\d)\Z"
)

Spans = tuple[tuple[int, int], ...]
"""Minutes of a day from (inclusive) and to (exclusive), ascending."""


@dataclass(frozen=True, slots=True)
class Hours:
    """When a week is open: `week[0]` are Monday's spans; `holidays` are closed dates, `country` (DE, DE-BY) names more.

    A week without any span at all is open around the clock, so a calendar may consist of holidays only.
    """

    zone: ZoneInfo
    week: tuple[Spans, ...] = ((),) * 7
    holidays: frozenset[date] = frozenset()
    country: str = ""

    def covers(self, at: datetime) -> bool:
        """Whether that moment (with a time zone) is open."""
        there = at.astimezone(self.zone)
        if self.is_holiday(there.date()):
            return False
        if not any(self.week):
            return True
        minute = there.hour * 60 + there.minute
        return any(begin <= minute < end for begin, end in self.week[there.weekday()])

    def changes_at(self, at: datetime) -> datetime | None:
        """Return the next moment, in UTC and whole minutes, from which `covers` says something else than it does `at`.

        None: nothing changes within `FORESEEN`. What it says changes where a span of the week begins or ends, at a
        midnight (holidays), and on days whose clock is moved possibly at any quarter of an hour.
        """
        is_open, before = self.covers(at), at.astimezone(UTC)
        for edge in self._edges(before):
            if self.covers(edge) == is_open:
                before = edge
                continue
            found = edge
            while found - before > _MINUTE:
                middle = (before + (found - before) / 2).replace(second=0, microsecond=0)
                before, found = (middle, found) if self.covers(middle) == is_open else (before, middle)
            return found
        return None

    def _edges(self, after: datetime) -> Iterator[datetime]:
        """Moments behind `after` at which something may change, ascending."""
        day = after.astimezone(self.zone).date()
        last = day + FORESEEN
        while day < last:
            here = datetime.combine(day, time(), self.zone)
            length = datetime.combine(day + timedelta(days=1), time(), self.zone).astimezone(UTC) - here.astimezone(UTC)
            minutes = {0, *(edge for span in self.week[day.weekday()] for edge in span)}
            if length != timedelta(days=1):
                minutes |= set(range(0, 24 * 60, 15))
            found = set()
            for minute in minutes - {MIDNIGHT}:
                wall = datetime.combine(day, time(minute // 60, minute % 60), self.zone)
                found |= {wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)}
            yield from (moment for moment in sorted(found) if moment > after)
            day += timedelta(days=1)

    def is_holiday(self, day: date) -> bool:
        """Whether that date, as the zone counts dates, is closed."""
        return day in self.holidays or (bool(self.country) and day in country_holidays(self.country, day.year))


def parse_zone(name: str) -> ZoneInfo:
    """Return the zone of that name; ValueError says that there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name[:50]!r} is no time zone; write for example Europe/Berlin or UTC.") from None


def parse_week(text: str) -> tuple[Spans, ...]:
    """Read lines such as `mon-fri 08:00-18:00`; a span that ends before it begins goes on after midnight.

    ValueError names the line that is none.
    """
    week: list[list[tuple[int, int]]] = [[] for _ in DAYS]
    lines = [line for part in text.lower().splitlines() for line in part.split(";")]
    if len(lines) > MOST_LINES:
        raise ValueError(f"{len(lines)} lines of hours; a week needs no more than {MOST_LINES}.")
    for line in lines:
        if not (line := line.strip()):
            continue
        found = _LINE.match(re.sub(r"\s*,\s*", ",", line))
        if found is None:
            raise ValueError(f"{line[:50]!r} is no line of hours; write for example mon-fri 08:00-18:00.")
        begin, end = _minute(found["begin"]), _minute(found["end"])
        for day in _days(found["days"]):
            if begin < end:
                week[day].append((begin, end))
                continue
            week[day].append((begin, MIDNIGHT))
            if end:
                week[(day + 1) % 7].append((0, end))
    return tuple(tuple(sorted(spans)) for spans in week)


def parse_dates(text: str) -> frozenset[date]:
    """Read lines such as `2026-12-24 Christmas Eve`; what follows the date is for people. ValueError names the line."""
    found = set()
    for line in text.splitlines():
        if not (line := line.strip()):
            continue
        try:
            found.add(date.fromisoformat(line.split()[0]))
        except ValueError:
            raise ValueError(f"{line[:50]!r} does not begin with a date such as 2026-12-24.") from None
    return frozenset(found)


def check_country(code: str) -> None:
    """Raise ValueError unless public holidays of that country (DE) or of its part (DE-BY) are known."""
    import holidays  # a quarter of a second: only where somebody asks for a country

    country, _, part = code.partition("-")
    known = holidays.list_supported_countries()
    if country not in known:
        raise ValueError(f"{code[:20]!r} is no country whose holidays are known; write its two letters, such as DE.")
    if part and part not in known[country]:
        raise ValueError(f"{country} has no part {part[:20]!r}; it has {', '.join(known[country]) or 'none'}.")


@functools.lru_cache(maxsize=256)
def country_holidays(code: str, year: int) -> frozenset[date]:
    """Return the public holidays of a country or its part in one year (source: the package holidays)."""
    import holidays

    country, _, part = code.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=year))


def _minute(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > MIDNIGHT:
        raise ValueError(f"{text} is no time of day.")
    return hour * 60 + minute


def _days(text: str) -> list[int]:
    """Numbers of the days in `mon-fri,sun`; a range may go over the weekend."""
    found: list[int] = []
    for part in text.split(","):
        names = part.split("-")
        if unknown := [name for name in names if name not in DAYS]:
            raise ValueError(f"{unknown[0]!r} is no day: {', '.join(DAYS)}.")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        found += [(first + step) % 7 for step in range((last - first) % 7 + 1)]
    return found
