"""Protobuf's wire format, as far as the protocols need it: fields one after another, and numbers of varying length.

Source: protobuf.dev/programming-guides/encoding. Groups, which nothing here uses, are malformed.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
_LONGEST: Final = 10

Value: TypeAlias = "int | bytes"


class Malformed(ValueError):
    """The bytes are no message of the kind they should be; the text says where."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number that begins at `at`, where it ends). Raises Malformed."""
    number = shift = 0
    end = min(len(data), at + _LONGEST)
    while at < end:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Malformed(f"a number does not end at byte {at}")


def fields(data: bytes) -> Iterator[tuple[int, int, Value]]:
    """(number, wire type, value) of each field: an int of a varint, the bytes of everything else. Raises Malformed."""
    at, size = 0, len(data)
    while at < size:
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise Malformed(f"field number 0 before byte {at}")
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, at = varint(data, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Malformed(f"wire type {kind} before byte {at}")
        if length > size - at:
            raise Malformed(f"a field of {length} bytes at byte {at} of {size}")
        yield number, kind, data[at : at + length]
        at += length


def signed(number: int) -> int:
    """A varint as int64."""
    return number - (1 << 64) if number >> 63 else number


def encoded(number: int) -> bytes:
    """A number that is not negative as a varint.

    >>> encoded(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
