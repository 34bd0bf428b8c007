"""Does a machine answer to a ping. Source: RFC 792, RFC 4443; Linux' unprivileged ICMP sockets."""

import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

from django import forms

from apps.core.telemetry import Reading
from apps.sources.probes import Failed, Found, Probe

PAYLOAD: Final = b"monitoring-portal"
REQUESTS: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLIES: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
NOT_ALLOWED: Final = (
    "This machine does not let the portal ping: allow its group in net.ipv4.ping_group_range, or use a TCP check."
)


class Icmp(Probe):
    """A machine answers to pings, where the portal's machine may send them."""

    kind = "icmp"
    label = "Ping (ICMP)"

    class Config(forms.Form):
        host = forms.CharField(max_length=253, help_text="Name or address.")
        count = forms.IntegerField(
            required=False, min_value=1, max_value=10, initial=1, help_text="Pings in a row; one answer is enough."
        )

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["host"])

    def run(self) -> Found:
        literal = self.reach.address(self.values["host"], 0)
        count = self.values.get("count") or 1
        family = socket.AF_INET6 if ":" in literal else socket.AF_INET
        with _socket(family) as line:
            line.connect((literal, 0))
            took = [took for number in range(count) if (took := self.ping(line, family, number, count)) is not None]
        lost = 1 - len(took) / count
        readings = [Reading("probe_icmp_loss_ratio", lost, help="Share of the pings that were not answered.")]
        if not took:
            raise Failed(f"None of {count} pings was answered." if count > 1 else "No answer.", tuple(readings))
        best = min(took)
        readings.append(Reading("probe_icmp_duration_seconds", best, {"phase": "rtt"}, help="The fastest answer."))
        return Found(readings=tuple(readings))

    def ping(self, line: socket.socket, family: int, number: int, count: int) -> float | None:
        """Send one ping; return the seconds until its answer, or None."""
        started = time.perf_counter()
        ends = started + self.reach.seconds / count
        ident = os.getpid() & 0xFFFF
        line.send(packet(REQUESTS[socket.AddressFamily(family)], ident, number))
        while (left := ends - time.perf_counter()) > 0:
            if not select.select([line], [], [], left)[0]:
                return None
            if is_answer(line.recv(1024), family, number):
                return time.perf_counter() - started
        return None


def _socket(family: int) -> socket.socket:
    protocol = socket.getprotobyname("icmp" if family == socket.AF_INET else "ipv6-icmp")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return socket.socket(family, kind, protocol)
        except PermissionError:
            continue
    raise Failed(NOT_ALLOWED)


def packet(kind: int, ident: int, number: int) -> bytes:
    """Return an echo request."""
    header = struct.pack("!BBHHH", kind, 0, 0, ident, number)
    return struct.pack("!BBHHH", kind, 0, checksum(header + PAYLOAD), ident, number) + PAYLOAD


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def is_answer(data: bytes, family: int, number: int) -> bool:
    """Whether a packet answers our ping of that number; a raw socket of IPv4 shows the IP header, too."""
    if family == socket.AF_INET and len(data) >= 20 and data[0] >> 4 == 4:
        data = data[(data[0] & 0x0F) * 4 :]
    if len(data) < 8 or data[0] != REPLIES[socket.AddressFamily(family)]:
        return False
    return bool(struct.unpack("!H", data[6:8])[0] == number) and data[8:] == PAYLOAD
