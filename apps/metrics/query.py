"""The only way to read numbers: samples by matchers, and PromQL over them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from django.db import connection
from django.db.models import Max, Min

from apps.accounts.permissions import EVERYTHING, Scope
from apps.metrics import listing, selection, storage
from apps.metrics.models import Batch, Block, CollectionSwitch, RetentionPolicy, Series
from apps.metrics.selection import UNHURRIED, Look, cursor_within, moment, select_joined, select_many
from apps.metrics.turns import Turns
from apps.promql import engine
from apps.promql.batch import Bundle, Joined
from apps.promql.engine import Cost, Explained, Limits
from apps.promql.errors import DeadlineExceeded, PromQLError
from apps.promql.labels import NAME, Labels
from apps.promql.limits import Watch
from apps.promql.result import Result
from apps.promql.series import STALE_BITS, Ragged
from apps.promql.source import Estimate, Matcher, Request

WAITED_FOR: Final = Limits(seconds=30)
"""What a query may cost for which a person or a program waits."""
OF_A_RULE: Final = Limits(seconds=10)
"""What one expression of a rule may cost: the rules of the same tick wait behind it."""
LOOKBACK: Final = timedelta(milliseconds=engine.LOOKBACK_MS)
HEAVY: Final = Turns(2)
"""Queries that read more than they may hold: each takes memory and a processor for seconds."""
Outrun = selection.Outrun


def select(matchers: Sequence[Matcher], tmin_ms: int, tmax_ms: int, *, scope: Scope = EVERYTHING) -> Ragged:
    """Samples with tmin < ts <= tmax (ms) of the series that all matchers and the scope accept; none without samples.

    Staleness markers are included bit for bit. What is damaged is missing, and a warning names the span. More than
    MOST samples are a LimitError.
    """
    return select_many([Request(tuple(matchers), tmin_ms, tmax_ms)], scope=scope)[0]


class Source:
    """The store as the engine sees it, through a scope; one object for one query."""

    def __init__(self, scope: Scope = EVERYTHING, watch: Watch = UNHURRIED) -> None:
        self.scope = scope
        self.watch = watch
        self._look: Look | None = None

    def watched(self, watch: Watch) -> "Source":
        """The same for a query that gives up when the watch says so."""
        return Source(self.scope, watch)

    def estimate(self, requests: Sequence[Request], enough: int = 0) -> list[Estimate]:
        """About what each request would bring; what was looked at is kept for reading it. See `SizedSource`."""
        look = self._look
        if look is None or not look.covers(requests):
            with cursor_within(self.watch) as cur:
                look = self._look = Look.whole(cur, requests, self.scope)
        most = look.most()
        if most * len(requests) <= enough:
            return [Estimate(len(look.series(request).ids), most) for request in requests]
        return [look.estimate(request) for request in requests]

    def turn(self) -> AbstractContextManager[None]:
        """See `Turns.take`: the turn of a heavy query, for which nobody waits with a connection in hand."""
        if not connection.in_atomic_block:
            connection.close()
        return HEAVY.take(self.watch)

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        """See `query.select`."""
        return self.select_many([Request(tuple(matchers), tmin, tmax)])[0]

    def select_many(self, requests: Sequence[Request]) -> list[Ragged]:
        """See `selection.select_many`."""
        look = self._look if self._look is not None and self._look.covers(requests) else None
        return select_many(requests, scope=self.scope, watch=self.watch, look=look)

    def select_joined(self, bundles: Sequence[Bundle]) -> list[Joined | PromQLError]:
        """See `selection.select_joined`."""
        return select_joined(bundles, scope=self.scope, watch=self.watch)


def instant(
    expr: str,
    *,
    at: datetime,
    scope: Scope = EVERYTHING,
    limits: Limits = WAITED_FOR,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
    lookback: timedelta = LOOKBACK,
) -> Result:
    """The value of a PromQL expression at one time. Raises PromQLError.

    plain: the portal's own functions are refused. `cancelled` is asked often, from this thread, whether nobody waits
    any more. `lookback`: how old the newest sample of a series may be.
    """
    return engine.instant(
        expr, Source(scope), _ms(at), limits=limits, lookback_ms=_span(lookback), plain=plain, cancelled=cancelled
    )


def query_range(
    expr: str,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    scope: Scope = EVERYTHING,
    limits: Limits = WAITED_FOR,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
    lookback: timedelta = LOOKBACK,
) -> Result:
    """The values of a PromQL expression at start, start + step, … up to end. Raises PromQLError. See `instant`."""
    return engine.query_range(
        expr,
        Source(scope),
        _ms(start),
        _ms(end),
        _span(step),
        limits=limits,
        lookback_ms=_span(lookback),
        plain=plain,
        cancelled=cancelled,
    )


def cost(
    expr: str,
    *,
    start: datetime,
    end: datetime,
    step: timedelta | None,
    scope: Scope = EVERYTHING,
    limits: Limits = WAITED_FOR,
    plain: bool = False,
    lookback: timedelta = LOOKBACK,
) -> Cost:
    """What a query would cost, as far as it is known without decoding; step None: at one time, `end`. PromQLError."""
    return engine.cost(
        expr,
        Source(scope),
        _ms(start),
        _ms(end),
        None if step is None else _span(step),
        limits=limits,
        lookback_ms=_span(lookback),
        plain=plain,
    )


def explain(
    expr: str,
    *,
    start: datetime,
    end: datetime,
    step: timedelta | None,
    scope: Scope = EVERYTHING,
    limits: Limits = WAITED_FOR,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
    lookback: timedelta = LOOKBACK,
) -> Explained:
    """The answer and what each part of the expression came to; step None: at one time, `end`. Raises PromQLError."""
    return engine.explain(
        expr,
        Source(scope),
        _ms(start),
        _ms(end),
        None if step is None else _span(step),
        limits=limits,
        lookback_ms=_span(lookback),
        plain=plain,
        cancelled=cancelled,
    )


def evaluate_many(
    exprs: Sequence[str], *, at: datetime, scope: Scope = EVERYTHING, limits: Limits = WAITED_FOR
) -> list[Result | PromQLError]:
    """Many expressions at one time from one snapshot; an expression's error is its answer, the limits hold for each.

    What is read for all of them together takes no longer than one of them may. Raises Outrun when it does.
    """
    try:
        return engine.evaluate_many(exprs, Source(scope), _ms(at), limits=limits)
    except DeadlineExceeded:
        raise Outrun(
            f"What {len(exprs)} expressions need could not be read within {limits.seconds:g} s; try again."
        ) from None


def _span(length: timedelta) -> int:
    return round(length.total_seconds() * 1000)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def metric_names(scope: Scope = EVERYTHING) -> list[str]:
    """Every metric name of which the scope shows a series, sorted."""
    if scope.matchers:
        return label_values(NAME, (), scope)
    return listing.metric_names()


def label_values(name: str, matchers: Sequence[Matcher] = (), scope: Scope = EVERYTHING) -> list[str]:
    """The distinct values of a label among matching series, sorted; "" (absent) is not one."""
    return listing.label_values(series(matchers, scope), name)


def series(matchers: Sequence[Matcher], scope: Scope = EVERYTHING) -> Labels:
    """The label sets of matching series."""
    return listing.series([matchers], scope=scope)


@dataclass(frozen=True, slots=True)
class Value:
    """The newest sample of a series, its labels without the name."""

    name: str
    labels: Mapping[str, str]
    value: float
    timestamp_ms: int


def latest(
    matchers: Sequence[Matcher],
    scope: Scope = EVERYTHING,
    *,
    at: datetime,
    max_age: timedelta = timedelta(minutes=5),
) -> list[Value]:
    """The newest sample of each matching series in (at - max_age, at], unless it ended the series."""
    end = _ms(at)
    got = select(matchers, end - round(max_age.total_seconds() * 1000), end, scope=scope)
    last = got.off[1:] - 1
    alive = np.flatnonzero(got.v[last].view(np.uint64) != STALE_BITS)
    last = last[alive]
    rows = zip(got.labels.take(alive).dicts(), got.v[last].tolist(), got.ts[last].tolist(), strict=True)
    return [Value(labels.pop(NAME, ""), labels, value, ms) for labels, value, ms in rows]


def latest_values(*, scope: Scope = EVERYTHING, at: datetime) -> list[Value]:
    """The newest sample of every live series."""
    return latest((), scope, at=at)


def oldest() -> int | None:
    """When the oldest sample is, or the oldest bucket ends (ms); None for an empty store."""
    found = [Batch.objects.aggregate(at=Min("t_min"))["at"]]
    for resolution in storage.WINDOWS_MS:
        blocks = Block.objects.filter(resolution=resolution)
        first = blocks.filter(window=blocks.order_by("window").values("window")[:1])
        found.append(first.aggregate(at=Min("t_min"))["at"])
    return min((at for at in found if at is not None), default=None)


def samples_gone_until(names: Collection[str] | None, *, after: datetime) -> datetime | None:
    """Until when samples of these metrics (None: of any) are gone, if after that moment: roll-ups answer for them."""
    policies = RetentionPolicy.objects.filter(raw_from__gt=_ms(after))
    if names is not None:
        policies = policies.filter(metrics__name__in=names)
    gone = policies.aggregate(at=Max("raw_from"))["at"]
    return None if gone is None else moment(gone)


def collection_on() -> bool:
    """Whether the collectors are meant to run."""
    switch = CollectionSwitch.objects.filter(pk=1).first()
    return switch is None or switch.on


def series_count() -> int:
    """How many series are there whose samples are kept."""
    return Series.objects.filter(gone_at=None).count()


def only_value(result: Result | PromQLError) -> float | None:
    """The number that an instant query came to; None for an error, for nothing and for more than one series."""
    if isinstance(result, PromQLError) or result.v.shape != (1, 1) or not result.ok.all():
        return None
    return float(result.v[0, 0])
