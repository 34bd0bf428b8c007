"""Anomalies told by the streaming detector beside the mean ± 3 sigma, on labelled series of the portal's kinds.

    python -m benchmarks.anomaly

Each kind is drawn several times: three weeks of samples each 5 minutes with three anomalies of half an hour to a few
hours. Alarms within an hour and a half of each other are one; one that begins within an anomaly, or up to half an hour
after its end, has found it. Precision is of alarms, recall of anomalies, delay from an anomaly's begin to its alarm.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from apps.promql.functions.anomaly import Floats, Index, detect

STEP_MS: Final = 300_000
DAY: Final = 288
POINTS: Final = 21 * DAY
MERGED: Final = 18
AFTER: Final = 6
THRESHOLD: Final = 0.5
"""One for all series: a probability of about 1 in 1,600."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A series and its anomalies: [first, last] point of each."""

    kind: str
    ts: Index
    v: Floats
    anomalies: tuple[tuple[int, int], ...]


def labelled(seeds: range = range(6)) -> Iterator[Labelled]:
    """Series of every kind; the same for the same seeds."""
    for seed in seeds:
        for kind, make in KINDS.items():
            chance = np.random.default_rng([seed, *kind.encode()])
            begins = np.sort(8 * DAY + np.arange(3) * 4 * DAY + chance.integers(0, 3 * DAY, 3))
            anomalies = tuple((int(at), int(at + chance.integers(6, 40))) for at in begins)
            ts = np.arange(POINTS, dtype=np.int64) * STEP_MS + 1_760_000_000_000
            yield make(kind, ts, chance, anomalies)


def _day(ts: Index) -> Floats:
    wave: Floats = np.sin(2 * np.pi * (ts % 86_400_000) / 86_400_000)
    return wave


def _shifted(kind: str, ts: Index, base: Floats, by: float, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    v = base.copy()
    for number, (first, last) in enumerate(anomalies):
        v[first : last + 1] += by if number % 2 == 0 else -by
    return Labelled(kind, ts, v, anomalies)


def _seasonal(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    return _shifted(kind, ts, 100 + 40 * _day(ts) + 4 * chance.normal(size=POINTS), 45, anomalies)


def _trend(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    return _shifted(kind, ts, np.linspace(50, 150, POINTS) + 2 * chance.normal(size=POINTS), 25, anomalies)


def _level(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    """The level changes for good, three times."""
    v = 60 + 3 * chance.normal(size=POINTS)
    for number, (first, _) in enumerate(anomalies):
        v[first:] += (30, -20, 35)[number]
    return Labelled(kind, ts, v, anomalies)


def _gaps(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    whole = _shifted(kind, ts, 40 + 3 * chance.normal(size=POINTS), 25, anomalies)
    v = whole.v.copy()
    v[chance.random(POINTS) < 0.1] = np.nan
    away = int(chance.integers(2 * DAY, 6 * DAY))
    v[away : away + DAY // 2] = np.nan
    return Labelled(kind, ts, v, anomalies)


def _spikes(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    """Bursts are everyday here; what is looked for are much larger ones."""
    v = 10 + chance.gamma(2.0, 2.0, POINTS)
    often = chance.random(POINTS) < 0.01
    v[often] += chance.uniform(30, 60, int(often.sum()))
    return _shifted(kind, ts, v, 0, ()) if not anomalies else _burst(kind, ts, v, anomalies)


def _burst(kind: str, ts: Index, base: Floats, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    v = base.copy()
    for first, last in anomalies:
        v[first : last + 1] += 180
    return Labelled(kind, ts, v, anomalies)


def _counters(kind: str, ts: Index, chance: np.random.Generator, anomalies: tuple[tuple[int, int], ...]) -> Labelled:
    rate = chance.poisson(300 + 100 * _day(ts)).astype(np.float64)
    for first, last in anomalies:
        rate[first : last + 1] *= 4
    v = np.cumsum(rate)
    restart = int(chance.integers(5 * DAY, 7 * DAY))
    v[restart:] -= v[restart - 1]
    return Labelled(kind, ts, v, anomalies)


KINDS: Final[dict[str, Callable[..., Labelled]]] = {
    "seasonal": _seasonal,
    "trend": _trend,
    "level shift": _level,
    "gaps": _gaps,
    "spikes": _spikes,
    "counters": _counters,
}


def three_sigma(ts: Index, v: Floats) -> Floats:
    """1 where a value is more than three standard deviations off the mean of all before it."""
    there = np.isfinite(v)
    plain = np.where(there, v, 0.0)
    count = np.maximum(np.cumsum(there) - there, 1)
    mean = (np.cumsum(plain) - plain) / count
    square = (np.cumsum(plain * plain) - plain * plain) / count
    sigma = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return np.where(there & (np.abs(v - mean) > 3 * sigma) & (count > 100), 1.0, 0.0)


@dataclass(slots=True)
class Tally:
    """What the alarms of a detector came to."""

    alarms: int = 0
    right: int = 0
    anomalies: int = 0
    found: int = 0
    delay: float = 0.0

    def add(self, scores: Floats, case: Labelled, threshold: float) -> None:
        """Count the alarms of one series."""
        above = np.flatnonzero(scores >= threshold)
        begins = above[np.diff(above, prepend=-MERGED - 1) > MERGED].tolist()
        self.anomalies += len(case.anomalies)
        self.alarms += len(begins)
        spans = [(first, last + AFTER) for first, last in case.anomalies]
        self.right += sum(any(first <= at <= last for first, last in spans) for at in begins)
        for first, last in spans:
            within = above[(above >= first) & (above <= last)]
            if len(within):
                self.found += 1
                self.delay += float(within[0] - first) * STEP_MS / 60_000

    @property
    def precision(self) -> float:
        """Share of alarms that were right."""
        return self.right / self.alarms if self.alarms else 0.0

    @property
    def recall(self) -> float:
        """Share of anomalies that were found."""
        return self.found / self.anomalies if self.anomalies else 0.0

    def __str__(self) -> str:
        wait = self.delay / self.found if self.found else float("nan")
        return f"{self.precision:6.2f} {self.recall:6.2f} {wait:7.1f}"


def compare(cases: Iterator[Labelled]) -> dict[str, tuple[Tally, Tally]]:
    """(the detector's, mean ± 3 sigma's) by kind, and of "all"."""
    found: dict[str, tuple[Tally, Tally]] = {}
    for case in cases:
        ours, plain = detect(case.ts, case.v), three_sigma(case.ts, case.v)
        for name in (case.kind, "all"):
            mine, other = found.setdefault(name, (Tally(), Tally()))
            mine.add(ours, case, THRESHOLD)
            other.add(plain, case, 1.0)
    return found


def main() -> None:
    print(f"{'':12}  {'detect':^21}   {'mean ± 3 sigma':^21}")
    print(f"{'':12} {'prec':>6} {'recall':>6} {'delay/m':>7}   {'prec':>6} {'recall':>6} {'delay/m':>7}")
    for kind, (ours, plain) in compare(labelled()).items():
        print(f"{kind:12} {ours}   {plain}")
    cases = list(labelled(range(2)))
    begun = time.process_time()
    for case in cases:
        detect(case.ts, case.v)
    seconds = time.process_time() - begun
    print(f"{sum(len(case.v) for case in cases) / seconds:,.0f} points a second of one core")


if __name__ == "__main__":
    main()
