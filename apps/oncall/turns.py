"""Whose turn it is among people who take turns. Pure; what was is kept in `RoundRobin` rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """Who is next (None: nobody can be told) and who was passed over for which reason, in order."""

    person: int | None
    passed: tuple[tuple[int, str], ...] = ()


def next_in_turn(people: Sequence[int], last: int | None, obstacles: Mapping[int, str]) -> Turn:
    """Return the first one behind `last` without an obstacle; where `last` takes turns no more, from the first one on.

    `people` are ids in order, `obstacles` say by id why somebody cannot be told now.
    """
    order = list(dict.fromkeys(people))
    begin = order.index(last) + 1 if last in order else 0
    passed: list[tuple[int, str]] = []
    for person in (*order[begin:], *order[:begin]):
        if person not in obstacles:
            return Turn(person, tuple(passed))
        passed.append((person, obstacles[person]))
    return Turn(None, tuple(passed))


def key(policy: int | None, people: Sequence[int], team: int | None) -> str:
    """Return what a step's turn is kept by: its policy and who takes turns, so that other edits do not disturb it."""
    text = json.dumps([policy, list(people), team])
    return hashlib.sha256(text.encode()).hexdigest()[:40]
