"""The disk under the portal's data as series."""

from apps.metrics.collectors import data_disk
from apps.metrics.mount_probe import Usage


def test_the_data_disk_has_three_gauges():
    usage = Usage(size=10, free=6, avail=5, files=1, files_free=1)
    found = {reading.name: reading.value for reading in data_disk.readings(usage)}
    assert found == {
        "portal_data_disk_size_bytes": 10,
        "portal_data_disk_free_bytes": 6,
        "portal_data_disk_avail_bytes": 5,
    }
