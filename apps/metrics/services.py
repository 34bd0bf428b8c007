"""The room's verbs. `ingest` is the only way samples get in, `backfill` the one for the past."""

import threading
from collections import Counter as Tally
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final
from uuid import UUID

import numpy as np
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from apps.accounts import audit
from apps.accounts import services as accounts
from apps.accounts.permissions import Principal, Right, require
from apps.core import live as live_push
from apps.core import tasks
from apps.core.telemetry import Counter, Reading
from apps.metrics import burial, headroom, query, registry, space, storage
from apps.metrics.accumulation import Totals, Verdict, accumulate
from apps.metrics.burial import Doomed, selector_text
from apps.metrics.codec import Columns, Float64, Int64, encode_batch
from apps.metrics.events import digest_of, place
from apps.metrics.headroom import NOBODY, Maker
from apps.metrics.models import (
    CollectionSwitch,
    CollectorSetting,
    DeltaTotals,
    EventReceipt,
    QueryBudget,
    RetentionPolicy,
    RolledWindow,
)
from apps.metrics.samples import REASONS, Meta, Samples
from apps.promql.source import Matcher

ACCEPTED: Final = Counter("portal_samples_accepted_total", "Samples that were stored.")
REFUSED: Final = Counter("portal_samples_refused_total", "Samples that were refused, by reason.", ("reason",))

LATE: Final = timedelta(minutes=10)
AHEAD: Final = timedelta(minutes=10)
ROW_SAMPLES: Final = 50_000
"""A larger ingest becomes several rows of the log, so that no row is too large to read or to compact."""
ATTEMPTS: Final = 5
ARRIVED: Final = "samples"
"""What is announced when samples from outside are committed."""
FREE_SHARE: Final = 0.05
FREE_BYTES: Final = 1_000_000_000
FREE_CHECK: Final = 5.0
PUSHED: Final = "push"
"""What open pages are told of samples that came from outside."""


class StoreFull(Exception):
    """The disk is nearly full: nothing was written, and the sender should try again later (HTTP 503)."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The sample at `index` was refused for `reason`, a key of `samples.REASONS`."""

    index: int
    reason: str

    @property
    def text(self) -> str:
        return REASONS[self.reason]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of N samples: how many were stored, which were not and why, and how many series were new here."""

    accepted: int
    rejected: tuple[Rejection, ...]
    new_series: int


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """N samples whose series are known by slot: slots int64[N] of `known` (-1: not to be stored), ts int64[N] ms,
    v float64[N]; `meta` says what is new of their metrics, `starts` int64[N] ms since when counters count (0: unknown).
    """

    known: registry.Registry
    slots: Int64
    ts: Int64
    v: Float64
    meta: Mapping[str, Meta] = field(default_factory=dict)
    starts: Int64 | None = None


def ingest(
    *,
    samples: Samples,
    by: Principal,
    now: datetime,
    window: timedelta | None = LATE,
    live: str | None = None,
    announced: bool = True,
    starts: Int64 | None = None,
) -> Written:
    """Store samples; what cannot be stored is refused one by one, never the whole.

    Samples more than `window` behind the newest one of their own series are refused (None: any age), and those more
    than 10 minutes ahead of `now`. Stored means: in the transaction of the caller, or committed on return where there
    is none. `live` names what pages are told once it is committed (None: that something was pushed, once a second).
    `starts` int64[N] (ms; 0: not told) says since when a counter counts: where that is new, a zero is written at it.
    `announced`: rules that wait for samples are woken, which what rules write themselves must not. Raises StoreFull
    before the disk is.
    """
    require(by, Right.INGEST)
    return _write(samples, now, window, live, _maker_of(by), starts, announced=announced)


def ingest_deltas(*, samples: Samples, starts: Int64, ends: Int64, key: bytes, by: Principal, now: datetime) -> Written:
    """Add what was counted between starts and ends (int64[N], ns) to the totals of its series, and store those.

    The totals of one `key` are a row, locked and written in the transaction of the samples: a delta is added once,
    whichever process takes it and however often it is sent, also after a crash. Those that were added already count as
    accepted. Refused are deltas that cannot be told from such (`accumulation`), and whatever `ingest` refuses.
    """
    require(by, Right.INGEST)
    known = registry.current()
    slots, refused = known.slots(samples.keys, samples.labels_of)
    ids, barred = _resolved(known, slots, slots >= 0, _maker_of(by))
    without = np.flatnonzero((ids == 0) & (slots >= 0)).tolist()
    refused = [*refused, *((index, barred[int(slots[index])]) for index in without)]
    with transaction.atomic():
        DeltaTotals.objects.bulk_create(
            [DeltaTotals(key=key, totals=b"", updated_at=now)], ignore_conflicts=True, unique_fields=["key"]
        )
        row = DeltaTotals.objects.select_for_update().get(key=key)
        before = Totals.of_bytes(bytes(row.totals))
        totals, verdict = accumulate(before, ids, starts, ends, samples.v)
        fresh = np.flatnonzero((verdict == Verdict.ADDED) & (ids != 0))
        labels_of, places = samples.labels_of, fresh.tolist()
        some = Samples(
            [samples.keys[index] for index in places],
            lambda index: labels_of(places[index]),
            samples.ts[fresh],
            totals[fresh],
            samples.meta,
        )
        written = _write(some, now, LATE, None, _maker_of(by))
        kept = np.ones(len(fresh), dtype=bool)
        kept[[rejection.index for rejection in written.rejected]] = False
        stored = fresh[kept]
        if len(stored):
            row.totals = before.after(ids[stored], ends[stored], totals[stored]).to_bytes()
            row.updated_at = now
            row.save(update_fields=["totals", "updated_at"])
    rejected = [Rejection(places[rejection.index], rejection.reason) for rejection in written.rejected]
    for reason, kind in (("late_delta", Verdict.LATE), ("overlapping_delta", Verdict.OVERLAPPING)):
        refused += [(index, reason) for index in np.flatnonzero((verdict == kind) & (ids != 0)).tolist()]
    for index, reason in refused:
        count_refused(reason, 1)
        rejected.append(Rejection(index, reason))
    rejected.sort(key=lambda rejection: rejection.index)
    return Written(len(samples) - len(rejected), tuple(rejected), written.new_series)


def _maker_of(by: Principal) -> Maker:
    """Who makes the series that are new in what this principal writes."""
    return Maker(int(by.id), by.quota.series) if by.kind == "token" and by.id.isdecimal() else NOBODY


def _write(
    samples: Samples,
    now: datetime,
    window: timedelta | None,
    live: str | None,
    maker: Maker = NOBODY,
    starts: Int64 | None = None,
    *,
    announced: bool = True,
) -> Written:
    known = registry.current()
    before = len(known)
    slots, refused = known.slots(samples.keys, samples.labels_of)
    placed = Placed(known, slots, samples.ts, samples.v, samples.meta, starts)
    return _write_placed(placed, now, window, live, maker, refused, len(known) - before, announced=announced)


def ingest_placed(
    *,
    placed: Placed,
    by: Principal,
    now: datetime,
    window: timedelta | None = LATE,
    live: str | None = None,
    new_series: int = 0,
) -> Written:
    """As `ingest`, for a caller that remembers the slots of its series between its rounds (a scraper): asks nobody."""
    require(by, Right.INGEST)
    return _write_placed(placed, now, window, live, _maker_of(by), (), new_series)


def _write_placed(
    placed: Placed,
    now: datetime,
    window: timedelta | None,
    live: str | None,
    maker: Maker,
    refused: Sequence[tuple[int, str]],
    new_series: int,
    *,
    announced: bool = True,
) -> Written:
    ensure_space()
    known, slots, ts, v, starts = placed.known, placed.slots, placed.ts, placed.v, placed.starts
    rejected = [Rejection(index, reason) for index, reason in refused]
    good = slots >= 0
    ahead = _ms(now + AHEAD)
    if len(ts) and (int(ts.max()) > ahead or int(ts.min()) < 0):
        good &= _mark(good & (ts > ahead), "too_far_ahead", rejected)
        good &= _mark(good & (ts < 0), "before_1970", rejected)
    ids, barred = _resolved(known, slots, good, maker)
    known.describe(placed.meta)
    if window is not None:
        behind = ts < known.newest[slots] - int(window.total_seconds() * 1000)
        good &= _mark(good & behind, "too_old", rejected)
    without = good & (ids == 0)
    if without.any():
        places = np.flatnonzero(without).tolist()
        rejected.extend(Rejection(index, barred[int(slots[index])]) for index in places)
        good &= ~without
    if not good.all():
        kept = np.flatnonzero(good)
        slots, ids, ts, v = slots[kept], ids[kept], ts[kept], v[kept]
        starts = None if starts is None else starts[kept]
    columns = Columns(ids, ts, v)
    if starts is not None and len(ids):
        columns = _from_zero(known, slots, columns, starts)

    def committed() -> None:
        known.note(slots, ts)
        ACCEPTED.inc(len(slots))
        for reason, count in Tally(rejection.reason for rejection in rejected).items():
            count_refused(reason, count)
        if announced and window is not None and len(ids):
            _announce(live)

    shared = None if connection.in_atomic_block else _one_commit.shared
    if len(ids) and shared is not None:
        shared.append(Waiting(columns, now, committed, live))
    else:
        if len(ids):
            _insert(columns, now)
        transaction.on_commit(committed, robust=connection.in_atomic_block)
        if live is not None and len(ids):
            live_push.publish("series", live)
    if new_series:
        for reason in headroom.REASONS.values():
            REFUSED.touch(reason=reason)  # at zero, so that the first refusal is an increase that a rule sees
    rejected.sort(key=lambda rejection: rejection.index)
    return Written(len(ids), tuple(rejected), new_series)


def _announce(live: str | None) -> None:
    """Wake the rules that wait for samples; pages that are told of no source hear that something was pushed."""
    tasks.announce(ARRIVED)
    if live is None:
        live_push.publish("series", PUSHED, seldom=True)


def _from_zero(known: registry.Registry, slots: Int64, columns: Columns, starts: Int64) -> Columns:
    """Add a zero where a counter began to count anew, so that what it counted since is an increase.

    A series that is new to this process gets one only if it began lately: else it may just be this process that is new.
    """
    newest = known.newest[slots]
    recent = columns.ts - starts <= int(LATE.total_seconds() * 1000)
    fresh = (starts > 0) & (starts < columns.ts) & (newest < starts) & (known.starts[slots] != starts)
    fresh &= (newest > registry.NEVER) | recent
    told = starts > 0
    known.starts[slots[told]] = starts[told]
    if not fresh.any():
        return columns
    ids, first = np.unique(columns.series[fresh], return_index=True)
    at = starts[fresh][first]
    return Columns(
        np.concatenate([ids, columns.series]),
        np.concatenate([at, columns.ts]),
        np.concatenate([np.zeros(len(ids)), columns.v]),
    )


def _resolved(known: registry.Registry, slots: Int64, good: Any, maker: Maker) -> tuple[Int64, Mapping[int, str]]:
    """(ids int64[N], 0 where there is none; why not by slot) of the slots that are good."""
    for _ in range(ATTEMPTS):
        barred = known.resolve(slots[good], maker)
        ids = np.where(good, known.ids[slots], 0)
        # Ids are forgotten once an hour, perhaps in this moment, by another thread.
        if all(slot in barred for slot in slots[good & (ids == 0)].tolist()):
            return ids, barred
    raise RuntimeError("Series were made and could not be found afterwards, several times: is the database restored?")


def _mark(bad: Any, reason: str, rejected: list[Rejection]) -> Any:
    """Add the marked samples to the rejected ones; return which samples are left."""
    if bad.any():
        rejected.extend(Rejection(index, reason) for index in np.flatnonzero(bad).tolist())
    return ~bad


@dataclass(frozen=True, slots=True)
class Waiting:
    """Samples that wait for their commit: when they came, what is to be done after it, and what pages are told."""

    columns: Columns
    now: datetime
    committed: Callable[[], None]
    live: str | None


class _OneCommit(threading.local):
    shared: list[Waiting] | None = None


_one_commit: Final = _OneCommit()


@contextmanager
def one_commit() -> Iterator[None]:
    """What this thread ingests within becomes one row of the log and one commit, when it ends; only then is it stored.

    A row costs more than what is in it, and so does a commit. Raises what the insert raises, and nothing was stored.
    """
    shared = _one_commit.shared = []
    try:
        yield
    finally:
        _one_commit.shared = None
    if not shared:
        return
    parts = [waiting.columns for waiting in shared]
    series, ts, v = (np.concatenate([getattr(part, name) for part in parts]) for name in ("series", "ts", "v"))
    _insert(Columns(series, ts, v), shared[0].now)
    for waiting in shared:
        waiting.committed()
        if waiting.live is not None:
            live_push.publish("series", waiting.live)


def _insert(columns: Columns, now: datetime) -> None:
    if len(columns) <= ROW_SAMPLES:
        storage.insert_batch(columns, encode_batch(columns), now)
        return
    with transaction.atomic():
        for begin in range(0, len(columns), ROW_SAMPLES):
            part = slice(begin, begin + ROW_SAMPLES)
            some = Columns(columns.series[part], columns.ts[part], columns.v[part])
            storage.insert_batch(some, encode_batch(some), now)


def count_refused(reason: str, count: int) -> None:
    """Count what was refused, also what never became samples; `reason` is a key of REASONS."""
    if count:
        REFUSED.inc(count, reason=reason)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@audit.verb("metrics.backfill", right=Right.BACKFILL)
def backfill(*, samples: Samples, by: Principal, now: datetime, source: str = "") -> Written:
    """Store samples of any age. Doing it twice changes nothing; no rule looks back, so none is triggered."""
    written = _write(samples, now, None, None, _maker_of(by))
    span = (int(samples.ts.min()), int(samples.ts.max())) if len(samples) else None
    audit.record(
        by=by,
        verb="metrics.backfill",
        target=("metrics.series", "", source or "samples"),
        after={
            "samples": written.accepted,
            "refused": len(written.rejected),
            "series": len(set(samples.keys)),
            "from_ms": span and span[0],
            "to_ms": span and span[1],
        },
    )
    return written


def store_past(*, samples: Samples, by: Principal, now: datetime) -> Written:
    """Store a part of an import, whose begin and end `note_import` writes down."""
    require(by, Right.BACKFILL)
    return _write(samples, now, None, None)


@audit.verb("metrics.note_import", right=Right.BACKFILL)
def note_import(*, by: Principal, source: str, counts: Mapping[str, Any] | None) -> None:
    """One entry when an import of the past begins (counts: None), one with what became of it when it ends."""
    if counts is None:
        audit.record(by=by, verb="metrics.begin_import", target=("metrics.series", "", source))
    else:
        audit.record(by=by, verb="metrics.backfill", target=("metrics.series", "", source), after=counts)


@audit.verb("metrics.delete_series", right=Right.ADMINISTER)
def delete_series(
    *,
    by: Principal,
    selectors: Sequence[Sequence[Matcher]],
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Doomed:
    """Delete samples from start to end (both included; None: open) of the series that any of the selectors accepts.

    Nobody sees them from the commit on; `burial` takes them out of the bytes within minutes and proves it. Only what is
    stored now goes: a series that is written to afterwards is there with what came afterwards, whatever its times.
    Raises ValidationError.
    """
    try:
        doomed = burial.find(selectors, start=start, end=end, scope=by.scope, now=now)
    except ValueError as error:
        raise ValidationError(str(error)) from None
    rows = burial.entomb(doomed, by=by.name, now=now)
    audit.record(
        by=by,
        verb="metrics.delete_series",
        target=("metrics.series", "", " or ".join(map(selector_text, selectors))),
        after={
            "selectors": [selector_text(matchers) for matchers in selectors],
            "scope": [list(matcher) for matcher in by.scope.matchers],
            "series": len(doomed.ids),
            "from_ms": doomed.t_min,
            "to_ms": doomed.t_max,
            "tombstones": [row.pk for row in rows],
        },
    )
    return doomed


@audit.verb("metrics.save_retention", right=Right.ADMINISTER)
def save_retention(*, by: Principal, policy: RetentionPolicy) -> RetentionPolicy:
    """Save a policy, new or changed. Roll-ups that it has not kept so far are made of all samples that are there."""
    stored = RetentionPolicy.objects.select_for_update(no_key=True).filter(pk=policy.pk).first()
    if stored is not None:
        # Retention may have moved them on since the page was opened.
        policy.raw_from, policy.rollup_5m_from = stored.raw_from, stored.rollup_5m_from
    accounts.save_object(by=by, obj=policy)
    if any(getattr(policy, name) and not getattr(stored, name, None) for name in ("rollup_5m", "rollup_1h")):
        RolledWindow.objects.all().delete()
    return policy


@audit.verb("metrics.switch_collection", right=Right.EDIT)
def switch_collection(*, by: Principal, on: bool, now: datetime) -> CollectionSwitch:
    """Turn the collectors on or off; what is pushed and what rules compute is not affected."""
    CollectionSwitch.objects.get_or_create(pk=1)
    switch = CollectionSwitch.objects.select_for_update().get(pk=1)
    before = switch.on
    switch.on = on
    switch.changed_at = now
    switch.changed_by = by.name[:200]
    switch.save()
    audit.record(by=by, verb="metrics.switch_collection", target=switch, before={"on": before}, after={"on": on})
    live_push.publish("collection")
    return switch


def ship_retention(row: Mapping[str, Any], *, by: Principal, now: datetime) -> RetentionPolicy:
    """Write a shipped retention policy (fixtures/retention.yaml), unless one of its category exists."""
    policy, made = RetentionPolicy.objects.get_or_create(
        category=row["category"],
        defaults={
            "raw": timedelta(days=row["raw_days"]),
            "rollup_5m": timedelta(days=row["rollup_5m_days"]) if "rollup_5m_days" in row else None,
            "rollup_1h": timedelta(days=row["rollup_1h_days"]) if "rollup_1h_days" in row else None,
            "description": row.get("description", ""),
            "prefixes": row.get("prefixes", []),
        },
    )
    if made:
        audit.record(by=by, verb="metrics.ship_retention", target=policy, after=audit.state_of(policy))
    return policy


def ship_collector(row: Mapping[str, Any], *, by: Principal, now: datetime) -> CollectorSetting:
    """Write a shipped collector's setting (fixtures/collectors.yaml), unless one of its kind exists."""
    setting, made = CollectorSetting.objects.get_or_create(
        kind=row["kind"],
        defaults={
            "every": timedelta(seconds=row["every"]),
            "enabled": row.get("enabled", True),
            "config": row.get("config", {}),
        },
    )
    if made:
        audit.record(by=by, verb="metrics.ship_collector", target=setting, after=audit.state_of(setting))
    return setting


def ship_query_budget(row: Mapping[str, Any], *, by: Principal, now: datetime) -> QueryBudget:
    """Write a shipped budget of a role (fixtures/query_budgets.yaml), unless the role has one."""
    numbers = {name: row[name] for name in ("series", "samples", "points", "seconds")}
    budget, made = QueryBudget.objects.get_or_create(role=row["role"], defaults=numbers)
    if made:
        audit.record(by=by, verb="metrics.ship_query_budget", target=budget, after=audit.state_of(budget))
    return budget


def record_events(
    *, readings: Sequence[Reading], by: Principal, now: datetime, ids: Sequence[str] | None = None
) -> Written:
    """Store events that happened one by one, each as a sample of its own; two at one instant of a series both count.

    `ids` are as many as the events, empty for an event without: one that was stored under its name and id within
    `retention.RECEIPTS_KEPT` is accepted again and changes nothing. Writers of events take turns (a lock of the
    transaction), so that instants and ids that are taken can be looked up.
    """
    require(by, Right.INGEST)
    if not readings:
        return Written(0, (), 0)
    digests = [
        digest_of(reading.name, id_) if id_ else None
        for reading, id_ in zip(readings, ids or [""] * len(readings), strict=True)
    ]
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('metrics.record_events'))")
        places = _not_stored(digests)
        written = _store_events([readings[place] for place in places], by, now)
        rejected = tuple(replace(refusal, index=places[refusal.index]) for refusal in written.rejected)
        kept = set(places) - {refusal.index for refusal in rejected}
        EventReceipt.objects.bulk_create(
            EventReceipt(digest=digest, at=now) for place in sorted(kept) if (digest := digests[place]) is not None
        )
    return Written(len(readings) - len(rejected), rejected, written.new_series)


def _not_stored(digests: Sequence[UUID | None]) -> list[int]:
    """Return the places of the events that have no receipt, and of those with the same digest only the first."""
    seen = set(
        EventReceipt.objects.filter(digest__in=[digest for digest in digests if digest]).values_list("pk", flat=True)
    )
    places = []
    for index, digest in enumerate(digests):
        if digest is None or digest not in seen:
            places.append(index)
        if digest is not None:
            seen.add(digest)
    return places


def _store_events(readings: Sequence[Reading], by: Principal, now: datetime) -> Written:
    """Store events at their time, or at the next millisecond that is free in their series."""
    if not readings:
        return Written(0, (), 0)
    stamp = _ms(now)
    keys = [(reading.name, tuple(sorted(reading.labels.items()))) for reading in readings]
    times = [stamp if reading.timestamp_ms is None else reading.timestamp_ms for reading in readings]
    placed = place(list(zip(keys, times, strict=True)), _taken(readings, times))
    moved = [replace(reading, timestamp_ms=at) for reading, at in zip(readings, placed, strict=True)]
    return ingest(samples=Samples.from_readings(moved, at=now), by=by, now=now)


def _taken(readings: Sequence[Reading], times: Sequence[int]) -> Iterator[tuple[Hashable, int]]:
    """Yield (series, time) of what is stored from a millisecond before the first event to well behind the last."""
    for name in {reading.name for reading in readings}:
        found = query.select([Matcher("__name__", "=", name)], min(times) - 1, max(times) + 60_000)
        for row, labels in enumerate(found.labels.dicts()):
            del labels["__name__"]
            key = (name, tuple(sorted(labels.items())))
            for at in found.ts[found.off[row] : found.off[row + 1]].tolist():
                yield key, at


_space: tuple[float, str | None] = (-FREE_CHECK, None)


def ensure_space() -> None:
    """Raise StoreFull when the embedded database's disk is nearly full; looked up every 5 s."""
    global _space
    at, problem = _space
    if monotonic() - at >= FREE_CHECK:
        problem = disk_problem()
        _space = (monotonic(), problem)
    if problem is not None:
        raise StoreFull(problem)


def disk_problem() -> str | None:
    """What is wrong with the disk of the portal's own database; None for one that runs elsewhere."""
    room = space.tightest(share=FREE_SHARE, least=FREE_BYTES)
    return None if room is None else room.problem
