"""Connections that the firewall tracks against its limit, from /proc/sys/net/netfilter."""

from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read

ROOT = PROC / "sys/net/netfilter"


class ConnectionTracking(Collector):
    """Two gauges, where the kernel tracks connections at all."""

    kind = "conntrack"
    label = "Tracked connections"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        entries = float(read(ROOT / "nf_conntrack_count"))
        limit = float(read(ROOT / "nf_conntrack_max"))
        yield Reading("node_nf_conntrack_entries", entries, help="Connections tracked now.")
        yield Reading("node_nf_conntrack_entries_limit", limit, help="Connections that can be tracked.")
