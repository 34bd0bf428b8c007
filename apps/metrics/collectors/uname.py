"""Name, kernel and hardware of this machine."""

import os
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read


class Uname(Collector):
    """One constant series whose labels tell."""

    kind = "uname"
    label = "Kernel and machine name"

    def collect(self) -> Iterator[Reading]:
        try:
            domain = read(PROC / "sys/kernel/domainname").strip()
        except NoData:
            domain = "(none)"
        yield reading(os.uname(), domain)


def reading(system: os.uname_result, domain: str) -> Reading:
    """The labels are the fields of uname(2)."""
    labels = {
        "sysname": system.sysname,
        "nodename": system.nodename,
        "release": system.release,
        "version": system.version,
        "machine": system.machine,
        "domainname": domain,
    }
    return Reading("node_uname_info", 1.0, labels, help="What uname(2) says.")
