"""Connections that the firewall tracks against its limit, and what it could not track, from /proc."""

import contextlib
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read

ROOT = PROC / "sys/net/netfilter"
SHOWN = {
    "found": "Look-ups of tracked connections.",
    "invalid": "Packets that belong to no connection and begin none.",
    "ignore": "Packets of connections that are tracked already.",
    "insert": "Connections added to the table.",
    "insert_failed": "Connections that were in the table already when they were to be added.",
    "drop": "Packets dropped because their connection could not be tracked.",
    "early_drop": "Connections dropped to make room in a full table.",
    "search_restart": "Look-ups begun anew because the table was resized.",
}


class ConnectionTracking(Collector):
    """Gauges, where the kernel tracks connections at all."""

    kind = "conntrack"
    label = "Tracked connections"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        entries = float(read(ROOT / "nf_conntrack_count"))
        limit = float(read(ROOT / "nf_conntrack_max"))
        yield Reading("node_nf_conntrack_entries", entries, help="Connections tracked now.")
        yield Reading("node_nf_conntrack_entries_limit", limit, help="Connections that can be tracked.")
        with contextlib.suppress(NoData):
            yield from parse(read(PROC / "net/stat/nf_conntrack"))


def parse(text: str) -> Iterator[Reading]:
    """A heading, then a row of hexadecimal numbers for each processor; gauges, as node_exporter calls these sums.

    >>> [(r.name, r.value) for r in parse("entries found drop\\n0 0a 1\\n0 1 0")]
    [('node_nf_conntrack_stat_found', 11.0), ('node_nf_conntrack_stat_drop', 1.0)]
    """
    heading, *rows = (line.split() for line in text.splitlines())
    for number, name in enumerate(heading):
        if name in SHOWN:
            total = float(sum(int(row[number], 16) for row in rows))
            yield Reading(f"node_nf_conntrack_stat_{name}", total, help=SHOWN[name])
