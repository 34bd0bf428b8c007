"""PagerDuty, by its Events API v2 (https://developer.pagerduty.com/docs/events-api-v2/trigger-events/).

One group of alerts is one alert there: the same dedup_key from the first firing to the last resolved, so that a
message sent twice changes nothing.
"""

import uuid
from typing import Any, Final

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import Channel, raise_for
from apps.notifications.fields import provider_url
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line

ROUTING_KEY: Final = RegexValidator(
    r"^[A-Za-z0-9_-]{10,64}\Z", "An integration key is letters and digits, 32 as a rule."
)

PLACES: Final = {"group": "service", "class": "alertname"}
"""Fields of an event, and the labels that they are taken from."""


class PagerDuty(Channel):
    """Triggers and resolves alerts of one service."""

    kind = "pagerduty"
    label = "PagerDuty"
    keeps_alerts = True
    bundles = False

    class Config(forms.Form):
        """The service's integration key, and the region."""

        routing_key = forms.CharField(
            label="Integration key",
            max_length=64,
            validators=[ROUTING_KEY],
            widget=forms.PasswordInput,
            help_text="From PagerDuty: Service › Integrations › Events API v2.",
        )
        api_url = provider_url("Empty: https://events.pagerduty.com. In Europe: https://events.eu.pagerduty.com.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send one event; a test is triggered and resolved at once, so that it leaves nobody a page to close."""
        dedup = message.identity(key)
        for action in ("trigger", "resolve") if message.status == "test" else (action_of(message),):
            body = {
                "routing_key": self.settings["routing_key"],
                **payload(message, dedup, action, self.sender.portal_url),
            }
            api = (self.settings.get("api_url") or "https://events.pagerduty.com").rstrip("/")
            raise_for(http.send("POST", f"{api}/v2/enqueue", json=body, timeout=self.timeout), "PagerDuty")
        return dedup


def action_of(message: Message) -> str:
    """Return the event's action."""
    return "resolve" if message.status == "resolved" else "trigger"


def payload(message: Message, dedup: str, action: str, portal_url: str) -> dict[str, Any]:
    """Return the event without its key. PagerDuty's severities are the portal's own."""
    event: dict[str, Any] = {"event_action": action, "dedup_key": dedup}
    if action == "resolve":
        return event
    first = message.alerts[0] if message.alerts else None
    labels = dict(first.labels) if first else {}
    event |= {
        "payload": {
            "summary": cut(one_line(message.title) or "Message", 1024),
            "source": cut(labels.get("instance") or labels.get("service") or portal_url or "monitoring portal", 300),
            "severity": message.severity,
            **{field: cut(labels[name], 200) for field, name in PLACES.items() if labels.get(name)},
            "custom_details": {
                "body": cut(message.body, 2000),
                "reason": cut(message.reason, 1000),
                "alerts": [cut(f"{item.title} [{item.status}]", 300) for item in message.alerts[:50]],
                **{name: cut(value, 500) for name, value in (first.facts if first else ())},
            },
        },
        "client": "Monitoring Portal",
    }
    if first and first.started_at:
        event["payload"]["timestamp"] = first.started_at
    if message.url:
        event |= {"client_url": message.url, "links": [{"href": message.url, "text": "Open in the portal"}]}
    return event
