"""Every service that Apprise knows (https://github.com/caronc/apprise/wiki), by its URL.

The last resort: a channel of its own knows better when to try again, and how to say it. Requests of Apprise pass the
guarded door; services that do not speak HTTP (and those that act on this machine) are refused when they are entered.
Apprise is imported by the process that first needs it: with its plug-ins it costs 40 MB and a second.
"""

import logging
import sys
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError

from apps.core import http
from apps.core.foreign_http import guarded
from apps.notifications.channels import Channel, DeliveryFailed, raise_for
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line, render

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

LONGEST: Final = 4000
KINDS: Final = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}
"""Apprise's word for each severity."""
logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its debug lines hold addresses with secrets


class AppriseService(Channel):
    """Sends to one service, named by an Apprise URL."""

    kind = "apprise"
    label = "Another service (Apprise URL)"

    class Config(forms.Form):
        """The URL holds the secrets."""

        url = forms.CharField(
            label="Apprise URL",
            max_length=2000,
            widget=forms.PasswordInput,
            help_text="As Apprise's documentation gives it for the service: rocketchat://…, matrixs://…, gchat://…",
        )
        note = forms.CharField(required=False, max_length=80, help_text="Shown in lists instead of the secret URL.")

        def clean_url(self) -> str:
            """Refuse what Apprise does not understand, and what would not pass the guarded door."""
            url = str(self.cleaned_data["url"])
            scheme = urlsplit(url).scheme.lower()
            if not speaks_http(scheme):
                raise ValidationError(
                    f"{scheme or 'This'!r} is no service that Apprise reaches over HTTP; others are not allowed here."
                )
            if service(url) is None:
                raise ValidationError(f"Apprise does not understand this URL of {scheme}: compare its documentation.")
            return url

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send as text. Apprise gives neither an id nor takes an idempotency key."""
        from apprise import NotifyFormat, NotifyType

        found = service(self.settings["url"])
        if found is None:
            raise DeliveryFailed("Apprise does not understand the URL any more: enter it anew.", permanent=True)
        found.socket_connect_timeout = found.socket_read_timeout = self.timeout
        with guarded() as answers:
            was_taken = found.notify(
                body=render(message, limit=LONGEST, with_title=False),
                title=cut(one_line(message.title) or "Message", 250),
                notify_type=NotifyType("success" if message.status == "resolved" else KINDS[message.severity]),
                body_format=NotifyFormat.TEXT,
            )
        name = str(found.service_name or "The service")
        if not was_taken and answers:
            raise_for(answers[-1], name)
        if not was_taken:
            raise http.Unreachable(f"{name} could not be reached.")
        return ""

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the note."""
        return str(config.get("note") or "by its URL")


def speaks_http(scheme: str) -> bool:
    """Return whether the service of that scheme is reached by `requests`, and by nothing else."""
    from apprise.plugins import N_MGR

    if scheme not in N_MGR:
        return False
    return hasattr(sys.modules[N_MGR[scheme].__module__], "requests")


def service(url: str) -> "NotifyBase | None":
    """Return Apprise's object for the URL; None when it makes no sense of it."""
    from apprise import Apprise, AppriseAsset, PersistentStoreMode
    from apprise.plugins.base import NotifyBase

    # Nothing of it on disk, no plug-ins from files, no secrets in its log.
    asset = AppriseAsset(
        app_id="Monitoring Portal", plugin_paths=[], storage_mode=PersistentStoreMode.MEMORY, secure_logging=True
    )
    found = Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    return found if isinstance(found, NotifyBase) else None
