"""Policies and routes in the admin."""

import html
import re
from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import AuditEntry, Calendar, User
from apps.notifications.models import Contact
from apps.oncall.models import Policy, Route, Schedule
from tests.oncall.conftest import Night


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def _steps(*rows: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"steps-TOTAL_FORMS": len(rows), "steps-INITIAL_FORMS": 0}
    for number, row in enumerate(rows):
        data |= {f"steps-{number}-{name}": value for name, value in row.items()}
    return data


def test_a_policy_is_made_with_steps_in_the_order_of_their_positions(admin: Client):
    phone = Contact.objects.create(name="phone", kind="webhook")
    page = admin.post("/admin/oncall/policy/add/", {"name": "Night", "description": "", **_steps(
        {"position": 2, "kind": "wait", "wait__minutes": "15"},
        {"position": 1, "kind": "notify", "notify__contacts": [phone.pk]},
    )})  # fmt: skip
    assert page.status_code == 302, page.content.decode()
    steps = list(Policy.objects.get().steps.order_by("position").values_list("kind", "config"))
    assert steps == [
        ("notify", {"contacts": [phone.pk], "route_contacts": False, "fallback": False}),
        ("wait", {"minutes": 15.0}),
    ]
    assert AuditEntry.objects.filter(verb="oncall.save_policy").count() == 1


def test_a_step_that_tells_nobody_is_refused(admin: Client):
    page = admin.post("/admin/oncall/policy/add/", {"name": "Night", "description": "", **_steps(
        {"position": 1, "kind": "notify"})})  # fmt: skip
    assert "a step that tells nobody is never meant" in page.content.decode()
    assert not Policy.objects.exists()


def test_each_step_is_shown_with_the_settings_of_its_own_kind_and_a_new_one_with_those_of_all(
    admin: Client, night: Night
):
    night.policy(("wait", {"minutes": 1}), name="Night")
    night.policy(("wait", {"minutes": 1}), ("hand_over", {"policy": "Night"}), name="Chiefs")
    path = f"/admin/oncall/policy/{Policy.objects.get(name='Chiefs').pk}/change/"
    names = set(re.findall(r'name="(steps-[^"]+__[^"]+)"', admin.get(path).content.decode()))
    kept = {name for name in names if "steps-__prefix__" not in name}
    assert kept == {"steps-0-wait__minutes", "steps-1-hand_over__policy"}
    assert "steps-__prefix__-wait__minutes" in names
    assert len(names) > 20
    # What was chosen and refused comes back with the settings of its own kind.
    wrong = _steps({"position": 1, "kind": "wait", "wait__minutes": "soon"})
    again = admin.post(path, {"name": "Chiefs", **wrong}).content.decode()
    assert 'name="steps-0-wait__minutes"' in again
    assert 'name="steps-0-hand_over__policy"' not in again


def test_a_policy_without_steps_is_refused(admin: Client):
    page = admin.post("/admin/oncall/policy/add/", {"name": "Night", "description": "", **_steps()})
    assert "needs at least one step" in page.content.decode()


def test_a_policy_that_would_come_back_to_itself_is_refused_in_words(admin: Client, night: Night):
    night.policy(("wait", {"minutes": 1}), name="Night")
    night.policy(("wait", {"minutes": 1}), ("hand_over", {"policy": "Night"}), name="Chiefs")
    page = admin.post(
        f"/admin/oncall/policy/{Policy.objects.get(name='Night').pk}/change/",
        {"name": "Night", **_steps({"position": 1, "kind": "hand_over", "hand_over__policy": "Chiefs"})},
    )
    assert "Night → Chiefs → Night goes in a circle" in page.content.decode()


def test_a_schedule_a_calendar_and_a_webhook_are_chosen_in_the_admin(admin: Client, night: Night):
    hook = night.contact("hook")
    Schedule.objects.create(name="Database")
    Calendar.objects.create(name="Office")
    page = admin.post("/admin/oncall/policy/add/", {"name": "Night", "description": "", **_steps(
        {"position": 1, "kind": "only_hours", "only_hours__calendar": "Office", "only_hours__steps": "1"},
        {"position": 2, "kind": "notify_schedule", "notify_schedule__schedule": "Database"},
        {"position": 3, "kind": "webhook", "webhook__contact": hook.pk},
    )})  # fmt: skip
    assert page.status_code == 302, page.content.decode()
    configs = list(Policy.objects.get().steps.order_by("position").values_list("config", flat=True))
    assert configs[0]["calendar"] == "Office"
    assert configs[1]["schedule"] == "Database"
    assert configs[2] == {"contact": hook.pk}


def test_the_editor_says_when_each_step_happens_and_what_is_wrong(admin: Client, night: Night):
    phone = night.contact("phone")
    posted = _steps(
        {"position": 2, "kind": "wait", "wait__minutes": "5"},
        {"position": 1, "kind": "notify", "notify__contacts": [phone.pk]},
        {"position": 3, "kind": "notify", "notify__fallback": "on"},
        {"position": 4, "kind": "wait", "wait__minutes": "soon"},
        {"position": 5, "kind": "repeat", "repeat__times": "1", "DELETE": "on"},
    )
    found = admin.post("/admin/oncall/policy/outline/", posted).json()
    said = {line["form"]: (line["when"], line["text"]) for line in found["lines"] if not line["problem"]}
    assert said == {
        1: ("at once", "Notify phone"),
        0: ("at once", "Wait 5 min"),
        2: ("after 5 min", "Notify the fall-back contact"),
    }
    assert [(line["form"], line["problem"]) for line in found["lines"] if line["problem"]] == [(3, "Enter a number.")]
    assert found["warning"] == ""
    nobody = admin.post("/admin/oncall/policy/outline/", _steps({"position": 1, "kind": "wait", "wait__minutes": "5"}))
    assert "the fall-back contact is" in nobody.json()["warning"]
    assert "needs at least one step" in admin.post("/admin/oncall/policy/outline/", {}).json()["warning"]
    assert admin.get("/admin/oncall/policy/outline/").status_code == 405


def test_a_saved_policy_shows_its_settings_again(admin: Client, night: Night):
    night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 7.5}))
    page = admin.get(f"/admin/oncall/policy/{policy.pk}/change/").content.decode()
    assert 'value="7.5"' in page
    assert "checked" in page


def _route(**values: Any) -> dict[str, Any]:
    return {"name": "Web", "position": 0, "enabled": "on", "matchers": 'service="web"\nseverity=~"error|critical"',
            "group_by": "alertname", "group_wait": "00:00:30", "group_interval": "00:05:00",
            "repeat_interval": "04:00:00", "policy": "", **values}  # fmt: skip


def test_a_route_is_made_and_a_wrong_matcher_refused(admin: Client):
    page = admin.post("/admin/oncall/route/add/", _route(matchers='service=~"("'))
    assert "no regular expression" in page.content.decode()
    assert admin.post("/admin/oncall/route/add/", _route()).status_code == 302
    assert Route.objects.get().matchers == ['service="web"', 'severity=~"error|critical"']


def test_the_root_is_edited_and_never_deleted(admin: Client, night: Night):
    slack = night.contact("slack")
    root = night.route()
    url = f"/admin/oncall/route/{root.pk}"
    values = {name: value for name, value in _route(name="Rest").items() if name not in ("matchers", "enabled")}
    assert admin.post(f"{url}/change/", {**values, "contacts": [slack.pk]}).status_code == 302
    assert (Route.objects.get().name, list(Route.objects.get().contacts.all())) == ("Rest", [slack])
    assert admin.post(f"{url}/delete/", {"post": "yes"}).status_code == 403
    admin.post("/admin/oncall/route/", {"action": "delete_selected", "_selected_action": [root.pk], "post": "yes"})
    assert Route.objects.count() == 1


def test_a_contact_in_use_is_kept_singly_and_in_bulk_with_a_message(admin: Client, night: Night):
    slack, spare = night.contact("slack"), night.contact("spare")
    night.route("root", slack)
    page = admin.post(f"/admin/notifications/contact/{slack.pk}/delete/", {"post": "yes"})
    assert "slack is used by the route root" in page.content.decode()
    bulk = {"action": "delete_selected", "_selected_action": [slack.pk, spare.pk], "post": "yes"}
    page = admin.post("/admin/notifications/contact/", bulk)
    assert "slack is used by the route root" in page.content.decode()
    assert Contact.objects.count() == 2
    admin.post("/admin/notifications/contact/", {**bulk, "_selected_action": [spare.pk]})
    assert list(Contact.objects.all()) == [slack]


def test_a_calendar_that_a_policy_names_is_kept_singly_and_in_bulk_with_a_message(admin: Client, night: Night):
    office = Calendar.objects.create(name="Office", zone="UTC", hours="mon-fri 08:00-18:00")
    night.policy(("only_hours", {"calendar": "Office", "steps": 1}), name="Night")
    page = admin.post(f"/admin/accounts/calendar/{office.pk}/delete/", {"post": "yes"})
    assert "Office is named by the policy Night." in page.content.decode()
    bulk = {"action": "delete_selected", "_selected_action": [office.pk], "post": "yes"}
    admin.post("/admin/accounts/calendar/", bulk)
    assert Calendar.objects.get() == office
    Policy.objects.all().delete()
    admin.post("/admin/accounts/calendar/", bulk)
    assert not Calendar.objects.exists()


def test_a_calendar_that_a_policy_names_keeps_its_name_and_the_form_says_who_names_it(admin: Client, night: Night):
    office = Calendar.objects.create(name="Office", zone="UTC", hours="mon-fri 08:00-18:00")
    night.policy(("only_hours", {"calendar": "Office", "steps": 1}), name="Night")
    url, form = f"/admin/accounts/calendar/{office.pk}/change/", {"name": "Bureau", "zone": "UTC", "hours": ""}
    assert "Office is named by the policy Night. Change that first." in html.unescape(admin.post(url, form).text)
    assert Calendar.objects.get().name == "Office"
    assert admin.post(url, {**form, "name": "Office"}).status_code == 302
    Policy.objects.all().delete()
    assert admin.post(url, form).status_code == 302
    assert Calendar.objects.get().name == "Bureau"


def test_a_calendar_is_not_renamed_through_the_api_under_a_policy_that_names_it(admin: Client, night: Night):
    office = Calendar.objects.create(name="Office", zone="UTC")
    night.policy(("only_hours", {"calendar": "Office", "steps": 1}), name="Night")
    url = f"/api/v1/portal/calendars/{office.pk}/"
    answer = admin.patch(url, {"name": "Bureau"}, content_type="application/json")
    assert (answer.status_code, "Office is named by the policy Night" in answer.text) == (400, True)


def test_a_policy_that_another_hands_over_to_is_kept_singly_and_in_bulk_with_a_message(admin: Client, night: Night):
    chiefs = night.policy(("wait", {"minutes": 1}), name="Chiefs")
    night.policy(("hand_over", {"policy": "Chiefs"}), name="Night")
    page = admin.post(f"/admin/oncall/policy/{chiefs.pk}/delete/", {"post": "yes"})
    assert "Chiefs is used by the policy Night" in page.content.decode()
    bulk = {"action": "delete_selected", "_selected_action": [chiefs.pk], "post": "yes"}
    page = admin.post("/admin/oncall/policy/", bulk)
    assert "Chiefs is used by the policy Night" in page.content.decode()
    assert Policy.objects.count() == 2


def test_the_record_is_shown(admin: Client, night: Night):
    night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 60}))
    night.route(policy=policy)
    night.fire()
    night.wait(minutes=1)
    for page in ("notificationgroup", "escalation", "notice", "policy", "route"):
        assert admin.get(f"/admin/oncall/{page}/").status_code == 200, page
    assert "1. Notify phone" in admin.get(f"/admin/oncall/escalation/{night.escalation.pk}/change/").content.decode()


def test_a_rule_page_offers_its_own_contacts(admin: Client, night: Night):
    night.contact("phone")
    assert (
        '<input type="checkbox" name="target-0-contacts"'
        in admin.get("/admin/alerting/alertrule/add/").content.decode()
    )
