"""ntfy (https://docs.ntfy.sh/publish/#publish-as-json): push messages to a phone, by ntfy.sh or your own server."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import Channel, answered, raise_for
from apps.notifications.fields import HEADER_VALUE
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line, render

LONGEST: Final = 3800
"""Characters; ntfy makes an attachment of what is longer than 4,096 bytes."""
PRIORITIES: Final = {"info": 2, "warning": 3, "error": 4, "critical": 5}
TAGS: Final = {"info": "information_source", "warning": "warning", "error": "rotating_light", "critical": "sos"}
TOPIC: Final = RegexValidator(r"^[A-Za-z0-9_-]{1,64}\Z", "A topic has up to 64 letters, digits, _ and -.")


class Ntfy(Channel):
    """Publishes to one topic."""

    kind = "ntfy"
    label = "ntfy"

    class Config(forms.Form):
        """The server, the topic and who may write to it."""

        server = forms.URLField(
            required=False, assume_scheme="https", max_length=500, help_text="Empty: https://ntfy.sh."
        )
        topic = forms.CharField(max_length=64, validators=[TOPIC])
        token = forms.CharField(
            required=False,
            max_length=200,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="Access token of the server, for topics that not everybody may write to.",
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Publish; the id is ntfy's. It takes no idempotency key."""
        headers = {"Authorization": f"Bearer {token}"} if (token := self.settings.get("token")) else {}
        server = (self.settings.get("server") or "https://ntfy.sh").rstrip("/") + "/"
        body = payload(message, self.settings["topic"])
        response = http.send("POST", server, headers=headers, json=body, timeout=self.timeout)
        raise_for(response, "ntfy")
        return str(answered(response, "id"))

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the topic."""
        return str(config.get("topic", ""))


def payload(message: Message, topic: str) -> dict[str, Any]:
    """Return the body for ntfy's JSON endpoint."""
    is_over = message.status == "resolved"
    text = render(message, limit=LONGEST, with_title=False, with_url=False)
    body: dict[str, Any] = {
        "topic": topic,
        "title": cut(one_line(message.title) or "Message", 250),
        "message": _bytes(text) or "-",
        "priority": 3 if is_over else PRIORITIES[message.severity],
        "tags": ["white_check_mark" if is_over else TAGS[message.severity]],
    }
    if message.url:
        body["click"] = message.url
    if message.answer_url:
        body["actions"] = [{"action": "view", "label": "Acknowledge…", "url": message.answer_url}]
    return body


def _bytes(text: str) -> str:
    """Return the text within the limit counted in bytes."""
    return text.encode()[:LONGEST].decode("utf-8", "ignore")
