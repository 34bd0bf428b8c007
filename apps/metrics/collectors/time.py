"""The machine's clock, its time zone and the source that the kernel keeps time by."""

import time
from collections.abc import Iterator
from pathlib import Path

from apps.core.telemetry import Reading
from apps.metrics.collectors import SYS, Collector, NoData, read


class Clock(Collector):
    """What time this machine believes it is."""

    kind = "time"
    label = "Clock"

    def collect(self) -> Iterator[Reading]:
        yield Reading("node_time_seconds", time.time(), help="Seconds since 1970 by this machine's clock.")
        local = time.localtime()
        yield Reading(
            "node_time_zone_offset_seconds",
            float(local.tm_gmtoff),
            {"time_zone": local.tm_zone},
            help="How far local time is ahead of UTC.",
        )
        for number, source in enumerate(sorted((SYS / "devices/system/clocksource").glob("clocksource*"))):
            yield from sources(str(number), source)


def sources(device: str, path: Path) -> Iterator[Reading]:
    """Which time sources the kernel could use and which one it does."""
    try:
        available = read(path / "available_clocksource").split()
        current = read(path / "current_clocksource").split()
    except (NoData, OSError):
        return
    for name, found, help_text in (
        ("available", available, "A clock source that the kernel could use."),
        ("current", current, "The clock source that the kernel uses."),
    ):
        for clock in found:
            labels = {"device": device, "clocksource": clock}
            yield Reading(f"node_time_clocksource_{name}_info", 1.0, labels, help=help_text)
