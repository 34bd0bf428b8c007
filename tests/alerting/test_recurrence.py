"""Recurrences: as python-dateutil reads them, by the wall clock, and bounded whatever somebody writes."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting.recurrence import RecurrenceError, Times, parse

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def times(rule: str, start: str, end: str = "2027-12-31", duration: timedelta = HOUR) -> Times:
    return Times(at(start).astimezone(UTC), at(end).astimezone(UTC), parse(rule), "Europe/Berlin", duration)


def begins(found: Times, since: str, before: str) -> list[str]:
    return [f"{begin.astimezone(BERLIN):%m-%d %H:%M}" for begin, _ in found.spans(at(since), at(before))]


DAYS = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=3, unique=True)
NTH = st.sampled_from([1, 2, 4, -1, -2])
MONTH_DAYS = st.sampled_from([1, 15, 31, -1, -3])
RULES = st.one_of(
    st.builds(lambda n: f"FREQ=DAILY;INTERVAL={n}", st.integers(1, 9)),
    st.builds(lambda n, d: f"FREQ=WEEKLY;INTERVAL={n};BYDAY={','.join(d)}", st.integers(1, 4), DAYS),
    st.builds(lambda n, d: f"FREQ=WEEKLY;WKST=SU;INTERVAL={n};BYDAY={','.join(d)}", st.integers(1, 4), DAYS),
    st.builds(lambda n, k, d: f"FREQ=MONTHLY;INTERVAL={n};BYDAY={k}{d[0]}", st.integers(1, 3), NTH, DAYS),
    st.builds(lambda n, d: f"FREQ=MONTHLY;INTERVAL={n};BYMONTHDAY={d}", st.integers(1, 3), MONTH_DAYS),
    st.builds(lambda m: f"FREQ=YEARLY;BYMONTH={m}", st.integers(1, 12)),
    st.builds(lambda m, d: f"FREQ=DAILY;BYMONTH={m};BYDAY={','.join(d)}", st.integers(1, 12), DAYS),
    st.sampled_from(["FREQ=YEARLY", "FREQ=MONTHLY", "FREQ=WEEKLY", "FREQ=DAILY;BYHOUR=3,15;BYMINUTE=0,30"]),
)  # fmt: skip


@given(RULES, st.integers(0, 700), st.sampled_from(["", ";COUNT=5", ";UNTIL=20270601T000000"]))
def test_occurrences_are_those_of_dateutil(rule, offset, limit):
    start = datetime(2026, 1, 1, 3, 30, tzinfo=UTC) + timedelta(days=offset)
    until = datetime(2028, 6, 1, tzinfo=UTC)
    if limit.startswith(";UNTIL") and start > datetime(2027, 6, 1, tzinfo=UTC):
        limit = ""
    walls = itertools.takewhile(lambda wall: wall < until.replace(tzinfo=None), _walls(rule + limit, start))
    expected = [wall.replace(tzinfo=UTC) for wall in walls]
    found = Times(start, until, parse(rule + limit), "UTC", HOUR)
    assert [begin for begin, _ in found.spans(start, until)] == expected


def _walls(rule: str, start: datetime) -> Iterator[datetime]:
    return iter(rrulestr(rule, dtstart=start.replace(tzinfo=None)))


def test_a_window_keeps_its_hour_when_the_clock_changes():
    nightly = times("FREQ=DAILY", "2026-10-20 22:00")
    assert begins(nightly, "2026-10-24 12:00", "2026-10-27 12:00") == ["10-24 22:00", "10-25 22:00", "10-26 22:00"]
    utc = [begin.hour for begin, _ in nightly.spans(at("2026-10-24 12:00"), at("2026-10-26 12:00"))]
    assert utc == [20, 21]


def test_an_occurrence_in_the_hour_that_is_left_out_is_not_lost_and_in_the_doubled_hour_comes_once():
    nightly = times("FREQ=DAILY", "2026-03-20 02:30")
    assert begins(nightly, "2026-03-28 12:00", "2026-03-30 12:00") == ["03-29 03:30", "03-30 02:30"]
    assert begins(nightly, "2026-10-24 12:00", "2026-10-26 12:00") == ["10-25 02:30", "10-26 02:30"]


def test_it_holds_until_the_end_of_its_occurrence_or_of_the_series():
    weekend = times("FREQ=WEEKLY;BYDAY=SA", "2026-11-07 00:00", "2026-11-29 12:00", timedelta(hours=48))
    assert weekend.holds_until(at("2026-11-08 13:00")) == at("2026-11-09 00:00")
    assert weekend.holds_until(at("2026-11-09 00:00")) is None
    assert weekend.next_start(at("2026-11-09 00:00")) == at("2026-11-14 00:00")
    assert weekend.holds_until(at("2026-11-28 13:00")) == at("2026-11-29 12:00")
    assert weekend.holds_until(at("2026-11-29 13:00")) is None


def test_occurrences_that_touch_hold_without_a_break():
    always = times("FREQ=DAILY", "2026-11-01 00:00", duration=timedelta(hours=24))
    until = always.holds_until(at("2026-11-05 10:00"))
    assert until is not None
    assert until >= at("2026-11-07 00:00")


@pytest.mark.parametrize(
    "rule",
    ["FREQ=SECONDLY", "FREQ=MINUTELY", "FREQ=DAILY;BYSECOND=0,1", "FREQ=DAILY;BYHOUR=1,2,3,4,5;BYMINUTE=0,1,2,3,4",
     "", "INTERVAL=2", "FREQ=DAILY;FREQ=DAILY", "FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;COUNT=3;UNTIL=20270101",
     "FREQ=DAILY;BYDAY=XX", "FREQ=YEARLY;BYDAY=1MO", "FREQ=DAILY;UNTIL=tomorrow", "FREQ=DAILY;COUNT=99999999999999",
     "FREQ=DAILY;INTERVAL=²", "x" * 500],
)  # fmt: skip
def test_what_comes_too_often_or_cannot_be_read_is_refused(rule):
    with pytest.raises(RecurrenceError):
        parse(rule)


@pytest.mark.parametrize(
    "rule",
    ["FREQ=DAILY;INTERVAL=7;BYDAY=TU", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=MONTHLY;INTERVAL=12;BYMONTH=3"],
)
def test_a_rule_that_never_comes_is_found_out_at_once(rule):
    never = times(rule, "2026-11-02 10:00", "2031-11-01")
    assert list(never.spans(never.starts_at, never.ends_at)) == []
