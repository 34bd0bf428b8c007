"""The only way to read numbers: samples by matchers, and PromQL over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING, Scope
from apps.core.telemetry import Counter
from apps.metrics import catalog, storage
from apps.metrics.assembly import Damaged, Piece, Wanted, assemble, without_buried
from apps.metrics.catalog import Found
from apps.metrics.codec import Columns, Corrupt, View, decode_batch, offsets
from apps.metrics.models import CollectionSwitch, Series
from apps.metrics.storage import Range, Snapshot, Stored
from apps.promql import engine
from apps.promql.errors import PromQLError
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.result import Result
from apps.promql.series import STALE_BITS, Ragged
from apps.promql.source import Matcher, Request

DAMAGED: Final = Counter("portal_store_damaged_total", "Stored rows that could not be decoded when they were read.")
ATTEMPTS: Final = 8
"""Tries to get a snapshot's rows before compaction takes one away; it needs seconds between two rounds."""


class Outrun(Exception):
    """Compaction was faster than the reader, several times in a row; to be tried again."""


def select(matchers: Sequence[Matcher], tmin_ms: int, tmax_ms: int, *, scope: Scope = EVERYTHING) -> Ragged:
    """Samples with tmin < ts <= tmax (ms) of the series that all matchers and the scope accept; none without samples.

    Staleness markers are included bit for bit. What is damaged is missing, and a warning names the span.
    """
    return select_many([Request(tuple(matchers), tmin_ms, tmax_ms)], scope=scope)[0]


def select_many(requests: Sequence[Request], *, scope: Scope = EVERYTHING) -> list[Ragged]:
    """The answers to several requests, all of one moment."""
    narrowed = tuple(Matcher(name, op, value) for name, op, value in scope.matchers)  # type: ignore[arg-type]
    with storage.cursor() as cur:
        known = catalog.current()
        asked = []
        for request in requests:
            found = known.find(cur, (*request.matchers, *narrowed))
            asked.append((request, found))
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
class _Loaded:
    """The rows of one snapshot with what could be decoded of them, and what was wrong with the others."""

    snapshot: Snapshot
    bodies: Mapping[tuple[int, int], View | Columns]
    damaged: Mapping[tuple[int, int], str]


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
    for _ in range(ATTEMPTS):
        seen = storage.snapshot(cur, union)
        rows = [row for row in seen.rows if any(row.may_hold(need) for need in needs)]
        bodies = storage.cache().get([row.key for row in rows])
        missing = [row for row in rows if row.key not in bodies]
        new, damaged = _fetched(cur, missing)
        if len(new) + len(damaged) == len(missing):
            storage.cache().put(new)
            return _Loaded(Snapshot(tuple(rows), seen.tombstones), {**bodies, **new}, damaged)
    raise Outrun("The store was being rewritten faster than it could be read; try again.")


def _fetched(
    cur: "psycopg.Cursor[Any]", rows: Sequence[Stored]
) -> tuple[dict[tuple[int, int], View | Columns], dict[tuple[int, int], str]]:
    """The decoded rows, and why others could not be; rows that are gone are in neither."""
    bodies: dict[tuple[int, int], View | Columns] = {}
    damaged: dict[tuple[int, int], str] = {}
    for kind in (0, 1):
        for ident, *parts in storage.fetch(cur, kind, [row.id for row in rows if row.kind == kind]):
            try:
                bodies[kind, ident] = View(*parts) if kind else decode_batch(parts[0])
            except Corrupt as error:
                damaged[kind, ident] = str(error)
    unmarked = {row.key for row in rows if not row.bad} & damaged.keys()
    for kind in (0, 1):
        ids = [ident for found, ident in unmarked if found == kind]
        if ids:
            DAMAGED.inc(len(ids))
            storage.mark_bad(kind, ids, timezone.now())
    return bodies, damaged


def _answer(request: Request, found: Found, loaded: _Loaded) -> Ragged:
    bounds = _bounds(request, found)
    rows = [row for row in loaded.snapshot.rows if row.may_hold(bounds)]
    problems = {row.key: loaded.damaged[row.key] for row in rows if row.key in loaded.damaged}
    pieces = {
        row.key: Piece(row.order, row.t_min, loaded.bodies[row.key], row.name)
        for row in rows
        if row.key in loaded.bodies
    }
    wanted = Wanted.of(found.ids)
    while True:
        try:
            got = assemble(wanted, list(pieces.values()), request.tmin, request.tmax)
            break
        except Damaged as error:
            key = next(key for key, piece in pieces.items() if piece is error.piece)
            problems[key] = error.reason
            del pieces[key]
    got = without_buried(got, found.ids, loaded.snapshot.tombstones)
    warnings = tuple(_warning(row, problems[row.key]) for row in rows if row.key in problems)
    labels = found.labels
    counts = np.diff(got.off)
    if not counts.all():
        some = np.flatnonzero(counts)
        labels = labels.take(some)
        return Ragged(labels, got.ts, got.v, offsets(counts[some]), warnings, got.clock[some])
    return Ragged(labels, got.ts, got.v, got.off, warnings, got.clock)


def _warning(row: Stored, reason: str) -> str:
    begin, end = (f"{_moment(ms):%Y-%m-%d %H:%M:%S}" for ms in (row.t_min, row.t_max))
    return (
        f"{row.samples} samples between {begin} and {end} UTC are missing: {row.name} is damaged ({reason}). "
        "Restore it from a backup; `manage.py store check` lists all damage."
    )


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


def instant(expr: str, *, at: datetime, scope: Scope = EVERYTHING) -> Result:
    """The value of a PromQL expression at one time. Raises PromQLError."""
    return engine.instant(expr, Source(scope), _ms(at))


def query_range(expr: str, *, start: datetime, end: datetime, step: timedelta, scope: Scope = EVERYTHING) -> Result:
    """The values of a PromQL expression at start, start + step, … up to end. Raises PromQLError."""
    return engine.query_range(expr, Source(scope), _ms(start), _ms(end), round(step.total_seconds() * 1000))


def evaluate_many(exprs: Sequence[str], *, at: datetime, scope: Scope = EVERYTHING) -> list[Result | PromQLError]:
    """Many expressions at one time from one snapshot; an expression's error is its answer."""
    return engine.evaluate_many(exprs, Source(scope), _ms(at))


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
        return catalog.current().find(cur, (*matchers, *narrowed))


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
