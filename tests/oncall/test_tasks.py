"""The loops run as the clock runs them, from alert to receiver."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core.models import Loop
from apps.core.tasks import run
from apps.notifications.models import Delivery
from apps.oncall import loops, tasks, telling
from tests.notifications.conftest import http_receiver as http_receiver
from tests.notifications.receivers import HttpReceiver
from tests.oncall.conftest import Night


@pytest.mark.django_db(transaction=True)
def test_an_alert_reaches_a_receiver_through_the_loops(http_receiver: HttpReceiver):
    night = Night()
    night.now = timezone.now()
    hook = night.contact("hook")
    hook.config = {"url": http_receiver.url}
    hook.save()
    policy = night.policy(("notify", {"contacts": ["hook"]}), ("wait", {"minutes": 60}))
    night.route("root", policy=policy, group_wait=timedelta(0))
    night.fire("disk", severity="critical")
    for name in ("oncall.tell", "oncall.escalate", "notifications.deliver"):
        assert run(name, now=timezone.now())
    assert set(Loop.objects.values_list("error", flat=True)) == {""}
    [request] = http_receiver.requests
    assert request.json()["title"] == "[CRITICAL] disk is bad"
    assert request.json()["alerts"][0]["labels"]["alertname"] == "disk"
    assert Delivery.objects.get().state == "sent"


def test_groups_are_told_between_the_batches_of_a_storm(night: Night, monkeypatch: pytest.MonkeyPatch):
    phone = night.contact("phone")
    night.route("root", phone, group_wait=timedelta(0))
    night.fire("minor", severity="info")
    night.fire("core", severity="error")
    real, told = telling.tell, []

    def tell(**given: Any) -> int:
        told.append(night.texts(phone))
        return real(**given)

    monkeypatch.setattr(loops, "BATCH", 1)
    monkeypatch.setattr(telling, "tell", tell)
    tasks.tell(now=night.now)
    assert told == ["", "0s +core", "0s +core; 0s +minor"]
