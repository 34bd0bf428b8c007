"""What on-call does by itself: takes up transitions, tells groups, takes escalations' steps, and sees that it arrived.

Every hand-over is a row, every piece of work one transaction that either happened or did not:
1. `tell`      untold Transition rows → alerts join groups, groups get due, escalations stop. The row is told with it.
               QuietChange rows → groups that hold something back get due. The row goes with it.
2. `flush`     a group that is due → Notice and Delivery rows for each contact; escalations start.
3. `escalate`  an escalation that is due → the same for its step, and its next time.
   `releasing` a Delivery that was held back and is due → it leaves, with others in a digest, or is dropped.
4. `settle`    a Notice whose message did not arrive → its fail-over contact is told, else the fall-back contact.
   `resume`    an acknowledgement that has worn off → it is taken back.
5. `remind`    a Silence that ends soon → its author is told, by their own contacts.
6. `rewrite`   an acknowledgement or an answer → messages that can be rewritten say so; in the transaction of 1 or of
               the answer.
A worker that dies in between changes nothing; the next tick finds the same rows. Messages leave by the outbox.

Decisions stand in `grouping`, `escalation` and alerting's `suppression`; here is only what carries them out. One
process works at a time: each transaction takes the advisory lock, so that what a contact was told is read and written
without a race.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, Exists, F, Max, OuterRef, Q, Value, When
from django.db.models.functions import Coalesce, Least

from apps.accounts.audit import record
from apps.accounts.rights import EVERYTHING, Principal
from apps.alerting import changes, quiet
from apps.alerting import services as alerting
from apps.alerting.lifecycle import ACTIVE, Severity, State
from apps.alerting.matching import MatcherError, parse_matcher
from apps.alerting.models import Alert, Incident, QuietChange, Silence, Transition
from apps.alerting.suppression import LOUD, Suppressor, Verdict
from apps.alerting.units import unit_of
from apps.core import live
from apps.core.tasks import wake
from apps.notifications import holding, outbox
from apps.notifications.channels import channels
from apps.notifications.holding import QUIET, Hold, Rule
from apps.notifications.message import Curve, Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import curves, escalation, failover, grouping, messages, plans
from apps.oncall.addressing import Turns, fallback, named, receivers
from apps.oncall.grouping import Decision, Event, RouteSpec, Standing, Timers, Told
from apps.oncall.models import (
    NO_TIME,
    Escalation,
    GroupMember,
    Notice,
    NotificationGroup,
    Policy,
    Route,
    RuleTarget,
    StepTaken,
)

log = logging.getLogger(__name__)

LOCK: Final = 0x6F6E6361
"""The advisory lock that on-call's loops share ("onca")."""
BATCH: Final = 200
CHANGES_TOLD: Final = 3
"""Changes in one message; the alert's page lists more."""
UNTOLD_FOR: Final = timedelta(minutes=5)
"""A message that has not left by then does not count as told: the fall-back contact is."""
REOPENED_FOR: Final = timedelta(days=1)
"""How long after a message came back this is still taken up: longer than any loop stands still."""
HELD_FOR: Final = timedelta(minutes=1)
"""How soon an escalation that is held back looks again."""
PAGING: Final = ("pagerduty", "opsgenie")
DEFAULT: Final = Timers(timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=4))
"""The timers where no route says otherwise."""


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def rank(severity: str) -> int:
    """How bad that is, as a number."""
    return Severity(severity).rank


# --- 1. Transitions become groups ----------------------------------------------------------------------------------
def tell(*, now: datetime, limit: int = BATCH) -> int:
    """Take up transitions that nobody was told of, what begins to fire before the rest; return how many.

    One that cannot be taken up stays and is tried again with the next tick; it does not stop the others.
    """
    taken: list[int] = []
    taken_on: list[int] = []
    failed = 0
    with transaction.atomic():
        _lock()
        routing, silence = Routing(), Quiet(now)
        changed = _take_up_quiet_changes(limit)
        for transition in _untold(limit):
            try:
                with transaction.atomic():
                    _take_up(transition, routing, now)
                taken.append(transition.pk)
                if transition.kind in ("acknowledged", "unacknowledged"):
                    taken_on.append(transition.alert_id)
                changed = changed or silence.may_have_changed_by(transition)
            except Exception:
                failed += 1
                routing.forget_groups()
                log.exception("Transition %s could not be taken up; it is tried again.", transition.pk)
        Transition.objects.filter(pk__in=taken).update(told_at=now)
        rewrite(taken_on, now=now)
        if changed:
            held = NotificationGroup.objects.filter(members__in=GroupMember.objects.exclude(held_by=""))
            held.update(due_at=now)
    if failed:
        raise RuntimeError(f"{failed} transitions could not be taken up and are tried again; the log says why.")
    return len(taken)


BEGINS: Final = Q(kind="state", after=State.FIRING) | Q(
    *(
        Q(kind="severity", before=severity, after__in=[worse for worse in Severity if worse.rank > severity.rank])
        for severity in Severity
    ),
    _connector=Q.OR,
)
"""Transitions by which something begins to fire or gets worse."""


def _untold(limit: int) -> list[Transition]:
    """Return what is taken up next: what begins and still goes on, the worst first; then the rest, oldest first.

    So an alert does not wait behind ten thousand that ended. It is ranked by how bad the alert is now, not by how bad
    it was then: so the beginnings of one alert keep their order. That they overtake its other transitions is harmless,
    because those are judged by where the alert stands when they are taken up.
    """
    untold = Transition.objects.untold().select_for_update(skip_locked=True, of=("self",))
    rank = Case(*(When(alert__severity=severity, then=Value(severity.rank)) for severity in Severity), default=0)
    first = list(untold.filter(BEGINS, alert__state__in=ACTIVE).order_by(rank.desc(), "pk")[:limit])
    rest = untold.exclude(pk__in=[transition.pk for transition in first]).order_by("pk")
    return [*first, *rest[: limit - len(first)]]


def _take_up(transition: Transition, routing: "Routing", now: datetime) -> None:
    """Do what one transition means, by where its alert stands now: a late one must not undo a later one."""
    alert = transition.alert
    match transition.kind:
        case "state" if transition.after in ACTIVE:
            if alert.is_active:
                _join(alert, routing, Event.JOINED, now)
        case "state":
            if not alert.is_active:
                _end(alert, now)
        case "severity":
            if alert.is_active and rank(transition.after) > rank(transition.before):
                if alert.acknowledged_at is not None and alert.acknowledged_at <= transition.at:
                    # Somebody took on what it was; now it is worse than that.
                    alert = alerting.unacknowledge(by=Principal.system("oncall"), alert=alert, now=now)
                _join(alert, routing, Event.RAISED, now)
                _restart_escalations(alert, now)
        case "moved":
            _follow(transition, now)
        case "flapping":
            _flap(alert, now)
        case "acknowledged":
            _stop_escalations(alert.incident, now)
        case "unacknowledged":
            if alert.is_active:
                NotificationGroup.objects.filter(members__alert=alert).update(due_at=now)
        case _:
            pass  # a kind of a later release concerns nobody here


def _take_up_quiet_changes(limit: int) -> bool:
    """Tell whether somebody changed what is quiet; the rows go, in the transaction that has the groups looked at."""
    rows = QuietChange.objects.select_for_update(skip_locked=True).order_by("pk").values_list("pk", flat=True)
    taken = list(rows[: 10 * limit])
    QuietChange.objects.filter(pk__in=taken).delete()
    return bool(taken)


class Quiet:
    """What is muted at one moment, read at the first question and kept for one run of a loop."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    @cached_property
    def _suppressor(self) -> Suppressor:
        return quiet.suppressor(now=self.now)

    def of(self, alert: Alert) -> Verdict:
        """Return whether and why nobody is paged for the alert."""
        return self._suppressor.verdict(quiet.subject_of(alert)) if alert.is_active else LOUD

    def may_have_changed_by(self, transition: Transition) -> bool:
        """Whether this transition may let others be heard: what muted them ended, or is less bad."""
        began = transition.kind == "state" and transition.after in ACTIVE
        if began or transition.kind not in ("state", "severity"):
            return False
        return self._suppressor.could_mute_others(quiet.subject_of(transition.alert))


class Routing:
    """The routes as they are now, read once for a batch; so are the groups that its alerts join."""

    def __init__(self) -> None:
        self.forget_groups()

    def forget_groups(self) -> None:
        """Read groups again: what was written with the last of them has been taken back."""
        self.groups: dict[str, NotificationGroup] = {}
        self.burning: dict[int, int] = {}
        """Group → an active alert that joined it in this batch."""

    @cached_property
    def root_timers(self) -> Timers:
        """The timers of the root route, for what no route is asked about."""
        return root_timers()

    @cached_property
    def routes(self) -> dict[int, Route]:
        return {route.pk: route for route in Route.objects.filter(enabled=True).in_order()}

    @cached_property
    def specs(self) -> list[RouteSpec]:
        """A route that cannot be read is passed over and named: the others, at last the root, take its alerts."""
        specs = []
        for pk, route in self.routes.items():
            try:
                matchers = tuple(parse_matcher(text) for text in route.matchers)
            except (MatcherError, TypeError) as error:
                log.error("The route %s is passed over, mend its matchers: %s", route.name, error)
                continue
            specs.append(RouteSpec(pk, matchers, route.continue_matching))
        return specs

    @cached_property
    def targets(self) -> dict[int, RuleTarget]:
        """By rule; a target that names nobody leaves the alerts to the routes."""
        targets = RuleTarget.objects.filter(Q(policy__isnull=False) | Q(contacts__isnull=False)).distinct()
        return {target.rule_id: target for target in targets.select_related("rule")}

    def of(self, alert: Alert) -> list[Route | RuleTarget | None]:
        """Return where the alert goes: its rule's own target, else the routes it matches; None is the fall-back."""
        return self.places(alert.rule_id, alert.routing_labels)

    def places(self, rule: int | None, labels: Mapping[str, str]) -> list[Route | RuleTarget | None]:
        """Return where an alert of that rule with these labels goes."""
        if rule is not None and (target := self.targets.get(rule)) is not None:
            return [target]
        return [self.routes[pk] for pk in grouping.matching(self.specs, labels)] or [None]


def _join(alert: Alert, routing: Routing, event: Event, now: datetime) -> None:
    """Put the alert into its groups, and have them told."""
    joined = set()
    for place in routing.of(alert):
        group = _group(place, alert, routing, now)
        joined.add(group.pk)
        if _enter(group, alert, now):
            fires_beside = routing.burning.get(group.pk, alert.pk) != alert.pk or _fires_beside(alert, group)
            routing.burning.setdefault(group.pk, alert.pk)
            _due(group, Event.JOINED if fires_beside else Event.ALL_RESOLVED, now)
        elif event is Event.RAISED:
            _due(group, event, now)
    if event is Event.RAISED:
        # Groups that it is still in by an older routing hear of it too: somebody there was told that it is less bad.
        for group in NotificationGroup.objects.filter(members__alert=alert).exclude(pk__in=joined):
            _due(group, event, now)


def _enter(group: NotificationGroup, alert: Alert, now: datetime) -> bool:
    """Make the alert a member of the group; tell whether it was none. One statement, where thousands come at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO oncall_groupmember (group_id, alert_id, joined_at, held_by) VALUES (%s, %s, %s, '')"
            " ON CONFLICT (group_id, alert_id) DO NOTHING",
            [group.pk, alert.pk, now],
        )
        return bool(cursor.rowcount == 1)


def _fires_beside(alert: Alert, group: NotificationGroup) -> bool:
    """Whether something else in the group goes on. If not, an end waits to be taken up that cuts the interval short:
    the alert, which overtook it, must not wait longer for that.
    """
    return Alert.objects.active().filter(memberships__group=group).exclude(pk=alert.pk).exists()


def _group(place: Route | RuleTarget | None, alert: Alert, routing: Routing, now: datetime) -> NotificationGroup:
    labels = alert.routing_labels
    match place:
        case Route():
            shared = grouping.group_labels(place.group_by, labels)
            key, receiver = grouping.group_key(f"route:{place.pk}", shared), place.name
            timers = Timers(place.group_wait, place.group_interval, place.repeat_interval)
        case RuleTarget():
            shared = grouping.group_labels(["alertname"], labels)
            key, receiver = grouping.group_key(f"rule:{place.rule_id}", shared), place.rule.name
            timers = routing.root_timers
        case _:
            shared = grouping.group_labels(["alertname"], labels)
            key, receiver, timers = grouping.group_key("unrouted", shared), "fall-back contact", DEFAULT
    if key in routing.groups:
        return routing.groups[key]
    values = {
        "route": place if isinstance(place, Route) else None,
        "target": place if isinstance(place, RuleTarget) else None,
        "receiver": receiver[:120],
        "labels": shared,
        "group_wait": timers.wait,
        "group_interval": timers.interval,
        "repeat_interval": timers.repeat,
    }
    group, is_new = NotificationGroup.objects.get_or_create(key=key, defaults={**values, "opened_at": now})
    if not is_new:
        for name, value in values.items():
            setattr(group, name, value)
        if group.due_at is None:
            group.opened_at, group.flushed_at = now, None
        group.save()
    routing.groups[key] = group
    return group


def timers_of(place: Route | RuleTarget | None) -> Timers:
    """Return the timers of where an alert goes."""
    if isinstance(place, Route):
        return Timers(place.group_wait, place.group_interval, place.repeat_interval)
    return DEFAULT if place is None else root_timers()


def root_timers() -> Timers:
    """The root's timers: those of what is told by no route."""
    root = Route.objects.filter(is_root=True).first()
    return Timers(root.group_wait, root.group_interval, root.repeat_interval) if root else DEFAULT


def _due(group: NotificationGroup, event: Event, now: datetime) -> None:
    timers = Timers(group.group_wait, group.group_interval, group.repeat_interval)
    due_at = grouping.due_after(event, due_at=group.due_at, flushed_at=group.flushed_at, now=now, timers=timers)
    if due_at == group.due_at:
        return
    group.due_at = due_at
    # Never later than the row says: another transition of the batch may have set it since this was read.
    soonest = Least(Coalesce("due_at", Value(due_at)), Value(due_at))
    NotificationGroup.objects.filter(pk=group.pk).update(due_at=soonest)
    if due_at <= now:
        wake("oncall.escalate")


def _end(alert: Alert, now: datetime) -> None:
    """Have the groups say that it is over, and stop what runs for an incident in which nothing is wrong any more."""
    for group in NotificationGroup.objects.filter(members__alert=alert):
        fires = Alert.objects.active().filter(memberships__group=group).exists()
        _due(group, Event.RESOLVED if fires else Event.ALL_RESOLVED, now)
    _stop_escalations(alert.incident, now)


def _flap(alert: Alert, now: datetime) -> None:
    """Have it told that the alert's series began to flap, or what was held back since it did."""
    same = Alert.objects.filter(rule=alert.rule_id, fingerprint=alert.fingerprint)
    for group in NotificationGroup.objects.filter(members__alert__in=same).distinct():
        group.due_at = now
        group.save(update_fields=["due_at"])
        wake("oncall.escalate")


# --- Escalations: start, restart, stop -----------------------------------------------------------------------------
def _stop_escalations(incident: Incident | None, now: datetime) -> None:
    """Stop what runs for the incident if nothing in it fires, or somebody has acknowledged all that does."""
    if incident is None:
        return
    active = Alert.objects.active().filter(incident=incident)
    if active.filter(acknowledged_at__isnull=True).exists() and incident.acknowledged_at is None:
        return
    if active.exists():
        people = active.exclude(acknowledged_by="").values_list("acknowledged_by", flat=True)
        by = people.first() or incident.acknowledged_by
        _stop(Escalation.objects.filter(incident=incident), "acknowledged", f"acknowledged by {by}", now)
        # What had come to its end before begins anew, too, when the acknowledgement has worn off.
        ended = Escalation.objects.filter(incident=incident, state="finished", plan__acknowledged_for__gt=0)
        ended.update(state="acknowledged", reason=f"acknowledged by {by}, after the policy had come to its end")
    else:
        _stop(Escalation.objects.filter(incident=incident), "resolved", "nothing is wrong any more", now)


def _stop(escalations: Any, state: str, reason: str, now: datetime) -> None:
    for running in escalations.running():
        Escalation.objects.filter(pk=running.pk).update(state=state, reason=reason, due_at=None, ended_at=now)
        _record("oncall.stop_escalation", running, now, {"state": state, "reason": reason})
        live.publish("incidents", running.incident_id)


def _follow(transition: Transition, now: datetime) -> None:
    """Alerts went to another incident: what runs for the old one goes along or stops, and the new one gets its own."""
    alert = transition.alert
    if alert.incident is not None and not Alert.objects.active().filter(incident=int(transition.before)).exists():
        for running in Escalation.objects.running().filter(incident=int(transition.before)).select_related("incident"):
            twin = Escalation.objects.running().filter(incident=alert.incident, policy=running.policy)
            if running.policy is not None and twin.exists():
                mine = Escalation.objects.filter(pk=running.pk)
                _stop(mine, "replaced", f"its incident became part of #{alert.incident_id}", now)
            else:
                Escalation.objects.filter(pk=running.pk).update(incident=alert.incident)
                _record("oncall.move_escalation", running, now, {"incident": alert.incident_id})
    if alert.is_active and alert.acknowledged_at is None:
        NotificationGroup.objects.filter(members__alert=alert).update(due_at=now)
    _stop_escalations(alert.incident, now)


def _restart_escalations(alert: Alert, now: datetime) -> None:
    """Begin again with the first step, because it got worse; what had stopped is started by the group."""
    if _begin_anew(Escalation.objects.running().filter(incident=alert.incident), alert.severity, now):
        wake("oncall.escalate")


def _begin_anew(running: Any, severity: str, now: datetime) -> bool:
    reason = "starts over: severity raised"
    return bool(running.update(position=0, rounds=0, due_at=now, severity=severity, reason=reason))


def _start_escalations(group: NotificationGroup, policy: Policy | None, alerts: Iterable[Alert], now: datetime) -> bool:
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
        _record("oncall.start_escalation", started, now, {"policy": policy.name, "severity": severity})
        live.publish("incidents", incident)
    return bool(worst) or is_due


# --- 2. Groups are told --------------------------------------------------------------------------------------------
def flush(*, now: datetime, limit: int = BATCH) -> int:
    """Tell every group that is due, each in a transaction of its own; return how many were looked at."""
    due = NotificationGroup.objects.due(now).order_by("due_at", "pk")
    muting = Quiet(now)
    return each(list(due.values_list("pk", flat=True)[:limit]), lambda pk: _flush(pk, muting, now), "Group")


def each(keys: Sequence[Any], work: Callable[[Any], object], what: str) -> int:
    """Do one piece after the other; a piece that fails is rolled back, logged and stays due, the others go on."""
    failed = 0
    for key in keys:
        try:
            with transaction.atomic():
                _lock()
                work(key)
        except Exception:
            failed += 1
            log.exception("%s %s could not be told; it is tried again.", what, key)
    if failed:
        raise RuntimeError(f"{failed} of {len(keys)} could not be told and are tried again; the log says why.")
    return len(keys)


def _flush(pk: int, muting: Quiet, now: datetime) -> None:
    group = NotificationGroup.objects.select_related("route", "target").filter(pk=pk, due_at__lte=now).first()
    if group is None:
        return
    members = Alert.objects.filter(memberships__group=group).select_related("rule").prefetch_related("rule__levels")
    alerts = in_order(members)
    source = group.route or group.target
    policy = source.policy if source else None
    first = first_told(source)
    book = Book(group, alerts, muting, now)
    times: list[datetime] = []
    for contact in {**first, **book.told_contacts}.values():
        standings = book.standings(contact)
        decision = grouping.decide(standings, now=now, repeat=group.repeat_interval, is_receiver=contact.pk in first)
        if decision.is_worth_a_message:
            book.send(contact, decision)
            group.reason = decision.reason
        if decision.next_at is not None:
            times.append(decision.next_at)
    loud = [alert for alert in alerts.values() if alert.is_active and not book.verdicts[alert.pk].is_muted]
    if not first and not _policy_tells(policy) and loud:
        log.error("Nobody can be told of %s: there is no fall-back contact.", group.key)
        group.reason = "nobody could be told: there is no fall-back contact"
        times.append(now + group.group_interval)
    if _start_escalations(group, policy, loud, now):
        wake("oncall.escalate")
    _leave(group, alerts)
    book.note_what_is_held()
    times += [verdict.until for verdict in book.verdicts.values() if verdict.until is not None]
    group.flushed_at = now
    stays = any(alert.is_active for alert in alerts.values())
    group.due_at = min(times, default=now + group.repeat_interval) if stays else None
    if group.due_at is not None and group.due_at <= now:
        group.due_at = now + group.group_interval
    group.save(update_fields=["due_at", "flushed_at", "reason"])
    live.publish("incidents")


def in_order(alerts: Iterable[Alert]) -> dict[int, Alert]:
    """Return the alerts by key as messages list them: the worst first, then the oldest."""
    ordered = sorted(alerts, key=lambda alert: (-rank(alert.severity), alert.fired_at or alert.seen_at, alert.pk))
    return {alert.pk: alert for alert in ordered}


def _leave(group: NotificationGroup, alerts: Mapping[int, Alert]) -> None:
    """Let go what has ended: everybody who was told of it has been told so in this very transaction.

    What flaps stays: its end is told when it has ceased to.
    """
    ended = [pk for pk, alert in alerts.items() if not alert.is_active and not alert.is_held_back]
    GroupMember.objects.filter(group=group, alert__in=ended).delete()


def first_told(source: Route | RuleTarget | None) -> dict[int, Contact]:
    """Return whom a group's own message goes to: the receivers, or the fall-back contact if nobody else ever is."""
    found = receivers(source)
    if found or _policy_tells(source.policy if source else None):
        return found
    return fallback()


def _policy_tells(policy: Policy | None) -> bool:
    """Whether the policy itself will tell somebody, sooner or later."""
    if policy is None:
        return False
    enabled = frozenset(Contact.objects.enabled().values_list("pk", flat=True))
    has_fallback = bool(fallback())
    plan = [step for step in plans.frozen(policy)["steps"] if has_fallback or not step["config"].get("fallback")]
    return escalation.tells_somebody(plan, contacts=enabled, has_route_contacts=False)


class Book:
    """What the contacts know of a group's alerts, and the writing of what they are told next."""

    def __init__(
        self, group: NotificationGroup | None, alerts: Mapping[int, Alert], muting: Quiet, now: datetime
    ) -> None:
        self.group = group
        self.alerts = alerts
        self.now = now
        self.verdicts = {pk: muting.of(alert) for pk, alert in alerts.items()}
        found = Notice.objects.filter(alert__in=alerts, contact__isnull=False)
        self._rules: dict[int, list[Rule]] = {}
        self.notices: list[Notice] = []
        self.taken: list[StepTaken] = []
        """Steps of escalations that are written down with what they tell."""
        self._known: dict[tuple[int, int], list[Notice]] = defaultdict(list)
        self._curves: dict[int, Curve | None] = {}
        self._add(found.select_related("delivery", "contact").order_by("at", "pk"))

    def _add(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self.notices.append(notice)
            # By alert and contact: a storm's thousands are each looked up once a contact.
            self._known[notice.alert_id, notice.contact_id or 0].append(notice)

    @cached_property
    def told_contacts(self) -> dict[int, Contact]:
        """Who was told that one of these alerts fires, in this group, and has not been told of its end."""
        here = None if self.group is None else self.group.pk
        told = [notice.contact for notice in self.notices if notice.kind == "firing" and notice.group_id == here]
        return {contact.pk: contact for contact in told if contact is not None and contact.enabled}

    @cached_property
    def changed(self) -> list[str]:
        """What was changed shortly before the first of what fires began, of its services first."""
        firing = [alert for alert in self.alerts.values() if alert.is_active]
        if not firing:
            return []
        began_at = min(alert.fired_at or alert.seen_at for alert in firing)
        services = {alert.service for alert in firing}
        found = changes.before(began_at, services, scope=EVERYTHING, limit=CHANGES_TOLD)
        return [f"{one.at:%H:%M} UTC {one.line}" for one in found]

    @cached_property
    def _identities(self) -> dict[tuple[int, str], datetime]:
        """(contact, identity) → the last time the contact was told that it fires; by any group or escalation.

        As far back as the longest cooldown: what is older holds nothing up, and there are years of it.
        """
        if not self.alerts:
            return {}
        since = self.now - max(map(_cooldown, self.alerts.values()))
        flapping = [alert.flapping_since for alert in self.alerts.values() if alert.flapping_since]
        since = min([since, *(begun - timedelta(microseconds=1) for begun in flapping)])
        names = {identity(alert) for alert in self.alerts.values()}
        found = Notice.objects.filter(kind="firing", identity__in=names, at__gt=since)
        reached = found.exclude(delivery__state__in=("failed", "cancelled"))
        rows = reached.filter(contact__isnull=False).values_list("contact", "identity").annotate(last=Max("at"))
        return {(contact, name): last for contact, name, last in rows if contact is not None}

    @cached_property
    def _held(self) -> set[int]:
        """What was muted when the group was last looked at."""
        if self.group is None:
            return set()
        return set(self.group.members.exclude(held_by="").values_list("alert_id", flat=True))

    def note_what_is_held(self) -> None:
        """Write down of which alerts nobody was told, and why: the group is looked at again when that changes."""
        if self.group is None:
            return
        now_held = {pk: verdict for pk, verdict in self.verdicts.items() if verdict.is_muted}
        if over := self._held - set(now_held):
            self.group.members.filter(alert__in=over).update(held_by="", held_until=None)
        by_reason: dict[tuple[str, datetime | None], list[int]] = defaultdict(list)
        for pk, verdict in now_held.items():
            by_reason[verdict.reason, verdict.until].append(pk)
        for (reason, until), alerts in by_reason.items():
            self.group.members.filter(alert__in=alerts).update(held_by=reason, held_until=until)

    def standings(self, contact: Contact, *, incident: int | None = None) -> list[Standing]:
        """Return every alert (of the incident) as the contact knows it."""
        return [
            Standing(
                alert=alert.pk,
                is_firing=alert.is_active,
                rank=rank(alert.severity),
                is_acknowledged=alert.acknowledged_at is not None,
                told=self._told(alert, contact),
                identity_told_at=self._identities.get((contact.pk, identity(alert))),
                cooldown=_cooldown(alert),
                is_muted=self.verdicts[alert.pk].is_muted,
                muted_until=self.verdicts[alert.pk].until,
                was_muted=alert.pk in self._held,
                flaps_since=alert.flapping_since,
            )
            for alert in self.alerts.values()
            if incident is None or alert.incident_id == incident
        ]

    def _told(self, alert: Alert, contact: Contact) -> Told | None:
        """A message that never left told nobody; one about the end counts in the group that it was told in."""
        mine = self._known.get((alert.pk, contact.pk), [])
        reached = [n for n in mine if n.delivery is None or n.delivery.state not in ("failed", "cancelled")]
        firing = [notice for notice in reached if notice.kind == "firing"]
        if not firing:
            return None
        here = None if self.group is None else self.group.pk
        is_over = any(n.kind == "resolved" and n.group_id == here for n in mine)
        in_this_group = any(notice.group_id == here for notice in firing)
        return Told(firing[-1].at, rank(firing[-1].severity), is_over=is_over or not in_this_group)

    def curve(self, contact: Contact, first: int, *_: int) -> Curve | None:
        """What the value of the first alert did of late, where the contact's channel draws it; read once a book."""
        if not _draws(contact):
            return None
        if first not in self._curves:
            self._curves[first] = curves.read(self.alerts[first], now=self.now)
        return self._curves[first]

    def hold(self, contact: Contact, alerts: Iterable[int]) -> Hold | None:
        """Return what holds back a message to the contact about these alerts, as bad as the worst of them."""
        if contact.pk not in self._rules:
            self._rules[contact.pk] = contact.rules()
        severity = max((self.alerts[pk].severity for pk in alerts), key=rank)
        return holding.hold(self._rules[contact.pk], severity, self.now)

    def _unheard(self, contact: Contact, decision: Decision, held: Hold | None) -> Decision:
        """Leave out what waits for the contact already, and ends of what has not reached it: both are told later.

        Something that got worse since is told once more.
        """
        firing, resolved = [], []
        for pk in decision.firing:
            waits = [notice for notice in self._waiting(pk, contact) if rank(notice.severity) >= self._rank(pk)]
            if held is None or not waits:
                firing.append(pk)
        for pk in decision.resolved:
            mine = [notice for notice in self._known.get((pk, contact.pk), []) if notice.kind == "firing"]
            waits = self._waiting(pk, contact)
            reached = [n for n in mine if n.delivery is None or n.delivery.state not in ("failed", "cancelled")]
            if not waits or len(reached) > len(waits):
                resolved.append(pk)
        return replace(decision, firing=tuple(firing), resolved=tuple(resolved))

    def _waiting(self, alert: int, contact: Contact) -> list[Notice]:
        mine = self._known.get((alert, contact.pk), [])
        return [n for n in mine if n.kind == "firing" and n.delivery is not None and n.delivery.state == "held"]

    def _rank(self, alert: int) -> int:
        return rank(self.alerts[alert].severity)

    def message(self, contact: Contact, decision: Decision) -> Message:
        """Return the words for a decision."""
        view = {pk: view_of(alert) for pk, alert in self.alerts.items()}
        group_key = self.group.key if self.group else "ungrouped"
        return messages.build(
            [view[pk] for pk in decision.firing],
            [view[pk] for pk in decision.still],
            [view[pk] for pk in decision.resolved],
            messages.Occasion(
                group_key,
                self.group.labels if self.group else {},
                decision.reason,
                settings.PORTAL_URL,
                self.changed if decision.firing else (),
                self.now,
                self.curve(contact, *decision.firing, *decision.still, *decision.resolved),
            ),
            most=listed_by(contact),
        )

    def send(
        self,
        contact: Contact,
        decision: Decision,
        *,
        running: Mapping[int, Escalation] | None = None,
        after: timedelta = NO_TIME,
    ) -> None:
        """Write the message into the outbox and a notice of each piece of news.

        What quiet hours, business hours or the person's own order (`after`) hold back is let go by `releasing`.
        """
        held = self.hold(contact, decision.firing or decision.resolved) or holding.in_order(after, self.now)
        decision = self._unheard(contact, decision, held)
        if not decision.is_worth_a_message:
            return
        message = self.message(contact, decision)
        purpose = "firing" if decision.firing else "resolved"
        delivery = outbox.enqueue(contact=contact, message=message, purpose=purpose, now=self.now, hold=held)
        notices = []
        for kind, keys in (("firing", decision.firing), ("resolved", decision.resolved)):
            for pk in keys:
                alert = self.alerts[pk]
                notices.append(
                    Notice(
                        alert=alert,
                        contact=contact,
                        contact_name=contact.name,
                        delivery=delivery,
                        group=self.group,
                        escalation=(running or {}).get(alert.incident_id or 0),
                        kind=kind,
                        identity=identity(alert),
                        severity=alert.severity,
                        reason=decision.reason,
                        at=self.now,
                        settled_at=None if kind == "firing" or contact.failover_id else self.now,
                    )
                )
        self._add(Notice.objects.bulk_create(notices))
        if self.group is not None:
            # Whoever is told here that it fires is told here that it ended, so the alert belongs to this group now.
            members = [GroupMember(group=self.group, alert_id=pk, joined_at=self.now) for pk in decision.firing]
            GroupMember.objects.bulk_create(members, ignore_conflicts=True)
        for notice in notices:
            if notice.kind == "firing":
                self._identities[contact.pk, notice.identity] = self.now
        told = {"contact": contact.name, "purpose": purpose, "reason": decision.reason}
        told |= {"held": held.reason} if held is not None else {}
        about = [self.alerts[notice.alert_id].key for notice in notices]
        _record("oncall.notify", delivery, self.now, {**told, "alerts": about})
        live.publish("alerts")


def listed_by(contact: Contact) -> int:
    """How many alerts a message to the contact lists."""
    try:
        return contact.channel.listed
    except LookupError:  # its file is gone: the outbox says so
        return messages.LISTED


def _draws(contact: Contact) -> bool:
    try:
        return contact.channel.draws
    except LookupError:
        return False


def _cooldown(alert: Alert) -> timedelta:
    return alert.rule.cooldown if alert.rule else settings.ALERT_COOLDOWN


def identity(alert: Alert) -> str:
    """Return what stays the same when an alert fires again: its rule (or source) and its labels."""
    return f"{alert.rule_id or alert.source}:{bytes(alert.fingerprint).hex()}"


def view_of(alert: Alert) -> messages.AlertView:
    """Return what a message says of the alert."""
    level = None
    if alert.rule is not None:
        level = next((each for each in alert.rule.levels.all() if each.severity == alert.severity), None)
    return messages.AlertView(
        key=alert.key,
        name=alert.rule.name if alert.rule else alert.type,
        severity=alert.severity,
        is_firing=alert.is_active,
        started_at=alert.fired_at or alert.seen_at,
        ended_at=None if alert.is_active else alert.resolved_at,
        message=alert.message,
        service=alert.service,
        value=alert.value,
        threshold=alert.threshold,
        comparison=level.comparison if level else "",
        labels=alert.routing_labels,
        annotations={name: str(value) for name, value in alert.annotations.items()},
        runbook=alert.rule.runbook if alert.rule else "",
        fingerprint=bytes(alert.fingerprint).hex(),
        acknowledged_by=alert.acknowledged_by,
        resolved_by=alert.resolved_by,
        reason=alert.resolve_reason,
        unit=unit_of(alert.rule.expression) if alert.rule else "",
        incident=alert.incident_id,
    )


# --- 3. Escalations take their steps ---------------------------------------------------------------------------------
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
    decisions: list[Decision] = field(default_factory=list)


def _page(pages: dict[int, Page], contact: Contact, decision: Decision, words: str, after: timedelta = NO_TIME) -> None:
    """Put what one escalation tells the contact to what others do; the soonest counts."""
    page = pages.setdefault(contact.pk, Page(contact, after))
    page.after = min(page.after, after)
    page.decisions.append(Decision(decision.firing, decision.still, (), words[:200]))


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
    mine = [alert for alert in book.alerts.values() if alert.incident_id == one.incident_id and alert.is_active]
    if not mine or one.incident.acknowledged_at or all(alert.acknowledged_at for alert in mine):
        _stop_escalations(one.incident, now)
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
                _page(pages, page.contact, page.decisions[0], page.decisions[0].reason, page.after)
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
        _record("oncall.stop_escalation", one, now, {"state": one.state, "reason": reason})
    one.save()
    live.publish("incidents", one.incident_id)


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


def _take(one: Escalation, step: escalation.Taken, source: Route | RuleTarget | None, book: "Book") -> Done:
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
    mine = [alert.pk for alert in book.alerts.values() if alert.incident_id == one.incident_id and alert.is_active]
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
            told = Decision(decision.firing, decision.still, (), words[:200])
            pages.append(Page(contact, found.after.get(contact.pk, NO_TIME), [told]))
        if decision.next_at is not None:
            until = min(until or decision.next_at, decision.next_at)
    row.contacts, row.told = list(found.chosen), [page.contact.name for page in pages]
    knew = ", ".join(contact.name for contact in found.contacts.values() if contact.name not in row.told)
    more = [found.why, f"{knew} had been told before" if knew else "", asleep]
    row.reason += "".join(f"; {each}" for each in more if each)
    is_reached = not found.is_instead and plans.are_reachable(awake)
    return Done(row, tuple(pages), until, found.why, has_told, is_reached, bool(awake), asleep)


def _call(one: Escalation, ident: int, book: "Book") -> tuple[Delivery | None, str]:
    """Call a webhook contact with what is wrong: no notice, so it is told of no end and nobody counts as told."""
    contact = Contact.objects.enabled().filter(pk=ident, kind="webhook").first()
    if contact is None:
        return None, "it is gone or switched off, nothing is called"
    mine = tuple(alert.pk for alert in book.alerts.values() if alert.incident_id == one.incident_id and alert.is_active)
    words = f"escalation “{one.plan['name']}” calls {contact.name}"[:200]
    message = book.message(contact, Decision(mine, (), (), words))
    delivery = outbox.enqueue(contact=contact, message=message, purpose="call", now=book.now)
    _record("oncall.notify", delivery, book.now, {"contact": contact.name, "purpose": "call", "reason": words})
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
            _page(pages, contact, decision, f"escalation “{one.plan['name']}” told nobody")
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
        alerting.unacknowledge(by=Principal.system("oncall"), alert=alert, now=now)


# --- 4. What did not arrive ------------------------------------------------------------------------------------------
def settle(*, now: datetime, limit: int = BATCH) -> int:
    """Look at notices whose fate was open: sent is settled, failed or stuck goes to the fall-back contact.

    What was sent and came back since (bounced, not delivered) is open again.
    """
    outbox.cancel_orphans(now=now)
    came_back = Delivery.objects.filter(state="failed", receipt_at__gt=now - REOPENED_FOR)
    open_again = Notice.objects.filter(kind="firing", delivery__in=came_back)
    open_again = open_again.filter(settled_at__lt=F("delivery__receipt_at"))
    Notice.objects.filter(pk__in=open_again.values("pk")).update(settled_at=None)
    known = Notice.objects.unsettled().filter(Q(delivery__state="sent") | Q(delivery__isnull=True))
    known.update(settled_at=now)
    escalates = Escalation.objects.running().filter(incident=OuterRef("alert__incident"))
    sleeps = Q(delivery__state="held", delivery__held_for=QUIET) & ~Exists(escalates)
    late = (~Q(delivery__state="held") | sleeps) & Q(at__lte=now - UNTOLD_FOR)
    lost = Notice.objects.unsettled().filter(Q(delivery__state__in=("failed", "cancelled")) | late)
    muting = Quiet(now)
    keys = list(lost.order_by("pk").values_list("pk", flat=True)[:limit])
    return each(keys, lambda pk: _settle(pk, muting, now), "Notice")


def _settle(pk: int, muting: Quiet, now: datetime) -> None:
    found = Notice.objects.select_related("alert__rule", "contact__failover", "delivery", "group")
    notice = found.filter(pk=pk, settled_at=None).first()
    if notice is None:
        return
    if failover.stand_in(notice, now=now):
        return
    if notice.kind == "firing" and not _is_known(notice, now):
        alert = notice.alert
        book = Book(notice.group, {alert.pk: alert}, muting, now)
        for contact in fallback().values():
            if contact.pk == notice.contact_id:
                continue
            decision = grouping.page(book.standings(contact), now=now)
            if decision.firing:
                book.send(contact, Decision(decision.firing, (), (), _in_vain(notice)))
            elif decision.next_at is not None:
                return  # in the cooldown of an earlier firing: looked at again until that is over
    Notice.objects.filter(pk=pk).update(settled_at=now)


def _in_vain(notice: Notice) -> str:
    if notice.delivery is not None and notice.delivery.state == "held":
        return f"{notice.contact_name} is not disturbed ({notice.delivery.error.lower()})"[:200]
    return f"{notice.contact_name} could not be told"


def _is_known(notice: Notice, now: datetime) -> bool:
    """Whether nobody has to be told in place of the notice's contact: it is over, or somebody else knows or will."""
    alert = notice.alert
    if not alert.is_active or alert.acknowledged_at is not None:
        return True
    others = Notice.objects.filter(alert=alert, kind="firing").exclude(pk=notice.pk)
    on_its_way = Q(delivery__state="queued", at__gt=now - UNTOLD_FOR)  # its own fate is looked at in its turn
    return others.filter(Q(delivery__state="sent") | on_its_way).exists()


# --- 5. Reminders ----------------------------------------------------------------------------------------------------
def remind(*, now: datetime, limit: int = BATCH) -> int:
    """Tell the authors of silences that will end soon, by their own contacts; return how many silences that were.

    A kind of contact that opens an incident for whatever it is sent (PAGING) is left out: this is no alert.
    """
    due = Silence.objects.current(now).filter(remind_at__lte=now, reminded_at__isnull=True).order_by("remind_at", "pk")
    return each(list(due.values_list("pk", flat=True)[:limit]), lambda pk: _remind(pk, now), "Silence")


def _remind(pk: UUID, now: datetime) -> None:
    silence = Silence.objects.select_for_update().filter(pk=pk, reminded_at__isnull=True).first()
    if silence is None:
        return
    if silence.author_id is not None:
        for contact in Contact.objects.enabled().filter(owner=silence.author_id).exclude(kind__in=PAGING):
            message = Message(
                title=f"Your silence ends at {silence.ends_at:%H:%M} UTC: {silence.spelled}"[:300],
                body=f"{silence.comment}\nWhat it mutes and still goes on is told then. Make it longer, or let it end.",
                status="reminder",
                url=f"{settings.PORTAL_URL}/monitoring/quiet/{silence.pk}/",
                group_key=f"silence:{silence.pk}",
                reason="a silence ends soon",
            )
            delivery = outbox.enqueue(contact=contact, message=message, purpose="reminder", now=now)
            _record("oncall.notify", delivery, now, {"contact": contact.name, "purpose": "reminder"})
    Silence.objects.filter(pk=pk).update(reminded_at=now)


# --- 6. What is rewritten --------------------------------------------------------------------------------------------
def rewrite(alerts: Sequence[int], *, reason: str = "", now: datetime) -> None:
    """Have messages about these alerts say how things stand, at contacts whose channel rewrites them.

    No news, so no notice and no entry. It never raises: whom it serves has more to do.
    """
    if not alerts:
        return
    try:
        with transaction.atomic():
            _rewrite(alerts, reason, now)
    except Exception:
        log.exception("Messages about the alerts %s could not be rewritten.", alerts[:10])


def _rewrite(alerts: Sequence[int], reason: str, now: datetime) -> None:
    kinds = [kind for kind, channel in channels.all().items() if channel.rewrites]
    told = Notice.objects.filter(alert__in=alerts, kind="firing", contact__kind__in=kinds, contact__enabled=True)
    places = list(told.order_by().values_list("contact", "group").distinct())
    for contact_pk, group_pk in places:
        mine = Notice.objects.filter(contact=contact_pk, group=group_pk, kind="firing").values("alert")
        firing = Alert.objects.active().filter(pk__in=mine).select_related("rule").prefetch_related("rule__levels")
        contact, group = Contact.objects.get(pk=contact_pk), NotificationGroup.objects.filter(pk=group_pk).first()
        views = [view_of(alert) for alert in in_order(firing).values()]
        if not views or group is None:
            continue
        owners = ", ".join(sorted({view.acknowledged_by for view in views} - {""}))
        why = reason or (f"acknowledged by {owners}" if owners else "nobody has taken it on")
        occasion = messages.Occasion(group.key, group.labels, why[:200], settings.PORTAL_URL)
        message = replace(messages.build([], views, [], occasion, most=listed_by(contact)), status="update")
        waiting = Delivery.objects.queued().filter(contact=contact, group_key=group.key, purpose="update", claim=None)
        if not waiting.update(message=message.to_json()):
            outbox.enqueue(contact=contact, message=message, purpose="update", now=now)


def _record(verb: str, target: Any, now: datetime, after: Mapping[str, Any]) -> None:
    record(by=Principal.system("oncall"), verb=verb, target=target, after=dict(after))
