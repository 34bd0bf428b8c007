"""What the block devices did, from /proc/diskstats, and what they are, from udev's database."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from django import forms

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, as_number, read

UDEV = Path("/run/udev/data")
EXCLUDE = r"^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$"
SECTOR = 512
"""Bytes: the unit of /proc/diskstats whatever the device's own (kernel documentation, block/stat)."""
MILLISECOND = 1000

COLUMNS: tuple[tuple[str, int, int, str], ...] = (
    ("reads_completed_total", 1, 1, "Reads completed."),
    ("reads_merged_total", 1, 1, "Reads that were merged with a neighbour."),
    ("read_bytes_total", SECTOR, 1, "Bytes read."),
    ("read_time_seconds_total", 1, MILLISECOND, "Seconds spent by all reads together."),
    ("writes_completed_total", 1, 1, "Writes completed."),
    ("writes_merged_total", 1, 1, "Writes that were merged with a neighbour."),
    ("written_bytes_total", SECTOR, 1, "Bytes written."),
    ("write_time_seconds_total", 1, MILLISECOND, "Seconds spent by all writes together."),
    ("io_now", 1, 1, "Requests in progress."),
    ("io_time_seconds_total", 1, MILLISECOND, "Seconds in which at least one request was in progress."),
    ("io_time_weighted_seconds_total", 1, MILLISECOND, "Seconds in progress, weighted by the number of requests."),
    ("discards_completed_total", 1, 1, "Discards completed."),
    ("discards_merged_total", 1, 1, "Discards that were merged with a neighbour."),
    ("discarded_sectors_total", 1, 1, "Sectors discarded."),
    ("discard_time_seconds_total", 1, MILLISECOND, "Seconds spent by all discards together."),
    ("flush_requests_total", 1, 1, "Flushes completed."),
    ("flush_requests_time_seconds_total", 1, MILLISECOND, "Seconds spent by all flushes together."),
)
"""Suffix, factor, divisor and help of each column after major, minor and name; older kernels write fewer."""
ATA = (
    ("ata_write_cache", "ID_ATA_WRITE_CACHE", "Whether the ATA disk has a write cache."),
    ("ata_write_cache_enabled", "ID_ATA_WRITE_CACHE_ENABLED", "Whether the ATA disk's write cache is on."),
    ("ata_rotation_rate_rpm", "ID_ATA_ROTATION_RATE_RPM", "Rotations a minute; 0 for solid state."),
)


class DiskStats(Collector):
    """Counters of each block device but partitions, RAM disks and loops."""

    kind = "diskstats"
    label = "Disk I/O"

    class Config(forms.Form):
        exclude = forms.CharField(
            required=False, initial=EXCLUDE, help_text="Devices whose name matches this expression are left out."
        )

    def collect(self) -> Iterator[Reading]:
        exclude = re.compile(self.config.get("exclude") or EXCLUDE)
        if not (path := PROC / "diskstats").exists():
            yield from estimated(exclude)
            return
        for major, minor, device, columns in parse(read(path)):
            if not exclude.search(device):
                yield from counters(device, columns)
                yield from about(device, major, minor, properties(major, minor))


def parse(text: str) -> Iterator[tuple[str, str, str, list[float]]]:
    """Yield (major, minor, device, columns) of each line."""
    for line in text.splitlines():
        major, minor, device, *columns = line.split()
        yield major, minor, device, [float(column) for column in columns]


def counters(device: str, columns: list[float]) -> Iterator[Reading]:
    """
    >>> [r.value for r in counters("sda", [3, 0, 2, 1500])]
    [3.0, 0.0, 1024.0, 1.5]
    """
    for (suffix, factor, divisor, help_text), value in zip(COLUMNS, columns, strict=False):
        kind = "counter" if suffix.endswith("_total") else "gauge"
        yield Reading(f"node_disk_{suffix}", value * factor / divisor, {"device": device}, kind, help_text)  # type: ignore[arg-type]


def properties(major: str, minor: str) -> dict[str, str]:
    """What udev knows about a device; empty in containers and where udev is absent."""
    with contextlib.suppress(OSError):
        return parse_udev((UDEV / f"b{major}:{minor}").read_text(errors="replace"))
    return {}


def parse_udev(text: str) -> dict[str, str]:
    """
    >>> parse_udev("S:disk/by-id/x\\nE:ID_MODEL=Disk=1")
    {'ID_MODEL': 'Disk=1'}
    """
    pairs = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:"))
    return {name: value for name, equals, value in pairs if equals}


def about(device: str, major: str, minor: str, udev: Mapping[str, str]) -> Iterator[Reading]:
    """What the device is: constant series whose labels tell."""
    serial = udev.get("SCSI_IDENT_SERIAL") or udev.get("ID_SERIAL_SHORT") or udev.get("ID_SERIAL") or ""
    yield Reading(
        "node_disk_info",
        1.0,
        {
            "device": device,
            "major": major,
            "minor": minor,
            "path": udev.get("ID_PATH", ""),
            "wwn": udev.get("ID_WWN", ""),
            "model": udev.get("ID_MODEL", ""),
            "serial": serial,
            "revision": udev.get("ID_REVISION", ""),
        },
        help="What the block device is.",
    )
    if udev.get("ID_FS_TYPE"):
        labels = {name: udev.get(f"ID_FS_{name.upper()}", "") for name in ("type", "usage", "uuid", "version")}
        yield Reading("node_disk_filesystem_info", 1.0, {"device": device} | labels, help="The file system on it.")
    if udev.get("DM_NAME"):
        labels = {
            name: udev.get(f"DM_{name.upper()}", "") for name in ("name", "uuid", "vg_name", "lv_name", "lv_layer")
        }
        yield Reading("node_disk_device_mapper_info", 1.0, {"device": device} | labels, help="What is mapped to it.")
    if udev.get("ID_ATA"):
        for suffix, name, help_text in ATA:
            if (value := as_number(udev.get(name, ""))) is not None:
                yield Reading(f"node_disk_{suffix}", value, {"device": device}, help=help_text)


def estimated(exclude: re.Pattern[str]) -> Iterator[Reading]:
    """The columns that psutil has on other systems."""
    for device, stats in psutil.disk_io_counters(perdisk=True).items():
        if exclude.search(device):
            continue
        for suffix, value in {
            "reads_completed_total": stats.read_count,
            "writes_completed_total": stats.write_count,
            "read_bytes_total": stats.read_bytes,
            "written_bytes_total": stats.write_bytes,
            "read_time_seconds_total": stats.read_time / MILLISECOND,
            "write_time_seconds_total": stats.write_time / MILLISECOND,
        }.items():
            yield Reading(f"node_disk_{suffix}", float(value), {"device": device}, "counter")
