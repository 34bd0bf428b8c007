"""How a running escalation goes on, as a pure function over its frozen plan: no clock, no tables.

A plan is a list of steps {"kind", "config"}. Those of policies that are handed over to stand behind the policy's own;
each says whose it is ("policy") and where these begin ("begins"), and a step that hands over where it goes ("to").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apps.accounts.hours import Hours
from apps.core.registry import UnknownKind
from apps.oncall.steps import Known, Moment, Outcome, Step, steps

LEAST_ROUND: Final = timedelta(seconds=60)
"""A round that waited nowhere is followed by this pause: a policy without a wait must not page without a breath."""
MOST_HAND_OVERS: Final = 5
"""How often an escalation may be handed on."""
MOST_STEPS: Final = 1000
"""A plan has no more steps than this, those of other policies included."""

Plan = Sequence[Mapping[str, Any]]

ANY: Final = Moment(0, "critical", datetime(2000, 1, 1, tzinfo=UTC))
"""A moment for asking whom a step tells, which does not depend on it."""


@dataclass(frozen=True)
class Progress:
    """Where an escalation stands: the next step, counted from 0, and how often it has started over."""

    position: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Facts:
    """What the steps of a plan may ask about; see `Moment`."""

    began: tuple[datetime, ...] = ()
    calendars: Mapping[str, Hours] = field(default_factory=dict)
    was_reached: bool = False


NOTHING: Final = Facts()


@dataclass(frozen=True)
class Action:
    """A step that tells whom it `asked` for; `at` is the progress to come back to when it has to be held.

    `is_followed_up`: the next step is for the case that it reaches nobody, so nobody else is told in its place.
    """

    at: Progress
    asked: Outcome
    is_followed_up: bool = False


@dataclass(frozen=True)
class Taken:
    """A step that was taken: what it said, and whom it tells (`action`) or calls, if it does."""

    at: Progress
    kind: str
    reason: str
    action: Action | None = None
    call: int | None = None


@dataclass(frozen=True)
class Turn:
    """What happens now, where the escalation stands then and when it goes on (None: it has come to its end).

    Where it goes on now, the next step asks what came of this turn's actions (`Facts.was_reached`); `has_waited` is
    handed on to that turn.
    """

    taken: tuple[Taken, ...]
    after: Progress
    due_at: datetime | None
    reason: str
    has_waited: bool = False

    @property
    def actions(self) -> tuple[Action, ...]:
        """The steps that tell somebody."""
        return tuple(step.action for step in self.taken if step.action is not None)


def advance(
    plan: Plan,
    progress: Progress,
    *,
    now: datetime,
    severity: str,
    facts: Facts = NOTHING,
    has_waited: bool | None = None,
) -> Turn:
    """Take steps from `progress` until one waits, asks what came of those before it, or the plan ends.

    A step whose plug-in is gone is passed over and named; it never stops the ones behind it.
    """
    taken: list[Taken] = []
    position, rounds = progress.position, progress.rounds
    reasons: list[str] = []
    if has_waited is None:
        has_waited = position < len(plan) and position > _begin(plan, position)
    while position < len(plan):
        here, begin, end = Progress(position, rounds), _begin(plan, position), _end(plan, position)
        try:
            step = _opened(plan[position])
        except UnknownKind:
            words = f"{place(plan, position)} is of the unknown kind {plan[position]['kind']!r} and was passed over"
            reasons.append(words)
            taken.append(Taken(here, str(plan[position]["kind"]), words))
            position = position + 1 if position + 1 < end else len(plan)
            continue
        if step.looks_back and any(each.action for each in taken):
            return Turn(tuple(taken), here, now, "; ".join(reasons), has_waited)
        outcome = _outcome(step, Moment(rounds, severity, now, facts.began, facts.calendars, facts.was_reached))
        reason, action = outcome.reason, None
        if outcome.tells:
            action = Action(here, outcome, position + 1 < end and _looks_back(plan[position + 1]))
        onwards, pause = position + 1 + outcome.skip, outcome.pause
        position = onwards if onwards < end else len(plan)
        if outcome.restart:
            position, rounds = begin, rounds + 1
            pause = pause or (None if has_waited else LEAST_ROUND)
            has_waited = False
        if outcome.hand_over:
            to = plan[here.position].get("to")
            if to is None:
                reason += ", which is gone, has no steps or would come back here: passed over"
            else:
                position, rounds, has_waited = int(to), 0, False
        reasons.append(f"{place(plan, here.position)} {reason}")
        taken.append(Taken(here, step.kind, reason, action, outcome.call))
        if pause is not None:
            return Turn(tuple(taken), Progress(position, rounds), now + pause, "; ".join(reasons))
    reasons.append("the policy has come to its end")
    return Turn(tuple(taken), Progress(position, rounds), None, "; ".join(reasons))


def _outcome(step: Step, moment: Moment) -> Outcome:
    """Return what the step wants. One whose settings cannot be read any more wants nothing, and the next is taken."""
    try:
        return step.run(moment)
    except Exception as error:
        return Outcome(reason=f"cannot be taken and was passed over ({type(error).__name__}: {error})"[:300])


def _opened(row: Mapping[str, Any]) -> Step:
    return steps.get(str(row["kind"]))(row.get("config", {}))


def looks_back(plan: Plan) -> bool:
    """Whether one of its steps asks what came of those before it."""
    return any(_looks_back(step) for step in plan)


def _looks_back(row: Mapping[str, Any]) -> bool:
    try:
        return steps.get(str(row["kind"])).looks_back
    except UnknownKind:
        return False


def _begin(plan: Plan, position: int) -> int:
    """Return where the steps of the policy begin that this one belongs to."""
    return int(plan[position].get("begins", 0))


def _end(plan: Plan, position: int) -> int:
    """Return where they end."""
    begin = _begin(plan, position)
    return next((at for at in range(position + 1, len(plan)) if _begin(plan, at) != begin), len(plan))


def place(plan: Plan, position: int) -> str:
    """Return which step that is, as people count them; the plan may be of another time than the position."""
    if position >= len(plan):
        return f"step {position + 1}"
    whose = plan[position].get("policy")
    return f"step {position - _begin(plan, position) + 1}{f' of {whose}' if whose else ''}"


def whole(name: str, policies: Mapping[str, Plan]) -> list[dict[str, Any]]:
    """Return the plan of a policy with the steps of those that it hands over to; `policies` by name, their own steps.

    Each hand-over gets a copy behind the step that asks for it, so a plan only ever goes forward: one that would come
    back to a policy it came from, or goes too far, leads nowhere and is passed over.
    """
    plan: list[dict[str, Any]] = []

    def add(name: str, path: tuple[str, ...]) -> None:
        begins = len(plan)
        own = [{"kind": step["kind"], "config": step["config"]} for step in policies[name]]
        plan.extend(own if not path else [{**step, "policy": name, "begins": begins} for step in own])
        for step in plan[begins : begins + len(own)]:
            to = str(step["config"].get("policy", "")) if step["kind"] == "hand_over" else ""
            is_near = len(path) < MOST_HAND_OVERS and len(plan) + len(policies.get(to, ())) <= MOST_STEPS
            if policies.get(to) and to not in (*path, name) and is_near:
                step["to"] = len(plan)
                add(to, (*path, name))

    add(name, ())
    return plan


def hand_overs(plan: Plan) -> list[str]:
    """Return the names of the policies that the plan's steps hand over to."""
    return [str(step["config"].get("policy", "")) for step in plan if step["kind"] == "hand_over"]


def round_trip(name: str, policies: Mapping[str, Plan]) -> tuple[str, ...]:
    """Return the way, by names, on which a policy hands over to itself or for too often; empty: there is none."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen = 0
    while ways and seen < MOST_STEPS:
        way, seen = ways.pop(), seen + 1
        for to in hand_overs(policies.get(way[-1], ())):
            if to in way or len(way) > MOST_HAND_OVERS:
                return (*way, to)
            ways.append((*way, to))
    return ()


def looks_at(plan: Plan) -> timedelta:
    """Return how far back the plan's steps want to know when alerts began."""
    return max((_span(step) for step in plan), default=timedelta(0))


def _span(row: Mapping[str, Any]) -> timedelta:
    try:
        return _opened(row).looks_at
    except Exception:  # it is named and passed over when it is reached
        return timedelta(0)


def calendars(plan: Plan) -> set[str]:
    """Return the names of the calendars that the plan's steps ask."""
    return {str(step["config"]["calendar"]) for step in plan if step.get("config", {}).get("calendar")}


@dataclass(frozen=True)
class Line:
    """A step for people: how long after the start it is taken at the earliest (None: never), and what it does."""

    after: timedelta | None
    text: str
    policy: str = ""


def outline(plan: Plan, known: Known) -> list[Line]:
    """Return each step in plain words with the time at which it happens in the first round, if every condition holds.

    Steps behind one that hands over come too late; those of the other policy go on from there.
    """
    lines: list[Line] = []
    starts: dict[int, timedelta | None] = {0: timedelta(0)}
    after: timedelta | None = None
    is_conditional = 0
    for position, (step, text) in enumerate(zip(plan, spelled(plan, known), strict=True)):
        if position == _begin(plan, position):
            after, is_conditional = starts.get(position), 0
        lines.append(Line(after, text, str(step.get("policy", ""))))
        try:
            outcome = _outcome(_opened(step), ANY)
        except UnknownKind:
            continue
        if outcome.pause is not None and after is not None:
            after += outcome.pause
        if step.get("to") is not None:
            starts[int(step["to"])] = after
            after = after if is_conditional else None
        is_conditional = max(is_conditional - 1, int(step.get("config", {}).get("steps") or 0))
    return lines


def spelled(plan: Plan, known: Known) -> list[str]:
    """Return each step in a few words, with the names that are `known`; one whose plug-in is gone says so."""
    words = []
    for step in plan:
        try:
            words.append(steps.get(str(step["kind"])).describe(step.get("config", {}), known))
        except UnknownKind:
            words.append(f"unknown step {step['kind']}")
    return words


def tells_somebody(plan: Plan, *, contacts: frozenset[int], has_route_contacts: bool) -> bool:
    """Whether any step would tell one of the contacts that can be told, the route's included, or the fall-back one.

    One that tells people counts: where none of them can be told, it tells the fall-back contact, now or in the end.
    """
    for step in plan:
        try:
            outcome = _outcome(_opened(step), ANY)
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
