"""Escalations: they start with a group, take their steps, begin anew where it gets worse, and stop.

Decisions stand in `escalation`; here is only what carries them out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Exists, OuterRef

from apps.alerting import services as alerting
from apps.alerting.models import Alert, Incident, Transition
from apps.core import live
from apps.core.tasks import wake
from apps.notifications import outbox
from apps.notifications.holding import QUIET
from apps.notifications.models import Contact, Delivery
from apps.oncall import escalation, grouping, plans
from apps.oncall.addressing import Turns, fallback, named
from apps.oncall.book import UNTOLD_FOR, Book, Quiet, in_order, rank
from apps.oncall.grouping import Decision
from apps.oncall.loops import BATCH, BY, each, enter_in_audit
from apps.oncall.models import (
    NO_TIME,
    Escalation,
    NotificationGroup,
    Policy,
    Route,
    RuleTarget,
    StepTaken,
)

HELD_FOR: Final = timedelta(minutes=1)
"""How soon an escalation that is held back looks again."""


def stop(incident: Incident | None, now: datetime) -> None:
    """Stop what runs for the incident if nothing in it fires, or somebody has acknowledged all that does."""
    if incident is None:
        return
    active = Alert.objects.active().filter(incident=incident)
    if active.filter(acknowledged_at__isnull=True).exists() and incident.acknowledged_at is None:
        return
    if active.exists():
        people = active.exclude(acknowledged_by="").values_list("acknowledged_by", flat=True)
        by = people.first() or incident.acknowledged_by
        _end(Escalation.objects.filter(incident=incident), "acknowledged", f"acknowledged by {by}", now)
        # What had come to its end before begins anew, too, when the acknowledgement has worn off.
        ended = Escalation.objects.filter(incident=incident, state="finished", plan__acknowledged_for__gt=0)
        ended.update(state="acknowledged", reason=f"acknowledged by {by}, after the policy had come to its end")
    else:
        _end(Escalation.objects.filter(incident=incident), "resolved", "nothing is wrong any more", now)


def _end(escalations: Any, state: str, reason: str, now: datetime) -> None:
    for running in escalations.running():
        Escalation.objects.filter(pk=running.pk).update(state=state, reason=reason, due_at=None, ended_at=now)
        enter_in_audit("oncall.stop_escalation", running, {"state": state, "reason": reason})
        live.publish("incidents", running.incident_id)


def follow(transition: Transition, now: datetime) -> None:
    """Alerts went to another incident: what runs for the old one goes along or stops, and the new one gets its own."""
    alert = transition.alert
    if alert.incident is not None and not Alert.objects.active().filter(incident=int(transition.before)).exists():
        for running in Escalation.objects.running().filter(incident=int(transition.before)).select_related("incident"):
            twin = Escalation.objects.running().filter(incident=alert.incident, policy=running.policy)
            if running.policy is not None and twin.exists():
                mine = Escalation.objects.filter(pk=running.pk)
                _end(mine, "replaced", f"its incident became part of #{alert.incident_id}", now)
            else:
                Escalation.objects.filter(pk=running.pk).update(incident=alert.incident)
                enter_in_audit("oncall.move_escalation", running, {"incident": alert.incident_id})
    if alert.is_active and alert.acknowledged_at is None:
        NotificationGroup.objects.filter(members__alert=alert).update(due_at=now)
    stop(alert.incident, now)


def restart(alert: Alert, now: datetime) -> None:
    """Begin again with the first step, because it got worse; what had stopped is started by the group."""
    if _begin_anew(Escalation.objects.running().filter(incident=alert.incident), alert.severity, now):
        wake("oncall.escalate")


def _begin_anew(running: Any, severity: str, now: datetime) -> bool:
    reason = "starts over: severity raised"
    return bool(running.update(position=0, rounds=0, due_at=now, severity=severity, reason=reason))


def start(group: NotificationGroup, policy: Policy | None, alerts: Iterable[Alert], now: datetime) -> bool:
    """Start the policy for each incident that has an unacknowledged alert here and no escalation of its own yet.

    One that runs begins anew where something joined that is worse than all it knew; returns whether a step is due.
    """
    if policy is None:
        return False
    plan = plans.frozen(policy)
    if not plan["steps"]:
        return False
    worst: dict[int, str] = {}
    for alert in alerts:
        if alert.is_active and alert.acknowledged_at is None and alert.incident_id is not None:
            known = worst.get(alert.incident_id)
            worst[alert.incident_id] = max((known or alert.severity), alert.severity, key=rank)
    if not worst:
        return False
    latest = Escalation.objects.filter(incident__in=worst, policy=policy).order_by("incident_id", "-pk")
    is_due = False
    for past in latest.distinct("incident_id"):
        is_worse = rank(worst[past.incident_id]) > rank(past.severity)
        if past.state == "running" and is_worse:
            is_due |= _begin_anew(Escalation.objects.filter(pk=past.pk), worst[past.incident_id], now)
        if past.state == "running" or (past.state == "finished" and not is_worse):
            del worst[past.incident_id]
    for incident, severity in worst.items():
        started = Escalation.objects.create(
            incident_id=incident,
            group=group,
            policy=policy,
            plan=plan,
            severity=severity,
            due_at=now,
            started_at=now,
            reason="started",
        )
        enter_in_audit("oncall.start_escalation", started, {"policy": policy.name, "severity": severity})
        live.publish("incidents", incident)
    return bool(worst) or is_due


def escalate(*, now: datetime, limit: int = BATCH) -> int:
    """Take the due steps, those of one group together so that they make one message; return how many groups."""
    due = Escalation.objects.running().filter(due_at__lte=now).order_by("due_at", "pk")
    groups = list(dict.fromkeys(due.values_list("group", flat=True)[:limit]))
    muting = Quiet(now)
    return each(groups, lambda pk: _escalate(pk, muting, now), "Escalation of group")


def _escalate(group_pk: int | None, muting: Quiet, now: datetime) -> None:
    running = list(
        Escalation.objects.running()
        .filter(group=group_pk, due_at__lte=now)
        .select_related("incident", "group__route", "group__target")
        .order_by("due_at", "pk")
    )
    if not running:
        return
    group = running[0].group
    incidents = {one.incident_id: one for one in running}
    found = Alert.objects.filter(incident__in=incidents).select_related("rule").prefetch_related("rule__levels")
    book = Book(group, in_order(found.filter(fired_at__isnull=False)), muting, now)
    pages: dict[int, Page] = {}
    for one in running:
        _step(one, book, group, pages, now)
    StepTaken.objects.bulk_create(book.taken)
    for page in pages.values():
        book.send(page.contact, _merged(page.decisions), running=incidents, after=page.after)


@dataclass
class Page:
    """What the escalations of one group tell one contact now, and how much later in its person's order."""

    contact: Contact
    after: timedelta
    decisions: list[Decision]


def _page(contact: Contact, decision: Decision, words: str, after: timedelta = NO_TIME) -> Page:
    """Return what one escalation tells the contact."""
    return Page(contact, after, [Decision(decision.firing, decision.still, (), words[:200])])


def _collect(pages: dict[int, Page], page: Page) -> None:
    """Put what one escalation tells a contact to what others do; the soonest counts."""
    known = pages.setdefault(page.contact.pk, page)
    if known is not page:
        known.after = min(known.after, page.after)
        known.decisions += page.decisions


def _merged(decisions: Sequence[Decision]) -> Decision:
    firing = tuple(dict.fromkeys(pk for decision in decisions for pk in decision.firing))
    still = tuple(dict.fromkeys(pk for decision in decisions for pk in decision.still if pk not in firing))
    return Decision(firing, still, (), decisions[0].reason)


def _step(
    one: Escalation,
    book: Book,
    group: NotificationGroup | None,
    pages: dict[int, Page],
    now: datetime,
) -> None:
    """Advance one escalation: collect what its steps tell whom, and write down where it stands."""
    mine = _going_on(one, book)
    if not mine or one.incident.acknowledged_at or all(alert.acknowledged_at for alert in mine):
        stop(one.incident, now)
        return
    waiting = [book.verdicts[alert.pk] for alert in mine if alert.acknowledged_at is None]
    if all(verdict.is_muted for verdict in waiting):
        # Nothing is left out: the same step is taken when one of them is heard again.
        ends = [verdict.until for verdict in waiting if verdict.until is not None]
        one.due_at = max(min([now + HELD_FOR, *ends]), now + timedelta(seconds=1))
        one.reason = f"held back: {waiting[0].reason}"
        one.save(update_fields=["due_at", "reason"])
        return
    source = None if group is None else group.route or group.target
    progress, has_waited = escalation.Progress(one.position, one.rounds), None
    facts = plans.facts_of(one, now=now, stuck=UNTOLD_FOR)
    reasons: list[str] = []
    is_held, has_told, is_awake, asleep = False, False, False, ""
    while True:
        turn = escalation.advance(
            one.plan["steps"], progress, now=now, severity=one.severity, facts=facts, has_waited=has_waited
        )
        after, due_at = turn.after, turn.due_at
        reasons.append(turn.reason)
        for step in turn.taken:
            done = _take(one, step, source, book)
            for page in done.pages:
                _collect(pages, page)
            has_told = has_told or done.has_told
            is_awake, asleep = is_awake or done.is_awake, done.asleep or asleep
            if done.until is not None:
                is_held, after, due_at = True, step.at, done.until
                reasons = ["a contact was told of an earlier firing: the step is held until the cooldown is over"]
                break
            reasons += [done.why] if done.why else []
            book.taken.append(done.row)
            if step.action is not None:
                facts = replace(facts, was_reached=done.is_reached)
        if is_held or due_at is None or due_at > now:
            break
        progress, has_waited = turn.after, turn.has_waited
    if asleep and not is_awake and not is_held:
        goes_on = due_at is not None and after.rounds == one.rounds
        reasons.append(f"nobody hears it now ({asleep.lower()}){': it goes on at once' if goes_on else ''}")
        due_at = now if goes_on else due_at
    reason = "; ".join(reasons)
    if due_at is None and not has_told and not _was_told(one, book):
        due_at = _tell_fallback_at_the_end(one, book, pages)
        if due_at is not None:
            reason = "the fall-back contact was told of an earlier firing: held until then"
        elif any(page.contact.is_fallback for page in pages.values()):
            reason = f"{reason}; nobody had heard of it: the fall-back contact is told"
    one.position, one.rounds, one.due_at, one.reason = after.position, after.rounds, due_at, reason
    if due_at is None:
        one.state, one.ended_at = "finished", now
        enter_in_audit("oncall.stop_escalation", one, {"state": one.state, "reason": reason})
    one.save()
    live.publish("incidents", one.incident_id)


def _going_on(one: Escalation, book: Book) -> list[Alert]:
    """Return the alerts of the escalation's incident that are still active."""
    return [alert for alert in book.alerts.values() if alert.incident_id == one.incident_id and alert.is_active]


@dataclass(frozen=True)
class Done:
    """What one step comes to: what it tells whom, until when it has to be held (None: it is taken) and its record.

    `is_reached`: somebody whom it asks for can be told and is awake. `is_awake`, `asleep`: whether anybody whom it
    tells hears it now, and why somebody does not.
    """

    row: StepTaken
    pages: tuple[Page, ...] = ()
    until: datetime | None = None
    why: str = ""
    has_told: bool = False
    is_reached: bool = False
    is_awake: bool = False
    asleep: str = ""


def _take(one: Escalation, step: escalation.Taken, source: Route | RuleTarget | None, book: Book) -> Done:
    row = StepTaken(
        escalation=one,
        position=step.at.position,
        rounds=step.at.rounds,
        kind=step.kind[:40],
        reason=step.reason,
        at=book.now,
    )
    if step.call is not None:
        row.delivery, why = _call(one, step.call, book)
        row.reason += f": {why}"
        return Done(row, why=why)
    if step.action is None:
        return Done(row)
    found = named(step.action, source, book.now, severity=one.severity, whose=Turns(one))
    mine = [alert.pk for alert in _going_on(one, book)]
    until, pages, awake, asleep = None, [], [], ""
    has_told = False
    for contact in found.contacts.values():
        decision = grouping.page(book.standings(contact, incident=one.incident_id), now=book.now)
        held = book.hold(contact, decision.firing or mine)
        sleeps = held is not None and held.why == QUIET
        awake += [] if sleeps else [contact]
        asleep = held.reason if held is not None and sleeps else asleep
        if decision.firing:
            has_told = has_told or not sleeps
            words = f"escalation “{one.plan['name']}”: {found.why or step.reason}"
            pages.append(_page(contact, decision, words, found.after.get(contact.pk, NO_TIME)))
        if decision.next_at is not None:
            until = min(until or decision.next_at, decision.next_at)
    row.contacts, row.told = list(found.chosen), [page.contact.name for page in pages]
    knew = ", ".join(contact.name for contact in found.contacts.values() if contact.name not in row.told)
    more = [found.why, f"{knew} had been told before" if knew else "", asleep]
    row.reason += "".join(f"; {each}" for each in more if each)
    is_reached = not found.is_instead and plans.are_reachable(awake)
    return Done(row, tuple(pages), until, found.why, has_told, is_reached, bool(awake), asleep)


def _call(one: Escalation, ident: int, book: Book) -> tuple[Delivery | None, str]:
    """Call a webhook contact with what is wrong: no notice, so it is told of no end and nobody counts as told."""
    contact = Contact.objects.enabled().filter(pk=ident, kind="webhook").first()
    if contact is None:
        return None, "it is gone or switched off, nothing is called"
    mine = tuple(alert.pk for alert in _going_on(one, book))
    words = f"escalation “{one.plan['name']}” calls {contact.name}"[:200]
    message = book.message(contact, Decision(mine, (), (), words))
    delivery = outbox.enqueue(contact=contact, message=message, purpose="call", now=book.now)
    enter_in_audit("oncall.notify", delivery, {"contact": contact.name, "purpose": "call", "reason": words})
    return delivery, contact.name


def _was_told(one: Escalation, book: Book) -> bool:
    """Whether anybody was told that something of the escalation's incident fires, or is without being woken."""
    told = [n for n in book.notices if n.kind == "firing" and book.alerts[n.alert_id].incident_id == one.incident_id]
    asleep = Delivery.objects.filter(held_for=QUIET, state__in=("held", "cancelled"))
    unheard = set(asleep.filter(pk__in=[n.delivery_id for n in told]).values_list("pk", flat=True))
    return any(notice.delivery_id not in unheard for notice in told)


def _tell_fallback_at_the_end(one: Escalation, book: Book, pages: dict[int, Page]) -> datetime | None:
    """An escalation that told nobody leaves it to the fall-back contact; return until when that has to be held."""
    until = None
    for contact in fallback().values():
        decision = grouping.page(book.standings(contact, incident=one.incident_id), now=book.now)
        if decision.firing:
            _collect(pages, _page(contact, decision, f"escalation “{one.plan['name']}” told nobody"))
        until = decision.next_at
    return until


def resume(*, now: datetime, limit: int = BATCH) -> int:
    """Take back acknowledgements after which an incident goes on for longer than its policy allows; return how many.

    The alerts' groups are told then as of any that nobody acknowledged, and the policy begins anew.
    """
    stopped = Escalation.objects.filter(state="acknowledged", plan__acknowledged_for__gt=0)
    active = Alert.objects.active().filter(incident=OuterRef("incident"), acknowledged_at__isnull=False)
    due = stopped.filter(Exists(active)).order_by("ended_at", "pk").values_list("pk", flat=True)
    return each(list(due[:limit]), lambda pk: _resume(pk, now), "Acknowledged escalation")


def _resume(pk: int, now: datetime) -> None:
    one = Escalation.objects.get(pk=pk)
    before = now - timedelta(seconds=one.plan["acknowledged_for"])
    for alert in Alert.objects.active().filter(incident=one.incident_id, acknowledged_at__lte=before).order_by("pk"):
        alerting.unacknowledge(by=BY, alert=alert, now=now)
