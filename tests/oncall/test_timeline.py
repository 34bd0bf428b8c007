"""An incident's page says who was told what, why and by which id, what was answered, and how its escalation runs."""

import pytest
from django.test import Client

from apps.accounts.models import User
from apps.notifications.models import Delivery, Reply
from apps.oncall import services
from apps.oncall.models import Escalation
from apps.oncall.plans import changed_since
from tests.oncall.conftest import BY, Night


@pytest.fixture
def page(client: Client, night: Night, django_user_model: type[User]) -> Client:
    client.force_login(django_user_model.objects.create_superuser("root", "root@example.com", "a-long-passphrase"))
    return client


def escalating(night: Night) -> Escalation:
    ann = night.contact("ann")
    told = ("notify", {"contacts": [ann.pk]})
    night.route("root", policy=night.policy(told, ("wait", {"minutes": 10}), told))
    night.fire()
    night.wait(minutes=1)
    return night.escalation


def test_the_page_tells_why_and_by_which_id_and_what_was_answered(page: Client, night: Night):
    running = escalating(night)
    sent = Delivery.objects.get()
    Delivery.objects.update(provider_id="SM123")
    Reply.objects.create(
        delivery=sent, action="acknowledge", via="link", who="Ann <b>", who_kind="contact", at=night.now,
        handled_at=night.now, was_done=True, outcome="Acknowledged: 1 alert.",
    )  # fmt: skip
    text = page.get(f"/monitoring/incidents/{running.incident_id}/").content.decode()
    assert "webhook id SM123" in text
    assert "tells its contacts" in text
    assert "Ann &lt;b&gt; answered acknowledge" in text
    assert "Acknowledged: 1 alert." in text
    assert "<strong>Notify ann</strong> (next)" in text
    assert "was changed since" not in text


def test_a_policy_that_was_changed_or_deleted_since_is_shown_beside_the_copy(page: Client, night: Night):
    running = escalating(night)
    assert changed_since(running) is None
    steps = [{"kind": "notify", "config": {"fallback": True}}]
    services.save_policy(by=BY, name="night", steps=steps, policy=running.policy)
    for path in (f"/monitoring/incidents/{running.incident_id}/", f"/admin/oncall/escalation/{running.pk}/change/"):
        text = page.get(path).content.decode()
        assert "The policy was changed since" in text
        assert "Notify ann" in text
        assert "Notify the fall-back contact" in text
    Escalation.objects.update(policy=None)
    assert "The policy is gone by now" in page.get(f"/monitoring/incidents/{running.incident_id}/").content.decode()


def test_each_step_taken_stands_on_the_timeline_the_escalations_page_and_in_the_api(page: Client, night: Night):
    night.contact("hook")
    ann, gone = night.contact("ann"), night.contact("gone")
    policy = night.policy(("webhook", {"contact": "hook"}), ("notify", {"contacts": ["gone", "ann"]}))
    night.route("root", policy=policy)
    gone.delete()
    night.fire()
    night.wait(minutes=1)
    running = night.escalation
    for path in (f"/monitoring/incidents/{running.incident_id}/", f"/admin/oncall/escalation/{running.pk}/change/"):
        text = page.get(path).content.decode()
        assert "1 of its contacts is gone or switched off" in text
        assert "calls a webhook: hook" in text
    assert "The call is sent." in page.get(f"/monitoring/incidents/{running.incident_id}/").content.decode()
    taken = page.get(f"/api/v1/portal/escalations/{running.pk}/").json()["taken"]
    assert [(row["position"], row["told"]) for row in taken] == [(0, []), (1, [ann.name])]
