"""The verbs: contacts with secrets, the one fall-back contact, and those that environment variables make."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Forbidden, Principal
from apps.notifications import outbox, services
from apps.notifications.models import Contact, Delivery
from tests.notifications.conftest import NOW, a_message

BY = Principal.system("test")
SECRET = "s3cr3t"


def save(name: str = "hook", contact: Contact | None = None, **fields: Any) -> Contact:
    values = fields.pop("values", {"url": "https://hook.example/", "token": SECRET})
    return services.save_contact(by=BY, now=NOW, contact=contact, name=name, kind="webhook", values=values, **fields)


@pytest.fixture(autouse=True)
def _database(db: None) -> None:
    """Every test here writes."""


def test_secrets_are_kept_apart_and_never_audited():
    contact = save()
    assert (contact.config, contact.secrets) == ({"url": "https://hook.example/"}, {"token": SECRET})
    save(contact=contact, values={"url": "https://hook.example/", "token": "changed"})
    entries = AuditEntry.objects.order_by("id")
    assert [entry.verb for entry in entries] == ["notifications.save_contact"] * 2
    assert entries[1].after == {"secrets_changed": True}
    assert SECRET not in str([(entry.before, entry.after) for entry in entries])


def test_there_is_one_fall_back_contact_and_it_stays():
    first, second = save("first", is_fallback=True), save("second", is_fallback=True)
    assert list(Contact.objects.filter(is_fallback=True)) == [second]
    services.delete_contact(by=BY, contact=Contact.objects.get(pk=first.pk), now=NOW)
    with pytest.raises(ValidationError, match="fall-back contact"):
        services.delete_contact(by=BY, contact=second, now=NOW)
    with pytest.raises(ValidationError, match="cannot be switched off"):
        save("second", contact=second, is_fallback=True, enabled=False)
    with pytest.raises(ValidationError, match="always one"):
        save("second", contact=second, is_fallback=False)


def test_switching_off_drops_what_waits_and_deleting_keeps_the_record():
    contact = save()
    outbox.enqueue(contact=contact, message=a_message(), purpose="firing", now=NOW)
    save(contact=contact, enabled=False)
    assert Delivery.objects.get().state == "cancelled"
    services.delete_contact(by=BY, contact=contact, now=NOW)
    assert Delivery.objects.get().contact_name == "hook"


def test_a_change_of_the_settings_forgets_the_problem():
    contact = save()
    Contact.objects.update(problem="gone", problem_at=NOW)
    contact = Contact.objects.get()
    assert save(contact=contact, values={"url": "https://other.example/"}).problem == ""


def test_only_administrators_save_and_operators_test():
    nobody = Principal("user", "1", "eve")
    with pytest.raises(Forbidden):
        services.save_contact(by=nobody, now=NOW, name="x", kind="webhook", values={})
    with pytest.raises(Forbidden):
        services.send_test(by=nobody, contact=save(), now=NOW)


@pytest.fixture
def variables(settings: Any) -> Any:
    settings.ALERT_EMAIL_ENABLED, settings.ALERT_EMAIL_TO = True, ["ops@example.com"]
    settings.ALERT_EMAIL_FROM = "portal@example.com"
    settings.SLACK_WEBHOOK_URL, settings.SLACK_CHANNEL = "https://hooks.slack.example/T/B/x", "#ops"
    settings.WEBHOOK_URL, settings.WEBHOOK_TOKEN = "https://hook.example/", SECRET
    return settings


def test_variables_become_contacts_once(variables: Any):
    made = services.contacts_from_environment(by=BY, now=NOW)
    assert {contact.kind for contact in made} == {"email", "slack", "webhook"}
    assert services.contacts_from_environment(by=BY, now=NOW) == []
    services.delete_contact(by=BY, contact=Contact.objects.get(kind="slack"), now=NOW)
    assert services.contacts_from_environment(by=BY, now=NOW) == []
    assert services.environment_warnings() == ()


def test_a_variable_that_differs_from_its_contact_is_named_with_it(variables: Any):
    services.contacts_from_environment(by=BY, now=NOW)
    variables.WEBHOOK_TOKEN = "another"
    [warning] = services.environment_warnings()
    assert "WEBHOOK_TOKEN differs from the contact “Webhook”" in warning
    assert SECRET not in warning
    assert "another" not in warning


def test_a_variable_that_cannot_be_used_is_named_and_makes_nothing(variables: Any):
    variables.ALERT_EMAIL_TO = ["nobody"]
    assert {contact.kind for contact in services.contacts_from_environment(by=BY, now=NOW)} == {"slack", "webhook"}
    assert services.environment_warnings() == (
        "No contact can be made of ALERT_EMAIL_TO: 'nobody' is no e-mail address.",
    )


def test_switched_off_e_mail_makes_no_contact(variables: Any):
    variables.ALERT_EMAIL_ENABLED = False
    assert "email" not in {contact.kind for contact in services.contacts_from_environment(by=BY, now=NOW)}
