"""The API of contacts, policies, routes and escalations."""

from typing import Any

import pytest
from django.test import Client

from apps.accounts import services as accounts
from apps.accounts.rights import Principal
from apps.notifications.models import Contact, Delivery
from apps.oncall.models import Route
from tests.oncall.conftest import START, Night

ROOT = "/api/v1/portal"


class Caller:
    """Calls the API with a token of the given scopes."""

    def __init__(self, client: Client, *scopes: str) -> None:
        by = Principal.system("test")
        _, secret = accounts.issue_token(by=by, name="t", scopes=scopes, expires_at=None, now=START)
        self.client, self.headers = client, {"Authorization": f"Bearer {secret}"}

    def __call__(self, method: str, path: str, data: Any = None) -> Any:
        call = getattr(self.client, method)
        more = {} if method == "get" else {"data": data, "content_type": "application/json"}
        return call(f"{ROOT}/{path}/", headers=self.headers, **more)


@pytest.fixture
def admin(db: None, client: Client) -> Caller:
    return Caller(client, "admin")


def test_contacts_take_secrets_and_never_return_them(admin: Caller):
    settings = {"url": "https://hook.example/", "token": "s3cr3t"}
    made = admin("post", "contacts", {"name": "Hook", "kind": "webhook", "settings": settings})
    assert made.status_code == 201, made.content
    path = f"contacts/{made.json()['id']}"
    assert "s3cr3t" not in made.content.decode() + admin("get", path).content.decode()
    assert admin("patch", path, {"settings": {"url": "https://b.example/"}}).status_code == 200
    assert Contact.objects.get().secrets == {"token": "s3cr3t"}
    assert admin("patch", path, {"settings": {"token": None}}).json()["settings"]["token"] == ""
    assert Contact.objects.get().secrets == {}
    assert admin("patch", path, {"settings": {"colour": "red"}}).status_code == 400
    assert admin("delete", path).status_code == 204


def test_readers_read_and_operators_test(client: Client, night: Night):
    contact = night.contact("hook")
    reader, operator = Caller(client, "read"), Caller(client, "alerts")
    assert reader("get", "contacts").status_code == 200
    assert reader("post", "contacts", {}).status_code == 403
    assert reader("post", f"contacts/{contact.pk}/test", {}).status_code == 403
    assert operator("post", f"contacts/{contact.pk}/test", {}).status_code == 202
    assert reader("get", "deliveries").json()["results"][0]["purpose"] == "test"
    assert Delivery.objects.count() == 1


def test_policies_and_routes_are_made_changed_and_kept_where_needed(admin: Caller, night: Night):
    night.contact("phone")
    steps = [{"kind": "notify", "config": {"contacts": ["phone"]}}, {"kind": "wait", "config": {"minutes": 5}}]
    policy = admin("post", "policies", {"name": "Night", "steps": steps})
    assert policy.status_code == 201, policy.content
    assert admin("post", "policies", {"name": "Bad", "steps": [{"kind": "dance"}]}).status_code == 400
    route = {"name": "Web", "matchers": ['service="web"'], "group_wait": 5, "policy": "Night", "contacts": ["phone"]}
    made = admin("post", "routes", route)
    assert made.status_code == 201, made.content
    assert made.json()["group_wait"] == 5
    assert admin("post", "routes", {**route, "name": "X", "matchers": ["?"]}).status_code == 400
    assert admin("delete", f"policies/{policy.json()['id']}").status_code == 400
    assert admin("delete", f"routes/{made.json()['id']}").status_code == 204
    root = night.route()
    assert admin("delete", f"routes/{root.pk}").status_code == 400
    assert Route.objects.get() == root


def test_a_contact_that_a_policy_names_is_kept_and_the_answer_says_so(admin: Caller, night: Night):
    phone = night.contact("phone")
    night.policy(("notify", {"contacts": ["phone"]}))
    refused = admin("delete", f"contacts/{phone.pk}")
    assert refused.status_code == 400
    assert "phone is used by the policy night" in refused.content.decode()
    assert Contact.objects.get() == phone


def test_what_happened_is_read(client: Client, night: Night):
    night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 60}))
    night.route(policy=policy)
    night.fire()
    night.wait(minutes=1)
    reader = Caller(client, "read")
    assert reader("get", "escalations").json()["results"][0]["state"] == "running"
    assert reader("get", "notices").json()["results"][0]["contact_name"] == "phone"


def test_how_long_an_acknowledgement_holds_is_kept_and_changed_by_the_api(admin: Caller, night: Night):
    ann = night.contact("ann")
    steps = [{"kind": "notify", "config": {"contacts": [ann.pk]}}]
    made = admin("post", "policies", {"name": "night", "acknowledged_for": 1800, "steps": steps}).json()
    path = f"policies/{made['id']}"
    assert admin("patch", path, {"description": "x"}).json()["acknowledged_for"] == 1800
    assert admin("patch", path, {"acknowledged_for": 5}).status_code == 400
    assert admin("patch", path, {"acknowledged_for": None}).json()["acknowledged_for"] is None
