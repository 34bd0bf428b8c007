"""The plans of escalations: a policy is frozen with those that it hands over to, and what steps ask is read for them.

`escalation` decides; this reads the rows that it asks about. It must not know who is told.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from apps.accounts.hours import Hours
from apps.accounts.models import Calendar
from apps.alerting.models import Alert
from apps.notifications.models import Contact
from apps.oncall import escalation
from apps.oncall.escalation import Facts, Plan
from apps.oncall.models import Escalation, Notice, Policy, Step, StepTaken

log = logging.getLogger(__name__)


def frozen(policy: Policy) -> dict[str, Any]:
    """Return the policy as an escalation keeps it, with the steps of those that it hands over to."""
    own = list(policy.steps.order_by("position").values("kind", "config"))
    waits = policy.acknowledged_for
    return {
        "name": policy.name,
        "steps": escalation.whole(policy.name, {policy.name: own, **reachable(own, {policy.name})}),
        "acknowledged_for": None if waits is None else waits.total_seconds(),
    }


def reachable(plan: Plan, known: Iterable[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """Return the own steps of every policy that these steps lead to, by name; those `known` are not read."""
    found: dict[str, list[dict[str, Any]]] = {}
    seen = set(known)
    wanted = set(escalation.hand_overs(plan)) - seen
    while wanted:
        seen |= wanted
        rows = Step.objects.filter(policy__name__in=wanted).order_by("policy", "position")
        for name, kind, config in rows.values_list("policy__name", "kind", "config"):
            found.setdefault(name, []).append({"kind": kind, "config": config})
        wanted = {name for plan in found.values() for name in escalation.hand_overs(plan)} - seen
    return found


def changed_since(one: Escalation) -> list[dict[str, Any]] | None:
    """Return the steps that its policy has now, if the escalation does not follow these; [] if the policy is gone."""
    now = frozen(one.policy)["steps"] if one.policy is not None else []
    return None if now == one.plan.get("steps", []) else now


# --- What steps ask --------------------------------------------------------------------------------------------------
def facts_of(one: Escalation, *, now: datetime, stuck: timedelta) -> Facts:
    """Return what the steps of an escalation may ask about, as it is now; only what they do is read."""
    plan = one.plan["steps"]
    window = escalation.looks_at(plan)
    began: tuple[datetime, ...] = ()
    if window:
        together = Q(incident=one.incident_id) | Q(memberships__group=one.group_id, memberships__group__isnull=False)
        found = Alert.objects.filter(together, fired_at__gt=now - window, fired_at__lte=now).distinct()
        began = tuple(at for at in found.values_list("fired_at", flat=True).order_by("fired_at", "pk") if at)
    return Facts(began, calendars_of(plan), escalation.looks_back(plan) and _was_reached(one, now, stuck))


def calendars_of(plan: Plan) -> dict[str, Hours]:
    """Return the calendars that the plan names, as far as they exist and can be read."""
    found = {}
    names = escalation.calendars(plan)
    for calendar in Calendar.objects.filter(name__in=names) if names else ():
        try:
            found[calendar.name] = calendar.times
        except ValueError as error:
            log.error("The calendar %s closes nothing, mend it: %s", calendar, error)
    return found


def are_reachable(contacts: Iterable[Contact]) -> bool:
    """Whether one of them is on and its last messages did not meet a lasting problem."""
    return any(contact.enabled and not contact.problem for contact in contacts)


def _was_reached(one: Escalation, now: datetime, stuck: timedelta) -> bool:
    """Whether the last step that told somebody has reached anybody, as far as is known by now."""
    last = StepTaken.objects.filter(escalation=one, contacts__isnull=False).order_by("-pk").first()
    if last is None:
        return False
    lost = _lost(one, last.contacts or [], now - stuck, last.at)
    return are_reachable(Contact.objects.enabled().filter(pk__in=last.contacts or []).exclude(pk__in=lost))


def _lost(one: Escalation, contacts: Sequence[int], before: datetime, since: datetime) -> set[int]:
    """Return those whose last message of it did not leave, is held back, or still has not left."""
    lost = {}
    told = Notice.objects.filter(alert__incident=one.incident_id, contact__in=contacts, kind="firing", at__gte=since)
    for contact, state, at in told.order_by("pk").values_list("contact", "delivery__state", "at"):
        lost[contact] = state in ("failed", "cancelled", "held") or (state == "queued" and at <= before)
    return {contact for contact, is_lost in lost.items() if contact is not None and is_lost}
