"""Channels: the ways a message can leave, one file each. Here stands what every one of them promises.

A channel is a class with a `kind`, a `label`, a `Config` form and `send`. From the form come the admin's fields, the
API's validation, and what is a secret: every field with a `PasswordInput` is stored encrypted and never shown again.
"""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from django import forms

from apps.core.documents import document
from apps.core.http import Response
from apps.core.registry import Plugin, Registry
from apps.notifications.incoming import Call, Heard
from apps.notifications.message import Message
from apps.notifications.plaintext import brief, render, segments

RETRY_STATUSES = frozenset({408, 425, 429})
"""Answers below 500 that ask for another try."""


class DeliveryFailed(Exception):
    """A message that did not leave. `permanent`: trying again cannot help. `retry_after`: when the receiver wants it.

    The reason is shown to operators and kept: it must never hold a secret.
    """

    def __init__(self, reason: str, *, permanent: bool, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.retry_after = retry_after


@dataclass(frozen=True)
class Sender:
    """What a channel may know of the house: the contact's name, the portal's address, the administrators' e-mails."""

    contact: str = ""
    portal_url: str = ""
    administrators: tuple[str, ...] = ()


class Channel(Plugin):
    """One way out. `settings` holds the cleaned values of `Config`, secrets included.

    `send` returns the provider's id of the message ("" when it gives none) or raises `DeliveryFailed`, `core.http`'s
    `Refused` (permanent) or `Unreachable` (tried again). It runs in a thread without a database. `key` is the
    idempotency key: the same one on every try of one delivery, to be handed to receivers that take one.
    """

    timeout: ClassVar[float] = 10.0
    """Seconds for which a receiver may be silent."""

    limits: ClassVar[str] = ""
    """How many messages a contact gets in which time where it says nothing itself, as `restraint.parse` reads it."""

    bundles: ClassVar[bool] = True
    """Whether several messages may be told as one; not where each group is an object of its own at the receiver."""

    listed: ClassVar[int] = 100
    """Alerts in one message; a flood is a number and a link, except to a receiver that keeps alerts itself."""

    draws: ClassVar[bool] = False
    """Whether it shows a message's curve: reading one costs."""

    keeps_alerts: ClassVar[bool] = False
    """Whether the receiver reads the alerts as data: a template's text then leaves them, elsewhere it replaces them."""

    document: ClassVar[str] = ""
    """What a template may write in place of the channel's own: "html" or "json"; "" for nothing."""

    longest: ClassVar[int] = 0
    """Characters that a small screen or a voice takes of a text; 0: room enough."""

    renewed_after: ClassVar[timedelta | None] = None
    """How often a receiver that forgets is told again of what fires; None: it does not forget."""

    hears: ClassVar[bool] = False
    """Whether the provider calls the portal, at /from/<kind>/: receipts of messages, answers of people."""

    rewrites: ClassVar[bool] = False
    """Whether it changes what it said as things go on: `Message.earlier` is its own id, and `update`s are for it."""

    def __init__(self, settings: Mapping[str, Any], sender: Sender | None = None) -> None:
        self.settings = settings
        self.sender = sender or Sender()

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Hand the message to the receiver."""
        raise NotImplementedError

    def hear(self, call: Call) -> Heard:
        """Return what the provider says; raise `Unverified` unless the call is proved by this contact's own secret."""
        raise NotImplementedError

    def speak(self, call: Call, text: str) -> tuple[str, bytes]:
        """Return (content type, body) by which whoever answered is told what came of it."""
        return "text/plain; charset=utf-8", text.encode()

    def email_of(self, call: Call, person: str) -> str:
        """Return the address that the provider vouches for as this person's, "" where it vouches for none."""
        return ""

    @classmethod
    def caller(cls, call: Call) -> Mapping[str, str]:  # noqa: ARG003 - a channel overrides it
        """Return settings that a contact has if the (unproved) call is about it: fewer contacts have to be asked."""
        return {}

    @classmethod
    def recipients(cls, config: Mapping[str, Any], sender: Sender) -> tuple[str, ...]:  # noqa: ARG003
        """Return to whom one message goes where that may be several, as receipts name them."""
        return ()

    @classmethod
    def obstacle(cls, config: Mapping[str, Any], sender: Sender) -> str:  # noqa: ARG003 - a channel overrides it
        """Return why a message cannot even be tried with these settings ("" when it can); `config` has no secrets."""
        return ""

    @classmethod
    def shown(cls, message: Message) -> dict[str, Any]:
        """Return how the receiver shows the message, for a preview: title, text, maybe html or document (JSON)."""
        if cls.longest:
            text = brief(message, limit=cls.longest)
            return {"title": message.title, "text": text, "characters": len(text), "segments": segments(text)}
        text = render(message, limit=4000, with_title=False)
        return {"title": message.title, "text": text, "characters": len(text)}

    @classmethod
    def alertmanager(
        cls,
        config: Mapping[str, Any],  # noqa: ARG003 - a channel overrides it
        secrets: frozenset[str],  # noqa: ARG003
        sender: Sender,  # noqa: ARG003
    ) -> Mapping[str, Mapping[str, Any]]:
        """Return the contact as alertmanager.yml has it, {section: config}; nothing where that has no such receiver.

        `secrets` are the names of those that are set; each stands there as `<secret>`.
        """
        return {}

    @classmethod
    def secrets(cls) -> frozenset[str]:
        """Return the names of the fields that are write-only."""
        fields: Mapping[str, forms.Field] = cls.Config.base_fields
        return frozenset(name for name, field in fields.items() if isinstance(field.widget, forms.PasswordInput))

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:  # noqa: ARG003 - a channel overrides it
        """Return where messages go in a word, for lists; `config` holds no secrets."""
        return ""


channels: Registry[Channel] = Registry("apps.notifications.channels", Channel)


def kinds() -> list[tuple[str, str]]:
    """Return (kind, label) of every channel: the choices of `Contact.kind`; a new channel writes no migration."""
    return channels.kinds()


def raise_for(response: Response, receiver: str) -> None:
    """Raise unless the receiver took the message: 4xx is permanent, 408, 425, 429 and 5xx are tried again.

    Only the status is quoted: an answer's body may repeat a secret of the request.
    """
    status = response.status
    if 200 <= status < 300:
        return
    wait = _seconds(response.headers.get("retry-after", ""))
    if status in RETRY_STATUSES or status >= 500:
        reason = f"{receiver} answered {status}; the message is tried again."
        raise DeliveryFailed(reason, permanent=False, retry_after=wait)
    if 300 <= status < 400:
        reason = f"{receiver} answered {status}, a redirect, which is not followed: enter the address it leads to."
        raise DeliveryFailed(reason, permanent=True)
    hint = " Check its secret." if status in {401, 403} else " Check its address." if status in {404, 410} else ""
    raise DeliveryFailed(f"{receiver} answered {status} and does not take the message.{hint}", permanent=True)


def answered(response: Response, *path: str) -> Any:
    """Return what stands at that place of a JSON answer, the provider's id; "" where it is not there."""
    try:
        found = response.json()
        for name in path:
            found = found[name]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, (str, int)) else ""


def basic(user: str, password: str) -> str:
    """Return the header of Basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _seconds(text: str) -> timedelta | None:
    """Read a Retry-After header in seconds (RFC 9110 §10.2.3); its date form is left to the ordinary back-off."""
    return timedelta(seconds=min(int(text), 86_400)) if text.isascii() and text.isdigit() else None


@document("channels.md", "Channels")
def describe() -> str:
    """Return the table of channels and their settings for the docs."""
    parts = []
    for kind, plugin in channels.all().items():
        secret = plugin.secrets()
        about = (plugin.__doc__ or "").strip().splitlines()[0]
        rows = [
            f"## {plugin.label} (`{kind}`)",
            "",
            about,
            "",
            "| setting | required | secret | |",
            "|---|---|---|---|",
        ]
        for name, field in plugin.Config().fields.items():
            needed, hidden = "yes" if field.required else "", "yes" if name in secret else ""
            rows.append(f"| `{name}` | {needed} | {hidden} | {str(field.help_text).replace('|', '&#124;')} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)
