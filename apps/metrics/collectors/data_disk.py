"""Space on the disk that holds the portal's data; in a container the only disk that is sure to be visible."""

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector
from apps.metrics.mount_probe import Usage, measure


class DataDisk(Collector):
    """Three gauges, by the figures of which ingest stops before the database would."""

    kind = "data_disk"
    label = "The portal's data disk"
    job = OWN

    def collect(self) -> Iterator[Reading]:
        folder = Path(settings.DATA)
        return readings(measure(str(folder if folder.exists() else folder.parent)))


def readings(usage: Usage) -> Iterator[Reading]:
    """Bytes."""
    yield Reading("portal_data_disk_size_bytes", usage.size, help="Size of the disk.")
    yield Reading("portal_data_disk_free_bytes", usage.free, help="Free bytes, those reserved for root included.")
    yield Reading("portal_data_disk_avail_bytes", usage.avail, help="Free bytes for the portal.")
