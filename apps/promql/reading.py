"""What selectors read: all of it at once where that is little, else some series at a time."""

from collections.abc import Iterator
from dataclasses import replace

from apps.promql.errors import PromQLError, TooMany
from apps.promql.series import Ragged, stale_mask
from apps.promql.source import Request, SizedSource


class Fetched:
    """What one request brought, with and without staleness markers, or the error with which it was refused."""

    __slots__ = ("_answer", "_live")

    def __init__(self, answer: Ragged | PromQLError) -> None:
        self._answer = answer
        self._live: Ragged | None = None

    def read(self) -> Ragged:
        """All samples. PromQLError."""
        if isinstance(self._answer, PromQLError):
            raise self._answer
        return self._answer

    def cut(self, tmin: int, tmax: int) -> "Fetched":
        """The samples with tmin < ts <= tmax."""
        return Fetched(self.read().between(tmin, tmax))

    def live(self) -> Ragged:
        """Without staleness markers, as range functions see it."""
        if self._live is None:
            ragged = self.read()
            stale = stale_mask(ragged.v)
            self._live = ragged.keep(~stale) if stale.any() else ragged
        return self._live


class Pieces:
    """Reads a query's selectors when they are evaluated, about `held` samples at a time; keeps nothing.

    A piece is some series over the whole time, never some time of all series: functions over windows work series by
    series, so nothing is read twice and no window is cut.
    """

    def __init__(self, source: SizedSource, held: int, series: int) -> None:
        self._source = source
        self._held = max(1, held)
        self.series = series
        self.samples = 0
        """Read so far, in all."""
        self.warnings: dict[str, None] = {}

    def read(self, request: Request) -> Iterator[Fetched]:
        """The answer, at least one piece of it. PromQLError."""
        [estimate] = self._source.estimate([request])
        size = max(1, estimate.series * self._held // max(1, estimate.samples))
        todo = [(low, min(low + size, estimate.series)) for low in range(0, estimate.series, size)][::-1]
        if not todo:
            yield Fetched(Ragged.empty())
        while todo:
            low, high = todo.pop()
            # An estimate may be far off; a series alone is read whatever it has, up to the source's own limit.
            most = 2 * self._held if high - low > 1 else None
            try:
                [part] = self._source.select_many([replace(request, rows=(low, high), most=most)])
            except TooMany:
                middle = (low + high) // 2
                todo += [(middle, high), (low, middle)]
                continue
            self.samples += part.read
            self.warnings.update(dict.fromkeys(part.warnings))
            yield Fetched(part)
