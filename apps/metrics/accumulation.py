"""What deltas come to: each is added once to the total of its series, however often it is sent.

Pure. A delta says how much was added in (start, end]. Of each series the total and the end of the last delta in it are
known (`Totals`); a delta that begins there or later is added, one that ends there was added already, and one that ends
before, or reaches over it, cannot be told from one that was, so it is refused: a total is never too high.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64

KEPT_NS: Final = 24 * 3600 * 10**9
"""A series whose last delta is so much older than the newest one is forgotten; its total would begin anew."""
_ROW: Final = np.dtype([("series", "<i8"), ("end", "<i8"), ("total", "<f8")])


class Verdict(IntEnum):
    """What becomes of a delta."""

    ADDED = 0
    KNOWN = 1
    """It ends where the last one did: it has been added."""
    LATE = 2
    """It ends before the last one did."""
    OVERLAPPING = 3
    """It begins before the last one ended and ends after it."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Of S series, sorted by id: series int64[S], end int64[S] (ns), total float64[S]."""

    rows: NDArray[np.void]

    @classmethod
    def none(cls) -> "Totals":
        """Nothing yet."""
        return cls(np.zeros(0, dtype=_ROW))

    @classmethod
    def of_bytes(cls, data: bytes) -> "Totals":
        """As they were written down."""
        return cls(np.frombuffer(data, dtype=_ROW))

    def to_bytes(self) -> bytes:
        """For a row: 24 bytes a series."""
        return self.rows.tobytes()

    def of(self, series: Int64) -> tuple[Int64, Float64]:
        """(end int64[N], 0 where there is none; total float64[N]) of these series."""
        known = self.rows["series"]
        if not len(known):
            return np.zeros(len(series), dtype=np.int64), np.zeros(len(series))
        place = np.minimum(np.searchsorted(known, series), len(known) - 1)
        there = known[place] == series
        return np.where(there, self.rows["end"][place], 0), np.where(there, self.rows["total"][place], 0.0)

    def after(self, series: Int64, ends: Int64, totals: Float64) -> "Totals":
        """Return what is known with these (of a series several times: its latest end counts)."""
        rows = np.empty(len(series), dtype=_ROW)
        rows["series"], rows["end"], rows["total"] = series, ends, totals
        both = np.concatenate([self.rows, rows])
        both = both[np.lexsort((both["end"], both["series"]))]
        both = both[np.append(both["series"][1:] != both["series"][:-1], True)[: len(both)]]
        newest = int(both["end"].max(initial=0))
        return Totals(both[both["end"] > newest - KEPT_NS])


def accumulate(
    known: Totals, series: Int64, starts: Int64, ends: Int64, deltas: Float64
) -> tuple[Float64, NDArray[np.int8]]:
    """(what each series stands at after each delta float64[N], verdict int8[N]); times in ns, start 0 is unknown.

    Several deltas of one series are taken in the order of their ends.
    """
    last, base = known.of(series)
    totals = base + deltas
    verdict = np.full(len(series), Verdict.ADDED, dtype=np.int8)
    verdict[(starts > 0) & (starts < last)] = Verdict.OVERLAPPING
    verdict[ends < last] = Verdict.LATE
    verdict[(ends == last) & (last > 0)] = Verdict.KNOWN
    order = np.lexsort((ends, series))
    same = series[order][1:] == series[order][:-1]
    if same.any():  # several of one series in one request: rare, and each depends on the one before
        _in_order(order, same, last, base, (series, starts, ends, deltas), totals, verdict)
    return totals, verdict


def _in_order(
    order: Int64,
    same: NDArray[np.bool_],
    last: Int64,
    base: Float64,
    columns: tuple[Int64, Int64, Int64, Float64],
    totals: Float64,
    verdict: NDArray[np.int8],
) -> None:
    series, starts, ends, deltas = columns
    many = np.zeros(len(order), dtype=bool)
    many[1:] |= same
    many[:-1] |= same
    stand: dict[int, tuple[int, float]] = {}
    for index in order[many].tolist():
        one, start, end = int(series[index]), int(starts[index]), int(ends[index])
        reached, total = stand.get(one, (int(last[index]), float(base[index])))
        verdict[index] = judge(reached, start, end)
        if verdict[index] == Verdict.ADDED:
            reached, total = end, total + float(deltas[index])
        totals[index] = total
        stand[one] = reached, total


def judge(last: int, start: int, end: int) -> Verdict:
    """What becomes of a delta of (start, end] where deltas up to `last` (0: none) have been added.

    >>> [judge(10, *span).name for span in ((10, 20), (12, 20), (0, 20), (5, 10), (1, 5), (5, 15))]
    ['ADDED', 'ADDED', 'ADDED', 'KNOWN', 'LATE', 'OVERLAPPING']
    """
    if end == last and last:
        return Verdict.KNOWN
    if end < last:
        return Verdict.LATE
    return Verdict.OVERLAPPING if 0 < start < last else Verdict.ADDED
