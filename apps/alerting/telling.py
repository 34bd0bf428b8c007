"""What alerts leave behind beside their rows: the ALERTS series, texts that can be kept, incidents that are over."""

import logging
import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from apps.accounts.permissions import Principal
from apps.alerting.lifecycle import State
from apps.alerting.models import Alert, Incident, IncidentTrait
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import MAX_VALUE, Samples

log = logging.getLogger(__name__)

ALERTS = "ALERTS"
ALERTS_FOR_STATE = "ALERTS_FOR_STATE"


def short(text: str) -> str:
    """A label value that the store takes."""
    return text if len(text) <= MAX_VALUE // 4 else text.encode()[:MAX_VALUE].decode(errors="ignore")


def told_series(alert: Alert) -> list[Reading]:
    """ALERTS and ALERTS_FOR_STATE as Prometheus writes them; recovering is firing to those who do not know the word."""
    labels = {name: text for name, text in alert.labels.items() if name != "alertstate"}
    shown = "pending" if alert.state == State.PENDING else "firing"
    since = alert.pending_at.timestamp() if alert.pending_at else 0.0
    return [
        Reading(ALERTS, 1.0, {**labels, "alertstate": shown}),
        Reading(ALERTS_FOR_STATE, float(math.floor(since)), labels),
    ]


def keep_series(readings: Sequence[Reading], *, by: Principal, now: datetime, push: str | None = None) -> None:
    """Write what rules compute and alerts leave behind, in the caller's transaction.

    A full disk costs these series, never the alert that they are about: somebody has to be told of the disk.
    """
    try:
        written = metrics.ingest(
            samples=Samples.from_readings(readings, at=now), by=by, now=now, live=push, announced=False
        )
    except metrics.StoreFull as full:
        log.warning("%d results of rules and alerts are not kept as series: %s", len(readings), full)
        return
    if written.rejected:
        first = written.rejected[0]
        log.warning("The store refused %d of %d rule results: %s", len(written.rejected), len(readings), first.reason)


def close_incidents(incidents: Iterable[int], at: datetime) -> int:
    """Resolve those of these incidents in which nothing is wrong any more; return how many.

    The rows are locked before it is looked whether anything is wrong in them: an alert that joins at this moment holds
    them by its foreign key, so it is either seen, or finds the incident closed and opens it again.
    """
    wanted = sorted(incidents)
    if not wanted:
        return 0
    locked = list(Incident.objects.filter(pk__in=wanted, state="open").order_by("pk").select_for_update(of=("self",)))
    still = Alert.objects.active().filter(incident__in=locked).values("incident")
    over = Incident.objects.filter(pk__in=[incident.pk for incident in locked]).exclude(pk__in=still)
    closed = list(over.values_list("pk", flat=True))
    IncidentTrait.objects.filter(incident__in=closed).delete()
    return Incident.objects.filter(pk__in=closed).update(state="resolved", resolved_at=at)
