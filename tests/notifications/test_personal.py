"""How people want to be told: their order, their quiet hours, a test; whose rights that takes; page, API and admin."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from apps.accounts.models import AuditEntry, Calendar, User
from apps.accounts.rights import Forbidden, Principal
from apps.accounts.services import set_roles
from apps.notifications import holding, outbox, personal, services
from apps.notifications.models import Contact, Delivery, QuietHours
from tests.notifications.conftest import NOW, a_message

MINUTE = timedelta(minutes=1)
SYSTEM = Principal.system("test")


def person(name: str, role: str = "viewer") -> User:
    return set_roles(by=SYSTEM, user=User.objects.create_user(name), roles=[role])


@pytest.fixture
def anna(db: None) -> User:
    return person("anna")


def contact(name: str, owner: User | None = None, **fields: Any) -> Contact:
    return Contact.objects.create(
        name=name, kind="webhook", config={"url": "https://x.example/"}, owner=owner, **fields
    )


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_person_changes_their_own_and_nobody_elses(anna: User):
    mail = contact("mail", anna)
    by_ben, root = Principal.of_user(person("ben", "editor")), Principal.of_user(person("root", "administrator"))
    for act in (
        lambda by: personal.save_quiet_hours(by=by, person=anna, hours="mon-sun 22:00-07:00", now=NOW),
        lambda by: personal.save_order(by=by, person=anna, order={mail.pk: (None, 3 * MINUTE)}, now=NOW),
    ):
        with pytest.raises(Forbidden, match="not how anna is"):
            act(by_ben)
        act(Principal.of_user(anna))
        act(root)
    mail.refresh_from_db()
    assert (mail.default_after, mail.important_after) == (None, 3 * MINUTE)
    assert QuietHours.objects.get().disturbed_from == "critical"


def test_a_contact_of_somebody_else_is_in_nobodys_order(anna: User):
    other = contact("other", person("ben"))
    with pytest.raises(ValidationError, match="has no contact number"):
        personal.save_order(by=Principal.of_user(anna), person=anna, order={other.pk: (None, None)}, now=NOW)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"hours": "at night"}, "hours", "no line of hours"),
        ({"hours": "mon-sun 00:00-24:00"}, "hours", "never end"),
        ({"hours": ";"}, "hours", "at least one line"),
        ({"hours": "mon-sun 22:00-07:00", "zone": "Mars"}, "zone", "no time zone"),
        ({"hours": "mon-sun 22:00-07:00", "disturbed_from": "loud"}, "disturbed_from", "loud"),
    ],
)
def test_quiet_hours_that_mean_nothing_are_refused(anna: User, values: dict[str, str], field: str, words: str):
    with pytest.raises(ValidationError) as refused:
        personal.save_quiet_hours(by=Principal.of_user(anna), person=anna, now=NOW, **values)
    assert words in str(refused.value.message_dict[field])


def test_quiet_hours_are_audited_and_gone_without_hours(anna: User):
    by = Principal.of_user(anna)
    personal.save_quiet_hours(by=by, person=anna, hours="mon-sun 22:00-07:00", now=NOW)
    personal.save_quiet_hours(by=by, person=anna, hours="", now=NOW)
    assert not QuietHours.objects.exists()
    assert AuditEntry.objects.filter(verb="notifications.save_quiet_hours").count() == 2


def test_a_test_goes_to_the_first_of_each_list(anna: User):
    contact("mail", anna, important_after=None)
    contact("push", anna, default_after=None)
    contact("sms", anna, default_after=None, important_after=3 * MINUTE)
    dry = personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW)
    assert ([one.contact.name for one in dry.default], [one.contact.name for one in dry.important]) == (
        ["mail"],
        ["push", "sms"],
    )
    assert not Delivery.objects.exists()
    real = personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW, send=True)
    assert sorted(row.contact_name for row in real.deliveries) == ["mail", "push"]
    assert {row.purpose for row in Delivery.objects.all()} == {"test"}
    with pytest.raises(Forbidden):
        personal.try_out(by=Principal.of_user(person("ben")), person=anna, now=NOW)
    personal.try_out(by=Principal.of_user(person("carla", "operator")), person=anna, now=NOW)


def test_a_test_of_nobody_says_so(anna: User):
    assert personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW).problem
    with pytest.raises(ValidationError, match="no contact that is on"):
        personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW, send=True)


def test_a_test_says_what_would_hold_a_warning_back(anna: User):
    contact("mail", anna)
    QuietHours.objects.create(person=anna, hours="mon-sun 00:00-23:59", zone="UTC")
    [way] = personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW).default
    assert way.held.startswith("Held back: quiet hours until")
    [loud] = personal.try_out(by=Principal.of_user(anna), person=anna, now=NOW, severity="critical").default
    assert loud.held == ""


# --- Contacts --------------------------------------------------------------------------------------------------------
def save(one: Contact, **options: Any) -> Contact:
    return services.save_contact(
        by=SYSTEM, now=NOW, contact=one, name=one.name, kind=one.kind, values=one.config,
        is_fallback=one.is_fallback, owner=one.owner, options=options,
    )  # fmt: skip


def test_contacts_do_not_stand_in_for_one_another_without_end(db: None):
    first, second, third = contact("first"), contact("second"), contact("third")
    save(first, failover=second)
    save(second, failover=third)
    with pytest.raises(ValidationError, match="third → first → second → third"):
        save(third, failover=first)
    with pytest.raises(ValidationError, match="without end"):
        save(third, failover=third)


def test_the_fallback_contact_waits_for_no_calendar(db: None):
    office = Calendar.objects.create(name="Office", hours="mon-fri 08:00-18:00")
    with pytest.raises(ValidationError, match="waits for no calendar"):
        save(contact("last", is_fallback=True), calendar=office)
    assert contact("team", calendar=office).rules()[0].why == holding.HOURS


def test_a_contact_keeps_what_is_not_sent(db: None):
    one = save(contact("one"), important_after=8 * MINUTE)
    assert save(one).important_after == 8 * MINUTE


def test_what_is_held_goes_with_a_contact_that_is_switched_off(anna: User):
    mail = contact("mail", anna)
    hold = holding.Hold(holding.QUIET, NOW + MINUTE, "Held back: quiet hours until Tue 07:00 (UTC)")
    held = outbox.enqueue(contact=mail, message=a_message(), purpose="firing", now=NOW, hold=hold)
    assert (held.state, held.due_at, held.error) == ("held", NOW + MINUTE, hold.reason)
    assert outbox.claim(now=NOW + 10 * MINUTE, limit=10) == []
    outbox.cancel(contact=mail, reason="The contact was switched off.", now=NOW)
    held.refresh_from_db()
    assert held.state == "cancelled"


def test_what_is_let_go_leaves_as_new(anna: User):
    mail = contact("mail", anna)
    hold = holding.Hold(holding.HOURS, NOW + MINUTE, "Held back: outside of business hours")
    held = outbox.enqueue(contact=mail, message=a_message(), purpose="firing", now=NOW, hold=hold)
    later = NOW + timedelta(days=3)
    outbox.let_go(held, a_message(), now=later)
    [claimed] = outbox.claim(now=later, limit=10)
    assert (claimed.pk, claimed.created_at, claimed.error, claimed.held_for) == (held.pk, later, "", "hours")


# --- Doors -----------------------------------------------------------------------------------------------------------
def test_the_page_shows_and_saves_ones_own(anna: User):
    mail = contact("anna-mail", anna)
    client = client_of(anna)
    assert "anna-mail" in client.get("/monitoring/me/").content.decode()
    answer = client.post(
        f"/monitoring/people/{anna.pk}/quiet-hours/",
        {"hours": "mon-sun 22:00-07:00", "zone": "Europe/Berlin", "disturbed_from": "error"},
        follow=True,
    )
    assert "Saved." in answer.content.decode()
    client.post(f"/monitoring/people/{anna.pk}/order/", {f"default-{mail.pk}": "", f"important-{mail.pk}": "2,5"})
    mail.refresh_from_db()
    assert (mail.default_after, mail.important_after) == (None, timedelta(minutes=2.5))
    refused = client.post(f"/monitoring/people/{anna.pk}/quiet-hours/", {"hours": "<b>", "zone": "UTC"})
    assert (refused.status_code, "&lt;b&gt;" in refused.content.decode()) == (400, True)
    told = client.post(f"/monitoring/people/{anna.pk}/test/", follow=True)
    assert "on its way" in told.content.decode()


@pytest.mark.parametrize("text", ["soon", "-1", "1e9", "nan", "inf", "1e400"])
def test_minutes_that_are_none_are_refused(anna: User, text: str):
    mail = contact("mail", anna)
    answer = client_of(anna).post(
        f"/monitoring/people/{anna.pk}/order/", {f"default-{mail.pk}": text, f"important-{mail.pk}": "0"}, follow=True
    )
    assert "Saved." not in answer.content.decode()
    mail.refresh_from_db()
    assert mail.default_after == timedelta(0)


def test_somebody_elses_page_may_be_read_and_not_written(anna: User):
    client = client_of(person("ben"))
    assert client.get(f"/monitoring/people/{anna.pk}/").status_code == 200
    for door in ("quiet-hours", "test"):
        assert client.post(f"/monitoring/people/{anna.pk}/{door}/", {"hours": ""}).status_code == 403


def test_the_api_shows_saves_and_tests(anna: User):
    contact("anna-mail", anna)
    client, base = client_of(anna), f"/api/v1/portal/people/{anna.pk}"
    saved = client.put(f"{base}/quiet-hours/", {"hours": "mon-sun 22:00-07:00"}, content_type="application/json")
    assert saved.json()["quiet_hours"] == {"hours": "mon-sun 22:00-07:00", "zone": "UTC", "disturbed_from": "critical"}
    places = [{"contact": "anna-mail", "default": None, "important": 180}]
    saved = client.put(f"{base}/order/", places, content_type="application/json")
    assert saved.json()["contacts"][0]["important"] == 180
    dry = client.post(f"{base}/test/", {}, content_type="application/json")
    assert (dry.status_code, [one["contact"] for one in dry.json()["important"]]) == (200, ["anna-mail"])
    real = client.post(f"{base}/test/", {"send": True}, content_type="application/json")
    assert (real.status_code, real.json()["deliveries"][0]["contact"]) == (202, "anna-mail")
    other = client_of(person("ben", "editor"))
    assert other.put(f"{base}/order/", places, content_type="application/json").status_code == 403
    assert other.post(f"{base}/test/", {}, content_type="application/json").status_code == 200


def test_the_admin_tests_people_and_keeps_quiet_hours(anna: User):
    contact("anna-mail", anna)
    client = client_of(User.objects.create_superuser("root"))
    form = {"action": "test_people", "_selected_action": [anna.pk], "confirmed": "yes"}
    answer = client.post("/admin/accounts/user/", form, follow=True)
    assert "A test to anna is on its way: anna-mail." in answer.content.decode()
    values = {"person": anna.pk, "hours": "mon-sun 22:00-07:00", "zone": "UTC", "disturbed_from": "error"}
    client.post("/admin/notifications/quiethours/add/", values)
    quiet = QuietHours.objects.get()
    client.post(f"/admin/notifications/quiethours/{quiet.pk}/change/", {**values, "hours": "sat-sun 00:00-24:00"})
    quiet.refresh_from_db()
    assert quiet.hours == "sat-sun 00:00-24:00"


def test_the_api_says_who_stands_in_and_when_a_contact_is_told(db: None):
    office = Calendar.objects.create(name="Office", hours="mon-fri 08:00-18:00")
    mail, sms = contact("mail"), contact("sms")
    client = client_of(User.objects.create_superuser("root"))
    url = f"/api/v1/portal/contacts/{sms.pk}/"
    values = {"failover": "mail", "calendar": "Office", "at_once_from": "error", "important_after": 180}
    saved = client.patch(url, values, content_type="application/json").json()
    assert {name: saved[name] for name in values} == values
    sms.refresh_from_db()
    assert (sms.failover, sms.calendar, sms.important_after) == (mail, office, 3 * MINUTE)
    assert client.patch(url, {"name": "sms 2"}, content_type="application/json").json()["failover"] == "mail"
    refused = client.patch(url, {"failover": "sms 2"}, content_type="application/json")
    assert (refused.status_code, "without end" in refused.content.decode()) == (400, True)
    late = client.patch(url, {"important_after": 90_000}, content_type="application/json")
    assert (late.status_code, "86400" in late.content.decode()) == (400, True)
