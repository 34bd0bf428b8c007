"""The life of an alert as a pure function: values in, the next life and its reason out. No tables, no clock.

Every level of a rule (warning, critical, …) lives exactly as a Prometheus rule of its own would: inactive, pending for
`for`, firing, kept firing for `keep_firing_for`. The alert is their fold: it is as bad as its worst firing level. So a
rule with two levels behaves like the two plain rules it can be exported to, but is one alert with one identity.

What goes beyond Prometheus, each only where a rule asks for it:
- a level may have a recovery of its own: between breach and recovery it is *held*, what fires goes on;
- a series that is absent is missing only after some evaluations, and then ends, stays or fires;
- outside the schedule nothing begins; what fires stays until it has recovered;
- an alert that comes and goes too often flaps (`flapping`), which is said once instead of each time.
And always, both about not knowing:
- time in which nobody looked (the portal was down) counts neither as breach nor as recovery;
- after such a gap a series that is not back yet is waited for, instead of being taken for a recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from apps.alerting import flapping


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
    ERROR = "error"
    SCHEDULE = "schedule"


class Policy(StrEnum):
    """What is made of a series that is not there, or of an expression that fails: `alert` is an alert of its own."""

    OK = "ok"
    KEEP = "keep"
    ALERT = "alert"
    FIRE = "fire"


NO_TIME: Final = timedelta(0)
_UNKNOWN: Final = frozenset({Reason.NO_DATA, Reason.MISSING_SERIES, Reason.ERROR})
_GONE: Final = _UNKNOWN | {Reason.VALUE}
_ENDED: Final = _GONE | {Reason.MANUAL, Reason.EXPIRED, Reason.RULE}

TRANSITIONS: Final[Mapping[tuple[State, State], frozenset[Reason]]] = {
    (State.INACTIVE, State.PENDING): _GONE,
    (State.INACTIVE, State.FIRING): _GONE | {Reason.POSTED},
    (State.PENDING, State.PENDING): frozenset({Reason.RESTART}),
    (State.PENDING, State.FIRING): _GONE,
    (State.PENDING, State.INACTIVE): _GONE | {Reason.RULE, Reason.SCHEDULE},
    (State.FIRING, State.RECOVERING): _GONE,
    (State.FIRING, State.RESOLVED): _ENDED | {Reason.POSTED},
    (State.RECOVERING, State.RECOVERING): frozenset({Reason.RESTART}),
    (State.RECOVERING, State.FIRING): _GONE,
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
    """An alert at one moment. Levels that are not breached and not kept are absent from `levels`.

    `absent_since`: the first evaluation of those that missed its series. `changes`: when it lately began, ended or
    changed its severity, of which flapping is told; both outlive the alert, to be handed to the next of its series.
    """

    state: State
    severity: Severity
    levels: Mapping[Severity, Phase] = field(default_factory=dict)
    absent_since: datetime | None = None
    changes: tuple[datetime, ...] = ()
    flapping_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule asks for. `interval` is that of its evaluations; without one nothing flaps and one absence counts."""

    pending_period: timedelta = NO_TIME
    keep_firing_for: timedelta = NO_TIME
    interval: timedelta = NO_TIME
    missing_evaluations: int = 1
    absent: Policy = Policy.OK
    flaps: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What one evaluation saw of one series.

    `held` are levels that are neither breached nor recovered; `absent` says why there was no value (then nothing is
    breached); `closed`: it is outside the rule's schedule; `unobserved` is time since the evaluation before in which
    nobody looked; `settling` is set while the sources may still be coming back after such a gap; `because` is the
    reason of a breach that is none of the value.
    """

    breached: frozenset[Severity] = frozenset()
    held: frozenset[Severity] = frozenset()
    absent: Reason | None = None
    closed: bool = False
    unobserved: timedelta = NO_TIME
    settling: bool = False
    because: Reason = Reason.VALUE


@dataclass(frozen=True, slots=True)
class Step:
    """The life after an evaluation (None: still nothing to speak of) and why it changed (None: nothing to tell).

    `flapping`: it began (True) or ceased (False) to flap; None: neither.
    """

    after: Life | None
    reason: Reason | None
    flapping: bool | None = None


def step(before: Life | None, seen: Observation, *, now: datetime, terms: Terms) -> Step:
    """Return the life after this evaluation and its reason. `before` may be the last life of the series that is over.

    1. Unobserved time is taken out of every wait that was running.
    2. Absent while settling, or not often enough, or with the policy to keep: nothing is concluded.
    3. Each level takes its own step, as a Prometheus rule would.
    4. The alert is the fold of its levels.
    5. What it has been through lately says whether it flaps.
    """
    past, shifted = before, False
    if before is not None and before.state not in OPEN:
        before = None
    levels: Mapping[Severity, Phase] = {}
    if before is not None:
        levels = (
            _without_gap(before.levels, seen.unobserved, now)
            if seen.unobserved or _ahead(before, now)
            else before.levels
        )
        shifted = levels is not before.levels and levels != before.levels
    absent_since = _absent_since(before, seen, now)
    if not _is_unknown(seen, absent_since, now, terms):
        levels = _levels(levels, seen, now, terms)
    after = _fold(before, levels)
    reason = _reason(before, after, seen, shifted=shifted)
    return _remembering(past, before, after, reason, absent_since if _counts(terms) else None, now, terms)


def quiet_until(life: Life | None, seen: Observation, *, now: datetime, terms: Terms) -> datetime | None:
    """Return from when on a step with this very observation, which just gave `life`, may come to something else.

    None: never. So a replay need not take the steps in between; a flapping life is to be looked at each time.
    """
    if life is None:
        return None
    if life.flapping_since is not None:
        return now
    if life.state not in OPEN:
        return now if seen.breached and not seen.closed else None
    if _is_unknown(seen, life.absent_since, now, terms):
        return None if life.absent_since is None else life.absent_since + _missed(terms)
    times = []
    for severity, phase in life.levels.items():
        goes_on = severity in seen.breached | seen.held
        if phase.state is State.PENDING and severity in seen.breached:
            times.append(phase.since + terms.pending_period)
        elif phase.state is State.RECOVERING and not goes_on:
            times.append(phase.since + terms.keep_firing_for)
        elif phase.state is not State.FIRING or not goes_on:
            return now
    if not seen.closed and not seen.breached <= life.levels.keys():
        return now
    return min(times, default=None)


def close(before: Life) -> Life:
    """Return the life that was ended from outside the evaluation: by a person, by time, with its rule."""
    return Life(State.RESOLVED if before.state in ACTIVE else State.INACTIVE, before.severity, changes=before.changes)


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


def _ahead(life: Life, now: datetime) -> bool:
    return any(phase.since > now for phase in life.levels.values())


def _counts(terms: Terms) -> bool:
    """Whether the evaluations that miss a series are counted."""
    return terms.missing_evaluations > 1 and terms.absent is Policy.OK


def _absent_since(before: Life | None, seen: Observation, now: datetime) -> datetime | None:
    if before is None or not seen.absent or seen.absent is Reason.VALUE:
        return None
    return now if before.absent_since is None else min(before.absent_since + seen.unobserved, now)


def _is_unknown(seen: Observation, absent_since: datetime | None, now: datetime, terms: Terms) -> bool:
    """Whether nothing is to be concluded from this observation."""
    if not seen.absent or seen.breached:
        return False
    if seen.settling:
        return True
    if seen.absent is Reason.VALUE:  # nobody can tell absent from well: it is taken for well
        return False
    if terms.absent is not Policy.OK:
        return True
    return absent_since is not None and now < absent_since + _missed(terms)


def _missed(terms: Terms) -> timedelta:
    """How long after the first evaluation that misses a series it is missing."""
    return terms.interval * (terms.missing_evaluations - 1)


def _levels(
    levels: Mapping[Severity, Phase], seen: Observation, now: datetime, terms: Terms
) -> Mapping[Severity, Phase]:
    if not levels and not seen.breached:
        return levels
    after = {}
    for severity in Severity:
        before = levels.get(severity)
        if seen.closed and (before is None or before.state is State.PENDING):
            continue  # outside the schedule nothing begins
        phase = _phase(before, severity in seen.breached, severity in seen.held, now, terms)
        if phase is not None:
            after[severity] = phase
    return after


def _phase(before: Phase | None, breached: bool, held: bool, now: datetime, terms: Terms) -> Phase | None:
    """One level, with the semantics of one Prometheus rule; held is breached to what fires, and not to the rest."""
    match before:
        case None:
            return _phase(Phase(State.PENDING, now), True, held, now, terms) if breached else None
        case Phase(State.PENDING, since):
            if not breached:
                return None
            return Phase(State.FIRING, now) if now - since >= terms.pending_period else before
        case Phase(State.FIRING):
            if breached or held:
                return before
            return Phase(State.RECOVERING, now) if terms.keep_firing_for else None
        case Phase(State.RECOVERING, since):
            if breached or held:
                return Phase(State.FIRING, now)
            return before if now - since < terms.keep_firing_for else None
    return before


def _reason(before: Life | None, after: Life | None, seen: Observation, *, shifted: bool) -> Reason | None:
    if after is None or (
        before is not None
        and (after.state, after.severity, after.levels) == (before.state, before.severity, before.levels)
    ):
        return None
    if before is not None and shifted and (after.state, after.severity) == (before.state, before.severity):
        return Reason.RESTART
    if seen.closed and after.state is State.INACTIVE and seen.breached:
        return Reason.SCHEDULE
    return seen.absent or (seen.because if seen.breached else Reason.VALUE)


def _remembering(
    past: Life | None,
    before: Life | None,
    after: Life | None,
    reason: Reason | None,
    absent_since: datetime | None,
    now: datetime,
    terms: Terms,
) -> Step:
    """The step with what the series has been through: changes of late, and whether it flaps."""
    if after is None:
        if past is None or past.flapping_since is None:
            return Step(None, None)
        after = past  # over, but it may cease to flap
    changes = past.changes if past is not None else ()
    if _standing(before) != _standing(after):
        changes = flapping.with_change(changes, now, terms.interval) if terms.flaps else ()
    since = None if past is None else past.flapping_since
    flaps = terms.flaps and flapping.judge(changes, now=now, interval=terms.interval, flaps=since is not None)
    if flaps == (since is not None):
        news = None
    else:
        news, since = flaps, now if flaps else None
    if after is past or (after.absent_since, after.changes, after.flapping_since) != (absent_since, changes, since):
        after = replace(after, absent_since=absent_since, changes=changes, flapping_since=since)
    return Step(after, reason, news)


def _standing(life: Life | None) -> Severity | None:
    """What a check says of flapping's mind: how bad it is, None where nothing fires."""
    return life.severity if life is not None and life.state in ACTIVE else None


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
    Reason.ERROR: "The rule's expression could not be evaluated.",
    Reason.SCHEDULE: "Outside the rule's schedule nothing begins.",
}
