"""What the collectors make of captured text: odd kernels, odd mounts, counters that go back."""

import doctest
import errno
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from apps.metrics import collectors
from apps.metrics.collectors import NoData, cpu, diskstats, filesystem, hwmon, meminfo, netdev, netstat, pressure, read
from apps.metrics.collectors import redis as redis_collector


def values(readings) -> dict[tuple[str, ...], float]:
    """Readings by name and label values."""
    return {(r.name, *r.labels.values()): r.value for r in readings}


@pytest.mark.parametrize("module", sorted(m.name for m in pkgutil.iter_modules(collectors.__path__)))
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(importlib.import_module(f"apps.metrics.collectors.{module}")).failed == 0


def test_processor_columns_that_an_old_kernel_lacks_are_zero():
    assert cpu.parse("cpu0 100 0 0 200", 100) == {"0": [1.0, 0, 0, 2.0, 0, 0, 0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ([5.0, 10.0], [6.0, 9.99], [6.0, 10.0]),
        ([5.0, 10.0], [6.0, 11.0], [6.0, 11.0]),
        ([5.0, 10.0], [0.5, 1.0], [0.5, 1.0]),
    ],
    ids=["idle goes back by a tick", "all grow", "the processor was plugged in anew"],
)
def test_a_processor_counter_never_goes_back_by_little(before, now, kept):
    def full(pair):
        return [pair[0], 0, 0, pair[1], 0, 0, 0, 0, 0, 0]

    assert cpu.forward({"0": full(before)}, {"0": full(now)}) == {"0": full(kept)}


def test_a_processor_that_was_taken_out_is_gone():
    assert cpu.forward({"0": [1.0] * 10, "1": [1.0] * 10}, {"0": [2.0] * 10}) == {"0": [2.0] * 10}


def test_throttling_counts_a_core_once_whatever_its_threads(tmp_path):
    for number, core in enumerate((0, 0, 1)):
        for path, text in {
            "topology/physical_package_id": "0",
            "topology/core_id": str(core),
            "thermal_throttle/core_throttle_count": "7",
            "thermal_throttle/package_throttle_count": "9",
        }.items():
            file = tmp_path / f"cpu{number}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
    assert values(cpu.throttles(tmp_path)) == {
        ("node_cpu_core_throttles_total", "0", "0"): 7.0,
        ("node_cpu_core_throttles_total", "0", "1"): 7.0,
        ("node_cpu_package_throttles_total", "0"): 9.0,
    }


def test_a_meminfo_line_without_a_number_is_left_out():
    assert values(meminfo.parse("MemTotal: 1 kB\nOdd:\n")) == {("node_memory_MemTotal_bytes",): 1024.0}


@pytest.mark.parametrize(("columns", "count"), [(11, 11), (15, 15), (17, 17), (20, 17)])
def test_as_many_disk_columns_as_the_kernel_writes(columns, count):
    assert len(list(diskstats.counters("sda", [1.0] * columns))) == count


@pytest.mark.parametrize(
    ("device", "shown"),
    [("sda", True), ("sda1", False), ("nvme0n1", True), ("nvme0n1p2", False), ("loop3", False), ("dm-0", True)],
)
def test_partitions_and_loops_are_left_out(device, shown):
    assert (re.search(diskstats.EXCLUDE, device) is None) is shown


def test_udev_tells_what_a_disk_is():
    udev = diskstats.parse_udev(
        "E:ID_MODEL=M\nE:ID_SERIAL=S\nE:ID_FS_TYPE=ext4\nE:ID_FS_UUID=u\nE:DM_NAME=root\nE:DM_VG_NAME=vg\n"
        "E:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\nE:ID_ATA_ROTATION_RATE_RPM=7200\nE:ID_ATA_WRITE_CACHE_ENABLED=odd\n"
    )
    found = {r.name: r for r in diskstats.about("sda", "8", "0", udev)}
    assert found["node_disk_info"].labels == {
        "device": "sda", "major": "8", "minor": "0", "path": "", "wwn": "", "model": "M", "serial": "S", "revision": "",
    }  # fmt: skip
    assert found["node_disk_filesystem_info"].labels["type"] == "ext4"
    assert found["node_disk_device_mapper_info"].labels["vg_name"] == "vg"
    assert found["node_disk_ata_rotation_rate_rpm"].value == 7200.0
    assert "node_disk_ata_write_cache_enabled" not in found


def test_a_network_device_whose_name_holds_a_colon_keeps_it():
    text = "heading\nheading\n eth0:1:" + " 5" * 16
    assert {r.labels["device"] for r in netdev.parse(text)} == {"eth0:1"}


def test_protocol_counters_that_public_rules_do_not_use_are_left_out():
    assert values(netstat.parse("Tcp: RtoMin InSegs\nTcp: 200 5\nUdpLite: InErrors NoPorts\nUdpLite: 1 2")) == {
        ("node_netstat_Tcp_InSegs",): 5.0,
        ("node_netstat_UdpLite_InErrors",): 1.0,
    }


def test_processor_pressure_of_every_task_means_nothing_and_is_left_out():
    text = "some avg10=0 avg60=0 avg300=0 total=5000000\nfull avg10=0 avg60=0 avg300=0 total=1"
    assert values(pressure.parse("cpu", text)) == {("node_pressure_cpu_waiting_seconds_total",): 5.0}


@pytest.mark.parametrize(
    ("mountpoint", "shown"),
    [("/", True), ("/home", True), ("/device", True), ("/dev/shm", False), ("/sys/fs/cgroup", False), ("/proc", False)],
)
def test_mounts_of_the_system_itself_are_left_out(mountpoint, shown):
    assert (re.search(filesystem.MOUNTS, mountpoint) is None) is shown


def test_a_mount_that_gives_an_error_shows_that_and_nothing_else():
    mount = filesystem.Mount("nas:/x", "/nas", "nfs4", readonly=True)
    labels = ("nas:/x", "nfs4", "/nas")
    assert values(filesystem.readings(mount, None)) == {("node_filesystem_device_error", *labels): 1.0}


def test_sensors_are_named_by_bus_and_converted_to_degrees(tmp_path):
    bus = tmp_path / "bus/platform"
    device = tmp_path / "devices/coretemp.0"
    chip = tmp_path / "hwmon/hwmon0"
    for folder in (bus, device, chip):
        folder.mkdir(parents=True)
    (device / "subsystem").symlink_to(bus)
    (chip / "device").symlink_to(device)
    for name, text in {
        "temp1_input": "45500",
        "temp1_crit": "100000",
        "temp1_label": "Core 0",
        "temp2_input": "bad",
    }.items():
        (chip / name).write_text(text + "\n")
    assert values(hwmon.chips(tmp_path / "hwmon")) == {
        ("node_hwmon_temp_celsius", "platform_coretemp_0", "temp1"): 45.5,
        ("node_hwmon_temp_crit_celsius", "platform_coretemp_0", "temp1"): 100.0,
        ("node_hwmon_sensor_label", "platform_coretemp_0", "temp1", "Core 0"): 1.0,
    }


def test_thermal_zones_are_shown(tmp_path):
    zone = tmp_path / "thermal_zone3"
    zone.mkdir()
    (zone / "type").write_text("x86_pkg_temp\n")
    (zone / "temp").write_text("51000\n")
    assert values(hwmon.zones(tmp_path)) == {("node_thermal_zone_temp", "3", "x86_pkg_temp"): 51.0}


def test_a_file_that_the_kernel_does_not_have_is_no_data(tmp_path):
    with pytest.raises(NoData, match="does not exist"):
        read(tmp_path / "absent")


def test_a_file_that_is_switched_off_is_no_data(monkeypatch):
    def refuse(self, **options):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NoData, match="switched off"):
        read(Path("/proc/pressure/cpu"))


def test_info_of_a_redis_server_becomes_series_and_odd_fields_are_left_out():
    info = {
        "valkey_version": "9.0.0",
        "role": "master",
        "used_memory": 1024,
        "keyspace_hits": "12",
        "maxclients": "odd",
        "db0": {"keys": 5, "expires": 2, "avg_ttl": 0},
    }
    assert values(redis_collector.parse(info)) == {
        ("redis_up",): 1.0,
        ("redis_memory_used_bytes",): 1024.0,
        ("redis_keyspace_hits_total",): 12.0,
        ("redis_db_keys", "db0"): 5.0,
        ("redis_db_keys_expiring", "db0"): 2.0,
        ("redis_instance_info", "9.0.0", "master"): 1.0,
    }


def test_a_machine_that_shows_no_file_system_has_no_data(monkeypatch):
    monkeypatch.setattr(filesystem, "read", lambda path: "overlay / overlay rw 0 0\n")
    with pytest.raises(NoData, match="overlay"):
        list(filesystem.FileSystems({}).collect())
