"""Bytes of samples: batches (the append log) and blocks (what compaction makes of it). Pure; knows no database.

The only module that reaches zstandard and pcodec. Everything starts with the same eight bytes: codec version, kind,
key id (0: not encrypted) and a crc32. pcodec itself has no checksum and most flipped bytes decode to wrong
numbers, so whoever decodes checks first and raises `Corrupt`.

A block is a directory and a payload. The payload is chunks, each the values of at most 16 series of one metric,
pcodec over their concatenation; after the chunks follow, in one stream, the intervals of those timestamp vectors
that are not regular. The directory tells which series is where; equal timestamp vectors are kept once, and a regular
one is (start, step, n) without any bytes.
"""

import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, ClassVar, Final
from weakref import WeakValueDictionary

import numpy as np
import zstandard
from numpy.typing import NDArray
from pcodec import ChunkConfig
from pcodec.standalone import simple_compress, simple_decompress_into

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]
UInt64 = NDArray[np.uint64]

VERSION: Final = 1
BATCH: Final = 1
BLOCK: Final = 2
CHUNK_SERIES: Final = 16
LEVELS: Final = (4, 8)
"""pcodec's level for blocks of level 0 and 1."""
FEW: Final = 64
"""Up to so many series are cut one by one, more of them by looking at every sample."""
MAX_SAMPLES: Final = 1 << 28
"""Larger counts in a header mean damage, not data."""

HEADER: Final = struct.Struct("<BBHI")
BATCH_HEAD: Final = struct.Struct("<QqqBB")
BLOCK_HEAD: Final = struct.Struct("<IIIB")
WIDE: Final = (np.dtype("<i4"), np.dtype("<i8"))
NARROW: Final = 2**31 - 1


class Corrupt(Exception):
    """Stored bytes that are not what was written; the text says what is wrong with them."""


class _Contexts(threading.local):
    """zstandard contexts are not thread-safe: one pair a thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Contexts()


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Samples as three columns of one length: series int64[N] ids, ts int64[N] ms, v float64[N].

    As decoded from a batch they are sorted by series and time; of equal (series, ts) the last one counts.
    rank int64[N], where samples of several batches are together, tells them apart: the higher one wins.
    """

    series: Int64
    ts: Int64
    v: Float64
    rank: Int64 | None = None

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def nbytes(self) -> int:
        return self.series.nbytes + self.ts.nbytes + self.v.nbytes


class Sorted:
    """Columns sorted by series and time, and what readers look up in them again and again.

    series int64[S] ids, each once; its samples are off[i]:off[i + 1] of int64[S + 1]; all within t_min..t_max.
    """

    __slots__ = ("_sums", "columns", "off", "series", "t_max", "t_min")

    def __init__(self, columns: Columns) -> None:
        """At least one sample."""
        first = np.flatnonzero(np.append(True, columns.series[1:] != columns.series[:-1]))
        self.columns = columns
        self.series = columns.series[first]
        self.off = np.append(first, len(columns))
        self.t_min, self.t_max = int(columns.ts.min()), int(columns.ts.max())
        self._sums: tuple[int, UInt64] | None = None

    def cut(self, chosen: Int64, tmin: int, tmax: int) -> tuple[Int64, Int64]:
        """(first int64[k], past the last int64[k]) of the samples of these series with tmin < ts <= tmax."""
        lo, hi = self.off[chosen], self.off[chosen + 1]
        if tmin < self.t_min and self.t_max <= tmax:
            return lo, hi
        ts = self.columns.ts
        if len(chosen) <= FEW:
            spans = list(zip(lo.tolist(), hi.tolist(), strict=True))
            starts = [begin + int(ts[begin:end].searchsorted(tmin, "right")) for begin, end in spans]
            stops = [begin + int(ts[begin:end].searchsorted(tmax, "right")) for begin, end in spans]
            return np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64)
        early = np.add.reduceat((ts <= tmin).view(np.int8), self.off[:-1], dtype=np.int64)[chosen]
        late = np.add.reduceat((ts > tmax).view(np.int8), self.off[:-1], dtype=np.int64)[chosen]
        return lo + early, np.maximum(lo + early, hi - late)

    def hashes(self, lo: Int64, hi: Int64, salt: int) -> UInt64:
        """uint64[k]: `vector_hashes` of the stretches lo:hi of the timestamps; the sums behind them are kept."""
        held = self._sums
        if held is None or held[0] != salt:
            held = self._sums = (salt, _running(self.columns.ts, salt))
        found: UInt64 = held[1][hi] - held[1][lo]
        return found


def in_order(series: Int64, ts: Int64) -> bool:
    """Whether the samples are sorted by series, then time (equal ones allowed)."""
    step = series[1:] - series[:-1]
    if len(step) == 0 or int(step.min()) > 0:
        return True
    if int(step.min()) < 0:
        return False
    return not bool(((step == 0) & (ts[1:] < ts[:-1])).any())


def stable_order(major: Int64, minor: Int64) -> Int64:
    """Numbers of the samples sorted by major, then minor, then position.

    All three are packed into one integer where they fit (nearly always): sorting plain integers is five times as
    fast as sorting an index.
    """
    low, first = int(major.min()), int(minor.min())
    number_bits = max(len(major) - 1, 1).bit_length()
    minor_bits = max(int(minor.max()) - first, 1).bit_length()
    if number_bits + minor_bits + max(int(major.max()) - low, 1).bit_length() > 62:
        return np.lexsort((minor, major))
    keys = (major - low) << minor_bits
    keys |= minor - first
    keys <<= number_bits
    keys |= np.arange(len(major))
    keys.sort()
    keys &= (1 << number_bits) - 1
    return keys


def sort_columns(columns: Columns) -> Columns:
    """Sorted by series and time, keeping the order of arrival among equals."""
    if in_order(columns.series, columns.ts):
        return columns
    order = stable_order(columns.series, columns.ts)
    return Columns(columns.series[order], columns.ts[order], columns.v[order])


# --- Batches --------------------------------------------------------------------------------------------------------


def _deltas(column: Int64) -> tuple[int, NDArray[Any]]:
    """(width index, differences with a leading 0) in the narrowest type that holds them."""
    deltas = np.empty(len(column), dtype=np.int64)
    deltas[:1] = 0
    np.subtract(column[1:], column[:-1], out=deltas[1:])
    wide = int(len(deltas) > 0 and max(int(deltas.max()), -int(deltas.min())) > NARROW)
    return wide, deltas.astype(WIDE[wide])


def encode_batch(columns: Columns) -> bytes:
    """One row of the append log; sorts by (series, time) first. About 0.03 CPU-seconds a million samples."""
    columns = sort_columns(columns)
    count = len(columns)
    if not count:
        raise ValueError("A batch needs at least one sample.")
    wide_series, series = _deltas(columns.series)
    wide_ts, ts = _deltas(columns.ts)
    head = BATCH_HEAD.pack(count, int(columns.series[0]), int(columns.ts[0]), wide_series, wide_ts)
    values = np.ascontiguousarray(columns.v, dtype="<f8")
    body: bytes = _zstd.compressor.compress(b"".join((head, series.tobytes(), ts.tobytes(), values.tobytes())))
    return HEADER.pack(VERSION, BATCH, 0, zlib.crc32(body)) + body


def _checked(data: bytes, kind: int) -> bytes:
    if len(data) < HEADER.size:
        raise Corrupt(f"{len(data)} bytes are shorter than the header")
    version, found, key, crc = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if crc != zlib.crc32(body):
        raise Corrupt("checksum mismatch")
    if version != VERSION:
        raise Corrupt(f"codec version {version}; this release reads {VERSION}")
    if found != kind or key != 0:
        raise Corrupt(f"kind {found} under key {key} where kind {kind} in the clear was expected")
    return body


def decode_batch(data: bytes) -> Columns:
    """The samples of `encode_batch`, sorted by (series, time); raises Corrupt."""
    plain, count = _opened(data)
    columns = empty_columns(count)
    _decode_into(plain, columns)
    return columns


def decode_batches(rows: Sequence[bytes]) -> tuple[Columns, list[int | str]]:
    """(the samples of all sound rows one after the other; of each row its number of samples, or what is wrong)."""
    opened = []
    counts: list[int | str] = []
    for data in rows:
        try:
            plain, count = _opened(data)
        except Corrupt as error:
            counts.append(str(error))
        else:
            counts.append(count)
            opened.append((plain, count))
    columns = empty_columns(sum(count for _, count in opened))
    at = 0
    for plain, count in opened:
        part = slice(at, at + count)
        _decode_into(plain, Columns(columns.series[part], columns.ts[part], columns.v[part]))
        at += count
    return columns, counts


def empty_columns(count: int) -> Columns:
    """Columns for `count` samples, not yet filled."""
    return Columns(np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64), np.empty(count))


def _opened(data: bytes) -> tuple[bytes, int]:
    """(decompressed batch, its number of samples), everything about it checked."""
    body = _checked(data, BATCH)
    try:
        plain: bytes = _zstd.decompressor.decompress(body)
        count, _, _, wide_series, wide_ts = BATCH_HEAD.unpack_from(plain)
        sample = WIDE[wide_series].itemsize + WIDE[wide_ts].itemsize + 8
    except (zstandard.ZstdError, struct.error, IndexError) as error:
        raise Corrupt(str(error)) from error
    if not 0 < count <= MAX_SAMPLES or len(plain) != BATCH_HEAD.size + count * sample:
        raise Corrupt(f"{len(plain)} bytes for {count} samples")
    return plain, count


def _decode_into(plain: bytes, out: Columns) -> None:
    count, series0, ts0, wide_series, wide_ts = BATCH_HEAD.unpack_from(plain)
    at = BATCH_HEAD.size
    for first, width, column in ((series0, WIDE[wide_series], out.series), (ts0, WIDE[wide_ts], out.ts)):
        np.cumsum(np.frombuffer(plain, width, count, at), out=column)
        np.add(column, first, out=column)
        at += count * width.itemsize
    out.v[:] = np.frombuffer(plain, "<f8", count, at)


# --- Blocks ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _config(level: int) -> ChunkConfig:
    return ChunkConfig(compression_level=level)


def _mixed(ts: Int64, salt: int) -> UInt64:
    """uint64[N]: a well-spread number for each timestamp (the finalizer of splitmix64)."""
    x: UInt64 = ts.view(np.uint64) + np.uint64(salt)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _running(ts: Int64, salt: int) -> UInt64:
    """uint64[N + 1]: the hash of the first n timestamps."""
    sums = np.zeros(len(ts) + 1, dtype=np.uint64)
    np.cumsum(_mixed(ts, salt), out=sums[1:])
    return sums


def vector_hashes(ts: Int64, off: Int64, salt: int = 0x9E3779B97F4A7C15) -> UInt64:
    """uint64[S]: equal for equal timestamp vectors, whose hash is the sum over their samples.

    So the hash of a vector that is stored in several places is the sum of its parts, and hashing the distinct vectors
    of a block suffices. Empty vectors hash to 0.
    """
    out = np.zeros(len(off) - 1, dtype=np.uint64)
    some = np.flatnonzero(off[1:] > off[:-1])
    if len(some):
        out[some] = np.add.reduceat(_mixed(ts, salt), off[:-1][some])
    return out


@dataclass(frozen=True, slots=True)
class Encoded:
    """A block's two byte strings and the crc32 over both."""

    directory: bytes
    payload: bytes
    crc: int


def crc_of(directory: bytes, payload: bytes) -> int:
    """The checksum of a block row."""
    return zlib.crc32(payload, zlib.crc32(directory))


def encode_block(metric: Int32, series: Int64, off: Int64, ts: Int64, v: Float64, level: int) -> Encoded:
    """A block of S series: metric int32[S] (equal ones adjacent), series int64[S], sample offsets int64[S + 1].

    Within a series ts (ms) must increase strictly, no series may be empty. `level` is the block's (0 or 1).
    """
    counts = np.diff(off)
    if not len(counts) or int(counts.min()) < 1:
        raise ValueError("A block needs series, and each of them a sample.")
    config = _config(LEVELS[level])
    owner, vectors = _distinct_vectors(ts, off, counts)
    vec_counts = counts[vectors]
    vec_off = np.zeros(len(vectors) + 1, dtype=np.int64)
    np.cumsum(vec_counts, out=vec_off[1:])
    vec_ts = _gathered(ts, off[vectors], vec_off)
    start = vec_ts[vec_off[:-1]]
    step, irregular = _regularity(vec_ts, vec_off)

    cuts = _chunk_cuts(metric)
    chunk_lengths = []
    parts = []
    values = np.ascontiguousarray(v, dtype=np.float64)
    edges = off[cuts].tolist()
    for begin, end in pairwise(edges):
        part = simple_compress(values[begin:end], config)
        parts.append(part)
        chunk_lengths.append(len(part))
    if len(irregular):
        parts.append(simple_compress(irregular, config))
    payload = b"".join(parts)

    body = b"".join(
        (
            BLOCK_HEAD.pack(len(series), len(cuts) - 1, len(vectors), int(len(irregular) > 0)),
            metric[cuts[:-1]].astype("<i4").tobytes(),
            np.diff(cuts).astype("u1").tobytes(),
            np.array(chunk_lengths, dtype="<u4").tobytes(),
            np.diff(series, prepend=0).astype("<i8").tobytes(),
            owner.astype("<u4").tobytes(),
            vec_counts.astype("<u4").tobytes(),
            start.astype("<i8").tobytes(),
            step.astype("<i8").tobytes(),
        )
    )
    packed: bytes = _zstd.compressor.compress(body)
    directory = HEADER.pack(VERSION, BLOCK, 0, zlib.crc32(packed)) + packed
    return Encoded(directory, payload, crc_of(directory, payload))


def _gathered(ts: Int64, starts: Int64, new_off: Int64) -> Int64:
    """The runs beginning at `starts`, one after the other, with lengths as in `new_off`."""
    counts = np.diff(new_off)
    index = np.arange(new_off[-1], dtype=np.int64) + np.repeat(starts - new_off[:-1], counts)
    found: Int64 = ts[index]
    return found


def _distinct_vectors(ts: Int64, off: Int64, counts: Int64) -> tuple[Int64, Int64]:
    """(owner int64[S]: number of each series' vector, vectors int64[T]: a series that has it).

    Hashes only propose: a series whose timestamps differ from its proposed vector's keeps a vector of its own.
    """
    hashes = vector_hashes(ts, off)
    _, first, owner = np.unique(hashes, return_index=True, return_inverse=True)
    vectors = first.astype(np.int64)
    owner = owner.astype(np.int64)
    odd = counts[vectors[owner]] != counts
    alike = np.flatnonzero(~odd)
    new_off = np.zeros(len(alike) + 1, dtype=np.int64)
    np.cumsum(counts[alike], out=new_off[1:])
    differs = _gathered(ts, off[alike], new_off) != _gathered(ts, off[vectors[owner[alike]]], new_off)
    odd[alike] |= np.logical_or.reduceat(differs, new_off[:-1])
    strangers = np.flatnonzero(odd)
    owner[strangers] = len(vectors) + np.arange(len(strangers))
    return owner, np.concatenate([vectors, strangers])


def _regularity(ts: Int64, off: Int64) -> tuple[Int64, Int64]:
    """(step int64[T] ms, -1 where the intervals of a vector differ; those vectors' intervals one after the other)."""
    counts = np.diff(off)
    step = np.zeros(len(counts), dtype=np.int64)
    longer = np.flatnonzero(counts > 1)
    if not len(longer):
        return step, np.zeros(0, dtype=np.int64)
    gaps = np.diff(ts)
    step[longer] = gaps[off[:-1][longer]]
    expected = np.repeat(step, counts)[:-1]
    inside = np.ones(len(gaps), dtype=np.bool_)
    inside[off[1:-1] - 1] = False
    uneven = inside & (gaps != expected)
    bad = np.zeros(len(counts), dtype=np.bool_)
    bad[longer] = np.logical_or.reduceat(np.append(uneven, False), off[:-1])[longer]
    step[bad] = -1
    return step, gaps[inside & np.repeat(bad, counts)[:-1]]


def _chunk_cuts(metric: Int32) -> Int64:
    """int64[C + 1]: series numbers where chunks begin, at most 16 series of one metric in each."""
    size = len(metric)
    runs = np.concatenate([[0], np.flatnonzero(metric[1:] != metric[:-1]) + 1, [size]]).astype(np.int64)
    cuts = [np.arange(begin, end, CHUNK_SERIES) for begin, end in pairwise(runs.tolist())]
    return np.concatenate([*cuts, np.array([size])]).astype(np.int64)


class Vectors:
    """The distinct timestamp vectors of a block, one after the other: times int64[...] at off int64[T + 1].

    All are within t_min..t_max. Blocks of one window hold the same vectors wherever the same targets are scraped:
    `Vectors.of` gives equal ones the same object, for together they would need more memory than the payloads.
    """

    __slots__ = ("__weakref__", "_sums", "nbytes", "off", "t_max", "t_min", "times")
    _known: ClassVar["WeakValueDictionary[bytes, Vectors]"] = WeakValueDictionary()

    def __init__(self, times: Int64, off: Int64) -> None:
        self.times = times
        self.off = off
        self.t_min, self.t_max = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        self._sums: tuple[int, UInt64] | None = None
        self.nbytes = 2 * times.nbytes + off.nbytes

    @classmethod
    def of(cls, counts: Int64, start: Int64, step: Int64, gaps: Int64) -> "Vectors":
        """Vectors of counts int64[T] instants from start int64[T] every step int64[T] ms.

        Where step is negative, `gaps` holds the intervals, those of all such vectors one after the other.
        """
        described = (counts, start, step, gaps)
        key = blake2b(b"".join(part.tobytes() for part in described), digest_size=16).digest()
        found = cls._known.get(key)
        return cls._known.setdefault(key, cls._expanded(*described)) if found is None else found

    @classmethod
    def _expanded(cls, counts: Int64, start: Int64, step: Int64, stored: Int64) -> "Vectors":
        off = offsets(counts)
        gaps = np.repeat(np.maximum(step, 0), counts)
        if len(stored):
            uneven = np.repeat(step < 0, counts)
            uneven[off[:-1]] = False
            gaps[uneven] = stored
        # A running sum over all vectors, set to each vector's start at its first sample.
        gaps[off[:-1]] = 0
        total = np.cumsum(gaps)
        total += np.repeat(start - total[off[:-1]], counts)
        return cls(total, off)

    def cut(self, tmin: int, tmax: int) -> tuple[Int64, Int64]:
        """(first int64[T], past the last int64[T]) in `times` of each vector's instants with tmin < ts <= tmax."""
        starts, ends = self.off[:-1], self.off[1:]
        lo, hi = starts, ends
        if self.t_min <= tmin:
            lo = starts + np.add.reduceat((self.times <= tmin).view(np.int8), starts, dtype=np.int64)
        if self.t_max > tmax:
            hi = np.maximum(lo, ends - np.add.reduceat((self.times > tmax).view(np.int8), starts, dtype=np.int64))
        return lo, hi

    def hashes(self, lo: Int64, hi: Int64, salt: int) -> UInt64:
        """uint64[n]: `vector_hashes` of the stretches lo:hi of `times`; the sums behind them are kept."""
        held = self._sums
        if held is None or held[0] != salt:
            held = self._sums = (salt, _running(self.times, salt))
        found: UInt64 = held[1][hi] - held[1][lo]
        return found


class View:
    """A block row held for reading: parsed directory, payload as stored.

    metric int32[S], series int64[S], vec int32[S] (number of its timestamp vector), counts int64[S], chunk int32[S].
    """

    __slots__ = (
        "chunk",
        "chunk_at",
        "chunk_off",
        "counts",
        "metric",
        "nbytes",
        "off",
        "payload",
        "series",
        "vec",
        "vectors",
    )

    def __init__(self, directory: bytes, payload: bytes, crc: int) -> None:
        """Raises Corrupt when the checksum, the version or any size does not fit."""
        if crc_of(directory, payload) != crc:
            raise Corrupt("checksum mismatch")
        body = _checked(directory, BLOCK)
        try:
            self._parse(_zstd.decompressor.decompress(body), payload)
        except (zstandard.ZstdError, struct.error, ValueError, RuntimeError, IndexError) as error:
            raise Corrupt(str(error)) from error

    def _parse(self, plain: bytes, payload: bytes) -> None:
        size, chunks, vectors, has_irregular = BLOCK_HEAD.unpack_from(plain)
        at = BLOCK_HEAD.size

        def column(dtype: str, count: int) -> NDArray[Any]:
            nonlocal at
            found: NDArray[Any] = np.frombuffer(plain, dtype, count, at)
            at += found.nbytes
            return found

        chunk_metric = column("<i4", chunks)
        chunk_size = column("u1", chunks).astype(np.int64)
        chunk_length = column("<u4", chunks).astype(np.int64)
        self.series = np.cumsum(column("<i8", size))
        self.vec = column("<u4", size).astype(np.int32)
        vec_counts = column("<u4", vectors).astype(np.int64)
        start = column("<i8", vectors)
        step = column("<i8", vectors)
        if at != len(plain) or int(chunk_size.sum()) != size:
            raise Corrupt(f"directory of {len(plain)} bytes for {size} series in {chunks} chunks")
        self.metric = np.repeat(chunk_metric, chunk_size)
        self.chunk = np.repeat(np.arange(chunks, dtype=np.int32), chunk_size)
        self.chunk_off = offsets(chunk_size)
        self.chunk_at = offsets(chunk_length)
        self.counts = vec_counts[self.vec]
        self.off = offsets(self.counts)
        self.payload = payload
        irregular = np.zeros(0, dtype=np.int64)
        if has_irregular:
            irregular = np.empty(int((vec_counts - 1)[step < 0].sum()), dtype=np.int64)
            _decompress(payload[int(self.chunk_at[-1]) :], irregular)
        self.vectors = Vectors.of(vec_counts, start, step, irregular)
        self.nbytes = len(payload) + 64 * size

    def values(self, chunk: int, out: Float64) -> None:
        """Decode one chunk, all its series one after the other, into `out` of exactly their samples."""
        _decompress(self.payload[int(self.chunk_at[chunk]) : int(self.chunk_at[chunk + 1])], out)


def _decompress(data: bytes, out: NDArray[Any]) -> None:
    try:
        done = simple_decompress_into(data, out)
    except (RuntimeError, TypeError) as error:
        raise Corrupt(str(error)) from error
    if done.n_processed != len(out):
        raise Corrupt(f"{done.n_processed} numbers where {len(out)} were stored")


def offsets(counts: Int64) -> Int64:
    """int64[n + 1] from n sizes."""
    off = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=off[1:])
    return off
