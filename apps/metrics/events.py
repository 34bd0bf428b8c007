"""Events as samples: each gets a millisecond of its own in its series, so that two at the same instant both count.

One that is sent again with its id is recognised by a digest of its name and id.
"""

from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b
from uuid import UUID


def digest_of(name: str, id_: str) -> UUID:
    """Return what stands for an event in the receipts: 128 bits of its name and id.

    >>> digest_of("payment", "7") == digest_of("payment7", "")
    False
    """
    return UUID(bytes=blake2b(f"{name}\0{id_}".encode(errors="surrogatepass"), digest_size=16).digest())


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
