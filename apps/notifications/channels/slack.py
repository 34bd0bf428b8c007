"""Slack, by an incoming webhook: Block Kit blocks in the colour of the severity.

Limits are those of https://docs.slack.dev/reference/block-kit/blocks: 150 characters in a header, 3,000 in a section,
10 fields of 2,000 each, 50 blocks a message.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from django import forms

from apps.core import http
from apps.notifications.channels import Channel, Sender, raise_for
from apps.notifications.message import Item, Message
from apps.notifications.plaintext import cut

SAFE: Final = ":/?#[]@!$&'()*+,;=%~"
SHOWN: Final = 10
"""Findings shown one by one; the rest is a number and the link."""


class Slack(Channel):
    """Posts to one incoming webhook, which belongs to one channel of a workspace."""

    kind = "slack"
    label = "Slack"

    class Config(forms.Form):
        """The webhook's address is a secret: whoever knows it may post."""

        webhook_url = forms.URLField(
            label="Webhook URL",
            assume_scheme="https",
            max_length=2000,
            widget=forms.PasswordInput,
            help_text="From Slack: Your apps › Incoming webhooks.",
        )
        channel = forms.CharField(
            required=False, max_length=80, help_text="Only honoured by older webhooks; empty: the webhook's own."
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post the message. Incoming webhooks take no idempotency key and give no id."""
        body = payload(message)
        if self.settings.get("channel"):
            body["channel"] = self.settings["channel"]
        raise_for(http.send("POST", self.settings["webhook_url"], json=body, timeout=self.timeout), "Slack")
        return ""

    @classmethod
    def alertmanager(
        cls,
        config: Mapping[str, Any],
        secrets: frozenset[str],  # noqa: ARG003
        sender: Sender,  # noqa: ARG003
    ) -> Mapping[str, Mapping[str, Any]]:
        """Name the channel; the address is the secret."""
        channel = {"channel": config["channel"]} if config.get("channel") else {}
        return {"slack_configs": {"api_url": "<secret>", **channel}}

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the channel, if it was named."""
        return str(config.get("channel") or "the webhook's channel")


def escape(text: str) -> str:
    """Escape Slack's three control characters, so that no label becomes a link or pings a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload(message: Message) -> dict[str, Any]:
    """Return the body for an incoming webhook; a function of the message alone."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(message.title or "Message", 150), "emoji": False}}
    ]
    if message.body and not message.alerts:
        blocks.append(_section(escape(message.body)))
    if message.facts:
        blocks.append({"type": "section", "fields": [_field(name, value) for name, value in message.facts[:10]]})
    blocks += [_section(_item(item)) for item in message.alerts[:SHOWN]]
    if len(message.alerts) > SHOWN:
        blocks.append(_section(f"…and {len(message.alerts) - SHOWN} more."))
    buttons = [_button("Acknowledge…", message.answer_url) | {"style": "danger"}] if message.answer_url else []
    buttons += [_button("Open", message.url)] if message.url else []
    if buttons:
        blocks.append({"type": "actions", "elements": buttons})
    if message.reason:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": cut(escape(message.reason), 2000)}]})
    return {"text": cut(escape(message.title), 3000), "attachments": [{"color": message.colour, "blocks": blocks}]}


def _button(text: str, url: str) -> dict[str, Any]:
    return {"type": "button", "text": {"type": "plain_text", "text": text}, "url": cut(url, 3000)}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": cut(text, 3000) or " "}}


def _field(name: str, value: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": cut(f"*{escape(name)}*\n{escape(value)}", 2000)}


def _item(item: Item) -> str:
    title = f"<{quote(item.url, safe=SAFE)}|{escape(item.title)}>" if item.url else escape(item.title)
    lines = [f"*{title}* · {item.status} · {item.severity}"]
    lines += [escape(item.text)] if item.text else []
    lines += [f"{escape(name)}: {escape(value)}" for name, value in item.facts]
    return "\n".join(lines)
