"""A policy on a simulated clock, by the very function that runs live: what tests of the pure machine look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from apps.oncall.escalation import NOTHING, Action, Facts, Plan, Progress, Turn, advance

MOST_TURNS: Final = 1000
"""A dry run that goes on for longer than this is cut there."""


@dataclass(frozen=True)
class Stage:
    """One turn of a dry run: when it is taken and what it comes to."""

    at: datetime
    turn: Turn


def play(
    plan: Plan,
    *,
    start: datetime,
    severity: str,
    most: int = MOST_TURNS,
    facts: Facts = NOTHING,
    reaches: Callable[[Sequence[Action], datetime], bool] = lambda actions, at: bool(actions),
) -> tuple[Stage, ...]:
    """Take every step on a simulated clock as if nobody ever acknowledged, by the very function that runs live.

    `reaches` says whether anybody is reached by these actions at that time. At most `most` stages: the last one's
    `turn.due_at` is None unless the run was cut there.
    """
    stages: list[Stage] = []
    progress, due_at = Progress(), start
    has_waited: bool | None = None
    while len(stages) < most:
        turn = advance(plan, progress, now=due_at, severity=severity, facts=facts, has_waited=has_waited)
        stages.append(Stage(due_at, turn))
        if turn.due_at is None:
            break
        if turn.actions:
            facts = replace(facts, was_reached=reaches(turn.actions[-1:], due_at))
        has_waited = turn.has_waited if turn.due_at == due_at else None
        progress, due_at = turn.after, turn.due_at
    return tuple(stages)
