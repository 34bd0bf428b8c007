"""What every process of the portal wrote down last, as text for /metrics."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from apps.core.telemetry import Reading
from apps.metrics import exposition, query
from apps.metrics.models import Metric
from apps.promql.source import Matcher

FRESH: Final = timedelta(seconds=45)
"""Three flushes: what is older was written by a process that is gone."""


def render(scope: Any, *, now: datetime | None = None) -> bytes:
    """Return the last flush of every process of the portal, as far as the scope (accounts.Scope) shows it."""
    own = [Matcher("job", "=", "portal"), Matcher("process", "!=", "")]
    found = query.latest(own, scope, at=now or timezone.now(), max_age=FRESH)
    about = {name: (kind, text) for name, kind, text in Metric.objects.values_list("name", "type", "help")}
    readings = []
    for value in found:
        kind, help_text = about.get(value.name, ("unknown", ""))
        labels = {name: text for name, text in value.labels.items() if name != "__name__"}
        readings.append(Reading(value.name, value.value, labels, kind, help_text))  # type: ignore[arg-type]
    return exposition.write(readings)
