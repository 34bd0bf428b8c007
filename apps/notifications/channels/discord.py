"""Discord, by a channel's webhook (https://discord.com/developers/docs/resources/webhook#execute-webhook).

Limits: 256 characters in an embed's title, 4,096 in its description, 25 fields of 256 and 1,024 characters, 6,000
characters in all embeds together.
"""

import uuid
from typing import Any, Final

from django import forms

from apps.core import http
from apps.notifications.channels import Channel, answered, raise_for
from apps.notifications.fields import incoming_url
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line, render

MARKUP: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\*_~`|>#[]()<@"})


class Discord(Channel):
    """Posts to one webhook, which belongs to one channel of a server."""

    kind = "discord"
    label = "Discord"

    class Config(forms.Form):
        """The webhook's address is a secret: whoever knows it may post."""

        webhook_url = incoming_url("From Discord: Edit channel › Integrations › Webhooks.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post one embed; `wait=true` makes Discord answer with the message, whose id is returned."""
        url = awaited(self.settings["webhook_url"])
        response = http.send("POST", url, json=payload(message), timeout=self.timeout)
        raise_for(response, "Discord")
        return str(answered(response, "id"))


def awaited(url: str) -> str:
    """Return the address with `wait=true`."""
    return f"{url}{'&' if '?' in url else '?'}wait=true"


def payload(message: Message) -> dict[str, Any]:
    """Return the body; nothing in it can mention anybody, whatever a label says."""
    embed: dict[str, Any] = {
        "title": cut(one_line(message.title) or "Message", 256),
        "description": cut(render(message, limit=2000, with_title=False, with_url=False).translate(MARKUP), 4096),
        "color": int(message.colour.removeprefix("#"), 16),
    }
    if message.url:
        embed["url"] = message.url
    if message.answer_url:
        embed["description"] = f"{cut(embed['description'], 3800)}\n\n[Acknowledge…]({message.answer_url})"
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}
