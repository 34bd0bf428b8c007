"""Calendars kept elsewhere: uploaded, fetched from a real receiver, and what they leave when they fail."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from apps.accounts.models import AuditEntry, User
from apps.notifications.models import Contact
from apps.oncall import calendars, coverage, schedules
from apps.oncall.models import ImportedCalendar, Schedule
from tests.notifications.receivers import Answer, HttpReceiver
from tests.oncall.conftest import BY, START
from tests.oncall.test_api import Caller

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def ics(*titles: str) -> bytes:
    """A calendar in which each of these has a day from START on, in turn."""
    events = "".join(
        f"BEGIN:VEVENT\r\nUID:{n}\r\nDTSTART:{START + n * DAY:%Y%m%dT%H%M%SZ}\r\n"
        f"DTEND:{START + (n + 1) * DAY:%Y%m%dT%H%M%SZ}\r\nSUMMARY:{title}\r\nEND:VEVENT\r\n"
        for n, title in enumerate(titles)
    )
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{events}END:VCALENDAR\r\n".encode()


@pytest.fixture
def people() -> list[User]:
    found = [User.objects.create_user(name, f"{name}@x.example") for name in ("anna", "ben")]
    for person in found:
        Contact.objects.create(name=f"phone-{person}", kind="webhook", config={"url": "https://x/"}, owner=person)
    return found


@pytest.fixture
def place(settings: Any) -> Iterator[HttpReceiver]:
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    receiver = HttpReceiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def schedule_by(calendar: ImportedCalendar) -> Schedule:
    layer = {"name": "theirs", "rotation": "calendar", "calendar": calendar, "starts_at": START - 9 * DAY}
    return schedules.save_schedule(by=BY, name="Database", layers=[layer])


def who(schedule: Schedule, days: float) -> str:
    shift = schedules.on_call(schedule, START + days * DAY)
    return User.objects.get(pk=shift.person).username if shift else ""


def test_an_uploaded_calendar_says_who_is_on_call_and_names_whom_it_does_not_know(people: list[User]) -> None:
    data = ics("[L1] Anna", "Zoe", "ben@x.example")
    calendar = calendars.save_calendar(by=BY, now=START, name="Ops", data=data)
    schedule = schedule_by(calendar)
    assert [who(schedule, days) for days in (0.5, 1.5, 2.5)] == ["anna", "", "ben"]
    assert calendar.unmatched == ["Zoe"]
    (gap, later) = schedules.plan(schedule, START, START + 400 * DAY).gaps
    assert gap.reason == "the calendar of layer theirs has nobody"
    assert later.start == START + 3 * DAY
    far = schedules.plan(schedule, START + 300 * DAY, START + 301 * DAY).gaps
    assert far[0].reason == "the calendar of layer theirs is read until 2027-05-22 only"
    with pytest.raises(ValidationError, match="used by Database"):
        calendars.delete_calendar(by=BY, calendar=calendar)


def test_somebody_who_comes_later_is_found_when_the_file_is_read_again(people: list[User]) -> None:
    calendar = calendars.save_calendar(by=BY, now=START, name="Ops", data=ics("Zoe"))
    zoe = User.objects.create_user("zoe")
    assert calendars.fetch(now=START + HOUR) == 0
    assert calendars.fetch(now=START + 7 * HOUR) == 1
    calendar.refresh_from_db()
    assert calendar.unmatched == []
    assert calendar.booked == ((START, START + DAY, zoe.pk),)


def test_an_address_is_fetched_by_its_etag_and_what_was_read_holds_when_it_fails(
    people: list[User], place: HttpReceiver
) -> None:
    answers = iter([
        Answer(body=ics("anna"), headers={"ETag": '"1"'}), Answer(304, body=b""), Answer(500),
        Answer(body=b"<html>log in</html>", headers={"ETag": '"2"'}), Answer(body=ics("ben"), headers={"ETag": '"3"'}),
    ])  # fmt: skip
    place.answer = lambda request: next(answers)
    calendar = calendars.save_calendar(by=BY, now=START, name="Ops", url=place.url)
    schedule = schedule_by(calendar)
    found = []
    for turn in range(5):
        assert calendars.fetch(now=START + turn * calendars.EVERY) == 1
        calendar.refresh_from_db()
        found.append((who(schedule, 0.5), calendar.problem.partition(":")[0]))
    assert found == [
        ("anna", ""), ("anna", ""), ("anna", "127.0.0.1 answered 500 instead of a calendar."),
        ("anna", "That is no calendar"), ("ben", ""),
    ]  # fmt: skip
    assert [request.headers.get("if-none-match") for request in place.requests] == [None, '"1"', '"1"', '"1"', '"1"']


def test_a_calendar_that_cannot_be_fetched_is_a_problem_that_is_shown(place: HttpReceiver, settings: Any) -> None:
    settings.OUTBOUND_ALLOW = []
    schedule_by(calendars.save_calendar(by=BY, now=START, name="Ops", url=place.url))
    calendars.fetch(now=START)
    (problem,) = coverage.problems()
    assert problem.startswith("The calendar Ops cannot be read: ")
    assert "OUTBOUND_ALLOW" in problem
    assert place.requests == []


def test_what_changed_while_it_was_fetched_is_kept(
    people: list[User], place: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = calendars.save_calendar(by=BY, now=START, name="Ops", url=place.url)
    place.answer = lambda request: Answer(body=ics("anna"))
    take = calendars.take

    def changed_meanwhile(*given: Any) -> None:
        ImportedCalendar.objects.filter(pk=calendar.pk).update(zone="Asia/Tokyo")
        take(*given)

    monkeypatch.setattr(calendars, "take", changed_meanwhile)
    calendars.fetch(now=START)
    calendar.refresh_from_db()
    assert (calendar.zone, calendar.turns) == ("Asia/Tokyo", [])


def test_the_address_is_a_secret_in_answers_and_in_the_audit(client: Client) -> None:
    editor = Caller(client, "admin")
    url = "webcal://calendar.example/private-4711/basic.ics"
    made = editor("post", "on-call-calendars", {"name": "Ops", "url": url})
    assert made.status_code == 201, made.content
    assert made.json()["host"] == "calendar.example"
    entry = AuditEntry.objects.get(verb="oncall.save_calendar")
    assert "4711" not in made.content.decode() + str(entry.after)
    assert ImportedCalendar.objects.get().secrets == {"url": url.replace("webcal", "https")}
    bad = editor("post", "on-call-calendars", {"name": "Bad", "content": "BEGIN:VCALENDAR"})
    assert (bad.status_code, bad.json()["error"].partition(":")[0]) == (400, "file")


def test_the_admin_takes_a_file_and_says_what_is_wrong_with_one(client: Client, people: list[User]) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    client.force_login(User.objects.create_superuser("root"))
    url = "/admin/oncall/importedcalendar/add/"
    given = {"name": "Ops", "zone": "UTC"}
    assert "Give the address of a calendar" in client.post(url, given).content.decode()
    broken = client.post(url, given | {"file": SimpleUploadedFile("x.ics", b"MZ garbage")})
    assert "That is no calendar" in broken.content.decode()
    assert client.post(url, given | {"file": SimpleUploadedFile("x.ics", ics("anna"))}).status_code == 302
    assert ImportedCalendar.objects.get().booked[0][2] == people[0].pk
