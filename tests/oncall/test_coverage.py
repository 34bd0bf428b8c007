"""A week ahead: gaps, people who cannot be told and double bookings are found, told once, and again when they grow."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from apps.accounts.hours import parse_week
from apps.accounts.models import Calendar, User
from apps.notifications.models import Contact, Delivery
from apps.oncall import coverage, fairness, schedules, services
from apps.oncall.models import CoverageFinding, Schedule
from apps.oncall.rotation import Clash, Layer, gaps, shifts
from apps.oncall.shortfalls import SEEN, Outlook, Shortfall, is_news, shortfalls
from tests.oncall.conftest import BY, START, Night
from tests.oncall.test_rotation import MONDAY, UTC_ZONE, layer

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


# --- Pure ------------------------------------------------------------------------------------------------------------
def outlook(*layers: Layer, now: datetime = MONDAY, **values: Any) -> Outlook:
    span: Any = (list(layers), [], now, now + SEEN)
    return Outlook(values.pop("name", "db"), UTC_ZONE, shifts(*span), gaps(*span), **values)


def found(*outlooks: Outlook, now: datetime = MONDAY) -> list[Shortfall]:
    names = {1: "anna", 2: "ben"}
    return sorted(shortfalls(dict(enumerate(outlooks)), names, now=now).values(), key=lambda each: each.kind)


def test_gaps_for_one_reason_are_one_finding_with_the_hours_of_a_week() -> None:
    office = layer(1, name="office", week=parse_week("mon-fri 09:00-17:00"))
    (gap,) = found(outlook(office))
    assert gap.hours == 7 * 24 - 5 * 8
    assert gap.text == (
        "Nobody is on call: it lies outside the hours or the dates of layer office. "
        "From Mon 30 Nov 17:00 until Tue 1 Dec 09:00 (UTC), and 4 times more within 7 days."
    )


@pytest.mark.parametrize("hour", range(0, 24 * 7, 11))
def test_a_weekly_pattern_of_gaps_is_no_news_at_any_hour_of_the_week(hour: int) -> None:
    office = layer(1, week=parse_week("mon-fri 09:00-17:00"))
    now = MONDAY + hour * HOUR
    (gap,) = found(outlook(office, now=now), now=now)
    assert not is_news(gap, 7 * 24 - 5 * 8, MONDAY, now=now)


def test_a_gap_is_told_seven_days_ahead_and_again_when_it_grows() -> None:
    def gap(ends: datetime, now: datetime) -> Shortfall:
        return found(outlook(layer(1, ends_at=ends), now=now), now=now)[0]

    ends = MONDAY + 10 * DAY
    assert not is_news(gap(ends, MONDAY), None, None, now=MONDAY)
    assert not is_news(gap(ends, MONDAY + 2 * DAY), None, None, now=MONDAY + 2 * DAY)
    later = MONDAY + 4 * DAY
    first = gap(ends, later)
    assert is_news(first, None, None, now=later)
    assert first.text.endswith("From Thu 10 Dec 09:00 with no end in sight (UTC).")
    assert not is_news(first, first.hours, first.starts_at, now=later)
    assert is_news(gap(ends - 2 * DAY, later), first.hours, first.starts_at, now=later)


def test_people_who_cannot_be_told_and_who_are_on_call_twice_are_found() -> None:
    mine = outlook(layer(1, 2), name="db", away={1: "anna is on call and has no contact that is on"})
    theirs = outlook(layer(2, days=7, weekday=0), name="web")
    clash = Clash(MONDAY, MONDAY + HOUR, "two overrides at once, the later one wins", (1, 2))
    kinds = {each.kind: each for each in found(mine, theirs, outlook(layer(9), name="x", clashes=[clash]))}
    assert sorted(kinds) == ["clash", "double", "unreachable"]
    assert kinds["unreachable"].text.startswith("Nobody would be told: anna is on call and has no contact")
    assert kinds["double"].text.startswith("ben is on call by db and web at once. From Tue 1 Dec 09:00")
    assert kinds["clash"].text.startswith("Overrides for anna and ben: two overrides at once")


# --- Told ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def ben(db: None) -> User:
    return User.objects.create_user("ben")


@pytest.fixture
def scene(night: Night, ben: User) -> Callable[..., Schedule]:
    """A schedule that a policy uses, with anna by turns of a day until some time; anna has a contact, ben has not."""
    anna = User.objects.create_user("anna")
    night.contact("phone-anna", owner=anna)
    night.contact("fallback", is_fallback=True)

    def make(*, ends: float | None = None, **values: Any) -> Schedule:
        rows = {
            "name": "turns", "rotation": "daily", "starts_at": START - DAY, "people": [anna.pk],
            "ends_at": None if ends is None else START + ends * DAY,
        }  # fmt: skip
        schedule = schedules.save_schedule(by=BY, name="Database", layers=[rows], **values)
        step = {"kind": "notify_schedule", "config": {"schedule": "Database"}}
        services.save_policy(by=BY, name="Night", steps=[step])
        return schedule

    return make


def told() -> list[str]:
    rows = Delivery.objects.order_by("pk").values_list("contact_name", "purpose")
    return [f"{contact}: {purpose}" for contact, purpose in rows]


def test_the_fall_back_contact_is_told_once_again_when_it_grows_and_when_it_is_over(scene: Any) -> None:
    schedule = scene(ends=5)
    for hours in (0, 1, 24, 48):
        coverage.look(now=START + hours * HOUR)
    assert told() == ["fallback: firing"]
    row = CoverageFinding.objects.get()
    assert row.text.startswith("Nobody is on call: layer turns has ended. From Sat 28 Nov 22:00")
    layer = schedule.layers.get()
    layer.ends_at = START + 4 * DAY
    layer.save()
    coverage.look(now=START + 49 * HOUR)
    assert told() == ["fallback: firing"] * 2
    layer.ends_at = None
    layer.save()
    coverage.look(now=START + 50 * HOUR)
    coverage.look(now=START + 51 * HOUR)
    assert told() == ["fallback: firing"] * 2 + ["fallback: resolved"]
    assert not CoverageFinding.objects.exists()


def test_the_owner_is_told_instead_where_they_can_be(scene: Any, ben: User) -> None:
    schedule = scene(ends=1, owner=User.objects.get(username="anna"))
    coverage.look(now=START)
    assert told() == ["phone-anna: firing"]
    schedule.owner = ben
    schedule.save()
    CoverageFinding.objects.all().delete()
    coverage.look(now=START)
    assert told()[1:] == ["fallback: firing"]


def test_a_schedule_that_no_policy_uses_is_nobodys_worry(scene: Any) -> None:
    schedules.save_schedule(by=BY, name="Unused", layers=[])
    scene()
    coverage.look(now=START)
    assert coverage.problems() == []


def test_somebody_who_cannot_be_told_is_a_gap_and_a_finding(scene: Any, ben: User) -> None:
    schedule = scene()
    schedules.override(by=BY, schedule=schedule, person=ben, starts_at=START + DAY, ends_at=START + 2 * DAY)
    (gap,) = schedules.plan(schedule, START, START + 7 * DAY).gaps
    assert (gap.start, gap.reason) == (START + DAY, "ben is on call and has no contact that is on")
    coverage.look(now=START)
    assert CoverageFinding.objects.get().kind == "unreachable"
    Contact.objects.create(name="ben's", kind="webhook", config={"url": "https://x/"}, owner=ben, problem="gone",
                           problem_at=START)  # fmt: skip
    assert "no contact of theirs works: gone" in schedules.unreachable([ben.pk])[ben.pk]


# --- Fairness --------------------------------------------------------------------------------------------------------
def test_the_fairness_report_counts_hours_holidays_and_pages(night: Night, scene: Any, ben: User) -> None:
    calendar = Calendar.objects.create(name="Holidays", zone="UTC", holidays="2026-11-25 A feast")
    schedule = scene(holidays=calendar)
    schedules.override(by=BY, schedule=schedule, person=ben, starts_at=START + DAY, ends_at=START + 2 * DAY)
    night.route("root", policy=services.save_policy(
        by=BY, name="P", steps=[{"kind": "notify_schedule", "config": {"schedule": "Database"}}]
    ))  # fmt: skip
    night.fire("disk")
    night.fire("cpu")
    night.wait(minutes=5)
    anna, other = fairness.report([schedule], start=START, end=START + 7 * DAY)
    assert anna.as_dict() == {
        "person": "anna", "hours": 144.0, "nights": 48.0, "weekends": 48.0, "holidays": 2.0, "pages": anna.pages,
    }  # fmt: skip
    assert anna.pages >= 1
    assert (other.name, other.load.hours, other.load.holidays, other.pages) == ("ben", 24.0, 22.0, 0)
