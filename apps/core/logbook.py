"""A handler for Python's logging that puts records into a bounded queue, for one thread to take away in batches.

It is for other projects too, in the wheel (`manage.py client`), and needs the standard library alone. What it promises:
whoever logs never waits, never fails and never fills the memory; what does not fit is dropped and counted.
"""

import json
import logging
import os
import socket
import threading
import traceback
import uuid
from collections import deque
from typing import Any, Final

from apps.core.sending import Feed
from apps.core.telemetry import Counter

MOST: Final = 10_000
"""Records that wait at most."""
LONGEST: Final = 16_000
STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
"""What every record has; the rest is what the application gave as `extra`."""
MOST_EXTRA: Final = 20
PARCEL: Final = 500
"""Records of one parcel."""

DROPPED: Final = Counter("log_handler_dropped_total", "Log records that were dropped, for too many waited.")
TAKEN: Final = Counter("log_handler_records_total", "Log records that the handler took.")


class Logbook(logging.Handler):
    """`service` names the application; `avoid` are loggers whose records are left out, for sending makes them."""

    def __init__(
        self, service: str, *, level: int = logging.NOTSET, avoid: tuple[str, ...] = (), most: int = MOST
    ) -> None:
        super().__init__(level)
        self.service = service
        self.avoid = avoid
        self.host = socket.gethostname()
        self.waiting: deque[dict[str, Any]] = deque()
        self.most = most
        self.quiet = threading.local()
        """`is_on` in a thread whose own records are left out: the one that sends."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; whatever happens, the application goes on."""
        if getattr(self.quiet, "is_on", False):
            return
        try:
            if record.name.startswith(self.avoid):
                return
            if len(self.waiting) >= self.most:
                DROPPED.inc()
                return
            self.waiting.append(self.row_of(record))
            TAKEN.inc()
        except Exception:
            DROPPED.inc()

    def row_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the record as the portal's JSON has it."""
        row: dict[str, Any] = {
            "time": int(record.created * 1000),
            "level": record.levelname.lower() if record.levelno % 10 == 0 else record.levelno,
            "service": self.service,
            "host": self.host,
            "message": record.getMessage()[:LONGEST],
            "logger": record.name,
            "process": os.getpid(),
        }
        if record.exc_info and isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            kind = record.exc_info[0]
            row["exception"] = f"{kind.__module__}.{kind.__qualname__}"
            text = "".join(traceback.format_exception(*record.exc_info))
            row["message"] = f"{row['message']}\n{text[-LONGEST:]}"
        for name in list(vars(record))[: len(STANDARD) + MOST_EXTRA]:
            if name not in STANDARD and isinstance(value := getattr(record, name), str | int | float | bool):
                row[f"extra.{name}"] = value[:1000] if isinstance(value, str) else _number(value)
        return row

    def take(self, most: int) -> list[dict[str, Any]]:
        """Take the oldest records that wait away, at most so many."""
        rows: list[dict[str, Any]] = []
        while len(rows) < most:
            try:
                rows.append(self.waiting.popleft())
            except IndexError:
                break
        return rows

    def forked(self) -> None:
        """In a forked process: what waits is the parent's."""
        self.waiting = deque()
        self.quiet = threading.local()


def _number(value: float) -> float | str:
    """A number that every reader of JSON takes; another one (NaN, infinity, more than 64 bits) as a text."""
    return value if abs(value) < 2**63 else str(value)


class LogFeed(Feed):
    """What a logbook holds as parcels for a sender: the portal's JSON, each with a key.

    A parcel that did not arrive is sent again under its key, and counts once.
    """

    path = "/api/v1/portal/logs"
    every = 2.0
    keeps = True
    content_type = "application/json"

    def __init__(self, book: Logbook) -> None:
        self.book = book

    def take(self, *, last: bool) -> bytes | None:
        """Return the next parcel, or None where nothing waits."""
        rows = self.book.take(PARCEL)
        if not rows:
            return None
        text = json.dumps({"key": uuid.uuid4().hex, "records": rows}, default=str, ensure_ascii=False)
        return text.encode(errors="replace")  # half a surrogate pair, as of a file's name, is no JSON

    def forked(self) -> None:
        """Let go of the parent's records."""
        self.book.forked()

    def refused_of(self, answer: bytes) -> str:
        """Return what the portal says that it did not take."""
        try:
            told = json.loads(answer)
            first = (told.get("rejected") or [{}])[0].get("error", "")
            return f"{told['refused']} log records, {first}" if told.get("refused") else ""
        except (ValueError, AttributeError, TypeError, KeyError):
            return ""
