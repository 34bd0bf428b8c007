"""Prometheus remote write 1.0: protobuf becomes samples, without parsing the labels of known series.

Prometheus sends one sample a series, and its message ends in the same few bytes each time: tag, length, tag, eight
bytes of value, tag, six bytes of milliseconds; or, since zero is not written, without the value. So a series is cut
in two by looking at its end: what stands before is its key, and all ends of a request become two columns at once.
Where a request goes on in the order in which series were sent before (`order`), they are not even walked through.
Labels are parsed only for a key that this process has never seen, and a key that is not labels to its last byte shows
that the cut was wrong: then the whole series is read field by field, as is everything irregular. A key that parses
proves the cut, for fields follow each other from the beginning.

Source: prometheus.io/docs/specs/prw/remote_write_spec.
"""

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64
from apps.metrics.protocols.order import Order, Stretch
from apps.metrics.protocols.protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed, encoded, fields, signed, varint
from apps.metrics.samples import Meta, Samples

TYPES: Final = ("unknown", "counter", "gauge", "histogram", "unknown", "summary", "unknown", "unknown")
"""Our type by remote write's number of one; gauge histograms, infos and state sets have none here."""

_SERIES: Final = 0x0A
_LABEL: Final = 0x0A
_METADATA: Final = 0x1A
_NEXT: Final = (0x22, 0x2A)
"""Fields that only the message of remote write 2.0 has: skipped, a whole request would vanish without a word."""
_SAMPLE: Final = 0x12
_VALUE: Final = 0x09
_STAMP: Final = 0x10
_WITH_VALUE: Final = 18
"""Bytes of a sample field with a value: 0x12, 16, 0x09 and eight bytes, 0x10 and six bytes."""
_WITHOUT: Final = 9
"""Bytes of one whose value is zero: 0x12, 7, 0x10 and six bytes."""
_TAIL: Final = np.dtype(
    {
        "names": ["mark", "size", "field", "value", "zero_mark", "zero_size", "stamp", "time"],
        "formats": ["u1", "u1", "u1", "<f8", "u1", "u1", "u1", "<u8"],
        "offsets": [0, 1, 2, 3, 9, 10, 11, 10],
        "itemsize": _WITH_VALUE,
    }
)
"""The last bytes of a series, read both ways; the last six of `time` are the time's."""
_GOES_ON: Final = (np.uint64(0x8080_8080_8080), np.uint64(0x0080_8080_8080))
"""The bits of a time's six bytes that tell whether it goes on: all, and those that have to be set."""
_RUN: Final = 8
_BREAKS: Final = 16
"""A request in which the order tells fewer series at a time, after so many breaks, is walked through."""
ORDER: Final = Order()
"""The order of what is sent to this process."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request holds: its samples, and how many histograms and exemplars, which this store does not keep."""

    samples: Samples
    histograms: int = 0
    exemplars: int = 0


def decode(body: bytes, known: Container[Hashable] = (), order: Order = ORDER) -> Request:
    """Read a WriteRequest. `known` holds keys of which it is proven that they are labels. Raises Malformed."""
    cut = _cut(body, order)
    ts, v, regular = _tails(body, cut)
    for index, well in zip(cut.walked, regular[cut.walked].tolist(), strict=True):
        if well and (key := cut.keys[index]) not in known:
            regular[index] = labels_of(key) is not None
    order.note(body, _stretch(cut, regular), told=len(cut.keys) - len(cut.walked))
    keys, odd = cut.keys, np.flatnonzero(~regular)
    histograms = exemplars = 0
    if len(odd):
        keys = [keys[index] for index in np.flatnonzero(regular).tolist()]
        more_ts: list[int] = []
        more_v: list[float] = []
        for index in odd.tolist():
            _, start = varint(body, int(cut.begins[index]) + 1)
            key, samples, lost = _whole(body[start : cut.ends[index]])
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


def _stretch(cut: "_Cut", regular: NDArray[np.bool_]) -> Stretch:
    """The regular ones of those series that no order told."""
    own = np.array(cut.walked, dtype=np.int64)
    own = own[regular[own]]
    return Stretch([cut.keys[index] for index in own.tolist()], cut.begins[own], cut.ends[own], cut.form[own] == 1)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The series of a request, cut before their last sample, and the metadata messages.

    Of each: key, begin and end int64[N], form int64[N]: 1 where a value seems to stand at the end, 0 where none does,
    -1 where there is no room for a sample. `walked` are the numbers of those that no order told.
    """

    keys: list[bytes]
    begins: Int64
    ends: Int64
    form: Int64
    walked: list[int]
    metadata: list[bytes]


class _Pieces:
    """A cut in the making: stretches that the order told, and series between them, which are added to four lists."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.forms: list[int] = []
        self.metadata: list[bytes] = []
        self._whole: list[bytes] = []
        self._walked: list[int] = []
        self._parts: list[Int64] = []

    def add_stretch(self, found: Stretch) -> None:
        self._flush()
        self._whole += found.keys
        self._parts.append(np.stack([found.begins, found.ends, found.valued]))

    def _flush(self) -> None:
        if not self.keys:
            return
        count = len(self._whole)
        self._walked += range(count, count + len(self.keys))
        self._whole += self.keys
        self._parts.append(np.array([self.begins, self.ends, self.forms], dtype=np.int64))
        for column in (self.keys, self.begins, self.ends, self.forms):
            column.clear()

    def whole(self) -> _Cut:
        self._flush()
        begins, ends, form = np.concatenate([np.zeros((3, 0), dtype=np.int64), *self._parts], axis=1)
        return _Cut(self._whole, begins, ends, form, self._walked, self.metadata)


def _cut(body: bytes, order: Order) -> _Cut:
    pieces = _Pieces()
    add_key, add_begin, add_end = pieces.keys.append, pieces.begins.append, pieces.ends.append
    add_form = pieces.forms.append
    plain = np.frombuffer(body, dtype=np.uint8)
    tries = told = 0
    following = len(order) > 0
    at, size = 0, len(body)
    try:
        while at < size:
            if body[at] != _SERIES:
                at = _other(body, at, pieces.metadata)
                continue
            begin = at
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
            key = body[start : at - (_WITH_VALUE if valued else _WITHOUT)]
            if following:
                tries += 1
                if (found := order.follow(key, plain, begin)) is not None:
                    pieces.add_stretch(found)
                    at = int(found.ends[-1])
                    told += len(found.keys)
                    continue
                following = tries < _BREAKS or told >= _RUN * tries
            add_key(key)
            add_begin(begin)
            add_end(at)
            add_form(valued if length >= _WITHOUT else -1)
    except IndexError:
        raise Malformed(f"a series is cut off at byte {size}") from None
    return pieces.whole()


def _other(body: bytes, at: int, metadata: list[bytes]) -> int:
    """Step over a field that is no series, keeping metadata; return where the next one begins."""
    tag, start = varint(body, at)
    if tag in _NEXT:
        raise Malformed("it is a message of remote write 2.0 (io.prometheus.write.v2.Request), announced as one of 1.0")
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
    padded = bytes(_WITH_VALUE) + body
    tails: NDArray[Any] = np.ndarray(len(body) + 1, dtype="V18", buffer=padded, strides=(1,))[cut.ends].view(_TAIL)
    valued = (cut.form == 1) & (tails["size"] == _WITH_VALUE - 2) & (tails["field"] == _VALUE)
    zero = (cut.form == 0) & (tails["zero_mark"] == _SAMPLE) & (tails["zero_size"] == _WITHOUT - 2)
    time = tails["time"] >> np.uint64(16)
    stamped = (tails["stamp"] == _STAMP) & (time & _GOES_ON[0] == _GOES_ON[1])
    ts = np.zeros(len(time), dtype=np.uint64)
    for place in range(6):
        ts |= time >> np.uint64(place) & np.uint64(0x7F << 7 * place)
    return ts.view(np.int64), np.where(valued, tails["value"], 0.0), (valued | zero) & stamped


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
            key += [b"\x0a", encoded(len(value)), value]
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
            about = Meta(TYPES[number] if number < len(TYPES) else "unknown", texts[4], texts[5])
            found |= dict.fromkeys(of_family(texts[2], about.type), about)
    return found


def of_family(name: str, kind: str) -> list[str]:
    """The names of the series that a family of that name and type has.

    >>> of_family("x", "histogram"), of_family("x", "summary"), of_family("x", "gauge")
    (['x_bucket', 'x_sum', 'x_count'], ['x', 'x_sum', 'x_count'], ['x'])
    """
    if kind == "histogram":
        return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
    return [name, f"{name}_sum", f"{name}_count"] if kind == "summary" else [name]
