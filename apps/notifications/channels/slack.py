"""Slack, by an incoming webhook: Block Kit blocks in the colour of the severity."""

import uuid
from collections.abc import Mapping
from typing import Any

from apps.core import http
from apps.notifications.block_kit import link, payload
from apps.notifications.channels import Channel, Sender, raise_for
from apps.notifications.fields import IncomingWebhook, incoming_url
from apps.notifications.message import Message


class Slack(Channel):
    """Posts to one incoming webhook, which belongs to one channel of a workspace."""

    kind = "slack"
    label = "Slack"

    class Config(IncomingWebhook):
        """The webhook's address is a secret: whoever knows it may post."""

        webhook_url = incoming_url("From Slack: Your apps › Incoming webhooks.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post the message. Incoming webhooks take no idempotency key and give no id."""
        body = payload(message, [link("Acknowledge…", message.answer_url)] if message.answer_url else [])
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
