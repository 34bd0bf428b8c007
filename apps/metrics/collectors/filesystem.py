"""Size and free space of each mounted file system; a dead mount costs its own figures and nothing else."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from django import forms

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read
from apps.metrics.mount_probe import MountProbe, Unanswered, Usage, measure

MOUNTS = r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
TYPES = (
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs"
    r"|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$"
)
PROMPT = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "vfat", "apfs"})
"""Types that answer statvfs from memory: no child process is needed for these."""
OCTAL = re.compile(r"\\([0-7]{3})")
GAUGES = (
    ("size_bytes", "Size in bytes."),
    ("free_bytes", "Free bytes, those reserved for root included."),
    ("avail_bytes", "Free bytes for ordinary users."),
    ("files", "File nodes in all."),
    ("files_free", "Free file nodes."),
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system."""

    device: str
    mountpoint: str
    fstype: str
    readonly: bool


class FileSystems(Collector):
    """Gauges by device, mount point and type, with node_exporter's own exclusions."""

    kind = "filesystem"
    label = "Disk space"
    # Three dead mounts a round; more of them are marked in the rounds that follow.
    deadline = 6.0

    class Config(forms.Form):
        exclude_mounts = forms.CharField(
            required=False, initial=MOUNTS, help_text="Mount points that match this expression are left out."
        )
        exclude_types = forms.CharField(
            required=False, initial=TYPES, help_text="File system types that match this expression are left out."
        )

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.probe = MountProbe()

    def collect(self) -> Iterator[Reading]:
        mounts = re.compile(self.config.get("exclude_mounts") or MOUNTS)
        types = re.compile(self.config.get("exclude_types") or TYPES)
        found = parse(read(PROC / "self/mounts")) if sys.platform == "linux" else partitions()
        shown = [
            mount
            for mount in dict.fromkeys(found)
            if not mounts.search(mount.mountpoint) and not types.search(mount.fstype)
        ]
        if not shown:
            raise NoData("No file system is visible here, as in a container whose root is an overlay.")
        for mount in shown:
            yield from readings(mount, self.ask(mount))

    def ask(self, mount: Mount) -> Usage | None:
        """What the mount says, None when it gives an error or no answer."""
        try:
            return measure(mount.mountpoint) if mount.fstype in PROMPT else self.probe.ask(mount.mountpoint)
        except (OSError, Unanswered):
            return None

    def close(self) -> None:
        self.probe.close()


def parse(text: str) -> Iterator[Mount]:
    """
    >>> list(parse("/dev/vda /a\\\\040b ext4 ro,relatime 0 0"))
    [Mount(device='/dev/vda', mountpoint='/a b', fstype='ext4', readonly=True)]
    """
    for line in text.splitlines():
        device, mountpoint, fstype, options, *_ = line.split()
        yield Mount(unescape(device), unescape(mountpoint), fstype, "ro" in options.split(","))


def unescape(text: str) -> str:
    """Spaces, tabs, line ends and backslashes are written in octal (fstab(5))."""
    return OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def partitions() -> Iterable[Mount]:
    """The mounts of a system without /proc."""
    for part in psutil.disk_partitions(all=False):
        yield Mount(part.device, part.mountpoint, part.fstype, "ro" in part.opts.split(","))


def readings(mount: Mount, usage: Usage | None) -> Iterator[Reading]:
    """All gauges of one mount, or only that it gave an error."""
    labels = {"device": mount.device, "fstype": mount.fstype, "mountpoint": mount.mountpoint}
    failed = "Whether asking the file system failed."
    yield Reading("node_filesystem_device_error", float(usage is None), labels, help=failed)
    if usage is None:
        return
    values = (usage.size, usage.free, usage.avail, usage.files, usage.files_free)
    for (suffix, help_text), value in zip(GAUGES, values, strict=True):
        yield Reading(f"node_filesystem_{suffix}", value, labels, help=help_text)
    yield Reading("node_filesystem_readonly", float(mount.readonly), labels, help="Whether it is mounted read-only.")
