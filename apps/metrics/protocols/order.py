"""The order in which senders repeat their series, so that a request is compared with it instead of walked through.

A scraping sender tells the same series in the same order time after time; its requests are stretches of that order,
wherever one ends and the next begins. What is remembered is the bytes of each series as they stood in a request, one
after the other, with value and time masked: as long as a body goes on as the order does, one comparison of bytes finds
where all its series begin, and proves that their labels are those that were read before.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Int64

MOST_BYTES: Final = 32_000_000
"""Of series (some 200,000) that one process remembers; what is beyond is walked through."""
STEP: Final = (8_192, 65_536)
"""Bytes that are compared at first; twice as many each time that all were equal, up to this."""
WORN: Final = 4
"""The order is learned anew when so many times as many series were walked through as it holds."""
_VALUE: Final = slice(-15, -7)
_TIME: Final = slice(-6, None)

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Series of a body: key, where they begin and end int64[n], whether their samples have a value bool[n]."""

    keys: Sequence[bytes]
    begins: Int64
    ends: Int64
    valued: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Told:
    """Series of a body that stand in an order: from `place` to `past` of the keys that it lists; else as a Stretch."""

    listed: Sequence[bytes]
    place: int
    past: int
    begins: Int64
    ends: Int64
    valued: NDArray[np.bool_]


class Order:
    """Series one after the other; shared by the threads of a process."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._clear()

    def _clear(self) -> None:
        self._place: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._bytes: UInt8 = np.zeros(1 << 16, dtype=np.uint8)
        self._mask: UInt8 = np.zeros(1 << 16, dtype=np.uint8)
        self._edges: Int64 = np.zeros(1 << 10, dtype=np.int64)
        self._valued: NDArray[np.bool_] = np.zeros(1 << 10, dtype=np.bool_)
        self._strange = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._keys)

    def follow(self, key: bytes, body: UInt8, at: int) -> Told | None:
        """The series that stand in the body from `at` on as they stand in the order from `key` on.

        None where the key is not known, or stands there in other bytes than it did.
        """
        with self._lock:
            place = self._place.get(key)
            known = len(self._keys)
            kept, mask, edges, valued, keys = self._bytes, self._mask, self._edges, self._valued, self._keys
        if place is None:
            return None
        begin = int(edges[place])
        size = min(len(body) - at, int(edges[known]) - begin)
        same, step = 0, STEP[0]
        while same < size:
            end = min(size, same + step)
            differs = body[at + same : at + end] ^ kept[begin + same : begin + end]
            differs &= mask[begin + same : begin + end]
            if differs.any():
                same += int((differs != 0).argmax())
                break
            same, step = end, min(2 * step, STEP[1])
        past = int(edges[: known + 1].searchsorted(begin + same, "right")) - 1
        if past <= place:
            return None
        stand = edges[place : past + 1] + (at - begin)
        return Told(keys, place, past, stand[:-1], stand[1:], valued[place:past])

    def note(self, body: bytes, walked: Stretch, *, told: int) -> None:
        """How many series of a body the order told, and the sound ones that it did not.

        New ones are added. Those that it holds change nothing until there are too many: then the order is another one.
        """
        if not walked.keys and not self._strange:
            return
        with self._lock:
            self._strange = max(0, self._strange + len(walked.keys) - told)
            if self._strange > WORN * (len(self._keys) + 1_000):
                self._clear()
            for key, begin, end, valued in zip(
                walked.keys, walked.begins.tolist(), walked.ends.tolist(), walked.valued.tolist(), strict=True
            ):
                if self._full:
                    return
                if key not in self._place:
                    self._add(key, np.frombuffer(body, dtype=np.uint8, count=end - begin, offset=begin), valued)

    def _add(self, key: bytes, shown: UInt8, valued: bool) -> None:
        count = len(self._keys)
        used = int(self._edges[count])
        end = used + len(shown)
        if end > self._most:
            self._full = True
            return
        if end > len(self._bytes) or count + 1 >= len(self._edges):
            self._grow(end)
        self._bytes[used:end] = shown
        mask = self._mask[used:end]
        mask[:] = 0xFF
        mask[_TIME] = 0
        if valued:
            mask[_VALUE] = 0
        self._valued[count] = valued
        self._edges[count + 1] = end
        self._place[key] = count
        self._keys.append(key)

    def _grow(self, size: int) -> None:
        """Longer arrays in place of those that readers may hold."""
        self._bytes, self._mask = _longer(self._bytes, size), _longer(self._mask, size)
        self._edges, self._valued = _longer(self._edges, 0), _longer(self._valued, 0)


T = TypeVar("T", bound=np.generic)


def _longer(array: NDArray[T], size: int) -> NDArray[T]:
    longer = np.zeros(max(size, 2 * len(array)), dtype=array.dtype)
    longer[: len(array)] = array
    return longer
