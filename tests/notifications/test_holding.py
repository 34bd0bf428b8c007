"""Quiet hours and business hours as pure functions: over midnight, over daylight saving, over holidays."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.hours import Hours, parse_dates, parse_week, parse_zone
from apps.notifications.holding import HOURS, QUIET, Hold, Rule, hold

BERLIN = parse_zone("Europe/Berlin")
NEW_YORK = parse_zone("America/New_York")
NIGHT = "mon-sun 22:00-07:00"
OFFICE = "mon-fri 08:00-18:00"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def quiet(zone: str = "Europe/Berlin", hours: str = NIGHT, below: str = "critical") -> Rule:
    return Rule(QUIET, Hours(parse_zone(zone), parse_week(hours)), below)


def office(holidays: str = "", below: str = "critical", country: str = "") -> Rule:
    return Rule(HOURS, Hours(BERLIN, parse_week(OFFICE), parse_dates(holidays), country), below)


@pytest.mark.parametrize(
    ("rules", "severity", "now", "until"),
    [
        # quiet hours over midnight, in winter: 22:00 in Berlin is 21:00 UTC
        ([quiet()], "warning", "2026-11-23 20:59", None),
        ([quiet()], "warning", "2026-11-23 21:00", "2026-11-24 06:00"),
        ([quiet()], "warning", "2026-11-24 05:59", "2026-11-24 06:00"),
        ([quiet()], "warning", "2026-11-24 06:00", None),
        ([quiet()], "critical", "2026-11-23 23:00", None),
        ([quiet(below="error")], "error", "2026-11-23 23:00", None),
        ([quiet(below="error")], "warning", "2026-11-23 23:00", "2026-11-24 06:00"),
        # the night in which the clock is put forward is an hour shorter, the one in which it is put back an hour longer
        ([quiet()], "info", "2026-03-28 21:30", "2026-03-29 05:00"),
        ([quiet()], "info", "2026-10-24 20:30", "2026-10-25 06:00"),
        ([quiet("America/New_York")], "info", "2026-03-08 03:30", "2026-03-08 11:00"),
        ([quiet("America/New_York")], "info", "2026-11-01 02:30", "2026-11-01 12:00"),
        # an end at a time that the clock skips, or has twice
        ([quiet(hours="mon-sun 22:00-02:30")], "info", "2026-03-29 00:30", "2026-03-29 01:00"),
        ([quiet(hours="mon-sun 22:00-02:30")], "info", "2026-10-24 23:30", "2026-10-25 00:30"),
        ([quiet(hours="mon-sun 22:00-02:30")], "info", "2026-10-25 01:10", "2026-10-25 01:30"),
        # business hours: over the night, over the weekend, over holidays
        ([office()], "warning", "2026-11-23 12:00", None),
        ([office()], "warning", "2026-11-23 17:30", "2026-11-24 07:00"),
        ([office()], "warning", "2026-11-27 17:30", "2026-11-30 07:00"),
        ([office("2026-11-30 a day off")], "warning", "2026-11-27 17:30", "2026-12-01 07:00"),
        ([office(country="DE")], "warning", "2026-12-24 18:00", "2026-12-28 07:00"),
        ([office()], "critical", "2026-11-28 12:00", None),
        # quiet hours that end before the office opens
        ([quiet(), office()], "warning", "2026-11-23 23:00", "2026-11-24 07:00"),
        ([office(), quiet(hours="mon-sun 18:00-10:00")], "warning", "2026-11-23 20:00", "2026-11-24 09:00"),
        # what never ends holds nothing back
        ([quiet(hours="mon-sun 00:00-24:00")], "info", "2026-11-23 12:00", None),
        ([], "info", "2026-11-23 12:00", None),
    ],
)
def test_a_message_is_held_back_until_the_hours_end(rules: list[Rule], severity: str, now: str, until: str | None):
    found = hold(rules, severity, at(now))
    assert (found.until if found else None) == (at(until) if until else None)


def test_the_reason_names_the_hours_and_the_clock_on_the_wall():
    assert hold([quiet()], "info", at("2026-11-23 23:00")) == Hold(
        QUIET, at("2026-11-24 06:00"), "Held back: quiet hours until Tue 07:00 (Europe/Berlin)"
    )
    both = hold([quiet(), office()], "info", at("2026-11-27 23:00"))
    assert both is not None
    assert (both.why, both.reason) == (
        HOURS,
        "Held back: outside of business hours until Mon 08:00 (Europe/Berlin)",
    )


weeks = st.sampled_from([NIGHT, OFFICE, "mon-sun 01:15-02:45", "sat,sun 00:00-24:00", "mon-sun 23:30-01:30", ""])


@given(
    weeks,
    st.sampled_from([BERLIN, NEW_YORK, parse_zone("Australia/Lord_Howe"), parse_zone("Asia/Kolkata")]),
    st.integers(0, 365 * 24 * 60).map(lambda minute: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)),
)
def test_the_next_change_is_the_first_minute_that_differs(week: str, zone: object, now: datetime):
    hours = Hours(zone, parse_week(week), parse_dates("2026-12-25\n2026-05-01"))  # type: ignore[arg-type]
    found = hours.changes_at(now)
    is_open = hours.covers(now)
    end = found or now + timedelta(days=3)
    step = timedelta(minutes=7)
    moment = now
    while moment < min(end, now + timedelta(days=3)):
        assert hours.covers(moment) == is_open
        moment += step
    if found is not None:
        assert hours.covers(found) != is_open
        assert hours.covers(found - timedelta(minutes=1)) == is_open
