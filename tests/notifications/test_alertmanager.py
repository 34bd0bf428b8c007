"""What an Alertmanager is told: ends that lie ahead while it fires, and the real end when it is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from apps.notifications.channels.alertmanager import Alertmanager, payload
from tests.notifications.conftest import a_message

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def test_what_fires_ends_four_renewals_ahead():
    (alert,) = payload(a_message(), NOW)
    assert alert["labels"] == {"alertname": "Memory", "instance": "web-1"}
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-11-23T11:55:00Z", "2026-11-23T12:04:00.000Z")
    assert alert["annotations"]["summary"] == "Memory is high"
    assert Alertmanager.renewed_after == timedelta(minutes=1)


def test_what_is_over_has_its_end():
    message = a_message()
    item = replace(message.alerts[0], status="resolved", ended_at="2026-11-23T11:59:00Z", labels={"a": "b", "c": ""})
    (alert,) = payload(replace(message, alerts=(item,), status="resolved"), NOW)
    assert (alert["endsAt"], alert["labels"]) == ("2026-11-23T11:59:00Z", {"a": "b"})


def test_a_test_is_an_alert_that_ends_within_a_minute():
    (alert,) = payload(a_message(status="test", alerts=()), NOW)
    assert (alert["labels"]["alertname"], alert["endsAt"]) == ("PortalTest", "2026-11-23T12:01:00.000Z")
