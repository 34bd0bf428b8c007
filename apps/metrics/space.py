"""Room on the disks that the portal's own PostgreSQL writes to: samples are refused while there is still some left.

PostgreSQL stops dead when it cannot write its log (`pg_wal`), and the data may lie elsewhere than the data folder: each
place is looked at, and the tightest one counts. A database of DATABASE_URL is somebody else's to watch.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import connection

PLACES: Final = ("", "postgres", "postgres/pg_wal", "postgres/base")
"""Below the data folder: it, the database, its log, its tables with temporary files. Each may be a link elsewhere."""


@dataclass(frozen=True, slots=True)
class Room:
    """A folder's disk: free and total bytes, and how many are to stay free."""

    folder: Path
    free: int
    total: int
    least: int

    @property
    def left(self) -> int:
        """Bytes until samples are refused; below zero they are."""
        return self.free - self.least

    @property
    def problem(self) -> str | None:
        """What is wrong, and what to do; None while there is room."""
        if self.left >= 0:
            return None
        return (
            f"Only {self.free / 1e9:.1f} GB ({self.free / self.total:.0%}) are free on the disk of {self.folder}: "
            f"samples are refused below {self.least / 1e9:.1f} GB, before PostgreSQL would stop. Free some space or "
            "shorten a retention policy; samples are taken again by themselves."
        )


def is_own() -> bool:
    """Whether the database is the portal's own."""
    host = str(connection.settings_dict.get("HOST") or "")
    return not host or host.startswith("/")


def tightest(*, share: float, least: int) -> Room | None:
    """The room where it is smallest; `share` of a disk and `least` bytes are to stay free. None: not our disk."""
    if not is_own():
        return None
    return min(_rooms(share, least), key=lambda room: room.left, default=None)


def _rooms(share: float, least: int) -> Iterator[Room]:
    for place in PLACES:
        folder = Path(settings.DATA) / place
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        yield Room(folder, usage.free, usage.total, max(least, int(share * usage.total)))
