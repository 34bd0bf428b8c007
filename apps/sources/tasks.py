"""The clock of the scraper, of discovery, checks and logs."""

from datetime import datetime

from apps.core.tasks import loop
from apps.sources import checking, finding, heartbeats, measuring, scraping
from apps.sources.logs import upkeep


@loop("sources.scrape", every=1.0, queue="fast", lease=None, fallback=True)
def scrape(*, now: datetime) -> None:
    """Claim the targets that are due soon; with the workers away the clock's own process asks them."""
    scraping.scrape(now=now)


@loop("sources.discover", every=5.0, queue="slow", lease=120.0)
def discover(*, now: datetime) -> None:
    """Ask the files and addresses that list targets."""
    finding.discover(now=now)


@loop("sources.check", every=1.0, queue="fast", lease=None, fallback=True)
def check(*, now: datetime) -> None:
    """Claim the checks that are due; each is asked on a thread of its own."""
    checking.check(now=now)


@loop("sources.heartbeats", every=15.0, queue="fast", fallback=True)
def look_after_heartbeats(*, now: datetime) -> None:
    """Notice the jobs that have not called in time."""
    heartbeats.look_after(now=now)


@loop("sources.measure", every=1.0, queue="fast", lease=None, fallback=True)
def measure(*, now: datetime) -> None:
    """Claim the data sources and business metrics that are due; each is asked on a thread of its own."""
    measuring.tick(now=now)


@loop("sources.logs", every=30.0, queue="slow", lease=300.0)
def tend_logs(*, now: datetime) -> None:
    """Pack log records, and delete those that are kept no longer."""
    upkeep.tend(now=now)
