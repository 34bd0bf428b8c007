"""What a contact was told before of the same group, for channels that rewrite their message."""

from collections.abc import Sequence
from typing import Final

from apps.notifications.channels import Channel
from apps.notifications.models import Delivery

LOOKED_BACK: Final = 300
"""Messages to the contact that are looked at; what is older is told anew."""


def note_earlier(channel: Channel | None, deliveries: Sequence[Delivery]) -> None:
    """Write onto a delivery that is about to leave alone which message it rewrites, where its channel does that."""
    if channel is not None and channel.rewrites and len(deliveries) == 1:
        deliveries[0].earlier = earlier_of(deliveries[0])


def earlier_of(delivery: Delivery) -> str:
    """Return the provider's id of what the contact was last told of the same group, "" where that is over or none.

    One that told of several groups is passed over.
    """
    if not delivery.group_key:
        return ""
    found = Delivery.objects.filter(contact=delivery.contact_id, state="sent", pk__lt=delivery.pk).order_by("-pk")
    rows = list(found.values_list("group_key", "pk", "carrier", "provider_id", "message__status")[:LOOKED_BACK])
    carriers = {carrier for _, _, carrier, _, _ in rows}
    for group_key, pk, carrier, ident, status in rows:
        if group_key == delivery.group_key and carrier is None and pk not in carriers and ident:
            return "" if status == "resolved" else str(ident)
    return ""
