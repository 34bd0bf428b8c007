"""A message as plain text within a limit, for channels that know neither blocks nor HTML. Pure."""

from typing import Final

from apps.notifications.incoming import USAGE
from apps.notifications.message import Item, Message

SMS: Final = 459
"""Characters in a text message: three parts of 153, or seven of 67 where a letter is outside the GSM alphabet."""
SMS_LIMITS: Final = "5/15m, 11/1h"
"""What a person can bear, and a bill: GoAlert's defaults."""


GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The alphabet of text messages (3GPP TS 23.038 §6.2.1)."""
GSM_TWICE: Final = frozenset("\f^{}\\[~]|€")
"""Its second page: each takes two places."""


def segments(text: str) -> int:
    """Return in how many parts a text message leaves, each of which is paid for."""
    if set(text) <= GSM | GSM_TWICE:
        places, alone, part = sum(1 + (letter in GSM_TWICE) for letter in text), 160, 153
    else:
        places, alone, part = length(text), 70, 67
    return 1 if places <= alone else -(-places // part)


def length(text: str) -> int:
    """Return the length as most receivers count it, in UTF-16 units: an emoji is two. Text messages do, too."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(text: str, limit: int, mark: str = "…") -> str:
    """Return at most `limit` UTF-16 units of the text; the mark says that there was more."""
    if length(text) <= limit:
        return text
    kept = text.encode("utf-16-le", "surrogatepass")[: 2 * max(limit - len(mark), 0)]
    return kept.decode("utf-16-le", "ignore") + mark[: max(limit, 0)]


def one_line(text: str) -> str:
    """Return the text without line breaks and runs of white space."""
    return " ".join(text.split())


def render(message: Message, *, limit: int, with_title: bool = True, with_url: bool = True) -> str:
    """Return the whole message as text: title, body, findings with what is known of each, the reason, the link.

    What does not fit into `limit` characters is left out from the end; the link always stays.
    """
    parts = [one_line(message.title)] if with_title else []
    parts += [message.body, *(f"{name}: {value}" for name, value in message.facts)]
    parts += [_finding(item) for item in message.alerts]
    parts += ["\n".join(f"{name}: {url}" for name, url in message.links)]
    if message.reason:
        parts.append(f"Why you get this: {message.reason}.")
    links = f"Acknowledge: {message.answer_url}\n{message.url}" if message.answer_url else message.url
    return _within("\n\n".join(part for part in parts if part), links if with_url else "", limit)


def brief(message: Message, *, limit: int, code: str = "") -> str:
    """Return the message for a small screen: the title, the first finding's value, the link to answer.

    With a `code` it says how to answer in words.
    """
    words = one_line(message.title)
    if len(message.alerts) == 1:
        known = dict(message.alerts[0].facts)
        words += "".join(f"; {name.lower()} {known[name]}" for name in ("Value", "Since") if name in known)
    elif not message.alerts and message.body:
        words += f": {one_line(message.body)}"
    how = f"{USAGE}: ack {code}\n" if code and message.answer_url else ""
    # Three dots: one letter outside of the GSM alphabet would leave less than half of the room.
    return _within(words, how + (message.answer_url or message.url), limit, "...")


def _finding(item: Item) -> str:
    lines = [f"{one_line(item.title)} [{item.status}, {item.severity}]"]
    lines += [item.text] if item.text else []
    lines += [f"{name}: {value}" for name, value in item.facts]
    return "\n".join(lines)


def _within(text: str, url: str, limit: int, mark: str = "…") -> str:
    if not url or len(url) + 2 > limit:
        return cut(text, limit, mark)
    return f"{cut(text, limit - len(url) - 1, mark)}\n{url}"
