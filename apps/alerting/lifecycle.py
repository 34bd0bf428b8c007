"""The life of an alert as a pure function: values in, the next life and its reason out. No tables, no clock.

Every level of a rule (warning, critical, …) lives exactly as a Prometheus rule of its own would: inactive, pending for
`for`, firing, kept firing for `keep_firing_for`. The alert is their fold: it is as bad as its worst firing level. So a
rule with two levels behaves like the two plain rules it can be exported to, but is one alert with one identity.

Two rules go beyond Prometheus, both about not knowing:
- time in which nobody looked (the portal was down) counts neither as breach nor as recovery;
- after such a gap a series that is not back yet is waited for, instead of being taken for a recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How bad a level is; order by `rank`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info up to 3 for critical."""
        return _RANKS[self]


_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity)}


class State(StrEnum):
    """Where an alert stands: `inactive` ends a pending one that never fired, `resolved` ends one that fired."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    RESOLVED = "resolved"


ACTIVE: Final = frozenset({State.FIRING, State.RECOVERING})
OPEN: Final = ACTIVE | {State.PENDING}


class Reason(StrEnum):
    """Why an alert changed."""

    VALUE = "value"
    NO_DATA = "no_data"
    MISSING_SERIES = "missing_series"
    MANUAL = "manual"
    POSTED = "posted"
    EXPIRED = "expired"
    RESTART = "restart"
    RULE = "rule"


NO_TIME: Final = timedelta(0)
_GONE: Final = frozenset({Reason.VALUE, Reason.NO_DATA, Reason.MISSING_SERIES})
_ENDED: Final = _GONE | {Reason.MANUAL, Reason.EXPIRED, Reason.RULE}

TRANSITIONS: Final[Mapping[tuple[State, State], frozenset[Reason]]] = {
    (State.INACTIVE, State.PENDING): frozenset({Reason.VALUE}),
    (State.INACTIVE, State.FIRING): frozenset({Reason.VALUE, Reason.POSTED}),
    (State.PENDING, State.PENDING): frozenset({Reason.RESTART}),
    (State.PENDING, State.FIRING): frozenset({Reason.VALUE}),
    (State.PENDING, State.INACTIVE): _GONE | {Reason.RULE},
    (State.FIRING, State.RECOVERING): _GONE,
    (State.FIRING, State.RESOLVED): _ENDED | {Reason.POSTED},
    (State.RECOVERING, State.RECOVERING): frozenset({Reason.RESTART}),
    (State.RECOVERING, State.FIRING): frozenset({Reason.VALUE}),
    (State.RECOVERING, State.RESOLVED): _ENDED,
}
"""Every change of state there is, with the reasons it can have. The diagram in the docs is drawn from this."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Where one level stands (pending, firing or recovering) and since when."""

    state: State
    since: datetime


@dataclass(frozen=True, slots=True)
class Life:
    """An alert at one moment. Levels that are not breached and not kept are absent from `levels`."""

    state: State
    severity: Severity
    levels: Mapping[Severity, Phase] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule asks for."""

    pending_period: timedelta = NO_TIME
    keep_firing_for: timedelta = NO_TIME


@dataclass(frozen=True, slots=True)
class Observation:
    """What one evaluation saw of one series.

    `absent` says why there was no value (then nothing is breached); `unobserved` is time since the evaluation before
    in which nobody looked; `settling` is set while the sources may still be coming back after such a gap.
    """

    breached: frozenset[Severity] = frozenset()
    absent: Reason | None = None
    unobserved: timedelta = NO_TIME
    settling: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The life after an evaluation (None: still nothing to speak of) and why it changed (None: it did not)."""

    after: Life | None
    reason: Reason | None


def step(before: Life | None, seen: Observation, *, now: datetime, terms: Terms) -> Step:
    """Return the life after this evaluation and its reason.

    1. Unobserved time is taken out of every wait that was running.
    2. Absent while settling: nothing is concluded.
    3. Each level takes its own step, as a Prometheus rule would.
    4. The alert is the fold of its levels.
    """
    if before is not None and before.state not in OPEN:
        before = None
    levels = {} if before is None else _without_gap(before.levels, seen.unobserved, now)
    shifted = before is not None and levels != before.levels
    if not (seen.absent and seen.settling):
        levels = _levels(levels, seen.breached, now, terms)
    after = _fold(before, levels)
    if after == before:
        return Step(after, None)
    if (
        after is not None
        and before is not None
        and shifted
        and (after.state, after.severity)
        == (
            before.state,
            before.severity,
        )
    ):
        return Step(after, Reason.RESTART)
    return Step(after, seen.absent or Reason.VALUE)


def close(before: Life) -> Life:
    """Return the life that was ended from outside the evaluation: by a person, by time, with its rule."""
    return Life(State.RESOLVED if before.state in ACTIVE else State.INACTIVE, before.severity)


def is_news(before: Life | None, after: Life, reason: Reason) -> tuple[bool, bool]:
    """Return (the state is worth a transition row, the severity is).

    A level that changes beneath its alert is neither; a severity counts while the alert fires.
    """
    old = State.INACTIVE if before is None else before.state
    state = old != after.state or (reason is Reason.RESTART and (old, after.state) in TRANSITIONS)
    severity = before is not None and old in ACTIVE and after.state in ACTIVE and before.severity != after.severity
    return state, severity


def is_telling(before: State, after: State) -> bool:
    """Whether a change of state concerns anybody: an alert that fires anew, or one that ends after it fired."""
    return (after is State.FIRING and before is not State.RECOVERING) or after is State.RESOLVED


def _without_gap(levels: Mapping[Severity, Phase], gap: timedelta, now: datetime) -> dict[Severity, Phase]:
    # A clock that was set back must not stretch a wait either: nothing began in the future.
    return {
        severity: phase if phase.state is State.FIRING else Phase(phase.state, min(phase.since + gap, now))
        for severity, phase in levels.items()
    }


def _levels(
    levels: Mapping[Severity, Phase], breached: frozenset[Severity], now: datetime, terms: Terms
) -> dict[Severity, Phase]:
    after = {}
    for severity in Severity:
        phase = _phase(levels.get(severity), severity in breached, now, terms)
        if phase is not None:
            after[severity] = phase
    return after


def _phase(before: Phase | None, breached: bool, now: datetime, terms: Terms) -> Phase | None:
    """One level, with the semantics of one Prometheus rule."""
    match before, breached:
        case None, False:
            return None
        case None, True:
            return _phase(Phase(State.PENDING, now), True, now, terms)
        case Phase(State.PENDING, since), True:
            return Phase(State.FIRING, now) if now - since >= terms.pending_period else before
        case Phase(State.PENDING), False:
            return None
        case Phase(State.FIRING), False:
            return Phase(State.RECOVERING, now) if terms.keep_firing_for else None
        case Phase(State.RECOVERING), True:
            return Phase(State.FIRING, now)
        case Phase(State.RECOVERING, since), False:
            return before if now - since < terms.keep_firing_for else None
    return before


def _fold(before: Life | None, levels: Mapping[Severity, Phase]) -> Life | None:
    by_state: dict[State, list[Severity]] = {}
    for severity, phase in levels.items():
        by_state.setdefault(phase.state, []).append(severity)
    firing, recovering = by_state.get(State.FIRING, []), by_state.get(State.RECOVERING, [])
    if firing or recovering:
        # A level that is kept still counts: as a rule of its own it would still be firing.
        return Life(State.FIRING if firing else State.RECOVERING, worst(firing + recovering), levels)
    if before is not None and before.state in ACTIVE:
        # Only a pending level is left (two directions in one rule): the same alert, waiting for it to fire or go.
        return Life(State.RECOVERING, before.severity, levels) if levels else close(before)
    if levels:
        return Life(State.PENDING, worst(list(levels)), levels)
    return None if before is None else close(before)


def worst(severities: list[Severity]) -> Severity:
    """Return the highest of at least one severity."""
    return max(severities, key=lambda severity: severity.rank)


def diagram() -> str:
    """Return the page docs/generated/alert-life.md: the table above as a state diagram, and what each reason means."""
    lines = ["# The life of an alert", "", "Generated from `apps/alerting/lifecycle.py`.", "", "```mermaid"]
    lines += ["stateDiagram-v2", f"    [*] --> {State.INACTIVE}"]
    for (before, after), why in TRANSITIONS.items():
        lines.append(f"    {before} --> {after}: {', '.join(reason for reason in Reason if reason in why)}")
    lines += [f"    {State.RESOLVED} --> [*]", "```", "", "| reason | meaning |", "|---|---|"]
    lines += [f"| `{reason}` | {meaning} |" for reason, meaning in MEANINGS.items()]
    return "\n".join(lines) + "\n"


MEANINGS: Final[Mapping[Reason, str]] = {
    Reason.VALUE: "The value crossed a threshold, or came back.",
    Reason.NO_DATA: "The rule's expression has no result at all any more.",
    Reason.MISSING_SERIES: "Other series of the expression are there, this one is not.",
    Reason.MANUAL: "A person did it.",
    Reason.POSTED: "Something outside said so.",
    Reason.EXPIRED: "From outside: its end has come, or nobody repeated it in time.",
    Reason.RESTART: "The portal was away; the time in which nobody looked was taken out of the wait.",
    Reason.RULE: "Its rule was disabled, changed or removed.",
}
