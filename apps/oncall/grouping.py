"""Which route an alert takes, which alerts are told together, when, and what a contact is to be told. Pure decisions.

Routing is Alertmanager's tree laid flat: routes in order, the first match wins unless it says `continue`. So are the
three timers, with one difference that its users ask for: a group in which nothing fires any more is told after
`group_wait`, not after `group_interval`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from apps.alerting.lifecycle import Severity
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
    firing of the same one is wrong: the cooldown runs from there. `is_muted`: nobody is paged for it now
    (apps.alerting.suppression), until `muted_until` or, if empty, until another alert ends; `was_muted`: so it was when
    its group was last looked at. `flaps_since`: its comings and goings are held back, once that was told, unless it is
    critical.
    """

    alert: int
    is_firing: bool
    rank: int
    is_acknowledged: bool = False
    told: Told | None = None
    identity_told_at: datetime | None = None
    cooldown: timedelta = timedelta(0)
    is_muted: bool = False
    muted_until: datetime | None = None
    was_muted: bool = False
    flaps_since: datetime | None = None

    @property
    def is_held(self) -> bool:
        """Whether it flaps and that was told: until it has ceased neither its comings nor its goings are."""
        return self.flaps_since is not None and self.rank < Severity.CRITICAL.rank and not self.begins_to_flap

    @property
    def begins_to_flap(self) -> bool:
        """Whether it is to be told, once, that it flaps."""
        told = self.told.at if self.told is not None else self.identity_told_at
        return self.flaps_since is not None and self.is_firing and (told is None or told < self.flaps_since)


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
    group (an escalation told it) is told nothing else. News that falls into the cooldown waits for its end, news of
    what is muted for the end of that.
    """
    owed = [s for s in standings if not s.is_firing and s.told is not None and not s.told.is_over]
    resolved = [s for s in owed if s.flaps_since is None or s.rank >= Severity.CRITICAL.rank]
    firing = [s for s in standings if s.is_firing]
    if not is_receiver:
        known = tuple(s.alert for s in firing if s.told) if resolved else ()
        return Decision((), known, _ids(resolved), _resolved_reason(firing), None)
    loud, unmuted_at = [s for s in firing if not s.is_muted], _unmuted_at(firing, now)
    flapping = {s.alert for s in loud if s.begins_to_flap and not s.is_acknowledged}
    raised = flapping | {s.alert for s in loud if _is_raised(s)}
    untold = [s for s in loud if s.told is None and not s.is_acknowledged and not s.is_held and s.alert not in flapping]
    new = {s.alert for s in untold if _may_at(s) <= now}
    due_again = any(_repeats(s) and s.alert not in raised and _repeat_at(s, repeat) <= now for s in loud)
    if not (raised or new or due_again or resolved):
        return Decision(next_at=_soonest(_next(loud, untold, repeat, now), unmuted_at))
    # A message that leaves anyway tells again what it may: so repeats of one group stay together.
    tells = bool(raised or new or due_again)
    news = {s.alert for s in loud if tells and _repeats(s) and s.alert not in raised and _may_at(s) <= now}
    news |= raised | new
    still = [s for s in firing if s.told is not None and s.alert not in news]
    reason = (
        "flapping: it comes and goes, which is told only when critical until it has ceased to"
        if flapping
        else "severity raised"
        if raised
        else _new_reason(standings, [s for s in loud if s.alert in new])
        if new
        else _resolved_reason(firing)
        if resolved
        else "repeat interval elapsed"
    )
    waiting = [s for s in untold if s.alert not in new]
    renewed = [_renewed(s, now) if s.alert in news else s for s in loud]
    next_at = _soonest(_next(renewed, waiting, repeat, now), unmuted_at)
    return Decision(tuple(s.alert for s in firing if s.alert in news), _ids(still), _ids(resolved), reason, next_at)


def _new_reason(standings: Sequence[Standing], new: Sequence[Standing]) -> str:
    if all(s.was_muted for s in new):
        return "no longer muted"
    return "new alert" if any(s.told for s in standings) else "first notification"


def _unmuted_at(firing: Sequence[Standing], now: datetime) -> datetime | None:
    return min((max(s.muted_until, now) for s in firing if s.is_muted and s.muted_until is not None), default=None)


def _soonest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def page(standings: Sequence[Standing], *, now: datetime) -> Decision:
    """Return what a contact is told when a step of an escalation names it: all that fires unacknowledged and unmuted.

    What it was told less than a cooldown ago it knows; news that falls into the cooldown of an earlier firing waits:
    `next_at` says until when the step has to be held.
    """
    firing = [s for s in standings if s.is_firing and not s.is_acknowledged]
    loud = [s for s in firing if not s.is_muted and not s.is_held]
    news = {s.alert for s in loud if _is_raised(s) or (_may_at(s) <= now and not (s.told and s.told.at >= now))}
    held = [_may_at(s) for s in loud if s.told is None and s.alert not in news]
    still = tuple(s.alert for s in firing if s.told is not None and s.alert not in news)
    told = tuple(s.alert for s in loud if s.alert in news)
    return Decision(told, still, (), "escalation" if news else "", min(held, default=None))


def _ids(standings: Sequence[Standing]) -> tuple[int, ...]:
    return tuple(s.alert for s in standings)


def _resolved_reason(firing: Sequence[Standing]) -> str:
    return "some alerts resolved" if firing else "all alerts resolved"


def _is_raised(s: Standing) -> bool:
    return s.begins_to_flap or (s.told is not None and s.rank > s.told.rank and not s.is_held)


def _may_at(s: Standing) -> datetime:
    """When the cooldown is over."""
    return _BEGINNING if s.identity_told_at is None else s.identity_told_at + s.cooldown


_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _repeats(s: Standing) -> bool:
    return s.told is not None and not s.is_acknowledged and not s.is_held


def _repeat_at(s: Standing, repeat: timedelta) -> datetime:
    return _may_at(s) if s.told is None else max(s.told.at + repeat, _may_at(s))


def _renewed(s: Standing, now: datetime) -> Standing:
    return replace(s, told=Told(now, s.rank), identity_told_at=now)


def _next(firing: Sequence[Standing], waiting: Sequence[Standing], repeat: timedelta, now: datetime) -> datetime | None:
    times = [_may_at(s) for s in waiting] + [_repeat_at(s, repeat) for s in firing if _repeats(s)]
    return min((max(time, now) for time in times), default=None)
