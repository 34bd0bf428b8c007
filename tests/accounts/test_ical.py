"""Calendars of other people: dialects of Google and Outlook, days, exceptions, and files that mean harm."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings

from apps.accounts.ical import MOST_BYTES, CalendarError, Reading, days, expand, read

BERLIN = ZoneInfo("Europe/Berlin")
START, END = datetime(2027, 3, 1, tzinfo=UTC), datetime(2027, 4, 30, tzinfo=UTC)


def calendar(*events: str, head: str = "") -> bytes:
    body = "\n".join(f"BEGIN:VEVENT\nUID:{number}\n{event}\nEND:VEVENT" for number, event in enumerate(events))
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n{head}\n{body}\nEND:VCALENDAR\n".replace("\n\n", "\n")
    return text.replace("\n", "\r\n").encode()


def found(*events: str, head: str = "") -> Reading:
    return expand(calendar(*events, head=head), start=START, end=END, zone=BERLIN)


def times(reading: Reading) -> list[str]:
    return [f"{one.start:%m-%dT%H:%M}/{one.end:%m-%dT%H:%M} {one.summary}" for one in reading.occurrences]


@pytest.mark.parametrize(
    ("event", "head", "expected"),
    [
        pytest.param(
            "DTSTART;TZID=W. Europe Standard Time:20270327T090000\nDTEND;TZID=W. Europe Standard Time:20270327T170000\n"
            "RRULE:FREQ=DAILY;COUNT=3\nEXDATE;TZID=W. Europe Standard Time:20270328T090000\nSUMMARY:Anna",
            "",
            ["03-27T08:00/03-27T16:00 Anna", "03-29T07:00/03-29T15:00 Anna"],
            id="Outlook's name of a zone, over the change of the clocks, with one taken out",
        ),
        pytest.param(
            "DTSTART:20270327T080000Z\nDTEND:20270327T160000Z\nRRULE:FREQ=WEEKLY;COUNT=2\nSUMMARY:Ben",
            "X-WR-TIMEZONE:Europe/Berlin",
            ["03-27T08:00/03-27T16:00 Ben", "04-03T07:00/04-03T15:00 Ben"],
            id="Google's UTC, which is meant by the calendar's zone",
        ),
        pytest.param(
            "DTSTART;VALUE=DATE:20270328\nDTEND;VALUE=DATE:20270329\nSUMMARY:Clara",
            "",
            ["03-27T23:00/03-28T22:00 Clara"],
            id="a whole day has 23 hours where the clocks go forward",
        ),
        pytest.param(
            "DTSTART:20270310T090000\nDURATION:PT2H\nSUMMARY:a name that is so long that it is folded b\n y its writer",
            "",
            ["03-10T08:00/03-10T10:00 a name that is so long that it is folded by its writer"],
            id="a folded line, a duration, a time without a zone",
        ),
        pytest.param(
            "DTSTART:20270310T090000Z\nDTEND:20270310T100000Z\nSTATUS:CANCELLED\nSUMMARY:off", "", [],
            id="a cancelled one",
        ),
    ],
)  # fmt: skip
def test_dialects_are_understood(event: str, head: str, expected: list[str]) -> None:
    assert times(found(event, head=head)) == expected


def test_a_moved_occurrence_stands_where_it_was_moved_to() -> None:
    series = "UID:s\nDTSTART:20270301T090000Z\nDTEND:20270301T100000Z\nRRULE:FREQ=WEEKLY;COUNT=3\nSUMMARY:Anna"
    moved = "UID:s\nRECURRENCE-ID:20270308T090000Z\nDTSTART:20270309T120000Z\nDTEND:20270309T130000Z\nSUMMARY:Ben"
    text = calendar(series, moved).replace(b"UID:0\r\n", b"").replace(b"UID:1\r\n", b"")
    assert times(expand(text, start=START, end=END, zone=BERLIN)) == [
        "03-01T09:00/03-01T10:00 Anna", "03-09T12:00/03-09T13:00 Ben", "03-15T09:00/03-15T10:00 Anna",
    ]  # fmt: skip


def test_who_attends_is_read_by_name_and_address_and_what_is_not_understood_is_said() -> None:
    who = 'ATTENDEE;CN="Anna B.":mailto:anna@example.com\n'
    at = "DTSTART:20270310T090000Z\nDTEND:20270310T100000Z\n"
    moon = "DTSTART;TZID=Moon/Sea:20270310T090000\nDTEND;TZID=Moon/Sea:20270310T100000"
    reading = found(f"{at}{who}SUMMARY:On call", "SUMMARY:no time", moon)
    assert next(one for one in reading.occurrences if one.summary).people == ("anna@example.com", "Anna B.")
    assert reading.problems[0] == "'no time' has no time that can be read."
    assert "time zone 'Moon/Sea', which is not known" in reading.problems[1]


def test_holidays_are_each_day_of_an_event() -> None:
    text = calendar(
        "DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261227\nRRULE:FREQ=YEARLY\nSUMMARY:Christmas",
        "DTSTART:20270101T100000Z\nDTEND:20270101T110000Z\nSUMMARY:a meeting",
    )
    named = days(text, start=date(2027, 1, 1), end=date(2028, 1, 1))
    assert named == [(date(2027, 12, 25), "Christmas"), (date(2027, 12, 26), "Christmas")]


EVERY = "DTSTART:19700101T000000Z\nDTEND:19700101T000001Z\nSUMMARY:x\nRRULE:"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\xff" * 1000, "no calendar"),
        (b"BEGIN:VCALENDAR\r\n" + b"x" * 5 * MOST_BYTES, "larger than 2 MB"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nnonsense", "breaks off"),
        (b"BEGIN:VCALENDAR\r\n" + b"BEGIN:VEVENT\r\nEND:VEVENT\r\n" * 5001 + b"END:VCALENDAR", "5001 events"),
        (b"BEGIN:VCALENDAR\r\nnonsense\r\nEND:VCALENDAR", "cannot be read"),
        (calendar(EVERY + "FREQ=SECONDLY"), "could not be read within"),
        (calendar(EVERY + "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"), "could not be read within"),
        (calendar(*[EVERY + "FREQ=HOURLY"] * 20), "could not be read within"),
    ],
    ids=["garbage", "10 MB", "broken off", "many events", "nonsense", "each second", "never", "a bomb"],
)
def test_a_file_that_means_harm_is_refused_in_a_sentence_and_in_time(data: bytes, words: str) -> None:
    with pytest.raises(CalendarError, match=words):
        read(data, start=START, end=START + timedelta(days=100), zone=BERLIN, seconds=1.0)


@pytest.mark.parametrize("cut", range(0, 300, 37))
def test_a_file_that_breaks_off_is_read_or_refused_never_more(cut: int) -> None:
    whole = calendar("DTSTART:20270310T090000Z\nDTEND:20270310T100000Z\nRRULE:FREQ=DAILY;COUNT=2\nSUMMARY:Anna")
    try:
        reading = expand(whole[:cut], start=START, end=END, zone=BERLIN)
    except CalendarError:
        return
    assert len(reading.occurrences) <= 2


def test_no_process_of_the_portal_loads_the_parser() -> None:
    """It costs 10 MB in each of them: only the child that reads a file does."""
    script = "import sys, apps.oncall.bookings, apps.accounts.ical; print('icalendar' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=settings.ROOT)
    assert said.stdout.strip() == "False"
