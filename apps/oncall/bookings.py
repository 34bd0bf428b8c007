"""Who an event of a calendar is about: its attendees or its title, against the names that people go by. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from apps.accounts.ical import Occurrence
from apps.oncall.rotation import flattened

MOST_UNMATCHED: Final = 50
_PREFIX: Final = re.compile(r"^\s*(?:\[[^\]]{0,40}\]\s*)+")
"""Grafana OnCall writes [L1] before the name."""
_SUFFIX: Final = re.compile(r"\s*\([^()]*\)\s*$")
"""The portal's own calendars write the schedule behind the name."""
_APART: Final = re.compile(r"\s*(?:[,;/&|]|\band\b|\bon[- ]?call\b|[:()–—]|\s-\s)\s*", re.IGNORECASE)

Turn = tuple[str, str, int]
"""From (inclusive) and to (exclusive) as ISO 8601 in UTC, and whose it is: as the row of a calendar keeps it."""


@dataclass(frozen=True, slots=True)
class Bookings:
    """The turns of a calendar's events, and the titles of those that are nobody's."""

    turns: list[Turn]
    unmatched: list[str]


class Names:
    """Finds a person by username, e-mail address or full name, whatever its case; a name of two people is nobody's."""

    def __init__(self, people: Iterable[tuple[int, Sequence[str]]]) -> None:
        """`people`: (id, the names that each goes by)."""
        self._known: dict[str, int | None] = {}
        for ident, names in people:
            for name in {_plain(name) for name in names} - {""}:
                self._known[name] = ident if self._known.get(name, ident) == ident else None

    def who(self, title: str, attendees: Sequence[str] = ()) -> int | None:
        """Return whose event it is: that of the first attendee who is known, else of whom the title names."""
        for name in (*attendees, title, *_parts(title)):
            if (found := self._known.get(_plain(name))) is not None:
                return found
        return None


def book(occurrences: Iterable[Occurrence], names: Names) -> Bookings:
    """Return whose turns the events are; of events at once the one that began last wins."""
    turns, unmatched = [], dict[str, None]()
    for one in occurrences:
        person = names.who(one.summary, one.people)
        if person is None:
            unmatched[one.summary or ", ".join(one.people) or "an event without a title"] = None
        else:
            turns.append((one.start, one.end, person))
    rows = [(begin.isoformat(), after.isoformat(), person) for begin, after, person in flattened(turns)]
    return Bookings(rows, list(unmatched)[:MOST_UNMATCHED])


def _parts(title: str) -> list[str]:
    bare = _PREFIX.sub("", title)
    return [bare, _SUFFIX.sub("", bare), *_APART.split(bare)]


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
