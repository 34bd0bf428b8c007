"""What providers tell the portal, as pure values: a call as it came, receipts of messages, answers of people."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson


class Unverified(Exception):
    """A call that does not prove to come from the provider; the sentence is for whoever sets it up."""


@dataclass(frozen=True)
class Call:
    """A request as it came: the address that the provider was given, headers by lower-case name, the raw body."""

    url: str
    headers: Mapping[str, str]
    content: bytes
    at: float
    """Seconds since the epoch."""
    address: str = ""

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The body's form fields in their order, blank ones too; nothing where it is no form."""
        try:
            return tuple(parse_qsl(self.content.decode(), keep_blank_values=True, max_num_fields=200))
        except ValueError:
            return ()

    @cached_property
    def values(self) -> dict[str, str]:
        """The body's fields as text, whether it is JSON or a form; numbers are spelled."""
        if "json" not in self.headers.get("content-type", ""):
            return dict(self.pairs)
        try:
            body = orjson.loads(self.content)
        except ValueError:
            return {}
        fields: dict[str, Any] = body if isinstance(body, dict) else {}
        return {name: str(value) for name, value in fields.items() if isinstance(value, (str, int, float))}


@dataclass(frozen=True)
class Receipt:
    """What became of a message: one of `receipts.RANK`, in words, for one recipient where there may be several.

    `provider_id` names the message where the address of the call does not.
    """

    state: str
    text: str = ""
    recipient: str = ""
    provider_id: str = ""


@dataclass(frozen=True)
class Answer:
    """What somebody answered: an action ("" where the words were not understood) to the message that `token` names.

    Without a token it is one that was sent to `sender`, a number; `code` says which of several. `person` is the
    provider's id of who answered and `name` what they are called there.
    """

    action: str
    token: str = ""
    sender: str = ""
    code: str = ""
    person: str = ""
    name: str = ""


@dataclass(frozen=True)
class Heard:
    """Everything that one call said."""

    receipts: tuple[Receipt, ...] = ()
    answer: Answer | None = None


WORDS: Final = {
    **dict.fromkeys(("ack", "acknowledge", "acknowledged", "a"), "acknowledge"),
    **dict.fromkeys(("resolve", "resolved", "res", "r", "close"), "resolve"),
    **dict.fromkeys(("escalate", "esc", "e"), "escalate"),
    **dict.fromkeys(("silence", "sil", "mute", "s"), "silence"),
}
USAGE: Final = "Reply ack, resolve, escalate or silence"


def read(text: str) -> tuple[str, str]:
    """Return (action, code) of a text message such as "Ack K7Q!"; ("", "") where it is none that is understood."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    if not 1 <= len(words) <= 2 or words[0] not in WORDS:
        return "", ""
    return WORDS[words[0]], words[1].upper() if len(words) == 2 else ""
