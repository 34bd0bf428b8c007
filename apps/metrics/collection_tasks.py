"""The clock of the collectors: every second it looks what is due."""

from datetime import datetime

from apps.core.tasks import loop
from apps.metrics import collection


@loop("metrics.collect", every=1.0, queue="fast", lease=10.0, fallback=True)
def collect(*, now: datetime) -> None:
    """Run the collectors that are due. With the workers away the clock's own process does it: alerts need figures."""
    collection.collect(now=now)
