"""The page of who is on call: what it says, what may be done on it, and the calendars that subscribe."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.models import Token, User
from apps.accounts.permissions import Principal, forget_tokens
from apps.dashboards import oncall_calendar as drawing
from apps.oncall import schedules
from apps.oncall.models import Override, Schedule
from apps.oncall.rotation import Gap, Shift

BERLIN = ZoneInfo("Europe/Berlin")
BY = Principal.system("test")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
URL = "/monitoring/on-call/"


# --- Pure ------------------------------------------------------------------------------------------------------------
def test_a_week_over_the_change_of_the_clocks_is_drawn_as_long_as_it_is() -> None:
    span = drawing.week(date(2027, 3, 28), BERLIN)
    assert span.end - span.start == 167 * HOUR
    assert (span.title, span.back, span.forth) == ("22 Mar – 28 Mar 2027", date(2027, 3, 15), date(2027, 3, 29))
    marks = drawing.marks(span, BERLIN, date(2027, 3, 28))
    assert [mark.x for mark in marks][::6] == ["0.000%", f"{144 / 167 * 100:.3f}%"]
    sunday = Shift(datetime(2027, 3, 27, 23, tzinfo=UTC), datetime(2027, 3, 28, 22, tzinfo=UTC), 1, "layer a")
    (bar,) = drawing.bars([sunday], span, BERLIN, {1: "anna"}, {1: "s1"})
    assert (bar.x, bar.width) == (f"{144 / 167 * 100:.3f}%", f"{23 / 167 * 100:.3f}%")
    assert bar.words == "anna, Sun 28 Mar 00:00 – Mon 29 Mar 00:00, layer a"


def test_a_month_has_whole_weeks_and_each_day_names_who_and_whether_somebody_is_missing() -> None:
    span = drawing.month(date(2028, 2, 29), BERLIN)
    assert (span.days[0], span.days[-1], len(span.days)) == (date(2028, 1, 31), date(2028, 3, 5), 35)
    assert (span.back, span.forth) == (date(2028, 1, 1), date(2028, 3, 1))
    start = datetime(2028, 2, 29, 8, tzinfo=UTC)
    shifts = [Shift(start, start + DAY, 1, "x"), Shift(start + DAY, start + 2 * DAY, 2, "y", is_override=True)]
    gap = [Gap(start + 2 * DAY, start + 3 * DAY, "z")]
    found = drawing.cells("db", shifts, gap, span, BERLIN, {1: "anna", 2: "ben"}, {1: "s1", 2: "s2"})
    assert found[date(2028, 2, 29)].people == (("anna", "s1"),)
    assert found[date(2028, 3, 1)].people == (("anna", "s1"), ("ben", "s2"))
    assert [found[date(2028, 3, day)].has_gap for day in (1, 2, 3, 4)] == [False, True, True, False]
    assert found[date(2028, 3, 1)].has_override


# --- The page --------------------------------------------------------------------------------------------------------
@pytest.fixture
def rota(person: Any) -> Schedule:
    """Anna (an operator) and ben take turns of a day, from midnight of yesterday."""
    anna, ben = person("operator", name="anna"), person("viewer", name="ben")
    starts_at = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    layer = {"name": "turns", "rotation": "daily", "hand_over": "00:00", "starts_at": starts_at}
    layer["people"] = [anna.pk, ben.pk]
    return schedules.save_schedule(by=BY, name="Database", zone="UTC", layers=[layer])


def as_(client: Client, name: str) -> Client:
    client.force_login(User.objects.get(username=name))
    return client


def test_the_page_says_who_is_on_call_until_when_and_that_nobody_would_be_told(client: Client, rota: Schedule) -> None:
    answer = as_(client, "ben").get(URL)
    (one,) = answer.context["standings"]
    assert (one["person"], one["next"]) == ("ben", "anna")
    assert one["problem"] == "ben is on call and has no contact that is on"
    assert "Take over" not in answer.content.decode()
    for query in ("view=month", f"schedule={rota.pk}", "on=2027-03-28", "zone=Asia/Kathmandu", "fair=next-4", "on=x"):
        assert client.get(f"{URL}?{query}").status_code == 200, query
    for query in ("view=year", "schedule=9999", "schedule=x", "fair=ever"):
        assert client.get(f"{URL}?{query}").status_code == 404, query


def test_the_page_costs_as_many_queries_for_six_schedules_as_for_two(
    client: Client, rota: Schedule, django_assert_max_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    as_(client, "anna")
    client.get(URL)
    counts = []
    for number in range(2):
        for each in range(1 + 3 * number):
            schedules.save_schedule(by=BY, name=f"more {number} {each}", layers=[])
        with CaptureQueriesContext(connection) as queries:
            client.get(URL)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_somebody_takes_over_in_the_zone_of_the_form(client: Client, rota: Schedule) -> None:
    anna = User.objects.get(username="anna")
    given = {"schedule": rota.pk, "person": anna.pk, "zone": "Asia/Kathmandu", "reason": "ill"}
    spans = {"starts": "2027-03-28T09:00", "ends": "2027-03-28T17:00"}
    answer = as_(client, "anna").post(f"{URL}cover/", given | spans)
    assert answer.status_code == 302
    row = Override.objects.get()
    assert (row.starts_at, row.by) == (datetime(2027, 3, 28, 3, 15, tzinfo=UTC), "anna")
    for wrong in ({"ends": "2027-03-28T08:00"}, {"starts": "soon"}, {"zone": "Moon"}, {"person": "9999"}):
        answer = client.post(f"{URL}cover/", given | spans | wrong)
        assert answer.status_code == 422, wrong
        assert set(answer.context["problems"]) == {next(iter(wrong))}
    assert client.post(f"{URL}overrides/{row.pk}/end/").status_code == 302
    assert not Override.objects.exists()


def test_two_people_swap_in_one_act_and_only_what_they_have(client: Client, rota: Schedule) -> None:
    answer = as_(client, "anna").get(URL)
    mine = [each for each in answer.context["mine"] if each["at"] > timezone.now()]
    theirs = [each for each in answer.context["theirs"] if each["at"] > timezone.now()]
    assert {each["words"].partition(":")[0] for each in mine} == {"anna"}
    given = {"mine": mine[0]["value"], "theirs": theirs[0]["value"]}
    assert client.post(f"{URL}swap/", given).status_code == 302
    people = {row.starts_at: row.person.username for row in Override.objects.all()}
    assert people == {mine[0]["at"]: "ben", theirs[0]["at"]: "anna"}
    again = client.post(f"{URL}swap/", given)
    assert again.status_code == 422
    assert "is not on call by Database for that whole time" in again.context["problems"]["mine"]
    for wrong in ("", "x|y|z|w", given["mine"].replace("T", " ") + "|"):
        assert client.post(f"{URL}swap/", {**given, "mine": wrong}).status_code == 422
    assert Override.objects.count() == 2


def test_the_fairness_report_is_a_table_too(client: Client, rota: Schedule) -> None:
    rows = as_(client, "ben").get(f"{URL}fairness.csv?fair=next-4").content.decode().splitlines()
    assert rows[0] == "person,hours,nights,weekends,holidays,pages"
    assert sum(float(row.split(",")[1]) for row in rows[1:]) == 4 * 7 * 24


# --- Calendars that subscribe ----------------------------------------------------------------------------------------
def test_a_secret_address_shows_shifts_and_opens_nothing_else_until_it_is_ended(client: Client, rota: Schedule) -> None:
    ben = User.objects.get(username="ben")
    page = as_(client, "ben").post(f"{URL}subscribe/")
    urls = {each["name"]: each["url"] for each in page.context["addresses"]}
    assert set(urls) == {"Everybody", "Your own shifts", "Database"}
    client.logout()
    everybody, own = (icalendar.Calendar.from_ical(client.get(urls[name]).content) for name in list(urls)[:2])
    names = {str(event["SUMMARY"]) for event in everybody.walk("VEVENT")}
    assert names == {"anna (Database)", "ben (Database)"}
    assert {str(event["SUMMARY"]) for event in own.walk("VEVENT")} == {"ben (Database)"}
    layers = client.get(f"{urls['Database']}&form=layers").content.decode()
    assert layers.count("RRULE:FREQ=DAILY;INTERVAL=2") == 2
    secret = urls["Everybody"].partition("token=")[2]
    bearer = {"Authorization": f"Bearer {secret}"}
    for path in ("/api/v1/portal/schedules/", "/api/monitoring/alerts", "/api/v1/query?query=up"):
        assert client.get(path, headers=bearer).status_code in (401, 403, 404), path
    second = as_(client, "ben").post(f"{URL}subscribe/").context["addresses"][0]["url"]
    assert Token.objects.filter(owner=ben, revoked_at=None).count() == 1
    client.post(f"{URL}unsubscribe/")
    client.logout()
    forget_tokens()
    assert [client.get(url).status_code for url in (urls["Everybody"], second)] == [401, 401]


def test_an_address_ends_with_its_owner_and_another_scope_reads_no_calendar(client: Client, rota: Schedule) -> None:
    ben = User.objects.get(username="ben")
    url = as_(client, "ben").post(f"{URL}subscribe/").context["addresses"][0]["url"]
    client.logout()
    ben.is_active = False
    ben.save()
    forget_tokens()
    assert client.get(url).status_code == 401
    _, secret = accounts.issue_token(by=BY, name="t", scopes=["ingest"], expires_at=None, now=timezone.now())
    assert client.get(f"{URL}all.ics?token={secret}").status_code == 403
    assert client.get(f"{URL}all.ics").status_code == 401
    assert as_(client, "anna").get(f"{URL}all.ics").status_code == 200
