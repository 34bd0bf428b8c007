"""Takes up transitions and tells groups: the first two of the pieces of work that on-call does by itself.

Every hand-over is a row, every piece of work one transaction that either happened or did not:
1. `tell`      untold Transition rows → alerts join groups, groups get due, escalations stop. The row is told with it.
               QuietChange rows → groups that hold something back get due. The row goes with it.
2. `flush`     a group that is due → Notice and Delivery rows for each contact; escalations start.
3. `escalating` an escalation that is due → the same for its step, and its next time. An acknowledgement that has worn
               off is taken back.
   `releasing` a Delivery that was held back and is due → it leaves, with others in a digest, or is dropped.
4. `settling`  a Notice whose message did not arrive → its fail-over contact is told, else the fall-back contact.
5. `reminders` a Silence that ends soon → its author is told, by their own contacts.
6. `renewal`   what a receiver forgets is told again; an acknowledgement or an answer → messages that can be rewritten
               say so, in the transaction of 1 or of the answer.
A worker that dies in between changes nothing; the next tick finds the same rows. Messages leave by the outbox.

Decisions stand in `grouping`, `escalation` and alerting's `suppression`; here is only what carries them out.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Coalesce, Least

from apps.alerting import services as alerting
from apps.alerting.lifecycle import ACTIVE, Severity, State
from apps.alerting.models import Alert, QuietChange, Transition
from apps.core import live
from apps.core.tasks import wake
from apps.oncall import escalating, grouping
from apps.oncall.book import Book, Quiet, in_order, rank
from apps.oncall.grouping import Event
from apps.oncall.loops import BATCH, BY, each, lock
from apps.oncall.models import GroupMember, NotificationGroup, Route, RuleTarget
from apps.oncall.renewal import rewrite
from apps.oncall.routing import Routing, first_told, policy_tells, timers

log = logging.getLogger(__name__)


def tell(*, now: datetime, limit: int = BATCH) -> int:
    """Take up transitions that nobody was told of, what begins to fire before the rest; return how many.

    One that cannot be taken up stays and is tried again with the next tick; it does not stop the others.
    """
    taken: list[int] = []
    taken_on: list[int] = []
    failed = 0
    with transaction.atomic():
        lock()
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


def _take_up(transition: Transition, routing: Routing, now: datetime) -> None:
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
                    alert = alerting.unacknowledge(by=BY, alert=alert, now=now)
                _join(alert, routing, Event.RAISED, now)
                escalating.restart(alert, now)
        case "moved":
            escalating.follow(transition, now)
        case "flapping":
            _flap(alert, now)
        case "acknowledged":
            escalating.stop(alert.incident, now)
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
        case RuleTarget():
            shared = grouping.group_labels(["alertname"], labels)
            key, receiver = grouping.group_key(f"rule:{place.rule_id}", shared), place.rule.name
        case _:
            shared = grouping.group_labels(["alertname"], labels)
            key, receiver = grouping.group_key("unrouted", shared), "fall-back contact"
    if key in routing.groups:
        return routing.groups[key]
    waits = routing.timers_of(place)
    values = {
        "route": place if isinstance(place, Route) else None,
        "target": place if isinstance(place, RuleTarget) else None,
        "receiver": receiver[:120],
        "labels": shared,
        "group_wait": waits.wait,
        "group_interval": waits.interval,
        "repeat_interval": waits.repeat,
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


def _due(group: NotificationGroup, event: Event, now: datetime) -> None:
    due_at = grouping.due_after(event, due_at=group.due_at, flushed_at=group.flushed_at, now=now, timers=timers(group))
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
    escalating.stop(alert.incident, now)


def _flap(alert: Alert, now: datetime) -> None:
    """Have it told that the alert's series began to flap, or what was held back since it did."""
    same = Alert.objects.filter(rule=alert.rule_id, fingerprint=alert.fingerprint)
    for group in NotificationGroup.objects.filter(members__alert__in=same).distinct():
        group.due_at = now
        group.save(update_fields=["due_at"])
        wake("oncall.escalate")


def flush(*, now: datetime, limit: int = BATCH) -> int:
    """Tell every group that is due, each in a transaction of its own; return how many were looked at."""
    due = NotificationGroup.objects.due(now).order_by("due_at", "pk")
    muting = Quiet(now)
    return each(list(due.values_list("pk", flat=True)[:limit]), lambda pk: _flush(pk, muting, now), "Group")


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
    if not first and not policy_tells(policy) and loud:
        log.error("Nobody can be told of %s: there is no fall-back contact.", group.key)
        group.reason = "nobody could be told: there is no fall-back contact"
        times.append(now + group.group_interval)
    if escalating.start(group, policy, loud, now):
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


def _leave(group: NotificationGroup, alerts: Mapping[int, Alert]) -> None:
    """Let go what has ended: everybody who was told of it has been told so in this very transaction.

    What flaps stays: its end is told when it has ceased to.
    """
    ended = [pk for pk, alert in alerts.items() if not alert.is_active and not alert.is_held_back]
    GroupMember.objects.filter(group=group, alert__in=ended).delete()
