"""How a running escalation goes on, as a pure function over its frozen plan: no clock, no tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apps.core.registry import UnknownKind
from apps.oncall.steps import Known, Moment, Outcome, steps

MOST_TURNS: Final = 1000
"""A dry run that goes on for longer than this is cut there."""
LEAST_ROUND: Final = timedelta(seconds=60)
"""A round that waited nowhere is followed by this pause: a policy without a wait must not page without a breath."""


ANY: Final = Moment(0, "critical", datetime(2000, 1, 1, tzinfo=UTC))
"""A moment for asking whom a step tells, which does not depend on it."""


@dataclass(frozen=True)
class Progress:
    """Where an escalation stands: the next step, counted from 0, and how often it has started over."""

    position: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Action:
    """A step that tells whom it `asked` for; `at` is the progress to come back to when it has to be held."""

    at: Progress
    asked: Outcome


@dataclass(frozen=True)
class Turn:
    """What happens now, where the escalation stands then and when it goes on (None: it has come to its end)."""

    actions: tuple[Action, ...]
    after: Progress
    due_at: datetime | None
    reason: str


def advance(plan: Sequence[Mapping[str, Any]], progress: Progress, *, now: datetime, severity: str) -> Turn:
    """Take steps from `progress` until one waits or the plan ends. `plan`: [{"kind", "config"}, …], as it was frozen.

    A step whose plug-in is gone is passed over and named; it never stops the ones behind it.
    """
    actions: list[Action] = []
    position, rounds = progress.position, progress.rounds
    reasons: list[str] = []
    has_waited = progress.position > 0
    while position < len(plan):
        step = plan[position]
        try:
            outcome = steps.get(str(step["kind"]))(step.get("config", {})).run(Moment(rounds, severity, now))
        except UnknownKind:
            reasons.append(f"step {position + 1} is of the unknown kind {step['kind']!r} and was passed over")
            position += 1
            continue
        reasons.append(f"step {position + 1} {outcome.reason}")
        if outcome.tells:
            actions.append(Action(Progress(position, rounds), outcome))
        position = min(position + 1 + outcome.skip, len(plan))
        pause = outcome.pause
        if outcome.restart:
            position, rounds = 0, rounds + 1
            pause = pause or (None if has_waited else LEAST_ROUND)
            has_waited = False
        if pause is not None:
            return Turn(tuple(actions), Progress(position, rounds), now + pause, "; ".join(reasons))
    reasons.append("the policy has come to its end")
    return Turn(tuple(actions), Progress(position, rounds), None, "; ".join(reasons))


@dataclass(frozen=True)
class Stage:
    """One turn of a dry run: when it is taken and what it comes to."""

    at: datetime
    turn: Turn


def play(
    plan: Sequence[Mapping[str, Any]], *, start: datetime, severity: str, most: int = MOST_TURNS
) -> tuple[Stage, ...]:
    """Take every step on a simulated clock as if nobody ever acknowledged, by the very function that runs live.

    At most `most` stages: the last one's `turn.due_at` is None unless the run was cut there.
    """
    stages: list[Stage] = []
    progress, due_at = Progress(), start
    while len(stages) < most:
        turn = advance(plan, progress, now=due_at, severity=severity)
        stages.append(Stage(due_at, turn))
        if turn.due_at is None:
            break
        progress, due_at = turn.after, turn.due_at
    return tuple(stages)


def spelled(plan: Sequence[Mapping[str, Any]], known: Known) -> list[str]:
    """Return each step in a few words, with the names that are `known`; one whose plug-in is gone says so."""
    words = []
    for step in plan:
        try:
            words.append(steps.get(str(step["kind"])).describe(step.get("config", {}), known))
        except UnknownKind:
            words.append(f"unknown step {step['kind']}")
    return words


def tells_somebody(plan: Sequence[Mapping[str, Any]], *, contacts: frozenset[int], has_route_contacts: bool) -> bool:
    """Whether any step would tell one of the contacts that can be told, the route's included, or the fall-back one.

    One that tells people counts: where none of them can be told, it tells the fall-back contact.
    """
    for step in plan:
        try:
            outcome = steps.get(str(step["kind"]))(step.get("config", {})).run(ANY)
        except UnknownKind:
            continue
        if (
            outcome.fallback
            or outcome.names_people
            or (outcome.route_contacts and has_route_contacts)
            or contacts & set(outcome.contacts)
        ):
            return True
    return False
