"""What another product's configuration asks for, in the portal's words and by name: people by their e-mail. Pure.

An importer reads a file into a `Blueprint`; `oncall.importing` compares it with what is here and writes the difference.
`remarks` say where the portal does something else than the other product did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any

from apps.promql.source import Matcher


@dataclass(frozen=True)
class Person:
    """Somebody who has, or should have, a log-in here."""

    email: str
    name: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Team:
    """A team and its members' e-mails."""

    name: str
    members: Sequence[str] = ()
    description: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Contact:
    """A contact of some kind with its settings; `missing` names secrets that the file does not hold."""

    name: str
    kind: str
    values: Mapping[str, Any]
    owner: str = ""
    missing: Sequence[str] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Layer:
    """People who take turns, as `oncall.models.Layer` has it."""

    name: str
    people: Sequence[str]
    starts_at: datetime
    rotation: str = "weekly"
    every: int = 1
    hand_over: time = time(0, 0)
    weekday: int = 0
    zone: str = ""
    hours: str = ""
    ends_at: datetime | None = None


@dataclass(frozen=True)
class Override:
    """Somebody who stands in."""

    person: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Schedule:
    """Who is on call; of layers that have somebody the last one wins."""

    name: str
    zone: str
    layers: Sequence[Layer]
    overrides: Sequence[Override] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """One step, by a word of `oncall.importing.STEPS`, with what it needs."""

    word: str
    needs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """An escalation policy."""

    name: str
    steps: Sequence[Step]
    description: str = ""
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Timers:
    """When a group is told, how often, and again."""

    wait: timedelta = timedelta(seconds=30)
    interval: timedelta = timedelta(minutes=5)
    repeat: timedelta = timedelta(hours=4)


@dataclass(frozen=True)
class Route:
    """A route in the order in which it is tried. `contacts` and `policy` are names; the root matches everything."""

    name: str
    matchers: Sequence[Matcher] = ()
    goes_on: bool = False
    group_by: Sequence[str] = ("alertname",)
    timers: Timers = Timers()
    contacts: Sequence[str] = ()
    policy: str = ""
    is_root: bool = False
    enabled: bool = True
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Inhibition:
    """While something matches the source, nobody is paged for what matches the target and agrees in `equal`."""

    name: str
    source: Sequence[Matcher]
    target: Sequence[Matcher]
    equal: Sequence[str] = ()


@dataclass(frozen=True)
class Window:
    """A time that comes again in which nobody is paged for what matches: from `begins` (time of day) on for so long."""

    name: str
    matchers: Sequence[Matcher]
    recurrence: str
    begins: time
    lasts: timedelta
    zone: str = "UTC"
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Lost:
    """What could not be carried over, and why."""

    kind: str
    name: str
    why: str


@dataclass
class Blueprint:
    """Everything that a file asks for, in the order in which it is written."""

    people: list[Person] = field(default_factory=list)
    teams: list[Team] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    inhibitions: list[Inhibition] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lose(self, kind: str, name: str, why: str) -> None:
        """Note what cannot be carried over."""
        self.lost.append(Lost(kind, name[:200] or "?", why))
