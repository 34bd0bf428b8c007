"""Who is on call when: layers of people who take turns, overrides above them. Pure; it knows no tables and no clock.

Hand-overs and hours are wall-clock times of the layer's zone, as RFC 5545 (3.3.5) reads them: a time that a clock skips
is taken with the offset from before the change, one that it repeats is the first of the two.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from apps.accounts.hours import Spans, parse_week

ROUND_THE_CLOCK: Final[tuple[Spans, ...]] = ((),) * 7
NIGHTS: Final = parse_week("mon-sun 22:00-06:00")
WEEKENDS: Final = parse_week("sat,sun 00:00-24:00")
_A_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)

Span = tuple[datetime, datetime]
"""From (inclusive) and to (exclusive), in UTC."""


@dataclass(frozen=True, slots=True)
class Layer:
    """People (ids, in order) who take turns of `days` days at `hand_over` o'clock of their zone.

    With a `weekday` (Monday is 0) turns begin on that day, and `days` is a multiple of 7. The turn in which `starts_at`
    falls is the first person's. `week` narrows each turn to hours of the week (see `apps.accounts.hours`).
    """

    name: str
    people: tuple[int, ...]
    starts_at: datetime
    zone: ZoneInfo
    hand_over: time = time(9, 0)
    days: int = 1
    weekday: int | None = None
    ends_at: datetime | None = None
    week: tuple[Spans, ...] = ROUND_THE_CLOCK

    def turns(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        """Yield (begin, end, person) of every turn that touches [start, end), in order, cut off there."""
        start = max(start, self.starts_at)
        end = min(end, self.ends_at) if self.ends_at is not None else end
        if not self.people or start >= end:
            return
        first = self._first_day()
        # A day before: a clock that moves may bring the hand-over to the other side of `start`.
        number = max(0, ((start.astimezone(self.zone).date() - first).days - 1) // self.days)
        while (begin := self._begins(first, number)) < end:
            after = self._begins(first, number + 1)
            if max(begin, start) < min(after, end):
                yield max(begin, start), min(after, end), self.people[number % len(self.people)]
            number += 1

    def bounds(self, number: int) -> tuple[datetime, datetime]:
        """Return from when to when the turn of that number (from 0) lasts, not cut off where the layer begins."""
        first = self._first_day()
        return self._begins(first, number), self._begins(first, number + 1)

    def day_of(self, number: int) -> date:
        """Return the date on which the turn of that number begins."""
        return self._first_day() + number * self.days * _A_DAY

    def _begins(self, first: date, number: int) -> datetime:
        return _at(first + number * self.days * _A_DAY, self.hand_over, self.zone)

    def _first_day(self) -> date:
        """The date of the last hand-over that is not after `starts_at`."""
        day = self.starts_at.astimezone(self.zone).date()
        if self.weekday is not None:
            day -= (day.weekday() - self.weekday) % 7 * _A_DAY
        if _at(day, self.hand_over, self.zone) > self.starts_at:
            day -= _A_DAY if self.weekday is None else 7 * _A_DAY
        return day

    def stretches(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        """Yield (begin, end, person) whenever the layer has somebody, its hours regarded, in order."""
        for begin, after, person in self.turns(start, end):
            for opens, closes in open_spans(self.week, self.zone, begin, after):
                yield opens, closes, person

    def why_nobody(self, start: datetime, end: datetime) -> str:
        """Say why it has nobody in a span in which it has nobody."""
        if not self.people:
            return f"layer {self.name} has nobody"
        if end <= self.starts_at:
            return f"layer {self.name} has not begun"
        if self.ends_at is not None and start >= self.ends_at:
            return f"layer {self.name} has ended"
        return f"it lies outside the hours or the dates of layer {self.name}"


@dataclass(frozen=True, slots=True)
class Booked:
    """A layer whose turns stand in a calendar: (begin, end, person) in order and without overlap.

    `until` is how far the calendar was read; nothing is known of what comes later.
    """

    name: str
    turns: tuple[tuple[datetime, datetime, int], ...]
    until: datetime | None = None

    def stretches(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        """Yield (begin, end, person) of every turn that touches [start, end), in order, cut off there."""
        for begin, after, person in self.turns:
            if max(begin, start) < min(after, end):
                yield max(begin, start), min(after, end), person

    def why_nobody(self, start: datetime, end: datetime) -> str:
        """Say why it has nobody in a span in which it has nobody."""
        if self.until is None:
            return f"the calendar of layer {self.name} has not been read"
        if start >= self.until:
            return f"the calendar of layer {self.name} is read until {self.until:%Y-%m-%d} only"
        return f"the calendar of layer {self.name} has nobody"


Source = Layer | Booked


@dataclass(frozen=True, slots=True)
class Override:
    """Somebody who is on call whatever the layers say. A swap is two of them."""

    starts_at: datetime
    ends_at: datetime
    person: int
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """Somebody on call without a break, and why: the layer or the override by which."""

    start: datetime
    end: datetime
    person: int
    reason: str
    is_override: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which nobody is on call, and why."""

    start: datetime
    end: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Clash:
    """A time in which a person is on call twice, or two overrides want different people."""

    start: datetime
    end: datetime
    reason: str
    people: tuple[int, ...]
    schedules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Hours that somebody is on call; those at night (22 to 6 o'clock), at weekends, on holidays count there, too."""

    hours: float = 0.0
    nights: float = 0.0
    weekends: float = 0.0
    holidays: float = 0.0

    def plus(self, other: "Load") -> "Load":
        """Add another one up."""
        return Load(
            self.hours + other.hours, self.nights + other.nights, self.weekends + other.weekends,
            self.holidays + other.holidays,
        )  # fmt: skip


def shifts(layers: Sequence[Source], overrides: Sequence[Override], start: datetime, end: datetime) -> list[Shift]:
    """Return who is on call in [start, end), in order and without overlap.

    A later layer wins over the ones before it, an override over every layer, a later override over an earlier one.
    """
    sources = [
        [Shift(begin, after, person, f"layer {layer.name}") for begin, after, person in layer.stretches(start, end)]
        for layer in layers
    ]
    for one in overrides:
        begin, after = max(one.starts_at, start), min(one.ends_at, end)
        if begin < after:
            sources.append([Shift(begin, after, one.person, _why(one), is_override=True)])
    cuts = sorted({moment for source in sources for shift in source for moment in (shift.start, shift.end)})
    places = [0] * len(sources)
    found: list[Shift] = []
    for begin, after in pairwise(cuts):
        winner = None
        for number, source in enumerate(sources):
            while places[number] < len(source) and source[places[number]].end <= begin:
                places[number] += 1
            if places[number] < len(source) and source[places[number]].start <= begin:
                winner = source[places[number]]
        if winner is None:
            continue
        last = found[-1] if found else None
        if last is not None and (last.end, last.person, last.reason) == (begin, winner.person, winner.reason):
            found[-1] = replace(last, end=after)
        else:
            found.append(replace(winner, start=begin, end=after))
    return found


def on_call(layers: Sequence[Source], overrides: Sequence[Override], at: datetime) -> Shift | None:
    """Return who is on call at that moment and why; the shift is cut to the moment. None: nobody."""
    found = shifts(layers, overrides, at, at + _INSTANT)
    return found[0] if found else None


def gaps(layers: Sequence[Source], overrides: Sequence[Override], start: datetime, end: datetime) -> list[Gap]:
    """Return when nobody is on call in [start, end), and why."""
    return between(layers, shifts(layers, overrides, start, end), start, end)


def between(layers: Sequence[Source], taken: Iterable[Shift], start: datetime, end: datetime) -> list[Gap]:
    """Return the gaps that these shifts of the layers leave in [start, end)."""
    found, since = [], start
    for shift in taken:
        if since < shift.start:
            found.append(Gap(since, shift.start, _why_nobody(layers, since, shift.start)))
        since = shift.end
    if since < end:
        found.append(Gap(since, end, _why_nobody(layers, since, end)))
    return found


def clashes(overrides: Sequence[Override], start: datetime, end: datetime) -> list[Clash]:
    """Return where two overrides of one schedule want different people; the later one wins."""
    found = []
    for number, earlier in enumerate(overrides):
        for later in overrides[number + 1 :]:
            begin = max(earlier.starts_at, later.starts_at, start)
            after = min(earlier.ends_at, later.ends_at, end)
            if begin < after and earlier.person != later.person:
                why = "two overrides at once, the later one wins"
                found.append(Clash(begin, after, why, (earlier.person, later.person)))
    return sorted(found, key=lambda clash: clash.start)


def doubles(schedules: Mapping[str, Sequence[Shift]]) -> list[Clash]:
    """Return where a person is on call by two schedules (shifts by the schedule's name) at once."""
    found = []
    named = sorted(schedules.items())
    for number, (name, mine) in enumerate(named):
        for other, theirs in named[number + 1 :]:
            for one in mine:
                for two in theirs:
                    begin, after = max(one.start, two.start), min(one.end, two.end)
                    if one.person == two.person and begin < after:
                        why = f"on call by {name} and {other} at once"
                        found.append(Clash(begin, after, why, (one.person,), (name, other)))
    return sorted(found, key=lambda clash: clash.start)


def unreached(found: Iterable[Shift], why: Mapping[int, str]) -> list[Gap]:
    """Return the shifts of people who cannot be told (by id, with the reason) as what they are: gaps."""
    return [Gap(shift.start, shift.end, why[shift.person]) for shift in found if shift.person in why]


def flattened(turns: Iterable[tuple[datetime, datetime, int]]) -> list[tuple[datetime, datetime, int]]:
    """Return turns in order and without overlap: where several hold at once the one that began last wins."""
    rows = sorted(turns)
    cuts = sorted({moment for begin, after, _ in rows for moment in (begin, after)})
    held: list[tuple[float, int]] = []
    found: list[tuple[datetime, datetime, int]] = []
    last, place = -1, 0
    for begin, after in pairwise(cuts):
        while place < len(rows) and rows[place][0] <= begin:
            heapq.heappush(held, (-rows[place][0].timestamp(), -place))
            place += 1
        while held and rows[-held[0][1]][1] <= begin:
            heapq.heappop(held)
        if not held:
            last = -1
            continue
        winner = -held[0][1]
        if winner == last:
            found[-1] = found[-1][0], after, rows[winner][2]
        else:
            found.append((begin, after, rows[winner][2]))
        last = winner
    return found


def fairness(
    found: Iterable[Shift], zone: ZoneInfo, is_holiday: Callable[[date], bool] = lambda _: False
) -> dict[int, Load]:
    """Return each person's hours, and those at night, at weekends and on holidays as the zone's clock counts them."""
    loads: dict[int, Load] = {}
    for shift in found:
        span = shift.start, shift.end
        holidays = [(begin, after) for day, begin, after in by_day(zone, *span) if is_holiday(day)]
        own = Load(
            _hours([span]), _hours(open_spans(NIGHTS, zone, *span)), _hours(open_spans(WEEKENDS, zone, *span)),
            _hours(holidays),
        )  # fmt: skip
        loads[shift.person] = loads.get(shift.person, Load()).plus(own)
    return loads


def by_day(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[date, datetime, datetime]]:
    """Yield (date, begin, end) of each day of the zone that touches [start, end), cut off there."""
    day = start.astimezone(zone).date()
    while (begin := _at(day, time(), zone)) < end:
        after = _at(day + _A_DAY, time(), zone)
        if max(begin, start) < min(after, end):
            yield day, max(begin, start), min(after, end)
        day += _A_DAY


def open_spans(week: tuple[Spans, ...], zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Span]:
    """Yield when the hours of the week lie within [start, end), joined and in order; no hours mean all of them."""
    if not any(week):
        yield start, end
        return
    day = start.astimezone(zone).date() - _A_DAY
    last = end.astimezone(zone).date()
    held: Span | None = None
    while day <= last:
        for begin, after in week[day.weekday()]:
            opens, closes = max(_minute(day, begin, zone), start), min(_minute(day, after, zone), end)
            if opens >= closes:
                continue
            if held is not None and opens <= held[1]:
                held = held[0], max(held[1], closes)
                continue
            if held is not None:
                yield held
            held = opens, closes
        day += _A_DAY
    if held is not None:
        yield held


def _at(day: date, wall: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, wall, zone).astimezone(UTC)


def _minute(day: date, minute: int, zone: ZoneInfo) -> datetime:
    days, rest = divmod(minute, 24 * 60)
    return _at(day + days * _A_DAY, time(rest // 60, rest % 60), zone)


def _hours(spans: Iterable[Span]) -> float:
    return sum((after - begin).total_seconds() for begin, after in spans) / 3600


def _why(override: Override) -> str:
    by = f" by {override.by}" if override.by else ""
    return f"override{by}: {override.reason}" if override.reason else f"override{by}"


def _why_nobody(layers: Sequence[Source], start: datetime, end: datetime) -> str:
    return "; ".join(layer.why_nobody(start, end) for layer in layers) or "the schedule has no layer"
