"""The admin of people, roles, tokens and the audit trail: every write audited, secrets shown once, rights kept."""

import csv
import io
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone
from django.utils.datastructures import MultiValueDict

from apps.accounts.admin import CalendarForm
from apps.accounts.models import AuditEntry, Token, User
from apps.accounts.rights import Quota
from tests.accounts.conftest import known

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rooms_urls")]


@pytest.fixture
def as_role(client, person):
    """Return the client, logged in with that role."""

    def login(*roles, **fields):
        client.force_login(person(*roles, **fields))
        AuditEntry.objects.count()
        return client

    return login


def newest(number=1):
    entries = list(AuditEntry.objects.order_by("-id")[:number])
    return entries[0] if number == 1 else entries


def test_a_person_is_added_with_roles_and_argon2_and_audited(as_role):
    from django.contrib.auth.models import Group

    client = as_role("administrator")
    viewer = Group.objects.get_or_create(name="viewer")[0]
    form = {
        "username": "carol", "usable_password": "true", "password1": "correct-horse-9", "password2": "correct-horse-9",
        "email": "c@example.com", "groups": [viewer.pk],
    }  # fmt: skip
    answer = client.post(reverse("admin:accounts_user_add"), form)
    assert answer.status_code == 302, answer.context["errors"]
    carol = User.objects.get(username="carol")
    assert carol.password.startswith("argon2")
    assert [group.name for group in carol.groups.all()] == ["viewer"]
    roles, added = newest(2)
    assert (added.verb, added.via, added.actor_kind) == ("accounts.user.add", "admin", "user")
    assert (roles.verb, roles.after) == ("accounts.user.change", {"groups": [viewer.pk]})
    assert "correct-horse-9" not in str(added.after)


def test_setting_somebodys_password_is_audited(as_role, person):
    client = as_role("administrator")
    bob = person("viewer")
    form = {"usable_password": "true", "password1": "correct-horse-9", "password2": "correct-horse-9"}
    answer = client.post(reverse("admin:auth_user_password_change", args=[bob.pk]), {**form, "set-password": "1"})
    assert answer.status_code == 302
    bob.refresh_from_db()
    assert bob.check_password("correct-horse-9")
    assert (newest().verb, newest().target_id) == ("accounts.change_password", str(bob.pk))


def test_a_person_changes_their_own_password_and_it_is_audited(as_role):
    client = as_role("viewer", password="old-password-1")
    form = {"old_password": "old-password-1", "new_password1": "correct-horse-9", "new_password2": "correct-horse-9"}
    assert client.post(reverse("admin:password_change"), form).status_code == 302
    assert newest().verb == "accounts.change_password"


def test_an_administrator_cannot_touch_or_become_a_superuser(as_role, person):
    root = User.objects.create_superuser("root")
    client = as_role("administrator")
    me = User.objects.get(username__startswith="administrator")
    assert client.post(reverse("admin:accounts_user_change", args=[root.pk]), {"username": "x"}).status_code == 403
    assert client.get(reverse("admin:auth_user_password_change", args=[root.pk])).status_code == 403
    assert client.post(reverse("admin:accounts_user_delete", args=[root.pk]), {"post": "yes"}).status_code == 403
    client.post(
        reverse("admin:accounts_user_change", args=[me.pk]),
        {"username": "me", "is_active": "on", "is_staff": "on", "is_superuser": "on"},
    )
    me.refresh_from_db()
    assert not me.is_superuser
    assert not User.objects.exclude(pk=root.pk).filter(is_superuser=True).exists()


def test_nobody_deletes_themselves(as_role):
    client = as_role("administrator")
    me = User.objects.get()
    assert client.post(reverse("admin:accounts_user_delete", args=[me.pk]), {"post": "yes"}).status_code == 403


def test_bulk_deletion_leaves_an_entry_for_each(as_role, person):
    client = as_role("administrator")
    victims = [person("viewer"), person("viewer")]
    form = {"action": "delete_selected", "_selected_action": [user.pk for user in victims], "post": "yes"}
    assert client.post(reverse("admin:accounts_user_changelist"), form).status_code == 302
    assert User.objects.count() == 1
    assert {entry.verb for entry in newest(2)} == {"accounts.user.delete"}


def test_a_token_is_issued_with_its_secret_shown_once(as_role):
    client = as_role("administrator")
    form = {"name": "agent", "scopes": ["ingest", "read"], "matchers": "[]", "owner": ""}
    answer = client.post(reverse("admin:accounts_token_add"), form)
    assert answer.status_code == 200
    text = answer.context["secret"]
    assert text in answer.text
    assert "no-store" in answer["Cache-Control"]
    assert known(text).name.startswith("agent")
    token = Token.objects.get()
    for path in (reverse("admin:accounts_token_change", args=[token.pk]), reverse("admin:accounts_token_changelist")):
        page = client.get(path)
        assert page.status_code == 200
        assert text not in page.text
        assert token.digest not in page.text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00"}, "expires_at"),
        ({"matchers": '["x"]'}, "matchers"),
    ],
)
def test_a_wrong_token_form_says_where(as_role, wrong, field):
    form = {"name": "agent", "scopes": ["read"], "matchers": "[]"} | wrong
    answer = as_role("administrator").post(reverse("admin:accounts_token_add"), form)
    assert field in answer.context["adminform"].form.errors
    assert not Token.objects.exists()


def test_neither_scopes_nor_matchers_of_a_token_change(as_role, secret):
    secret("read", name="old")
    token = Token.objects.get()
    client = as_role("administrator")
    client.post(reverse("admin:accounts_token_change", args=[token.pk]), {"name": "new", "scopes": ["admin"]})
    token.refresh_from_db()
    assert (token.name, token.scopes) == ("new", ["read"])
    assert newest().after == {"name": "new"}


def test_the_action_revoke_ends_tokens(as_role, secret):
    secret("read")
    token = Token.objects.get()
    form = {"action": "revoke", "_selected_action": [token.pk], "confirmed": "yes"}
    as_role("administrator").post(reverse("admin:accounts_token_changelist"), form)
    token.refresh_from_db()
    assert token.revoked_at
    assert newest().verb == "accounts.revoke_token"


def test_the_audit_trail_is_read_by_auditors_and_changed_by_nobody(as_role, person):
    client = as_role("auditor")
    entry = newest()
    change = reverse("admin:accounts_auditentry_change", args=[entry.pk])
    assert client.get(reverse("admin:accounts_auditentry_changelist")).status_code == 200
    assert client.get(change).status_code == 200
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(change, {"verb": "nothing"}).status_code == 403
    assert client.get(reverse("admin:accounts_auditentry_add")).status_code == 403
    assert client.post(reverse("admin:accounts_auditentry_delete", args=[entry.pk]), {"post": "yes"}).status_code == 403
    client.force_login(person("editor"))
    assert client.get(reverse("admin:accounts_auditentry_changelist")).status_code == 403


def test_exporting_the_audit_trail_is_itself_audited_and_safe_for_spreadsheets(as_role, person):
    person("viewer")
    client = as_role("auditor")
    client.login(username="=cmd|' /C calc'!A0", password="x")
    client = as_role("auditor")
    form = {"action": "export_csv", "_selected_action": ["0"], "select_across": "1"}
    answer = client.post(reverse("admin:accounts_auditentry_changelist"), form)
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert len(rows) == AuditEntry.objects.count() - 1
    assert any(row["target_label"].startswith("'=cmd") for row in rows)
    assert (newest().verb, newest().after["rows"]) == ("accounts.export_rows", len(rows))


def test_the_history_of_an_object_is_its_audit_entries(as_role, person):
    bob = person("viewer")
    client = as_role("administrator")
    page = client.get(reverse("admin:accounts_user_history", args=[bob.pk]))
    assert "accounts.set_roles" in page.text
    assert "viewer" in page.text


def test_roles_are_shown_with_their_rights_and_cannot_be_edited(as_role):
    client = as_role("administrator")
    page = client.get(reverse("admin:auth_group_changelist"))
    assert "administer" in page.text
    assert client.get(reverse("admin:auth_group_add")).status_code == 403


def test_a_tokens_quota_is_set_when_it_is_issued_and_edited_later_with_an_entry(as_role):
    client = as_role("administrator")
    form = {"name": "agent", "scopes": ["ingest"], "matchers": "[]", "series_limit": "5", "samples_per_second": "10"}
    text = client.post(reverse("admin:accounts_token_add"), form).context["secret"]
    assert known(text).quota == Quota(5, 10)
    path = reverse("admin:accounts_token_change", args=[Token.objects.get().pk])
    client.post(path, {"name": "agent", "series_limit": "7", "samples_per_second": ""})
    assert (newest().before, newest().after) == (
        {"series_limit": 5, "samples_per_second": 10},
        {"series_limit": 7, "samples_per_second": None},
    )
    assert known(text).quota == Quota(7, None)


ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//x//y//EN
BEGIN:VEVENT
UID:1
DTSTART;VALUE=DATE:{year}0501
SUMMARY:Labour Day
RRULE:FREQ=YEARLY
END:VEVENT
BEGIN:VEVENT
UID:2
DTSTART:{year}0502T090000Z
DTEND:{year}0502T100000Z
SUMMARY:No closed day
END:VEVENT
END:VCALENDAR
"""


def test_closed_days_of_a_calendar_come_from_a_file_beside_those_that_were_typed():
    year = timezone.now().year
    typed = f"{year}-05-01 Our own name for it"
    file: Any = SimpleUploadedFile("days.ics", ICS.format(year=year).replace("\n", "\r\n").encode())
    form = CalendarForm({"name": "Office", "zone": "UTC", "holidays": typed}, MultiValueDict({"holiday_file": [file]}))
    assert form.is_valid(), form.errors
    assert form.cleaned_data["holidays"].splitlines() == [
        typed,
        f"{year + 1}-05-01 Labour Day",
        f"{year + 2}-05-01 Labour Day",
    ]
    html: Any = SimpleUploadedFile("x.ics", b"<html>")
    bad = CalendarForm({"name": "x", "zone": "UTC"}, MultiValueDict({"holiday_file": [html]}))
    assert "holiday_file" in bad.errors
