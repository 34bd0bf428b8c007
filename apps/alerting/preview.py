"""A rule, saved or not, over stored history: when it would have fired, for how long, and with which threshold less.

Read only: nothing is written, and everything is read through the scope and budget of who asks. The work goes slice by
slice of time, so that somebody can watch it and stop it; each slice is one range query whose matrix `replay` takes on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apps.accounts.rights import EVERYTHING, Principal, Scope
from apps.alerting.evaluation import labels_of
from apps.alerting.identity import NAME, fingerprint
from apps.alerting.lifecycle import Severity
from apps.alerting.plans import Question, RulePlan, question
from apps.alerting.replay import Event, Replay, Replayed, Slice
from apps.alerting.template_functions import Sample, TemplateError
from apps.alerting.templates import Context
from apps.metrics import query
from apps.metrics.budgets import limits_for
from apps.metrics.turns import Turns
from apps.promql.ast import walk
from apps.promql.errors import Cancelled, DeadlineExceeded, LimitError, PromQLError
from apps.promql.limits import Limits, Watch
from apps.promql.parser import parse
from apps.promql.result import Result

LONGEST: Final = timedelta(days=30)
MOST_VALUES: Final = 60_000_000
"""Series x evaluations of one preview: a minute's work."""
AT_ONCE: Final = 1_000_000
"""Values of one slice; and of how many a threshold can be suggested, since these are kept."""
KEPT: Final = 12_000_000
MOST_STEPS: Final = 10_000
MOST_FAILURES: Final = 50
"""Queries that a slice may be cut into to find the evaluations that fail."""
MOST_FIRINGS: Final = 1_000
POINTS: Final = 600
"""Of the chart."""
CANDIDATES: Final = 200
TURNS: Final = Turns(1)
"""Slices of previews take turns in a process: they are work for a processor, and pages want theirs."""

Ticks = NDArray[np.int64]


class Refused(Exception):
    """What is asked for cannot be previewed; says why and what would do."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is looked at: evaluations at the multiples of the interval in (start, end]."""

    start: datetime
    end: datetime

    def ticks(self, interval: timedelta) -> Ticks:
        """int64[n] ms."""
        step = _ms(interval)
        first = (_stamp(self.start) // step + 1) * step
        return np.arange(first, _stamp(self.end) + 1, step, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the evaluations are done."""

    done: int
    total: int


@dataclass(slots=True)
class Preview:
    """What a rule would have done. `curve`: per bucket of time (ms, least value, worst value, alerts that fire)."""

    rule: RulePlan
    span: Span
    evaluations: int = 0
    series: int = 0
    alerts: list[Replayed] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    flaps: int = 0
    failures: int = 0
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    curve: list[tuple[int, float | None, float | None, int]] = field(default_factory=list)
    history: "History | None" = None

    @property
    def firings(self) -> list[Replayed]:
        """The alerts that fired, in order of time."""
        return sorted((alert for alert in self.alerts if alert.fired_at is not None), key=_begin)

    @property
    def firing_time(self) -> timedelta:
        """How long they fired, all together."""
        return sum(
            ((alert.ended_at or self.span.end) - alert.fired_at for alert in self.alerts if alert.fired_at), timedelta()
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times in ISO format, spans in seconds."""
        found = self.firings
        weeks = (self.span.end - self.span.start) / timedelta(weeks=1)
        return {
            "start": self.span.start.isoformat(),
            "end": self.span.end.isoformat(),
            "interval": self.rule.terms.interval.total_seconds(),
            "evaluations": self.evaluations,
            "series": self.series,
            "alerts": len(found),
            "alerts_per_week": round(len(found) / weeks, 1),
            "pending_only": len(self.alerts) - len(found),
            "firing_seconds": self.firing_time.total_seconds(),
            "flaps": self.flaps,
            "failed_evaluations": self.failures,
            "error": self.error,
            "warnings": self.warnings,
            "firings": [_firing(alert) for alert in found[:MOST_FIRINGS]],
            "firings_left_out": max(0, len(found) - MOST_FIRINGS),
            "levels": [
                {
                    "severity": level.severity.value,
                    "comparison": level.comparison,
                    "threshold": level.threshold,
                    "recovery_threshold": level.recovery,
                }
                for level in self.rule.levels
            ],
            "curve": self.curve,
        }


def _begin(alert: Replayed) -> datetime:
    return alert.fired_at or alert.pending_at


def _firing(alert: Replayed) -> dict[str, Any]:
    return {
        "labels": dict(alert.labels),
        "pending_at": alert.pending_at.isoformat(),
        "start": None if alert.fired_at is None else alert.fired_at.isoformat(),
        "end": None if alert.ended_at is None else alert.ended_at.isoformat(),
        "severity": alert.worst.value,
        "peak": alert.peak if alert.peak is None or math.isfinite(alert.peak) else str(alert.peak),
        "flapping": alert.flapping,
    }


@dataclass(slots=True)
class History:
    """The slices of a preview, kept to be replayed with other thresholds."""

    slices: list[Slice] = field(default_factory=list)
    values: int = 0


def routing_labels(rule: RulePlan, alert: Replayed, severity: Severity) -> dict[str, str]:
    """The labels that the alert would have; `query` in its templates finds nothing, for it would look at now."""
    value = math.nan if alert.value is None else alert.value
    context = Context(alert.labels, value, alert.pending_at, _no_query, "")
    labels = labels_of(rule, alert.labels, severity.value, context)
    extra = {
        "type": rule.slug,
        "category": rule.category,
        "severity": severity.value,
        "service": rule.service or alert.labels.get("service", ""),
    }
    return {name: text for name, text in extra.items() if text} | labels


def _no_query(expression: str) -> list[Sample]:
    raise TemplateError("a preview asks no further queries")


# --- The work -----------------------------------------------------------------------------------------------------


def check_span(start: datetime, end: datetime) -> Span:
    """Refuse what is no span of history."""
    if end <= start:
        raise Refused("The end has to be after the start.")
    if end - start > LONGEST:
        raise Refused(f"At most {LONGEST.days} days can be previewed at once.")
    return Span(start, end)


def preview(
    rule: RulePlan,
    span: Span,
    *,
    by: Principal,
    cancelled: Callable[[], bool] | None = None,
    keep: bool = False,
) -> Iterator[Progress | Preview]:
    """Replay the rule over the span: Progress after each slice, at last the Preview. Refused, PromQLError, Cancelled.

    keep: the values are kept, as far as they are few enough, so that thresholds can be suggested.
    """
    return _Work(rule, span, by.scope, limits_for(by), cancelled).run(keep=keep)


def _by_its_scores(rule: RulePlan) -> RulePlan:
    """An adaptive rule is replayed over the scores that its band wrote at the time: it was outside above 1."""
    if not rule.adaptive:
        return rule
    if any(level.comparison for level in rule.levels):
        raise Refused("A rule with a band and with thresholds cannot be previewed yet: preview the thresholds alone.")
    levels = tuple(replace(level, comparison=">", threshold=1.0) for level in rule.levels)
    return replace(rule, question=question(f'anomaly:score{{band="{rule.adaptive}"}}'), levels=levels)


class _Work:
    def __init__(
        self,
        rule: RulePlan,
        span: Span,
        scope: Scope = EVERYTHING,
        limits: Limits | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        rule = _by_its_scores(rule)
        self.rule, self.span, self.scope, self.cancelled = rule, span, scope, cancelled
        self.limits = limits or query.OF_A_RULE
        self.ticks = span.ticks(rule.terms.interval)
        self.found = Preview(rule, span, evaluations=len(self.ticks))
        self.keys: dict[bytes, None] = {}
        self.attempts = 0

    def run(self, *, keep: bool) -> Iterator[Progress | Preview]:
        rule, found = self.rule, self.found
        steps = self.check()
        replay = Replay(rule)
        history: History | None = History() if keep else None
        curve = _Curve(len(self.ticks))
        for low in range(0, len(self.ticks), steps):
            with TURNS.take(Watch(self.limits.seconds, self.cancelled)):
                part = self.slice(self.ticks[low : low + steps])
                replay.take(part)
            curve.take(part)
            if history is not None:
                history.values += part.values.size
                if history.values > KEPT:
                    history = None
                else:
                    history.slices.append(part)
            yield Progress(min(low + steps, len(self.ticks)), len(self.ticks))
        found.alerts, found.events, found.flaps = replay.alerts, replay.events, replay.flaps
        found.series, found.history = len(self.keys), history
        found.curve = curve.rows(replay.alerts)
        yield found

    def check(self) -> int:
        """Refuse what cannot be done; return how many evaluations make a slice."""
        rule = self.rule
        if not len(self.ticks):
            raise Refused("The span is shorter than the interval of the rule's group.")
        for asked in (rule.question, *rule.recoveries.values()):
            if asked.error:
                raise Refused(asked.error)
            if any(getattr(node, "at", None) in ("start", "end") for node in walk(parse(asked.text))):
                raise Refused("@ start() and @ end() mean each evaluation by itself; they cannot be replayed.")
        start, end, step = _moment(self.ticks[0]), _moment(self.ticks[-1]), rule.terms.interval
        one = query.cost(rule.question.text, start=end, end=end, step=None, scope=self.scope, limits=self.limits)
        if one.refused:
            raise Refused(f"The rule is too large for a preview: {one.refused}.")
        width = max(1, one.points)
        if width * len(self.ticks) > MOST_VALUES:
            days = MOST_VALUES / width * (step / timedelta(days=1))
            raise Refused(
                f"Up to {width} series at {len(self.ticks)} evaluations are more values than a preview looks at "
                f"({MOST_VALUES // 1_000_000} million): choose at most {days:.2g} days, or fewer series."
            )
        steps = max(1, min(MOST_STEPS, AT_ONCE // width, len(self.ticks)))
        while steps > 1:
            last = self.ticks[min(steps, len(self.ticks)) - 1]
            whole = query.cost(
                rule.question.text, start=start, end=_moment(last), step=step, scope=self.scope, limits=self.limits
            )
            if not whole.refused:
                break
            steps //= 4
        gone = query.samples_gone_until(rule.question.reads, after=start)
        if gone is not None:
            self.found.warnings.append(
                f"Until {min(gone, end):%Y-%m-%d %H:%M} UTC samples are gone: that part was computed from roll-ups."
            )
        return max(1, steps)

    def slice(self, ticks: Ticks) -> Slice:
        """Evaluate the rule's expressions at these ticks."""
        rule = self.rule
        main = self.matrix(rule.question, ticks)
        recovered = {level: self.matrix(text, ticks).here() for level, text in rule.recoveries.items()}
        grown = None
        if rule.new_series_delay:
            grown = self.matrix(rule.question, ticks - _ms(rule.new_series_delay)).here()
        self.keys.update(dict.fromkeys(main.keys))
        return Slice(ticks, main.keys, main.labels, main.values, main.ok, main.fails, recovered, grown)

    def matrix(self, asked: Question, ticks: Ticks) -> "_Matrix":
        """One expression at these ticks; where it fails as a whole, the ticks at which it does are found by halves."""
        try:
            result = query.query_range(
                asked.text,
                start=_moment(ticks[0]),
                end=_moment(ticks[-1]),
                step=self.rule.terms.interval,
                scope=self.scope,
                limits=replace(self.limits, steps=MOST_STEPS + 1, points=max(self.limits.points, 2 * AT_ONCE)),
                cancelled=self.cancelled,
            )
        except (LimitError, DeadlineExceeded) as error:
            raise Refused(f"The rule is too large for a preview: {error}.") from None
        except Cancelled:
            raise
        except PromQLError as error:
            self.attempts += 1
            self.found.error = str(error)
            if len(ticks) == 1:
                self.found.failures += 1
                return _Matrix.failed(ticks)
            if self.attempts > MOST_FAILURES:
                raise Refused(f"The expression fails at many evaluations: {error}.") from None
            half = len(ticks) // 2
            return self.matrix(asked, ticks[:half]).followed_by(self.matrix(asked, ticks[half:]))
        for warning in result.warnings:
            if warning not in self.found.warnings and len(self.found.warnings) < 10:
                self.found.warnings.append(warning)
        return _Matrix.of(result, ticks, self.rule)


@dataclass(slots=True, eq=False)
class _Matrix:
    """Values by identity: keys and labels of S series, values and ok [S, n], fails bool[n]."""

    keys: list[bytes]
    labels: list[dict[str, str]]
    values: NDArray[np.float64]
    ok: NDArray[np.bool_]
    fails: NDArray[np.bool_]

    @classmethod
    def failed(cls, ticks: Ticks) -> "_Matrix":
        count = len(ticks)
        return cls([], [], np.empty((0, count)), np.empty((0, count), np.bool_), np.ones(count, np.bool_))

    @classmethod
    def of(cls, result: Result, ticks: Ticks, rule: RulePlan) -> "_Matrix":
        """Rows that differ in their name only are one series: the bad one counts, and two bad ones are an error."""
        labels = result.labels.dicts()
        for one in labels:
            one.pop(NAME, None)
        keys = [fingerprint(one) for one in labels]
        values, ok, fails = result.v, result.ok, np.zeros(len(ticks), np.bool_)
        if len(set(keys)) < len(keys):
            keys, labels, values, ok, fails = _merged(keys, labels, values, ok, rule)
        return cls(keys, labels, values, ok, fails)

    def here(self) -> dict[bytes, NDArray[np.bool_]]:
        """Where each series has a value."""
        return dict(zip(self.keys, self.ok, strict=True))

    def followed_by(self, other: "_Matrix") -> "_Matrix":
        """Both in a row."""
        keys = list(dict.fromkeys([*self.keys, *other.keys]))
        known = dict(zip(self.keys, self.labels, strict=True)) | dict(zip(other.keys, other.labels, strict=True))
        fails = np.concatenate([self.fails, other.fails])
        values, ok = np.full((len(keys), len(fails)), np.nan), np.zeros((len(keys), len(fails)), np.bool_)
        place = {key: row for row, key in enumerate(keys)}
        for part, low in ((self, 0), (other, len(self.fails))):
            rows = [place[key] for key in part.keys]
            values[rows, low : low + len(part.fails)] = part.values
            ok[rows, low : low + len(part.fails)] = part.ok
        return _Matrix(keys, [known[key] for key in keys], values, ok, fails)


def _merged(
    keys: list[bytes], labels: list[dict[str, str]], values: NDArray[np.float64], ok: NDArray[np.bool_], rule: RulePlan
) -> tuple[list[bytes], list[dict[str, str]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    bad = np.zeros(ok.shape, np.bool_)
    for level in rule.levels:
        bad |= level.breached(values) & ok
    first: dict[bytes, int] = {}
    values, ok, fails = values.copy(), ok.copy(), np.zeros(ok.shape[1], np.bool_)
    for row, key in enumerate(keys):
        kept = first.setdefault(key, row)
        if kept != row:
            fails |= bad[kept] & bad[row]
            better = ok[row] & (~ok[kept] | ~bad[kept])
            values[kept] = np.where(better, values[row], values[kept])
            ok[kept] |= ok[row]
            bad[kept] |= bad[row]
    rows = list(first.values())
    return [keys[row] for row in rows], [labels[row] for row in rows], values[rows], ok[rows], fails


class _Curve:
    """The chart: least and greatest value of all series in each of at most POINTS buckets, and how many alerts fire."""

    def __init__(self, ticks: int) -> None:
        self.width = max(1, math.ceil(ticks / POINTS))
        self.times: list[int] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def take(self, part: Slice) -> None:
        """Note the extremes of each tick; they are folded into buckets at the end."""
        values = np.where(part.ok & np.isfinite(part.values), part.values, np.nan)
        some = part.ok.any(axis=0)
        low, high = np.full(len(part.ticks), np.nan), np.full(len(part.ticks), np.nan)
        if values.size:
            low = np.fmin.reduce(values, axis=0, initial=np.nan)
            high = np.fmax.reduce(values, axis=0, initial=np.nan)
        self.times += part.ticks.tolist()
        self.low += np.where(some, low, np.nan).tolist()
        self.high += np.where(some, high, np.nan).tolist()

    def rows(self, alerts: Sequence[Replayed]) -> list[tuple[int, float | None, float | None, int]]:
        """One row a bucket."""
        times = np.array(self.times, dtype=np.int64)
        change = np.zeros(len(times) + 1, dtype=np.int64)
        for alert in alerts:
            if alert.fired_at is not None:
                change[np.searchsorted(times, _stamp(alert.fired_at))] += 1
                if alert.ended_at is not None:
                    change[np.searchsorted(times, _stamp(alert.ended_at))] -= 1
        firing = np.cumsum(change)[:-1]
        starts = np.arange(0, len(times), self.width)
        low = np.fmin.reduceat(np.array(self.low), starts)
        high = np.fmax.reduceat(np.array(self.high), starts)
        most = np.maximum.reduceat(firing, starts)
        return [
            (int(at), _finite(a), _finite(b), int(count))
            for at, a, b, count in zip(times[starts], low.tolist(), high.tolist(), most.tolist(), strict=True)
        ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- Suggestions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A threshold of a level with which it would have fired so often; None: there is none, `reason` says why."""

    severity: Severity
    threshold: float | None
    alerts: int
    reason: str = ""


def suggest(found: Preview, severity: Severity, *, per_week: float) -> Suggestion:
    """The mildest threshold of that level with which the span would have had at most so many alerts a week.

    A search by halves over quantiles of the values that were read, each replayed with the same steps.
    """
    level = next((one for one in found.rule.levels if one.severity is severity), None)
    if level is None or level.comparison not in (">", ">=", "<", "<="):
        return Suggestion(severity, None, 0, "Only a level with >, >=, < or <= has a threshold to be searched.")
    if found.history is None:
        return Suggestion(severity, None, 0, "Too many values to search: choose a shorter time.")
    values = np.concatenate([part.values[part.ok & np.isfinite(part.values)] for part in found.history.slices])
    if not len(values):
        return Suggestion(severity, None, 0, "There are no values in this time.")
    wanted = per_week * ((found.span.end - found.span.start) / timedelta(weeks=1))
    rising = level.comparison.startswith(">")
    places = np.concatenate([np.linspace(0, 0.9, 40), 1 - np.logspace(-1, -6, CANDIDATES - 40), [1.0]])
    choices = np.unique(np.quantile(values, places if rising else 1 - places, method="nearest"))
    if not rising:
        choices = choices[::-1]
    low, high = 0, len(choices) - 1
    counts: dict[int, int] = {}
    while low < high:
        middle = (low + high) // 2
        counts[middle] = _count(found, severity, float(choices[middle]))
        if counts[middle] <= wanted:
            high = middle
        else:
            low = middle + 1
    count = counts.get(low, _count(found, severity, float(choices[low])))
    return Suggestion(severity, _rounded(found, severity, float(choices[low]), count), count)


def _count(found: Preview, severity: Severity, threshold: float) -> int:
    """Alerts of that level alone, with that threshold; its recovery keeps its distance."""
    level = next(one for one in found.rule.levels if one.severity is severity)
    recovery = None
    if level.recovery is not None and level.threshold is not None:
        recovery = threshold + (level.recovery - level.threshold)
    replay = Replay(replace(found.rule, levels=(replace(level, threshold=threshold, recovery=recovery),)))
    for part in found.history.slices if found.history else ():
        replay.take(part)
    return sum(alert.fired_at is not None for alert in replay.alerts)


def _rounded(found: Preview, severity: Severity, threshold: float, count: int) -> float:
    """The shortest number with at least two digits that has the same effect."""
    for digits in range(2, 8):
        short = float(f"{threshold:.{digits}g}")
        if short == threshold or _count(found, severity, short) == count:
            return short
    return threshold


def _ms(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))


def _stamp(at: datetime) -> int:
    return _ms(at - datetime(1970, 1, 1, tzinfo=UTC))


def _moment(ms: Any) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(ms))
