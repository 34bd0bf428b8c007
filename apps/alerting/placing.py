"""Puts alerts that begin to fire into incidents, as `correlation` decides: reads what is open, writes what came of it.

Two steps in the caller's transaction, around its own writing of alerts, so that rows are locked in the house's order
(alerts before incidents):
1. `place`   takes the lock, decides, makes the new incidents; each alert then has its incident and why.
2. `finish`  afterwards: what is absorbed moves, traits, severity and cause are written, what was closed opens again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from django.db import connection
from django.db.models import F

from apps.alerting.correlation import CLOSE, LONGEST, Board, Candidate, Newcomer, Suspect, probable_cause, roots_first
from apps.alerting.lifecycle import Reason, Severity
from apps.alerting.models import Alert, Incident, IncidentTrait, Transition
from apps.alerting.quiet import depends_on
from apps.alerting.topology import Graph, behind, turned

T = TypeVar("T")

LOCK: Final = 0x696E6369
"""Alerts are placed one transaction after the other: else each of a storm's would open an incident ("inci")."""
SMALL: Final = 50
"""Alerts up to which the cause of an incident is looked for anew with each; later only when something new comes."""
CHUNK: Final = 5_000


@dataclass(slots=True)
class Placement:
    """What `place` decided: `absorbed`: incident → the one it becomes part of; `joined`: alerts by incident."""

    graph: Graph
    at: datetime
    joined: dict[int, list[Alert]] = field(default_factory=lambda: defaultdict(list))
    opened: set[int] = field(default_factory=set)
    absorbed: dict[int, int] = field(default_factory=dict)
    traits: dict[tuple[int, str], datetime] = field(default_factory=dict)
    widened: set[int] = field(default_factory=set)


def place(alerts: Sequence[Alert], *, at: datetime) -> Placement:
    """Give each of these alerts, which begin to fire and need not be saved yet, its incident."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    graph = depends_on()
    result = Placement(graph, at)
    newcomers = {number: _newcomer(number, alert, at) for number, alert in enumerate(alerts)}
    board = Board(_candidates(newcomers.values(), graph, at), graph)
    fresh: dict[int, Incident] = {}
    homes: dict[int, int] = {}
    for newcomer in roots_first(newcomers.values(), graph):
        choice = board.choose(newcomer)
        home = choice.incident if choice.incident is not None else -1 - len(fresh)
        if choice.incident is None:
            alert = alerts[newcomer.key]
            fresh[home] = Incident(title=alert.message[:300], severity=alert.severity, opened_at=at)
        elif newcomer.service and newcomer.service not in board.candidates[home].services:
            result.widened.add(home)
        alerts[newcomer.key].placement = choice.reason[:300]
        homes[newcomer.key] = home
        board.join(newcomer, choice, home)
        for gone in choice.absorbed:
            result.absorbed[gone] = home
    kept = [number for number in fresh if number not in result.absorbed]
    Incident.objects.bulk_create([fresh[number] for number in kept], batch_size=1000)

    def real(key: int) -> int:
        while key in result.absorbed:
            key = result.absorbed[key]
        return key if key > 0 else fresh[key].pk

    for number, home in homes.items():
        alert, incident = alerts[number], real(home)
        alert.incident_id = incident
        result.joined[incident].append(alert)
        for trait in newcomers[number].traits:
            result.traits[incident, trait] = at
    result.opened = {fresh[number].pk for number in kept}
    result.widened = {real(key) for key in result.widened}
    result.absorbed = {key: real(key) for key in result.absorbed if key > 0}
    return result


def finish(placed: Placement) -> None:
    """Write what the placement means for incidents, after the alerts themselves were written."""
    for gone, home in placed.absorbed.items():
        move(gone, home, at=placed.at, by="alerting.correlate", why="What it is about explains both.")
    rows = [IncidentTrait(incident_id=key, trait=trait, seen_at=at) for (key, trait), at in placed.traits.items()]
    IncidentTrait.objects.bulk_create(
        rows, batch_size=2000, update_conflicts=True, unique_fields=["incident", "trait"], update_fields=["seen_at"]
    )
    old = (
        Incident.objects.select_for_update(of=("self",))
        .order_by("pk")
        .filter(pk__in=[key for key in placed.joined if key not in placed.opened])
    )
    for incident in old:
        worst = max((alert.severity for alert in placed.joined[incident.pk]), key=rank_of)
        if incident.state != "open":
            incident.state, incident.resolved_at = "open", None
        if rank_of(worst) > rank_of(incident.severity):
            # Somebody took on what it was; now it is worse than that.
            incident.severity, incident.acknowledged_at, incident.acknowledged_by = worst, None, ""
        incident.save(update_fields=["state", "resolved_at", "severity", "acknowledged_at", "acknowledged_by"])
    homes = set(placed.absorbed.values())
    alone = {key for key in placed.opened if len(placed.joined[key]) == 1}
    find_causes((set(placed.joined) | homes) - alone, placed.graph, at_least=placed.widened | placed.opened | homes)


def move(gone: int, home: int, *, at: datetime, by: str, why: str, alerts: Iterable[int] | None = None) -> int:
    """Move the alerts of an incident (or only these) to another, with a transition each; return how many."""
    chosen = Alert.objects.filter(incident=gone)
    if alerts is not None:
        chosen = chosen.filter(pk__in=list(alerts))
    moved = list(chosen.order_by("pk").select_for_update(of=("self",)).only("pk", "severity", "value", "state"))
    keys = [alert.pk for alert in moved]
    Alert.objects.filter(pk__in=keys).update(incident=home, placement=why[:300], version=F("version") + 1)
    Transition.objects.bulk_create(
        [
            Transition(
                alert=alert, incident_id=home, at=at, kind="moved", before=str(gone), after=str(home),
                reason=Reason.MANUAL, severity=alert.severity, value=alert.value, by=by[:200], detail=why,
                told_at=None if alert.is_active else at,
            )
            for alert in moved
        ],
        batch_size=1000,
    )  # fmt: skip
    if alerts is None:
        Incident.objects.filter(pk=gone).update(state="resolved", merged_into=home, resolved_at=at)
        traits = IncidentTrait.objects.filter(incident=gone)
        IncidentTrait.objects.bulk_create(
            [IncidentTrait(incident_id=home, trait=row.trait, seen_at=row.seen_at) for row in traits],
            update_conflicts=True, unique_fields=["incident", "trait"], update_fields=["seen_at"],
        )  # fmt: skip
        traits.delete()
    return len(moved)


def find_causes(incidents: Iterable[int], graph: Graph, *, at_least: Iterable[int] = ()) -> None:
    """Write the probable cause of these incidents, its reasons and its words as their title.

    Large ones only if they are among `at_least`: one more of the same does not change what explains them.
    """
    wanted, always = list(incidents), set(at_least)
    suspects: dict[int, list[Suspect]] = defaultdict(list)
    for chunk in _chunks(wanted):
        with connection.cursor() as cursor:
            cursor.execute(_SUSPECTS, [list(chunk)])
            for incident, service, alert, kind, at, severity, count in cursor.fetchall():
                suspects[incident].append(Suspect(service, alert, kind, at, rank_of(severity), count))
    causes = {}
    for incident, found in suspects.items():
        if incident in always or sum(one.count for one in found) <= SMALL:
            cause = probable_cause(found, graph)
            if cause is not None:
                causes[incident] = cause
    titles = dict(Alert.objects.filter(pk__in=[c.alert for c in causes.values()]).values_list("pk", "message"))
    rows = [
        Incident(pk=key, cause_id=cause.alert, reasons=list(cause.reasons), title=titles.get(cause.alert, "")[:300])
        for key, cause in causes.items()
    ]
    Incident.objects.bulk_update(rows, ["cause", "reasons", "title"], batch_size=500)


_SUSPECTS: Final = """
SELECT DISTINCT ON (incident_id, service) incident_id, service, id, type, fired_at, severity,
       count(*) OVER (PARTITION BY incident_id, service)
  FROM alerting_alert
 WHERE incident_id = ANY(%s)
 ORDER BY incident_id, service,
          array_position(ARRAY['critical', 'error', 'warning', 'info']::text[], severity::text), fired_at, id
"""


def _newcomer(number: int, alert: Alert, at: datetime) -> Newcomer:
    labels = alert.routing_labels
    service = alert.service or labels.get("service", "")
    return Newcomer(number, labels["alertname"], service, labels, rank_of(alert.severity), alert.fired_at or at)


def _candidates(newcomers: Iterable[Newcomer], graph: Graph, at: datetime) -> list[Candidate]:
    """Return the open incidents to which something could tie one of these alerts, with what could tie them."""
    traits = {trait for newcomer in newcomers for trait in newcomer.traits}
    services = {newcomer.service for newcomer in newcomers if newcomer.service}
    ahead = turned(graph)
    related = services | {name for one in services for name in (*behind(graph, one), *behind(ahead, one))}
    traits |= {f"service:{name}"[:LONGEST] for name in related}
    found: dict[int, Candidate] = {}

    def candidate(key: int, opened_at: datetime, is_by_hand: bool) -> Candidate:
        return found.setdefault(key, Candidate(key, opened_at, is_by_hand=is_by_hand))

    of = ("incident_id", "incident__opened_at", "incident__is_by_hand")
    for names in _chunks(sorted(traits)):
        rows = IncidentTrait.objects.filter(trait__in=names, seen_at__gte=at - CLOSE, incident__state="open")
        for trait, seen_at, *incident in rows.values_list("trait", "seen_at", *of):
            candidate(*incident).traits[trait] = seen_at
    for names in _chunks(sorted(related)):
        active = Alert.objects.active().filter(service__in=names).order_by().distinct()
        for service, *incident in active.values_list("service", *of):
            candidate(*incident).services.add(service)
    return list(found.values())


def traits_of(incident: Incident, alerts: Iterable[Alert]) -> list[IncidentTrait]:
    """Return, not saved, by what new alerts find an incident that holds these."""
    seen: dict[str, datetime] = {}
    for alert in alerts:
        newcomer = _newcomer(0, alert, alert.seen_at)
        for trait in newcomer.traits:
            seen[trait] = max(newcomer.at, seen.get(trait, newcomer.at))
    return [IncidentTrait(incident=incident, trait=trait, seen_at=at) for trait, at in seen.items()]


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def rank_of(severity: str) -> int:
    """Return the place of a severity's name among them."""
    return Severity(severity).rank
