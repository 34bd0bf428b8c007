"""Prometheus remote write 1.0: a snappy block of protobuf becomes samples, without parsing the labels of known series.

Prometheus sends one sample a series, and its message ends in the same few bytes each time: tag, length, tag, eight
bytes of value, tag, six bytes of milliseconds; or, since zero is not written, without the value. So a series is cut
in two by looking at its end: what stands before is its key, and all ends of a request become two columns at once.
Labels are parsed only for a key that this process has never seen, and a key that is not labels to its last byte shows
that the cut was wrong: then the whole series is read field by field, as is everything irregular. A key that parses
proves the cut, for fields follow each other from the beginning.

Source: prometheus.io/docs/specs/prw/remote_write_spec.
"""

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import cramjam
import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64
from apps.metrics.protocols.protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed, fields, signed, varint
from apps.metrics.samples import Meta, Samples

MOST_BYTES: Final = 32_000_000
"""A request may unpack to this much; more is refused before it is unpacked."""
TYPES: Final = ("unknown", "counter", "gauge", "histogram", "unknown", "summary", "unknown", "unknown")
"""Our type by remote write's number of one; gauge histograms, infos and state sets have none here."""

_SERIES: Final = 0x0A
_LABEL: Final = 0x0A
_METADATA: Final = 0x1A
_SAMPLE: Final = 0x12
_VALUE: Final = 0x09
_STAMP: Final = 0x10
_WITH_VALUE: Final = 18
"""Bytes of a sample field with a value: 0x12, 16, 0x09 and eight bytes, 0x10 and six bytes."""
_WITHOUT: Final = 9
"""Bytes of one whose value is zero: 0x12, 7, 0x10 and six bytes."""
_SEVENS: Final = np.arange(0, 42, 7)


class TooLarge(Exception):
    """The request unpacks to more than the portal takes at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request holds: its samples, and how many histograms and exemplars, which this store does not keep."""

    samples: Samples
    histograms: int = 0
    exemplars: int = 0


def unpacked_size(packed: bytes) -> int:
    """How many bytes a snappy block says that it unpacks to. Raises Malformed, TooLarge."""
    try:
        size, _ = varint(packed, 0)
    except Malformed as error:
        raise Malformed(f"the body is no snappy block: {error}") from None
    if size > MOST_BYTES:
        raise TooLarge(f"The request unpacks to {size} bytes, more than the {MOST_BYTES} that are taken at once.")
    return size


def unpack(packed: bytes) -> bytes:
    """The protobuf in a snappy block. Raises Malformed, TooLarge."""
    unpacked_size(packed)
    try:
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError as error:
        raise Malformed(f"the body is no snappy block: {error}") from None


def decode(body: bytes, known: Container[Hashable] = ()) -> Request:
    """Read a WriteRequest. `known` holds keys of which it is proven that they are labels. Raises Malformed."""
    cut = _cut(body)
    ts, v, regular = _tails(body, cut)
    for index in [index for index, key in enumerate(cut.keys) if key not in known]:
        regular[index] = regular[index] and labels_of(cut.keys[index]) is not None
    keys, odd = cut.keys, np.flatnonzero(~regular)
    histograms = exemplars = 0
    if len(odd):
        keys = [keys[index] for index in np.flatnonzero(regular).tolist()]
        more_ts: list[int] = []
        more_v: list[float] = []
        for index in odd.tolist():
            key, samples, lost = _whole(body[cut.starts[index] : cut.ends[index]])
            histograms, exemplars = histograms + lost[0], exemplars + lost[1]
            keys += [key] * len(samples)
            more_ts += [at for at, _ in samples]
            more_v += [value for _, value in samples]
        ts = np.concatenate([ts[regular], np.array(more_ts, dtype=np.int64)])
        v = np.concatenate([v[regular], np.array(more_v, dtype=np.float64)])

    def labels_at(index: int) -> dict[str, str] | str:
        found = labels_of(keys[index])
        return "invalid_labels" if found is None else found

    return Request(Samples(keys, labels_at, ts, v, _described(cut.metadata)), histograms, exemplars)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The series of a request, cut before their last sample: key, begin and end of each; and the metadata messages."""

    keys: list[bytes]
    starts: list[int]
    ends: list[int]
    metadata: list[bytes]


def _cut(body: bytes) -> _Cut:
    keys: list[bytes] = []
    starts: list[int] = []
    ends: list[int] = []
    metadata: list[bytes] = []
    add_key, add_start, add_end = keys.append, starts.append, ends.append
    at, size = 0, len(body)
    try:
        while at < size:
            if body[at] != _SERIES:
                at = _other(body, at, metadata)
                continue
            length = body[at + 1]
            start = at + 2
            if length > 127:
                if body[start] > 127:
                    length, start = varint(body, at + 1)
                else:
                    length += (body[start] << 7) - 128
                    start += 1
            at = start + length
            if at > size:
                raise Malformed(f"a series of {length} bytes begins at byte {start} of {size}")
            valued = length >= _WITH_VALUE and body[at - _WITH_VALUE] == _SAMPLE
            add_key(body[start : at - (_WITH_VALUE if valued else _WITHOUT)])
            add_start(start)
            add_end(at)
    except IndexError:
        raise Malformed(f"a series is cut off at byte {size}") from None
    return _Cut(keys, starts, ends, metadata)


def _other(body: bytes, at: int, metadata: list[bytes]) -> int:
    """Step over a field that is no series, keeping metadata; return where the next one begins."""
    tag, start = varint(body, at)
    kind = tag & 7
    if kind == VARINT:
        return varint(body, start)[1]
    if kind == BYTES:
        length, start = varint(body, start)
    elif kind in (FIXED64, FIXED32):
        length = 8 if kind == FIXED64 else 4
    else:
        raise Malformed(f"wire type {kind} at byte {at}")
    end = start + length
    if end > len(body):
        raise Malformed(f"a field of {length} bytes begins at byte {start} of {len(body)}")
    if tag == _METADATA:
        metadata.append(body[start:end])
    return end


def _tails(body: bytes, cut: _Cut) -> tuple[Int64, Float64, NDArray[np.bool_]]:
    """(ts int64[N], v float64[N], which of the N series end in a sample of the usual form)."""
    ends = np.array(cut.ends, dtype=np.int64)
    length = ends - np.array(cut.starts, dtype=np.int64)
    padded = np.frombuffer(bytes(_WITH_VALUE) + body, dtype=np.uint8)
    tail = padded[ends[:, None] + np.arange(_WITH_VALUE)]
    stamp = tail[:, 12:]
    marked = (length >= _WITH_VALUE) & (tail[:, 0] == _SAMPLE)
    valued = marked & (tail[:, 1] == _WITH_VALUE - 2) & (tail[:, 2] == _VALUE)
    zero = ~marked & (length >= _WITHOUT) & (tail[:, 9] == _SAMPLE) & (tail[:, 10] == _WITHOUT - 2)
    stamped = (tail[:, 11] == _STAMP) & (stamp[:, :5] > 0x7F).all(axis=1) & (stamp[:, 5] < 0x80)
    ts = ((stamp & 0x7F).astype(np.int64) << _SEVENS).sum(axis=1)
    v = np.ascontiguousarray(tail[:, 3:11]).view("<f8")[:, 0]
    return ts, np.where(valued, v, 0.0), (valued | zero) & stamped


def _whole(series: bytes) -> tuple[bytes, list[tuple[int, float]], tuple[int, int]]:
    """(key, its samples as (ms, value), (histograms, exemplars)) of a series that is read field by field."""
    key: list[bytes] = []
    samples: list[tuple[int, float]] = []
    lost = [0, 0]
    for number, kind, value in fields(series):
        if number not in (1, 2, 3, 4):
            continue
        if kind != BYTES or not isinstance(value, bytes):
            raise Malformed(f"field {number} of a series has wire type {kind}")
        if number == 1:
            key += [b"\x0a", _length(len(value)), value]
        elif number == 2:
            samples.append(_sample(value))
        else:
            lost[4 - number] += 1
    return b"".join(key), samples, (lost[0], lost[1])


def _sample(message: bytes) -> tuple[int, float]:
    ms, number = 0, 0.0
    for field, kind, value in fields(message):
        if field == 1 and kind == FIXED64 and isinstance(value, bytes):
            number = float(np.frombuffer(value, dtype="<f8")[0])
        elif field == 2 and kind == VARINT and isinstance(value, int):
            ms = signed(value)
        elif field in (1, 2):
            raise Malformed(f"field {field} of a sample has wire type {kind}")
    return ms, number


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def labels_of(key: bytes) -> dict[str, str] | str | None:
    """The labels that a key holds; None where it is not labels to its last byte, and a reason to refuse them."""
    usual = _usual_labels(key)
    return _any_labels(key) if usual is None else usual


def _any_labels(key: bytes) -> dict[str, str] | str | None:
    """The same, field by field."""
    found: dict[str, str] = {}
    try:
        for number, kind, value in fields(key):
            if number != 1 or kind != BYTES or not isinstance(value, bytes):
                return None
            pair = {field: text for field, wire, text in fields(value) if wire == BYTES and field in (1, 2)}
            name, text = (bytes(pair.get(field, b"")).decode() for field in (1, 2))
            if name in found:
                return "duplicate_label"
            found[name] = text
    except Malformed:
        return None
    except UnicodeDecodeError:
        return "invalid_value"
    return found


def _usual_labels(key: bytes) -> dict[str, str] | None:
    """The labels of a key as senders write nearly all: name before value, both short; None: to be read by the rules.

    A new series costs what its labels cost to read: this is five times as fast.
    """
    found: dict[str, str] = {}
    at, size = 0, len(key)
    try:
        while at < size:
            end = at + 2 + key[at + 1]
            middle = at + 4 + key[at + 3]
            if not (
                key[at] == _LABEL
                and key[at + 1] <= 0x7F
                and key[at + 2] == 0x0A
                and key[at + 3] <= 0x7F
                and key[middle] == 0x12
                and key[middle + 1] <= 0x7F
                and middle + 2 + key[middle + 1] == end <= size
            ):
                return None
            name = key[at + 4 : middle].decode()
            if name in found:
                return None
            found[name] = key[middle + 2 : end].decode()
            at = end
    except (IndexError, UnicodeDecodeError):
        return None
    return found


def _described(messages: Sequence[bytes]) -> dict[str, Meta]:
    """Type, help and unit of each metric of which the request tells something."""
    found: dict[str, Meta] = {}
    for message in messages:
        number = 0
        texts = {2: "", 4: "", 5: ""}
        for field, kind, value in fields(message):
            if field == 1 and kind == VARINT and isinstance(value, int):
                number = value
            elif field in texts and kind == BYTES and isinstance(value, bytes):
                texts[field] = value.decode(errors="replace")
        if texts[2]:
            found[texts[2]] = Meta(TYPES[number] if number < len(TYPES) else "unknown", texts[4], texts[5])
    return found
