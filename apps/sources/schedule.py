"""When a target is scraped, and with which time its samples are stored. Pure: no clock."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TOLERANCE: Final = 0.01
"""Share of the interval by which a scrape may be late and still has the time of its tick."""
SECOND: Final = timedelta(seconds=1)


def offset(key: str, interval: timedelta) -> timedelta:
    """Where in its interval a target has its tick: by its key, so that targets spread and keep their place.

    On whole seconds, so that the targets of one second share their timestamps.
    """
    seconds = max(1, interval // SECOND)
    return (int(key[:12], 16) % seconds) * SECOND


def tick_after(key: str, interval: timedelta, moment: datetime) -> datetime:
    """Return the target's first tick later than `moment`."""
    begin = EPOCH + offset(key, interval)
    return begin + ((moment - begin) // interval + 1) * interval


def stamp(due: datetime, started: datetime, interval: timedelta) -> datetime:
    """Return the time of the samples: the tick's where the scrape began close to it, else its own.

    Regular times cost no bytes in the store, and series that share them are evaluated together.
    """
    return due if timedelta(0) <= started - due <= interval * TOLERANCE else started
