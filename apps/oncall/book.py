"""What contacts know of alerts, and the writing of what they are told next."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from django.conf import settings
from django.db.models import Max

from apps.accounts.rights import EVERYTHING
from apps.alerting import changes, quiet
from apps.alerting.lifecycle import ACTIVE, Severity
from apps.alerting.models import Alert, Transition
from apps.alerting.suppression import LOUD, Suppressor, Verdict
from apps.alerting.units import unit_of
from apps.core import live
from apps.notifications import holding, outbox
from apps.notifications.holding import Hold, Rule
from apps.notifications.message import Curve, Message
from apps.notifications.models import Contact
from apps.oncall import curves, messages
from apps.oncall.grouping import Decision, Standing, Told
from apps.oncall.loops import enter_in_audit
from apps.oncall.models import (
    NO_TIME,
    Escalation,
    GroupMember,
    Notice,
    NotificationGroup,
    StepTaken,
)

CHANGES_TOLD: Final = 3
"""Changes in one message; the alert's page lists more."""
LOST: Final = ("failed", "cancelled")
"""States of a delivery that told nobody."""
UNTOLD_FOR: Final = timedelta(minutes=5)
"""A message that has not left by then does not count as told: the fall-back contact is."""


def rank(severity: str) -> int:
    """How bad that is, as a number."""
    return Severity(severity).rank


def in_order(alerts: Iterable[Alert]) -> dict[int, Alert]:
    """Return the alerts by key as messages list them: the worst first, then the oldest."""
    ordered = sorted(alerts, key=lambda alert: (-rank(alert.severity), alert.fired_at or alert.seen_at, alert.pk))
    return {alert.pk: alert for alert in ordered}


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
        reached = found.exclude(delivery__state__in=LOST)
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
        firing = _reached(mine)
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
            waits = self._waiting(pk, contact)
            if not waits or len(_reached(self._known.get((pk, contact.pk), []))) > len(waits):
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
        enter_in_audit("oncall.notify", delivery, {**told, "alerts": about})
        live.publish("alerts")


def _reached(notices: Iterable[Notice]) -> list[Notice]:
    """Those that told that it fires; one whose message never left told nobody."""
    return [
        one for one in notices
        if one.kind == "firing" and (one.delivery is None or one.delivery.state not in LOST)
    ]  # fmt: skip


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
