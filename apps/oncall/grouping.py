"""Which route an alert takes, which alerts are told together, when, and what a contact is to be told. Pure decisions.

Routing is Alertmanager's tree laid flat: routes in order, the first match wins unless it says `continue`. So are the
three timers, with one difference that its users ask for: a group in which nothing fires any more is told after
`group_wait`, not after `group_interval`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from apps.alerting.matching import accept
from apps.promql.source import Matcher
from apps.promql.text import quote

LONGEST_KEY: Final = 1500
EACH: Final = "..."
"""In group_by: every alert by itself."""


@dataclass(frozen=True)
class RouteSpec:
    """A route as routing sees it."""

    id: int
    matchers: tuple[Matcher, ...]
    continue_matching: bool = False


def matching(routes: Sequence[RouteSpec], labels: Mapping[str, str]) -> list[int]:
    """Return the ids of the routes that alerts with these labels take; an absent label counts as the empty string."""
    taken = []
    for route in routes:
        if accept(route.matchers, labels):
            taken.append(route.id)
            if not route.continue_matching:
                break
    return taken


def group_labels(group_by: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that alerts of one group have in common; absent ones are left out."""
    names = labels if EACH in group_by else group_by
    return {name: labels[name] for name in sorted(names) if labels.get(name)}


def group_key(receiver: str, labels: Mapping[str, str]) -> str:
    """Return the name of a group, stable for ever: the receiver ("route:3", "rule:7") and its labels.

    Labels that are longer than a database's index takes stand there as their digest.
    """
    text = f"{{{', '.join(f'{name}={quote(value)}' for name, value in labels.items())}}}"
    if len(text.encode()) > LONGEST_KEY:
        text = f"{{sha256={hashlib.sha256(text.encode()).hexdigest()}}}"
    return f"{receiver}/{text}"


# --- When ----------------------------------------------------------------------------------------------------------
class Event(Enum):
    """What can happen to a group between two messages."""

    JOINED = "an alert joined"
    RAISED = "an alert got worse"
    RESOLVED = "an alert ended, others fire"
    ALL_RESOLVED = "the last alert ended"


@dataclass(frozen=True)
class Timers:
    """Alertmanager's three: how long to gather, how long to rest between messages, when to tell again."""

    wait: timedelta
    interval: timedelta
    repeat: timedelta


def due_after(
    event: Event, *, due_at: datetime | None, flushed_at: datetime | None, now: datetime, timers: Timers
) -> datetime:
    """Return when the group is to be looked at after the event: never later than was planned (`due_at`) before it."""
    gathered = now + timers.wait
    rested = gathered if flushed_at is None else max(gathered, flushed_at + timers.interval)
    wanted = {Event.RAISED: now, Event.ALL_RESOLVED: gathered}.get(event, rested)
    return wanted if due_at is None else min(due_at, wanted)


# --- What ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Told:
    """What a contact was last told of this firing of the alert, and whether it was told of its end."""

    at: datetime
    rank: int
    is_over: bool = False


@dataclass(frozen=True)
class Standing:
    """One alert as one contact knows it.

    `rank` is that of its severity; `identity_told_at` the last time the contact was told that this alert or an earlier
    firing of the same one is wrong: the cooldown runs from there.
    """

    alert: int
    is_firing: bool
    rank: int
    is_acknowledged: bool = False
    told: Told | None = None
    identity_told_at: datetime | None = None
    cooldown: timedelta = timedelta(0)


@dataclass(frozen=True)
class Decision:
    """What one contact is to be told now: `firing` and `resolved` are news, `still` only completes the picture.

    Nothing in `firing` and `resolved` means no message. `next_at`: when there will be something to decide again,
    whatever happens meanwhile.
    """

    firing: tuple[int, ...] = ()
    still: tuple[int, ...] = ()
    resolved: tuple[int, ...] = ()
    reason: str = ""
    next_at: datetime | None = None

    @property
    def is_worth_a_message(self) -> bool:
        """Whether there is news."""
        return bool(self.firing or self.resolved)


def decide(standings: Sequence[Standing], *, now: datetime, repeat: timedelta, is_receiver: bool = True) -> Decision:
    """Return what a contact is told when its group is due.

    Who was told that an alert fires is told that it ended, whatever else holds. A contact that is no receiver of the
    group (an escalation told it) is told nothing else. News that falls into the cooldown waits for its end.
    """
    resolved = [s for s in standings if not s.is_firing and s.told is not None and not s.told.is_over]
    firing = [s for s in standings if s.is_firing]
    if not is_receiver:
        known = tuple(s.alert for s in firing if s.told) if resolved else ()
        return Decision((), known, _ids(resolved), _resolved_reason(firing), None)
    raised = [s for s in firing if s.told is not None and s.rank > s.told.rank]
    untold = [s for s in firing if s.told is None and not s.is_acknowledged]
    new = [s for s in untold if _may_at(s) <= now]
    due_again = [s for s in firing if _repeats(s) and s not in raised and _repeat_at(s, repeat) <= now]
    if not (raised or new or due_again or resolved):
        return Decision(next_at=_next(firing, untold, repeat, now))
    # A message that leaves anyway tells again what it may: so repeats of one group stay together.
    again = [s for s in firing if _repeats(s) and s not in raised and _may_at(s) <= now]
    news = [s for s in firing if s in raised or s in new or ((raised or new or due_again) and s in again)]
    still = [s for s in firing if s.told is not None and s not in news]
    reason = (
        "severity raised"
        if raised
        else ("new alert" if any(s.told for s in standings) else "first notification")
        if new
        else _resolved_reason(firing)
        if resolved
        else "repeat interval elapsed"
    )
    waiting = [s for s in untold if s not in new]
    renewed = [_renewed(s, now) if s in news else s for s in firing]
    return Decision(_ids(news), _ids(still), _ids(resolved), reason, _next(renewed, waiting, repeat, now))


def page(standings: Sequence[Standing], *, now: datetime) -> Decision:
    """Return what a contact is told when a step of an escalation names it: all that fires unacknowledged.

    What it was told less than a cooldown ago it knows; news that falls into the cooldown of an earlier firing waits:
    `next_at` says until when the step has to be held.
    """
    firing = [s for s in standings if s.is_firing and not s.is_acknowledged]
    news = [s for s in firing if _is_raised(s) or (_may_at(s) <= now and not (s.told and s.told.at >= now))]
    held = [_may_at(s) for s in firing if s.told is None and s not in news]
    still = tuple(s.alert for s in firing if s.told is not None and s not in news)
    return Decision(_ids(news), still, (), "escalation" if news else "", min(held, default=None))


def _ids(standings: Sequence[Standing]) -> tuple[int, ...]:
    return tuple(s.alert for s in standings)


def _resolved_reason(firing: Sequence[Standing]) -> str:
    return "some alerts resolved" if firing else "all alerts resolved"


def _is_raised(s: Standing) -> bool:
    return s.told is not None and s.rank > s.told.rank


def _may_at(s: Standing) -> datetime:
    """When the cooldown is over."""
    return _BEGINNING if s.identity_told_at is None else s.identity_told_at + s.cooldown


_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _repeats(s: Standing) -> bool:
    return s.told is not None and not s.is_acknowledged


def _repeat_at(s: Standing, repeat: timedelta) -> datetime:
    return _may_at(s) if s.told is None else max(s.told.at + repeat, _may_at(s))


def _renewed(s: Standing, now: datetime) -> Standing:
    return Standing(s.alert, s.is_firing, s.rank, s.is_acknowledged, Told(now, s.rank), now, s.cooldown)


def _next(firing: Sequence[Standing], waiting: Sequence[Standing], repeat: timedelta, now: datetime) -> datetime | None:
    times = [_may_at(s) for s in waiting] + [_repeat_at(s, repeat) for s in firing if _repeats(s)]
    return min((max(time, now) for time in times), default=None)
