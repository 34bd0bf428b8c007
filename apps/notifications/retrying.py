"""When a delivery that failed is tried again, as a pure function."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

TRIES: Final = 60
LIFETIME: Final = timedelta(hours=24)
TEST_TRIES: Final = 3
TEST_LIFETIME: Final = timedelta(minutes=2)
FIRST_PAUSE: Final = timedelta(seconds=2)
LONGEST_PAUSE: Final = timedelta(minutes=30)


@dataclass(frozen=True)
class Verdict:
    """Try again at `due_at`, or never (None), and why."""

    due_at: datetime | None
    reason: str


def after_failure(
    *,
    attempts: int,
    created_at: datetime,
    now: datetime,
    permanent: bool,
    retry_after: timedelta | None,
    chance: float,
    is_test: bool = False,
) -> Verdict:
    """Return what follows the `attempts`-th failed try of a delivery.

    The pause doubles from 2 s up to 30 min; `chance` in [0, 1) takes up to a fifth off, so that what failed together
    does not come back together. A receiver that names a time (Retry-After) is not asked before it.
    """
    if permanent:
        return Verdict(None, "the receiver will not take it")
    tries, lifetime = (TEST_TRIES, TEST_LIFETIME) if is_test else (TRIES, LIFETIME)
    if attempts >= tries:
        return Verdict(None, f"given up after {attempts} tries")
    pause = min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE) * (1 - 0.2 * chance)
    due_at = now + max(pause, retry_after or timedelta(0))
    if due_at > created_at + lifetime:
        return Verdict(None, f"given up: still not taken {_words(now - created_at)} after it was written")
    return Verdict(due_at, "tried again later")


def _words(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
