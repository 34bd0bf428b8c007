"""A webhook: JSON to any address, with bearer token and a signature that the receiver can check.

The body has the fields of Alertmanager's webhook, version 4
(https://prometheus.io/docs/alerting/latest/configuration/#webhook_config), so that its receivers work unchanged, and
beside them what the portal knows more: title, body, severity, purpose, url, answerUrl, reason,
facts, deliveryKey.
"""

import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from django import forms

from apps.core import http
from apps.notifications.channels import Channel, Sender, raise_for
from apps.notifications.fields import HEADER_VALUE, no_login
from apps.notifications.message import Item, Message

NEVER: Final = "0001-01-01T00:00:00Z"
"""What Alertmanager writes as the end of what has none."""
SIGNATURE: Final = "X-Portal-Signature"


class Webhook(Channel):
    """Posts JSON. Each request carries the delivery's key, so that a receiver can drop the repeat of a lost answer."""

    kind = "webhook"
    label = "Webhook"
    keeps_alerts = True
    document = "json"

    class Config(forms.Form):
        """Where to, and the two secrets that tell the receiver who asks."""

        url = forms.URLField(
            label="URL",
            assume_scheme="https",
            max_length=2000,
            validators=[no_login],
            help_text="A private address must be allowed in OUTBOUND_ALLOW.",
        )
        token = forms.CharField(
            required=False,
            max_length=4000,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="Sent as “Authorization: Bearer …”.",
        )
        signing_secret = forms.CharField(
            required=False,
            max_length=4000,
            widget=forms.PasswordInput,
            help_text=f"With it each request carries {SIGNATURE}: HMAC-SHA256 over the time, a full stop and the body.",
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post the message; the answer's body is not looked at."""
        content = message.document.encode() or orjson.dumps(payload(message, key, self.sender))
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(key)}
        if token := self.settings.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        if secret := self.settings.get("signing_secret"):
            headers[SIGNATURE] = sign(content, secret, int(time.time()))
        url = self.settings["url"]
        response = http.send("POST", url, headers=headers, content=content, timeout=self.timeout)
        raise_for(response, urlsplit(url).hostname or "The receiver")
        return ""

    @classmethod
    def shown(cls, message: Message) -> dict[str, Any]:
        """Show the body that is posted."""
        body = message.document or orjson.dumps(payload(message, uuid.UUID(int=0), Sender())).decode()
        text = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
        return {"title": message.title, "text": text, "characters": len(body)}

    @classmethod
    def alertmanager(
        cls,
        config: Mapping[str, Any],
        secrets: frozenset[str],
        sender: Sender,  # noqa: ARG003
    ) -> Mapping[str, Mapping[str, Any]]:
        """Name the address; the token is the secret."""
        token = {"http_config": {"authorization": {"credentials": "<secret>"}}} if "token" in secrets else {}
        return {"webhook_configs": {"url": config.get("url", ""), **token}}

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the receiver's host."""
        return urlsplit(str(config.get("url", ""))).hostname or ""


def sign(content: bytes, secret: str, at: int) -> str:
    """Return the signature header: `t` is the time in epoch seconds, `v1` the hex HMAC-SHA256 over "t.body"."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def payload(message: Message, key: uuid.UUID, sender: Sender) -> dict[str, Any]:
    """Return the body. A test has no alerts and the status "firing", which Alertmanager's receivers pass over."""
    return {
        "version": "4",
        "groupKey": message.group_key,
        "truncatedAlerts": message.truncated,
        "status": "resolved" if message.status == "resolved" else "firing",
        "receiver": sender.contact,
        "groupLabels": dict(message.group_labels),
        "commonLabels": shared([item.labels for item in message.alerts]),
        "commonAnnotations": shared([item.annotations for item in message.alerts]),
        "externalURL": sender.portal_url,
        "notification_reason": message.reason,
        "alerts": [_alert(item) for item in message.alerts],
        "title": message.title,
        "body": message.body,
        "severity": message.severity,
        "purpose": message.status,
        "url": message.url,
        "answerUrl": message.answer_url,
        "reason": message.reason,
        "facts": dict(message.facts),
        "deliveryKey": str(key),
    }


def shared(mappings: list[Mapping[str, str]]) -> dict[str, str]:
    """Return the pairs that all mappings have in common."""
    if not mappings:
        return {}
    first, *rest = mappings
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in rest)}


def _alert(item: Item) -> dict[str, Any]:
    return {
        "status": "resolved" if item.status == "resolved" else "firing",
        "labels": dict(item.labels),
        "annotations": dict(item.annotations),
        "startsAt": item.started_at or NEVER,
        "endsAt": item.ended_at or NEVER,
        "generatorURL": item.url,
        "fingerprint": item.fingerprint,
    }
