"""Who is on call as iCalendar: read back by another implementation, the hours are the same in every zone and year."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.accounts.ical import Occurrence, expand
from apps.accounts.icaltext import document, time_zone
from apps.oncall.bookings import Names, book
from apps.oncall.feeds import Entry, span, write, write_layers
from apps.oncall.rotation import Booked, Layer, Override, shifts
from tests.oncall.test_rotation import HOUR, LAYERS, MONDAY, OVERRIDES, UTC_ZONE, utc

DAY = timedelta(days=1)

NAMES = {1: "anna", 2: "ben", 3: "clara; the \\ 3rd, née Ü", 4: "dan"}
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC")


def read_back(text: str, start: datetime, end: datetime) -> tuple[Occurrence, ...]:
    reading = expand(text.encode(), start=start, end=end, zone=UTC_ZONE)
    assert reading.problems == ()
    return reading.occurrences


def layer(zone: str, starts_at: datetime, **values: Any) -> Layer:
    return Layer("L", (1, 2, 4), starts_at, ZoneInfo(zone), **values)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("begins", "hand_over", "days", "weekday"),
    [
        # Spring and autumn of both hemispheres lie in the 400 days that are compared.
        ("2027-01-04T12:00", time(9, 0), 1, None),
        ("2027-01-04T12:00", time(2, 30), 1, None),
        ("2027-01-04T12:00", time(1, 30), 2, None),
        ("2027-01-06T12:00", time(17, 45), 7, 4),
        # The leap day of 2028.
        ("2028-02-20T00:00", time(0, 0), 1, None),
        ("2028-02-20T00:00", time(23, 59), 14, 1),
    ],
)
def test_a_layers_rule_means_the_same_turns_to_another_implementation(
    zone: str, begins: str, hand_over: time, days: int, weekday: int | None
) -> None:
    one = layer(zone, utc(begins), hand_over=hand_over, days=days, weekday=weekday)
    start, end = utc(begins), utc(begins) + 400 * DAY
    text = write_layers(1, "Database", [one], NAMES, now=start)
    theirs = [(each.start, each.end, each.summary.removeprefix("[L1] ")) for each in read_back(text, start, end)]
    ours = [(begin, after, NAMES[who]) for begin, after, who in one.turns(start, end + 30 * DAY)]
    compared = [turn for turn in theirs if turn[1] <= end]
    assert len(compared) >= 400 // days - 2
    assert compared == ours[: len(compared)]


def test_a_layer_that_begins_and_ends_within_a_turn_is_cut_there() -> None:
    one = layer("Europe/Berlin", MONDAY + 3 * HOUR, days=7, weekday=0, ends_at=MONDAY + 24 * DAY)
    text = write_layers(1, "Database", [one], NAMES, now=MONDAY)
    theirs = [(each.start, each.end) for each in read_back(text, MONDAY - DAY, MONDAY + 60 * DAY)]
    assert theirs == [(begin, after) for begin, after, _ in one.turns(MONDAY - DAY, MONDAY + 60 * DAY)]


@settings(max_examples=20)
@given(layers=LAYERS, overrides=OVERRIDES)
def test_what_is_exported_and_imported_gives_the_same_shifts(layers: list[Layer], overrides: list[Override]) -> None:
    start, end = MONDAY, MONDAY + 14 * DAY
    found = shifts(layers, overrides, start, end)
    text = write("All", [Entry(1, "Database", NAMES[s.person], s) for s in found], now=MONDAY, address="https://x/")
    people = Names((ident, [name]) for ident, name in NAMES.items())
    booked = book(read_back(text, start, end), people)
    assert booked.unmatched == []
    turns = tuple((datetime.fromisoformat(a), datetime.fromisoformat(b), who) for a, b, who in booked.turns)
    again = shifts([Booked("imported", turns, end)], [], start, end)
    assert [(s.start, s.end, s.person) for s in again] == _joined([(s.start, s.end, s.person) for s in found], again)


def _joined(rows: list[tuple[datetime, datetime, int]], again: Any) -> list[tuple[datetime, datetime, int]]:
    """An import knows no reasons: what differs only in them is one shift to it."""
    found: list[tuple[datetime, datetime, int]] = []
    for begin, after, who in rows:
        if found and found[-1][1:] == (begin, who):
            found[-1] = found[-1][0], after, who
        else:
            found.append((begin, after, who))
    return found


def test_events_keep_their_uid_and_lines_are_folded_with_crlf() -> None:
    begins, _ = span(MONDAY)
    (one,) = shifts([Layer("L", (3,), begins - DAY, UTC_ZONE)], [], *span(MONDAY))
    texts = [
        write("Überall", [Entry(7, "Datenbank in Köln", NAMES[3], one)], now=now, address="https://x/" + "y" * 100)
        for now in (MONDAY, MONDAY + HOUR)
    ]
    uids = [icalendar.Calendar.from_ical(text).walk("VEVENT")[0]["UID"] for text in texts]
    assert uids[0] == uids[1] == "shift-7-3-20260901T000000Z@monitoring-portal"
    assert all(len(line.encode()) <= 75 for line in texts[0].split("\r\n"))
    assert "\n" not in texts[0].replace("\r\n", "")


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "Asia/Kathmandu"])
def test_a_written_zone_has_the_offsets_of_the_zone(name: str) -> None:
    zone = ZoneInfo(name)
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2029, 1, 1, tzinfo=UTC)
    text = document("x", time_zone(zone, start, end), product="x")
    written: Any = icalendar.Calendar.from_ical(text).walk("VTIMEZONE")[0]
    written = written.to_tz(lookup_tzid=False)
    for hours in range(0, 3 * 8760, 13):
        at = (start + hours * HOUR).astimezone(zone)
        if at.fold == 0 and at.astimezone(UTC).astimezone(zone) == at:
            assert at.replace(tzinfo=None, fold=0).replace(tzinfo=written).utcoffset() == at.utcoffset(), at


@pytest.mark.parametrize(
    ("title", "attendees", "expected"),
    [
        ("anna", (), 1), ("ANNA", (), 1), ("[L1] anna", (), 1), ("On call: Anna Berg", (), 1),
        ("anna (Database)", (), 1), ("primary - ben", (), 2), ("anything", ("ben@x.example",), 2),
        ("anna, ben", (), 1), ("On-call", ("nobody@x.example", "anna"), 1),
        ("Sam", (), None), ("annabel", (), None), ("", (), None),
    ],
)  # fmt: skip
def test_whose_event_it_is(title: str, attendees: tuple[str, ...], expected: int | None) -> None:
    people = [(1, ["anna", "Anna Berg"]), (2, ["ben", "ben@x.example"]), (3, ["sam1", "Sam"]), (4, ["sam2", "Sam"])]
    assert Names(people).who(title, attendees) == expected


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(1, 4)).map(
            lambda row: Occurrence(MONDAY + row[0] * HOUR, MONDAY + (row[0] + row[1]) * HOUR, NAMES[row[2]])
        ),
        max_size=8,
    )
)
def test_events_at_once_leave_the_one_that_began_last(rows: list[Occurrence]) -> None:
    turns = book(rows, Names((ident, [name]) for ident, name in NAMES.items())).turns
    for hour in range(32):
        at = MONDAY + hour * HOUR
        there = [row for row in rows if row.start <= at < row.end]
        now = [
            who for begin, after, who in turns if datetime.fromisoformat(begin) <= at < datetime.fromisoformat(after)
        ]
        latest = max((row.start for row in there), default=None)
        assert len(now) == bool(there)
        assert not there or NAMES[now[0]] in [row.summary for row in there if row.start == latest]
