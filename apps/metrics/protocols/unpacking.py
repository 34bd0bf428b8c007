"""Bodies that come packed: unpacked to a bounded size, so that a small request can never become a large process."""

import zlib
from typing import Final

import cramjam

from apps.metrics.protocols.protobuf import Malformed, varint

MOST_BYTES: Final = 32_000_000
"""A request may unpack to this much; more is refused before, or as soon as, it does."""
_GZIP: Final = 31
_ZLIB: Final = 15


class TooLarge(Exception):
    """The request unpacks to more than the portal takes at once."""

    def __init__(self, size: int | None = None, most: int = MOST_BYTES) -> None:
        much = "more than" if size is None else f"{size} bytes, more than"
        super().__init__(f"The request unpacks to {much} the {most} bytes that are taken at once.")


class UnknownPacking(ValueError):
    """The body is packed in a way that is not known here; the text is its name."""


def snappy_size(packed: bytes) -> int:
    """How many bytes a snappy block says that it unpacks to. Raises Malformed, TooLarge."""
    try:
        size, _ = varint(packed, 0)
    except Malformed as error:
        raise Malformed(f"the body is no snappy block: {error}") from None
    if size > MOST_BYTES:
        raise TooLarge(size)
    return size


def unsnapped(packed: bytes) -> bytes:
    """What is in a snappy block. Raises Malformed, TooLarge."""
    snappy_size(packed)
    try:
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError as error:
        raise Malformed(f"the body is no snappy block: {error}") from None


def unpacked(body: bytes, encoding: str, most: int = MOST_BYTES) -> bytes:
    """The body as it was before its Content-Encoding (gzip, deflate, none). Raises Malformed, TooLarge, UnknownPacking.

    gzip may come in several members, one after the other.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        if len(body) > most:
            raise TooLarge(len(body), most)
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnknownPacking(encoding)
    whole = bytearray()
    while body:
        reader = zlib.decompressobj(_ZLIB if encoding == "deflate" else _GZIP)
        try:
            whole += reader.decompress(body, most + 1 - len(whole))
        except zlib.error as error:
            raise Malformed(f"the body is no {encoding}: {error}") from None
        if len(whole) > most:
            raise TooLarge(most=most)
        if not reader.eof:
            raise Malformed(f"the {encoding} of the body is cut off")
        body = reader.unused_data
    return bytes(whole)
