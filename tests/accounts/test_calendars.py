"""Hours of a week in a zone: what they cover, over midnight, holidays and daylight saving, and what is refused."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.hours import Hours, country_holidays, parse_dates, parse_week, parse_zone
from apps.accounts.models import Calendar

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("week", "at", "expected"),
    [
        ("mon-fri 08:00-18:00", "2026-03-02T08:00", True),  # a Monday
        ("mon-fri 08:00-18:00", "2026-03-02T07:59", False),
        ("mon-fri 08:00-18:00", "2026-03-02T18:00", False),
        ("mon-fri 08:00-18:00", "2026-03-01T12:00", False),  # a Sunday
        ("fri-mon 08:00-18:00", "2026-03-01T12:00", True),
        ("sat 22:00-06:00", "2026-03-01T05:59", True),
        ("sun 22:00-06:00", "2026-03-02T05:59", True),
        ("sun 22:00-06:00", "2026-03-02T06:00", False),
        ("mon,wed 08:00-09:00; tue 10:00-24:00", "2026-03-03T23:59", True),
        ("mon 00:00-24:00", "2026-03-03T00:00", False),
        ("", "2026-03-01T03:00", True),
    ],
)
def test_a_week_covers_its_hours_and_nothing_else(week, at, expected):
    hours = Hours(BERLIN, parse_week(week))
    assert hours.covers(datetime.fromisoformat(at).replace(tzinfo=BERLIN)) is expected


def minutes_open(hours, month, day):
    """Minutes of the zone's day that are covered."""
    start = datetime(2026, month, day, tzinfo=hours.zone).astimezone(UTC)
    end = (datetime(2026, month, day, tzinfo=hours.zone) + timedelta(days=1)).astimezone(UTC)
    return sum(hours.covers(start + timedelta(minutes=n)) for n in range(int((end - start).total_seconds() // 60)))


def test_a_skipped_hour_is_never_open_and_a_repeated_one_is_open_twice():
    hours = Hours(BERLIN, parse_week("mon-sun 02:00-03:00"))
    assert [minutes_open(hours, *day) for day in ((3, 28), (3, 29), (10, 25))] == [60, 0, 120]


def test_holidays_are_closed_by_the_date_of_the_zone():
    hours = Hours(BERLIN, holidays=parse_dates("2026-12-24 Christmas Eve\n\n2026-12-31"))
    assert not hours.covers(datetime(2026, 12, 23, 23, 30, tzinfo=UTC))
    assert hours.covers(datetime(2026, 12, 24, 23, 30, tzinfo=UTC))


def test_public_holidays_of_a_country_or_a_part_of_it_are_closed():
    assert date(2026, 10, 3) in country_holidays("DE", 2026)
    assert date(2026, 1, 6) in country_holidays("DE-BY", 2026)
    assert date(2026, 1, 6) not in country_holidays("DE", 2026)
    assert Hours(BERLIN, country="DE-BY").is_holiday(date(2026, 1, 6))


@pytest.mark.parametrize(
    "text", ["mon 8-18", "mon-fry 08:00-18:00", "08:00-18:00", "mon 25:00-26:00", "mon 08:70-09:00"]
)
def test_hours_that_mean_nothing_are_refused_by_their_words(text):
    with pytest.raises(ValueError, match="is no"):
        parse_week(text)


def test_a_zone_is_a_name_and_no_path():
    for name in ("Europe/Nowhere", "../etc/passwd", "", "/etc/passwd", "x" * 300):
        with pytest.raises(ValueError, match="is no time zone"):
            parse_zone(name)


def test_a_calendar_names_every_field_that_is_wrong():
    calendar = Calendar(name="Office", zone="Mars", hours="always", holidays="tomorrow", country="zz")
    with pytest.raises(ValidationError) as refused:
        calendar.clean()
    assert set(refused.value.message_dict) == {"zone", "hours", "holidays", "country"}
    good = Calendar(name="Office", zone="Europe/Berlin", hours="mon-fri 09:00-17:00", country="de-by")
    good.clean()
    assert good.country == "DE-BY"
    assert good.times.covers(datetime(2026, 3, 2, 8, 0, tzinfo=UTC))
