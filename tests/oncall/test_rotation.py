"""Who is on call when: turns at wall-clock time in many zones, compared with an independent expansion of RFC 5545."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import DAILY, WEEKLY, rrule  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.accounts.hours import parse_week
from apps.oncall.rotation import Layer, Load, Override, clashes, doubles, fairness, gaps, on_call, shifts

ANNA, BEN, CLARA = 1, 2, 3
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UTC_ZONE = ZoneInfo("UTC")
MONDAY = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC")


def layer(*people: int, **given: object) -> Layer:
    values = {"name": "L", "starts_at": MONDAY, "zone": ZoneInfo("UTC"), **given}
    return Layer(people=people, **values)  # type: ignore[arg-type]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "hand_over", "first", "expected"),
    [
        # Spring forward and fall back: 09:00 stays 09:00 on the wall.
        ("Europe/Berlin", time(9), "2027-03-27T08:00", ["2027-03-28T07:00", "2027-03-29T07:00"]),
        ("Europe/Berlin", time(9), "2027-10-30T07:00", ["2027-10-31T08:00", "2027-11-01T08:00"]),
        # 02:30 does not exist on 2027-03-14 in New York: it is read with the offset from before, so 03:30.
        ("America/New_York", time(2, 30), "2027-03-13T07:30", ["2027-03-14T07:30", "2027-03-15T06:30"]),
        # 01:30 exists twice on 2027-11-07: the first.
        ("America/New_York", time(1, 30), "2027-11-06T05:30", ["2027-11-07T05:30", "2027-11-08T06:30"]),
        # A change of half an hour, and an offset that ends in 45 minutes.
        ("Australia/Lord_Howe", time(9), "2027-04-02T22:00", ["2027-04-03T22:30", "2027-04-04T22:30"]),
        ("Asia/Kathmandu", time(9), "2027-01-01T03:15", ["2027-01-02T03:15", "2027-01-03T03:15"]),
        # Leap day.
        ("Europe/Berlin", time(9), "2028-02-28T08:00", ["2028-02-29T08:00", "2028-03-01T08:00"]),
    ],
)
def test_hand_overs_stay_at_the_time_on_the_wall(zone: str, hand_over: time, first: str, expected: list[str]) -> None:
    one = layer(ANNA, BEN, CLARA, zone=ZoneInfo(zone), hand_over=hand_over, starts_at=utc(first))
    found = shifts([one], [], utc(first), utc(expected[-1]) + HOUR)
    assert [(shift.start, shift.person) for shift in found] == [
        (utc(first), ANNA), (utc(expected[0]), BEN), (utc(expected[1]), CLARA),
    ]  # fmt: skip


@settings(max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    hand_over=st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    day=st.dates(min_value=date(2027, 1, 1), max_value=date(2028, 12, 31)),
    every=st.integers(1, 3),
    is_weekly=st.booleans(),
    skipped=st.integers(0, 40),
)
def test_turns_begin_as_a_recurrence_of_icalendar_does(
    zone: str, hand_over: time, day: date, every: int, is_weekly: bool, skipped: int
) -> None:
    there = ZoneInfo(zone)
    first = datetime.combine(day, hand_over, there)
    one = layer(
        ANNA, BEN, zone=there, hand_over=hand_over, starts_at=first.astimezone(UTC),
        days=every * 7 if is_weekly else every, weekday=first.weekday() if is_weekly else None,
    )  # fmt: skip
    start = one.starts_at + skipped * DAY
    end = start + 30 * DAY
    rule = rrule(WEEKLY if is_weekly else DAILY, interval=every, dtstart=first.replace(tzinfo=None), count=100)
    begins = [wall.replace(tzinfo=there).astimezone(UTC) for wall in rule]
    expected = [
        (max(begin, start), min(after, end), (ANNA, BEN)[number % 2])
        for number, (begin, after) in enumerate(pairwise(begins))
        if max(begin, start) < min(after, end)
    ]
    assert list(one.turns(start, end)) == expected


def test_a_week_begins_on_its_weekday_even_where_the_layer_starts_in_between() -> None:
    one = layer(ANNA, BEN, days=7, weekday=0, starts_at=MONDAY + 2 * DAY)
    found = shifts([one], [], MONDAY, MONDAY + 10 * DAY)
    assert [(s.start, s.end, s.person) for s in found] == [
        (MONDAY + 2 * DAY, MONDAY + 7 * DAY, ANNA), (MONDAY + 7 * DAY, MONDAY + 10 * DAY, BEN),
    ]  # fmt: skip


def test_hours_narrow_a_turn_and_the_layer_below_shows_through() -> None:
    below = layer(ANNA, name="all")
    above = layer(BEN, name="office", week=parse_week("mon-fri 09:00-17:00"))
    found = shifts([below, above], [], MONDAY, MONDAY + DAY)
    assert [(s.person, s.reason, s.end - s.start) for s in found] == [
        (BEN, "layer office", 8 * HOUR), (ANNA, "layer all", 16 * HOUR),
    ]  # fmt: skip


def test_an_override_wins_over_the_layers_and_the_later_one_over_the_earlier() -> None:
    first = Override(MONDAY, MONDAY + 4 * HOUR, BEN, "ben", "dentist")
    second = Override(MONDAY + 2 * HOUR, MONDAY + 3 * HOUR, CLARA, "clara")
    found = shifts([layer(ANNA)], [first, second], MONDAY, MONDAY + 5 * HOUR)
    assert [(s.person, s.is_override) for s in found] == [(BEN, True), (CLARA, True), (BEN, True), (ANNA, False)]
    assert found[0].reason == "override by ben: dentist"
    assert [c.people for c in clashes([first, second], MONDAY, MONDAY + DAY)] == [(BEN, CLARA)]


def test_a_gap_says_why_nobody_is_on_call() -> None:
    later = layer(ANNA, name="new", starts_at=MONDAY + DAY)
    ended = layer(BEN, name="old", ends_at=MONDAY)
    (gap,) = gaps([later, ended, layer(name="empty")], [], MONDAY, MONDAY + 2 * DAY)
    assert (gap.start, gap.end) == (MONDAY, MONDAY + DAY)
    assert gap.reason == "layer new has not begun; layer old has ended; layer empty has nobody"
    assert gaps([], [], MONDAY, MONDAY + DAY)[0].reason == "the schedule has no layer"
    office = layer(ANNA, week=parse_week("mon-fri 09:00-17:00"))
    assert "outside the hours" in gaps([office], [], MONDAY, MONDAY + DAY)[0].reason


def test_who_is_on_call_by_two_schedules_at_once_is_found() -> None:
    mine, theirs = ([layer(ANNA, BEN)], [layer(CLARA, BEN)])
    end = MONDAY + 2 * DAY
    (double,) = doubles({"db": shifts(mine, [], MONDAY, end), "web": shifts(theirs, [], MONDAY, end)})
    assert (double.start, double.end, double.people) == (MONDAY + DAY, end, (BEN,))
    assert double.reason == "on call by db and web at once"


def test_nights_and_weekends_are_counted_by_the_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    saturday = datetime(2027, 10, 30, tzinfo=berlin)  # the night after it has an hour more
    one = layer(ANNA, zone=berlin, starts_at=saturday.astimezone(UTC))
    found = shifts([one], [], one.starts_at, one.starts_at + 49 * HOUR)
    assert fairness(found, berlin) == {ANNA: Load(hours=49.0, nights=17.0, weekends=49.0)}


MOMENTS = st.integers(0, 14 * 24).map(lambda hours: MONDAY + hours * HOUR)
LAYERS = st.lists(
    st.builds(
        layer,
        st.integers(1, 4), st.integers(1, 4),
        name=st.sampled_from("abc"), zone=st.sampled_from(ZONES).map(ZoneInfo), days=st.integers(1, 3),
        week=st.sampled_from(["", "mon-fri 08:00-18:00", "mon-sun 22:00-06:00"]).map(parse_week),
        ends_at=st.none() | MOMENTS,
    ),
    max_size=3,
)  # fmt: skip
OVERRIDES = st.lists(
    st.builds(
        lambda start, hours, who: Override(start, start + hours * HOUR, who),
        MOMENTS, st.integers(1, 30), st.integers(1, 4),
    ),
    max_size=3,
)  # fmt: skip


@settings(max_examples=60)
@given(layers=LAYERS, overrides=OVERRIDES, at=MOMENTS)
def test_shifts_and_gaps_tile_the_span_and_agree_with_the_moment(
    layers: list[Layer], overrides: list[Override], at: datetime
) -> None:
    start, end = MONDAY, MONDAY + 14 * DAY
    found = shifts(layers, overrides, start, end)
    holes = gaps(layers, overrides, start, end)
    tiles = sorted([(s.start, s.end) for s in found] + [(g.start, g.end) for g in holes])
    assert tiles[0][0] == start
    assert tiles[-1][1] == end
    assert all(before[1] == after[0] for before, after in pairwise(tiles))
    now = on_call(layers, overrides, at) if at < end else None
    there = next((s for s in found if s.start <= at < s.end), None)
    assert (now and (now.person, now.reason)) == (there and (there.person, there.reason))
