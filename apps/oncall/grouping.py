"""Which route an alert takes, which alerts are told together, when, and what a contact is to be told. Pure decisions.

Routing is Alertmanager's tree laid flat: routes in order, the first match wins unless it says `continue`. So are the
three timers, with one difference that its users ask for: a group in which nothing fires any more is told after
`group_wait`, not after `group_interval`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from apps.alerting.lifecycle import Severity
from apps.promql.errors import PromQLError
from apps.promql.source import Matcher
from apps.promql.text import quote

EACH: Final = "..."
"""In group_by: every alert by itself."""
_MATCHER: Final = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*\Z", re.DOTALL)
_ESCAPES: Final = {"n": "\n", '"': '"', "\\": "\\"}


class MatcherError(ValueError):
    """A matcher that cannot be read; says what is wrong with it."""


def parse_matcher(text: str) -> Matcher:
    """Read one matcher in Alertmanager's spelling; the quotes may be left out.

    >>> parse_matcher('service=~"db|web"')
    Matcher(name='service', op='=~', value='db|web')
    """
    found = _MATCHER.match(text)
    if found is None:
        raise MatcherError(f'{text!r} is no matcher: write a label, one of = != =~ !~, and a value in "quotes".')
    name, op, value = found.groups()
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"'):
            raise MatcherError(f"{text!r} is no matcher: its closing quote is missing.")
        value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), value[1:-1], flags=re.DOTALL)
    matcher = Matcher(name, op, value)  # type: ignore[arg-type]
    try:
        matcher.matches("")
    except (PromQLError, ValueError) as error:
        raise MatcherError(f"{text!r} holds no regular expression that can be used: {error}") from None
    return matcher


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
        if all(matcher.matches(labels.get(matcher.name, "")) for matcher in route.matchers):
            taken.append(route.id)
            if not route.continue_matching:
                break
    return taken


def group_labels(group_by: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that alerts of one group have in common; absent ones are left out."""
    names = labels if EACH in group_by else group_by
    return {name: labels[name] for name in sorted(names) if labels.get(name)}


def group_key(receiver: str, labels: Mapping[str, str]) -> str:
    """Return the name of a group, stable for ever: the receiver ("route:3", "rule:7") and its labels."""
    return f"{receiver}/{{{', '.join(f'{name}={quote(value)}' for name, value in labels.items())}}}"


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
    firing of the same one is wrong: the cooldown runs from there. `flaps_since`: its comings and goings are held back,
    once that was told, unless it is critical.
    """

    alert: int
    is_firing: bool
    rank: int
    is_acknowledged: bool = False
    told: Told | None = None
    identity_told_at: datetime | None = None
    cooldown: timedelta = timedelta(0)
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
    group (an escalation told it) is told nothing else. News that falls into the cooldown waits for its end.
    """
    owed = [s for s in standings if not s.is_firing and s.told is not None and not s.told.is_over]
    resolved = [s for s in owed if s.flaps_since is None or s.rank >= Severity.CRITICAL.rank]
    firing = [s for s in standings if s.is_firing]
    if not is_receiver:
        known = tuple(s.alert for s in firing if s.told) if resolved else ()
        return Decision((), known, _ids(resolved), _resolved_reason(firing), None)
    flapping = [s for s in firing if s.begins_to_flap and not s.is_acknowledged]
    raised = flapping + [s for s in firing if _is_raised(s) and s not in flapping]
    untold = [s for s in firing if s.told is None and not s.is_acknowledged and not s.is_held and s not in flapping]
    new = [s for s in untold if _may_at(s) <= now]
    due_again = [s for s in firing if _repeats(s) and s not in raised and _repeat_at(s, repeat) <= now]
    if not (raised or new or due_again or resolved):
        return Decision(next_at=_next(firing, untold, repeat, now))
    # A message that leaves anyway tells again what it may: so repeats of one group stay together.
    again = [s for s in firing if _repeats(s) and s not in raised and _may_at(s) <= now]
    news = [s for s in firing if s in raised or s in new or ((raised or new or due_again) and s in again)]
    still = [s for s in firing if s.told is not None and s not in news]
    reason = (
        "flapping: it comes and goes, which is told only when critical until it has ceased to"
        if flapping
        else "severity raised"
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
    paged = [s for s in firing if not s.is_held]
    news = [s for s in paged if _is_raised(s) or (_may_at(s) <= now and not (s.told and s.told.at >= now))]
    held = [_may_at(s) for s in paged if s.told is None and s not in news]
    still = tuple(s.alert for s in firing if s.told is not None and s not in news)
    return Decision(_ids(news), still, (), "escalation" if news else "", min(held, default=None))


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
