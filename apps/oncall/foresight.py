"""Who would be told: an alert that is not there, on a simulated clock, by the functions that tell live ones.

Nobody acknowledges, and no cooldown or rate limit is in the way. Routes, policies and contacts are those of now; what
is muted is asked for the moment in question, but by the alerts that are active now (they may inhibit it). Nothing is
written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.rights import Scope
from apps.alerting import quiet
from apps.alerting.lifecycle import Severity
from apps.alerting.matching import MatcherError, accept, of_scope, parse_matchers, spelled
from apps.alerting.models import AlertRule
from apps.alerting.suppression import Subject
from apps.notifications.models import Contact
from apps.oncall import addressing, escalation, telling
from apps.oncall.models import Policy, Route, RuleTarget

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
    places = telling.Routing().places(rule, labels)
    return Foresight(tuple(_way(place, severity, at) for place in places), muted)


def dry_run(policy: Policy, *, at: datetime, severity: str, source: Route | RuleTarget | None = None) -> Way:
    """Return what the policy's steps would do from `at` on; its route's contacts are those of `source`."""
    plan = telling.frozen(policy)
    stages = escalation.play(plan["steps"], start=at, severity=severity_of(severity), most=MOST_STEPS)
    told: list[Told] = []
    whose = addressing.Turns(policy=policy.pk)
    for stage in stages:
        names: dict[str, None] = {}
        for action in stage.turn.actions:
            found = addressing.named(action, source, stage.at, severity=severity, whose=whose)
            names |= dict.fromkeys(_names(found.contacts.values()))
        told.append(Told(stage.at, tuple(names), stage.turn.reason))
    is_cut = stages[-1].turn.due_at is not None
    if source is None and not is_cut and not any(step.contacts for step in told):
        everybody = _names(telling.first_told(None).values())
        told.append(Told(stages[-1].at, everybody, "the policy tells nobody, so the fall-back contact is told"))
    return Way(str(source or ""), policy.name, tuple(told), is_cut)


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


def _way(place: Route | RuleTarget | None, severity: str, at: datetime) -> Way:
    policy = place.policy if place is not None else None
    timers = telling.timers_of(place)
    begins = at + timers.wait
    first = _names(telling.first_told(place).values())
    steps = [Told(begins, first, f"told {timers.wait.total_seconds():g} s after it fires")] if first else []
    receiver = place.rule.name if isinstance(place, RuleTarget) else str(place or "fall-back contact")
    if policy is None or not policy.steps.exists():
        return Way(receiver, str(policy or ""), tuple(steps))
    run = dry_run(policy, at=begins, severity=severity, source=place)
    return Way(receiver, policy.name, (*steps, *run.steps), run.is_cut)


def _names(contacts: Iterable[Contact]) -> tuple[str, ...]:
    return tuple(sorted(contact.name for contact in contacts))
