"""The import of rows in the admin: told before it is written, all or nothing, by the forms and verbs of each page."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from apps.accounts import imports
from apps.accounts.models import AuditEntry, Team, User
from apps.accounts.rights import Principal
from apps.alerting.models import Service
from apps.metrics.models import Metric
from apps.notifications.models import Contact
from apps.notifications.services import save_contact
from apps.sources.models import DataSource, Heartbeat, Site
from tests.house.rows import AT, make
from tests.house.test_import_walk import confirmed, exported, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def page_of(model: Any) -> Any:
    return admin.site._registry[model]


def seen(client: Client, model: Any, rows: list[dict[str, Any]] | str) -> Any:
    """Return the answer to a file: JSON of these rows, or this CSV."""
    content = rows if isinstance(rows, str) else json.dumps(rows)
    return told(page_of(model), client, content.encode())


def lines(answer: Any) -> list[tuple[Any, ...]]:
    """Return (name, action, (column, before, after)…, remarks…) of each row."""
    return [
        (one.name, one.action, *((d.column, d.before, d.after) for d in one.differences), *one.remarks)
        for one in answer.context["report"].changes
    ]


def test_a_report_says_what_would_change_and_writes_nothing_until_it_is_confirmed(client):
    ann = User.objects.create_user("ann")
    team = Team.objects.create(name="Web", description="Days")
    Team.objects.create(name="Ops")
    last = AuditEntry.objects.latest("id").pk if AuditEntry.objects.exists() else 0
    count = AuditEntry.objects.count()
    csv = "name;description;members;colour\nWeb;Nights;ann;red\nOps;;;\nData;New one;ann,root;\n"
    answer = seen(client, Team, csv)
    assert lines(answer) == [
        ("Web", "changed", ("description", "Days", "Nights"), ("members", "[]", "ann")),
        ("Ops", "unchanged"),
        ("Data", "new", ("name", "", "Data"), ("description", "", "New one"), ("members", "", "ann,root")),
    ]
    assert answer.context["report"].unknown == ["colour"]
    assert "Unknown columns" in answer.text
    assert (AuditEntry.objects.count(), Team.objects.count(), list(team.members.all())) == (count, 2, [])
    assert confirmed(page_of(Team), client, answer).status_code == 302
    team.refresh_from_db()
    assert (team.description, list(team.members.all()), Team.objects.count()) == ("Nights", [ann], 3)
    entries = AuditEntry.objects.filter(id__gt=last)
    assert {entry.verb for entry in entries} == {
        "accounts.team.change", "accounts.team.add", "accounts.import_rows"
    }  # fmt: skip
    summary = entries.get(verb="accounts.import_rows")
    assert summary.after == {"new": 1, "changed": 1, "unchanged": 1}
    assert {(entry.actor_name, entry.via) for entry in entries} == {("root", "admin")}


def test_one_row_that_is_refused_keeps_all_of_them_out_and_is_named_with_its_column(client):
    answer = seen(client, Team, [{"name": "Web"}, {"name": "Ops", "members": ["nobody"]}])
    assert lines(answer)[1] == ("Ops", "refused", "members: There is no user 'nobody' here.")
    assert 'name="confirmed"' not in answer.text
    assert confirmed(page_of(Team), client, answer).status_code == 200
    assert not Team.objects.exists()


def test_what_changed_between_report_and_confirmation_is_noticed(client):
    team = Team.objects.create(name="Web", description="Days")
    answer = seen(client, Team, [{"name": "Web", "description": "Nights"}])
    Team.objects.filter(pk=team.pk).update(description="Weekends")
    again = confirmed(page_of(Team), client, answer)
    assert "what is here has changed since you saw the report" in again.text
    assert lines(again) == [("Web", "changed", ("description", "Weekends", "Nights"))]
    team.refresh_from_db()
    assert team.description == "Weekends"
    assert confirmed(page_of(Team), client, again).status_code == 302
    team.refresh_from_db()
    assert team.description == "Nights"


def test_a_row_may_name_another_that_comes_after_it(client):
    answer = seen(client, Service, [{"name": "shop", "depends_on": ["db"]}, {"name": "db"}])
    assert [line[:2] for line in lines(answer)] == [("shop", "new"), ("db", "new")]
    assert confirmed(page_of(Service), client, answer).status_code == 302
    assert Service.objects.get(name="shop").depends_on.get().name == "db"


def test_a_secret_that_is_absent_stays_and_one_that_is_given_is_not_shown(client):
    kept = {"url": "https://example.com/x", "token": "first-secret"}
    save_contact(by=Principal.system("test"), name="Hook", kind="webhook", values=kept, now=AT)
    file = exported(page_of(Contact), client, "json", Contact.objects.get())
    assert b"first-secret" not in file
    answer = seen(client, Contact, [{"name": "Hook", "config": {"url": "https://example.com/y"}}])
    assert lines(answer) == [
        ("Hook", "changed", ("config.url", "https://example.com/x", "https://example.com/y"))
    ]  # fmt: skip
    confirmed(page_of(Contact), client, answer)
    assert Contact.objects.get().secrets == {"token": "first-secret"}
    answer = seen(client, Contact, [{"name": "Hook", "config": {"token": "other-secret"}}])
    assert lines(answer) == [("Hook", "changed", ("config.token", "", "given anew, and not shown"))]
    assert "other-secret" not in answer.text
    assert "no-store" in answer["Cache-Control"]  # the form carries the file
    confirmed(page_of(Contact), client, answer)
    assert Contact.objects.get().secrets == {"token": "other-secret"}
    assert "other-secret" not in str(list(AuditEntry.objects.values_list("before", "after")))


def test_a_new_row_that_needs_a_secret_or_a_kind_says_so(client):
    answer = seen(client, Contact, [{"name": "Chat", "kind": "slack"}, {"name": "X", "kind": "pigeon"}, {"name": "Y"}])
    chat, pigeon, without = (line[2] for line in lines(answer))
    assert chat.startswith("config.webhook_url: ")
    assert pigeon.startswith("kind: a new row needs one of ")
    assert without == pigeon


def test_a_row_keeps_its_kind_and_has_no_settings_that_its_kind_does_not_know(client):
    url = {"url": "https://example.com/x"}
    save_contact(by=Principal.system("test"), name="Hook", kind="webhook", values=url, now=AT)
    kind = seen(client, Contact, [{"name": "Hook", "kind": "email"}])
    assert "kind: it is webhook here and stays so" in lines(kind)[0][2]
    settings = seen(client, Contact, [{"name": "Hook", "config": {"adress": "x"}}])
    assert "config: there is no setting 'adress'; there are url" in lines(settings)[0][2]


def test_rows_that_only_the_portal_adds_are_changed_but_not_made(client):
    make("metrics.metric", name="up")
    answer = seen(client, Metric, [{"name": "up", "help": "Whether it answers."}, {"name": "down"}])
    assert lines(answer)[0] == ("up", "changed", ("help", "", "Whether it answers."))
    assert "it can only be changed" in lines(answer)[1][2]


def test_cells_are_read_as_the_export_writes_them_and_as_people_type_them(client):
    beat = make("sources.heartbeat", slug="backup", name="Backup")
    site = make("sources.site", name="shop")
    csv = 'slug,period,enabled,labels\nbackup,7200.0,FALSE,"{""team"": ""db""}"\n'
    confirmed(page_of(Heartbeat), client, seen(client, Heartbeat, csv))
    beat.refresh_from_db()
    assert (beat.period, beat.enabled, beat.labels) == (timedelta(hours=2), False, {"team": "db"})
    typed = seen(client, Heartbeat, "slug,period,enabled\nbackup,03:00:00,yes\n")
    confirmed(page_of(Heartbeat), client, typed)
    beat.refresh_from_db()
    assert (beat.period, beat.enabled) == (timedelta(hours=3), True)
    answer = seen(client, Heartbeat, "slug,enabled,period\nbackup,maybe,soon\n")
    assert lines(answer)[0][2:] == ("enabled: This should be true or false.",)
    answer = seen(client, Heartbeat, "slug,period\nbackup,soon\n")
    assert lines(answer)[0][2:] == ("period: Enter a valid duration.",)
    confirmed(page_of(Site), client, seen(client, Site, [{"name": "shop", "origins": ["https://a.example"]}]))
    site.refresh_from_db()
    assert site.origins == ["https://a.example"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"name": "a\0b"}, "cannot be stored"),
        ({"name": "a", "matchers": [["x", "=", "a\0"]]}, "cannot be stored"),
        ({"name": "\ud800"}, "cannot be stored"),
        ({"name": "x" * 1_000}, "at most 100 characters"),
        ({"name": ""}, "says which row is meant"),
        ({"name": None}, "says which row is meant"),
        ({"name": "a", "description": {"b": 1}}, "a text or a number, not an object"),
        ({"name": "a", "members": 5}, "a list of names"),
        ({"name": "a", "matchers": "["}, "matchers: "),
        ({"name": "a", "matchers": {"a": 1}}, "matchers: "),
    ],
    ids=repr,
)
def test_hostile_rows_are_refused_in_words(client, row, sentence):
    ((_, action, *said),) = lines(seen(client, Team, [row]))
    assert (action, sentence in said[0]) == ("refused", True), said


def test_markup_is_shown_as_what_it_is(client):
    answer = seen(client, Team, [{"name": "<script>alert(1)</script>", "<b>c</b>": 1, "description": "<i>x</i>"}])
    assert not [mark for mark in ("<script>alert(1)", "<b>c", "<i>x") if mark in answer.text]
    assert confirmed(page_of(Team), client, answer).status_code == 302


def test_rows_named_twice_are_refused_and_a_file_needs_the_column_that_names_them(client):
    answer = seen(client, Team, "name\nWeb\nWeb\n")
    assert lines(answer)[1] == ("Web", "refused", "name: row 2 is about Web already.")
    answer = seen(client, Team, "description\nx\n")
    assert answer.context["form"].non_field_errors() == ["There is no column name: it says which row is meant."]


def test_an_import_that_takes_too_long_is_given_up(client, monkeypatch):
    monkeypatch.setattr(imports, "MOST_SECONDS", -1.0)
    answer = seen(client, Team, "name\nWeb\n")
    assert "use smaller files" in answer.context["form"].non_field_errors()[0]


def test_confirming_needs_the_report_that_was_seen(client):
    answer = seen(client, Team, "name\nWeb\n")
    form = {"content": answer.context["form"].initial["content"], "confirmed": "yes"}
    assert client.post("/admin/accounts/team/import-rows/", form).context["report"].is_stale
    assert client.post("/admin/accounts/team/import-rows/", {"content": "%"}).context["form"].errors
    assert not Team.objects.exists()


def test_a_data_source_needs_no_password_in_the_file_and_takes_one(client):
    make("sources.datasource", name="cache", address="127.0.0.1:6379")
    answer = seen(client, DataSource, [{"name": "cache", "password": "sesame"}])
    assert lines(answer) == [("cache", "changed", ("password", "", "given anew, and not shown"))]
    confirmed(page_of(DataSource), client, answer)
    assert DataSource.objects.get().secrets["password"] == "sesame"
