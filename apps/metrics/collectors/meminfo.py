"""Memory of this machine, every field of /proc/meminfo."""

import re
from collections.abc import Iterator

import psutil

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read

PARENTHESES = re.compile(r"\((.*)\)")


class Memory(Collector):
    """Gauges in bytes (huge pages: in pages)."""

    kind = "meminfo"
    label = "Memory"

    def collect(self) -> Iterator[Reading]:
        if (path := PROC / "meminfo").exists():
            return parse(read(path))
        return estimated()


def parse(text: str) -> Iterator[Reading]:
    """
    >>> [(r.name, r.value) for r in parse("Active(anon):  2 kB\\nHugePages_Total:  3")]
    [('node_memory_Active_anon_bytes', 2048.0), ('node_memory_HugePages_Total', 3.0)]
    """
    for line in text.splitlines():
        field, _, rest = line.partition(":")
        words = rest.split()
        if not words:
            continue
        field = PARENTHESES.sub(r"_\1", field)
        value = float(words[0])
        if words[1:] == ["kB"]:
            field, value = field + "_bytes", value * 1024
        yield Reading(f"node_memory_{field}", value, help=f"{field} of /proc/meminfo.")


def estimated() -> Iterator[Reading]:
    """The fields that rules read, where there is no /proc: psutil's figures under Linux' names."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    for field, value in {
        "MemTotal": memory.total,
        "MemAvailable": memory.available,
        "MemFree": memory.free,
        "SwapTotal": swap.total,
        "SwapFree": swap.free,
    }.items():
        yield Reading(f"node_memory_{field}_bytes", float(value), help=f"{field}, as psutil sees it.")
