"""Sockets by protocol and state, from /proc/net/sockstat and sockstat6."""

import contextlib
import os
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read


class Sockets(Collector):
    """How many sockets there are and what memory they hold."""

    kind = "sockstat"
    label = "Sockets"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        page = os.sysconf("SC_PAGE_SIZE")
        yield from parse(read(PROC / "net/sockstat"), page)
        with contextlib.suppress(NoData):  # IPv6 may be off
            yield from parse(read(PROC / "net/sockstat6"), page)


def parse(text: str, page: int) -> Iterator[Reading]:
    """Lines of `protocol: name value name value`; `mem` counts pages of `page` bytes and is shown in bytes too.

    >>> [(r.name, r.value) for r in parse("TCP: inuse 4 mem 2", 4096)][1:]
    [('node_sockstat_TCP_mem', 2.0), ('node_sockstat_TCP_mem_bytes', 8192.0)]
    """
    for line in text.splitlines():
        protocol, _, rest = line.partition(":")
        words = rest.split()
        for name, word in zip(words[::2], words[1::2], strict=True):
            yield reading(protocol, name, float(word))
            if name == "mem":
                yield reading(protocol, "mem_bytes", float(word) * page)


def reading(protocol: str, name: str, value: float) -> Reading:
    """One gauge."""
    return Reading(f"node_sockstat_{protocol}_{name}", value, help=f"{protocol}, {name}.")
