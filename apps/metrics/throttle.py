"""How fast a token may write: a bucket of samples per token in each process, which a clock fills. No database.

A request is let in while the bucket holds anything, and takes as many samples as it has, which may leave a debt that
has to be filled first: so requests larger than the bucket pass, and the average holds.
"""

import threading
from collections import OrderedDict
from typing import Final

BURST: Final = 5.0
"""Seconds of the rate that a bucket holds."""
REMEMBERED: Final = 4096


class Throttle:
    """The buckets of one process, by any key; times are monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, rate: int, clock: float) -> float:
        """Seconds until the bucket holds something; 0: now."""
        with self._lock:
            level = self._level(key, rate, clock)
        return 0.0 if level > 0 else (1 - level) / rate

    def take(self, key: str, rate: int, samples: int, clock: float) -> None:
        """Take that many samples out."""
        with self._lock:
            self._levels[key] = self._level(key, rate, clock) - samples, clock
            self._levels.move_to_end(key)
            while len(self._levels) > REMEMBERED:
                self._levels.popitem(last=False)

    def _level(self, key: str, rate: int, clock: float) -> float:
        most = rate * BURST
        level, at = self._levels.get(key, (most, clock))
        return min(most, level + (clock - at) * rate)
