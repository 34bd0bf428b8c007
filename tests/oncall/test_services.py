"""The verbs of on-call, the shipped defaults, and whether anybody can be told."""

from typing import Any

import pytest
import yaml
from django.conf import settings as portal
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.alerting import services as alerting
from apps.alerting.models import AlertRule, RuleGroup
from apps.alerting.services import rules as alerting_rules
from apps.notifications import services as contacts
from apps.notifications.models import Contact
from apps.oncall import services
from apps.oncall.models import Policy, Route, RuleTarget
from apps.oncall.reachability import judge, reachability
from tests.oncall.conftest import BY, START, Night


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return yaml.safe_load((portal.BASE_DIR / "fixtures" / "oncall.yaml").read_text())


def test_defaults_are_shipped_once(db: None, rows: list[dict[str, Any]]):
    services.ship_defaults(rows, by=BY, now=START)
    root = Route.objects.get(is_root=True)
    assert (root.name, str(root.policy), root.group_by) == ("Everything else", "Default", ["alertname"])
    root.name = "Mine"
    root.save()
    services.ship_defaults(rows, by=BY, now=START)
    assert Route.objects.get().name == "Mine"
    assert Contact.objects.get().is_fallback


def test_contacts_of_the_environment_are_told_by_the_root(db: None, rows: list[dict[str, Any]], settings: Any):
    settings.WEBHOOK_URL = "https://hook.example/"
    services.ship_defaults(rows, by=BY, now=START)
    assert [contact.name for contact in Route.objects.get().contacts.all()] == ["Webhook"]


def test_the_root_cannot_be_deleted_by_anybody(night: Night):
    root = night.route()
    with pytest.raises(ValidationError, match="is the root"):
        services.delete_route(by=BY, route=root)
    with pytest.raises(IntegrityError, match="cannot be deleted"), transaction.atomic():
        Route.objects.filter(pk=root.pk).delete()
    with pytest.raises(IntegrityError, match="replaced"), transaction.atomic():
        Route.objects.filter(pk=root.pk).update(is_root=False)


def test_the_root_is_last_whatever_its_position(night: Night):
    night.route()
    night.route("web", is_root=False, position=9, matchers=['service="web"'])
    assert [route.name for route in Route.objects.in_order()] == ["web", "root"]


def test_a_policy_in_use_stays(night: Night):
    night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}))
    night.route(policy=policy)
    with pytest.raises(ValidationError, match="is used by root"):
        services.delete_policy(by=BY, policy=policy)
    assert Policy.objects.exists()


def test_a_contact_in_use_stays_and_its_users_are_named(night: Night):
    phone, spare = night.contact("phone"), night.contact("spare")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("repeat", {"times": 2}))
    night.route("root", phone, policy=policy)
    _rule_told_to(phone)
    with pytest.raises(ValidationError, match="used by the policy night, the route root, the rule Hot: give those"):
        contacts.delete_contact(by=BY, contact=phone, now=START)
    contacts.delete_contact(by=BY, contact=spare, now=START)
    assert list(Contact.objects.all()) == [phone]


def _rule_told_to(contact: Contact) -> None:
    group = RuleGroup.objects.create(name="own")
    data = {"slug": "hot", "name": "Hot", "expression": "up", "levels": []}
    rule = alerting.rule_from_dict(data, group=group)
    rule.created_at = rule.updated_at = START
    rule.save()
    services.save_target(by=BY, rule=rule, contacts=[contact])


def test_the_seeds_notifications_become_the_rules_own_contacts(night: Night):
    night.contact("Ops")
    group = RuleGroup.objects.create(name="g")
    data = {"slug": "hot", "name": "Hot", "expression": "up", "levels": []}
    rule = alerting.rule_from_dict(data, group=group)
    rule.created_at = rule.updated_at = START
    rule.save()
    alerting_rules.send_to(rule=rule, names=["ops", "webhook"], by=BY, now=START)
    assert [contact.name for contact in RuleTarget.objects.get(rule=AlertRule.objects.get()).contacts.all()] == ["Ops"]
    with pytest.raises(ValidationError, match="no contact or channel 'pigeon'"):
        alerting_rules.send_to(rule=rule, names=["pigeon"], by=BY, now=START)


def test_nobody_reachable_is_said_with_what_to_do(night: Night):
    assert "there is no contact" in reachability().sentence
    mail = Contact.objects.create(name="Admins", kind="email", config={}, is_fallback=True)
    assert not reachability().ok
    assert "none of them has an e-mail address" in reachability().sentence
    User.objects.create_superuser("root", password="x", email="root@example.com")
    assert reachability().ok
    mail.problem, mail.problem_at = "refused", START
    mail.save()
    assert reachability().sentence == "Nobody would be told of an alert: no contact works. Admins: refused"
    assert judge(("a",), (("b", "gone"),)).sentence == "1 of 2 contacts work."
