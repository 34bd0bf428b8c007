"""Reads what an alert's value did of late, for the picture in a message. Never stands in a message's way.

What is dear, slow or wrong is left out: a message without a picture is a message. All reads of a process share a budget
of time, so that a storm is told, not drawn.
"""

import logging
import time
from datetime import datetime, timedelta
from math import isfinite
from typing import Final

from django.db import DatabaseError, connection, transaction

from apps.alerting.models import Alert
from apps.alerting.units import unit_of
from apps.metrics import query
from apps.notifications.message import Curve
from apps.promql.errors import PromQLError
from apps.promql.limits import Limits

log = logging.getLogger(__name__)

POINTS: Final = 120
SHORTEST: Final = timedelta(hours=1)
LONGEST: Final = timedelta(hours=24)
BEFORE: Final = 3
"""How many times as long as it lasts the picture looks back, within SHORTEST and LONGEST."""
COST: Final = Limits(series=2_000, samples=1_000_000, points=500_000, seconds=1.0)
PATIENCE: Final = "1s"
"""How long the database may take for one statement."""


class Allowance:
    """At most `seconds` of reading in any `window` seconds of this process."""

    def __init__(self, seconds: float, window: float) -> None:
        self.seconds, self.window = seconds, window
        self._began = self._spent = 0.0

    def is_left(self) -> bool:
        """Whether another one may be read now."""
        if time.monotonic() > self._began + self.window:
            self._began, self._spent = time.monotonic(), 0.0
        return self._spent < self.seconds

    def spend(self, seconds: float) -> None:
        """Count what a read took."""
        self._spent += seconds


ALLOWANCE: Final = Allowance(seconds=1.5, window=10.0)


def read(alert: Alert, *, now: datetime) -> Curve | None:
    """Return at most POINTS values of exactly the alert's labels up to now; None where there are none, or no time."""
    if alert.rule is None or not ALLOWANCE.is_left():
        return None
    began = time.monotonic()
    try:
        return _read(alert, alert.rule.expression, now)
    except (PromQLError, query.Outrun, DatabaseError) as error:
        log.info("No curve of %s: %s", alert.key, error)
    except Exception:
        log.exception("The curve of %s could not be read; its message leaves without.", alert.key)
    finally:
        ALLOWANCE.spend(time.monotonic() - began)
    return None


def _read(alert: Alert, expression: str, now: datetime) -> Curve | None:
    since = alert.fired_at or alert.seen_at
    length = min(max((now - since) * BEFORE, SHORTEST), LONGEST)
    step = timedelta(seconds=max(15, round(length.total_seconds() / (POINTS - 1))))
    start = now - step * (POINTS - 1)
    with transaction.atomic(), connection.cursor() as cursor:  # a savepoint: what fails here must not undo the message
        cursor.execute("SELECT current_setting('statement_timeout')")
        [before] = cursor.fetchone()
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [PATIENCE])
        found = query.query_range(expression, start=start, end=now, step=step, limits=COST)
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])
    for labels, values, present in zip(found.labels.dicts(), found.v, found.ok, strict=True):
        if all(alert.labels.get(name, value) == value for name, value in labels.items() if name != "__name__"):
            points = tuple(
                round(float(value), 6) if there and isfinite(value) else None
                for value, there in zip(values, present, strict=True)
            )
            if sum(point is not None for point in points) >= 2:
                return Curve(
                    title=alert.rule.name if alert.rule else alert.type,
                    start=int(start.timestamp()),
                    step=int(step.total_seconds()),
                    values=points,
                    unit=unit_of(expression),
                    threshold=alert.threshold if alert.threshold is not None and isfinite(alert.threshold) else None,
                    since=int(since.timestamp()) if since > start else 0,
                )
    return None
