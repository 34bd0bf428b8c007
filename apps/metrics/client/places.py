"""A number for each process of an application on this machine, and what the others of them have counted.

Workers come and go: were each to show its series under its process id, every restart would make new ones. A process
takes the lowest number that is free, by a lock on a file that the kernel lets go of when the process ends, however it
ends. Beside the lock it leaves what it has counted, so that whichever process answers a scrape shows all of them.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from apps.core.telemetry import Reading

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST: Final = 512
"""Processes of one application on one machine."""


class Unusable(Exception):
    """The folder is not this user's alone, or no lock can be had in it."""


def folder_of(service: str) -> Path:
    """Where the processes of a service meet, if nobody says otherwise."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    name = "".join(sign if sign.isalnum() else "-" for sign in service)[:60]
    return Path(tempfile.gettempdir()) / f"portal-metrics-{user}-{name}"


@dataclass
class Place:
    """The number of this process, held as long as it lives."""

    folder: Path
    number: int
    lock: IO[bytes]

    def write(self, readings: list[Reading]) -> None:
        """Leave what this process has counted for the others to show."""
        rows = [[one.name, one.value, dict(one.labels), one.type, one.help] for one in readings]
        path = self.folder / f"{self.number}.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(rows, separators=(",", ":")))
        fresh.replace(path)

    def others(self) -> Iterator[tuple[int, list[Reading]]]:
        """Yield (number, readings) of every other process that lives."""
        for path in sorted(self.folder.glob("*.json")):
            if not path.stem.isdecimal() or (number := int(path.stem)) == self.number:
                continue
            with contextlib.suppress(OSError, ValueError, TypeError):
                if _is_held(self.folder / f"{number}.lock"):
                    rows = json.loads(path.read_text())
                    yield number, [Reading(name, value, labels, kind, text) for name, value, labels, kind, text in rows]

    def leave(self) -> None:
        """Give the number back."""
        with contextlib.suppress(OSError):
            (self.folder / f"{self.number}.json").unlink(missing_ok=True)
            self.lock.close()

    def forget(self) -> None:
        """Let go of the parent's lock in a forked process, which does not take it from the parent."""
        with contextlib.suppress(OSError):
            self.lock.close()


def take(folder: Path) -> Place:
    """Take the lowest free number. Raises Unusable, OSError."""
    if fcntl is None:
        raise Unusable("This system has no locks for files.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Unusable(f"{folder} is not a folder that this user alone may write to; set PORTAL_METRICS_FOLDER.")
    for number in range(MOST):
        lock = (folder / f"{number}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        except OSError:
            lock.close()
            raise
        # What a process that was killed left behind is not this one's.
        (folder / f"{number}.json").unlink(missing_ok=True)
        return Place(folder, number, lock)
    raise Unusable(f"{MOST} processes hold a number in {folder} already.")


def _is_held(path: Path) -> bool:
    """Whether a living process holds that lock."""
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
