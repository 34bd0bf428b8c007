"""The only way to read numbers: samples by matchers, and PromQL over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Final

import numpy as np
import psycopg
from django.db.models import Min
from django.utils import timezone
from numpy.typing import NDArray

from apps.accounts.permissions import EVERYTHING, Scope
from apps.core.telemetry import Counter
from apps.metrics import catalog, storage, young
from apps.metrics.assembly import Damaged, Piece, Tombstone, Wanted, assemble, without_buried
from apps.metrics.catalog import Found
from apps.metrics.codec import Corrupt, View, offsets
from apps.metrics.models import Batch, Block, CollectionSwitch, Series
from apps.metrics.storage import BlockRow, Range
from apps.metrics.young import Gone, Run
from apps.promql import engine
from apps.promql.engine import Limits
from apps.promql.errors import PromQLError
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.result import Result
from apps.promql.series import STALE_BITS, Ragged
from apps.promql.source import Matcher, Request

DAMAGED: Final = Counter("portal_store_damaged_total", "Stored rows that could not be decoded when they were read.")
ATTEMPTS: Final = 8
"""Tries to get a snapshot's rows before compaction takes one away; it needs seconds between two rounds."""
PATIENCE: Final = 5.0
"""Seconds for which a reader goes on beyond them: on a busy machine it is at times held up between list and rows."""
WAITED_FOR: Final = Limits(seconds=30)
"""What a query may cost for which a person or a program waits."""
MOST: Final = WAITED_FOR.samples
"""Samples that one request may bring; more would fill the memory of a process that serves others, too."""
OF_A_RULE: Final = Limits(seconds=10)
"""What one expression of a rule may cost: the rules of the same tick wait behind it."""


class Outrun(Exception):
    """Compaction was faster than the reader, several times in a row; to be tried again."""


def select(matchers: Sequence[Matcher], tmin_ms: int, tmax_ms: int, *, scope: Scope = EVERYTHING) -> Ragged:
    """Samples with tmin < ts <= tmax (ms) of the series that all matchers and the scope accept; none without samples.

    Staleness markers are included bit for bit. What is damaged is missing, and a warning names the span. More than
    MOST samples are a LimitError.
    """
    return select_many([Request(tuple(matchers), tmin_ms, tmax_ms)], scope=scope)[0]


def select_many(requests: Sequence[Request], *, scope: Scope = EVERYTHING) -> list[Ragged]:
    """The answers to several requests, all of one moment."""
    narrowed = tuple(Matcher(name, op, value) for name, op, value in scope.matchers)  # type: ignore[arg-type]
    with storage.cursor() as cur:
        answers = catalog.current().find_many(cur, [(*request.matchers, *narrowed) for request in requests])
        asked = list(zip(requests, answers, strict=True))
        needs = [_bounds(request, found) for request, found in asked if len(found.ids)]
        if not needs:
            return [Ragged.empty() for _ in requests]
        loaded = _load(cur, needs)
    return [_answer(request, found, loaded) if len(found.ids) else Ragged.empty() for request, found in asked]


def _bounds(request: Request, found: Found) -> Range:
    return Range(
        request.tmin,
        request.tmax,
        found.metric_min,
        found.metric_max,
        int(found.ids.min()),
        int(found.ids.max()),
    )


@dataclass(frozen=True, slots=True)
class _Damage:
    """A stored row that cannot be decoded: what it is, and why."""

    row: BlockRow
    name: str
    reason: str

    def __str__(self) -> str:
        begin, end = (f"{_moment(ms):%Y-%m-%d %H:%M:%S}" for ms in (self.row.t_min, self.row.t_max))
        return (
            f"{self.row.samples} samples between {begin} and {end} UTC are missing: {self.name} is damaged "
            f"({self.reason}). Restore it from a backup; `manage.py store check` lists all damage."
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What one snapshot holds for some requests, decoded as far as it could be."""

    blocks: Sequence[tuple[BlockRow, View]]
    runs: Sequence[Run]
    damage: Sequence[_Damage]
    tombstones: Sequence[Tombstone]


def _load(cur: "psycopg.Cursor[Any]", needs: Sequence[Range]) -> _Loaded:
    """A snapshot that covers all ranges, with its rows; starts anew when compaction has taken one away meanwhile."""
    union = Range(
        min(need.tmin for need in needs),
        max(need.tmax for need in needs),
        min(need.metric_min for need in needs),
        max(need.metric_max for need in needs),
        min(need.series_min for need in needs),
        max(need.series_max for need in needs),
    )
    ends = monotonic() + PATIENCE
    tries = 0
    while tries < ATTEMPTS or monotonic() < ends:
        tries += 1
        seen = storage.snapshot(cur, union)
        rows = [row for row in seen.blocks if any(row.may_hold(need) for need in needs)]
        try:
            views, damage = _blocks(cur, rows)
            runs, more = _runs(cur, seen.young, union)
        except Gone:
            continue
        return _Loaded([(row, views[row.id]) for row in rows if row.id in views], runs, damage + more, seen.tombstones)
    raise Outrun("The store was being rewritten faster than it could be read; try again.")


def _blocks(cur: "psycopg.Cursor[Any]", rows: Sequence[BlockRow]) -> tuple[dict[int, View], list[_Damage]]:
    """(the blocks by id, the damaged ones); raises Gone."""
    views = storage.cache().get([row.id for row in rows])
    missing = {row.id: row for row in rows if row.id not in views}
    fetched = storage.fetch(cur, 1, list(missing))
    if len(fetched) != len(missing):
        raise Gone
    new: dict[int, View] = {}
    damage = {}
    for ident, directory, payload, crc in fetched:
        try:
            new[ident] = View(directory, payload, crc)
        except Corrupt as error:
            damage[ident] = _Damage(missing[ident], f"block {ident}", str(error))
    _mark(1, [ident for ident in damage if not missing[ident].bad])
    storage.cache().put(new)
    return {**views, **new}, list(damage.values())


def _runs(cur: "psycopg.Cursor[Any]", rows: NDArray[Any], bounds: Range) -> tuple[Sequence[Run], list[_Damage]]:
    """(the young samples, the damaged young rows); raises Gone. Nothing when none is of that time."""
    if not ((rows["t_max"] > bounds.tmin) & (rows["t_min"] <= bounds.tmax)).any():
        return (), []
    fetch = partial(storage.fetch, cur, 0)
    runs, damaged = young.held().read(rows["id"], rows["samples"], fetch)
    if not damaged:
        return runs, []
    listed = storage.young_rows(rows[np.isin(rows["id"], list(damaged))])
    _mark(0, [row.id for row in listed if not row.bad])
    return runs, [_Damage(row, f"batch {row.id}", damaged[row.id]) for row in listed]


def _mark(kind: int, new: Sequence[int]) -> None:
    if new:
        DAMAGED.inc(len(new))
        storage.mark_bad(kind, new, timezone.now())


def _answer(request: Request, found: Found, loaded: _Loaded) -> Ragged:
    bounds = _bounds(request, found)
    damage = [str(one) for one in loaded.damage if one.row.may_hold(bounds)]
    pieces = [
        Piece(row.round, row.t_min, view, f"block {row.id}") for row, view in loaded.blocks if row.may_hold(bounds)
    ]
    pieces += [
        Piece(storage.YOUNG, run.t_min, run.columns, "young rows")
        for run in loaded.runs
        if run.t_max > bounds.tmin and run.t_min <= bounds.tmax
    ]
    wanted = Wanted.of(found.ids)
    while True:
        try:
            got = assemble(wanted, pieces, request.tmin, request.tmax, most=MOST)
            break
        except Damaged as error:
            pieces.remove(error.piece)
            row = next(row for row, _ in loaded.blocks if f"block {row.id}" == error.piece.name)
            damage.append(str(_Damage(row, error.piece.name, error.reason)))
    got = without_buried(got, found.ids, loaded.tombstones)
    labels = found.labels
    counts = np.diff(got.off)
    if not counts.all():
        some = np.flatnonzero(counts)
        return Ragged(labels.take(some), got.ts, got.v, offsets(counts[some]), tuple(damage), got.clock[some])
    return Ragged(labels, got.ts, got.v, got.off, tuple(damage), got.clock)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=timezone.get_default_timezone())


class Source:
    """The store as the engine sees it, through a scope."""

    def __init__(self, scope: Scope = EVERYTHING) -> None:
        self.scope = scope

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        """See `query.select`."""
        return select(matchers, tmin, tmax, scope=self.scope)

    def select_many(self, requests: Sequence[Request]) -> list[Ragged]:
        """See `query.select_many`."""
        return select_many(requests, scope=self.scope)


def instant(expr: str, *, at: datetime, scope: Scope = EVERYTHING, limits: Limits = WAITED_FOR) -> Result:
    """The value of a PromQL expression at one time. Raises PromQLError."""
    return engine.instant(expr, Source(scope), _ms(at), limits=limits)


def query_range(
    expr: str,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    scope: Scope = EVERYTHING,
    limits: Limits = WAITED_FOR,
) -> Result:
    """The values of a PromQL expression at start, start + step, … up to end. Raises PromQLError."""
    milliseconds = round(step.total_seconds() * 1000)
    return engine.query_range(expr, Source(scope), _ms(start), _ms(end), milliseconds, limits=limits)


def evaluate_many(
    exprs: Sequence[str], *, at: datetime, scope: Scope = EVERYTHING, limits: Limits = WAITED_FOR
) -> list[Result | PromQLError]:
    """Many expressions at one time from one snapshot; an expression's error is its answer, the limits hold for each."""
    return engine.evaluate_many(exprs, Source(scope), _ms(at), limits=limits)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def metric_names(scope: Scope = EVERYTHING) -> list[str]:
    """Every metric name of which the scope shows a series, sorted."""
    if scope.matchers:
        return label_values(NAME, (), scope)
    with storage.cursor() as cur:
        return catalog.current().names(cur)


def _found(matchers: Sequence[Matcher], scope: Scope) -> Found:
    narrowed = tuple(Matcher(name, op, value) for name, op, value in scope.matchers)  # type: ignore[arg-type]
    with storage.cursor() as cur:
        return catalog.current().find_many(cur, [(*matchers, *narrowed)])[0]


def label_values(name: str, matchers: Sequence[Matcher] = (), scope: Scope = EVERYTHING) -> list[str]:
    """The distinct values of a label among matching series, sorted; "" (absent) is not one."""
    values = np.unique(_found(matchers, scope).labels.column(name))
    return sorted(STRINGS.texts(values[values != 0]))


def series(matchers: Sequence[Matcher], scope: Scope = EVERYTHING) -> Labels:
    """The label sets of matching series."""
    return _found(matchers, scope).labels


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
    """About when the oldest sample is (ms; at most a window of two hours too early); None for an empty store."""
    found = (Block.objects.aggregate(at=Min("window"))["at"], Batch.objects.aggregate(at=Min("t_min"))["at"])
    return min((at for at in found if at is not None), default=None)


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
