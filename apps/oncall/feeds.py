"""Who is on call as iCalendar (RFC 5545), for calendars that subscribe. Pure: shifts and layers in, text out.

Final shifts are events of their own with times in UTC: every calendar shows the hours that the portal keeps, overrides
included. Layers are recurring events in their zone: what another tool needs to take a rotation over.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from apps.accounts.icaltext import document, escaped, stamp, time_zone
from apps.oncall.rotation import Layer, Shift, Source

AHEAD: Final = timedelta(days=180)
_MONTHS_BACK: Final = 2
_A_DAY: Final = timedelta(days=1)
_ZONES_FOR: Final = timedelta(days=5 * 366)


@dataclass(frozen=True, slots=True)
class Entry:
    """A shift with the schedule that it is of, and the name of the person."""

    schedule: int
    name: str
    person: str
    shift: Shift


def span(now: datetime) -> tuple[datetime, datetime]:
    """Return from when to when shifts are written: from the first of a month, so that what began before keeps its UID
    for the month.
    """
    month = now.year * 12 + now.month - 1 - _MONTHS_BACK
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC), now + AHEAD


def write(title: str, entries: Iterable[Entry], *, now: datetime, address: str) -> str:
    """Return the calendar of the shifts; `address` is the page that shows them."""
    lines: list[str] = []
    for entry in entries:
        shift = entry.shift
        lines += _event(f"shift-{entry.schedule}-{shift.person}-{stamp(shift.start)}", now)
        lines += [f"DTSTART:{stamp(shift.start)}", f"DTEND:{stamp(shift.end)}"]
        lines += [f"SUMMARY:{escaped(f'{entry.person} ({entry.name})')}", f"DESCRIPTION:{escaped(shift.reason)}"]
        lines += [f"URL:{address}", "TRANSP:TRANSPARENT", "END:VEVENT"]
    return document(title, lines, product="On-call")


def write_layers(
    schedule: int, title: str, layers: Iterable[Source], names: Mapping[int, str], *, now: datetime
) -> str:
    """Return the calendar of the layers: recurring events where a rule can say it, single ones elsewhere."""
    lines: list[str] = []
    rows = list(layers)
    zones = {layer.zone.key: layer for layer in reversed(rows) if isinstance(layer, Layer) and _is_rule(layer)}
    for first in zones.values():
        if first.zone.key != "UTC":
            lines += time_zone(first.zone, first.starts_at - 366 * _A_DAY, now + _ZONES_FOR)
    for number, layer in enumerate(rows, start=1):
        uid = f"layer-{schedule}-{number}"
        if isinstance(layer, Layer) and _is_rule(layer):
            lines += _rules(uid, number, layer, names, now)
            continue
        for begin, after, person in layer.stretches(*span(now)):
            lines += _single(uid, number, begin, after, names.get(person, "nobody"), now)
    return document(title, lines, product="On-call")


def _is_rule(layer: Layer) -> bool:
    """Whether each person's turns recur as a whole: hours of the week cut them in ways that a rule does not say."""
    return not any(layer.week)


def _rules(uid: str, number: int, layer: Layer, names: Mapping[int, str], now: datetime) -> Iterator[str]:
    """Yield for each place in the order its turns: a rule for whole ones, single events for what is cut off."""
    count = len(layer.people)
    cycle = layer.days * count
    frequency = f"FREQ=WEEKLY;INTERVAL={cycle // 7}" if cycle % 7 == 0 else f"FREQ=DAILY;INTERVAL={cycle}"
    for place, person in enumerate(layer.people):
        name = names.get(person, "nobody")
        turn = place
        begin, after = layer.bounds(turn)
        if begin < layer.starts_at:
            yield from _single(uid, number, layer.starts_at, min(after, layer.ends_at or after), name, now)
            turn += count
            begin, after = layer.bounds(turn)
        until = ""
        if layer.ends_at is not None:
            last = turn
            while layer.bounds(last)[1] <= layer.ends_at:
                last += count
            cut, _ = layer.bounds(last)
            if cut < layer.ends_at:
                yield from _single(uid, number, cut, layer.ends_at, name, now)
            if last == turn:
                continue
            until = f";UNTIL={stamp(layer.bounds(last - count)[0])}"
        yield from _event(f"{uid}-{place + 1}", now)
        # A wall time that a clock skips is written as such: the rule's other days are at that time.
        at = f"{layer.day_of(turn):%Y%m%d}T{layer.hand_over:%H%M%S}"
        yield f"DTSTART:{at}Z" if layer.zone.key == "UTC" else f"DTSTART;TZID={layer.zone.key}:{at}"
        yield f"DURATION:P{layer.days}D"
        yield f"RRULE:{frequency}{until}"
        yield f"SUMMARY:{escaped(f'[L{number}] {name}')}"
        yield "END:VEVENT"


def _single(uid: str, number: int, begin: datetime, after: datetime, name: str, now: datetime) -> Iterator[str]:
    yield from _event(f"{uid}-{stamp(begin)}", now)
    yield f"DTSTART:{stamp(begin)}"
    yield f"DTEND:{stamp(after)}"
    yield f"SUMMARY:{escaped(f'[L{number}] {name}')}"
    yield "END:VEVENT"


def _event(uid: str, now: datetime) -> list[str]:
    return ["BEGIN:VEVENT", f"UID:{uid}@monitoring-portal", f"DTSTAMP:{stamp(now)}"]
