"""A handler that sends what another Django project logs to the portal, by the sender that pushes its metrics.

    LOGGING["handlers"]["portal"] = {"class": "portal_metrics.logs.PortalHandler", "level": "INFO"}

Whoever logs never waits: records go into a bounded queue, which one thread of the process empties. Without
PORTAL_METRICS_URL it does nothing.
"""

import logging
from typing import Final

from apps.core.logbook import Logbook, LogFeed
from apps.metrics.client import reporting

AVOID: Final = (__name__.rpartition(".")[0], "apps.core.sending", "portal_metrics")
"""Loggers of the sender itself: what it says of a portal that is away would be sent to it."""


class PortalHandler(Logbook):
    """Joins the sender of its process with the first record."""

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__("", avoid=AVOID)
        self.setLevel(level)
        self.feed = LogFeed(self)
        self.is_off = False
        self.is_joined = False

    def emit(self, record: logging.LogRecord) -> None:
        """Begin in this process if it has not (a fork lets go of what its parent held), then take the record."""
        if self.is_off or record.name.startswith(AVOID):
            return
        try:
            if not self.is_joined:
                self._join()
            if self.is_joined:
                reporting.ensure()
                super().emit(record)
        except Exception:
            self.is_off = True

    def _join(self) -> None:
        if not reporting.setting("URL"):
            self.is_off = True
            return
        self.service = reporting.service()
        self.is_joined = True
        reporting.sender().add(self.feed)
