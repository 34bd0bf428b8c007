"""When something recurs: a bounded part of RFC 5545's RRULE in a time zone. Pure.

Rules are users' input, so the walk is bounded by construction: it looks at each day of the asked span once and tells by
arithmetic whether the rule holds on it. (python-dateutil walks from one occurrence to the next and may look for one
until the year 9999: `FREQ=DAILY;INTERVAL=7;BYDAY=TU` from a Monday. Tests compare with it.)

Occurrences keep their wall-clock time through changes of daylight saving; one in the hour that is left out begins an
hour later by the new clock, one in the hour that comes twice takes the first. Each lasts its duration in real time.
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_PARTS: Final = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYHOUR", "BYMINUTE", "WKST")
_DAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BYDAY: Final = re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)\Z")
MOST_A_DAY: Final = 24
LONGEST_SERIES: Final = timedelta(days=5 * 366)
"""From the first occurrence to the last: somebody should look at it again by then."""
LONGEST_OCCURRENCE: Final = timedelta(days=31)


class RecurrenceError(ValueError):
    """A rule that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed RRULE. Weekdays count from Monday 0; `days` are (ordinal within the month or None, weekday)."""

    frequency: str
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    days: tuple[tuple[int | None, int], ...] = ()
    month_days: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()
    week_start: int = 0


@lru_cache(maxsize=512)
def parse(text: str) -> Rule:
    """Read a rule such as `FREQ=WEEKLY;BYDAY=SA,SU`; RecurrenceError says what cannot be read or is not offered."""
    found: dict[str, str] = {}
    for part in text.strip().removeprefix("RRULE:").upper().split(";"):
        name, sign, value = part.strip().partition("=")
        if not sign or name in found or not value:
            raise RecurrenceError(f"{part[:60]!r} is no part of an RRULE: write NAME=VALUE, each once, with ; between.")
        if name not in _PARTS:
            raise RecurrenceError(f"RRULE's {name[:20]} is not offered here; these are: {', '.join(_PARTS)}.")
        found[name] = value
    frequency = found.get("FREQ", "")
    if frequency not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        raise RecurrenceError(f"FREQ is DAILY, WEEKLY, MONTHLY or YEARLY, not {frequency or 'left out'}.")
    if "COUNT" in found and "UNTIL" in found:
        raise RecurrenceError("An RRULE has COUNT or UNTIL, not both.")
    days = tuple(_byday(item) for item in found["BYDAY"].split(",")) if "BYDAY" in found else ()
    if any(ordinal is not None for ordinal, _ in days) and frequency != "MONTHLY":
        raise RecurrenceError("BYDAY with a number (1MO, -1FR) counts within the month: it needs FREQ=MONTHLY.")
    month_days = _numbers(found, "BYMONTHDAY", 1, 31, signed=True)
    if month_days and frequency == "WEEKLY":
        raise RecurrenceError("BYMONTHDAY does not go with FREQ=WEEKLY (RFC 5545).")
    hours, minutes = _numbers(found, "BYHOUR", 0, 23), _numbers(found, "BYMINUTE", 0, 59)
    if max(1, len(hours)) * max(1, len(minutes)) > MOST_A_DAY:
        raise RecurrenceError(f"At most {MOST_A_DAY} occurrences a day: fewer of BYHOUR and BYMINUTE.")
    return Rule(
        frequency,
        interval=next(iter(_numbers(found, "INTERVAL", 1, 1000)), 1),
        count=next(iter(_numbers(found, "COUNT", 1, 100_000)), None),
        until=_until(found["UNTIL"]) if "UNTIL" in found else None,
        days=days,
        month_days=month_days,
        months=_numbers(found, "BYMONTH", 1, 12),
        hours=hours,
        minutes=minutes,
        week_start=_weekday(found.get("WKST", "MO")),
    )


def _weekday(text: str) -> int:
    if text not in _DAYS:
        raise RecurrenceError(f"WKST={text[:10]} is none of {', '.join(_DAYS)}.")
    return _DAYS.index(text)


def _byday(text: str) -> tuple[int | None, int]:
    found = _BYDAY.match(text)
    if found is None:
        raise RecurrenceError(f"BYDAY={text[:20]} is no day: MO, TU, …, or 1MO, -1FR within a month.")
    return (int(found[1]) if found[1] else None), _DAYS.index(found[2])


def _numbers(found: dict[str, str], name: str, low: int, high: int, *, signed: bool = False) -> tuple[int, ...]:
    if name not in found:
        return ()
    numbers = []
    for text in found[name].split(","):
        plain = text.removeprefix("-") if signed else text
        if not (plain.isascii() and plain.isdigit() and len(plain) <= 6 and low <= int(plain) <= high):
            raise RecurrenceError(f"{name}={text[:20]} is no number from {low} to {high}.")
        numbers.append(int(text))
    return tuple(sorted(set(numbers)))


def _until(text: str) -> datetime:
    for form, zone in (("%Y%m%dT%H%M%SZ", UTC), ("%Y%m%dT%H%M%S", None), ("%Y%m%d", None)):
        try:
            at = datetime.strptime(text, form)  # noqa: DTZ007 - without a zone it is wall-clock time of the rule's
        except ValueError:
            continue
        at = at + timedelta(days=1, seconds=-1) if form == "%Y%m%d" else at
        return at.replace(tzinfo=zone)
    raise RecurrenceError(f"UNTIL={text[:30]} is no time: 20270131T180000Z, or without Z in the rule's own zone.")


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of that IANA name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise RecurrenceError(f"{name[:60]!r} is no time zone: write one like Europe/Berlin or UTC.") from None


@dataclass(frozen=True, slots=True)
class Times:
    """When something holds: once from `starts_at` to `ends_at`, or with a rule, `duration` from each occurrence on.

    With a rule the first occurrence is not before `starts_at`, and nothing holds after `ends_at`.
    """

    starts_at: datetime
    ends_at: datetime
    rule: Rule | None = None
    zone: str = "UTC"
    duration: timedelta = timedelta(0)

    def spans(self, since: datetime, before: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the spans (begin, end) that touch [since, before), in order; cut off at `ends_at`."""
        if self.rule is None:
            if self.starts_at < before and self.ends_at > since:
                yield self.starts_at, self.ends_at
            return
        zone = zone_of(self.zone)
        first = self.starts_at.astimezone(zone)
        start_day = first.date()
        # With COUNT every day since the first has to be counted; the length of a series bounds that.
        begin = (
            start_day if self.rule.count else max(start_day, (since - self.duration - _A_DAY).astimezone(zone).date())
        )
        last = min((before + _A_DAY).astimezone(zone).date(), (self.ends_at + _A_DAY).astimezone(zone).date())
        seen = 0
        for number in range(begin.toordinal(), last.toordinal() + 1):
            day = date.fromordinal(number)
            if not _holds(self.rule, start_day, day):
                continue
            for wall in _times(self.rule, first, day):
                at = wall.replace(tzinfo=zone).astimezone(UTC)
                if at < self.starts_at:
                    continue
                seen += 1
                if at >= self.ends_at or self._is_over(at, wall) or (self.rule.count and seen > self.rule.count):
                    return
                end = min(at + self.duration, self.ends_at)
                if at < before and end > since:
                    yield at, end

    def _is_over(self, at: datetime, wall: datetime) -> bool:
        until = self.rule.until if self.rule is not None else None
        if until is None:
            return False
        return at > until if until.tzinfo else wall > until

    def holds_until(self, now: datetime) -> datetime | None:
        """Return until when it holds without a break, or None where it does not hold now."""
        until = None
        for begin, end in self.spans(now, now + self.duration + timedelta(seconds=1)):
            if begin <= (until or now) < end:
                until = max(end, until or end)
        return until

    def next_start(self, now: datetime) -> datetime | None:
        """Return when it holds again for the first time after `now`; None where that is never or years away."""
        horizon = min(self.ends_at, now + _HORIZON)
        return next((begin for begin, _ in self.spans(now, horizon) if begin > now), None)


_A_DAY: Final = timedelta(days=1)
_HORIZON: Final = timedelta(days=366)


def _holds(rule: Rule, start: date, day: date) -> bool:
    """Whether the rule, begun on `start`, has occurrences on the day (RFC 5545, 3.3.10)."""
    if rule.months and day.month not in rule.months:
        return False
    if not _is_in_phase(rule, start, day):
        return False
    if rule.month_days:
        length = calendar.monthrange(day.year, day.month)[1]
        if day.day not in rule.month_days and day.day - length - 1 not in rule.month_days:
            return False
    if rule.days:
        return any(weekday == day.weekday() and _is_nth(ordinal, day) for ordinal, weekday in rule.days)
    if rule.month_days or rule.frequency == "DAILY":
        return True
    if rule.frequency == "WEEKLY":
        return day.weekday() == start.weekday()
    if rule.frequency == "MONTHLY":
        return day.day == start.day
    return day.day == start.day and (bool(rule.months) or day.month == start.month)


def _is_in_phase(rule: Rule, start: date, day: date) -> bool:
    match rule.frequency:
        case "DAILY":
            passed = (day - start).days
        case "WEEKLY":
            passed = (_week(day, rule.week_start) - _week(start, rule.week_start)) // 7
        case "MONTHLY":
            passed = (day.year - start.year) * 12 + day.month - start.month
        case _:
            passed = day.year - start.year
    return passed % rule.interval == 0


def _week(day: date, week_start: int) -> int:
    """The number of the first day of the day's week."""
    return day.toordinal() - (day.weekday() - week_start) % 7


def _is_nth(ordinal: int | None, day: date) -> bool:
    if ordinal is None:
        return True
    if ordinal > 0:
        return (day.day - 1) // 7 + 1 == ordinal
    length = calendar.monthrange(day.year, day.month)[1]
    return (length - day.day) // 7 + 1 == -ordinal


def _times(rule: Rule, first: datetime, day: date) -> Iterator[datetime]:
    """The wall-clock times of the day at which occurrences begin."""
    for hour in rule.hours or (first.hour,):
        for minute in rule.minutes or (first.minute,):
            yield datetime(day.year, day.month, day.day, hour, minute, first.second)  # noqa: DTZ001 - wall-clock
