"""Windows over roll-ups, where samples are gone: which functions buckets answer exactly, and how; the rest is told.

What buckets hold answers a window exactly when its begin and its end are ends of buckets. A window that is shorter
than a bucket is widened to one (what adds up is scaled down again), its end moves back to the end of a bucket, and a
function for which buckets are no answer takes each one's last sample for all of its samples: that is approximate,
and a note names the span.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from apps.promql import windows
from apps.promql.arrays import Floats, Index, Mask, Times
from apps.promql.labels import Labels
from apps.promql.series import Grid, Ragged, Tier
from apps.promql.windows import Check, Function, Seen

HOUR: Final = 3_600_000
LASTS: Final = ("last", "last_at")
"""The fields of what is approximate."""
COUNTER: Final = ("count", "first", "first_at", "last", "last_at", "lost")


class Laid(NamedTuple):
    """The windows that are asked for: (end - width, end] for each end, seen from the evaluation times `at`."""

    ends: Grid
    at: Grid
    width: int
    check: Check


class Look(NamedTuple):
    """How they are laid over a tier: as (end - wide, end]."""

    tier: Tier
    laid: Laid
    wide: int

    @property
    def share(self) -> float:
        """How much of that is asked for."""
        return self.laid.width / self.wide

    def over(self, field: str, function: Function) -> tuple[Floats, Mask]:
        """A window function over one number of the buckets: (v, ok), both [S, n]."""
        return self.of(self.tier.column(field), function)

    def of(self, ragged: Ragged, function: Function) -> tuple[Floats, Mask]:
        return windows.evaluate(ragged, self.laid.ends, self.laid.at, self.wide, function, self.laid.check)


@dataclass(frozen=True, slots=True)
class Exact:
    """A function that buckets answer: the fields that it takes, and how."""

    fields: tuple[str, ...]
    answer: Callable[[Look], tuple[Floats, Mask]]


def _plainly(field: str, function: Function, unit: int = 1) -> Exact:
    def answer(look: Look) -> tuple[Floats, Mask]:
        v, ok = look.over(field, function)
        return v / unit, ok

    return Exact((field,), answer)


def _adding_up(field: str) -> Exact:
    def answer(look: Look) -> tuple[Floats, Mask]:
        v, ok = look.over(field, windows.sums)
        return v * look.share, ok

    return Exact((field,), answer)


def _average(look: Look) -> tuple[Floats, Mask]:
    total, ok = look.over("sum", windows.sums)
    count, _ = look.over("count", windows.sums)
    with np.errstate(all="ignore"):
        return total / count, ok


def _extrapolated(fields: tuple[str, ...], *, counter: bool, per_second: bool) -> Exact:
    """rate, increase and delta as samples would give them: of each window only the ends and the resets count."""

    def answer(look: Look) -> tuple[Floats, Mask]:
        tier = look.tier
        first, _ = look.over("first", windows.first)
        newest, _ = look.over("last", windows.last)
        count, some = look.over("count", windows.sums)
        with np.errstate(all="ignore"):
            increase = newest - first
            if counter:
                inside, _ = look.over("lost", windows.sums)
                falls = falls_between(tier.off, tier.columns["first"], tier.columns["last"])
                between, _ = look.of(replace(tier.column("last"), v=falls), windows.sums_after_first)
                increase += inside + between
        ends = look.laid.ends.times() // tier.resolution * tier.resolution
        start, stop = look.over("first_at", windows.first)[0], look.over("last_at", windows.last)[0]
        seen = Seen(first, start, stop, count)
        windows.stretched(increase, seen, ends, look.wide, counter=counter, per_second=per_second)
        if not per_second:
            increase *= look.share
        return increase, some & (count >= 2)

    return Exact(fields, answer)


EXACT: Final = {
    "max_over_time": _plainly("max", windows.maxima),
    "min_over_time": _plainly("min", windows.minima),
    "sum_over_time": _adding_up("sum"),
    "count_over_time": _adding_up("count"),
    "avg_over_time": Exact(("sum", "count"), _average),
    "last_over_time": _plainly("last", windows.last),
    "first_over_time": _plainly("first", windows.first),
    "ts_of_last_over_time": _plainly("last_at", windows.last, 1000),
    "ts_of_first_over_time": _plainly("first_at", windows.first, 1000),
    "present_over_time": _plainly("count", windows.presence),
    "absent_over_time": _plainly("count", windows.presence),
    "rate": _extrapolated(COUNTER, counter=True, per_second=True),
    "increase": _extrapolated(COUNTER, counter=True, per_second=False),
    "delta": _extrapolated(COUNTER[:-1], counter=False, per_second=False),
}


def fields_for(name: str) -> frozenset[str]:
    """The numbers of buckets that a function over windows uses; an instant selector's name is ""."""
    return frozenset(EXACT[name].fields) if name in EXACT else frozenset(LASTS)


def falls_between(off: Index, first: Floats, last: Floats) -> Floats:
    """float64[B]: the value from which a counter fell between the bucket before and this one of its series, else 0."""
    fallen = np.zeros(len(first))
    fallen[1:] = np.where(first[1:] < last[:-1], last[:-1], 0.0)
    starts = off[:-1]
    fallen[starts[starts < len(fallen)]] = 0.0
    return fallen


def lasts(tier: Tier) -> Ragged:
    """The last sample of each bucket, at its own time; without labels."""
    return Ragged(
        Labels.empty(len(tier.until)), tier.columns["last_at"].astype(np.int64), tier.columns["last"], tier.off
    )


def samples(ragged: Ragged) -> Ragged:
    """All that is known as samples: the last one of each bucket where samples are gone. No tiers are left."""
    if not ragged.tiers:
        return ragged
    row = [np.repeat(np.arange(ragged.size), ragged.counts)]
    ts, v = [ragged.ts], [ragged.v]
    gone: Times = np.full(ragged.size, np.iinfo(np.int64).min)
    for tier in reversed(ragged.tiers):
        one = lasts(tier)
        rows = np.repeat(np.arange(ragged.size), one.counts)
        kept = (tier.at > gone[rows]) & (tier.at <= tier.until[rows])
        row.append(rows[kept])
        ts.append(one.ts[kept])
        v.append(one.v[kept])
        gone = np.maximum(gone, tier.until)
    kept = ragged.ts > gone[row[0]]
    row[0], ts[0], v[0] = row[0][kept], ts[0][kept], v[0][kept]
    rows, times, values = np.concatenate(row), np.concatenate(ts), np.concatenate(v)
    order = np.lexsort((times, rows))
    off = np.searchsorted(rows[order], np.arange(ragged.size + 1))
    return Ragged(ragged.labels, times[order], values[order], off, ragged.warnings)


Overlaid = tuple[Floats, Mask, tuple[str, ...]]
"""(v, ok, notes on what is approximate)."""
Instead = Callable[[Ragged, int], tuple[Floats, Mask]]
"""A function that buckets do not answer, over samples that stand for them and windows of a width in ms."""


def overlaid(name: str, ragged: Ragged, laid: Laid, raw: tuple[Floats, Mask], instead: Instead) -> Overlaid:
    """The answer of a window function, `raw` where samples are there and the tiers' where they are gone.

    name: "" for an instant selector, whose `width` is the lookback.
    """
    v, ok = raw
    width = laid.width
    ends = laid.ends.times()
    begins = ends - width
    notes: list[str] = []
    for tier in ragged.tiers:
        here = begins[None, :] < tier.until[:, None]
        if not here.any():
            continue
        exact = EXACT.get(name)
        wide = -(-width // tier.resolution) * tier.resolution
        if exact is not None:
            found, present = exact.answer(Look(tier, laid, wide))
        else:
            wide = wide if not name else max(wide, 2 * tier.resolution)
            found, present = instead(lasts(tier), wide)
        v, ok = np.where(here, found, v), np.where(here, present, ok)
        steps = here.any(axis=0)
        if exact is not None and width % tier.resolution == 0:
            steps &= ends % tier.resolution != 0
        if steps.any():
            notes += _note(tier, begins[steps], ends[steps], wide - width)
    return v, ok, tuple(notes)


def note_of_samples(ragged: Ragged, tmin: int, tmax: int) -> tuple[str, ...]:
    """What is to be said about `samples` with tmin < ts <= tmax."""
    begins, ends = np.array([tmin]), np.array([tmax])
    told = [_note(tier, begins, ends, 0) for tier in ragged.tiers if (tier.until > tmin).any()]
    return tuple(text for texts in told for text in texts)


def _note(tier: Tier, begins: Times, ends: Times, margin: int) -> list[str]:
    """Which span is approximate, of windows that share some time with buckets."""
    low, high = int(begins.min()) - margin, int(ends.max())
    inside = (tier.at > low) & (tier.at < high + tier.resolution)
    if not inside.any():
        return []
    first = max(int(begins.min()), int(tier.at[inside].min()) - tier.resolution)
    last = min(high, int(tier.until.max()))
    kept = "hourly" if tier.resolution == HOUR else f"{tier.resolution // 60_000}-minute"
    span = f"between {_moment(min(first, last))} and {_moment(last)} UTC"
    return [f"{span} only {kept} roll-ups are kept: this part of the answer is approximate"]


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M}"
