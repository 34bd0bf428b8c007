"""An Alertmanager: its API v2 is told of alerts as a Prometheus tells it, and told again while they go on.

What fires has an end four renewals ahead: when the portal is gone, its alerts end there by themselves. What has ended
is told with that end. A severity that changes is another label set and so another alert there; the old one runs out.
Source: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django import forms

from apps.core import http
from apps.notifications.channels import Channel, basic, raise_for
from apps.notifications.fields import HEADER_VALUE, no_login
from apps.notifications.message import Item, Message


class Alertmanager(Channel):
    """Posts alerts to an Alertmanager, each minute anew while they fire."""

    kind = "alertmanager"
    label = "Alertmanager"
    keeps_alerts = True
    listed = 5000
    renewed_after: ClassVar[timedelta | None] = timedelta(minutes=1)

    class Config(forms.Form):
        """Where it is, and how to say who asks."""

        url = forms.URLField(
            label="URL",
            assume_scheme="https",
            max_length=2000,
            validators=[no_login],
            help_text="Its address up to /api/v2. A private address must be allowed in OUTBOUND_ALLOW.",
        )
        user = forms.CharField(
            required=False, max_length=200, help_text="For Basic authentication; empty: the secret is a bearer token."
        )
        token = forms.CharField(
            required=False,
            max_length=4000,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="Password or token.",
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post all alerts of the message; it takes repeats, so no key is needed, and gives no id."""
        now = datetime.now(UTC)
        headers = {"Content-Type": "application/json"}
        if token := self.settings.get("token"):
            user = self.settings.get("user")
            headers["Authorization"] = basic(user, token) if user else f"Bearer {token}"
        url = str(self.settings["url"]).rstrip("/").removesuffix("/api/v2") + "/api/v2/alerts"
        response = http.send("POST", url, headers=headers, json=payload(message, now), timeout=self.timeout)
        raise_for(response, urlsplit(url).hostname or "The Alertmanager")
        return ""

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return its host."""
        return urlsplit(str(config.get("url", ""))).hostname or ""


def payload(message: Message, now: datetime) -> list[dict[str, Any]]:
    """Return the body. A test is an alert that says so and ends within a minute."""
    if message.status == "test":
        labels = {"alertname": "PortalTest", "severity": "info"}
        return [
            {
                "labels": labels,
                "annotations": {"summary": message.title, "description": message.body},
                "endsAt": _rfc3339(now + timedelta(minutes=1)),
            }
        ]
    return [_alert(item, now) for item in message.alerts]


def _alert(item: Item, now: datetime) -> dict[str, Any]:
    lasts = Alertmanager.renewed_after or timedelta(minutes=1)
    ends_at = item.ended_at if item.status == "resolved" and item.ended_at else _rfc3339(now + 4 * lasts)
    return {
        "labels": {name: value for name, value in item.labels.items() if value},
        "annotations": {**item.annotations, "summary": item.annotations.get("summary") or item.title},
        **({"startsAt": item.started_at} if item.started_at else {}),
        "endsAt": ends_at,
        "generatorURL": item.url,
    }


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
