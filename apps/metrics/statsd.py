"""What StatsD's lines come to between two flushes: counters, gauges, histograms and sets of one process.

A line is cut at its colon and its first bar; what both sides mean is remembered, so a line of a known series costs two
cuts, a look-up and an addition. Pure: bytes in, readings out; who receives and when is written down is `statsd_server`.
UDP has no receipt: what was lost on the way, or with this process, is lost. So it is *at most once*.
"""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from apps.core.telemetry import SECONDS, Reading
from apps.metrics.protocols.statsd import MOST_BYTES, Head, Kind, Refused, head_of, number_of

EDGES: Final = tuple(float(f"{digit}e{power}") for power in range(-3, 7) for digit in (1, 5))
"""Buckets of histograms and distributions, whose unit nobody knows: 1 and 5 of each power of ten to five million."""
MOST_SERIES: Final = 50_000
MOST_HEADS: Final = 200_000
"""Ways of writing a line that are remembered; beyond it they are read again."""
MOST_MEMBERS: Final = 100_000
"""Different members that a set counts."""
IDLE: Final = 360
"""Flushes after which a series that nobody sends any more ends: an hour of them."""


@dataclass(slots=True)
class Cell:
    """One series (of a histogram all of its buckets): `value` as it stands, when it was last told."""

    head: Head
    value: float = 0.0
    seen: int = 0
    counts: list[float] = field(default_factory=list)
    members: set[bytes] = field(default_factory=set)


class Totals:
    """Everything that was told, by series. One thread at a time calls it."""

    def __init__(self) -> None:
        self._heads: dict[tuple[bytes, bytes], tuple[Cell, float] | str] = {}
        self._cells: dict[tuple[str, tuple[tuple[str, str], ...]], Cell] = {}
        self._kinds: dict[str, Kind] = {}
        self._flush = 0
        self.refused: Tally[str] = Tally()
        self.lines = 0

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, packets: list[bytes]) -> None:
        """Take packets of one or more lines each, in their order."""
        heads = self._heads
        for line in b"\n".join(packets).split(b"\n"):
            name, _, rest = line.partition(b":")
            told, _, tail = rest.partition(b"|")
            known = heads.get((name, tail))
            if known is None:
                if not line:
                    continue
                known = self._learn(line, name, tail)
            self.lines += 1
            if isinstance(known, str):
                self.refused[known] += 1
                continue
            cell, weight = known
            cell.seen = self._flush
            try:
                if cell.head.kind is Kind.COUNTER and b":" not in told:
                    value = float(told)
                    if not 0 <= value < 1e300:
                        raise Refused("malformed")
                    cell.value += value * weight
                else:
                    for one in told.split(b":"):
                        _tell(cell, one, weight)
            except Refused as error:
                self.refused[str(error)] += 1
            except ValueError:
                self.refused["malformed"] += 1

    def _learn(self, line: bytes, name: bytes, tail: bytes) -> tuple[Cell, float] | str:
        """What a line of that form means, or why it is refused."""
        try:
            if len(line) > MOST_BYTES:
                raise Refused("too_large")
            if line.startswith((b"_e{", b"_sc|")):  # events and service checks, whose texts are always new
                return "unsupported"
            head = head_of(name, tail)
            if self._kinds.setdefault(head.name, head.kind) is not head.kind:
                raise Refused("two_kinds")
            cell = self._cells.get((head.name, head.labels))
            if cell is None:
                if len(self._cells) >= MOST_SERIES:
                    return "store_series_limit"
                cell = self._cells[head.name, head.labels] = Cell(head)
                if head.kind in (Kind.SECONDS, Kind.HISTOGRAM):
                    cell.counts = [0.0] * (len(_edges(head.kind)) + 1)
            found: tuple[Cell, float] | str = (cell, head.weight)
        except Refused as error:
            return str(error)
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[name, tail] = found
        return found

    def flush(self) -> list[Reading]:
        """Return what all series stand at, without those that have been silent too long; sets begin anew."""
        self._flush += 1
        idle = [key for key, cell in self._cells.items() if cell.seen < self._flush - IDLE]
        if idle:
            for key in idle:
                del self._cells[key]
            self._heads.clear()
            self._kinds = {cell.head.name: cell.head.kind for cell in self._cells.values()}
        found = [reading for cell in self._cells.values() for reading in _readings(cell)]
        for cell in self._cells.values():
            if cell.members:
                cell.members = set()
        return found


def _tell(cell: Cell, told: bytes, weight: float) -> None:
    """Add one value to its series. Raises Refused."""
    kind = cell.head.kind
    if kind is Kind.SET:
        if len(cell.members) < MOST_MEMBERS:
            cell.members.add(told)
        return
    value = number_of(told)
    if kind is Kind.GAUGE:
        cell.value = cell.value + value if told[:1] in b"+-" else value
    elif kind is Kind.COUNTER:
        if value < 0:
            raise Refused("malformed")
        cell.value += value * weight
    else:
        if kind is Kind.SECONDS:
            value /= 1000
        cell.counts[bisect_left(_edges(kind), value)] += weight
        cell.value += value * weight


def _edges(kind: Kind) -> tuple[float, ...]:
    return SECONDS if kind is Kind.SECONDS else EDGES


def _readings(cell: Cell) -> Iterator[Reading]:
    name, labels = cell.head.name, dict(cell.head.labels)
    match cell.head.kind:
        case Kind.COUNTER:
            yield Reading(name, cell.value, labels, "counter")
        case Kind.GAUGE:
            yield Reading(name, cell.value, labels)
        case Kind.SET:
            yield Reading(name, float(len(cell.members)), labels)
        case kind:
            total = 0.0
            for edge, count in zip((*map(repr, _edges(kind)), "+Inf"), cell.counts, strict=True):
                total += count
                yield Reading(f"{name}_bucket", total, {**labels, "le": edge}, "histogram")
            yield Reading(f"{name}_sum", cell.value, labels, "histogram")
            yield Reading(f"{name}_count", total, labels, "histogram")
