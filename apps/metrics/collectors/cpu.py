"""Seconds that each processor spent in each mode, from /proc/stat, and thermal throttling from /sys."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, SYS, Collector, NoData, as_number, read

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
SECONDS = "Seconds that each processor spent in each mode."
GUEST = "Seconds that each processor spent running guests; contained in the modes user and nice."
JUMP = 3.0
"""Idle seconds: a larger step back is a processor plugged in anew, a smaller one is the kernel correcting itself."""


class Cpu(Collector):
    """Counters of processor time."""

    kind = "cpu"
    label = "Processor time by mode"

    def __init__(self, config: dict[str, object] | None = None) -> None:
        super().__init__(config)
        self.seen: dict[str, list[float]] = {}

    def collect(self) -> Iterator[Reading]:
        if (path := PROC / "stat").exists():
            self.seen = forward(self.seen, parse(read(path), os.sysconf("SC_CLK_TCK")))
            yield from readings(self.seen)
            yield from throttles(SYS / "devices/system/cpu")
            return
        for number, times in enumerate(psutil.cpu_times(percpu=True)):
            for mode in MODES:
                if hasattr(times, mode):
                    labels = {"cpu": str(number), "mode": mode}
                    yield Reading("node_cpu_seconds_total", getattr(times, mode), labels, "counter", SECONDS)


def parse(text: str, ticks: int) -> dict[str, list[float]]:
    """Seconds in the eight modes, then as guest and as nice guest, by processor; `ticks` a second.

    >>> parse("cpu  9 9\\ncpu0 881 0 617 83405 15 0 9 6 0 0", 100)["0"][:4]
    [8.81, 0.0, 6.17, 834.05]
    """
    found = {}
    for line in text.splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name != "cpu":
            values = [int(column) / ticks for column in columns[:10]]
            found[name[3:]] = values + [0.0] * (10 - len(values))
    return found


def forward(before: dict[str, list[float]], now: dict[str, list[float]]) -> dict[str, list[float]]:
    """Keep counters from going back: the kernel revises idle and iowait downwards by a tick now and then.

    A rate over a counter that went back by 0.01 would see a reset to zero, which is hours of processor time.
    """
    merged = {}
    for cpu, values in now.items():
        old = before.get(cpu)
        if old is None or old[3] - values[3] >= JUMP:
            merged[cpu] = values
        else:
            merged[cpu] = [max(pair) for pair in zip(old, values, strict=True)]
    return merged


def readings(cpus: dict[str, list[float]]) -> Iterator[Reading]:
    """Two families: time by mode, and the part of it spent in guests."""
    for cpu, values in cpus.items():
        for mode, value in zip(MODES, values, strict=False):
            yield Reading("node_cpu_seconds_total", value, {"cpu": cpu, "mode": mode}, "counter", SECONDS)
        for mode, value in zip(("user", "nice"), values[8:], strict=True):
            yield Reading("node_cpu_guest_seconds_total", value, {"cpu": cpu, "mode": mode}, "counter", GUEST)


def throttles(root: Path) -> Iterator[Reading]:
    """How often cores and packages were slowed down by heat, each counted once whatever its threads."""
    packages: dict[str, float] = {}
    cores: dict[tuple[str, str], float] = {}
    for cpu in root.glob("cpu[0-9]*"):
        with contextlib.suppress(NoData, OSError):
            package = read(cpu / "topology/physical_package_id").strip()
            core = read(cpu / "topology/core_id").strip()
            if (count := as_number(read(cpu / "thermal_throttle/core_throttle_count"))) is not None:
                cores.setdefault((package, core), count)
            if (count := as_number(read(cpu / "thermal_throttle/package_throttle_count"))) is not None:
                packages.setdefault(package, count)
    for (package, core), count in cores.items():
        labels = {"package": package, "core": core}
        yield Reading("node_cpu_core_throttles_total", count, labels, "counter", "How often this core was throttled.")
    for package, count in packages.items():
        help_text = "How often this processor package was throttled."
        yield Reading("node_cpu_package_throttles_total", count, {"package": package}, "counter", help_text)
