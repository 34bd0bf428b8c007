"""How long to wait before starting again what has crashed: 1, 2, 4 … 30 s; anew once it has held for a minute."""

import time
from dataclasses import dataclass

FIRST, LONGEST, HELD = 1.0, 30.0, 60.0


@dataclass
class Backoff:
    """The pauses of one process."""

    since: float = 0.0
    last: float = 0.0

    def started(self, now: float | None = None) -> None:
        """Note that the process has been started."""
        self.since = time.monotonic() if now is None else now

    def pause(self, now: float | None = None) -> float:
        """Return the seconds to wait after the process has ended."""
        up = (time.monotonic() if now is None else now) - self.since
        self.last = FIRST if up >= HELD or self.last == 0 else min(self.last * 2, LONGEST)
        return self.last
