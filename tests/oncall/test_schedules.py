"""Schedules: saved, overridden, asked who is on call, and told by a step of an escalation."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from apps.accounts.models import User
from apps.notifications.models import Contact
from apps.oncall import schedules, services
from apps.oncall.models import Escalation, Schedule
from tests.oncall.conftest import BY, START, Night
from tests.oncall.test_api import Caller

pytestmark = pytest.mark.django_db
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def ben() -> User:
    return User.objects.create_user("ben")


def schedule_of(*people: User, **layer: Any) -> Schedule:
    values = {"name": "turns", "rotation": "daily", "starts_at": START - DAY, "people": [p.pk for p in people], **layer}
    return schedules.save_schedule(by=BY, name="Database", zone="Europe/Berlin", layers=[values])


def test_a_layer_hands_over_by_the_schedules_clock(anna: User, ben: User):
    schedule = schedule_of(anna, ben)
    found = schedules.plan(schedule, START, START + DAY)  # 22:00 UTC is 23:00 in Berlin
    assert [shift.person for shift in found.shifts] == [ben.pk, anna.pk]
    assert found.shifts[0].end == START + 10 * HOUR  # 09:00 in Berlin
    assert sum(load.hours for load in found.loads.values()) == 24
    assert [gap.reason for gap in found.gaps] == [
        "ben is on call and has no contact that is on", "anna is on call and has no contact that is on",
    ]  # fmt: skip
    for person in (anna, ben):
        Contact.objects.create(name=f"of {person}", kind="webhook", config={"url": "https://x/"}, owner=person)
    assert schedules.plan(schedule, START, START + DAY).gaps == []


def test_an_override_is_kept_with_who_made_it_and_why(anna: User, ben: User):
    schedule = schedule_of(anna)
    made = schedules.override(by=BY, schedule=schedule, person=ben, starts_at=START, ends_at=START + HOUR, reason="ill")
    shift = schedules.on_call(schedule, START)
    assert shift is not None
    assert (shift.person, shift.reason) == (ben.pk, f"override by {BY.name}: ill")
    schedules.delete_override(by=BY, override=made)
    after = schedules.on_call(schedule, START)
    assert after is not None
    assert after.person == anna.pk


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"zone": "Mars"}, "no time zone"),
        ({"hours": "always"}, "no line of hours"),
        ({"people": [424242]}, "does not exist"),
        ({"every": 0}, "From 1 to 366"),
        ({"ends_at": START - 2 * DAY}, "end after it starts"),
    ],
)
def test_a_layer_that_means_nothing_is_refused_with_its_number(wrong: dict[str, Any], words: str):
    with pytest.raises(ValidationError) as refused:
        schedule_of(**wrong)
    assert "Layer 1" in str(refused.value)
    assert words in str(refused.value)


def test_a_schedule_that_a_policy_names_is_neither_renamed_nor_deleted(anna: User):
    schedule = schedule_of(anna)
    step = {"kind": "notify_schedule", "config": {"schedule": "Database"}}
    services.save_policy(by=BY, name="Night", steps=[step])
    with pytest.raises(ValidationError, match="used by Night"):
        schedules.delete_schedule(by=BY, schedule=schedule)
    with pytest.raises(ValidationError, match="present name"):
        schedules.save_schedule(by=BY, name="DB", schedule=schedule)
    with pytest.raises(ValidationError, match="not one of the available choices"):
        services.save_policy(by=BY, name="Day", steps=[{**step, "config": {"schedule": "Nothing"}}])


# --- The step --------------------------------------------------------------------------------------------------------
STEP = ("notify_schedule", {"schedule": "Database"})


def test_a_step_tells_whoever_is_on_call_by_their_own_contact(night: Night, anna: User, ben: User):
    night.contact("phone-anna", owner=anna)
    night.contact("phone-ben", owner=ben)
    night.contact("fallback", is_fallback=True)
    schedule = schedule_of(anna)
    night.route("root", policy=night.policy(STEP, ("wait", {"minutes": 60}), STEP))
    starts_at = START + 30 * timedelta(minutes=1)
    schedules.override(by=BY, schedule=schedule, person=ben, starts_at=starts_at, ends_at=START + DAY)
    night.fire()
    night.wait(minutes=5)
    assert told() == {"phone-anna"}
    assert "anna is on call by Database (layer turns)" in Escalation.objects.get().reason
    night.wait(minutes=60)
    assert told() == {"phone-anna", "phone-ben"}


@pytest.mark.parametrize("case", ["nobody", "no contact", "switched off", "deleted"])
def test_where_nobody_can_be_told_the_fall_back_contact_is_and_the_reason_says_so(night: Night, anna: User, case: str):
    night.contact("fallback", is_fallback=True)
    schedule_of(anna, **({"ends_at": START - HOUR} if case == "nobody" else {}))
    if case == "switched off":
        night.contact("phone-anna", owner=anna)
        anna.is_active = False
        anna.save()
    if case == "deleted":
        anna.delete()
    night.route("root", policy=night.policy(STEP))
    night.fire()
    night.wait(minutes=5)
    assert told() == {"fallback"}
    words = {"nobody": "nobody is on call by Database", "no contact": "has no contact that is on"}
    reason = Escalation.objects.get().reason
    assert words.get(case, "is gone or switched off") in reason
    assert "the fall-back contact is told" in reason


def told() -> set[str]:
    return set(Contact.objects.filter(notices__kind="firing").values_list("name", flat=True))


# --- The API ---------------------------------------------------------------------------------------------------------
def test_the_api_makes_a_schedule_and_says_who_is_on_call(client: Client, anna: User, ben: User):
    admin = Caller(client, "admin", "alerts")
    layer = {"name": "turns", "people": ["anna", "ben"], "rotation": "daily", "starts_at": "2026-11-30T09:00:00Z"}
    made = admin("post", "schedules", {"name": "Database", "layers": [layer]})
    assert made.status_code == 201, made.content
    assert made.json()["layers"][0]["people"] == ["anna", "ben"]
    override = {
        "schedule": "Database",
        "person": "anna",
        "starts_at": "2026-12-01T10:00Z",
        "ends_at": "2026-12-01T11:00Z",
    }
    assert admin("post", "overrides", override).status_code == 201
    url = "/api/v1/portal/schedules/"
    for at, person in (
        ("2026-11-30T08:59Z", None),
        ("2026-11-30T09:00Z", "anna"),
        ("2026-12-01T09:00Z", "ben"),
        ("2026-12-01T10:30Z", "anna"),
    ):
        (answer,) = client.get(f"{url}on-call/", {"at": at}, headers=admin.headers).json()
        assert (answer["schedule"], answer["person"]) == ("Database", person)
    span = {"start": "2026-11-30T08:00Z", "end": "2026-12-01T12:00Z"}
    found = client.get(f"{url}{made.json()['id']}/shifts/", span, headers=admin.headers).json()
    assert [shift["person"] for shift in found["shifts"]] == ["anna", "ben", "anna", "ben"]
    assert found["gaps"][0]["reason"] == "layer turns has not begun"
    assert {row["person"]: row["hours"] for row in found["hours"]} == {"anna": 25.0, "ben": 2.0}
    assert client.get(f"{url}on-call/", {"at": "tomorrow"}, headers=admin.headers).status_code == 400


def test_the_admin_takes_people_by_name(client: Client, anna: User, ben: User):
    client.force_login(User.objects.create_superuser("root"))
    data = {
        "name": "Database", "zone": "UTC", "description": "",
        "layers-TOTAL_FORMS": 1, "layers-INITIAL_FORMS": 0, "overrides-TOTAL_FORMS": 0, "overrides-INITIAL_FORMS": 0,
        "layers-0-position": 1, "layers-0-name": "turns", "layers-0-people": "ben\nanna", "layers-0-rotation": "weekly",
        "layers-0-every": 1, "layers-0-hand_over": "09:00", "layers-0-weekday": 0,
        "layers-0-starts_at_0": "2026-11-30", "layers-0-starts_at_1": "09:00:00",
    }  # fmt: skip
    answer = client.post("/admin/oncall/schedule/add/", data)
    assert answer.status_code == 302, answer.content.decode()[:5000]
    assert Schedule.objects.get().layers.get().people == [ben.pk, anna.pk]


# --- Now -------------------------------------------------------------------------------------------------------------
def test_a_standing_says_until_when_and_who_comes_then_however_far_ahead(anna: User, ben: User) -> None:
    weeks = {"rotation": "weekly", "every": 4, "weekday": 0, "hand_over": "00:00"}
    schedule = schedule_of(anna, ben, **weeks)
    (one,) = schedules.standings([schedule], START)
    assert one.shift is not None
    assert one.following is not None
    assert (one.shift.person, one.following.person) == (anna.pk, ben.pk)
    assert one.until == START + 20 * DAY + HOUR  # midnight in Berlin, four weeks after the Monday before
    assert one.problem == "anna is on call and has no contact that is on"
    gap = schedule_with("Later", {"people": [ben.pk], "starts_at": START + 20 * DAY})
    (one,) = schedules.standings([gap], START)
    assert (one.shift, one.until, one.problem) == (None, START + 20 * DAY, "layer turns has not begun")
    nobody = schedule_with("Nobody", {"people": []})
    (one,) = schedules.standings([nobody], START)
    assert (one.until, one.following, one.problem) == (None, None, "layer turns has nobody")


def schedule_with(name: str, layer: dict[str, Any]) -> Schedule:
    values = {"name": "turns", "rotation": "daily", "starts_at": START - DAY, **layer}
    return schedules.save_schedule(by=BY, name=name, zone="UTC", layers=[values])
