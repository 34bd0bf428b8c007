"""State, speed and settings of each network device, from /sys/class/net."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from apps.core.telemetry import Reading
from apps.metrics.collectors import SYS, Collector, NoData, read

FILES: tuple[tuple[str, str, Literal["gauge", "counter"]], ...] = (
    ("address_assign_type", "addr_assign_type", "gauge"),
    ("carrier", "carrier", "gauge"),
    ("carrier_changes_total", "carrier_changes", "counter"),
    ("carrier_up_changes_total", "carrier_up_count", "counter"),
    ("carrier_down_changes_total", "carrier_down_count", "counter"),
    ("device_id", "dev_id", "gauge"),
    ("dormant", "dormant", "gauge"),
    ("flags", "flags", "gauge"),
    ("iface_id", "ifindex", "gauge"),
    ("iface_link", "iflink", "gauge"),
    ("iface_link_mode", "link_mode", "gauge"),
    ("mtu_bytes", "mtu", "gauge"),
    ("name_assign_type", "name_assign_type", "gauge"),
    ("net_dev_group", "netdev_group", "gauge"),
    ("protocol_type", "type", "gauge"),
    ("transmit_queue_length", "tx_queue_len", "gauge"),
)
"""Name of the series, file, type; the kernel refuses some files for some devices, which is left out."""
MEGABIT = 1_000_000 / 8


class NetworkClass(Collector):
    """One set of gauges a device."""

    kind = "netclass"
    label = "Network devices"
    platforms = ("linux",)

    def collect(self) -> list[Reading]:
        found = [reading for device in sorted((SYS / "class/net").glob("*")) for reading in readings(device)]
        if not found:
            raise NoData("No network device is visible under /sys/class/net.")
        return found


def readings(device: Path) -> Iterator[Reading]:
    """All series of the device whose directory this is."""
    name = {"device": device.name}
    if not device.is_dir():  # bonding_masters and its like are files
        return
    for series, file, kind in FILES:
        with contextlib.suppress(NoData, OSError, ValueError):
            value = float(int(read(device / file), 0))
            yield Reading(f"node_network_{series}", value, name, kind, f"{file} of the network device.")
    with contextlib.suppress(NoData, OSError, ValueError):
        speed = int(read(device / "speed")) * MEGABIT
        yield Reading("node_network_speed_bytes", speed, name, help="Bytes a second; below 0 where it is not known.")
    labels = {field: text(device / field) for field in ("address", "broadcast", "duplex", "ifalias", "operstate")}
    up = float(labels["operstate"] == "up")
    yield Reading("node_network_up", up, name, help="Whether the device is in operation.")
    yield Reading("node_network_info", 1.0, name | labels, help="Addresses and state of the device.")


def text(path: Path) -> str:
    """The file's text, empty where the kernel refuses it."""
    try:
        return read(path).strip()
    except (NoData, OSError):
        return ""
