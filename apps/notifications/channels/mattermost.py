"""Mattermost, by an incoming webhook (https://developers.mattermost.com/integrate/webhooks/incoming/)."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from apps.core import http
from apps.notifications.channels import Channel, raise_for
from apps.notifications.fields import IncomingWebhook, incoming_url
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line

SHOWN: Final = 10
MARKUP: Final = str.maketrans({**{sign: f"\\{sign}" for sign in "\\*_~`|>#[]()<!"}, "@": "@\u200b"})
"""Markdown's signs, and the one that would call somebody: a space of no width follows it."""


class Mattermost(Channel):
    """Posts to one incoming webhook."""

    kind = "mattermost"
    label = "Mattermost"

    class Config(IncomingWebhook):
        """The webhook's address is a secret: whoever knows it may post."""

        webhook_url = incoming_url("From Mattermost: Integrations › Incoming webhooks.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post the message. Incoming webhooks take no idempotency key and give no id."""
        body = payload(message)
        if self.settings.get("channel"):
            body["channel"] = self.settings["channel"]
        raise_for(http.send("POST", self.settings["webhook_url"], json=body, timeout=self.timeout), "Mattermost")
        return ""

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the channel, if it was named."""
        return str(config.get("channel") or "the webhook's channel")


def payload(message: Message) -> dict[str, Any]:
    """Return the body: one attachment in the colour of the severity."""
    parts = [message.body]
    for item in message.alerts[:SHOWN]:
        lines = [f"{one_line(item.title)} [{item.status}, {item.severity}]"]
        lines += [item.text] if item.text else []
        lines += [f"{name}: {value}" for name, value in item.facts]
        parts.append("\n".join(lines))
    if len(message.alerts) > SHOWN:
        parts.append(f"…and {len(message.alerts) - SHOWN} more.")
    answer = f"\n\n[Acknowledge…]({message.answer_url})" if message.answer_url else ""
    title = cut(one_line(message.title) or "Message", 300)
    attachment: dict[str, Any] = {
        "fallback": title.translate(MARKUP),
        "color": message.colour,
        "title": title.translate(MARKUP),
        "text": cut("\n\n".join(part for part in parts if part), 6000).translate(MARKUP) + answer,
        "fields": [
            {"title": cut(name, 100).translate(MARKUP), "value": cut(value, 500).translate(MARKUP), "short": True}
            for name, value in message.facts[:10]
        ],
        "footer": cut(message.reason, 300),
    }
    if message.url:
        attachment["title_link"] = message.url
    return {"attachments": [attachment]}
