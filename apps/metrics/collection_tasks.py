"""The clock of what is measured: every second it looks what is due; each tick it shows pushed groups again."""

from datetime import datetime

from apps.core.tasks import loop
from apps.metrics import collection, gateway


@loop("metrics.collect", every=1.0, queue="fast", lease=10.0, fallback=True)
def collect(*, now: datetime) -> None:
    """Run the collectors that are due. With the workers away the clock's own process does it: alerts need figures."""
    collection.collect(now=now)


@loop("metrics.show_groups", every=15.0, queue="fast", lease=30.0, fallback=True)
def show_groups(*, now: datetime) -> None:
    """Write what batch jobs have pushed once more, so that queries of now see it."""
    gateway.show(now=now)
