"""A machine without /proc and /sys, as macOS is: the same names, from psutil."""

import sys

import pytest

from apps.metrics import collectors
from apps.metrics.collectors import COLLECTORS, HOST

MAC = [kind for kind, one in COLLECTORS.all().items() if "darwin" in one.platforms and one.job == HOST]
EXPECTED = {
    "cpu": {"node_cpu_seconds_total"},
    "meminfo": {"node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "node_memory_SwapFree_bytes"},
    "loadavg": {"node_load1", "node_load5", "node_load15"},
    "diskstats": {"node_disk_read_bytes_total", "node_disk_writes_completed_total"},
    "filesystem": {"node_filesystem_size_bytes", "node_filesystem_avail_bytes", "node_filesystem_readonly"},
    "netdev": {"node_network_receive_bytes_total", "node_network_transmit_drop_total"},
    "stat": {"node_boot_time_seconds"},
    "uname": {"node_uname_info"},
    "time": {"node_time_seconds", "node_time_zone_offset_seconds"},
}


def test_the_collectors_that_run_there_are_known():
    assert set(MAC) == set(EXPECTED)


@pytest.mark.parametrize("kind", EXPECTED)
def test_its_series_have_the_names_labels_and_types_that_linux_gives(kind, monkeypatch, tmp_path):
    def shape(readings):
        return {(reading.name, tuple(sorted(reading.labels)), reading.type) for reading in readings}

    try:
        linux = shape(COLLECTORS.get(kind)({}).collect())
    except collectors.NoData as nothing:
        pytest.skip(str(nothing))
    module = sys.modules[COLLECTORS.get(kind).__module__]
    for place, name in ((module, "PROC"), (module, "SYS"), (collectors, "PROC")):
        monkeypatch.setattr(place, name, tmp_path / "absent", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    mac = shape(COLLECTORS.get(kind)({}).collect())
    assert {name for name, _, _ in mac} >= EXPECTED[kind]
    assert mac <= linux
