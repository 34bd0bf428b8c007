"""An address that bounces, from end to end: a real mail server takes it, the provider tells later, others are told."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from apps.dashboards.snapshots import delivery_entry
from apps.notifications.links import RECEIPT, token_of
from apps.notifications.models import Contact, Delivery
from apps.notifications.sending import drain
from tests.notifications.receivers import HttpReceiver, SmtpReceiver
from tests.oncall.conftest import Night


@pytest.fixture
def receivers(settings: Any) -> Iterator[tuple[SmtpReceiver, HttpReceiver]]:
    mail, web = SmtpReceiver(), HttpReceiver()
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", mail.port
    yield mail, web
    mail.close()
    web.close()


def test_an_incident_whose_only_message_bounces_is_told_to_the_fallback_contact(
    night: Night, receivers: tuple[SmtpReceiver, HttpReceiver], settings: Any, monkeypatch: pytest.MonkeyPatch
):
    mail, web = receivers
    monkeypatch.setattr(night, "deliver", lambda: drain(clock=lambda: night.now))
    anna = Contact.objects.create(name="anna", kind="email", config={"to": ["anna@example.com"]})
    Contact.objects.create(name="fallback", kind="webhook", config={"url": web.url}, is_fallback=True)
    night.route("root", anna)
    night.fire()
    night.wait(minutes=1)
    assert (len(mail.mails), len(web.requests)) == (1, 0)

    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    settings.ANYMAIL = {"POSTMARK_SERVER_TOKEN": "x", "WEBHOOK_SECRET": "portal:s3cret"}
    [delivery] = Delivery.objects.all()
    event = {
        "RecordType": "Bounce", "Type": "HardBounce", "ID": 1, "Email": "anna@example.com",
        "Description": "No such user", "Metadata": {"delivery": token_of(delivery.key, RECEIPT)},
    }  # fmt: skip
    headers = {"Authorization": "Basic " + base64.b64encode(b"portal:s3cret").decode()}
    assert Client().post("/from/email/", event, content_type="application/json", headers=headers).status_code == 200

    night.wait(minutes=1)
    [request] = web.requests
    assert request.json()["reason"] == "anna could not be told"
    delivery.refresh_from_db()
    anna.refresh_from_db()
    assert "No such user" in anna.problem
    entry = delivery_entry(delivery)
    assert (entry["title"], entry["tone"]) == ("anna could not be told", "critical")
    assert "Bounced at" in entry["text"]
