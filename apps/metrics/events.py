"""Events as samples: each gets a millisecond of its own in its series, so that two at the same instant both count."""

from collections.abc import Hashable, Iterable, Sequence


def place(events: Sequence[tuple[Hashable, int]], taken: Iterable[tuple[Hashable, int]]) -> list[int]:
    """Return a time (ms) for each (series, time): its own, or the next that is free in its series.

    `taken` holds what is stored already. A shift is as long as the queue of events at that instant.

    >>> place([("a", 5), ("a", 5), ("b", 5)], [("a", 5)])
    [6, 7, 5]
    """
    occupied = set(taken)
    hint: dict[tuple[Hashable, int], int] = {}
    placed = []
    for series, wanted in events:
        at = hint.get((series, wanted), wanted)
        while (series, at) in occupied:
            at += 1
        occupied.add((series, at))
        hint[series, wanted] = at + 1
        placed.append(at)
    return placed
