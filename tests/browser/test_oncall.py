"""Who is on call as people see it and change it: a week with overrides and a gap, a month, in every look."""

import os
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.accounts.models import Calendar, User
from apps.accounts.permissions import Principal
from apps.notifications.models import Contact
from apps.oncall import coverage, schedules, services
from apps.oncall.models import Override, Schedule
from tests.browser import scene
from tests.browser.conftest import LOOKS, picture
from tests.browser.test_look import CONTRAST, NAMELESS

BY = Principal.system("test")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def rota(people: dict[str, User], mara: Principal) -> list[Schedule]:
    """Three schedules: one with two layers and overrides, one that ends on Friday, one with somebody unreachable."""
    now = timezone.now()
    scene.write_people_to_tell(now=now)
    monday = (now - now.weekday() * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    crew = [people["mara"], people["vic"], *(User.objects.create_user(name) for name in ("lena", "tomas", "yusuf"))]
    for person in crew[:4]:
        Contact.objects.create(
            name=f"{person}'s telephone", kind="email", config={"to": [f"{person}@shop.example"]}, owner=person
        )
    holidays = Calendar.objects.create(name="Holidays", zone="Europe/Berlin", holidays=f"{monday:%Y-%m-%d} A feast")

    def layer(name: str, *members: User, **values: Any) -> dict[str, Any]:
        start = monday - 14 * DAY
        return {"name": name, "people": [p.pk for p in members], "rotation": "daily", "starts_at": start, **values}

    def schedule(name: str, *layers: dict[str, Any], **values: Any) -> Schedule:
        step = {"kind": "notify_schedule", "config": {"schedule": name}}
        made = schedules.save_schedule(by=BY, name=name, layers=layers, **{"zone": "Europe/Berlin", **values})
        services.save_policy(by=BY, name=f"{name} at night", steps=[step])
        return made

    mara_, vic, lena, tomas, yusuf = crew
    database = schedule(
        "Database",
        layer("nights", lena, tomas, every=2),
        layer("office", mara_, vic, hours="mon-fri 08:00-18:00"),
        holidays=holidays,
    )
    web = schedule("Web shop", layer("turns", vic, mara_, tomas, ends_at=monday + 4 * DAY + 18 * HOUR))
    network = schedule("Network", layer("weeks", lena, yusuf, rotation="weekly"), zone="America/New_York")

    def override(row: Schedule, person: User, start: datetime, hours: float, reason: str) -> None:
        schedules.override(
            by=mara, schedule=row, person=person, starts_at=start, ends_at=start + hours * HOUR, reason=reason
        )

    override(database, tomas, monday + 1 * DAY + 9 * HOUR, 7, "dentist")
    override(database, lena, monday + 5 * DAY, 30, "concert")
    override(web, mara_, monday + 6 * DAY, 12, "")
    override(network, yusuf, monday + 2 * DAY, 20, "")
    coverage.look(now=now)
    return [database, web, network]


PAGES = {
    "on-call": "/monitoring/on-call/",
    "on-call-one": "/monitoring/on-call/?schedule={pk}&zone=Europe/Berlin",
    "on-call-month": "/monitoring/on-call/?view=month",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(window: Any, rota: list[Schedule], name: str) -> None:
    for look in LOOKS:
        it = window("ada", look)
        page = it.go(PAGES[name].format(pk=rota[0].pk))
        assert (look, it.complaints, it.overflow()) == (look, [], [])
        assert (look, page.evaluate(CONTRAST)) == (look, [])
        assert (look, page.evaluate(NAMELESS)) == (look, [])
        if os.environ.get("PORTAL_SCREENSHOTS"):
            page.wait_for_timeout(300)
            page.screenshot(path=picture(f"{name}-{look}"), full_page=True)


@pytest.mark.slow
def test_somebody_takes_over_and_takes_it_back_and_another_window_follows(window: Any, rota: list[Schedule]) -> None:
    other = window("vic").go("/monitoring/on-call/")
    it = window("mara")
    page = it.go(f"/monitoring/on-call/?schedule={rota[1].pk}")
    page.locator("#cover-reason").fill("the gap")
    page.locator("#cover-person").select_option(label="lena")
    page.get_by_role("button", name="Take over").click()
    expect(page.locator(".messages")).to_contain_text("lena is on call by Web shop")
    row = Override.objects.latest("pk")
    assert (row.person.username, row.by, row.reason) == ("lena", "mara", "the gap")
    expect(other.locator(".oncall-card", has_text="Web shop")).to_contain_text("lena")
    page.get_by_role("button", name="Take back lena for Web shop").click()
    expect(page.locator(".messages")).to_contain_text("taken back")
    expect(other.locator(".oncall-card", has_text="Web shop")).not_to_contain_text("lena")
    expect(other.get_by_role("button", name="Take over")).to_have_count(0)
    assert it.complaints == []


@pytest.mark.slow
def test_arrows_go_through_the_weeks_and_the_reader_sees_their_own_zone(
    window: Any, rota: list[Schedule], chromium: Any, server: str
) -> None:
    page = window("vic").go("/monitoring/on-call/")
    title = page.locator("#calendar-title").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#calendar-title")).not_to_have_text(title)
    page.keyboard.press(".")
    expect(page.locator("#calendar-title")).to_have_text(title)
    cookies = page.context.cookies()
    tokyo = chromium.new_context(timezone_id="Asia/Tokyo")
    tokyo.add_cookies([each for each in cookies if each["name"] == "sessionid"])
    there = tokyo.new_page()
    there.goto(f"{server}/monitoring/on-call/")
    expect(there.locator("[data-oncall-zone]")).to_have_attribute("data-oncall-zone", "Asia/Tokyo")
    tokyo.close()
