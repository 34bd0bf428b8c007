"""Which incident a new alert belongs to, and what probably caused an incident: a choice and its reasons. Pure.

Alerts belong together when something ties them: a service that depends on another, the same service, the same host, the
same kind of alert in the same cluster; and when they came close in time. Time alone ties nothing: two faults at once
stay two. An alert that nothing ties is an incident of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from apps.alerting.topology import Graph, behind, turned

CLOSE: Final = timedelta(minutes=15)
"""Alerts that share something belong together when they came at most this long after the last that had it."""
HOSTS: Final = ("instance", "host", "hostname", "node", "pod", "database")
"""Labels of which one shared value ties two alerts."""
PLACES: Final = ("cluster", "namespace", "datacenter", "region", "zone", "job")
"""Labels that tie alerts of the same name only: half of the house may share them."""
LONGEST: Final = 300
"""Characters of a trait."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An alert that begins to fire."""

    key: int
    name: str
    service: str
    labels: Mapping[str, str]
    rank: int
    at: datetime

    @property
    def traits(self) -> tuple[str, ...]:
        """By what alerts after it may find its incident."""
        found = [f"service:{self.service}"] if self.service else []
        found += [f"{name}:{self.labels[name]}" for name in HOSTS if self.labels.get(name)]
        found += [f"{self.name}/{name}:{self.labels[name]}" for name in PLACES if self.labels.get(name)]
        return tuple(trait[:LONGEST] for trait in found)


@dataclass(slots=True)
class Candidate:
    """An open incident: when each of its traits was last seen, and the services of which something is wrong in it.

    `id` is negative, counted down, for one that is not made yet.
    `is_by_hand`: somebody merged or split it, so nothing is moved into or out of it; what newly begins may still join.
    """

    id: int
    opened_at: datetime
    traits: dict[str, datetime] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    is_by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Where an alert goes: an incident (None: one of its own), why, and other incidents that it shows to be the same.

    `absorbed`: ids of incidents whose alerts belong to the chosen one, because of this alert.
    """

    incident: int | None
    reason: str = ""
    absorbed: tuple[int, ...] = ()


class Board:
    """The open incidents, to which newcomers are put one after the other; each sees those before it."""

    def __init__(self, candidates: Iterable[Candidate], graph: Graph) -> None:
        self.candidates: dict[int, Candidate] = {}
        self._graph = graph
        self._ahead = turned(graph)
        self._by_trait: dict[str, set[int]] = defaultdict(set)
        self._by_service: dict[str, set[int]] = defaultdict(set)
        self._behind: dict[str, dict[str, int]] = {}
        for candidate in candidates:
            self.add(candidate)

    def add(self, candidate: Candidate) -> None:
        """Put an incident on the board."""
        self.candidates[candidate.id] = candidate
        for trait in candidate.traits:
            self._by_trait[trait].add(candidate.id)
        for service in candidate.services:
            self._by_service[service].add(candidate.id)

    def choose(self, alert: Newcomer) -> Choice:
        """Return the incident that the alert belongs to. Of several the strongest tie wins, then the oldest incident.

        An alert of a service on which several incidents depend shows them to be one: the others are absorbed. One that
        depends on several does not: which of them explains it is not known.
        """
        ties = list(self._ties(alert))
        if not ties:
            return Choice(None)
        strength, chosen, why = min(ties, key=lambda tie: (tie[0], tie[1].opened_at, abs(tie[1].id)))
        if strength > _BY_SERVICE or chosen.is_by_hand:
            return Choice(chosen.id, why)
        explained = {
            candidate.id
            for strength, candidate, _ in ties
            if strength == _BEHIND and candidate.id != chosen.id and not candidate.is_by_hand
        }
        return Choice(chosen.id, why, tuple(sorted(explained)))

    def join(self, alert: Newcomer, choice: Choice, incident: int) -> None:
        """Write down that the alert is in the incident now; what was absorbed is part of it."""
        home = self.candidates.get(incident)
        if home is None:
            home = Candidate(incident, alert.at)
        for key in choice.absorbed:
            gone = self.candidates.pop(key)
            home.services |= gone.services
            for trait, seen in gone.traits.items():
                home.traits[trait] = max(seen, home.traits.get(trait, seen))
                self._by_trait[trait].discard(key)
            for service in gone.services:
                self._by_service[service].discard(key)
        for trait in alert.traits:
            home.traits[trait] = max(alert.at, home.traits.get(trait, alert.at))
        if alert.service:
            home.services.add(alert.service)
        self.add(home)

    def _ties(self, alert: Newcomer) -> Iterator[tuple[int, Candidate, str]]:
        """Yield (strength, incident, reason) for whatever ties the alert to an incident."""
        if alert.service:
            yield from self._service_ties(alert)
        for name in HOSTS:
            if value := alert.labels.get(name):
                for candidate in self._close(f"{name}:{value}", alert.at):
                    yield _BY_HOST, candidate, f"it has the same {name}, {value}"
        for name in PLACES:
            if value := alert.labels.get(name):
                for candidate in self._close(f"{alert.name}/{name}:{value}", alert.at):
                    yield _BY_PLACE, candidate, f"{alert.name} fires elsewhere in {name} {value}, too"

    def _service_ties(self, alert: Newcomer) -> Iterator[tuple[int, Candidate, str]]:
        service = alert.service
        for parent in self._reach(service, self._graph, "behind"):
            for key in sorted(self._by_service.get(parent, ())):
                why = f"{service} depends on {parent}, of which something is wrong here"
                yield _DEPENDS, self.candidates[key], why
        for child in self._reach(service, self._ahead, "ahead"):
            for candidate in self._close(f"service:{child}", alert.at):
                if child in candidate.services:
                    why = f"{child}, of which something is wrong here, depends on {service}"
                    yield _BEHIND, candidate, why
        for candidate in self._close(f"service:{service}", alert.at):
            yield _BY_SERVICE, candidate, f"it is about {service}, too"

    def _close(self, trait: str, at: datetime) -> Iterator[Candidate]:
        for key in sorted(self._by_trait.get(trait[:LONGEST], ())):
            candidate = self.candidates[key]
            if at - candidate.traits[trait[:LONGEST]] <= CLOSE:
                yield candidate

    def _reach(self, service: str, graph: Graph, way: str) -> Mapping[str, int]:
        key = f"{way}:{service}"
        if key not in self._behind:
            self._behind[key] = behind(graph, service)
        return self._behind[key]


_DEPENDS, _BEHIND, _BY_SERVICE, _BY_HOST, _BY_PLACE = range(5)


def roots_first(alerts: Iterable[Newcomer], graph: Graph) -> list[Newcomer]:
    """Return alerts of one moment in the order in which they explain each other: what others depend on comes first."""
    depth: dict[str, int] = {}
    for alert in alerts:
        if alert.service not in depth:
            depth[alert.service] = len(behind(graph, alert.service))
    return sorted(alerts, key=lambda alert: (alert.at, depth[alert.service], -alert.rank, alert.key))


# --- What caused it --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Suspect:
    """What an incident holds of one service (or of none: ""): its first alert, how bad it got, how many there are."""

    service: str
    alert: int
    name: str
    at: datetime
    rank: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Cause:
    """The alert that probably explains the others, and why it is thought so."""

    alert: int
    reasons: tuple[str, ...]


def probable_cause(suspects: Sequence[Suspect], graph: Graph) -> Cause | None:
    """Return the probable cause: what most of the others depend on, then what is worst, then what came first."""
    if not suspects:
        return None
    here = {suspect.service for suspect in suspects if suspect.service}
    dependants = {name: sum(name in behind(graph, other) for other in here) for name in here}
    first = min(suspect.at for suspect in suspects)
    best = min(suspects, key=lambda one: (-dependants.get(one.service, 0), -one.rank, one.at, one.alert))
    total = sum(suspect.count for suspect in suspects)
    if total == 1:
        return Cause(best.alert, ())
    reasons = []
    if count := dependants.get(best.service, 0):
        others = "1 other service" if count == 1 else f"{count} other services"
        verb = "depends" if count == 1 else "depend"
        reasons.append(f"{others} of this incident {verb} on {best.service}")
    if best.at == first:
        later = [suspect.at for suspect in suspects if suspect.at > first]
        reasons.append(f"it came first{_ahead(min(later) - first) if later else ''}")
    else:
        reasons.append(f"it came {_span(best.at - first)} after the first")
    if best.rank == max(suspect.rank for suspect in suspects) and any(s.rank < best.rank for s in suspects):
        reasons.append("nothing else here is as bad" if _alone(best, suspects) else "nothing here is worse")
    if not dependants.get(best.service) and best.service == "":
        reasons.append("no service is known that the others depend on")
    return Cause(best.alert, tuple(reasons))


def _alone(best: Suspect, suspects: Sequence[Suspect]) -> bool:
    return all(suspect is best or suspect.rank < best.rank for suspect in suspects)


def _ahead(span: timedelta) -> str:
    return f", {_span(span)} before the next"


def _span(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"
