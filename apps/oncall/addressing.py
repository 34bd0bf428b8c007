"""Whom a step of an escalation tells: people, teams, schedules and turns become contacts, or it is said why not.

Reads rows and, where it is handed the running escalation, keeps whose turn it was. While there is a fall-back contact
`named` comes back empty only where the next steps are for that: the incident is not left untold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from apps.accounts.models import Team, User
from apps.notifications import holding, personal
from apps.notifications.models import Contact
from apps.oncall import turns
from apps.oncall.escalation import Action
from apps.oncall.models import Escalation, RoundRobin, Route, RuleTarget
from apps.oncall.schedules import person_on_call
from apps.oncall.steps import Outcome

GONE: Final = "is gone or switched off"
NO_CONTACT: Final = "has no contact that is on"


@dataclass
class Turns:
    """Whose turn it is, as far as somebody knows: kept on the running escalation `one`, or only foreseen without one.

    A step that is reached again at the same place (it was held, or its worker died) keeps the person it had.
    """

    one: Escalation | None = None
    policy: int | None = None
    foreseen: dict[str, int] = field(default_factory=dict)

    def take(self, action: Action, people: Sequence[int], obstacles: dict[int, str], now: datetime) -> turns.Turn:
        """Return whose turn it is at that place of the escalation, and go on by one."""
        place = f"{action.at.position}:{action.at.rounds}"
        if self.one is not None and (had := self.one.turns.get(place)) in people and had not in obstacles:
            return turns.Turn(had)
        key = turns.key(self.one.policy_id if self.one else self.policy, action.asked.people, action.asked.team)
        last = self.foreseen.get(key)
        if last is None:
            last = RoundRobin.objects.filter(key=key).values_list("last", flat=True).first()
        turn = turns.next_in_turn(people, last, obstacles)
        if turn.person is not None:
            self.foreseen[key] = turn.person
            if self.one is not None:
                self.one.turns = {**self.one.turns, place: turn.person}
                self.one.save(update_fields=["turns"])
                RoundRobin.objects.update_or_create(key=key, defaults={"last": turn.person, "at": now})
        return turn


@dataclass
class Addressees:
    """Whom a step tells, in words who that is or why somebody cannot be told, and which contacts after which time.

    `is_instead`: nobody whom the step asks for can be told, so the fall-back contact is.
    """

    contacts: dict[int, Contact]
    why: str = ""
    after: dict[int, timedelta] = field(default_factory=dict)
    is_instead: bool = False

    @property
    def chosen(self) -> dict[int, Contact]:
        """Those whom the step asks for."""
        return {} if self.is_instead else self.contacts


def named(
    action: Action, source: Route | RuleTarget | None, now: datetime, *, severity: str, whose: Turns
) -> Addressees:
    """Return whom a step tells. Where all of them are gone or switched off, that is the fall-back contact; or nobody,
    if the next steps are for that.
    """
    asked = action.asked
    direct = {contact.pk: contact for contact in Contact.objects.enabled().filter(pk__in=asked.contacts)}
    gone = len(set(asked.contacts) - set(direct))
    words = [f"{gone} of its contacts {'is' if gone == 1 else 'are'} gone or switched off"] if gone else []
    if asked.route_contacts:
        direct |= receivers(source)
    if asked.fallback:
        direct |= fallback()
    found = _of_people(action, now, severity, whose) if asked.names_people else Addressees({})
    found.after = {pk: after for pk, after in found.after.items() if pk not in direct}
    found.contacts |= direct
    found.why = "; ".join([*words, *([found.why] if found.why else [])])
    if found.contacts:
        return found
    why = found.why or "it names nobody who is left"
    if action.is_followed_up:
        return Addressees({}, f"{why}: the next steps are for that")
    return Addressees(fallback(), f"{why}: the fall-back contact is told", is_instead=True)


def receivers(source: Route | RuleTarget | None) -> dict[int, Contact]:
    """Return the enabled contacts that the route or rule names now."""
    return {} if source is None else {contact.pk: contact for contact in source.contacts.filter(enabled=True)}


def fallback() -> dict[int, Contact]:
    """Return the fall-back contact, if there is one."""
    return {contact.pk: contact for contact in Contact.objects.enabled().filter(is_fallback=True)}


def _of_people(action: Action, now: datetime, severity: str, whose: Turns) -> Addressees:
    """Return the contacts of the people whom the step asks for, each in their own order."""
    asked = action.asked
    people, prefix = _people(asked, now)
    users = User.objects.filter(is_active=True).in_bulk(people)
    contacts = personal.contacts_of(users)
    orders = {person: personal.order(own, important=asked.important) for person, own in contacts.items()}
    names = dict(User.objects.filter(pk__in=people).values_list("pk", "username"))
    obstacles = {person: GONE if person not in users else NO_CONTACT for person in people if not orders.get(person)}
    chosen, passed = [person for person in people if person not in obstacles], tuple(obstacles.items())
    words = [prefix] if prefix else []
    if asked.in_turn and people:
        quiet = {person: sleep for person in chosen if (sleep := _quiet(contacts[person], severity, now))}
        turn = whose.take(action, people, {**obstacles, **quiet}, now)
        if turn.person is None and quiet:
            turn = whose.take(action, people, obstacles, now)  # all sleep: the next one hears of it in the morning
        chosen, passed = [] if turn.person is None else [turn.person], turn.passed
        words += [f"it is the turn of {names[person]}" for person in chosen]
    words += [f"{names.get(person, f'person {person}')} {obstacle}" for person, obstacle in passed]
    after = {pk: wait for person in chosen for pk, wait in orders[person].items()}
    found = {contact.pk: contact for person in chosen for contact in contacts[person] if contact.pk in after}
    return Addressees(found, "; ".join(words), after)


def _quiet(contacts: Sequence[Contact], severity: str, now: datetime) -> str:
    """Return what keeps all of the contacts from being told something so severe now, or nothing."""
    found = [holding.hold(contact.rules(), severity, now) for contact in contacts]
    first = found[0] if found else None
    return f"is passed over ({first.reason.lower()})" if first is not None and all(found) else ""


def _people(asked: Outcome, now: datetime) -> tuple[list[int], str]:
    """Return the people whom the step asks for, in order, and what is to be said of them as a whole."""
    people, words = list(asked.people), []
    if asked.team is not None:
        members = list(_members(asked.team))
        people += members
        if not members:
            is_there = Team.objects.filter(pk=asked.team).first()
            words.append(f"the team {is_there} has no members" if is_there else "the team is gone")
    if asked.schedule:
        person, why = person_on_call(asked.schedule, now)
        people += [] if person is None else [person]
        words.append(why)
    return list(dict.fromkeys(people)), "; ".join(words)


def _members(team: int) -> Iterable[int]:
    return User.objects.filter(teams=team, is_active=True).order_by("username").values_list("pk", flat=True)
