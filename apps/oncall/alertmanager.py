"""What Alertmanager's API says of alerts, groups, receivers and routes here: rows in, its JSON shapes out.

Source: `api/v2/openapi.yaml` of Alertmanager, and a real 0.25 asked side by side. `labels` are an alert's own, so that
one from a Prometheus comes back as it was sent; matchers see what routes see.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings

from apps.accounts.permissions import Scope
from apps.alerting import quiet
from apps.alerting.matching import MatcherError, accept, parse_matcher, to_json
from apps.alerting.models import Alert, Inhibition, Silence
from apps.alerting.suppression import LOUD, Verdict
from apps.notifications.channels import Sender
from apps.notifications.models import Contact
from apps.notifications.sending import administrators
from apps.oncall import alertmanager_file
from apps.oncall.alertmanager_file import Branch, Receiver
from apps.oncall.models import GroupMember, NotificationGroup, Policy, Route, RuleTarget
from apps.oncall.routing import DEFAULT, Routing
from apps.promql.source import Matcher

UNROUTED: Final = "fall-back contact"
LASTS: Final = timedelta(minutes=5)
"""A rule's alert goes on for at least so long: it is looked at again before."""


# --- Alerts ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Wanted:
    """Which alerts are asked for; `receiver` must match the whole name of one that is told."""

    matchers: Sequence[Matcher] = ()
    receiver: Callable[[str], object] | None = None
    active: bool = True
    silenced: bool = True
    inhibited: bool = True
    muted: bool = True
    unprocessed: bool = True


def labels_of(alert: Alert) -> dict[str, str]:
    """The labels that name the alert to Alertmanager's clients."""
    own = {name: str(value) for name, value in alert.labels.items() if value != ""}
    if alert.source == "alertmanager":
        return own
    return {"alertname": alert.type, "severity": alert.severity, **own}


@functools.lru_cache(maxsize=20_000)
def _hash(pairs: tuple[tuple[str, str], ...]) -> str:
    """FNV-1a over the sorted labels, 64 bits, as Prometheus' model.LabelSet.Fingerprint has it."""
    found = 14695981039346656037
    for name, value in pairs:
        for byte in name.encode() + b"\xff" + value.encode() + b"\xff":
            found = ((found ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def fingerprint(labels: Mapping[str, str]) -> str:
    """Return Alertmanager's fingerprint of a label set.

    >>> fingerprint({"alertname": "ok", "severity": "page"})
    '9ced1bbd0ae9b476'
    """
    return _hash(tuple(sorted(labels.items())))


def rfc3339(at: datetime) -> str:
    """Return the time as Alertmanager writes it: UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alerts(wanted: Wanted, *, scope: Scope, now: datetime) -> list[dict[str, Any]]:
    """Return the alerts that are asked for, by fingerprint."""
    rows = _open(scope, wanted)
    routing, verdicts = Routing(), quiet.verdicts(rows, now=now)
    waiting, inhibitors = _unprocessed(rows), _fingerprints(verdicts.values())
    shown = []
    for alert in rows:
        receivers = [receiver_of(place) for place in routing.of(alert)]
        one = _shown(alert, receivers, verdicts.get(alert.pk, LOUD), inhibitors, now, is_waiting=alert.pk in waiting)
        if _is_wanted(one, receivers, wanted):
            shown.append(one)
    return sorted(shown, key=lambda one: str(one["fingerprint"]))


def groups(wanted: Wanted, *, scope: Scope, now: datetime) -> list[dict[str, Any]]:
    """Return the notification groups that hold alerts which are asked for, with those."""
    rows = {alert.pk: alert for alert in _open(scope, wanted)}
    verdicts, routing = quiet.verdicts(rows.values(), now=now), Routing()
    inhibitors = _fingerprints(verdicts.values())
    members: dict[int, list[int]] = defaultdict(list)
    for group_pk, alert in GroupMember.objects.filter(alert__in=rows).values_list("group", "alert"):
        members[group_pk].append(alert)
    shown = []
    for group in NotificationGroup.objects.filter(pk__in=members):
        if wanted.receiver is not None and not wanted.receiver(group.receiver):
            continue
        held = []
        for pk in members[group.pk]:
            receivers = [receiver_of(place) for place in routing.of(rows[pk])]
            one = _shown(rows[pk], receivers, verdicts.get(pk, LOUD), inhibitors, now)
            if _is_wanted(one, [group.receiver], wanted):
                held.append(one)
        if held:
            shown.append(
                {
                    "alerts": sorted(held, key=lambda one: str(one["fingerprint"])),
                    "labels": {name: str(value) for name, value in group.labels.items()},
                    "receiver": {"name": group.receiver},
                }
            )
    return sorted(shown, key=lambda one: (sorted(one["labels"].items()), one["receiver"]["name"]))


def _open(scope: Scope, wanted: Wanted) -> list[Alert]:
    found = Alert.objects.active().visible_to(scope).select_related("rule").order_by("id")
    if not wanted.matchers:
        return list(found)
    return [alert for alert in found if accept(wanted.matchers, alert.routing_labels)]


def _unprocessed(rows: Sequence[Alert]) -> set[int]:
    """Alerts that on-call has not taken up yet: in no group, and not by being told to the end."""
    fresh = [alert.pk for alert in rows]
    taken = set(GroupMember.objects.filter(alert__in=fresh).values_list("alert", flat=True))
    return {pk for pk in fresh if pk not in taken}


def _fingerprints(verdicts: Iterable[Verdict]) -> dict[int, str]:
    """Fingerprints of the alerts because of which others are inhibited."""
    wanted = {pk for verdict in verdicts for pk in verdict.inhibited_by}
    found = Alert.objects.filter(pk__in=wanted) if wanted else ()
    return {alert.pk: fingerprint(labels_of(alert)) for alert in found}


def _shown(
    alert: Alert,
    receivers: Sequence[str],
    verdict: Verdict,
    inhibitors: Mapping[int, str],
    now: datetime,
    *,
    is_waiting: bool = False,
) -> dict[str, Any]:
    labels = labels_of(alert)
    lasts = alert.ends_at or now + LASTS
    url = alert.metadata.get("generatorURL") if isinstance(alert.metadata, dict) else None
    return {
        "annotations": {name: str(value) for name, value in sorted(alert.annotations.items())},
        "endsAt": rfc3339(lasts),
        "fingerprint": fingerprint(labels),
        "receivers": [{"name": name} for name in receivers],
        "startsAt": rfc3339(alert.fired_at or alert.seen_at),
        "status": {
            "inhibitedBy": [inhibitors[pk] for pk in verdict.inhibited_by if pk in inhibitors],
            "mutedBy": list(verdict.muted_by),
            "silencedBy": list(verdict.silenced_by),
            "state": "suppressed" if verdict.is_muted else "unprocessed" if is_waiting else "active",
        },
        "updatedAt": rfc3339(alert.seen_at),
        "generatorURL": url or f"{settings.PORTAL_URL}/monitoring/alerts/{alert.key}/",
        "labels": dict(sorted(labels.items())),
    }


def _is_wanted(one: Mapping[str, Any], receivers: Sequence[str], wanted: Wanted) -> bool:
    status = one["status"]
    if wanted.receiver is not None and not any(wanted.receiver(name) for name in receivers):
        return False
    return not (
        (not wanted.active and status["state"] == "active")
        or (not wanted.unprocessed and status["state"] == "unprocessed")
        or (not wanted.silenced and status["silencedBy"])
        or (not wanted.inhibited and status["inhibitedBy"])
        or (not wanted.muted and status["mutedBy"])
    )


# --- Receivers and routes -------------------------------------------------------------------------------------------
def receiver_of(place: Route | RuleTarget | None) -> str:
    """Return the name of the receiver that a route, or a rule's own target, stands for."""
    match place:
        case Route():
            return place.name
        case RuleTarget():
            return f"rule {place.rule.name}"[:120]
    return UNROUTED


def receivers() -> list[str]:
    """Return the names of all receivers, as the rendered file has them."""
    return [one.name for one in _file_parts()[2]]


def configuration() -> str:
    """Return the routes as an alertmanager.yml, secrets as `<secret>`."""
    root, branches, found = _file_parts()
    inhibits = [
        alertmanager_file.inhibit_rule(rule.source, rule.target, rule.equal)
        for row in Inhibition.objects.filter(enabled=True).order_by("pk")
        if (rule := quiet.rule_of(row)) is not None
    ]
    return alertmanager_file.render(root, branches, found, inhibits)


def _file_parts() -> tuple[Branch, list[Branch], list[Receiver]]:
    routing = Routing()
    sender = Sender(portal_url=settings.PORTAL_URL, administrators=administrators())
    matchers = {spec.id: spec.matchers for spec in routing.specs}
    targets = [routing.targets[pk] for pk in sorted(routing.targets)]
    waits = routing.root_timers
    branches = [
        Branch(
            receiver_of(target),
            [Matcher("alertname", "=", target.rule.name)],
            ["alertname"],
            waits.wait,
            waits.interval,
            waits.repeat,
        )
        for target in targets
    ]
    found = [_receiver(receiver_of(target), target.contacts.all(), target.policy, sender) for target in targets]
    root = Branch(UNROUTED, (), ["alertname"], DEFAULT.wait, DEFAULT.interval, DEFAULT.repeat)
    for route in routing.routes.values():
        if route.pk not in matchers:
            continue
        branch = Branch(
            receiver_of(route),
            matchers[route.pk],
            list(route.group_by),
            route.group_wait,
            route.group_interval,
            route.repeat_interval,
            route.continue_matching,
        )
        found.append(_receiver(branch.receiver, route.contacts.all(), route.policy, sender))
        if route.is_root:
            root = branch
        else:
            branches.append(branch)
    if root.receiver == UNROUTED:
        found.append(_receiver(UNROUTED, Contact.objects.enabled().filter(is_fallback=True), None, sender))
    return root, branches, list({one.name: one for one in found}.values())


def _receiver(name: str, contacts: Iterable[Contact], policy: Policy | None, sender: Sender) -> Receiver:
    configs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    remarks = []
    if policy is not None:
        remarks.append(f"the escalation policy “{policy.name}” follows, which Alertmanager has no word for")
    for contact in contacts:
        try:
            rows = contact.channel.alertmanager(contact.config, frozenset(contact.secrets or ()), sender)
        except LookupError:
            rows = {}
        if not rows:
            remarks.append(f"the contact “{contact.name}” is of the kind {contact.kind}, which has no receiver there")
        for section, config in rows.items():
            configs[section].append(config)
    return Receiver(name, configs, remarks)


# --- What is asked --------------------------------------------------------------------------------------------------
def matchers_of(texts: Iterable[str]) -> list[Matcher]:
    """Read `filter` parameters, all of which must hold. Raises MatcherError."""
    return [parse_matcher(text) for text in texts]


def receiver_pattern(text: str) -> Callable[[str], object] | None:
    """Return what the `receiver` parameter accepts: whole names that its expression matches. Raises MatcherError."""
    if not text:
        return None
    matcher = Matcher("receiver", "=~", text)
    try:
        matcher.matches("")
    except Exception as error:
        raise MatcherError(f"failed to parse receiver param: {error}") from None
    return matcher.matches


# --- Silences -------------------------------------------------------------------------------------------------------
KEPT: Final = timedelta(days=5)
"""How long a silence that is over is still listed, as Alertmanager keeps it by default."""


def silences(matchers: Sequence[Matcher], *, scope: Scope, now: datetime) -> list[dict[str, Any]]:
    """Return the silences whose own matchers the filter accepts: active, pending, then those that are over."""
    rows = Silence.objects.visible_to(scope).filter(ends_at__gt=now - KEPT)
    shown = [silence(row, now) for row in rows if _speaks_of(row, matchers)]
    order = ("active", "pending", "expired")
    return sorted(shown, key=lambda one: (order.index(one["status"]["state"]), one["endsAt"], one["id"]))


def silence(row: Silence, now: datetime) -> dict[str, Any]:
    """Return one silence in Alertmanager's shape."""
    return {
        "comment": row.comment,
        "createdBy": row.created_by,
        "endsAt": rfc3339(row.ends_at),
        "id": str(row.pk),
        "matchers": to_json(row.parsed),
        "startsAt": rfc3339(row.starts_at),
        "status": {"state": row.state(now)},
        "updatedAt": rfc3339(row.updated_at),
    }


def _speaks_of(row: Silence, matchers: Sequence[Matcher]) -> bool:
    """Alertmanager's filter: it is asked of the values that the silence's matchers name, whatever their operators."""
    named = {matcher.name: matcher.value for matcher in row.parsed}
    for matcher in matchers:
        is_there = matcher.name in named
        if not matcher.value and is_there is matcher.op.startswith("!"):
            continue
        if not matcher.matches(named.get(matcher.name, "")):
            return False
    return True


UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
