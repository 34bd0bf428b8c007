"""A sender's side of remote write 1.0, written from the specification: what tests and benchmarks send."""

import struct
from collections.abc import Iterable, Mapping, Sequence

import cramjam


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def chunk(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


def label(name: str, value: str) -> bytes:
    return chunk(1, chunk(1, name.encode()) + chunk(2, value.encode()))


def sample(ms: int, value: float) -> bytes:
    """As Go's encoder writes it: zero is left out, so is a time of zero; a negative zero is not zero."""
    bits = struct.pack("<d", value)
    told = b"" if bits == bytes(8) else b"\x09" + bits
    return chunk(2, told + (b"\x10" + varint(ms) if ms else b""))


def series(labels: Mapping[str, str] | Sequence[tuple[str, str]], samples: Iterable[tuple[int, float]]) -> bytes:
    pairs = labels.items() if isinstance(labels, Mapping) else labels
    return chunk(1, b"".join(label(*pair) for pair in pairs) + b"".join(sample(*one) for one in samples))


def metadata(name: str, kind: int, about: str, unit: str) -> bytes:
    told = b"\x08" + varint(kind) if kind else b""
    return chunk(3, told + chunk(2, name.encode()) + chunk(4, about.encode()) + chunk(5, unit.encode()))


def packed(*messages: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(b"".join(messages)))
