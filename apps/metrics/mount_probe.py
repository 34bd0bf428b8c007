"""Asks mounts how full they are without ever hanging: a child process asks, and is killed when it does not answer.

The file is both sides: imported it is the parent's `MountProbe`; run by its path it is the child, which loads
nothing but the standard library (7 MB) and lives until its standard input closes.
"""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and file nodes of one file system; `avail` is what an ordinary user may still write."""

    size: float
    free: float
    avail: float
    files: float
    files_free: float


class Unanswered(Exception):
    """The mount gave an error, or no answer in time."""


def measure(path: str) -> Usage:
    """Ask in this process; for file systems that answer from memory."""
    found = os.statvfs(path)
    unit = found.f_frsize
    return Usage(
        float(found.f_blocks * unit),
        float(found.f_bfree * unit),
        float(found.f_bavail * unit),
        float(found.f_files),
        float(found.f_ffree),
    )


class MountProbe:
    """One child that answers path by path. Not for use by two threads at once.

    A mount that hung is left alone while the child that hangs on it still exists: a process in an uninterruptible
    wait cannot even be killed, and one of them per dead mount is enough.
    """

    def __init__(self, seconds: float = 1.5) -> None:
        """`seconds`: how long one mount may take."""
        self.seconds = seconds
        self.child: subprocess.Popen[bytes] | None = None
        self.stuck: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, path: str) -> Usage:
        """Return what the mount at `path` says; `Unanswered` with the reason."""
        if (before := self.stuck.get(path)) is not None:
            if before.poll() is None:
                raise Unanswered(f"{path} still does not answer.")
            del self.stuck[path]
        try:
            answer = self._exchange(path)
        except (OSError, ValueError) as error:
            self._end()
            raise Unanswered(f"The process that asks {path} ended: {error}.") from None
        if isinstance(answer, str):
            raise Unanswered(f"{path}: {answer}")
        return Usage(*answer)

    def _exchange(self, path: str) -> list[float] | str:
        if self.child is not None and self.child.poll() is not None:
            self._end()
        child = self.child
        if child is None:
            child = self.child = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        if child.stdin is None or child.stdout is None:
            raise OSError("it has no pipes")
        child.stdin.write(json.dumps(path).encode() + b"\n")
        child.stdin.flush()
        line = b""
        until = time.monotonic() + self.seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self._end()
                self.stuck[path] = child
                raise Unanswered(f"{path} did not answer within {self.seconds:g} s.")
            part = os.read(child.stdout.fileno(), 4096)
            if not part:
                raise OSError("it closed its output")
            line += part
        answer: list[float] | str = json.loads(line)
        return answer

    def _end(self) -> None:
        """Give the child up without waiting for it: it may be beyond killing."""
        child, self.child = self.child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a full or broken pipe of a dead child
                    continue

    def close(self) -> None:
        """End the child."""
        child = self.child
        self._end()
        if child is not None:
            try:
                child.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self.stuck[""] = child


def answer_requests() -> None:
    """The child: a JSON string a line in, `[size, free, avail, files, files_free]` or an error text a line out."""
    for line in sys.stdin:
        path = json.loads(line)
        try:
            found = measure(path)
        except OSError as error:
            answer: list[float] | str = error.strerror or str(error)
        else:
            answer = [found.size, found.free, found.avail, found.files, found.files_free]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    answer_requests()
