"""Paging, swapping and kills for want of memory, from /proc/vmstat."""

import re
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read

FIELDS = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault)")


class VirtualMemory(Collector):
    """The fields of /proc/vmstat that node_exporter shows by itself."""

    kind = "vmstat"
    label = "Paging and swapping"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        return parse(read(PROC / "vmstat"))


def parse(text: str) -> Iterator[Reading]:
    """
    >>> [(r.name, r.value) for r in parse("nr_dirty 5\\npgfault 1435968\\npgpgin 7")]
    [('node_vmstat_pgfault', 1435968.0), ('node_vmstat_pgpgin', 7.0)]
    """
    for line in text.splitlines():
        field, _, value = line.partition(" ")
        if FIELDS.match(field):
            yield Reading(f"node_vmstat_{field}", float(value), type="unknown", help=f"{field} of /proc/vmstat.")
