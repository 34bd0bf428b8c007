"""What an evaluation of one rule means for each of its series: the next step of every alert, and why. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from apps.alerting.identity import NAME, fingerprint
from apps.alerting.lifecycle import NO_TIME, Life, Observation, Reason, Severity, Step, Terms, step
from apps.alerting.plans import RulePlan
from apps.alerting.thresholds import FEW, breaches, representative, representative_of
from apps.promql.errors import LimitError, QueryError
from apps.promql.result import Result

MOST: Final = 20_000
"""Series of one rule that may be wrong at once; a rule above it has an error, not that many alerts."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When it is, how long nobody looked before, and whether the sources may still be coming back."""

    now: datetime
    unobserved: timedelta = NO_TIME
    settling: bool = False


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
    released: frozenset[bytes]
    series: int
    breached: int
    value: float | None


def judge(
    rule: RulePlan,
    result: Result,
    lives: Mapping[bytes, Life],
    held: Mapping[bytes, datetime],
    circumstances: Circumstances,
) -> Judgement:
    """Compare every series of the result with the rule's levels and move the alerts on.

    `lives` are the rule's open alerts; `held` are identities that a person resolved while they were wrong: they do not
    come back before that time, unless the series was fine in between.
    """
    if result.kind not in ("vector", "scalar"):
        raise QueryError(f"the expression gives a {result.kind}; an alert rule needs a vector or a number")
    if not lives and not held and len(result.v) <= FEW:
        few = [value for (value,), (here,) in zip(result.v.tolist(), result.ok.tolist(), strict=True) if here]
        if not any(level.breaches(value) for value in few for level in rule.levels):
            return Judgement((), frozenset(), len(few), 0, representative_of(few, rule.levels))
    rows = np.flatnonzero(result.ok[:, 0])
    values = result.v[rows, 0]
    bad = breaches(values, rule.levels)
    if len(bad) > MOST:
        raise LimitError(f"{len(bad)} series breach this rule at once; more than {MOST} are not turned into alerts")
    summary = (len(rows), len(bad), representative(values, rule.levels))
    if not bad and not lives and not held:
        return Judgement((), frozenset(), *summary)
    seen = _rows(result, rows, list(bad))
    if len(seen) < len(bad):
        raise QueryError("vector contains metrics with the same labelset after applying alert labels")
    if not (lives.keys() | held.keys()) <= seen.keys():
        # Somebody is not among the bad ones: fine, or gone? Only then every series is looked at. Of series that differ
        # in their name only, and so are one alert, the bad one counts.
        seen = _rows(result, rows, range(len(rows))) | seen
    verdicts = tuple(_verdicts(rule, values, bad, seen, lives, held, circumstances))
    released = frozenset(
        identity
        for identity in held
        if (seen[identity][0] not in bad if identity in seen else not circumstances.settling)
    )
    return Judgement(verdicts, released, *summary)


def _rows(
    result: Result, rows: "np.typing.NDArray[np.int64]", wanted: "range | list[int]"
) -> dict[bytes, tuple[int, dict[str, str]]]:
    """Row number (among `rows`) and labels without the name, by identity."""
    found = {}
    for row, labels in zip(wanted, result.labels.take(rows[list(wanted)]).dicts(), strict=True):
        labels.pop(NAME, None)
        found[fingerprint(labels)] = (row, labels)
    return found


def _verdicts(
    rule: RulePlan,
    values: "np.typing.NDArray[np.float64]",
    bad: Mapping[int, frozenset[Severity]],
    seen: Mapping[bytes, tuple[int, dict[str, str]]],
    lives: Mapping[bytes, Life],
    held: Mapping[bytes, datetime],
    around: Circumstances,
) -> Iterator[Verdict]:
    for identity, (row, labels) in seen.items():
        breached = bad.get(row, frozenset())
        life = lives.get(identity)
        if life is None and not breached:
            continue
        terms, again = rule.terms, False
        if life is None and identity in held:
            if held[identity] > around.now:
                continue
            # It has been wrong all the while: the wait was served before the person came.
            terms, again = Terms(NO_TIME, rule.terms.keep_firing_for), True
        observation = Observation(breached, unobserved=around.unobserved)
        value = float(values[row])
        yield Verdict(identity, labels, value, life, step(life, observation, now=around.now, terms=terms), again)
    absent = Reason.VALUE
    if rule.tells_absent_from_well:
        absent = Reason.MISSING_SERIES if len(values) else Reason.NO_DATA
    for identity, life in lives.items():
        if identity not in seen:
            gone = Observation(absent=absent, unobserved=around.unobserved, settling=around.settling)
            yield Verdict(identity, {}, None, life, step(life, gone, now=around.now, terms=rule.terms))
