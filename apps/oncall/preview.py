"""How many messages a rule would have caused: its previewed transitions through the decisions that tell live ones.

Routes, groups, timers, cooldown and flapping are judged by the functions of `grouping`; only the rows are missing.
Nobody acknowledges anything in a preview, and nothing is silenced. What quiet or business hours would hold back counts
as one digest at their end, whatever has come and gone by then; rate limits are left out. Escalations are counted where
they begin, not followed: what their steps would send depends on when somebody would have acknowledged.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from apps.alerting import matching
from apps.alerting.lifecycle import ACTIVE, Severity, State, is_telling
from apps.alerting.preview import Preview, routing_labels
from apps.alerting.replay import Event as Change
from apps.notifications import holding
from apps.notifications.models import Contact
from apps.oncall import grouping
from apps.oncall.grouping import Event, RouteSpec, Standing, Timers, Told
from apps.oncall.models import Route, RuleTarget
from apps.oncall.routing import DEFAULT, timers

MOST_LISTED: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where alerts can go: a route, the rule's own target, or the fall-back contact."""

    name: str
    key: str
    group_by: tuple[str, ...]
    timers: Timers
    contacts: tuple[str, ...]
    has_policy: bool = False


@dataclass(slots=True)
class _Alert:
    """What is known of an alert at this moment."""

    number: int
    key: bytes
    labels: dict[str, str] = field(default_factory=dict)
    state: State = State.INACTIVE
    severity: Severity = Severity.INFO
    flaps_since: datetime | None = None

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def held_since(self) -> datetime | None:
        return self.flaps_since if self.severity is not Severity.CRITICAL else None


@dataclass(slots=True)
class _Group:
    place: Place
    labels: dict[str, str]
    members: set[int] = field(default_factory=set)
    due_at: datetime | None = None
    flushed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one contact."""

    at: datetime
    contact: str
    group: str
    reason: str
    firing: int
    resolved: int


@dataclass(slots=True)
class Notifications:
    """What a preview comes to for those who are told."""

    messages: list[Message] = field(default_factory=list)
    groups: int = 0
    escalations: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        by_contact: dict[str, int] = defaultdict(int)
        for message in self.messages:
            by_contact[message.contact] += 1
        return {
            "messages": len(self.messages),
            "by_contact": dict(sorted(by_contact.items())),
            "groups": self.groups,
            "escalations": self.escalations,
            "list": [
                {
                    "at": message.at.isoformat(),
                    "contact": message.contact,
                    "group": message.group,
                    "reason": message.reason,
                    "firing": message.firing,
                    "resolved": message.resolved,
                }
                for message in self.messages[:MOST_LISTED]
            ],
        }


def notifications(found: Preview) -> Notifications:
    """Return what the routes of today would have made of the preview's transitions."""
    routes = list(Route.objects.filter(enabled=True).in_order().prefetch_related("contacts"))
    return _Desk(found, routes).run()


class _Desk:
    def __init__(self, found: Preview, routes: list[Route]) -> None:
        self.found = found
        self.alerts = {alert.number: _Alert(alert.number, alert.key) for alert in found.alerts}
        self.of_key: dict[bytes, list[_Alert]] = defaultdict(list)
        for alert in self.alerts.values():
            self.of_key[alert.key].append(alert)
        self.flapping: dict[bytes, datetime] = {}
        self.groups: dict[str, _Group] = {}
        self.told: dict[tuple[str, int], list[tuple[str, datetime, int, str]]] = defaultdict(list)
        self.identities: dict[tuple[str, bytes], datetime] = {}
        self.out = Notifications()
        enabled = Contact.objects.enabled().select_related("calendar")
        self.rules = {contact.name: contact.rules() for contact in enabled}
        self.digests: dict[tuple[str, datetime], int] = {}
        self.routes: dict[int, Place] = {}
        self.specs: list[RouteSpec] = []
        for route in routes:
            try:
                matchers = tuple(matching.parse_matcher(text) for text in route.matchers)
            except (matching.MatcherError, TypeError):
                continue  # passed over when alerts are routed, too
            self.specs.append(RouteSpec(route.pk, matchers, route.continue_matching))
            self.routes[route.pk] = Place(
                route.name, f"route:{route.pk}", tuple(route.group_by), timers(route), _names(route.contacts.all()),
                route.policy_id is not None,
            )  # fmt: skip
        root = next((route for route in routes if route.is_root), None)
        self.fallback = _names(Contact.objects.filter(is_fallback=True))
        self.unrouted = Place("fall-back contact", "unrouted", ("alertname",), DEFAULT, self.fallback)
        self.target = self._target(DEFAULT if root is None else timers(root))

    def _target(self, waits: Timers) -> Place | None:
        target = RuleTarget.objects.filter(rule=self.found.rule.id).prefetch_related("contacts").first()
        if target is None or (target.policy_id is None and not target.contacts.exists()):
            return None
        contacts, has_policy = _names(target.contacts.all()), target.policy_id is not None
        return Place(self.found.rule.name, f"rule:{target.rule_id}", ("alertname",), waits, contacts, has_policy)

    def run(self) -> Notifications:
        changes: dict[datetime, list[Change]] = defaultdict(list)
        for event in self.found.events:
            changes[event.at].append(event)
        moments = sorted(changes)
        while True:
            due = min((group.due_at for group in self.groups.values() if group.due_at is not None), default=None)
            now = min((at for at in (moments[0] if moments else None, due) if at is not None), default=None)
            if now is None or now > self.found.span.end:
                break
            if moments and moments[0] == now:
                self.take_up(changes[moments.pop(0)], now)
            for group in [one for one in self.groups.values() if one.due_at is not None and one.due_at <= now]:
                self.flush(group, now)
        self.out.groups = len(self.groups)
        return self.out

    def take_up(self, events: list[Change], now: datetime) -> None:
        """All transitions of one tick: first where the alerts stand now, then what that means for their groups."""
        raised = self.note(events, now)
        begins = [event for event in events if event.kind == "state" and event.after == State.FIRING]
        begins.sort(key=lambda event: -event.severity.rank)
        for event in begins:
            if is_telling(State(event.before), State(event.after)) and self.alerts[event.alert].is_active:
                self.join(self.alerts[event.alert], Event.JOINED, now)
        for number in sorted(raised):
            self.join(self.alerts[number], Event.RAISED, now)
        for event in events:
            alert = self.alerts[event.alert]
            if event.kind == "state" and event.after == State.RESOLVED and not alert.is_active:
                for group in self.of(alert):
                    others = any(self.alerts[number].is_active for number in group.members)
                    self.due(group, Event.RESOLVED if others else Event.ALL_RESOLVED, now)
            elif event.kind == "flapping":
                same = {one.number for one in self.of_key[alert.key]}
                for group in self.groups.values():
                    if group.members & same:
                        group.due_at = now

    def note(self, events: list[Change], now: datetime) -> set[int]:
        """Where the alerts stand after these transitions; returns those that got worse."""
        raised: set[int] = set()
        for event in events:
            alert = self.alerts[event.alert]
            alert.severity = event.severity
            if event.kind == "state":
                alert.state = State(event.after)
            elif event.kind == "severity" and Severity(event.after).rank > Severity(event.before).rank:
                raised.add(alert.number)
            elif event.kind == "flapping":
                self.flap(alert, now if event.after == "flapping" else None)
            if alert.key in self.flapping:  # so does what begins while its series flaps
                alert.flaps_since = self.flapping[alert.key]
        return raised

    def flap(self, alert: _Alert, since: datetime | None) -> None:
        if since is not None:
            self.flapping[alert.key] = since
            return
        self.flapping.pop(alert.key, None)
        for other in self.of_key[alert.key]:
            other.flaps_since = None

    def of(self, alert: _Alert) -> Iterable[_Group]:
        return [group for group in self.groups.values() if alert.number in group.members]

    def join(self, alert: _Alert, event: Event, now: datetime) -> None:
        labels = routing_labels(self.found.rule, self.found.alerts[alert.number], alert.severity)
        places = [self.target] if self.target is not None else self.places(labels)
        joined = set()
        for place in places:
            shared = grouping.group_labels(place.group_by, labels)
            key = grouping.group_key(place.key, shared)
            group = self.groups.setdefault(key, _Group(place, shared))
            if group.due_at is None:
                group.flushed_at = None
            is_new = alert.number not in group.members
            group.members.add(alert.number)
            joined.add(key)
            if is_new:
                beside = any(self.alerts[one].is_active for one in group.members - {alert.number})
                self.due(group, Event.JOINED if beside else Event.ALL_RESOLVED, now)
            elif event is Event.RAISED:
                self.due(group, event, now)
        if event is Event.RAISED:
            for key, group in self.groups.items():
                if alert.number in group.members and key not in joined:
                    self.due(group, event, now)

    def places(self, labels: dict[str, str]) -> list[Place]:
        return [self.routes[pk] for pk in grouping.matching(self.specs, labels)] or [self.unrouted]

    def due(self, group: _Group, event: Event, now: datetime) -> None:
        group.due_at = grouping.due_after(
            event, due_at=group.due_at, flushed_at=group.flushed_at, now=now, timers=group.place.timers
        )

    def flush(self, group: _Group, now: datetime) -> None:
        place = group.place
        key = grouping.group_key(place.key, group.labels)
        members = [self.alerts[number] for number in sorted(group.members)]
        receivers = place.contacts or (() if place.has_policy else self.fallback)
        times: list[datetime] = []
        for contact in receivers:
            standings = [self.standing(alert, contact, key) for alert in members]
            decision = grouping.decide(standings, now=now, repeat=place.timers.repeat)
            if decision.is_worth_a_message:
                self.send(contact, decision, key, place.name, now)
            if decision.next_at is not None:
                times.append(decision.next_at)
        if place.has_policy and any(alert.is_active for alert in members):
            self.escalate(key, members)
        group.members = {alert.number for alert in members if alert.is_active or alert.held_since is not None}
        group.flushed_at = now
        stays = any(alert.is_active for alert in members)
        group.due_at = min(times, default=now + place.timers.repeat) if stays else None
        if group.due_at is not None and group.due_at <= now:
            group.due_at = now + place.timers.interval

    def escalate(self, key: str, members: list[_Alert]) -> None:
        """Each alert has its incident, and each incident one escalation of a policy."""
        for alert in members:
            if alert.is_active and not self.told["policy", alert.number]:
                self.told["policy", alert.number].append(("escalation", self.found.span.start, 0, key))
                self.out.escalations += 1

    def standing(self, alert: _Alert, contact: str, group: str) -> Standing:
        mine = self.told[contact, alert.number]
        firing = [told for told in mine if told[0] == "firing"]
        told = None
        if firing:
            is_over = any(kind == "resolved" and where == group for kind, _, _, where in mine)
            here = any(where == group for _, _, _, where in firing)
            told = Told(firing[-1][1], firing[-1][2], is_over=is_over or not here)
        return Standing(
            alert=alert.number,
            is_firing=alert.is_active,
            rank=alert.severity.rank,
            told=told,
            identity_told_at=self.identities.get((contact, alert.key)),
            cooldown=self.found.rule.cooldown,
            flaps_since=alert.flaps_since,
        )

    def send(self, contact: str, decision: grouping.Decision, key: str, name: str, now: datetime) -> None:
        for kind, numbers in (("firing", decision.firing), ("resolved", decision.resolved)):
            for number in numbers:
                alert = self.alerts[number]
                self.told[contact, number].append((kind, now, alert.severity.rank, key))
                if kind == "firing":
                    self.identities[contact, alert.key] = now
        firing, resolved = len(decision.firing), len(decision.resolved)
        told = decision.firing or decision.resolved
        worst = max((self.alerts[number].severity for number in told), key=lambda severity: severity.rank)
        hold = holding.hold(self.rules.get(contact, ()), worst, now)
        if hold is not None:
            self.digest(Message(hold.until, contact, name, hold.reason, firing, resolved))
            return
        self.out.messages.append(Message(now, contact, name, decision.reason, firing, resolved))

    def digest(self, message: Message) -> None:
        """Put what is held back to what the contact is told at the same time."""
        key = message.contact, message.at
        if (place := self.digests.get(key)) is None:
            self.digests[key] = len(self.out.messages)
            self.out.messages.append(message)
            return
        had = self.out.messages[place]
        self.out.messages[place] = replace(
            had, firing=had.firing + message.firing, resolved=had.resolved + message.resolved
        )


def _names(contacts: Iterable[Contact]) -> tuple[str, ...]:
    return tuple(contact.name for contact in contacts if contact.enabled)
