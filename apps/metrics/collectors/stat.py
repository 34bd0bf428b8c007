"""Boot time, interrupts, context switches, forks and processes by state, from /proc/stat."""

from collections.abc import Iterator
from typing import Literal

import psutil

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read

FIELDS: dict[str, tuple[str, Literal["counter", "gauge"], str]] = {
    "intr": ("node_intr_total", "counter", "Interrupts served."),
    "ctxt": ("node_context_switches_total", "counter", "Context switches."),
    "processes": ("node_forks_total", "counter", "Processes and threads created."),
    "btime": ("node_boot_time_seconds", "gauge", "When the machine was started, in seconds since 1970."),
    "procs_running": ("node_procs_running", "gauge", "Processes that run or could."),
    "procs_blocked": ("node_procs_blocked", "gauge", "Processes that wait for I/O."),
}


class KernelStatistics(Collector):
    """What /proc/stat says beside processor time."""

    kind = "stat"
    label = "Boot time, interrupts and processes"

    def collect(self) -> Iterator[Reading]:
        if (path := PROC / "stat").exists():
            return parse(read(path))
        name, kind, help_text = FIELDS["btime"]
        return iter([Reading(name, psutil.boot_time(), type=kind, help=help_text)])


def parse(text: str) -> Iterator[Reading]:
    """The first number of each known line (that of `intr` is the sum over all interrupts).

    >>> [r.value for r in parse("intr 146178 0 0 25\\nbtime 1795411414\\nsoftirq 3 1 2")]
    [146178.0, 1795411414.0]
    """
    for line in text.splitlines():
        field, _, rest = line.partition(" ")
        if field in FIELDS:
            name, kind, help_text = FIELDS[field]
            yield Reading(name, float(rest.split(maxsplit=1)[0]), type=kind, help=help_text)
