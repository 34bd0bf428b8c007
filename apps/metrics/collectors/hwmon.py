"""Temperatures, from /sys/class/hwmon and /sys/class/thermal, where this machine has sensors."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from apps.core.telemetry import Reading
from apps.metrics.collectors import SYS, Collector, NoData, as_number, read

MILLI = 1000
HELP = {
    "input": "Temperature in degrees Celsius.",
    "max": "Temperature above which the sensor warns.",
    "crit": "Temperature that is critical.",
}


class Sensors(Collector):
    """Gauges in degrees Celsius; NoData on machines without sensors, as most virtual ones are."""

    kind = "hwmon"
    label = "Temperatures"
    platforms = ("linux",)

    def collect(self) -> list[Reading]:
        found = [*chips(SYS / "class/hwmon"), *zones(SYS / "class/thermal")]
        if not found:
            raise NoData("This machine has no temperature sensors.")
        return found


def chips(root: Path) -> Iterator[Reading]:
    """Every temperature of every sensor chip, named as node_exporter names them: by bus address where there is one."""
    for chip in sorted(root.glob("hwmon*")):
        labels = {"chip": chip_name(chip)}
        for path in sorted(chip.glob("temp*_*")):
            sensor, _, part = path.name.partition("_")
            with contextlib.suppress(NoData, OSError):
                text = read(path).strip()
                if part == "label":
                    named = labels | {"sensor": sensor, "label": text}
                    yield Reading("node_hwmon_sensor_label", 1.0, named, help="What the maker calls the sensor.")
                elif part in HELP and (value := as_number(text)) is not None:
                    name = "node_hwmon_temp_celsius" if part == "input" else f"node_hwmon_temp_{part}_celsius"
                    yield Reading(name, value / MILLI, labels | {"sensor": sensor}, help=HELP[part])


def chip_name(chip: Path) -> str:
    """`<bus>_<address>` of the device behind the chip, else the driver's name, else the directory's."""
    with contextlib.suppress(OSError):
        device = (chip / "device").resolve(strict=True)
        bus = (device / "subsystem").resolve(strict=True).name
        return clean(bus) + "_" + clean(device.name)
    with contextlib.suppress(NoData, OSError):
        return clean(read(chip / "name").strip())
    return chip.name


def clean(text: str) -> str:
    """Lower case, with underscores for what a metric name could not hold."""
    return "".join(letter if letter.isalnum() else "_" for letter in text.lower())


def zones(root: Path) -> Iterator[Reading]:
    """The kernel's thermal zones."""
    for zone in sorted(root.glob("thermal_zone*")):
        with contextlib.suppress(NoData, OSError):
            labels = {"zone": zone.name.removeprefix("thermal_zone"), "type": read(zone / "type").strip()}
            if (value := as_number(read(zone / "temp"))) is not None:
                yield Reading("node_thermal_zone_temp", value / MILLI, labels, help="Temperature of the zone.")
