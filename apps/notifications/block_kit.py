"""A message as Slack's Block Kit blocks, for the webhook and the bot alike. Pure.

Limits are those of https://docs.slack.dev/reference/block-kit/blocks: 150 characters in a header, 3,000 in a section,
10 fields of 2,000 each, 25 elements of actions, 10 of a context, 75 characters on a button, 50 blocks a message.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from apps.notifications.message import Item, Message
from apps.notifications.plaintext import cut, length

SAFE: Final = ":/?#[]@!$&'()*+,;=%~"
SHOWN: Final = 10
"""Findings shown one by one; the rest is a number and the link."""
ROOM: Final = 8_000
"""Characters that all findings share: Slack refuses a message whose blocks have some 13,000 (msg_blocks_too_long)."""
LONGEST_URL: Final = 3000
"""Characters in a button's address; a longer one is left out, for a cut one leads elsewhere."""


def escape(text: str) -> str:
    """Escape Slack's three control characters, so that no label becomes a link or pings a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload(message: Message, buttons: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return text, for what shows no blocks, and one attachment of blocks in the colour of the severity."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _title(message.title, 150), "emoji": False}}
    ]
    if message.body and not message.alerts:
        blocks.append(_section(message.body))
    if message.facts:
        shown = message.facts[:10]
        each = min(1700, ROOM // 4 // len(shown))
        blocks.append({"type": "section", "fields": [_field(name, value, each) for name, value in shown]})
    each = min(3000, ROOM // max(1, len(message.alerts[:SHOWN])))
    blocks += [_item(item, each) for item in message.alerts[:SHOWN]]
    if (more := len(message.alerts) + message.truncated - SHOWN) > 0:
        blocks.append(_section(f"…and {more} more."))
    elements = [*buttons, *([link("Open", message.url)] if 0 < len(message.url) <= LONGEST_URL else [])]
    if elements:
        blocks.append({"type": "actions", "elements": elements})
    if message.reason:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _within(message.reason, 500)}]})
    return {
        "text": _within(message.title, 3000) or "Message",
        "attachments": [{"color": message.colour, "fallback": _title(message.title, 300), "blocks": blocks}],
    }


def link(text: str, url: str) -> dict[str, Any]:
    """Return a button that leads somewhere."""
    return {"type": "button", "text": {"type": "plain_text", "text": text}, "url": url}


def _title(text: str, limit: int) -> str:
    return cut(" ".join(text.split()), limit) or "Message"


def _within(text: str, limit: int) -> str:
    """Return the text escaped within the limit, never ending amid an escape."""
    escaped = escape(text := cut(text, limit))
    while (over := length(escaped) - limit) > 0:
        text = cut(text, length(text) - max(1, over // 5))
        escaped = escape(text)
    return escaped


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _within(text, 3000) or " "}}


def _field(name: str, value: str, limit: int) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": f"*{_within(name, 80)}*\n{_within(value, limit)}"}


def _item(item: Item, limit: int) -> dict[str, Any]:
    words = _within(" ".join(item.title.split()), 300) or "Alert"
    url = quote(item.url, safe=SAFE)
    title = f"<{url}|{words}>" if 0 < len(url) < 400 else words
    head = f"*{title}* · {item.status} · {item.severity}"
    rest = [item.text] if item.text else []
    rest += [f"{name}: {value}" for name, value in item.facts]
    text = "\n".join([head, *([_within("\n".join(rest), limit - 1 - length(head))] if rest else [])])
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}
