"""A rule's life over a matrix of values: the transitions that live evaluation would have written. Pure.

The steps are those of live evaluation (`lifecycle.step`), taken only where something can change: numpy finds the runs
of equal observations of each series, `lifecycle.quiet_until` says when a wait within a run is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apps.alerting.judging import FAILS, MOST, NO_DATA, OF_ERROR, OF_NO_DATA, WHOLE, terms_of_nothing
from apps.alerting.lifecycle import (
    ACTIVE,
    OPEN,
    Life,
    Observation,
    Policy,
    Reason,
    Severity,
    State,
    Step,
    Terms,
    is_news,
    quiet_until,
    step,
)
from apps.alerting.plans import RulePlan

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint32]

_HELD: Final = 4
_PRESENT: Final = 1 << 8
_SOME: Final = 1 << 9
_CLOSED: Final = 1 << 10
_YOUNG: Final = 1 << 11
_FAILS: Final = 1 << 12
_ALONE: Final = 1 << 13
_BREACHED: Final = 0xF
_OWN: Final = frozenset({OF_NO_DATA, OF_ERROR, WHOLE})


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some evaluations in a row of a rule's expression.

    ticks int64[n] ms, one interval apart; keys and labels of S distinct series (without the name), values float64[S, n]
    valid where ok bool[S, n]; by severity and key, where the level's recovery expression had a result, bool[n]; by key,
    where the series was there already when new ones had to be, bool[n] (None: no rule asks); fails bool[n]: the
    expression could not be evaluated.
    """

    ticks: NDArray[np.int64]
    keys: Sequence[bytes]
    labels: Sequence[Mapping[str, str]]
    values: Floats
    ok: Mask
    fails: Mask
    recovered: Mapping[Severity, Mapping[bytes, Mask]] = field(default_factory=dict)
    grown: Mapping[bytes, Mask] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A transition: of state, severity or flapping, as a row would have it. `alert` numbers the alerts from 0."""

    at: datetime
    alert: int
    kind: str
    before: str
    after: str
    reason: Reason
    severity: Severity
    value: float | None


@dataclass(slots=True)
class Replayed:
    """One alert from its first breach: of which series, when it fired and ended, how bad it got."""

    number: int
    key: bytes
    labels: Mapping[str, str]
    value: float | None
    severity: Severity
    pending_at: datetime
    fired_at: datetime | None = None
    ended_at: datetime | None = None
    peak: float | None = None
    worst: Severity = Severity.INFO
    flapping: bool = False


class Replay:
    """Goes on from slice to slice, as evaluation does from tick to tick."""

    def __init__(self, rule: RulePlan) -> None:
        self.rule = rule
        self.alerts: list[Replayed] = []
        self.events: list[Event] = []
        self.lives: dict[bytes, Life] = {}
        self.flaps = 0
        self._known: dict[bytes, Mapping[str, str]] = {OF_NO_DATA: NO_DATA, OF_ERROR: FAILS, WHOLE: {}}
        self._latest: dict[bytes, Replayed] = {}
        self._seen: dict[tuple[int, bytes], tuple[Observation, Terms] | None] = {}
        self._least = bool(rule.levels) and rule.levels[0].comparison.startswith("<")

    def take(self, part: Slice) -> list[Event]:
        """Replay the slice that follows the last one and return its events, in order of time."""
        first = len(self.events)
        common, codes = self._codes(part)
        times = _Times(part.ticks)
        rows = {key: row for row, key in enumerate(part.keys)}
        values = np.where(part.ok, part.values, np.nan)
        nothing = np.full(len(part.ticks), np.nan)
        self._known.update(zip(part.keys, part.labels, strict=True))
        wrong = {part.keys[row] for row in np.flatnonzero((codes & _BREACHED).any(axis=1)).tolist()}
        keys = [*sorted((wrong | self.lives.keys()) - _OWN), OF_NO_DATA, OF_ERROR, WHOLE]
        was_open = sum(life.state in OPEN for key, life in self.lives.items() if key not in (WHOLE, OF_ERROR))
        for key in keys:
            row = rows.get(key)
            own = common if row is None else codes[row] | common
            if key == WHOLE:  # fires for the rule as a whole only where nothing else does
                alone = was_open + self._balance(first, times) == 0
                own = own | np.where(alone, _ALONE, 0).astype(np.uint32)
            self._series(key, own, nothing if row is None else values[row], times)
        self.events[first:] = sorted(self.events[first:], key=lambda event: (event.at, event.alert))
        return self.events[first:]

    # What was observed, as numbers

    def _codes(self, part: Slice) -> tuple[Codes, Codes]:
        """(uint32[n] of what all series have in common, uint32[S, n] of each): equal numbers, equal observations."""
        rule, count = self.rule, len(part.ticks)
        codes = np.where(part.ok, _PRESENT, 0).astype(np.uint32)
        breached = np.zeros(part.ok.shape, dtype=np.bool_)
        for level in rule.levels:
            bit, here = np.uint32(1 << level.severity.rank), level.breached(part.values) & part.ok
            breached |= here
            codes |= np.where(here, bit, np.uint32(0))
            if not level.may_hold:
                continue
            held = level.beyond_recovery(part.values) & part.ok
            if level.recovers:
                recovered = part.recovered.get(level.severity, {})
                back = np.array([recovered.get(key, np.zeros(count, np.bool_)) for key in part.keys])
                held |= ~back.reshape(part.ok.shape)
                if level.comparison:
                    held &= part.ok
            codes |= np.where(held & ~here, bit << _HELD, np.uint32(0))
        if part.grown is not None:
            grown = [part.grown.get(key, np.zeros(count, np.bool_)) for key in part.keys]
            codes |= np.where(np.array(grown).reshape(part.ok.shape), 0, _YOUNG).astype(np.uint32)
        fails = part.fails | (breached.sum(axis=0) > MOST)
        common = np.where(part.ok.any(axis=0), _SOME, 0) | np.where(fails, _FAILS, 0)
        if rule.schedule is not None:
            closed = [not rule.schedule.covers(_moment(tick)) for tick in part.ticks.tolist()]
            common |= np.where(closed, _CLOSED, 0)
        return common.astype(np.uint32), codes

    def _observation(self, code: int, key: bytes) -> tuple[Observation, Terms] | None:
        """What a code means for a series, and the terms by which it is judged; None: nobody judges it."""
        kind = key if key in _OWN else b""
        if (code, kind) not in self._seen:
            self._seen[code, kind] = self._meaning(code, kind)
        return self._seen[code, kind]

    def _meaning(self, code: int, kind: bytes) -> tuple[Observation, Terms] | None:
        rule, closed = self.rule, bool(code & _CLOSED)
        if code & _FAILS:
            return self._failure(code, kind)
        if kind in (OF_NO_DATA, OF_ERROR) or (
            kind == WHOLE and not code & _PRESENT and rule.terms.absent is Policy.FIRE
        ):
            return self._own(code, kind)
        breached, held = _severities(code), _severities(code >> _HELD)
        if code & _PRESENT:
            return Observation(breached, held, None, closed), rule.terms
        if not rule.tells_absent_from_well:
            recovering = frozenset(level.severity for level in rule.levels if level.recovers)
            held = held if held else frozenset()
            return Observation(frozenset(), held & recovering, None if held else Reason.VALUE, closed), rule.terms
        absent = Reason.MISSING_SERIES if code & _SOME else Reason.NO_DATA
        if rule.terms.absent is Policy.FIRE:
            return Observation(rule.worst, closed=closed, because=absent), rule.terms
        return Observation(absent=absent, closed=closed), rule.terms

    def _own(self, code: int, kind: bytes) -> tuple[Observation, Terms] | None:
        """Alerts of an expression that gives nothing at all."""
        rule, some = self.rule, bool(code & _SOME)
        tells = rule.terms.absent is (Policy.ALERT if kind == OF_NO_DATA else Policy.FIRE)
        if some or kind == OF_ERROR or not tells or not rule.tells_absent_from_well:
            return Observation(), rule.terms
        if kind == WHOLE and not code & _ALONE:
            return None
        severities = rule.worst if kind == WHOLE else rule.mildest
        closed = bool(code & _CLOSED)
        return Observation(severities, closed=closed, because=Reason.NO_DATA), terms_of_nothing(rule.terms)

    def _failure(self, code: int, kind: bytes) -> tuple[Observation, Terms] | None:
        """As `judging.judge_failure` has it."""
        rule, closed = self.rule, bool(code & _CLOSED)
        terms = replace(rule.terms, absent=Policy.OK, missing_evaluations=1)
        match rule.error_policy:
            case Policy.OK:
                return Observation(absent=Reason.ERROR), terms
            case Policy.ALERT if kind == OF_ERROR:
                return Observation(rule.mildest, closed=closed, because=Reason.ERROR), terms
            case Policy.FIRE:
                return Observation(rule.worst, closed=closed, because=Reason.ERROR), terms
        return None

    # Steps

    def _series(self, key: bytes, codes: Codes, values: Floats, times: "_Times") -> None:
        """Take one series through the slice."""
        starts = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
        life, first, running = self.lives.get(key), len(self.alerts), self._latest.get(key)
        for start, end in pairwise(starts):
            code = int(codes[start])
            meant = self._observation(code, key)
            if meant is None:
                continue
            seen, terms = meant
            place: int | None = start
            while place is not None and place < end and _matters(life, seen, code, key):
                now = times[place]
                taken = step(life, seen, now=now, terms=terms)
                if taken.after is not None and taken.after != life:
                    value = float(values[place]) if code & _PRESENT else None
                    self._note(key, life, taken, value, now)
                    life = taken.after
                until = quiet_until(life, seen, now=now, terms=terms)
                place = None if until is None else max(place + 1, times.place(until))
        if life is not None:
            self.lives[key] = life
        for alert in ([] if running is None else [running]) + self.alerts[first:]:
            self._peak(alert, values, times)

    def _note(
        self,
        key: bytes,
        before: Life | None,
        taken: Step,
        value: float | None,
        now: datetime,
    ) -> None:
        """Write down what a row would say."""
        after, reason, flaps = taken.after, taken.reason, taken.flapping
        if after is None:
            return
        begins = after.state in OPEN and (before is None or before.state not in OPEN)
        before = before if before is not None and before.state in OPEN else None
        if begins:
            alert = Replayed(len(self.alerts), key, self._known.get(key, {}), value, after.severity, now)
            self.alerts.append(alert)
            self._latest[key] = alert
        alert = self._latest[key]
        if value is not None:
            alert.value = value
        alert.severity = after.severity
        if reason is not None and (begins or before is not None):
            old = State.INACTIVE if before is None else before.state
            state, severity = is_news(before, after, reason)
            if after.state is State.FIRING and alert.fired_at is None:
                alert.fired_at, alert.peak = now, None
            if after.state in ACTIVE and after.severity.rank > alert.worst.rank:
                alert.worst = after.severity
            if after.state not in OPEN:
                alert.ended_at = now
            if state:
                self._event(alert, "state", old, after.state, reason, now)
            if severity and before is not None:
                self._event(alert, "severity", before.severity, after.severity, reason, now)
        if flaps is not None:
            self.flaps += flaps
            alert.flapping = alert.flapping or flaps
            names = ("steady", "flapping") if flaps else ("flapping", "steady")
            self._event(alert, "flapping", *names, Reason.VALUE, now)

    def _event(self, alert: Replayed, kind: str, before: str, after: str, reason: Reason, now: datetime) -> None:
        event = Event(now, alert.number, kind, str(before), str(after), reason, alert.severity, alert.value)
        self.events.append(event)

    def _balance(self, first: int, times: "_Times") -> NDArray[np.int64]:
        """int64[n]: how many alerts more than at the start are open before each tick, by the events from `first` on."""
        change = np.zeros(len(times.ticks) + 1, dtype=np.int64)
        for event in self.events[first:]:
            if event.kind == "state":
                opens, closes = event.before not in OPEN, event.after not in OPEN
                change[times.place(event.at) + 1] += opens and not closes
                change[times.place(event.at) + 1] -= closes and not opens
        return np.cumsum(change)[:-1]

    def _peak(self, alert: Replayed, values: Floats, times: "_Times") -> None:
        """The worst value that a firing has seen."""
        if alert.fired_at is None:
            return
        here = values[
            times.place(alert.fired_at) : len(values) if alert.ended_at is None else times.place(alert.ended_at)
        ]
        here = here[~np.isnan(here)]
        if len(here):
            found = float(here.min() if self._least else here.max())
            alert.peak = found if alert.peak is None else (min if self._least else max)(alert.peak, found)


def _matters(life: Life | None, seen: Observation, code: int, key: bytes) -> bool:
    """Whether live evaluation would look at the series at all."""
    if life is not None and life.state in OPEN:
        return True
    if code & _FAILS:
        return bool(seen.breached) and (key == OF_ERROR or (key == WHOLE and bool(code & _ALONE)))
    if seen.breached:
        return not code & _YOUNG if code & _PRESENT else key in _OWN
    return life is not None and life.flapping_since is not None


class _Times:
    """The ticks of a slice as moments and back."""

    def __init__(self, ticks: NDArray[np.int64]) -> None:
        self.ticks = ticks
        self._list = ticks.tolist()

    def __getitem__(self, place: int) -> datetime:
        return _moment(self._list[place])

    def place(self, at: datetime) -> int:
        """The first tick at or after that moment."""
        return int(np.searchsorted(self.ticks, _ms(at)))


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(at: datetime) -> int:
    return round((at - _EPOCH) / timedelta(milliseconds=1))


def _severities(bits: int) -> frozenset[Severity]:
    return _BITS[bits & _BREACHED]


_BITS: Final = [frozenset(s for s in Severity if bits >> s.rank & 1) for bits in range(16)]
