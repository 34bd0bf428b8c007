"""Several messages told as one, where a contact's limit leaves room for no more. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from apps.notifications.message import SEVERITIES, Item, Message


def bundle(messages: Sequence[Message]) -> Message:
    """Return one message that says what all of them say: each finding as it stands in the last one, worst first.

    A bundle fires while one of its findings does. `messages` are in the order in which they would have left.
    """
    if len(messages) == 1:
        return messages[0]
    latest: dict[str, Item] = {}
    for message in messages:
        for item in message.alerts or (Item(message.title, message.status, message.severity, text=message.body),):
            latest.pop(identity := item.fingerprint + item.url or item.title, None)
            latest[identity] = item
    items = sorted(latest.values(), key=_urgency)
    counts = Counter(item.status for item in items)
    burning = [item for item in items if item.status != "resolved"]
    severity = max((item.severity for item in burning or items), key=SEVERITIES.index)
    keys = {message.group_key for message in messages}
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    mark = severity.upper() if burning else "RESOLVED"
    last = messages[-1]
    return replace(
        last,
        title=f"[{mark}] {len(messages)} messages in one: {told}",
        body=f"This contact's limit left no room for {len(messages)} messages. " + "; ".join(m.title for m in messages),
        severity=severity,
        status="firing" if burning else "resolved",
        url=_page(last.url) if len({message.url for message in messages}) > 1 else last.url,
        facts=(),
        changes=(),
        links=(),
        incident=last.incident if len({message.incident for message in messages}) == 1 else None,
        curve=None,
        alerts=tuple(items),
        group_key=last.group_key if len(keys) == 1 else "",
        group_labels=last.group_labels if len(keys) == 1 else {},
        reason=f"{len(messages)} messages, bundled by the contact's rate limit",
    )


def _urgency(item: Item) -> tuple[bool, int]:
    return item.status == "resolved", -SEVERITIES.index(item.severity)


def _page(url: str) -> str:
    """Return the page that lists all alerts, of the portal whose page of one alert this is."""
    head, slash, _ = url.partition("/monitoring/")
    return f"{head}/monitoring/alerts/" if slash else url
