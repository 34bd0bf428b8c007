"""The verbs of notifications: contacts are saved, deleted, tested, and taken over from the environment once."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import User
from apps.accounts.rights import Principal, Right
from apps.core import live
from apps.core.defaults import write_once
from apps.core.registry import extensions
from apps.core.secrets import MASK, Undecryptable, readable
from apps.notifications import configuration, outbox, wording
from apps.notifications.channels import channels
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery, MessageTemplate

log = logging.getLogger(__name__)

OPTIONS: Final = ("failover", "calendar", "at_once_from", "default_after", "important_after")
LONGEST_ORDER: Final = timedelta(days=1)
ONE_FALLBACK = "There is always one fall-back contact: name another one as such instead."


@verb("notifications.save_contact", right=Right.ADMINISTER)
def save_contact(
    *,
    by: Principal,
    now: datetime,
    contact: Contact | None = None,
    name: str,
    kind: str,
    values: Mapping[str, Any],
    enabled: bool = True,
    is_fallback: bool = False,
    owner: User | None = None,
    rate_limit: str = "",
    origin: str = "",
    options: Mapping[str, Any] | None = None,
) -> Contact:
    """Make or change a contact. `values` are the channel's settings, secrets among them (see configuration.clean).

    `options` (by OPTIONS) say who stands in for it and when it is told; what is left out stays.
    One that is switched off loses what waits for it. A change of the settings forgets the problem: it is tried anew.
    A wrong value is a ValidationError by field.
    """
    before = audited(contact) if contact is not None else None
    if contact is not None and contact.kind != kind:
        raise ValidationError({"kind": "The channel of a contact does not change: make a new contact instead."})
    if is_fallback and not enabled:
        raise ValidationError({"enabled": "The fall-back contact cannot be switched off: name another one first."})
    if contact is not None and contact.is_fallback and not is_fallback:
        raise ValidationError({"is_fallback": ONE_FALLBACK})
    contact = contact or Contact(kind=kind, origin=origin)
    stored, is_lost = _secrets(contact)
    cleaned = configuration.clean(channels.get(kind), values, stored)
    has_new_settings = is_lost or cleaned.config != contact.config or cleaned.secrets != stored
    contact.name, contact.enabled, contact.is_fallback, contact.owner = name.strip(), enabled, is_fallback, owner
    contact.rate_limit = rate_limit.strip()
    contact.config, contact.secrets = cleaned.config, cleaned.secrets
    for option, value in (options or {}).items():
        setattr(contact, option, value)
    check_options(contact)
    if has_new_settings:
        contact.problem, contact.problem_at = "", None
    contact.full_clean(exclude=["is_fallback"], validate_constraints=False)
    if is_fallback:
        _step_back(by=by, but=contact)
    is_new = contact.pk is None
    contact.save()
    if not enabled:
        outbox.cancel(contact=contact, reason="The contact was switched off.", now=now)
    elif not is_new:
        outbox.look_again(contact=contact, now=now)
    _record_change(by, contact, before, has_new_secrets=not is_new and cleaned.secrets != stored)
    live.publish("contacts", contact.pk)
    return contact


def check_options(contact: Contact) -> None:
    """Raise ValidationError by field where who stands in for a contact, or when it is told, makes no sense."""
    problems: dict[str, str] = {}
    chain, other = [contact], contact.failover
    while other is not None and not problems:
        if other in chain:
            names = " → ".join(each.name for each in [*chain, other])
            problems["failover"] = f"They would stand in for one another without end: {names}."
        chain.append(other)
        other = other.failover
    if contact.is_fallback and contact.calendar is not None:
        problems["calendar"] = "The fall-back contact is told at once, whatever the hour: it waits for no calendar."
    for name in ("default_after", "important_after"):
        after = getattr(contact, name)
        if after is not None and not timedelta(0) <= after <= LONGEST_ORDER:
            problems[name] = "From no time to a day."
    if problems:
        raise ValidationError(problems)


def _record_change(by: Principal, contact: Contact, before: dict[str, Any] | None, *, has_new_secrets: bool) -> None:
    after = audited(contact)
    if before is not None:
        before, after = changes(before, after)
        if has_new_secrets:
            after["secrets_changed"] = True
        if not (before or after):
            return
    record(by=by, verb="notifications.save_contact", target=contact, before=before, after=after)


def _secrets(contact: Contact) -> tuple[dict[str, Any], bool]:
    """Return the stored secrets, and whether there are some that no key opens: those must be entered again."""
    try:
        return dict(contact.secrets or {}), False
    except Undecryptable:
        return {}, True


def _step_back(*, by: Principal, but: Contact) -> None:
    """Make way for the one fall-back contact."""
    for other in Contact.objects.filter(is_fallback=True).exclude(pk=but.pk):
        Contact.objects.filter(pk=other.pk).update(is_fallback=False)
        record(
            by=by,
            verb="notifications.save_contact",
            target=other,
            before={"is_fallback": True},
            after={"is_fallback": False},
        )


def audited(contact: Contact) -> dict[str, Any]:
    """Return the contact for the audit trail: secrets masked, also those that no key opens."""
    stored, is_lost = _secrets(contact)
    if is_lost:
        contact.secrets = {"unreadable": MASK}
    try:
        return state_of(contact)
    finally:
        if is_lost:
            contact.secrets = {}
        else:
            contact.secrets = stored


def refusal(contact: Contact) -> str:
    """Return why the contact cannot be deleted, or nothing. Upper rooms say by `extend(Contact, "in_use", …)` who
    names it: each function takes the contact and returns names for people.
    """
    if contact.is_fallback:
        return f"{contact.name} is the fall-back contact, told what nobody else could be told: name another one first."
    users = [user for ask in extensions(Contact, "in_use") for user in ask(contact)]
    if users:
        return f"{contact.name} is used by {', '.join(users)}: give those another contact first."
    return ""


def refusal_of(person: User) -> str:
    """Return why a person cannot be deleted, or nothing: their contacts go with them."""
    contact = Contact.objects.filter(owner=person, is_fallback=True).first()
    return "" if contact is None else f"{person} cannot be deleted: {refusal(contact)}"


@verb("notifications.delete_contact", right=Right.ADMINISTER)
def delete_contact(*, by: Principal, contact: Contact, now: datetime) -> None:
    """Delete a contact that nothing names and drop what waits for it; the record of what it was told stays."""
    if sentence := refusal(contact):
        raise ValidationError(sentence)
    before = audited(contact)
    target = (contact._meta.label_lower, str(contact.pk), contact.name)
    dropped = outbox.cancel(contact=contact, reason="The contact was deleted.", now=now)
    live.publish("contacts", contact.pk)
    contact.delete()
    record(by=by, verb="notifications.delete_contact", target=target, before=before, after={"dropped": dropped})


@verb("notifications.send_test", right=Right.OPERATE)
def send_test(*, by: Principal, contact: Contact, now: datetime) -> Delivery:
    """Send a test message past the queue; what becomes of it stands on the delivery within seconds."""
    if not contact.enabled:
        raise ValidationError(f"{contact.name} is switched off: switch it on to send it a test.")
    delivery = write_test(sender=by.name, contact=contact, now=now)
    record(by=by, verb="notifications.send_test", target=contact, after={"delivery": str(delivery.key)})
    return delivery


def write_test(*, sender: str, contact: Contact, now: datetime) -> Delivery:
    """Put a test into the outbox; whoever calls it records that."""
    message = Message(
        title=f"Test message to {contact.name}",
        body=f"{sender} asked the monitoring portal for this test. If you can read it, this contact works.",
        status="test",
        url=f"{settings.PORTAL_URL}/monitoring/alerts/",
        facts=(("Contact", contact.name), ("Sent by", sender), ("Sent at", now.strftime("%Y-%m-%d %H:%M:%S UTC"))),
        reason="somebody pressed “send test”",
    )
    return outbox.enqueue(contact=contact, message=message, purpose="test", now=now)


@verb("notifications.send_again", right=Right.OPERATE)
def send_again(*, by: Principal, delivery: Delivery, now: datetime) -> Delivery:
    """Put a message that was sent, failed or cancelled into the outbox once more, as it was written, and return that.

    One that still waits goes by itself, and one whose contact is gone or switched off could not: ValidationError.
    """
    contact = delivery.contact
    if delivery.state in ("queued", "held"):
        raise ValidationError("It has not left yet.")
    if contact is None:
        raise ValidationError(f"The contact {delivery.contact_name} is gone.")
    if not contact.enabled:
        raise ValidationError(f"{contact.name} is switched off: switch it on first.")
    again = outbox.enqueue(
        contact=contact, message=Message.from_json(delivery.message), purpose=delivery.purpose, now=now
    )
    record(
        by=by, verb="notifications.send_again", target=contact,
        after={"delivery": str(again.key), "first": str(delivery.key)},
    )  # fmt: skip
    return again


# --- Message templates -------------------------------------------------------------------------------------------
@verb("notifications.save_message_template", right=Right.EDIT)
def save_message_template(
    *, by: Principal, now: datetime, template: MessageTemplate | None = None, values: Mapping[str, Any]
) -> MessageTemplate:
    """Make or change a template: `values` by field, those left out stay. What could not be told is a ValidationError.

    Saving forgets the problem: the template is tried anew.
    """
    before = state_of(template) if template is not None else None
    template = template or MessageTemplate()
    for field in ("name", "kind", "severity", "title", "body", "document", "enabled"):
        setattr(template, field, values.get(field, getattr(template, field)))
    template.name, template.problem, template.problem_at = template.name.strip(), "", None
    if faults := wording.faults(template.wording):
        raise ValidationError(dict(faults))
    template.full_clean()
    template.save()
    before, after = changes(before or {}, state_of(template))
    if before or after:
        record(by=by, verb="notifications.save_message_template", target=template, before=before or None, after=after)
    return template


@verb("notifications.delete_message_template", right=Right.EDIT)
def delete_message_template(*, by: Principal, template: MessageTemplate) -> None:
    """Delete a template: the next less specific one counts, or the portal's own words."""
    before = state_of(template)
    target = (template._meta.label_lower, str(template.pk), template.name)
    template.delete()
    record(by=by, verb="notifications.delete_message_template", target=target, before=before)


# --- Contacts from the environment (SPEC A4) ---------------------------------------------------------------------
@dataclass(frozen=True)
class Wanted:
    """A contact that environment variables describe: `variables` names the one behind each setting."""

    name: str
    kind: str
    values: dict[str, Any]
    variables: dict[str, str]


def wanted() -> list[Wanted]:
    """Return the contacts that the environment asks for, whether its values are right or wrong."""
    found = []
    if settings.ALERT_EMAIL_ENABLED and settings.ALERT_EMAIL_TO:
        found.append(
            Wanted(
                "E-mail",
                "email",
                {"to": list(settings.ALERT_EMAIL_TO), "from_address": settings.ALERT_EMAIL_FROM},
                {"to": "ALERT_EMAIL_TO", "from_address": "ALERT_EMAIL_FROM"},
            )
        )
    if settings.SLACK_WEBHOOK_URL:
        found.append(
            Wanted(
                "Slack",
                "slack",
                {"webhook_url": settings.SLACK_WEBHOOK_URL, "channel": settings.SLACK_CHANNEL},
                {"webhook_url": "SLACK_WEBHOOK_URL", "channel": "SLACK_CHANNEL"},
            )
        )
    if settings.WEBHOOK_URL:
        found.append(
            Wanted(
                "Webhook",
                "webhook",
                {"url": settings.WEBHOOK_URL, "token": settings.WEBHOOK_TOKEN},
                {"url": "WEBHOOK_URL", "token": "WEBHOOK_TOKEN"},
            )
        )
    return found


@verb("notifications.contacts_from_environment", right=Right.ADMINISTER)
def contacts_from_environment(*, by: Principal, now: datetime) -> list[Contact]:
    """Make a contact of each group of variables that was never seen before; return the new ones.

    From then on the contact counts: an edited one is not overwritten, a deleted one does not come back.
    """
    made: list[Contact] = []
    usable = {each.kind: each for each in wanted() if not _problem(each)}

    def write(row: Mapping[str, Any]) -> None:
        each = usable[row["kind"]]
        name = each.name if not Contact.objects.filter(name=each.name).exists() else f"{each.name} (environment)"
        contact = save_contact(by=by, now=now, name=name, kind=each.kind, values=each.values, origin="environment")
        made.append(contact)

    # What is remembered of a row has no values in it: its digest is kept, and some of them are secrets.
    rows = [{"kind": each.kind, "variables": sorted(each.variables.values())} for each in usable.values()]
    write_once("notifications.Contact", rows, key=lambda row: f"environment:{row['kind']}", write=write, now=now)
    return made


def _problem(each: Wanted) -> str:
    try:
        configuration.clean(channels.get(each.kind), each.values, {})
    except ValidationError as error:
        names = ", ".join(each.variables.get(name, name) for name in error.message_dict)
        return f"{names}: {' '.join(error.messages)}"
    return ""


def environment_warnings() -> tuple[str, ...]:
    """Return a sentence for each variable that cannot be used or differs from its contact; values are not quoted."""
    warnings = []
    contacts = {contact.kind: contact for contact in Contact.objects.filter(origin="environment")}
    for each in wanted():
        if problem := _problem(each):
            warnings.append(f"No contact can be made of {problem}")
            continue
        if (contact := contacts.get(each.kind)) is None:
            continue
        cleaned = configuration.clean(contact.channel, each.values, {})
        asked = {**cleaned.config, **cleaned.secrets}
        stored = readable(contact)
        has = {**contact.config, **stored}
        warnings += [
            f"{variable} differs from the contact “{contact.name}”; the contact counts. "
            "Change it in the admin, or set the variable to what it says."
            for name, variable in each.variables.items()
            if asked.get(name) and asked.get(name) != has.get(name)
        ]
    return tuple(warnings)
