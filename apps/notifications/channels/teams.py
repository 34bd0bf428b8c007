"""Microsoft Teams, by a Workflows webhook: an Adaptive Card (https://adaptivecards.io/explorer/, version 1.4).

The old Office 365 connectors are switched off; "Post to a channel when a webhook request is received" takes this body.
"""

import uuid
from typing import Any, Final

import orjson
from django import forms

from apps.core import http
from apps.notifications.channels import Channel, raise_for
from apps.notifications.fields import incoming_url
from apps.notifications.message import Item, Message
from apps.notifications.plaintext import cut, one_line

STYLES: Final = {"info": "accent", "warning": "warning", "error": "attention", "critical": "attention"}
SHOWN: Final = 8
"""Findings in one card at most."""
LARGEST: Final = 28_000
"""Bytes that Teams takes in one message."""
MARKUP: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\*_~`[]()#"})


class Teams(Channel):
    """Posts to one workflow, which belongs to one channel or chat."""

    kind = "teams"
    label = "Microsoft Teams"

    class Config(forms.Form):
        """The workflow's address holds its signature: it is a secret."""

        webhook_url = incoming_url(
            "From Teams: Workflows › Post to a channel when a webhook request is received.", "Workflow URL"
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post the card. Workflows answer 202 without an id."""
        raise_for(http.send("POST", self.settings["webhook_url"], json=payload(message), timeout=self.timeout), "Teams")
        return ""


def payload(message: Message) -> dict[str, Any]:
    """Return the body: one message with one card, with as many findings as Teams' limit leaves room for."""
    for shown in range(SHOWN, 0, -1):
        if len(orjson.dumps(body := _body(message, shown))) <= LARGEST:
            return body
    return _body(message, 0)


def _body(message: Message, shown: int) -> dict[str, Any]:
    style = "good" if message.status == "resolved" else STYLES[message.severity]
    title = _text(one_line(message.title) or "Message", size="Large", weight="Bolder", color=style)
    body: list[dict[str, Any]] = [title]
    if message.body:
        body.append(_text(message.body))
    if message.facts:
        body.append(_facts(message.facts))
    for item in message.alerts[:shown]:
        body += _finding(item)
    if len(message.alerts) > shown:
        body.append(_text(f"…and {len(message.alerts) - shown} more."))
    if message.reason:
        body.append(_text(f"Why you get this: {message.reason}.", isSubtle=True, size="Small"))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    }
    links = (("Acknowledge…", message.answer_url), ("Open", message.url), *message.links[:3])
    card["actions"] = [{"type": "Action.OpenUrl", "title": name, "url": url} for name, url in links if url]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _finding(item: Item) -> list[dict[str, Any]]:
    parts = [_text(f"{one_line(item.title)} · {item.status} · {item.severity}", weight="Bolder", separator=True)]
    if item.text:
        parts.append(_text(item.text))
    return [*parts, _facts(item.facts)] if item.facts else parts


def _text(words: str, **looks: Any) -> dict[str, Any]:
    return {"type": "TextBlock", "text": cut(words, 500).translate(MARKUP), "wrap": True, **looks}


def _facts(facts: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    shown = [
        {"title": cut(name, 60).translate(MARKUP), "value": cut(value, 200).translate(MARKUP)}
        for name, value in facts[:8]
    ]
    return {"type": "FactSet", "facts": shown}
