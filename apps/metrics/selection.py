"""Samples by matchers: what is stored is listed, fetched, laid together and cut; knows no PromQL.

`query` is the door to it, and the only one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import ceil
from time import monotonic
from typing import Any, Final

import numpy as np
import psycopg
from django.db import connection
from django.utils import timezone
from numpy.typing import NDArray

from apps.accounts.permissions import EVERYTHING, Scope
from apps.core.telemetry import Counter
from apps.metrics import catalog, storage, tiers, young
from apps.metrics.assembly import Assembled, Damaged, Piece, Tombstone, Wanted, assemble
from apps.metrics.catalog import Found, FoundMany
from apps.metrics.codec import Corrupt, View, offsets
from apps.metrics.deadlines import DEADLINES
from apps.metrics.rollups import FIELDS, RESOLUTIONS
from apps.metrics.sizing import Sought
from apps.metrics.storage import BlockRow, BucketRow, Horizon, Kind, Range, Snapshot
from apps.metrics.young import Gone, Run
from apps.promql.batch import Bundle, Joined
from apps.promql.errors import DeadlineExceeded, LimitError, PromQLError, QueryError
from apps.promql.labels import Labels
from apps.promql.limits import Limits, Watch
from apps.promql.series import Ragged, Tier
from apps.promql.source import Estimate, Matcher, Request, of_scope

DAMAGED: Final = Counter("portal_store_damaged_total", "Stored rows that could not be decoded when they were read.")
ATTEMPTS: Final = 8
"""Tries to get a snapshot's rows before compaction takes one away; it needs seconds between two rounds."""
PATIENCE: Final = 5.0
"""Seconds for which a reader goes on beyond them: on a busy machine it is at times held up between list and rows."""
MOST: Final = Limits().samples
"""Samples that one request may bring; more would fill the memory of a process that serves others, too."""
TOGETHER: Final = 2_000_000
"""Samples that are assembled at once for several selectors."""
UNHURRIED: Final = Watch()
FETCHED: Final = 64
"""Blocks whose bytes one statement brings, about 100 kB each; between two of them a query may be given up."""
_BEHIND: Final = "samples of that time are gone: what is left of them is read for one selector at a time"


class Outrun(Exception):
    """The store cannot be read now: it is too slow, or compaction was faster than the reader; to be tried again."""


def moment(ms: int) -> datetime:
    """The time of a sample, in the portal's zone."""
    return datetime.fromtimestamp(ms / 1000, tz=timezone.get_default_timezone())


def select_many(
    requests: Sequence[Request],
    *,
    scope: Scope = EVERYTHING,
    watch: Watch = UNHURRIED,
    look: "Look | None" = None,
) -> list[Ragged]:
    """The answers to several requests, all of one moment; `look` is what is known of them already."""
    with cursor_within(watch) as cur:
        look = Look.at(cur, requests, scope) if look is None else look
        asked = [(request, look.series(request)) for request in requests]
        needs = [_bounds(request, found) for request, found in asked if len(found.ids)]
        if not needs:
            return [Ragged.empty() for _ in requests]
        loaded = _load(cur, needs, watch=watch, first=look.take())
    return [_answer(request, found, loaded, watch) if len(found.ids) else Ragged.empty() for request, found in asked]


@contextmanager
def cursor_within(watch: Watch) -> "Iterator[psycopg.Cursor[Any]]":
    """A cursor whose statements end with the query's time; within a caller's transaction they do not: it would end."""
    with storage.cursor() as cur:
        if watch.left is None or connection.in_atomic_block:
            yield cur
            return
        watch.check()
        try:
            with DEADLINES.within(cur.connection, watch.left):
                yield cur
        except psycopg.errors.QueryCanceled:
            raise DeadlineExceeded(
                f"query timed out: the database did not answer within {watch.seconds:g} seconds"
            ) from None


@dataclass(slots=True, eq=False)
class Look:
    """What one query may read, known from one look at the store: the series by matchers, and the stored rows.

    Times beyond `bounds` and other matchers need a look of their own.
    """

    known: dict[tuple[Matcher, ...], Found]
    bounds: Range | None
    snapshot: Snapshot | None
    counts: Mapping[int, int] = field(default_factory=dict)
    taken: bool = False

    @classmethod
    def at(cls, cur: "psycopg.Cursor[Any]", requests: Sequence[Request], scope: Scope) -> "Look":
        """The catalog's answers only."""
        narrowed = of_scope(scope.matchers)
        wanted = list(dict.fromkeys(request.matchers for request in requests))
        found = catalog.current().find_many(cur, [(*matchers, *narrowed) for matchers in wanted])
        return cls(dict(zip(wanted, found, strict=True)), None, None)

    @classmethod
    def whole(cls, cur: "psycopg.Cursor[Any]", requests: Sequence[Request], scope: Scope) -> "Look":
        """With the stored rows, too; one statement where the catalog has answered the same before."""
        return cls._again(cur, requests, scope) or cls._anew(cur, requests, scope)

    @classmethod
    def _anew(cls, cur: "psycopg.Cursor[Any]", requests: Sequence[Request], scope: Scope) -> "Look":
        look = cls.at(cur, requests, scope)
        look.list_rows(cur, requests)
        return look

    @classmethod
    def _again(cls, cur: "psycopg.Cursor[Any]", requests: Sequence[Request], scope: Scope) -> "Look | None":
        """From what the catalog knows; None when that is too little or, as the statement tells, no longer right."""
        narrowed = of_scope(scope.matchers)
        wanted = list(dict.fromkeys(request.matchers for request in requests))
        whole = [(*matchers, *narrowed) for matchers in wanted]
        known = catalog.current()
        since, found = known.since, known.peek(whole)
        if since is None or found is None:
            return None
        look = cls(dict(zip(wanted, found, strict=True)), None, None)
        needs = [_bounds(request, part) for request in requests if len((part := look.series(request)).ids)]
        if not needs:
            return None
        look.bounds = _union(needs)
        look.snapshot = storage.snapshot(cur, look.bounds, since)
        if look.snapshot.news is not None:
            known.learn(cur, look.snapshot.news)
        after = known.peek(whole)
        if after is None or any(one is not other for one, other in zip(found, after, strict=True)):
            return None
        look.counts = known.counts()
        return look

    def list_rows(self, cur: "psycopg.Cursor[Any]", requests: Sequence[Request]) -> None:
        """Lists the stored rows, too."""
        needs = [_bounds(request, found) for request in requests if len((found := self.series(request)).ids)]
        if needs:
            self.bounds = _union(needs)
            self.snapshot = storage.snapshot(cur, self.bounds)
            self.counts = catalog.current().counts()

    def covers(self, requests: Sequence[Request]) -> bool:
        """Whether all that is to be known of these is known."""
        if any(request.matchers not in self.known for request in requests):
            return False
        bounds = self.bounds
        return all(
            not len(self.known[request.matchers].ids)
            or (
                bounds is not None
                and bounds.tmin <= request.tmin
                and request.tmax <= bounds.tmax
                and _numbers(request) <= bounds.fields
                and request.hours >= bounds.hours
            )
            for request in requests
        )

    def series(self, request: Request) -> Found:
        """The series that a request is for."""
        found = self.known[request.matchers]
        return found if request.rows is None else found.part(*request.rows)

    def take(self) -> Snapshot | None:
        """The list of rows for the first who reads: a later one needs a fresh one."""
        first, self.taken = None if self.taken else self.snapshot, True
        return first

    def most(self) -> int:
        """How many samples the listed rows hold in all: no request brings more."""
        if self.snapshot is None:
            return 0
        stored = (*self.snapshot.blocks, *self.snapshot.buckets)
        return sum(row.samples for row in stored) + int(self.snapshot.young["samples"].sum())

    def estimate(self, request: Request) -> Estimate:
        """About what a request would bring."""
        found = self.series(request)
        if not len(found.ids) or self.snapshot is None:
            return Estimate(len(found.ids), 0)
        bounds = _bounds(request, found)
        peers = np.sort(np.concatenate(list(found.peers.values())), kind="stable")
        others = {ident: count for ident, count in self.counts.items() if ident not in found.peers}
        sought = Sought(request.tmin, request.tmax, np.sort(found.ids, kind="stable"), peers, others)
        samples = sought.in_blocks([row for row in self.snapshot.blocks if row.may_hold(bounds)])
        samples += sought.in_blocks([row for row in self.snapshot.buckets if row.may_hold(bounds)])
        return Estimate(len(found.ids), ceil(samples + sought.in_young(self.snapshot.young)))


def _union(needs: Sequence[Range]) -> Range:
    return Range(
        min(need.tmin for need in needs),
        max(need.tmax for need in needs),
        min(need.metric_min for need in needs),
        max(need.metric_max for need in needs),
        min(need.series_min for need in needs),
        max(need.series_max for need in needs),
        frozenset().union(*(need.fields for need in needs)),
        all(need.hours for need in needs),
    )


def select_joined(
    bundles: Sequence[Bundle], *, scope: Scope = EVERYTHING, watch: Watch = UNHURRIED
) -> list[Joined | PromQLError]:
    """The answers to bundles of selectors, all of one moment: what is read over the same time is assembled once.

    A bundle that brings more than TOGETHER samples is answered with a LimitError, one that reaches back to where
    samples are gone with another error; its selectors are to be asked one by one.
    """
    narrowed = of_scope(scope.matchers)
    asked = [
        tuple((*matchers, *narrowed) for matchers in bundle.matchers) if narrowed else bundle.matchers
        for bundle in bundles
    ]
    answers: dict[int, Joined | PromQLError] = {}
    spans: dict[tuple[int, int], list[int]] = {}
    with cursor_within(watch) as cur:
        found = catalog.current().find_joined(cur, asked)
        for index, bundle in enumerate(bundles):
            if len(found[index].ids):
                spans.setdefault((bundle.tmin, bundle.tmax), []).append(index)
            else:
                answers[index] = Joined.of([Ragged.empty()] * len(bundle.matchers))
        if not spans:
            return [answers[index] for index in range(len(bundles))]
        wishes = [_Wish.of(*span, [found[index] for index in members]) for span, members in spans.items()]
        first = storage.snapshot(cur, _union([wish.bounds() for wish in wishes]))
        behind = [wish.tmin < max((one.raw_from for one in first.horizons), default=wish.tmin) for wish in wishes]
        for is_behind, members in zip(behind, spans.values(), strict=True):
            answers.update((index, QueryError(_BEHIND)) for index in members if is_behind)
        wishes = [wish for wish, is_behind in zip(wishes, behind, strict=True) if not is_behind]
        if not wishes:
            return [answers[index] for index in range(len(bundles))]
        loaded = _load(cur, [wish.bounds() for wish in wishes], wishes, watch=watch, first=first)
    spans = {span: members for (span, members), is_behind in zip(spans.items(), behind, strict=True) if not is_behind}
    for wish, members in zip(wishes, spans.values(), strict=True):
        answers.update(zip(members, _joined(wish, [found[index] for index in members], loaded), strict=True))
    return [answers[index] for index in range(len(bundles))]


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """What several bundles want of one span of time: series ids int64[S], each once, and their metrics, sorted.

    place int64[N] says for each of the series as they were asked for where it stands in ids; None: there itself.
    """

    tmin: int
    tmax: int
    ids: NDArray[np.int64]
    place: NDArray[np.int64] | None
    sorted: NDArray[np.int64]
    metrics: NDArray[np.int64]

    @classmethod
    def of(cls, tmin: int, tmax: int, found: Sequence[FoundMany]) -> "_Wish":
        ids = np.concatenate([one.ids for one in found])
        metrics = np.unique(np.concatenate([one.metrics for one in found]))
        distinct, place = np.unique(ids, return_inverse=True)
        if len(distinct) == len(ids):
            return cls(tmin, tmax, ids, None, distinct, metrics)
        return cls(tmin, tmax, distinct, place, distinct, metrics)

    def bounds(self) -> Range:
        metrics, ids = self.metrics, self.sorted
        return Range(self.tmin, self.tmax, int(metrics[0]), int(metrics[-1]), int(ids[0]), int(ids[-1]))

    def may_be_in(self, row: BlockRow) -> bool:
        """Whether samples of these series may be in there."""
        return (
            row.t_max > self.tmin
            and row.t_min <= self.tmax
            and _any_between(self.metrics, row.metric_min, row.metric_max)
            and _any_between(self.sorted, row.series_min, row.series_max)
        )


def _any_between(values: NDArray[np.int64], low: int, high: int) -> bool:
    """Whether one of these sorted values lies there, both ends included."""
    at = int(values.searchsorted(low))
    return at < len(values) and int(values[at]) <= high


def _bounds(request: Request, found: Found) -> Range:
    return Range(
        request.tmin,
        request.tmax,
        found.metric_min,
        found.metric_max,
        int(found.ids.min()),
        int(found.ids.max()),
        _numbers(request),
        request.hours,
    )


def _numbers(request: Request) -> frozenset[int]:
    """The fields of a request as they are stored."""
    return frozenset(FIELDS.index(field) + 1 for field in request.fields)


@dataclass(frozen=True, slots=True)
class _Damage:
    """A stored row that cannot be decoded: what it is, and why."""

    row: BlockRow
    name: str
    reason: str

    def __str__(self) -> str:
        begin, end = (f"{moment(ms):%Y-%m-%d %H:%M:%S}" for ms in (self.row.t_min, self.row.t_max))
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
    horizons: Sequence[Horizon] = ()
    buckets: Sequence[tuple[BucketRow, View]] = ()


def _load(
    cur: "psycopg.Cursor[Any]",
    needs: Sequence[Range],
    wishes: Sequence["_Wish"] = (),
    *,
    watch: Watch = UNHURRIED,
    first: Snapshot | None = None,
) -> _Loaded:
    """A snapshot that covers all ranges, with its rows; starts anew when compaction has taken one away meanwhile.

    Rows that may hold something of a range are read; where wishes are given, of one of them.
    """
    union = _union(needs)
    ends = monotonic() + PATIENCE
    tries = 0
    while tries < ATTEMPTS or monotonic() < ends:
        tries += 1
        watch.check()
        seen, first = first or storage.snapshot(cur, union), None
        if wishes:
            rows = [row for row in seen.blocks if any(wish.may_be_in(row) for wish in wishes)]
        else:
            rows = [row for row in seen.blocks if any(row.may_hold(need) for need in needs)]
        buckets = [row for row in seen.buckets if any(row.may_hold(need) for need in needs)]
        try:
            views, damage = _blocks(cur, [*rows, *buckets], watch)
            runs, more = _runs(cur, seen.young, union)
        except Gone:
            continue
        return _Loaded(
            [(row, views[row.id]) for row in rows if row.id in views],
            runs,
            damage + more,
            seen.tombstones,
            seen.horizons,
            [(row, views[row.id]) for row in buckets if row.id in views],
        )
    raise Outrun("The store was being rewritten faster than it could be read; try again.")


def _blocks(
    cur: "psycopg.Cursor[Any]", rows: Sequence[BlockRow], watch: Watch
) -> tuple[dict[int, View], list[_Damage]]:
    """(the blocks by id, the damaged ones); raises Gone."""
    views = storage.cache().get([row.id for row in rows])
    missing = {row.id: row for row in rows if row.id not in views}
    new: dict[int, View] = {}
    damage = {}
    idents = list(missing)
    for begin in range(0, len(idents), FETCHED):
        watch.check()
        fetched = storage.fetch(cur, 1, idents[begin : begin + FETCHED])
        if len(fetched) != len(idents[begin : begin + FETCHED]):
            raise Gone
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


def _pieces(loaded: _Loaded, tmin: int, tmax: int, wanted: Callable[[BlockRow], bool]) -> list[Piece]:
    """What may hold samples of that time, of the blocks those that are wanted."""
    pieces = [Piece(row.round, row.t_min, view, f"block {row.id}") for row, view in loaded.blocks if wanted(row)]
    pieces += [
        Piece(storage.YOUNG, run.t_min, run.body, "young rows")
        for run in loaded.runs
        if run.t_max > tmin and run.t_min <= tmax
    ]
    return pieces


@dataclass(slots=True, eq=False)
class _Reading:
    """One request's reading of what was loaded: from blocks, and what turns out to be damaged on the way."""

    wanted: Wanted
    loaded: _Loaded
    most: int
    watch: Watch
    damage: list[str]

    def assemble(self, pieces: list[Piece], tmin: int, tmax: int, resolution: int = 0) -> Assembled:
        """What these pieces hold of it, as far as they can be decoded; counts towards what may be read. TooMany."""
        buried = [stone.of_buckets(resolution) for stone in self.loaded.tombstones]
        while True:
            try:
                got = assemble(self.wanted, pieces, tmin, tmax, most=self.most, check=self.watch.check, buried=buried)
            except Damaged as error:
                pieces.remove(error.piece)
                rows = [row for row, _ in (*self.loaded.blocks, *self.loaded.buckets)]
                row = next(row for row in rows if f"block {row.id}" == error.piece.name)
                self.damage.append(str(_Damage(row, error.piece.name, error.reason)))
            else:
                self.most -= len(got.ts)
                return got


def _answer(request: Request, found: Found, loaded: _Loaded, watch: Watch = UNHURRIED) -> Ragged:
    bounds = _bounds(request, found)
    damage = [str(one) for one in loaded.damage if one.row.may_hold(bounds)]
    reading = _Reading(Wanted.of(found.ids), loaded, request.most or MOST, watch, damage)
    pieces = _pieces(loaded, request.tmin, request.tmax, lambda row: row.may_hold(bounds))
    got = reading.assemble(pieces, request.tmin, request.tmax)
    behind = _tiers(request, bounds, got, reading)
    whole = Ragged(found.labels, got.ts, got.v, got.off, tuple(damage), got.clock, behind)
    counts = sum((np.diff(tier.off) for tier in behind), np.diff(got.off))
    return whole if counts.all() else whole.take(np.flatnonzero(counts))


def _tiers(request: Request, bounds: Range, got: Assembled, reading: _Reading) -> tuple[Tier, ...]:
    """What answers where samples are gone; none where they are there."""
    near = [(row, view) for row, view in reading.loaded.buckets if row.may_hold(bounds)]
    if not near:
        return ()
    until = tiers.untils(reading.wanted.ids, near, reading.loaded.horizons)
    last = {resolution: min(request.tmax, int(one.max())) for resolution, one in until.items()}
    if max(last.values()) <= request.tmin:
        return ()
    stored = {}
    for resolution in RESOLUTIONS:
        tmin = request.tmin - 2000 * resolution
        read = {}
        for name in sorted(request.fields):
            kind = Kind(resolution, FIELDS.index(name) + 1)
            mine = [(row, view) for row, view in near if row.kind == kind]
            pieces = [Piece(row.round, row.t_min, view, f"block {row.id}") for row, view in mine]
            low = max(tmin, min((row.low for row, _ in mine), default=tmin))
            read[name] = reading.assemble(pieces, low, max(low, last[resolution]), resolution)
        stored[resolution] = tiers.of_fields(read, until[resolution])
    return tiers.tiers(got, stored, until, request.width)


def _joined(wish: _Wish, found: Sequence[FoundMany], loaded: _Loaded) -> list[Joined | PromQLError]:
    """The answers to these bundles from one assembly for all; where that cannot be, from one for each."""
    pieces = _pieces(loaded, wish.tmin, wish.tmax, wish.may_be_in)
    try:
        got = assemble(Wanted.of(wish.ids), pieces, wish.tmin, wish.tmax, most=TOGETHER, buried=loaded.tombstones)
    except Damaged:
        return [_one_by_one(wish, many, loaded) for many in found]
    except LimitError as error:
        if len(found) == 1:
            return [error]
        return [_joined(_Wish.of(wish.tmin, wish.tmax, [many]), [many], loaded)[0] for many in found]
    whole = Ragged(Labels.empty(len(wish.ids)), got.ts, got.v, got.off, (), got.clock)
    answers: list[Joined | PromQLError] = []
    first = 0
    for many in found:
        rows = (
            np.arange(first, first + len(many.ids)) if wish.place is None else wish.place[first : first + len(many.ids)]
        )
        first += len(many.ids)
        alive = np.diff(whole.off)[rows] > 0
        labels, starts = many.labels, many.starts
        if not alive.all():
            rows, labels = rows[alive], labels.take(alive)
            starts = offsets(alive.astype(np.int64))[starts]
        part = whole if len(rows) == whole.size and wish.place is None else whole.take(rows)
        ragged = Ragged(labels, part.ts, part.v, part.off, (), part.clock)
        answers.append(Joined(ragged, starts, _warnings(wish, many, loaded)))
    return answers


def _warnings(wish: _Wish, many: FoundMany, loaded: _Loaded) -> tuple[tuple[str, ...], ...]:
    """What is damaged of each selector's data; empty where nothing is."""
    if not loaded.damage:
        return ()
    told = []
    for k in range(len(many.starts) - 1):
        found = many.one(k)
        bounds = _bounds(Request((), wish.tmin, wish.tmax), found) if len(found.ids) else None
        told.append(tuple(str(one) for one in loaded.damage if bounds is not None and one.row.may_hold(bounds)))
    return tuple(told) if any(told) else ()


def _one_by_one(wish: _Wish, many: FoundMany, loaded: _Loaded) -> Joined | PromQLError:
    """The same from an assembly for each selector, so that what is damaged concerns only who needs it."""
    found = [many.one(k) for k in range(len(many.starts) - 1)]
    request = Request((), wish.tmin, wish.tmax)
    try:
        return Joined.of([_answer(request, one, loaded) if len(one.ids) else Ragged.empty() for one in found])
    except PromQLError as error:
        return error
