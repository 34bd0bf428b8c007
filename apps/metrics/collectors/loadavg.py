"""The load average of this machine, from /proc/loadavg."""

import os
from collections.abc import Iterator, Sequence

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read


class LoadAverage(Collector):
    """How many tasks ran or waited, over 1, 5 and 15 minutes."""

    kind = "loadavg"
    label = "Load average"

    def collect(self) -> Iterator[Reading]:
        if (path := PROC / "loadavg").exists():
            return parse(read(path))
        return readings(os.getloadavg())


def parse(text: str) -> Iterator[Reading]:
    """
    >>> [r.value for r in parse("0.21 0.37 0.39 1/719 19737")]
    [0.21, 0.37, 0.39]
    """
    return readings([float(word) for word in text.split()[:3]])


def readings(averages: Sequence[float]) -> Iterator[Reading]:
    """The three averages under their names."""
    for minutes, value in zip((1, 5, 15), averages, strict=True):
        yield Reading(f"node_load{minutes}", value, help=f"Load average over {minutes} minutes.")
