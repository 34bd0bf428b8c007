"""Which panels an open page follows, and when each is due: values in, decisions out. Knows neither socket nor store.

A panel is due at once when one of its sources brings something after a quiet time; while it goes on bringing more, once
in a cell of a grid that all pages share. Either way pages that follow the same panel ask in the same moment, and are
answered once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MOST: Final = 60
"""Panels that one page may follow."""
ANY: Final = "*"
PUSH: Final = "push"
"""The source that is announced by the first of many requests, once a second (`apps.metrics.services`)."""
SHORTEST, LONGEST = 1.0, 20.0
"""Seconds between two pushes of a panel: a third of its step, within these."""
QUIET: Final = 0.8
"""How much of the time between two pushes a source has to be quiet, so that what it brings then is pushed at once."""
SETTLE: Final = 0.2
"""Seconds that the first of many is given company: a sender's shards write within them, collectors run together."""
APART: Final = 0.5
"""Seconds between two looks at a panel at least, however many sources it has."""
SLIDE: Final = 60.0
"""Seconds after which a panel is looked at again, whatever has arrived: its window slides."""
LONGEST_TEXT: Final = 4_000


class BadWatch(ValueError):
    """A page asks to follow what cannot be followed."""


@dataclass
class Followed:
    """A panel. `since`: from which step on its numbers are wanted (ms); None: always the whole of it."""

    since: int | None
    sources: frozenset[str] = frozenset({ANY})
    step: float = 15.0
    changed: float | None = 0.0
    """The newest moment from which there may be something new; None: there is nothing."""
    first: float | None = None
    """When what arrived after a quiet time is to be looked at; None: there is no such thing."""
    again: bool = False
    """More of the same may come in a moment: look once more in the next cell."""
    pushed: float = float("-inf")
    sent: bytes = b""

    @property
    def pace(self) -> float:
        """How many seconds lie between two pushes at least."""
        return min(LONGEST, max(SHORTEST, self.step / 3))

    def due_at(self) -> float:
        """When it is to be looked at: at once, or in the next cell of the grid after its last push."""
        if self.changed is None:
            return self.pushed + max(SLIDE, self.step)
        if self.first is not None:
            return self.first
        if self.pushed < 0:
            return self.changed
        return (self.pushed // self.pace + 1) * self.pace


@dataclass
class Watch:
    """All that a page follows. `number`: the page's own count of its wishes, which answers carry.

    `place`: whose panels they are ("page", or "dashboard:" and its slug); `query`: what the page's address asks beside
    panels (range, compare, variables).
    """

    number: int
    place: str
    query: str
    panels: dict[str, Followed] = field(default_factory=dict)
    heard: dict[str | None, float] = field(default_factory=dict)
    """When each source last brought something."""

    def note(self, ids: Collection[str | None], now: float) -> None:
        """New samples of these sources are there (None: of any)."""
        quiet = {source: now - self.heard.get(source, float("-inf")) for source in ids}
        self.heard |= dict.fromkeys(ids, now)
        for panel in self.panels.values():
            mine = [source for source in ids if source is None or ANY in panel.sources or source in panel.sources]
            if not mine:
                continue
            if panel.first is None and max(quiet[source] for source in mine) >= QUIET * panel.pace:
                panel.first = max(now + SETTLE, panel.pushed + APART)
            panel.changed = now
            panel.again = PUSH in ids

    def due(self, now: float) -> dict[str, Followed]:
        """Return the panels that are to be looked at now."""
        return {key: panel for key, panel in self.panels.items() if panel.due_at() <= now}

    def looked(self, key: str, now: float) -> None:
        """It was asked for at that moment: it is due again when more arrives."""
        panel = self.panels[key]
        panel.pushed = now
        panel.first = None
        if panel.changed is not None and panel.changed <= now:
            panel.changed = now if panel.again else None
            panel.again = False

    def wait(self, now: float) -> float:
        """Return the seconds until something is due."""
        return max(0.0, min((panel.due_at() - now for panel in self.panels.values()), default=SLIDE))


NOTHING: Final = Watch(0, "", "")


def read(given: Any, *, now: float) -> Watch:
    """Read what a page sent: {"number", "place", "query", "panels": {key: since in ms or null}}. Raises BadWatch."""
    if not isinstance(given, Mapping) or not isinstance(given.get("panels"), Mapping):
        raise BadWatch("A watch is an object with panels.")
    number, place, query = given.get("number"), given.get("place"), given.get("query")
    if not isinstance(number, int) or not isinstance(place, str) or not isinstance(query, str):
        raise BadWatch("A watch has a number, a place and a query.")
    if len(given["panels"]) > MOST or max(len(place), len(query)) > LONGEST_TEXT:
        raise BadWatch(f"A page follows at most {MOST} panels.")
    panels = {}
    for key, since in given["panels"].items():
        if not (since is None or (isinstance(since, int) and 0 <= since < 2**53)):
            raise BadWatch("A panel is followed from a time in milliseconds on, or as a whole.")
        panels[str(key)] = Followed(since, changed=now)
    return Watch(number, place, query, panels)
