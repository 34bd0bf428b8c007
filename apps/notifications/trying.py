"""Tries a template that is being written: as it would be told by its channels, of a past alert or of an example.

Upper rooms give past alerts by `extend(MessageTemplate, "examples", …)`: an object with `recent(scope)`, which returns
(key, label) pairs, and `message(key, scope, is_over)`, which returns a message, or None.
"""

from typing import Any, Final, Protocol

from apps.accounts.permissions import Scope
from apps.core.registry import extensions
from apps.notifications import wording
from apps.notifications.channels import channels
from apps.notifications.message import Message
from apps.notifications.models import MessageTemplate
from apps.notifications.wording import EXAMPLE, Wording

OF_ALL: Final = ("email", "sms", "slack")
"""Channels that stand for all of them where a template is for every channel."""


class Examples(Protocol):
    """Past alerts as messages."""

    def recent(self, scope: Scope) -> list[tuple[str, str]]:
        """Return (key, label) of those to choose from, the newest first."""

    def message(self, key: str, scope: Scope, *, is_over: bool) -> Message | None:
        """Return the message that the alert would have made; None where the scope sees no such alert."""


def examples(scope: Scope) -> list[tuple[str, str]]:
    """Return (key, label) of the past alerts that the scope sees."""
    given: list[Examples] = extensions(MessageTemplate, "examples")
    return [pair for one in given for pair in one.recent(scope)]


def example(key: str, scope: Scope, *, is_over: bool = False) -> Message | None:
    """Return the message of a past alert; without a key the built-in example."""
    if not key:
        return wording.ended(EXAMPLE) if is_over else EXAMPLE
    given: list[Examples] = extensions(MessageTemplate, "examples")
    return next((found for one in given if (found := one.message(key, scope, is_over=is_over))), None)


def preview(draft: Wording, message: Message) -> dict[str, Any]:
    """Return what is wrong (`faults` by field), what will be missed (`lint`) and how `channels` show the message."""
    faults = wording.faults(draft) if draft.parts else {}
    if faults:
        return {"faults": faults, "lint": [], "channels": []}
    told = []
    for kind in [draft.kind] if draft.kind else OF_ALL:
        if (channel := channels.all().get(kind)) is None:
            continue
        said, wrong, _ = wording.worded(message, (Wording(draft.title, draft.body, draft.document),), channel)
        told.append({"kind": kind, "label": channel.label, "problem": wrong, **channel.shown(said)})
    return {"faults": {}, "lint": wording.lint(draft, message) if draft.parts else [], "channels": told}
