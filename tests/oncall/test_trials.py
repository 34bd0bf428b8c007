"""Tests of routes and policies: whoever would be told first gets one message, after a look at the dry run."""

from datetime import timedelta

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.test import Client

from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal, Right
from apps.notifications.models import Delivery
from apps.oncall import trials
from apps.oncall.models import Escalation, Policy
from tests.oncall.conftest import BY, Night
from tests.oncall.test_api import Caller


@pytest.fixture
def policy(night: Night) -> Policy:
    night.contact("ann")
    night.contact("bob")
    return night.policy(
        ("wait", {"minutes": 5}),
        ("notify", {"contacts": ["ann"]}),
        ("wait", {"minutes": 5}),
        ("notify", {"contacts": ["bob"]}),
    )


def told() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("pk").values_list("contact_name", "purpose"))


def test_the_first_whom_a_policy_tells_gets_a_test_and_nothing_escalates(night: Night, policy: Policy):
    trials.try_policy(by=BY, policy=policy, now=night.now)
    assert told() == [("ann", "test")]
    assert not Escalation.objects.exists()
    entry = AuditEntry.objects.get(verb="oncall.try_policy")
    assert (entry.after or {})["contacts"] == ["ann"]


def test_a_route_tells_its_own_contacts_first(night: Night, policy: Policy):
    route = night.route("root", night.contact("mail"), policy=policy)
    trials.try_route(by=BY, route=route, now=night.now)
    assert told() == [("mail", "test")]


def test_a_second_test_within_a_minute_is_refused(night: Night, policy: Policy):
    trials.try_policy(by=BY, policy=policy, now=night.now)
    with pytest.raises(ValidationError, match="The policy night was tested just now: wait 31 s"):
        trials.try_policy(by=BY, policy=policy, now=night.now + timedelta(seconds=30))
    trials.try_policy(by=BY, policy=policy, now=night.now + timedelta(seconds=60))
    assert len(told()) == 2


def test_a_policy_that_tells_nobody_says_so(night: Night):
    with pytest.raises(ValidationError, match="Nobody would be told"):
        trials.try_policy(by=BY, policy=night.policy(("wait", {"minutes": 1})), now=night.now)


def test_readers_may_look_and_not_send(night: Night, policy: Policy):
    with pytest.raises(PermissionDenied):
        trials.try_policy(by=Principal("user", "1", "ann", frozenset({Right.READ})), policy=policy, now=night.now)


def test_the_api_shows_the_dry_run_and_sends_when_it_is_confirmed(client: Client, night: Night, policy: Policy):
    route = night.route("root", policy=policy)
    call = Caller(client, "alerts")
    for path in (f"policies/{policy.pk}/test", f"routes/{route.pk}/test"):
        before = len(told())
        looked = call("post", path, {})
        assert (looked.status_code, looked.json()["told_first"], looked.json()["sent"]) == (200, ["ann"], [])
        assert len(told()) == before
        sent = call("post", path, {"confirm": True})
        assert (sent.status_code, [each["contact"] for each in sent.json()["sent"]]) == (202, ["ann"])
        again = call("post", path, {"confirm": True})
        assert (again.status_code, len(told())) == (400, before + 1)
    assert call("post", f"policies/{policy.pk}/test", {"severity": "bad"}).status_code == 400


def test_admin_and_page_ask_before_they_send(client: Client, night: Night, policy: Policy):
    route = night.route("root", policy=policy)
    client.force_login(User.objects.create_superuser("root", "root@example.com", "a-long-passphrase"))
    for what, row in (("policy", policy), ("route", route)):
        url = f"/admin/oncall/{what}/{row.pk}/test/"
        assert "A test message goes out now. ann" in client.get(url).content.decode()
        assert len(told()) == (0 if what == "policy" else 1)
        assert client.post(url, {"confirmed": "yes"}).status_code == 302
    assert told() == [("ann", "test"), ("ann", "test")]
    Delivery.objects.all().delete()
    page = client.get(f"/monitoring/alerts/?tab=notifications&test=policy-{policy.pk}").content.decode()
    assert "Send a test message to ann now" in page
    assert client.post(f"/monitoring/policies/{policy.pk}/test/").status_code == 302
    assert client.post(f"/monitoring/routes/{route.pk}/test/").status_code == 302
    assert told() == [("ann", "test"), ("ann", "test")]
    for nonsense in ("policy-99999", "route-x", "person-1", "policy-99999999999999999999"):
        assert client.get(f"/monitoring/alerts/?tab=notifications&test={nonsense}").status_code == 200
