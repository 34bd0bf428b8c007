"""What providers tell the portal is taken here: proved by a contact's secret, then written down.

A call concerns the contacts whose own secret proves it and no others. Where its address names a delivery (receipts), it
is that delivery's contact alone. Everything may come twice, late and in any order.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.accounts.rights import Principal
from apps.core import live
from apps.core.secrets import Undecryptable
from apps.core.tasks import wake
from apps.core.telemetry import Counter
from apps.core.text import storable
from apps.notifications import replies
from apps.notifications.channels import Channel, Sender, channels
from apps.notifications.incoming import USAGE, Answer, Call, Heard, Receipt, Unverified
from apps.notifications.links import LIFETIME, RECEIPT, LinkError, code_of, key_in
from apps.notifications.models import Contact, Delivery
from apps.notifications.receipts import CAME_BACK, LASTING, LOST, after, summary
from apps.notifications.sending import administrators

CALLS = Counter("portal_provider_calls_total", "Calls of providers, by what came of them.", ("kind", "result"))
LOOKED_BACK: Final = 300
"""Messages to a number among which those that are still open are looked for."""
LISTED: Final = 5
"""Open messages that an answer lists."""
LATE: Final = timedelta(days=7)
"""How old a message may be of which a receipt tells by the provider's id."""
RECIPIENTS: Final = 200
"""Recipients of one delivery that are told apart at most."""


class Unknown(Exception):
    """A call about what is not here: no such channel, delivery or message."""


def take(*, kind: str, call: Call, token: str = "", now: datetime) -> tuple[str, bytes]:
    """Write down what a provider says; return (content type, body) of the answer to it.

    `Unverified`: nobody's secret proves the call. `Unknown`: it is about something that is not here (yet): the
    provider may try again.
    """
    channel = channels.all().get(kind)
    if channel is None or not channel.hears:
        raise Unknown("No provider is listened to here.")
    named = _delivery_of(token) if token else None
    contacts = Contact.objects.filter(kind=kind).order_by("pk")
    if named is not None:
        contacts = contacts.filter(pk=named.contact_id)
    else:
        contacts = contacts.filter(
            **{f"config__{name}": storable(value) for name, value in channel.caller(call).items()}
        )
    proved = _proved(contacts, call)
    if not proved:
        CALLS.inc(kind=kind, result="unverified")
        raise Unverified("No contact's secret proves this call.")
    mine, (opened, heard) = [contact for contact, _, _ in proved], proved[0][1:]
    for receipt in heard.receipts:
        note(kind=kind, receipt=receipt, contacts=mine, named=named, now=now)
    if heard.answer is None:
        return opened.speak(call, "")
    try:
        text = _answer(opened, call, heard.answer, mine, now)
    except ValidationError as error:
        text = " ".join(error.messages)
    except PermissionDenied as error:
        text = str(error)
    CALLS.inc(kind=kind, result="answer")
    return opened.speak(call, text)


def note(
    *, kind: str, receipt: Receipt, contacts: Sequence[Contact] = (), named: Delivery | None = None, now: datetime
) -> None:
    """Write down one receipt, of the delivery that is named or has the provider's id; `Unknown` where there is none."""
    if named is None:
        ident = storable(receipt.provider_id)[:300]
        found = Delivery.objects.filter(kind=kind, provider_id=ident, created_at__gt=now - LATE, carrier=None)
        found = found.filter(contact__in=contacts) if contacts else found
        named = found.order_by("-pk").first() if ident else None
    if named is None:
        CALLS.inc(kind=kind, result="unknown")
        raise Unknown("There is no message of this id.")
    contact = Contact.objects.filter(pk=named.contact_id).first()
    sender = Sender(administrators=administrators())
    recipients = contact.channel.recipients(contact.config, sender) if contact is not None else ()
    is_news = note_receipt(delivery=named, receipt=receipt, recipients=recipients, now=now)
    CALLS.inc(kind=kind, result="receipt" if is_news else "repeated")


def note_receipt(*, delivery: Delivery, receipt: Receipt, recipients: Sequence[str], now: datetime) -> bool:
    """Write down what the provider told of a delivery and of those told along; tell whether it was news.

    What is lost for everybody has failed after all: on-call sees that and tells somebody else.
    """
    text, name = storable(receipt.text)[:500] or receipt.state, storable(receipt.recipient).lower()[:254]
    is_news = False
    with transaction.atomic():
        same = Delivery.objects.select_for_update().filter(Q(pk=delivery.pk) | Q(carrier=delivery.pk)).order_by("pk")
        for each in same:
            before = each.recipients.get(name, "")
            if (known := after(before, receipt.state)) == before or len(each.recipients) >= RECIPIENTS:
                continue
            is_news = True
            each.recipients[name] = known
            each.receipt, each.receipt_at = summary(each.recipients, recipients), now
            each.receipt_text = f"{receipt.recipient}: {text}" if name else text
            if each.receipt in LOST and each.state == "sent":
                each.state, each.error = "failed", each.receipt_text
            each.save(update_fields=["recipients", "receipt", "receipt_at", "receipt_text", "state", "error"])
        if is_news:
            _note_receipt_on_contact(delivery, receipt, text, now)
    return is_news


def _note_receipt_on_contact(delivery: Delivery, receipt: Receipt, text: str, now: datetime) -> None:
    contact = Contact.objects.filter(pk=delivery.contact_id)
    if receipt.state in LASTING:
        who = f"{receipt.recipient}: " if receipt.recipient else ""
        contact.update(problem=f"{CAME_BACK}{who}{text}", problem_at=now)
    elif receipt.state == "delivered":
        contact.filter(problem__startswith=CAME_BACK).update(problem="", problem_at=None)
    if receipt.state in LOST:
        wake("oncall.escalate")
    live.publish("contacts", delivery.contact_id)


def _delivery_of(token: str) -> Delivery:
    try:
        return Delivery.objects.get(key=key_in(token, RECEIPT))
    except (LinkError, Delivery.DoesNotExist):
        raise Unknown("There is no message of this address.") from None


def _proved(contacts: QuerySet[Contact], call: Call) -> list[tuple[Contact, Channel, Heard]]:
    """Return the contacts whose secret proves the call, with what it says to each."""
    proved = []
    for contact in contacts:
        try:
            opened = contact.open_channel(Sender(contact.name, settings.PORTAL_URL))
            proved.append((contact, opened, opened.hear(call)))
        except (Unverified, Undecryptable):
            continue
    return proved


# --- What people answer ----------------------------------------------------------------------------------------------
def _answer(opened: Channel, call: Call, answer: Answer, contacts: Sequence[Contact], now: datetime) -> str:
    """Write down an answer and return what to say to it."""
    if answer.token:
        delivery = Delivery.objects.filter(key=_key(answer.token), contact__in=contacts).first()
        if delivery is None:
            raise ValidationError("The message of this button is no longer kept.")
        by = _presser(opened, call, answer, delivery)
        replies.reply(by=by, delivery=delivery, action=answer.action, via="button", now=now)
        return ""
    mine = [contact for contact in contacts if contact.config.get("to") == answer.sender]
    if not mine:
        return "This number is no contact of the monitoring portal."
    found = open_messages(mine, now)
    if not answer.action:
        raise ValidationError(f"That was not understood. {USAGE}{_codes(found)}.")
    named = [each for each in found if code_of(each.key) == answer.code]
    if not named and not answer.code:
        named = [each for each in found if not each.replies.filter(action=answer.action).exists()] or found
        if len(named) > 1:
            raise ValidationError(f"Several messages are open. {USAGE} with a code{_codes(named)}.")
    if not named:
        nothing = "Nothing is open" if not found else f"No open message has the code {answer.code}"
        raise ValidationError(f"{nothing}{_codes(found)}.")
    delivery = named[0]
    by = replies.principal_for(delivery, address=call.address, how=f"by text from {storable(answer.sender)}")
    given = replies.reply(by=by, delivery=delivery, action=answer.action, via="sms", now=now)
    return f"{given.get_action_display()}: {_title(delivery)}"


def open_messages(contacts: Sequence[Contact], now: datetime) -> list[Delivery]:
    """Return the last message of each group that the contacts were told fires and not that it ended, newest first."""
    told = Delivery.objects.filter(contact__in=contacts, state="sent", created_at__gt=now - LIFETIME)
    found: dict[str, Delivery] = {}
    for delivery in (
        told.exclude(purpose__in=("test", "reminder")).select_related("carrier").order_by("-pk")[:LOOKED_BACK]
    ):
        found.setdefault(delivery.group_key or str(delivery.key), delivery)
    burning = [each for each in found.values() if each.message.get("status") == "firing"]
    return list({(each.carrier or each).pk: each.carrier or each for each in burning}.values())


def _presser(opened: Channel, call: Call, answer: Answer, delivery: Delivery) -> Principal:
    """Return who pressed a button: a person known here with their own rights, or a reader of the contact by name.

    A person is known by a contact of their own at the same provider, or by the e-mail address that it vouches for.
    """
    person, name = storable(answer.person), storable(answer.name)
    own = Contact.objects.filter(kind=delivery.kind, owner__isnull=False, config__channel=person)
    people = {each.owner for each in own.select_related("owner") if each.owner is not None and person}
    if not people and (email := storable(opened.email_of(call, person))):
        people = set(User.objects.filter(email__iexact=email, is_active=True))
    if len(people) == 1 and (known := people.pop()).is_active:
        return Principal.of_user(known, address=call.address, via="api")
    if delivery.contact is not None and delivery.contact.owner is not None:
        raise ValidationError(f"{name} is nobody whom the portal knows as {delivery.contact.owner}.")
    return replies.principal_for(delivery, address=call.address, how=f"{name} by button")


def _key(token: str) -> uuid.UUID:
    try:
        return key_in(token)
    except LinkError as error:
        raise ValidationError(str(error)) from None


def _title(delivery: Delivery) -> str:
    return str(delivery.message.get("title", ""))[:100]


def _codes(found: Sequence[Delivery]) -> str:
    listed = "; ".join(f"{code_of(each.key)} {_title(each)[:60]}" for each in found[:LISTED])
    return f": {listed}" if listed else ""
