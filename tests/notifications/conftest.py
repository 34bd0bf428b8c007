"""Receivers, contacts and messages for the tests of notifications."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.notifications.message import Item, Message
from apps.notifications.models import Contact
from tests.notifications.receivers import HttpReceiver, SmtpReceiver

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def http_receiver(settings: Any) -> Iterator[HttpReceiver]:
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    receiver = HttpReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def smtp_receiver(settings: Any) -> Iterator[SmtpReceiver]:
    receiver = SmtpReceiver()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", receiver.port
    yield receiver
    receiver.close()


@pytest.fixture
def webhook(http_receiver: HttpReceiver, db: None) -> Callable[..., Contact]:
    """Return a maker of webhook contacts at the receiver."""

    def make(name: str = "hook", **fields: Any) -> Contact:
        config = {"url": fields.pop("url", http_receiver.url)}
        return Contact.objects.create(name=name, kind="webhook", config=config, **fields)

    return make


def a_message(title: str = "Memory is high", **fields: Any) -> Message:
    """Return a message with one finding."""
    item = Item(
        title="Memory is high on web-1",
        status="firing",
        severity="critical",
        text="93 % of memory is used.",
        url="http://127.0.0.1:3000/monitoring/alerts/alert_1/",
        labels={"alertname": "Memory", "instance": "web-1"},
        annotations={"summary": "Memory is high"},
        started_at="2026-11-23T11:55:00Z",
        fingerprint="00ff",
        facts=(("Value", "93 %"), ("Since", "11:55")),
    )
    values: dict[str, Any] = {
        "body": "1 alert is firing.",
        "severity": "critical",
        "url": item.url,
        "alerts": (item,),
        "group_key": "root:{alertname=Memory}",
        "group_labels": {"alertname": "Memory"},
        "reason": "first notification",
        **fields,
    }
    return Message(title=title, **values)


@pytest.fixture(scope="session", autouse=True)
def clockwork() -> None:
    """Point Celery at the test run's own broker, as every process of the portal does."""
    from monitoring_portal.celery import configure

    configure()
