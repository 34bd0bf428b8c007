"""Counters of IP, ICMP, TCP and UDP, from /proc/net/netstat, snmp and snmp6."""

import contextlib
import re
from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, NoData, read

FIELDS = re.compile(
    r"""^(
        .*_(InErrors|InErrs)
      | Ip_Forwarding
      | Ip(6|Ext)_(InOctets|OutOctets)
      | Icmp6?_(InMsgs|OutMsgs)
      | TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts)
      | Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)
      | Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors)
    )$""",
    re.VERBOSE,
)


class NetworkStatistics(Collector):
    """The protocol counters that node_exporter shows by itself."""

    kind = "netstat"
    label = "Network protocols"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        yield from parse(read(PROC / "net/netstat"))
        yield from parse(read(PROC / "net/snmp"))
        with contextlib.suppress(NoData):  # IPv6 may be off
            yield from parse_six(read(PROC / "net/snmp6"))


def parse(text: str) -> Iterator[Reading]:
    """Pairs of lines: `protocol: names`, `protocol: values`.

    >>> [(r.name, r.value) for r in parse("Tcp: RtoMin CurrEstab\\nTcp: 200 7")]
    [('node_netstat_Tcp_CurrEstab', 7.0)]
    """
    lines = text.splitlines()
    for heading, row in zip(lines[::2], lines[1::2], strict=True):
        protocol, _, names = heading.partition(":")
        for name, value in zip(names.split(), row.partition(":")[2].split(), strict=True):
            yield from reading(protocol, name, value)


def parse_six(text: str) -> Iterator[Reading]:
    """One counter a line, protocol and name run together with the 6 between them.

    >>> [(r.name, r.value) for r in parse_six("Icmp6InMsgs 4\\nIp6InReceives 9")]
    [('node_netstat_Icmp6_InMsgs', 4.0)]
    """
    for line in text.splitlines():
        name, value = line.split()
        protocol, six, rest = name.partition("6")
        yield from reading(protocol + six, rest, value)


def reading(protocol: str, name: str, value: str) -> Iterator[Reading]:
    """The counter, when it is one of ours."""
    if FIELDS.match(field := f"{protocol}_{name}"):
        yield Reading(f"node_netstat_{field}", float(value), type="unknown", help=f"{name} of {protocol}.")
