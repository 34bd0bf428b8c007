"""Which series each source wrote last, so that a series that stops is ended at once instead of lingering.

Pure: readings in, staleness markers out; when they are written is the caller's business.
"""

from collections.abc import Iterable

from apps.core.telemetry import Reading
from apps.promql.series import STALE

Key = tuple[str, frozenset[tuple[str, str]]]


def key_of(reading: Reading) -> Key:
    """What identifies the reading's series."""
    return reading.name, frozenset(reading.labels.items())


class Presence:
    """The series of each source's last round. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[Key, Reading]] = {}

    def copy(self) -> "Presence":
        """Return what to go back to when a round could not be stored."""
        other = Presence()
        other._seen = dict(self._seen)
        return other

    @property
    def sources(self) -> set[str]:
        """Sources that have living series."""
        return {source for source, series in self._seen.items() if series}

    def new(self, source: str, readings: Iterable[Reading]) -> list[Reading]:
        """Those of `readings` whose series the source did not write last time."""
        before = self._seen.get(source, {})
        return [reading for reading in readings if key_of(reading) not in before]

    def update(self, source: str, readings: Iterable[Reading], at_ms: int) -> list[Reading]:
        """Take this round as the source's last; return a staleness marker for each series it no longer has."""
        now = {key_of(reading): reading for reading in readings}
        before = self._seen.get(source, {})
        self._seen[source] = now
        return [_marker(reading, at_ms) for key, reading in before.items() if key not in now]

    def end(self, source: str, at_ms: int) -> list[Reading]:
        """Forget the source; return a staleness marker for each series it had."""
        return [_marker(reading, at_ms) for reading in self._seen.pop(source, {}).values()]


def _marker(reading: Reading, at_ms: int) -> Reading:
    return Reading(reading.name, STALE, reading.labels, reading.type, reading.help, at_ms)
