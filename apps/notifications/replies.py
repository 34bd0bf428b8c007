"""What people answer to messages: each answer is a row that on-call claims, for this room knows no alerts."""

import logging
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError

from apps.accounts.audit import record, verb
from apps.accounts.rights import Principal, Right
from apps.core import tasks
from apps.notifications.models import Contact, Delivery, Reply, reply_actions

log = logging.getLogger(__name__)


def principal_for(delivery: Delivery, *, address: str, how: str = "by link") -> Principal:
    """Return who answers: the contact's person with their own rights, or a team's contact, which may operate.

    Raises ValidationError where nobody stands behind the contact any more.
    """
    contact = Contact.objects.filter(pk=delivery.contact_id).select_related("owner").first()
    if contact is None or not contact.enabled:
        raise ValidationError(f"The contact {delivery.contact_name} was deleted or switched off. Log in instead.")
    if contact.owner is None:
        name = f"{contact.name} ({how})"[:200]
        return Principal("contact", str(contact.pk), name, frozenset({Right.OPERATE}), address=address, via="page")
    if not contact.owner.is_active:
        raise ValidationError(f"The account of {contact.owner} is closed.")
    return Principal.of_user(contact.owner, address=address, via="page")


@verb("notifications.reply", right=Right.OPERATE)
def reply(*, by: Principal, delivery: Delivery, action: str, via: str = "link", now: datetime) -> Reply:
    """Write down an answer; each is taken once for a delivery, and the second is the first one again."""
    if action not in dict(reply_actions()):
        raise ValidationError(f"{action!r} is none of {', '.join(dict(reply_actions()))}.")
    found, is_new = Reply.objects.get_or_create(
        delivery=delivery,
        action=action,
        defaults={"who": by.name[:200], "who_kind": by.kind, "who_id": by.id, "via": via, "at": now},
    )
    if is_new:
        after: dict[str, Any] = {"action": action, "via": via, "delivery": str(delivery.key)}
        record(by=by, verb="notifications.reply", target=delivery, after=after)
        tasks.wake("oncall.tell")
    return found
