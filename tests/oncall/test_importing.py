"""What an import writes: a dry run first, people by e-mail, twice the same; by admin, API and command."""

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client

from apps.accounts.models import AuditEntry, Team, User
from apps.accounts.rights import Principal, Right
from apps.alerting.models import Inhibition, MaintenanceWindow
from apps.notifications.models import Contact
from apps.oncall import alertmanager, services
from apps.oncall.importing import STEPS, Report, import_configuration
from apps.oncall.models import Override, Policy, Route, Schedule
from apps.oncall.steps import steps
from tests.oncall.importer_files import ONCALL, OPSGENIE
from tests.oncall.test_importers import FULL

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 5, 0, tzinfo=UTC)
ADA = Principal.system("ada")
FILES = {"alertmanager": FULL, "grafana_oncall": json.dumps(ONCALL).encode(), "opsgenie": json.dumps(OPSGENIE).encode()}


@pytest.fixture(autouse=True)
def root(db: None) -> Route:
    return services.save_route(by=ADA, route=Route(is_root=True), values={"name": "Everything else"}, contacts=[])


@pytest.fixture
def people(db: None) -> list[User]:
    return [User.objects.create_user(name, f"{name}@example.org") for name in ("ada", "bob")]


def load(kind: str, content: bytes | None = None, *, dry_run: bool = False) -> Report:
    return import_configuration(
        by=ADA, kind=kind, content=FILES[kind] if content is None else content, dry_run=dry_run, now=NOW
    )


def told(report: Report, *, kind: str, name: str) -> tuple[str, str]:
    [change] = [one for one in report.changes if (one.kind, one.name) == (kind, name)]
    return change.action, "; ".join(change.details)


def everything() -> list[Any]:
    models = (Contact, Policy, Route, Schedule, Override, Team, Inhibition, MaintenanceWindow, User, AuditEntry)
    return [sorted(model._default_manager.values_list("pk", flat=True)) for model in models]


@pytest.mark.parametrize("kind", FILES)
def test_a_dry_run_tells_what_an_import_does_and_writes_nothing(kind: str, people: list[User]):
    before = everything()
    planned = load(kind, dry_run=True)
    assert everything() == before
    assert planned.changes == load(kind).changes
    assert everything() != before


@pytest.mark.parametrize("kind", FILES)
def test_the_same_file_twice_changes_nothing(kind: str, people: list[User]):
    load(kind)
    before = everything()
    again = load(kind)
    assert {one.action for one in again.changes} <= {"unchanged", "left out"}, again.changes
    assert everything() == before


def test_an_alertmanager_yml_is_written_whole(root: Route):
    report = load("alertmanager")
    night = Route.objects.get(name="night")
    assert night.matchers == ['severity="page"', 'team=~"db|web"']
    assert [one.name for one in night.contacts.all()] == ["night"]
    root.refresh_from_db()
    assert (root.name, root.group_by) == ("Everything else", ["alertname", "cluster"])
    assert {one.name for one in root.contacts.all()} == {"ops email", "ops slack"}
    slack = Contact.objects.get(name="ops slack")
    assert (slack.config["channel"], slack.secrets["webhook_url"]) == ("#ops", "https://hooks.slack.com/services/T/B/x")
    assert "services/T/B/x" not in json.dumps(report.as_dict())
    assert Inhibition.objects.get().equal == ["alertname"]
    assert MaintenanceWindow.objects.count() == 2
    entry = AuditEntry.objects.get(verb="oncall.import_configuration")
    assert (entry.actor_name, entry.after) == ("ada", {"new": 7, "changed": 1, "left out": 3})


def test_our_own_configuration_comes_home_without_a_change(root: Route):
    contact = Contact.objects.create(name="db", kind="webhook", config={"url": "https://db.example/"})
    values = {"name": "db", "matchers": ['service="db"'], "group_by": ["alertname"]}
    services.save_route(by=ADA, values=values, contacts=[contact])
    services.save_route(by=ADA, route=root, values={}, contacts=[contact])
    load("alertmanager", alertmanager.configuration().encode())
    again = load("alertmanager", alertmanager.configuration().encode())
    assert told(again, kind="route", name="db")[0] == "unchanged"
    assert {one.action for one in again.changes} == {"unchanged"}


def test_what_differs_is_told_and_changed(root: Route):
    load("alertmanager")
    report = load("alertmanager", FULL.replace(b"repeat_interval: 1h30m", b"repeat_interval: 2h"))
    assert told(report, kind="route", name="night") == ("changed", "repeat interval: 1:30:00 becomes 2:00:00")


def test_imported_routes_stand_behind_those_that_were_there():
    services.save_route(by=ADA, values={"name": "mine", "matchers": ["a=b"]}, contacts=[])
    load("alertmanager")
    assert list(Route.objects.in_order().values_list("name", flat=True)) == ["mine", "night", "Everything else"]


def test_a_masked_secret_leaves_the_contact_out_and_keeps_those_of_its_route():
    load("alertmanager")
    masked = FULL.replace(b"https://hooks.slack.com/services/T/B/x", b"<secret>")
    assert told(load("alertmanager", masked), kind="contact", name="ops slack")[0] == "unchanged"
    Contact.objects.get(name="ops slack").routes.clear()
    Contact.objects.get(name="ops slack").delete()
    action, why = told(load("alertmanager", masked), kind="contact", name="ops slack")
    assert (action, why) == ("left out", "The file masks webhook_url: make the contact by hand.")


def test_a_contact_of_another_kind_with_that_name_is_left_alone():
    Contact.objects.create(name="night", kind="webhook", config={"url": "https://x.example/"})
    report = load("alertmanager")
    assert told(report, kind="contact", name="night")[0] == "left out"
    assert Contact.objects.get(name="night").kind == "webhook"


def test_people_are_found_by_e_mail_and_nobody_gets_a_log_in(people: list[User]):
    people[1].delete()
    report = load("grafana_oncall")
    assert list(User.objects.values_list("username", flat=True)) == ["ada"]
    assert told(report, kind="person", name="bob@example.org")[0] == "left out"
    assert told(report, kind="person", name="ada@example.org") == ("unchanged", "is ada")
    action, details = told(report, kind="schedule", name="Primary")
    assert (action, "without bob@example.org" in details) == ("new", True)
    assert Schedule.objects.get().layers.first().people == [people[0].pk]  # type: ignore[union-attr]


def test_an_oncall_export_is_written_whole(people: list[User]):
    load("grafana_oncall")
    assert [user.username for user in Team.objects.get(name="Platform").members.all()] == ["ada"]
    assert Schedule.objects.get(name="Primary").layers.count() == 2
    assert Override.objects.get().person == people[1]
    contact = Contact.objects.get(name="ada@example.org by e-mail")
    assert contact.owner == people[0]
    kinds = list(Policy.objects.get(name="Standard").steps.values_list("kind", flat=True))
    assert kinds[:2] == ["notify_schedule", "wait"]
    assert kinds[-1] == "repeat"
    assert list(Route.objects.filter(enabled=True, is_root=False).values_list("matchers", flat=True)) == [
        ['severity="critical"']
    ]


def test_a_policy_of_people_who_are_not_here_tells_the_fall_back_contact():
    report = load("opsgenie")
    action, details = told(report, kind="policy", name="Platform_escalation")
    assert action == "new"
    assert "without bob@example.org, who has no log-in here" in details
    rule = {"delay": {"timeAmount": 0}, "recipient": {"type": "user", "username": "x@example.org"}}
    alone = json.dumps({"escalations": [{"name": "E", "rules": [rule]}]}).encode()
    report = load("opsgenie", alone)
    assert "tells the fall-back contact" in told(report, kind="policy", name="E")[1]
    assert list(Policy.objects.get(name="E").steps.values_list("kind", "config__fallback")) == [("notify", True)]


def test_an_opsgenie_export_is_written_whole(people: list[User]):
    load("opsgenie")
    first, second = Route.objects.filter(is_root=False).order_by("position")
    assert (first.matchers, str(first.policy)) == (['team="Platform"', 'severity="critical"'], "Platform_escalation")
    assert str(second.policy) == "On call by Primary"
    assert Schedule.objects.get().layers.get().hours == "mon-sun 08:00-20:00"


def test_every_word_of_a_blueprint_becomes_a_step_that_this_portal_has():
    known = set(steps.all())
    for word, choices in STEPS.items():
        later = word == "many"  # a step of a later day; until then it is told as left out
        assert later or {choice.kind for choice in choices} & known, word


def test_a_wrong_file_writes_nothing():
    with pytest.raises(ValidationError, match="no route"):
        load("alertmanager", b"receivers: []")
    with pytest.raises(ValidationError, match="no importer"):
        import_configuration(by=ADA, kind="nagios", content=b"", now=NOW)


def test_only_an_administrator_may_import():
    editor = Principal("user", "1", "ed", frozenset({Right.READ, Right.EDIT, Right.OPERATE}))
    with pytest.raises(PermissionDenied):
        import_configuration(by=editor, kind="alertmanager", content=FULL, now=NOW)


# --- The three doors ------------------------------------------------------------------------------------------------
@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", "root@example.org"))
    return client


def test_the_admin_shows_the_report_and_then_imports(admin: Client):
    url = "/admin/oncall/route/import/"
    upload = SimpleUploadedFile("alertmanager.yml", FULL)
    shown = admin.post(url, {"kind": "alertmanager", "file": upload})
    page = shown.content.decode()
    assert "nothing is written yet" in page
    assert "ops pushover" in page
    assert "services/T/B/x" not in page.replace(base64.b64encode(FULL).decode(), "")
    assert not Route.objects.filter(name="night").exists()
    content = shown.context["form"].initial["content"]
    done = admin.post(url, {"kind": "alertmanager", "content": content, "confirmed": "yes"})
    assert done.status_code == 302
    assert Route.objects.filter(name="night").exists()


def test_the_admin_says_what_is_wrong_with_a_file(admin: Client):
    url = "/admin/oncall/route/import/"
    wrong = admin.post(url, {"kind": "opsgenie", "file": SimpleUploadedFile("x.zip", b"PK<script>")})
    assert "cannot be unpacked" in wrong.content.decode()
    assert "Choose a file." in admin.post(url, {"kind": "opsgenie"}).content.decode()
    assert "Choose the file once more." in admin.post(url, {"kind": "opsgenie", "content": "%"}).content.decode()


def test_the_api_takes_text_or_an_archive(admin: Client):
    url = "/api/v1/portal/import/"
    body = {"kind": "alertmanager", "text": FULL.decode(), "dry_run": True}
    found = admin.post(url, body, content_type="application/json").json()
    assert (found["dry_run"], found["counts"]["new"]) == (True, 7)
    packed = {"kind": "opsgenie", "base64": base64.b64encode(FILES["opsgenie"]).decode()}
    assert admin.post(url, packed, content_type="application/json").json()["counts"]["new"] > 0
    for wrong in ({"kind": "opsgenie"}, {"kind": "opsgenie", "base64": "%"}, {"kind": "x", "text": ""}):
        assert admin.post(url, wrong, content_type="application/json").status_code == 400


def test_the_command_prints_the_report(tmp_path: Any):
    file = tmp_path / "alertmanager.yml"
    file.write_bytes(FULL)
    out = io.StringIO()
    call_command("oncall", "import", "alertmanager", str(file), "--dry-run", stdout=out)
    assert "+ new route night" in out.getvalue()
    assert "! left out receiver ops pushover" in out.getvalue()
    assert "Would be: 7 new" in out.getvalue()
    assert not Route.objects.filter(name="night").exists()
