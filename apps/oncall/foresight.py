"""Who would be told: an alert that is not there, on a simulated clock, by the functions that tell live ones.

Nobody acknowledges, and no cooldown or rate limit is in the way. Routes, policies, contacts and their hours are those
of now, and so is whose turn it is; what is muted is asked for the moment in question, but by the alerts that are active
now (they may inhibit it). Nothing is written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.rights import Scope
from apps.alerting import quiet
from apps.alerting.lifecycle import Severity
from apps.alerting.matching import MatcherError, accept, of_scope, parse_matchers, spelled
from apps.alerting.models import AlertRule
from apps.alerting.suppression import Subject
from apps.notifications import holding
from apps.notifications.models import Contact
from apps.oncall import addressing, escalation, plans, routing
from apps.oncall.models import NO_TIME, Policy, Route, RuleTarget

FURTHEST: Final = timedelta(days=3660)
HIDDEN: Final = "muted; by what may concern alerts that you may not see"
MOST_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """At that time these contacts would be told (none: only time passes), and why."""

    at: datetime
    contacts: tuple[str, ...]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"at": self.at.isoformat(), "contacts": list(self.contacts), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Way:
    """One route (or rule, or the fall-back contact) that the alert would take. `is_cut`: it would go on for longer."""

    receiver: str
    policy: str
    steps: tuple[Told, ...]
    is_cut: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        steps = [step.as_dict() for step in self.steps]
        return {"receiver": self.receiver, "policy": self.policy, "steps": steps, "is_cut": self.is_cut}


@dataclass(frozen=True, slots=True)
class Foresight:
    """Every way that the alert would take, and why nobody is told for now (`muted`; empty: somebody is)."""

    ways: tuple[Way, ...]
    muted: str = ""

    @property
    def contacts(self) -> tuple[str, ...]:
        """Everybody who would be told, sooner or later, in that order."""
        steps = sorted((step for way in self.ways for step in way.steps), key=lambda step: step.at)
        return tuple(dict.fromkeys(name for step in steps for name in step.contacts))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"contacts": list(self.contacts), "muted": self.muted, "ways": [way.as_dict() for way in self.ways]}


def who_would_be_told(labels: Mapping[str, str], *, at: datetime, scope: Scope) -> Foresight:
    """Return who would be told of an alert with these labels that fires at `at` and that nobody acknowledges.

    `severity` counts as a label (without one: warning); with the name of a rule as `alertname`, the rule's own contacts
    and policy are asked first, as they are live. ValidationError: there is no such severity, or the scope does not see
    such an alert.
    """
    severity = severity_of(labels.get("severity") or Severity.WARNING)
    labels = {**labels, "severity": severity}
    if not accept(of_scope(scope.matchers), labels):
        raise ValidationError({"labels": f"You may only ask for {spelled(of_scope(scope.matchers))}."})
    subject = Subject(0, labels, labels.get("service", ""), Severity(severity).rank)
    verdict = quiet.suppressor(now=at).verdict(subject)
    muted = HIDDEN if verdict.is_muted and scope.matchers else verdict.reason
    rule = AlertRule.objects.filter(name=labels.get("alertname", "")).values_list("pk", flat=True).first()
    places = routing.Routing().places(rule, labels)
    return Foresight(tuple(way_of(place, severity, at) for place in places), muted)


def dry_run(policy: Policy, *, at: datetime, severity: str, source: Route | RuleTarget | None = None) -> Way:
    """Return what the policy's steps would do from `at` on; its route's contacts are those of `source`."""
    plan, severity = plans.frozen(policy)["steps"], severity_of(severity)
    told: list[Told] = []
    later: list[Told] = []
    whose = addressing.Turns(policy=policy.pk)
    progress, now, is_heard, is_cut = escalation.Progress(), at, False, True
    facts, has_waited = escalation.Facts((at,), plans.calendars_of(plan)), None
    goes_back = is_awake = is_asleep = False
    for _ in range(MOST_STEPS):
        turn = escalation.advance(plan, progress, now=now, severity=severity, facts=facts, has_waited=has_waited)
        names, reason = dict[str, None](), turn.reason
        is_awake, is_asleep = (is_awake, is_asleep) if goes_back else (False, False)
        for action in turn.actions:
            found = addressing.named(action, source, now, severity=severity, whose=whose)
            reason = f"{reason}; {found.why}" if found.why else reason
            awake = []
            for contact in sorted(found.contacts.values(), key=str):
                hold = holding.hold(contact.rules(), severity, now)
                is_asleep, is_awake = is_asleep or _sleeps(hold), is_awake or not _sleeps(hold)
                awake += [] if _sleeps(hold) else [contact]
                hold = hold or holding.in_order(found.after.get(contact.pk, NO_TIME), now)
                if hold is None:
                    names[contact.name] = None
                else:
                    later.append(Told(hold.until, (contact.name,), hold.reason))
            facts = replace(facts, was_reached=not found.is_instead and plans.are_reachable(awake))
        if goes_back:  # the steps that asked what came of it: one look for people
            names = dict.fromkeys([*told[-1].contacts, *names])
            told[-1] = Told(now, tuple(names), f"{told[-1].reason}; {reason}")
        else:
            told.append(Told(now, tuple(names), reason))
        is_heard = is_heard or is_awake
        if turn.due_at is None:
            is_cut = False
            break
        goes_back = turn.due_at == now
        has_waited = turn.has_waited if goes_back else None
        goes_on = not goes_back and is_asleep and not is_awake and turn.after.rounds == progress.rounds
        progress, now = turn.after, now if goes_on else turn.due_at
    if not is_heard and not is_cut and not (source is not None and _is_heard_first(source, severity, at)):
        everybody = _names(addressing.fallback().values())
        told.append(Told(now, everybody, "nobody hears it by the policy, so the fall-back contact is told"))
    told += dict.fromkeys(later)
    return Way(str(source or ""), policy.name, tuple(sorted(told, key=lambda one: one.at)), is_cut)


def _sleeps(hold: holding.Hold | None) -> bool:
    return hold is not None and hold.why == holding.QUIET


def _is_heard_first(source: Route | RuleTarget, severity: str, at: datetime) -> bool:
    """Whether the group's own message, before the policy begins, is heard by anybody."""
    rules = [contact.rules() for contact in routing.first_told(source).values()]
    return any(not _sleeps(holding.hold(each, severity, at)) for each in rules)


def severity_of(text: str) -> str:
    """Return the severity of that name; ValidationError names those that there are."""
    try:
        return Severity(text).value
    except ValueError:
        known = ", ".join(each.value for each in Severity)
        raise ValidationError({"severity": f"{text[:50]!r} is no severity; there are {known}."}) from None


def labels_of(text: str) -> dict[str, str]:
    """Read labels as people write them: service="db", severity="critical". ValidationError says what is none."""
    try:
        found = parse_matchers(text) if text.strip() else ()
    except MatcherError as error:
        raise ValidationError({"labels": str(error)}) from None
    if others := [matcher for matcher in found if matcher.op != "="]:
        raise ValidationError({"labels": f'{spelled(others)} is no label; write for example service="db".'})
    return {matcher.name: matcher.value for matcher in found}


def moment_of(text: str, *, now: datetime) -> datetime:
    """Read an ISO 8601 time, in UTC where it names no zone; nothing means `now`. ValidationError says what is none."""
    if not text.strip():
        return now
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValidationError({"at": f"{text[:50]!r} is no time; write for example 2026-12-24T22:00Z."}) from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if abs(found - now) > FURTHEST:
        raise ValidationError({"at": "Give a time within ten years of now."})
    return found


def way_of(place: Route | RuleTarget | None, severity: str, at: datetime) -> Way:
    """Return who would be told there of an alert that fires at `at`."""
    policy = place.policy if place is not None else None
    timers = routing.Routing().timers_of(place)
    begins = at + timers.wait
    steps = _first(routing.first_told(place).values(), severity, begins, timers.wait)
    receiver = place.rule.name if isinstance(place, RuleTarget) else str(place or "fall-back contact")
    if policy is None or not policy.steps.exists():
        return Way(receiver, str(policy or ""), tuple(steps))
    run = dry_run(policy, at=begins, severity=severity, source=place)
    every = sorted((*steps, *run.steps), key=lambda one: one.at)
    return Way(receiver, policy.name, tuple(every), run.is_cut)


def _first(contacts: Iterable[Contact], severity: str, at: datetime, wait: timedelta) -> list[Told]:
    """The group's own message, to those who are told it then and to those for whom it is held back."""
    holds = {contact.name: holding.hold(contact.rules(), severity, at) for contact in contacts}
    now = tuple(sorted(name for name, hold in holds.items() if hold is None))
    steps = [Told(at, now, f"told {wait.total_seconds():g} s after it fires")] if now else []
    return steps + [Told(hold.until, (name,), hold.reason) for name, hold in sorted(holds.items()) if hold is not None]


def _names(contacts: Iterable[Contact]) -> tuple[str, ...]:
    return tuple(sorted(contact.name for contact in contacts))
