"""How what this process counts leaves it: pushed to a portal, or shown by whichever process answers a scrape.

Settings of the measured project, or variables of its environment with the same names:
PORTAL_METRICS_URL (push there; without it processes are scraped), PORTAL_METRICS_TOKEN (of the scope `ingest`),
PORTAL_METRICS_SERVICE (the label `job`), PORTAL_METRICS_INSTANCE (the machine's name), PORTAL_METRICS_EVERY (seconds),
PORTAL_METRICS_FOLDER (where the processes of the service meet).
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from django.conf import settings

from apps.core import telemetry
from apps.core.sending import Feed, Sender
from apps.core.telemetry import Reading
from apps.metrics.client import places
from apps.metrics.client.otlp_json import Report

log = logging.getLogger(__name__)

EVERY: Final = 15.0
"""Seconds between two pushes; in them the least and the greatest of a duration are told, too."""
SHOWN_EVERY: Final = 5.0
"""Seconds after which what a process counted is seen by the others."""
SERVICE_VARIABLE: Final = "DJANGO_SETTINGS_MODULE"


def setting(name: str, default: str = "") -> str:
    """Return PORTAL_METRICS_… of the settings, else of the environment."""
    key = f"PORTAL_METRICS_{name}"
    found = getattr(settings, key, None)
    return str(found) if found is not None else os.environ.get(key, default)


def service() -> str:
    """The name of the application: as set, else the package of its settings."""
    return setting("SERVICE") or os.environ.get(SERVICE_VARIABLE, "").partition(".")[0] or "django"


class _Held:
    """The number of this process among those of the service; its id where no number can be had."""

    def __init__(self) -> None:
        self.place: places.Place | None = None
        self.lock = threading.Lock()
        self.label_of_none = ""
        self.said = False

    def label(self) -> str:
        """The value of the label `process`."""
        with self.lock:
            if self.place is None and not self.label_of_none:
                try:
                    self.place = places.take(Path(setting("FOLDER") or places.folder_of(service())))
                except (OSError, places.Unusable) as error:
                    log.warning("Processes are told apart by their ids, and a scrape shows one alone: %s", error)
                    self.label_of_none = str(os.getpid())
            return str(self.place.number) if self.place is not None else self.label_of_none

    def written(self, *, close: bool) -> list[Reading]:
        """Return what this process counted, written down first: what was shown once never goes back for the others."""
        self.label()
        with self.lock:
            readings = telemetry.snapshot(close=close)
            if self.place is not None:
                try:
                    self.place.write(readings)
                except OSError as error:
                    if not self.said:
                        self.said = True
                        log.warning("The other processes do not see what this one counts: %s", error)
            return readings

    def leave(self) -> None:
        """Give the number back; another is taken where the process goes on after all."""
        with self.lock:
            if self.place is not None:
                self.place.leave()
                self.place = None

    def forget(self) -> None:
        """In a forked process: the number is the parent's."""
        self.lock = threading.Lock()
        self.label_of_none = ""
        if self.place is not None:
            self.place.forget()
            self.place = None


_held: Final = _Held()


class Pushed(Feed):
    """Everything counted, as cumulative metrics by OTLP: what one push loses, the next one tells."""

    path = "/v1/metrics"

    def __init__(self) -> None:
        self.every = max(1.0, float(setting("EVERY") or EVERY))
        self.report: Report | None = None
        self.started_ns = time.time_ns()

    def take(self, *, last: bool) -> bytes | None:
        """The counters of now; the last parcel ends their series."""
        if self.report is None:
            resource = {"service.name": service(), "service.instance.id": setting("INSTANCE") or socket.gethostname()}
            self.report = Report(resource, {"process": _held.label()}, self.started_ns)
        body = self.report.request(telemetry.snapshot(close=True), time.time_ns(), is_last=last)
        if last:
            _held.leave()
        return body

    def forked(self) -> None:
        """Count from zero, from now."""
        telemetry.reset()
        _held.forget()
        self.report, self.started_ns = None, time.time_ns()

    def refused_of(self, answer: bytes) -> str:
        """What `partialSuccess` says."""
        try:
            told = json.loads(answer).get("partialSuccess") or {}
            return str(told.get("errorMessage") or "")[:300]
        except (ValueError, AttributeError):
            return ""


class Shown(Feed):
    """Everything counted, left where the other processes of the service find it; nothing is sent."""

    path = ""
    every = SHOWN_EVERY
    rounds = 0

    def take(self, *, last: bool) -> bytes | None:
        """Write the counters of now."""
        if last:
            _held.leave()
        else:
            self.rounds += 1
            _held.written(close=self.rounds % round(EVERY / SHOWN_EVERY) == 0)
        return None

    def forked(self) -> None:
        """Count from zero, under another number."""
        telemetry.reset()
        _held.forget()


def shown() -> Iterator[Reading]:
    """Yield what all living processes of the service counted, each with its number as the label `process`.

    Where they push, nobody leaves anything for the others, and only this process is shown.
    """
    own, is_pushing = _held.label(), bool(setting("URL"))
    for reading in telemetry.snapshot() if is_pushing else _held.written(close=False):
        yield replace(reading, labels={**reading.labels, "process": own})
    if _held.place is not None and not is_pushing:
        for number, readings in _held.place.others():
            for reading in readings:
                yield replace(reading, labels={**reading.labels, "process": str(number)})


_sender: Sender | None = None
_is_off = False


def sender() -> Sender:
    """The one sender of this process, for every feed that goes to the portal. Raises ValueError: a wrong setting."""
    global _sender
    if _sender is None:
        address = setting("URL")
        _sender = Sender(address, setting("TOKEN"), [Pushed() if address else Shown()])
    return _sender


def ensure() -> None:
    """Begin to report in this process, unless it has begun: at each request, task, or start of a program's own work.

    It raises nothing: an application that cannot be measured goes on.
    """
    global _is_off
    if _is_off:
        return
    try:
        (_sender or sender()).ensure()
    except Exception as error:
        _is_off = True
        log.warning("Nothing is reported by this process: %s", error)


def stop() -> None:
    """Report a last time: where a process ends without Python's own end, as the children of Celery's workers do."""
    if _sender is not None:
        _sender.stop()
