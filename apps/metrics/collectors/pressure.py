"""Seconds in which work waited for processor, memory or disk, from /proc/pressure."""

import contextlib
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read

MICROSECOND = 1_000_000
# The kernel writes a "full" line for the processor too, which means nothing there; node_exporter leaves it out.
SHOWN = {"cpu": ("some",), "io": ("some", "full"), "memory": ("some", "full"), "irq": ("full",)}
SUFFIX = {"some": "waiting", "full": "stalled"}
WHO = {"some": "some task", "full": "every task"}


class Pressure(Collector):
    """Pressure stall information: counters of time lost."""

    kind = "pressure"
    label = "Pressure on processor, memory and disk"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        if not (PROC / "pressure").is_dir():
            raise NoData("This kernel keeps no pressure stall information (CONFIG_PSI, or psi=1 at boot).")
        for resource in SHOWN:
            with contextlib.suppress(NoData):  # older kernels know no irq
                yield from parse(resource, read(PROC / "pressure" / resource))


def parse(resource: str, text: str) -> Iterator[Reading]:
    """
    >>> [(r.name, r.value) for r in parse("io", "some avg10=0.74 avg60=0.94 avg300=0.34 total=2620434")]
    [('node_pressure_io_waiting_seconds_total', 2.620434)]
    """
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind in SHOWN[resource]:
            total = float(fields[-1].removeprefix("total=")) / MICROSECOND
            help_text = f"Seconds in which {WHO[kind]} waited for {resource}."
            yield Reading(f"node_pressure_{resource}_{SUFFIX[kind]}_seconds_total", total, {}, "counter", help_text)
