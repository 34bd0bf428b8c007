"""A template that is being written is tried on past alerts: by API, and in the admin."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.rights import Scope
from apps.notifications.models import MessageTemplate
from apps.oncall import examples
from tests.notifications.test_sandbox import EVIL
from tests.oncall.conftest import Night
from tests.oncall.test_api import Caller

DRAFT = {"title": "{{ name }} {{ status }}", "body": "{{ summary }} {{ runbook }} {{ value_text }}"}


@pytest.fixture
def editor(db: None, client: Client) -> Caller:
    return Caller(client, "admin")


def preview(call: Caller, **values: Any) -> Any:
    answer = call("post", "message-templates/preview", {**DRAFT, **values})
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_draft_is_shown_of_a_past_alert_by_its_channels(editor: Caller, night: Night):
    alert = night.fire("disk", severity="critical", service="shop")
    listed = editor("get", "message-templates/examples").json()
    assert [row["key"] for row in listed] == [alert.key]
    assert listed[0]["label"].endswith("critical: disk is bad")
    found = preview(editor, alert=alert.key)
    assert (found["faults"], found["lint"]) == ({}, [])
    assert [told["kind"] for told in found["channels"]] == ["email", "sms", "slack"]
    mail, sms, _ = found["channels"]
    assert mail["title"] == "disk firing"
    assert "<h1>disk firing</h1>" in mail["html"]
    assert sms["segments"] == 1
    assert preview(editor, alert=alert.key, is_over=True)["channels"][0]["title"] == "disk resolved"


def test_an_incident_with_several_alerts_is_an_example_too(editor: Caller, night: Night):
    first = night.fire("disk", service="shop")
    second = night.fire("memory", service="shop")
    type(second).objects.filter(pk=second.pk).update(incident=first.incident)
    key = f"incident-{first.incident_id}"
    assert key in [row["key"] for row in editor("get", "message-templates/examples").json()]
    found = preview(editor, alert=key, kind="sms", body="{{ count }} of {{ incident.number }}")
    assert f"2 of {first.incident_id}" in found["channels"][0]["text"]


def test_without_an_alert_the_builtin_example_is_shown_and_an_empty_draft_shows_the_portals_words(editor: Caller):
    assert editor("get", "message-templates/examples").json() == []
    found = preview(editor, title="", body="", kind="webhook")
    assert '"title": "[CRITICAL] Memory is high on web-1"' in found["channels"][0]["text"]


def test_faults_are_said_by_field_and_an_unknown_alert_is_refused(editor: Caller):
    assert "Did you mean title?" in preview(editor, title="{{ titel }}")["faults"]["title"]
    assert editor("post", "message-templates/preview", {**DRAFT, "alert": "alert_0"}).status_code == 400
    lint = editor("post", "message-templates/lint", {"title": "Fire!"}).json()
    assert lint == {"faults": {}, "lint": ["It looks the same when all is over: use {{ status }} or {{ title }}."]}


def test_hostile_words_of_an_alert_stay_words_in_the_preview(editor: Caller, night: Night):
    alert = night.fire(EVIL.replace("\n", " "))
    document = "<p>{{ summary }}{{ labels.alertname }}</p>"
    [mail] = preview(editor, alert=alert.key, kind="email", document=document)["channels"]
    assert "<script" not in mail["html"]
    assert "&lt;script&gt;" in mail["html"]


def test_who_sees_only_some_labels_is_offered_only_their_alerts(night: Night):
    alert = night.fire("disk", service="shop")
    mine, others = Scope((("service", "=", "shop"),)), Scope((("service", "=", "mail"),))
    assert [key for key, _ in examples.recent(mine)] == [alert.key]
    assert examples.recent(others) == []
    assert examples.message(alert.key, others, is_over=False) is None


def test_the_admin_saves_a_template_and_says_what_readers_will_miss(client: Client, night: Night):
    night.fire("disk")
    client.force_login(User.objects.create_superuser("root"))
    page = client.get(reverse("admin:notifications_messagetemplate_add"))
    assert "disk is bad" in page.text
    values = dict.fromkeys(("severity", "body", "document"), "")
    values |= {"name": "Short", "kind": "sms", "title": "Fire!", "enabled": "on"}
    wrong = client.post(reverse("admin:notifications_messagetemplate_add"), {**values, "title": "{{ titel }}"})
    assert "Did you mean title?" in wrong.text
    done = client.post(reverse("admin:notifications_messagetemplate_add"), values, follow=True)
    assert "It looks the same when all is over" in done.text
    assert MessageTemplate.objects.get().title == "Fire!"
