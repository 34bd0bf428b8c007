"""Traffic, errors and drops of each network device, from /proc/net/dev and /sys."""

import contextlib
import re
from collections.abc import Iterator

import psutil
from django import forms

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, SYS, Collector, NoData, read

RECEIVE = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
TRANSMIT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")


class NetworkDevices(Collector):
    """Counters by device; the loop-back too, as node_exporter does by itself."""

    kind = "netdev"
    label = "Network traffic"

    class Config(forms.Form):
        exclude = forms.CharField(required=False, help_text="Devices whose name matches this expression are left out.")

    def collect(self) -> Iterator[Reading]:
        exclude = re.compile(self.config.get("exclude") or "^$")
        # /proc/net is a link to the network namespace of this very process.
        found = measured() if (PROC / "net/dev").exists() else estimated()
        return (reading for reading in found if not exclude.search(reading.labels["device"]))


def measured() -> Iterator[Reading]:
    """The table of /proc, and the one counter that only /sys has."""
    devices = set()
    for found in parse(read(PROC / "net/dev")):
        devices.add(found.labels["device"])
        yield found
    for device in sorted(devices):
        with contextlib.suppress(NoData, OSError, ValueError):  # a device may go away in between
            yield reading(
                device, "receive_nohandler", float(read(SYS / "class/net" / device / "statistics/rx_nohandler"))
            )


def parse(text: str) -> Iterator[Reading]:
    """Two lines of heading, then `device: sixteen counters`."""
    for line in text.splitlines()[2:]:
        device, _, rest = line.rpartition(":")
        columns = [float(word) for word in rest.split()]
        for name, value in zip(RECEIVE, columns[:8], strict=True):
            yield reading(device.strip(), f"receive_{name}", value)
        for name, value in zip(TRANSMIT, columns[8:16], strict=True):
            yield reading(device.strip(), f"transmit_{name}", value)


def reading(device: str, name: str, value: float) -> Reading:
    """One counter of one device."""
    help_text = f"{name.replace('_', ' ').capitalize()} of the network device."
    return Reading(f"node_network_{name}_total", value, {"device": device}, "counter", help_text)


def estimated() -> Iterator[Reading]:
    """psutil's counters under the same names."""
    for device, stats in psutil.net_io_counters(pernic=True).items():
        for name, value in {
            "receive_bytes": stats.bytes_recv,
            "receive_packets": stats.packets_recv,
            "receive_errs": stats.errin,
            "receive_drop": stats.dropin,
            "transmit_bytes": stats.bytes_sent,
            "transmit_packets": stats.packets_sent,
            "transmit_errs": stats.errout,
            "transmit_drop": stats.dropout,
        }.items():
            yield reading(device, name, float(value))
