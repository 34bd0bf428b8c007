"""What an evaluation of one rule means for each of its series: the next step of every alert, and why. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from apps.alerting.identity import NAME, fingerprint
from apps.alerting.lifecycle import NO_TIME, OPEN, Life, Observation, Policy, Reason, Severity, Step, Terms, step
from apps.alerting.plans import RulePlan
from apps.alerting.thresholds import FEW, breaches, representative, representative_of
from apps.promql.errors import LimitError, QueryError
from apps.promql.result import Result

MOST: Final = 20_000
"""Series of one rule that may be wrong at once; a rule above it has an error, not that many alerts."""
PROBLEM: Final = "problem"
NO_DATA: Final = {PROBLEM: "no_data"}
FAILS: Final = {PROBLEM: "error"}
WHOLE: Final = fingerprint({})
"""The rule as a whole: fires where its expression gives nothing, or fails, and that shall fire."""
OF_NO_DATA: Final = fingerprint(NO_DATA)
OF_ERROR: Final = fingerprint(FAILS)
"""Alerts of their own, told apart from those of series by the label `problem`."""

Identities = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When it is, how long nobody looked before, and whether the sources may still be coming back.

    `recovered`: by severity, the series for which that level's recovery expression has a result; `grown`: tells which
    series were there already when new ones of now were not, asked only where a rule waits for new series.
    """

    now: datetime
    unobserved: timedelta = NO_TIME
    settling: bool = False
    recovered: Mapping[Severity, Identities] = field(default_factory=dict)
    grown: Callable[[], Identities | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One series: its identity, the labels and value of the expression (None: no value), its life and the step."""

    fingerprint: bytes
    labels: Mapping[str, str]
    value: float | None
    before: Life | None
    step: Step
    again: bool = False
    """It is still wrong after a person resolved it and the cooldown is over."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdicts for every series that is or was wrong, holds that are over, and the rule's line in the results."""

    verdicts: tuple[Verdict, ...]
    released: Identities
    series: int
    breached: int
    value: float | None


def judge(
    rule: RulePlan,
    result: Result,
    lives: Mapping[bytes, Life],
    held: Mapping[bytes, datetime],
    circumstances: Circumstances,
    past: Mapping[bytes, Life] | None = None,
) -> Judgement:
    """Compare every series of the result with the rule's levels and move the alerts on.

    `lives` are the rule's open alerts; `held` are identities that a person resolved while they were wrong: they do not
    come back before that time, unless the series was fine in between; `past` are lives that are over, for flapping.
    """
    if result.kind not in ("vector", "scalar"):
        raise QueryError(f"the expression gives a {result.kind}; an alert rule needs a vector or a number")
    past = past or {}
    closing = {key: life for key, life in past.items() if life.flapping_since is not None}
    if not lives and not held and not closing and len(result.v) <= FEW:
        few = [value for (value,), (here,) in zip(result.v.tolist(), result.ok.tolist(), strict=True) if here]
        if not any(level.breaches(value) for value in few for level in rule.levels) and (few or not _misses(rule)):
            return Judgement((), frozenset(), len(few), 0, representative_of(few, rule.levels))
    rows = np.flatnonzero(result.ok[:, 0])
    values = result.v[rows, 0]
    bad = breaches(values, rule.levels)
    if len(bad) > MOST:
        raise LimitError(f"{len(bad)} series breach this rule at once; more than {MOST} are not turned into alerts")
    summary = (len(rows), len(bad), representative(values, rule.levels))
    if not bad and not lives and not held and not closing and (len(rows) or not _misses(rule)):
        return Judgement((), frozenset(), *summary)
    seen = _rows(result, rows, list(bad))
    if len(seen) < len(bad):
        raise QueryError("vector contains metrics with the same labelset after applying alert labels")
    if not (lives.keys() | held.keys()) <= seen.keys():
        # Somebody is not among the bad ones: fine, or gone? Only then every series is looked at. Of series that differ
        # in their name only, and so are one alert, the bad one counts.
        seen = _rows(result, rows, range(len(rows))) | seen
    found = _Series(rule, values, bad, seen, circumstances)
    verdicts = (*found.there(lives, held, past), *found.gone(lives), *found.nothing_at_all(lives, past))
    steady = found.steady(closing, {verdict.fingerprint for verdict in verdicts} | lives.keys())
    released = frozenset(
        identity
        for identity in held
        if (seen[identity][0] not in bad if identity in seen else not circumstances.settling)
    )
    return Judgement((*verdicts, *steady), released, *summary)


def judge_failure(
    rule: RulePlan, lives: Mapping[bytes, Life], circumstances: Circumstances, past: Mapping[bytes, Life] | None = None
) -> tuple[Verdict, ...]:
    """What it means for the rule's alerts that its expression could not be evaluated, by its error policy."""
    around, past = circumstances, past or {}
    if rule.error_policy is Policy.KEEP:
        return ()
    seen = Observation(absent=Reason.ERROR, unobserved=around.unobserved)
    if rule.error_policy is Policy.FIRE:
        seen = Observation(rule.worst, because=Reason.ERROR, closed=_closed(rule, around), unobserved=around.unobserved)
    terms = replace(rule.terms, absent=Policy.OK, missing_evaluations=1)
    verdicts = []
    if rule.error_policy is not Policy.ALERT:
        verdicts = [
            Verdict(key, {}, None, life, step(life, seen, now=around.now, terms=terms)) for key, life in lives.items()
        ]
    own = {Policy.ALERT: (OF_ERROR, FAILS, rule.mildest), Policy.FIRE: (WHOLE, {}, rule.worst)}
    if rule.error_policy in own and (rule.error_policy is Policy.ALERT or not lives):
        key, labels, severities = own[rule.error_policy]
        breach = replace(seen, breached=severities, absent=None, because=Reason.ERROR, closed=_closed(rule, around))
        life = lives.get(key) or past.get(key)
        verdicts.append(Verdict(key, labels, None, life, step(life, breach, now=around.now, terms=terms)))
    return tuple(verdicts)


def _misses(rule: RulePlan) -> bool:
    """Whether it is to be told that the expression gives nothing."""
    return rule.terms.absent in (Policy.ALERT, Policy.FIRE)


def _closed(rule: RulePlan, around: Circumstances) -> bool:
    return rule.schedule is not None and not rule.schedule.covers(around.now)


def identities(result: Result) -> Identities:
    """The identities of everything that a result has a value for."""
    return frozenset(_rows(result, rows := np.flatnonzero(result.ok[:, 0]), range(len(rows))))


def _rows(
    result: Result, rows: "np.typing.NDArray[np.int64]", wanted: "range | list[int]"
) -> dict[bytes, tuple[int, dict[str, str]]]:
    """Row number (among `rows`) and labels without the name, by identity."""
    found = {}
    for row, labels in zip(wanted, result.labels.take(rows[list(wanted)]).dicts(), strict=True):
        labels.pop(NAME, None)
        found[fingerprint(labels)] = (row, labels)
    return found


def terms_of_nothing(terms: Terms) -> Terms:
    """How long an expression must give nothing: as long as its waits ask for, in as many evaluations."""
    more = terms.interval * (terms.missing_evaluations - 1)
    return replace(terms, pending_period=terms.pending_period + more, missing_evaluations=1)


class _Series:
    """What one evaluation found, and the steps that follow from it."""

    def __init__(
        self,
        rule: RulePlan,
        values: "np.typing.NDArray[np.float64]",
        bad: Mapping[int, frozenset[Severity]],
        seen: Mapping[bytes, tuple[int, dict[str, str]]],
        around: Circumstances,
    ) -> None:
        self.rule, self.values, self.bad, self.seen, self.around = rule, values, bad, seen, around
        self.closed = _closed(rule, around)

    def there(
        self, lives: Mapping[bytes, Life], held: Mapping[bytes, datetime], past: Mapping[bytes, Life]
    ) -> Iterator[Verdict]:
        """Series that have a value, where they are or were wrong."""
        rule, around = self.rule, self.around
        for identity, (row, labels) in self.seen.items():
            breached = self.bad.get(row, frozenset())
            life = lives.get(identity)
            if life is None and (not breached or not self._is_grown(identity)):
                continue
            terms, again = rule.terms, False
            if life is None and identity in held:
                if held[identity] > around.now:
                    continue
                # It has been wrong all the while: the wait was served before the person came.
                terms, again = replace(rule.terms, pending_period=NO_TIME), True
            value = float(self.values[row])
            life = life or past.get(identity)
            seen = Observation(
                breached, self._held(identity, value, breached, life), None, self.closed, around.unobserved
            )
            yield Verdict(identity, labels, value, life, step(life, seen, now=around.now, terms=terms), again)

    def gone(self, lives: Mapping[bytes, Life]) -> Iterator[Verdict]:
        """Alerts whose series has no value."""
        for identity, life in lives.items():
            if identity not in self.seen and (observation := self._absent(identity, life)) is not None:
                taken = step(life, observation, now=self.around.now, terms=self.rule.terms)
                yield Verdict(identity, {}, None, life, taken)

    def _absent(self, identity: bytes, life: Life) -> Observation | None:
        rule, around = self.rule, self.around
        some = bool(len(self.values))
        if identity in (OF_NO_DATA, OF_ERROR) or (identity == WHOLE and rule.terms.absent is Policy.FIRE):
            # It told of what is over now; that nothing comes at all is judged elsewhere.
            tells = rule.terms.absent is (Policy.ALERT if identity == OF_NO_DATA else Policy.FIRE)
            over = some or identity == OF_ERROR or not tells
            return Observation(unobserved=around.unobserved) if over else None
        if not rule.tells_absent_from_well:
            held = self._held(identity, None, frozenset(), life)
            absent = None if held else Reason.VALUE
            return Observation(frozenset(), held, absent, self.closed, around.unobserved, around.settling)
        absent = Reason.MISSING_SERIES if some else Reason.NO_DATA
        if rule.terms.absent is Policy.FIRE and not around.settling:
            return Observation(rule.worst, closed=self.closed, unobserved=around.unobserved, because=absent)
        return Observation(absent=absent, closed=self.closed, unobserved=around.unobserved, settling=around.settling)

    def nothing_at_all(self, lives: Mapping[bytes, Life], past: Mapping[bytes, Life]) -> Iterator[Verdict]:
        """An expression without any result, where that is worth an alert of its own."""
        rule, around = self.rule, self.around
        if len(self.values) or not _misses(rule) or around.settling or not rule.tells_absent_from_well:
            return
        fires = rule.terms.absent is Policy.FIRE
        if fires and lives.keys() - {WHOLE, OF_ERROR}:
            return  # they say it already
        key, labels, severities = (WHOLE, {}, rule.worst) if fires else (OF_NO_DATA, NO_DATA, rule.mildest)
        seen = Observation(severities, closed=self.closed, unobserved=around.unobserved, because=Reason.NO_DATA)
        life = lives.get(key) or past.get(key)
        terms = terms_of_nothing(rule.terms)
        yield Verdict(key, labels, None, life, step(life, seen, now=around.now, terms=terms))

    def steady(self, closing: Mapping[bytes, Life], others: "set[bytes]") -> Iterator[Verdict]:
        """Series that flap and are well at the moment: they may have ceased to."""
        for identity, life in closing.items():
            if identity not in others:
                taken = step(life, Observation(), now=self.around.now, terms=self.rule.terms)
                yield Verdict(identity, {}, None, life, taken)

    def _held(
        self, identity: bytes, value: float | None, breached: frozenset[Severity], life: Life | None
    ) -> frozenset[Severity]:
        """Levels that are neither breached nor recovered; they matter to what is open only."""
        if life is None or life.state not in OPEN:
            return frozenset()
        recovered = self.around.recovered
        return frozenset(
            level.severity
            for level in self.rule.levels
            if level.may_hold
            and level.severity not in breached
            and level.holds(value, identity in recovered.get(level.severity, ()))
        )

    def _is_grown(self, identity: bytes) -> bool:
        if not self.rule.new_series_delay:
            return True
        grown = self.around.grown()
        return grown is None or identity in grown
