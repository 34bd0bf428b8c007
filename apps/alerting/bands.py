"""What is usual for a series at this hour, and how far from it is too far: adaptive bands. Pure.

A series is remembered by the hour, for five weeks: its median, its spread within the hour, and by how much the hour was
mistaken beforehand. What is expected of an hour is the median of the same hours before (of the week, of the day, or all
of them, as far as there are two), each moved by what has changed since, so that a trend is followed. The band is as
wide as the hours' spread and the mistakes of the last week say, robustly: an outage in the history neither moves nor
widens it much.

What is expected of an hour depends on earlier hours only. Knows no rows, no clock and no settings.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Index: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

HOUR: Final = timedelta(hours=1)
DAY_HOURS: Final = 24
WEEK_HOURS: Final = 168
KEPT: Final = 5 * WEEK_HOURS
"""Hours that are remembered: five weeks."""

CYCLES: Final = 2
"""Seasons that must be known before one is believed."""

MAD_SIGMA: Final = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""

LEAST_NOISE: Final = 0.5
"""The spread of a quiet hour counts as this share of that of a usual one, at least."""

WITHIN: Final = 1.05
"""How much farther than a value that was no anomaly the band reaches afterwards."""

MOST_WIDENED: Final = 20.0
"""A band is never made wider than so many times by feedback."""

MOST_SCORE: Final = 1e6

Direction: TypeAlias = Literal["above", "below", "both"]
MODELS: Final = ("none", "hour of day", "hour of week")


def _nowhere(day: date) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Terms:
    """How a band is drawn: `width` robust standard deviations, at least `least` and `least_share` of what is expected.

    `warm_up` are the hours a series must be known before it is judged. `holiday` days count as Sundays, and hours are
    those of `zone`.
    """

    width: float = 5.0
    direction: Direction = "both"
    least: float = 0.0
    least_share: float = 0.1
    warm_up: int = 48
    zone: tzinfo = UTC
    holiday: Callable[[date], bool] = _nowhere

    def slots(self, hours: Index) -> Index:
        """Hour of the week (0: Monday, 0:00) of hours since 1970, in the zone, holidays as Sundays."""
        found = []
        for hour in hours.tolist():
            at = datetime.fromtimestamp(hour * 3600, tz=self.zone)
            day = 6 if self.holiday(at.date()) else at.weekday()
            found.append(day * DAY_HOURS + at.hour)
        return np.array(found, dtype=np.int64)


@dataclass(slots=True)
class Memory:
    """Hours of S series: `first` is the hour (since 1970) of column 0; float64[S, H], NaN for what is not known.

    `middle`: medians; `noise`: robust standard deviation within the hour; `miss`: how wrong what was expected was.
    """

    first: int
    middle: Floats
    noise: Floats
    miss: Floats

    @classmethod
    def empty(cls, series: int, first: int) -> "Memory":
        """Return a memory of nothing."""
        none = np.empty((series, 0))
        return cls(first, none, none.copy(), none.copy())

    @property
    def hours(self) -> Index:
        """The hours of the columns."""
        return np.arange(self.first, self.first + self.middle.shape[1], dtype=np.int64)

    @property
    def after(self) -> int:
        """The hour after the last that is known."""
        return self.first + int(self.middle.shape[1])


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of S series at the middle of each of three hours around `hour`: float64[S, 3], NaN unknown.

    `model` int[S] indexes MODELS; `known` int[S] counts the hours it is learned from.
    """

    hour: int
    centre: Floats
    sigma: Floats
    model: Index
    known: Index


@dataclass(frozen=True, slots=True)
class Band:
    """A band at one moment: float64[S] each; NaN where nothing is expected yet."""

    expected: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True)
class Widened:
    """Bands made wider by feedback: {hour of week: factor}, also for the hours beside it."""

    factors: dict[int, float] = field(default_factory=dict)

    def at(self, slot: int) -> float:
        """The factor at an hour of the week."""
        around = (slot, (slot - 1) % WEEK_HOURS, (slot + 1) % WEEK_HOURS)
        return max(self.factors.get(each, 1.0) for each in around)

    def by(self, slot: int, score: float) -> "Widened":
        """The same, so wide that what scored so at that hour would have been within."""
        if not math.isfinite(score) or score <= 1:
            return self
        factor = min(self.at(slot) * score * WITHIN, MOST_WIDENED)
        return Widened({**self.factors, slot: round(factor, 3)})


# --- Learning ---------------------------------------------------------------------------------------------------


def learn(memory: Memory, values: Floats, terms: Terms) -> None:
    """Add the hour after the last: `values` float64[S, n] are what was measured within it, NaN missing.

    The hour is first expected from what is known, so that its mistake is an honest one.
    """
    hour = memory.after
    middle = _median(values)
    noise = MAD_SIGMA * _median(np.abs(values - middle[:, None]))
    slots, slot = terms.slots(memory.hours), int(terms.slots(np.array([hour]))[0])
    expected = _centre(memory, slots, slot, _models(memory))
    miss = np.abs(middle - expected)
    keep = slice(1, None) if memory.middle.shape[1] >= KEPT else slice(None)
    for name, column in (("middle", middle), ("noise", noise), ("miss", miss)):
        before = getattr(memory, name)
        setattr(memory, name, np.concatenate([before[:, keep], column[:, None]], axis=1))
    memory.first = hour + 1 - memory.middle.shape[1]


def expect(memory: Memory, hour: int, terms: Terms) -> Expectation:
    """What to expect around `hour`, which is not before the first hour that is not known."""
    if hour < memory.after:
        raise ValueError(f"hour {hour} is known already; expecting it would be looking ahead")
    series = len(memory.middle)
    targets = np.array([hour - 1, hour, hour + 1], dtype=np.int64)
    slots, wanted = terms.slots(memory.hours), terms.slots(targets)
    known = (~np.isnan(memory.middle)).sum(axis=1)
    model = _models(memory)
    centre, sigma = np.full((series, 3), np.nan), np.full((series, 3), np.nan)
    if not memory.middle.shape[1] or not series:
        return Expectation(hour, centre, sigma, model, known)
    for place, slot in enumerate(wanted.tolist()):
        centre[:, place] = _centre(memory, slots, slot, model)
        sigma[:, place] = _sigma(memory, np.flatnonzero(slots % DAY_HOURS == slot % DAY_HOURS))
    # A slot that a series never had: what is expected of the hour beside it is the best that is known.
    for values in (centre, sigma):
        values[:, 1] = np.where(np.isnan(values[:, 1]), _mean(values[:, [0, 2]]), values[:, 1])
        for side in (0, 2):
            values[:, side] = np.where(np.isnan(values[:, side]), values[:, 1], values[:, side])
    unknown = known < max(1, terms.warm_up)
    centre[unknown] = np.nan
    return Expectation(hour, centre, sigma, model, known)


def _models(memory: Memory) -> Index:
    """int64[S]: which of MODELS each series has hours enough for."""
    span = _span(memory)
    weekly, daily = span >= CYCLES * WEEK_HOURS, span >= CYCLES * DAY_HOURS
    found: Index = np.where(weekly, 2, np.where(daily, 1, 0)).astype(np.int64)
    return found


def _centre(memory: Memory, slots: Index, slot: int, model: Index) -> Floats:
    """float64[S]: what to expect of the next hour, which is `slot` of the week."""
    found = np.full(len(memory.middle), np.nan)
    week, day = slots == slot, slots % DAY_HOURS == slot % DAY_HOURS
    for number, season, window in ((2, week, WEEK_HOURS), (1, day, DAY_HOURS), (0, None, DAY_HOURS)):
        rows = np.flatnonzero(model == number)
        if not len(rows):
            continue
        if season is None or not season.any():
            found[rows] = _level(memory, rows, memory.middle.shape[1], window)
        else:
            found[rows] = _seasonal(memory, rows, np.flatnonzero(season), window)
    return found


def _span(memory: Memory) -> Index:
    """int64[S]: hours since the first one known of each series."""
    there = ~np.isnan(memory.middle)
    if not there.shape[1]:
        return np.zeros(len(there), dtype=np.int64)
    first = np.where(there.any(axis=1), there.argmax(axis=1), there.shape[1])
    found: Index = there.shape[1] - first
    return found


def _level(memory: Memory, rows: Index, end: int, window: int) -> Floats:
    """float64[R]: the median of the `window` hours before column `end`."""
    return _median(memory.middle[rows, max(0, end - window) : end])


def _seasonal(memory: Memory, rows: Index, columns: Index, window: int) -> Floats:
    """float64[R]: the median of these hours, each moved by what changed in the seasons since.

    The change over so many seasons is the median of how much each hour of the last one differs from its like then:
    the seasonal Kendall slope's idea (Hirsch, Slack and Smith 1982), which an outage in either does not move.
    """
    end = memory.middle.shape[1]
    known = memory.middle[rows]
    moved = []
    for column in columns[-14:].tolist():
        back = max(1, round((end - column) / window)) * window
        begin = max(end - window, back)  # what is younger has its like among the known; in the oldest hours nothing has
        late, early = known[:, begin:], known[:, begin - back : max(end - back, 0)]
        change = _median(late - early)
        moved.append(known[:, column] + np.nan_to_num(change))
    return _median(np.stack(moved, axis=1))


def _sigma(memory: Memory, hours: Index) -> Floats:
    """float64[S]: what a value may be off: noise within such hours, and mistakes of the last week."""
    noise = _median(memory.noise[:, hours[-14:]])
    usual = _median(memory.noise[:, -WEEK_HOURS:])
    noise = np.fmax(noise, LEAST_NOISE * usual)
    lately = memory.miss[:, -WEEK_HOURS:]
    miss = MAD_SIGMA * _median(lately)
    at_this_hour = MAD_SIGMA * _median(memory.miss[:, hours[-7:]])
    miss = np.fmax(miss, at_this_hour)
    # Nothing was expected yet, so nothing was mistaken: the spread of all hours is the most that can be said.
    around = memory.middle[:, -WEEK_HOURS:]
    spread = MAD_SIGMA * _median(np.abs(around - _median(around)[:, None]))
    few = (~np.isnan(lately)).sum(axis=1) < DAY_HOURS
    miss = np.where(few, np.fmax(miss, spread), miss)
    return np.hypot(np.nan_to_num(noise), np.nan_to_num(miss))


def _median(values: Floats) -> Floats:
    """Along axis 1, NaN left out; NaN where there is none."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    missing = np.isnan(values)
    if not missing.any():
        plain: Floats = np.median(values, axis=1)
        return plain
    ordered = np.sort(values, axis=1)
    count = (~missing).sum(axis=1)
    rows = np.arange(len(values))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    return np.where(count > 0, (ordered[rows, low] + ordered[rows, high]) / 2, np.nan)


def _mean(values: Floats) -> Floats:
    count = (~np.isnan(values)).sum(axis=1)
    total = np.nansum(values, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# --- Judging ----------------------------------------------------------------------------------------------------


def band(found: Expectation, at_ms: int, terms: Terms, wider: Floats) -> Band:
    """The band at a moment within the hour of the expectation, straight from the middle of one hour to the next.

    `wider` float64[S] are factors by feedback.
    """
    part = at_ms / 3_600_000 - found.hour - 0.5
    beside = 2 if part >= 0 else 0
    share = abs(part)
    expected = found.centre[:, 1] * (1 - share) + found.centre[:, beside] * share
    sigma = found.sigma[:, 1] * (1 - share) + found.sigma[:, beside] * share
    half = np.maximum(terms.width * sigma, np.maximum(terms.least, terms.least_share * np.abs(expected))) * wider
    return Band(expected, expected - half, expected + half)


def score(values: Floats, within: Band, direction: Direction) -> Floats:
    """How far values are off, in half bands, in the direction that counts: above 1 is outside; NaN where unknown."""
    off = values - within.expected
    if direction == "above":
        off = np.maximum(off, 0.0)
    elif direction == "below":
        off = np.minimum(off, 0.0)
    off, half = np.abs(off), within.upper - within.expected
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(off == 0, 0.0, np.minimum(off / half, MOST_SCORE))
    return np.where(np.isnan(within.expected) | np.isnan(values), np.nan, found)


def model_text(model: int, known: int) -> str:
    """What the band is learned by, for people: "hour of week, from 4 weeks"."""
    if model == 2:
        return f"{MODELS[2]}, from {_many(round(known / WEEK_HOURS), 'week')}"
    days = _many(round(known / DAY_HOURS), "day")
    if model == 1:
        return f"{MODELS[1]}, from {days} (hour of week once {CYCLES} weeks are known)"
    return f"no season, from {_many(known, 'hour')} (hour of day once {CYCLES} days are known)"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- Rows -------------------------------------------------------------------------------------------------------


def pack(memory: Memory, row: int) -> bytes:
    """One series of a memory as bytes: 12 a known hour."""
    three = np.stack([memory.middle[row], memory.noise[row], memory.miss[row]])
    return three.astype("<f4").tobytes()


def unpack(parts: list[tuple[int, bytes]]) -> Memory:
    """A memory of several series from (first hour, bytes) each; hours that one of them lacks are NaN."""
    arrays = [(first, np.frombuffer(data, dtype="<f4").reshape(3, -1).astype(np.float64)) for first, data in parts]
    if not arrays:
        return Memory.empty(0, 0)
    start = min(first for first, _ in arrays)
    end = max(first + array.shape[1] for first, array in arrays)
    start = max(start, end - KEPT)
    whole = np.full((3, len(arrays), end - start), np.nan)
    for row, (first, array) in enumerate(arrays):
        skipped = max(0, start - first)
        left = array[:, skipped:]
        begin = first + skipped - start
        whole[:, row, begin : begin + left.shape[1]] = left
    return Memory(start, whole[0], whole[1], whole[2])
