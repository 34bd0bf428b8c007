"""Events of the mail provider (delivered, bounced, …), as Anymail reads and checks them, become receipts."""

import contextlib
from collections.abc import Callable
from typing import Any, Final

from anymail.signals import AnymailTrackingEvent, EventType
from anymail.utils import get_anymail_setting
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from apps.notifications import callbacks
from apps.notifications.callbacks import Unknown
from apps.notifications.incoming import Receipt
from apps.notifications.links import RECEIPT, LinkError, key_in
from apps.notifications.models import Delivery

CLOSED: Final = (
    "No events of e-mails are taken here: EMAIL_BACKEND must name a provider of Anymail that has them, and "
    "ANYMAIL_WEBHOOK_SECRET be set to user:password."
)
STATES: Final = {
    EventType.QUEUED: "underway",
    EventType.SENT: "underway",
    EventType.DEFERRED: "underway",
    EventType.DELIVERED: "delivered",
    EventType.OPENED: "delivered",
    EventType.CLICKED: "delivered",
    EventType.BOUNCED: "bounced",
    EventType.REJECTED: "failed",
    EventType.FAILED: "failed",
    EventType.COMPLAINED: "complained",
}
"""Events that say something of a message's fate; others are passed over."""


def view_of(backend: str) -> Callable[[HttpRequest], HttpResponseBase] | None:
    """Return Anymail's view for the provider of a mail backend; None where there is none, or no secret is set."""
    module = backend.split(".")
    if module[:2] != ["anymail", "backends"] or not get_anymail_setting("webhook_secret", default=""):
        return None
    from anymail import urls  # every provider's view: only the web needs them

    named = {str(pattern.name): pattern.callback for pattern in urls.urlpatterns}
    return named.get(f"{module[2]}_tracking_webhook") or named.get(f"{module[2]}_webhook")


def take(sender: Any, event: AnymailTrackingEvent, esp_name: str, **_: Any) -> None:
    """Write down one event; one of a message that is not ours (any more) is passed over, else it came for ever."""
    if event.event_type not in STATES:
        return
    words = " ".join(str(event.mta_response or event.description or event.reject_reason or "").split())[:300]
    receipt = Receipt(
        STATES[event.event_type],
        f"{esp_name}: {event.event_type}" + (f" ({words})" if words else ""),
        recipient=str(event.recipient or ""),
        provider_id=event.message_id if isinstance(event.message_id, str) else "",
    )
    with contextlib.suppress(Unknown):
        callbacks.note(kind="email", receipt=receipt, named=_named(event.metadata), now=timezone.now())


def _named(metadata: Any) -> Delivery | None:
    """Return the delivery that the message's metadata names, which came along where the provider keeps any."""
    token = metadata.get("delivery") if isinstance(metadata, dict) else None
    try:
        return Delivery.objects.filter(key=key_in(str(token), RECEIPT), kind="email").first() if token else None
    except LinkError:
        return None
