"""Which stretch of time a chart shows and in what steps: pure arithmetic on what the address says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

RANGES = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
DEFAULT = "1h"
COMPARED = {"week": timedelta(days=7)}
POINTS = 300
LONGEST = timedelta(days=400)
# The shipped collectors run each 15 s: finer steps would only repeat values.
STEPS = (15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 345600)
SCRAPE = timedelta(seconds=15)


class BadSpan(ValueError):
    """The address asks for a stretch of time that there is not."""


@dataclass(frozen=True)
class Span:
    """Steps at start, start + step, … up to end; all three lie on a grid, so that two requests meet the same instants.

    `begin` is where the whole stretch begins; `start` is later than it when only the new points are asked for.
    """

    begin: datetime
    start: datetime
    end: datetime
    step: timedelta

    @property
    def count(self) -> int:
        """How many steps there are."""
        return int((self.end - self.start) / self.step) + 1

    def earlier(self, by: timedelta) -> "Span":
        """Return the same steps so much earlier."""
        return Span(self.begin - by, self.start - by, self.end - by, self.step)

    @property
    def window(self) -> str:
        """The range of `rate()` that fits the step: four scrapes at least, and no gap between steps."""
        return f"{int(max(4 * SCRAPE, self.step).total_seconds())}s"


def span_of(query: Mapping[str, str], *, now: datetime) -> Span:
    """Read `range` (15m, 1h, 6h, 24h, 7d) or `from` and `to`, and `since` (all epoch ms); at most 300 steps."""
    if "from" in query or "to" in query:
        begin, end = _moment(query, "from"), min(_moment(query, "to"), now)
        if begin >= end:
            raise BadSpan("The range must begin before it ends, and not in the future.")
        if end - begin > LONGEST:
            raise BadSpan(f"The range is longer than {LONGEST.days} days.")
    else:
        name = query.get("range", DEFAULT)
        if name not in RANGES:
            raise BadSpan(f"There is no range {name!r}; there are {', '.join(RANGES)}, or from and to.")
        begin, end = now - RANGES[name], now
    step = step_for(end - begin)
    first = floor(begin, step)
    start = max(first, floor(_moment(query, "since"), step)) if "since" in query else first
    last = floor(end, step)
    return Span(begin=first, start=min(start, last), end=last, step=step)


def compared(query: Mapping[str, str]) -> timedelta | None:
    """Read `compare` (week): how much earlier lies what the charts are held against; None without it."""
    name = query.get("compare", "")
    if name and name not in COMPARED:
        raise BadSpan(f"There is no comparison {name!r}; there is {', '.join(COMPARED)}.")
    return COMPARED.get(name)


def step_for(length: timedelta) -> timedelta:
    """Return the smallest step of the list that gives at most 300 points."""
    for seconds in STEPS:
        if length / timedelta(seconds=seconds) <= POINTS:
            return timedelta(seconds=seconds)
    return timedelta(seconds=STEPS[-1])


def floor(moment: datetime, step: timedelta) -> datetime:
    """Return the last instant of the step's grid that is not after the moment."""
    seconds = int(step.total_seconds())
    return datetime.fromtimestamp(int(moment.timestamp()) // seconds * seconds, tz=moment.tzinfo)


def _moment(query: Mapping[str, str], name: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(query[name]) / 1000, tz=UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        raise BadSpan(f"{name} must be a time in milliseconds since 1970.") from None
