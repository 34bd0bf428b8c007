"""The page of how somebody is told: sound in every look, and what is typed there is kept."""

import os
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.accounts.models import User
from apps.notifications import holding, outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery, QuietHours
from tests.browser.conftest import LOOKS, picture
from tests.browser.test_look import CONTRAST, NAMELESS

MINUTE = timedelta(minutes=1)


@pytest.fixture
def ada(people: dict[str, User]) -> User:
    """Ada has an e-mail address, a push service, a telephone, quiet hours and a message that waits for their end."""
    ada, now = people["ada"], timezone.now()
    make = Contact.objects.create
    mail = make(name="Ada: e-mail", kind="email", config={"to": ["ada@example.com"]}, owner=ada, important_after=None)
    make(name="Ada: push", kind="ntfy", config={"topic": "ada"}, owner=ada, default_after=None)
    sms = {"default_after": None, "important_after": 3 * MINUTE}
    make(name="Ada: telephone", kind="sms", config={"to": "+15550100"}, owner=ada, **sms)
    QuietHours.objects.create(person=ada, hours="mon-fri 22:00-07:00\nsat-sun 22:00-09:00", zone="Europe/Berlin")
    message = Message(
        "[WARNING] 2 alerts: Disk fills", "Alerts: 2 firing.", reason="escalation “Night”: tells its people"
    )
    hold = holding.Hold(holding.QUIET, now + 90 * MINUTE, "Held back: quiet hours until Tue 07:00 (Europe/Berlin)")
    outbox.enqueue(contact=mail, message=message, purpose="firing", now=now - 5 * MINUTE)
    Delivery.objects.update(state="sent", finished_at=now - 4 * MINUTE, attempts=1, provider_id="mail-1")
    outbox.enqueue(contact=mail, message=message, purpose="firing", now=now, hold=hold)
    return ada


@pytest.mark.slow
def test_the_page_of_a_person_is_sound(window: Any, ada: User):
    for look in LOOKS:
        it = window("ada", look)
        page = it.go("/monitoring/me/")
        assert (look, it.complaints) == (look, [])
        assert (look, it.overflow()) == (look, [])
        assert (look, page.evaluate(CONTRAST)) == (look, [])
        assert (look, page.evaluate(NAMELESS)) == (look, [])
        if os.environ.get("PORTAL_SCREENSHOTS"):
            page.wait_for_timeout(400)
            page.screenshot(path=picture(f"person-{look}"), full_page=look != "phone")


@pytest.mark.slow
def test_a_person_puts_their_contacts_in_order_and_tests_them(window: Any, ada: User):
    page = window("ada", "light").go("/monitoring/me/")
    page.get_by_label("Ada: telephone, important list: minutes").fill("8")
    page.get_by_role("button", name="Save order").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert Contact.objects.get(name="Ada: telephone").important_after == 8 * MINUTE
    page.get_by_label("Not disturbed").fill("mon-sun 23:00-06:00")
    page.get_by_role("button", name="Save quiet hours").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert QuietHours.objects.get().hours == "mon-sun 23:00-06:00"
    page.get_by_role("button", name="Test me").click()
    expect(page.get_by_text("on its way")).to_be_visible()
    assert Delivery.objects.filter(purpose="test").count() == 2
