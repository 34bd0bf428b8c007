"""Opsgenie, by its Alert API (https://docs.opsgenie.com/docs/alert-api): create and close by alias.

One group of alerts is one alert there: a message sent twice only counts up.
"""

import uuid
from typing import Any, Final

from django import forms

from apps.core import http
from apps.notifications.channels import Channel, answered, raise_for
from apps.notifications.fields import HEADER_VALUE, provider_url
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line, render

PRIORITIES: Final = {"info": "P5", "warning": "P3", "error": "P2", "critical": "P1"}


class Opsgenie(Channel):
    """Creates and closes alerts of one integration."""

    kind = "opsgenie"
    label = "Opsgenie"
    keeps_alerts = True
    bundles = False

    class Config(forms.Form):
        """The integration's key, and the region."""

        api_key = forms.CharField(
            label="API key",
            max_length=200,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="From Opsgenie: Teams › Integrations › API.",
        )
        api_url = provider_url("Empty: https://api.opsgenie.com. In Europe: https://api.eu.opsgenie.com.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Create or close; a test is created and closed at once. The id is that of Opsgenie's last request."""
        alias = message.identity(key)
        api = (self.settings.get("api_url") or "https://api.opsgenie.com").rstrip("/") + "/v2/alerts"
        close = f"{api}/{alias}/close?identifierType=alias"
        calls = {
            "firing": [(api, payload(message, alias))],
            "resolved": [(close, closing(message))],
            "test": [(api, payload(message, alias)), (close, closing(message))],
        }[message.status]
        headers = {"Authorization": f"GenieKey {self.settings['api_key']}"}
        request = ""
        for url, body in calls:
            response = http.send("POST", url, headers=headers, json=body, timeout=self.timeout)
            raise_for(response, "Opsgenie")
            request = str(answered(response, "requestId"))
        return request


def payload(message: Message, alias: str) -> dict[str, Any]:
    """Return the body that creates the alert."""
    labels = dict(message.alerts[0].labels) if message.alerts else dict(message.group_labels)
    return {
        "message": cut(one_line(message.title) or "Message", 130),
        "alias": alias,
        "description": render(message, limit=15_000),
        "priority": PRIORITIES[message.severity],
        "source": "Monitoring Portal",
        "entity": cut(labels.get("instance") or labels.get("service", ""), 512),
        "tags": [message.severity],
        "details": {cut(name, 60): cut(value, 200) for name, value in list(labels.items())[:30]},
    }


def closing(message: Message) -> dict[str, Any]:
    """Return the body that closes it."""
    return {"source": "Monitoring Portal", "note": cut(message.reason or message.title, 1000)}
