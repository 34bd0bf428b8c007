"""How people want to be told: their contacts in order, their quiet hours, and a test of both.

Everybody may change their own; who administers may change those of others. A person has two lists, in the terms of
Grafana OnCall: default and important; a contact stands in each with the time after which it is told, or not at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import User
from apps.accounts.rights import Forbidden, Principal, Right, require
from apps.core import live
from apps.notifications import holding, outbox, services
from apps.notifications.models import Contact, Delivery, QuietHours

Order = dict[int, timedelta]
"""Contact → how long after a step asks for its person it is told."""


# --- Who may ---------------------------------------------------------------------------------------------------------
def is_self(by: Principal, person: User) -> bool:
    """Whether somebody acts for themselves."""
    return by.kind == "user" and by.id == str(person.pk)


def _may_change(by: Principal, person: User) -> None:
    if not is_self(by, person) and not by.can(Right.ADMINISTER):
        raise Forbidden(f"{by.name} may change how they are told themselves, not how {person} is.")


# --- Reading ---------------------------------------------------------------------------------------------------------
def contacts_of(people: Iterable[int]) -> dict[int, list[Contact]]:
    """Return the enabled contacts of each person that has some, by name."""
    found: dict[int, list[Contact]] = {}
    for contact in Contact.objects.enabled().filter(owner__in=list(people)).select_related("calendar"):
        found.setdefault(contact.owner_id or 0, []).append(contact)
    return found


def order(contacts: Iterable[Contact], *, important: bool) -> Order:
    """Return which of a person's contacts are told, and after which time; without an important list the default one."""
    listed = list(contacts)
    default = {contact.pk: contact.default_after for contact in listed if contact.default_after is not None}
    urgent = {contact.pk: contact.important_after for contact in listed if contact.important_after is not None}
    return (urgent or default) if important else default


@dataclass(frozen=True)
class Prospect:
    """A contact that a person would be told by: after which time, and what would hold it back now ("" nothing)."""

    contact: Contact
    after: timedelta
    held: str = ""

    @property
    def minutes(self) -> str:
        """The time after which it is told, for people."""
        return f"{self.after.total_seconds() / 60:g}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"contact": self.contact.name, "after": self.after.total_seconds(), "held": self.held}


def prospects(person: User, *, important: bool, severity: str, now: datetime) -> list[Prospect]:
    """Return how the person would be told of something so severe now, in the order in which that would happen."""
    contacts = contacts_of([person.pk]).get(person.pk, []) if person.is_active else []
    after = order(contacts, important=important)
    found = []
    for contact in contacts:
        if contact.pk in after:
            hold = holding.hold(contact.rules(), severity, now)
            found.append(Prospect(contact, after[contact.pk], hold.reason if hold else ""))
    return sorted(found, key=lambda one: (one.after, one.contact.name))


# --- Verbs -----------------------------------------------------------------------------------------------------------
@verb("notifications.save_order")
def save_order(
    *, by: Principal, person: User, order: Mapping[int, tuple[timedelta | None, timedelta | None]], now: datetime
) -> list[Contact]:
    """Put a person's contacts in order: for each (default, important) the time after which it is told, or None.

    Contacts that are left out stay as they are; one of somebody else is a ValidationError.
    """
    _may_change(by, person)
    own = {contact.pk: contact for contact in Contact.objects.select_for_update().filter(owner=person)}
    if strange := sorted(set(order) - set(own)):
        raise ValidationError(f"{person} has no contact number {strange[0]}.")
    changed = []
    for pk, (default, important) in order.items():
        contact = own[pk]
        before = {"default_after": contact.default_after, "important_after": contact.important_after}
        contact.default_after, contact.important_after = default, important
        services.check_options(contact)
        was, now_is = changes(before, {"default_after": default, "important_after": important})
        if was or now_is:
            contact.save(update_fields=["default_after", "important_after"])
            record(by=by, verb="notifications.save_order", target=contact, before=was, after=now_is)
            live.publish("contacts", contact.pk)
            changed.append(contact)
    return changed


@verb("notifications.save_quiet_hours")
def save_quiet_hours(
    *, by: Principal, person: User, hours: str, zone: str = "UTC", disturbed_from: str = "critical", now: datetime
) -> QuietHours | None:
    """Say when a person is not to be disturbed; without hours never. What waits is judged anew by what they are now."""
    _may_change(by, person)
    quiet = QuietHours.objects.select_for_update().filter(person=person).first()
    before, target = None, None
    if quiet is not None:
        before, target = state_of(quiet), (quiet._meta.label_lower, str(quiet.pk), str(quiet))
    if hours.strip():
        quiet = quiet or QuietHours(person=person)
        quiet.hours, quiet.zone, quiet.disturbed_from = hours.strip(), zone.strip(), disturbed_from
        quiet.full_clean()
        quiet.save()
    elif quiet is not None:
        quiet.delete()
        quiet = None
    after = state_of(quiet) if quiet is not None else None
    was, is_now = changes(before or {}, after or {})
    if was or is_now:
        record(by=by, verb="notifications.save_quiet_hours", target=quiet or target or person, before=was, after=is_now)
        for contact in Contact.objects.filter(owner=person):
            outbox.look_again(contact=contact, now=now)
    return quiet


@dataclass(frozen=True)
class Tested:
    """Both lists of a person as they stand now, and the tests that were sent (none on a dry run)."""

    default: list[Prospect]
    important: list[Prospect]
    deliveries: list[Delivery]

    @property
    def problem(self) -> str:
        """Why the person could not be told at all, or nothing."""
        return "" if self.default or self.important else "Nobody would be told: there is no contact that is on."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "default": [one.as_dict() for one in self.default],
            "important": [one.as_dict() for one in self.important],
            "problem": self.problem,
            "deliveries": [{"id": one.pk, "key": str(one.key), "contact": one.contact_name} for one in self.deliveries],
        }


@verb("notifications.test_person")
def try_out(*, by: Principal, person: User, now: datetime, send: bool = False, severity: str = "warning") -> Tested:
    """Say how a person would be told now by each list; with `send` a test goes to the first contact of each.

    Everybody may test themselves, who operates anybody. A test is told at once, whatever the hour.
    """
    if not is_self(by, person):
        require(by, Right.OPERATE)
    default = prospects(person, important=False, severity=severity, now=now)
    important = prospects(person, important=True, severity=severity, now=now)
    deliveries = []
    if send:
        first = {one[0].contact.pk: one[0].contact for one in (default, important) if one}
        if not first:
            raise ValidationError(f"{person} has no contact that is on: nothing can be tested.")
        deliveries = [services.write_test(sender=by.name, contact=contact, now=now) for contact in first.values()]
        after = {"deliveries": [str(one.key) for one in deliveries]}
        record(by=by, verb="notifications.test_person", target=person, after=after)
    return Tested(default, important, deliveries)
