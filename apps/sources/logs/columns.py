"""Bytes of log records: a run of them as columns, packed, and how many there are by template and time. Pure.

Like the store's rows, both begin with codec version, kind, key id (0: not encrypted) and a crc32. Records are laid by
template and time, so that like stands beside like; texts hold no NUL, which parts them. `Corrupt` says what is wrong.
"""

import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard

from apps.metrics.codec import HEADER, Corrupt, Int64

VERSION: Final = 1
RECORDS: Final = 16
TALLY: Final = 17
GRID_MS: Final = 15_000
"""Records are counted by stretches of 15 s, which all steps of charts are made of."""
QUICK, THOROUGH = 3, 9
"""zstd's levels for what has just come and for what stays."""
_HEAD: Final = struct.Struct("<IIIII")
MOST: Final = 1 << 24
_SIZE: Final = 1 << 30


class _Contexts(threading.local):
    """zstandard contexts are not thread-safe."""

    def __init__(self) -> None:
        self.packers = {
            level: zstandard.ZstdCompressor(level=level, write_checksum=False) for level in (QUICK, THOROUGH)
        }
        self.unpacker = zstandard.ZstdDecompressor()


_zstd: Final = _Contexts()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """N records: at int64[N] ms, template int64[N] ids, and texts of the same length; attributes are JSON or empty."""

    at: Int64
    template: Int64
    host: Sequence[str]
    message: Sequence[str]
    attributes: Sequence[str]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """How many records: slot int64[K] (stretches of 15 s since 1970), template int64[K], count int64[K]."""

    slot: Int64
    template: Int64
    count: Int64


def joined(runs: Sequence[Run]) -> Run:
    """Return the records of several runs as one."""
    return Run(
        np.concatenate([run.at for run in runs]),
        np.concatenate([run.template for run in runs]),
        [text for run in runs for text in run.host],
        [text for run in runs for text in run.message],
        [text for run in runs for text in run.attributes],
    )


def part(run: Run, places: Int64) -> Run:
    """Return the records at these places, in that order."""
    where = places.tolist()
    return Run(
        run.at[places],
        run.template[places],
        [run.host[place] for place in where],
        [run.message[place] for place in where],
        [run.attributes[place] for place in where],
    )


def encode(run: Run, level: int = QUICK) -> bytes:
    """Pack a run of at least one record."""
    order = np.lexsort((run.at, run.template))
    run = part(run, order)
    hosts = sorted(set(run.host))
    numbers = {host: number for number, host in enumerate(hosts)}
    at = np.diff(run.at, prepend=np.int64(0)).astype("<i8").tobytes()
    template = np.diff(run.template, prepend=np.int64(0)).astype("<i4").tobytes()
    host = np.array([numbers[one] for one in run.host], dtype="<u4").tobytes()
    texts = ["\0".join(some).encode() for some in (hosts, run.message, run.attributes)]
    head = _HEAD.pack(len(run), len(hosts), *map(len, texts))
    return _sealed(RECORDS, head + at + template + host + b"".join(texts), level)


def decode(payload: bytes) -> Run:
    """Unpack a run. Raises Corrupt."""
    body = _opened(RECORDS, payload)
    try:
        records, hosts, *sizes = _HEAD.unpack_from(body)
        if records == 0 or records > MOST:
            raise Corrupt(f"it says that it holds {records} records")
        place = _HEAD.size
        at = np.cumsum(np.frombuffer(body, dtype="<i8", count=records, offset=place))
        place += 8 * records
        template = np.cumsum(np.frombuffer(body, dtype="<i4", count=records, offset=place).astype(np.int64))
        place += 4 * records
        numbers = np.frombuffer(body, dtype="<u4", count=records, offset=place)
        place += 4 * records
        texts = []
        for size, wanted in zip(sizes, (hosts, records, records), strict=True):
            some = body[place : place + size].decode().split("\0")
            if len(some) != wanted:
                raise Corrupt(f"it holds {len(some)} texts instead of {wanted}")
            texts.append(some)
            place += size
        names, message, attributes = texts
        return Run(at, template, [names[number] for number in numbers.tolist()], message, attributes)
    except (struct.error, ValueError, IndexError) as error:
        raise Corrupt(f"its columns cannot be read: {error}") from None


def tally_of(run: Run) -> Tally:
    """Count the records by template and stretch of time."""
    pairs = np.stack([run.at // GRID_MS, run.template])
    found, count = np.unique(pairs, axis=1, return_counts=True)
    return Tally(found[0], found[1], count.astype(np.int64))


def encode_tally(tally: Tally) -> bytes:
    """Pack counts."""
    columns = (np.diff(tally.slot, prepend=np.int64(0)), tally.template, tally.count)
    return _sealed(TALLY, b"".join(column.astype("<i8").tobytes() for column in columns), QUICK)


def decode_tally(packed: bytes) -> Tally:
    """Unpack counts. Raises Corrupt."""
    body = np.frombuffer(_opened(TALLY, packed), dtype="<i8")
    if len(body) % 3:
        raise Corrupt("its counts are cut off")
    slot, template, count = body.reshape(3, -1)
    return Tally(np.cumsum(slot), template.astype(np.int64), count.astype(np.int64))


def _sealed(kind: int, body: bytes, level: int) -> bytes:
    packed = _zstd.packers[level].compress(body)
    return HEADER.pack(VERSION, kind, 0, zlib.crc32(packed)) + packed


def _opened(kind: int, payload: bytes) -> bytes:
    if len(payload) < HEADER.size:
        raise Corrupt("it is cut off")
    version, found, key, crc = HEADER.unpack_from(payload)
    if (version, found, key) != (VERSION, kind, 0):
        raise Corrupt(f"version {version}, kind {found}, key {key} are not known here")
    packed = memoryview(payload)[HEADER.size :]
    if zlib.crc32(packed) != crc:
        raise Corrupt("its checksum is wrong")
    try:
        return _zstd.unpacker.decompress(packed, max_output_size=_SIZE)
    except zstandard.ZstdError as error:
        raise Corrupt(f"it cannot be unpacked: {error}") from None
