"""The same names, labels and types as a real node_exporter on this machine, at the same moment."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from apps.core.telemetry import Reading
from apps.metrics.collectors import COLLECTORS, diskstats, filesystem

KINDS = (
    "cpu", "meminfo", "diskstats", "filesystem", "netdev", "loadavg", "stat", "vmstat", "uname", "time", "netstat",
    "sockstat", "pressure", "netclass", "timex", "filefd", "conntrack",
)  # fmt: skip
BINARY = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no node_exporter here: apt-get install prometheus-node-exporter (Debian, Ubuntu)"
)
# Debian's build leaves out more mounts and the loop-back device; the comparison wants upstream's defaults.
DEFAULTS = (
    f"--collector.filesystem.mount-points-exclude={filesystem.MOUNTS}",
    f"--collector.filesystem.fs-types-exclude={filesystem.TYPES}",
    f"--collector.diskstats.device-exclude={diskstats.EXCLUDE}",
    "--collector.netdev.device-exclude=^$",
)
TICK = 0.011
"""Seconds: the kernel takes a tick of idle time back at times; and 34.56 / 100 is not 34.56 * 0.01."""
STEADY = (
    "node_memory_MemTotal_bytes", "node_memory_SwapTotal_bytes", "node_filesystem_size_bytes", "node_filesystem_files",
    "node_boot_time_seconds", "node_uname_info", "node_disk_info", "node_time_zone_offset_seconds",
    "node_time_clocksource_available_info", "node_time_clocksource_current_info", "node_netstat_Ip_Forwarding",
    "node_filesystem_readonly", "node_filesystem_device_error", "node_memory_Hugepagesize_bytes", "node_network_info",
    "node_network_up", "node_network_mtu_bytes", "node_network_flags", "node_timex_status", "node_timex_sync_status",
    "node_timex_tick_seconds", "node_filefd_maximum",
)  # fmt: skip
"""Series that stand still between two readings."""

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Seen:
    """Values and types by series."""

    values: dict[Key, float]
    types: dict[str, str]


def ours() -> Seen:
    """One round of our collectors, as the exporter would write it."""
    readings: list[Reading] = [reading for kind in KINDS for reading in COLLECTORS.get(kind)({}).collect()]
    keys = [(reading.name, frozenset(reading.labels.items())) for reading in readings]
    assert len(set(keys)) == len(keys)
    return Seen(dict(zip(keys, (r.value for r in readings), strict=True)), {r.name: r.type for r in readings})


def theirs(text: str) -> Seen:
    """The exporter's answer without its words about itself."""
    values, types = {}, {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("node_") and not sample.name.startswith(("node_scrape", "node_exporter")):
                values[sample.name, frozenset(sample.labels.items())] = sample.value
                types[sample.name] = family.type
    return Seen(values, types)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Seen, Seen, Seen]]:
    """Ours, the exporter's, and ours again: what a reading in between lies between."""
    port = free_port()
    exporter = subprocess.Popen(
        [
            str(BINARY),
            f"--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults",
            *(f"--collector.{kind}" for kind in KINDS),
            *DEFAULTS,
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        before = ours()
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        yield before, theirs(text), ours()
    finally:
        exporter.terminate()
        exporter.wait()


def test_every_series_of_the_exporter_is_ours_with_the_same_labels(pair):
    mine, exporter, _ = pair
    assert len(exporter.values) > 200
    assert exporter.values.keys() - mine.values.keys() == set()


def test_we_add_no_series_of_our_own_under_these_names(pair):
    mine, exporter, _ = pair
    assert mine.values.keys() - exporter.values.keys() == set()


def test_every_type_is_the_same(pair):
    mine, exporter, _ = pair
    assert {name: mine.types[name] for name in exporter.types} == exporter.types


@pytest.mark.parametrize("kind", KINDS)
def test_each_collector_is_part_of_the_comparison(pair, kind):
    """Else a collector that the exporter cannot run here would pass unseen."""
    names = {name for name, _ in pair[1].values}
    assert {reading.name for reading in COLLECTORS.get(kind)({}).collect()} & names


def test_counters_of_the_exporter_lie_between_two_of_our_rounds(pair):
    before, exporter, after = pair
    outside = {
        key: (before.values[key], value, after.values[key])
        for key, value in exporter.values.items()
        if exporter.types[key[0]] == "counter" and not before.values[key] - TICK <= value <= after.values[key] + TICK
    }
    assert outside == {}


def test_what_stands_still_is_equal(pair):
    mine, exporter, _ = pair
    steady = {key: value for key, value in exporter.values.items() if key[0] in STEADY}
    assert len({name for name, _ in steady}) > 10
    assert {key: mine.values[key] for key in steady} == steady
