"""Contacts in the admin: the channel's own fields, secrets that never come back, and a test button."""

from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import AuditEntry, User
from apps.notifications.models import Contact, Delivery

ADD = "/admin/notifications/contact/add/"


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def _form(**values: str) -> dict[str, Any]:
    when = {"at_once_from": "critical", "default_after": "00:00:00", "important_after": "00:00:00"}
    return {"name": "Pager", "enabled": "on", "owner": "", **when, **{f"setting_{k}": v for k, v in values.items()}}


def test_a_new_contact_asks_for_its_channel_first(admin: Client):
    assert "?kind=webhook" in admin.get(ADD).content.decode()
    assert 'name="setting_url"' in admin.get(f"{ADD}?kind=webhook").content.decode()


def test_a_contact_is_made_and_its_secret_never_shown(admin: Client):
    typed = _form(url="https://pager.example/hook", token="s3cr3t", signing_secret="")
    answer = admin.post(f"{ADD}?kind=webhook", typed)
    contact = Contact.objects.get()
    assert answer.status_code == 302
    assert (contact.name, contact.kind, contact.secrets) == ("Pager", "webhook", {"token": "s3cr3t"})
    page = admin.get(f"/admin/notifications/contact/{contact.pk}/change/")
    assert "s3cr3t" not in page.content.decode()
    assert "https://pager.example/hook" in page.content.decode()
    assert AuditEntry.objects.filter(verb="notifications.save_contact").count() == 1
    assert "s3cr3t" not in str(list(AuditEntry.objects.values_list("after", flat=True)))


def test_a_blank_secret_stays_and_a_new_one_replaces_it(admin: Client):
    contact = Contact.objects.create(
        name="Pager", kind="webhook", config={"url": "https://a.example/"}, secrets={"token": "old"}
    )
    url = f"/admin/notifications/contact/{contact.pk}/change/"
    admin.post(url, _form(url="https://b.example/", token="", signing_secret=""))
    contact = Contact.objects.get()
    assert (contact.config, contact.secrets) == ({"url": "https://b.example/"}, {"token": "old"})
    admin.post(url, _form(url="https://b.example/", token="new", signing_secret=""))
    assert Contact.objects.get().secrets == {"token": "new"}


def test_a_wrong_setting_is_refused_beside_its_field(admin: Client):
    page = admin.post(f"{ADD}?kind=webhook", _form(url="no address", token="", signing_secret=""))
    assert page.status_code == 200
    assert "Enter a valid URL" in page.content.decode()
    assert not Contact.objects.exists()


def test_the_test_button_writes_a_delivery(admin: Client):
    contact = Contact.objects.create(name="Pager", kind="webhook", config={"url": "https://a.example/"})
    admin.post(f"/admin/notifications/contact/{contact.pk}/send-test/", {"confirmed": "yes"})
    assert Delivery.objects.get().purpose == "test"


@pytest.mark.parametrize("page", ["contact", "delivery"])
def test_lists_are_shown(admin: Client, page: str):
    contact = Contact.objects.create(name="Pager", kind="gone", config={})
    Delivery.objects.create(contact=contact, contact_name="Pager", kind="gone", message={"title": "Hello"},
        purpose="test", created_at="2026-11-23T12:00Z", due_at="2026-11-23T12:00Z")  # fmt: skip
    assert "Pager" in admin.get(f"/admin/notifications/{page}/").content.decode()


def test_whose_contact_is_the_fall_back_cannot_be_deleted(admin: Client):
    anna = User.objects.create_user("anna")
    Contact.objects.create(
        name="Anna", kind="webhook", config={"url": "https://a.example/"}, owner=anna, is_fallback=True
    )
    url = f"/admin/accounts/user/{anna.pk}/delete/"
    assert "anna cannot be deleted: Anna is the fall-back contact" in admin.get(url).content.decode()
    admin.post(url, {"post": "yes"})
    admin.post("/admin/accounts/user/", {"action": "delete_selected", "_selected_action": anna.pk, "post": "yes"})
    assert User.objects.filter(pk=anna.pk).exists()
