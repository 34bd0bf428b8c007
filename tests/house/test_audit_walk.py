"""Whatever writes leaves an entry: every registered verb, every admin page's saving and deleting, every admin action.

A verb, an action or an API write that has no example here fails.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from apps.accounts import services as accounts
from apps.accounts.audit import VERBS
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import ALL_RIGHTS, Principal
from apps.alerting import services as alerting
from apps.alerting.models import RecordingRule
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.notifications import services as notifications
from apps.oncall import services as oncall
from tests.house.rows import AT, make

pytestmark = pytest.mark.django_db

WALKER = Principal("user", "42", "walker", ALL_RIGHTS, address="192.0.2.5", via="api")


def do(verb: Callable[..., Any], **values: Any) -> Callable[[], Any]:
    """Return the call of a verb by the walker; its arguments are made before, so that only the call is counted."""
    return partial(verb, by=WALKER, **values)


def user(**values: Any) -> User:
    return make("accounts.user", **values)


def rename(thing: Any) -> Any:
    thing.name = f"{thing.name} renamed"
    return thing


WEBHOOK = {"url": "https://hooks.example.com/x"}
STEPS = [{"kind": "wait", "config": {"minutes": 5}}]
LEVELS = [{"severity": "warning", "comparison": ">", "threshold": 5.0}]


def contact(**values: Any) -> Any:
    given = {"name": "Hook", "kind": "webhook", "values": WEBHOOK, "now": AT} | values
    return notifications.save_contact(by=Principal.system("test"), **given)


def new_rule() -> Any:
    from apps.alerting.models import AlertRule

    return AlertRule(slug="hot", name="Hot", group=make("alerting.rulegroup"), expression="up")


EXAMPLES: Mapping[str, Callable[[], Callable[[], Any]]] = {
    "accounts.bootstrap_token": lambda: do(accounts.bootstrap_token, value="a-long-enough-secret", now=AT),
    "accounts.change_password": lambda: do(accounts.change_password, user=user(), save=lambda: None),
    "accounts.create_admin": lambda: do(accounts.create_admin, now=AT),
    "accounts.create_roles": lambda: do(accounts.create_roles),
    "accounts.delete_object": lambda: do(accounts.delete_object, obj=user()),
    "accounts.export_audit": lambda: do(accounts.export_audit, entries=AuditEntry.objects.all(), limit=5),
    "accounts.issue_token": lambda: do(accounts.issue_token, name="t", scopes=["read"], expires_at=None, now=AT),
    "accounts.revoke_token": lambda: do(accounts.revoke_token, token=make("accounts.token"), now=AT),
    "accounts.save_object": lambda: do(accounts.save_object, obj=User(username="new")),
    "accounts.save_relations": lambda: do(
        accounts.save_relations, obj=(u := user()), save=partial(u.groups.add, make("auth.group"))
    ),
    "accounts.set_roles": lambda: do(accounts.set_roles, user=user(), roles=["viewer"]),
    "alerting.acknowledge": lambda: do(alerting.acknowledge, alert=make("alerting.alert"), now=AT),
    "alerting.acknowledge_incident": lambda: do(
        alerting.acknowledge_incident, incident=make("alerting.alert").incident, now=AT
    ),
    "alerting.delete_group": lambda: do(alerting.delete_group, group=make("alerting.rulegroup"), now=AT),
    "alerting.delete_recording_rule": lambda: do(
        alerting.delete_recording_rule, rule=make("alerting.recordingrule", expression="up"), now=AT
    ),
    "alerting.delete_rule": lambda: do(alerting.delete_rule, rule=make("alerting.alertrule"), now=AT),
    "alerting.post_alert": lambda: do(alerting.post_alert, type="disk", severity="warning", message="full", now=AT),
    "alerting.resolve": lambda: do(alerting.resolve, alert=make("alerting.alert"), now=AT),
    "alerting.resolve_incident": lambda: do(
        alerting.resolve_incident, incident=make("alerting.alert").incident, now=AT
    ),
    "alerting.save_group": lambda: do(alerting.save_group, group=rename(make("alerting.rulegroup")), now=AT),
    "alerting.save_recording_rule": lambda: do(
        alerting.save_recording_rule,
        rule=RecordingRule(name="a:b", expression="up", group=make("alerting.rulegroup")),
        now=AT,
    ),
    "alerting.save_rule": lambda: do(alerting.save_rule, rule=new_rule(), levels=LEVELS, now=AT),
    "alerting.unacknowledge": lambda: do(
        alerting.unacknowledge, alert=make("alerting.alert", acknowledged_at=AT, acknowledged_by="ann"), now=AT
    ),
    "metrics.backfill": lambda: do(metrics.backfill, samples=Samples.from_readings([], at=AT), now=AT),
    "metrics.switch_collection": lambda: do(metrics.switch_collection, on=False, now=AT),
    "notifications.contacts_from_environment": lambda: do(notifications.contacts_from_environment, now=AT),
    "notifications.delete_contact": lambda: do(notifications.delete_contact, contact=contact(), now=AT),
    "notifications.save_contact": lambda: do(
        notifications.save_contact, name="New", kind="webhook", values=WEBHOOK, now=AT
    ),
    "notifications.send_test": lambda: do(notifications.send_test, contact=contact(), now=AT),
    "oncall.delete_policy": lambda: do(oncall.delete_policy, policy=make("oncall.policy")),
    "oncall.delete_route": lambda: do(oncall.delete_route, route=make("oncall.route", name="x")),
    "oncall.save_policy": lambda: do(oncall.save_policy, name="Night", steps=STEPS),
    "oncall.save_route": lambda: do(oncall.save_route, values={"name": "web", "matchers": []}),
    "oncall.save_target": lambda: do(oncall.save_target, rule=make("alerting.alertrule"), contacts=[contact()]),
}


@pytest.fixture(autouse=True)
def environment(settings):
    """Describe one contact in the environment, for the verb that takes it over."""
    settings.WEBHOOK_URL, settings.WEBHOOK_TOKEN = "https://hooks.example.com/env", "t"
    settings.ALERT_EMAIL_TO, settings.SLACK_WEBHOOK_URL = [], ""


def entries_of(act: Callable[[], Any]) -> list[AuditEntry]:
    """Do it and return the entries that it left."""
    last = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    act()
    return list(AuditEntry.objects.filter(id__gt=last).order_by("id"))


def test_every_verb_has_an_example():
    assert set(EXAMPLES) == set(VERBS)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_verb_leaves_an_entry_with_who_what_and_from_where(name):
    entries = entries_of(EXAMPLES[name]())
    assert entries, f"{name} wrote nothing down"
    assert {(e.actor_kind, e.actor_id, e.actor_name, e.address, e.via) for e in entries} == {
        ("user", "42", "walker", "192.0.2.5", "api")
    }
    assert all(entry.verb and entry.target_type for entry in entries)
