"""Prometheus remote write 2.0: series whose labels are references into a table of symbols, which each request has anew.

References mean something else in every request, so they cannot be keys as they stand. Each symbol gets a number that
this process keeps (`Symbols`), all references of a request are translated at once as columns, and the numbers of a
series' labels are its key: labels become text only for a key that was never seen. A sender that tells the same series
again builds the same table again: for a table that was seen, references stand for keys that are known (`Tables`).
Samples are cut as in 1.0: a single one of the usual length is a row of a column, everything else is read field by
field.

Source: prometheus.io/docs/specs/prw/remote_write_spec_2_0 (2.0-rc.4), message io.prometheus.write.v2.Request.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64
from apps.metrics.protocols.protobuf import BYTES, FIXED64, VARINT, Malformed, encoded, fields, signed, varint
from apps.metrics.samples import NAME, ListedKeys, Meta, Samples

TYPES: Final = ("unknown", "counter", "gauge", "histogram", "unknown", "summary", "unknown", "unknown")
"""Our type by the number of `Metadata.MetricType`; gauge histograms, infos and state sets have none here."""
MOST_SYMBOLS: Final = 2_000_000
"""Texts that one process numbers; beyond it starts anew, with numbers that were never given."""
MOST_TABLES: Final = 256
MOST_PLACES: Final = 500_000
"""Tables that one process remembers, and series in all of them (some 100 bytes each); beyond it starts anew."""

_SYMBOL: Final = 0x22
_SERIES: Final = 0x2A
_SAMPLE: Final = 0x12
_METADATA: Final = 0x2A
_USUAL: Final = 18
"""Bytes of a sample field with a value and a time of six bytes: 0x12, 16, 0x09 and eight bytes, 0x10 and six bytes."""
_FIELDS: Final = np.dtype(
    {
        "names": ["size", "value_tag", "value", "time_tag", "time"],
        "formats": ["u1", "u1", "<f8", "u1", "<u8"],
        "offsets": [1, 2, 3, 11, 10],
        "itemsize": _USUAL,
    }
)
"""A usual sample; the last six bytes of `time` are the time's."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request holds: its samples, and how many histograms, exemplars and series without samples."""

    samples: Samples
    histograms: int = 0
    exemplars: int = 0
    empty: int = 0


class Symbols:
    """A number for each text that senders use; shared by the threads of a process. Numbers are never used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[bytes, int] = {}
        self._next = count(1)

    def numbers(self, symbols: Sequence[bytes]) -> NDArray[np.int32]:
        """The number int32[N] of each."""
        found = list(map(self._numbers.get, symbols))
        if None in found:
            with self._lock:
                if len(self._numbers) > MOST_SYMBOLS:
                    self._numbers = {}
                for place, symbol in enumerate(symbols):
                    found[place] = number = self._numbers.get(symbol)
                    if number is None:
                        found[place] = self._numbers[symbol] = next(self._next)
        return np.array(found, dtype=np.int32)


SYMBOLS: Final = Symbols()


@dataclass(slots=True)
class _Cut:
    """The series of a request: the bytes of their references, where a usual sample begins, and what is unusual.

    `odd` holds (index of the series, its samples) of those that are read field by field.
    """

    symbols: list[bytes]
    refs: list[bytes]
    samples: list[int]
    described: list[tuple[int, bytes]]
    odd: list[tuple[int, list[tuple[int, float]]]]
    histograms: int = 0
    exemplars: int = 0
    empty: int = 0


@dataclass(slots=True)
class Table:
    """What references into one table of symbols stand for: places in the list of keys, and what metrics are said to be.

    Shared by threads: what is in it never changes, and `meta` is exchanged, not written into.
    """

    places: dict[bytes, int]
    described: set[tuple[bytes, bytes]]
    meta: dict[str, Meta]


class Tables:
    """Tables of symbols that senders repeat, the ones used last at the end, and one list of keys that only grows."""

    def __init__(self, symbols: Symbols, most: int = MOST_PLACES) -> None:
        self._symbols = symbols
        self._most = most
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._listed: list[bytes] = []
        self._at: dict[bytes, int] = {}
        self._tables: OrderedDict[tuple[bytes, ...], Table] = OrderedDict()
        self._count = 0

    def read(self, cut: _Cut) -> tuple[list[bytes], Int64, dict[str, Meta]]:
        """(the list of keys, the place int64[N] of each series in it, what is said of metrics). Raises Malformed."""
        texts = tuple(cut.symbols)
        with self._lock:
            if self._count > self._most:
                self._clear()
            table = self._tables.setdefault(texts, Table({}, set(), {}))
            self._tables.move_to_end(texts)
            while len(self._tables) > MOST_TABLES:
                self._count -= len(self._tables.popitem(last=False)[1].places)
            listed, at = self._listed, self._at
        found = list(map(table.places.get, cut.refs))
        if None in found:
            new = [index for index, place in enumerate(found) if place is None]
            keys = _keys([cut.refs[index] for index in new], cut.symbols, self._symbols)
            with self._lock:
                for index, key in zip(new, keys, strict=True):
                    place = at.get(key)
                    if place is None:
                        place = at[key] = len(listed)
                        listed.append(key)
                    found[index] = table.places[cut.refs[index]] = place
                self._count += len(new)
        said = [(cut.refs[index], message) for index, message in cut.described]
        if not table.described.issuperset(said):
            meta = _meta(cut, [listed[place] for place in found if place is not None])
            with self._lock:
                table.described.update(said)
                table.meta = table.meta | meta
        return listed, np.array(found, dtype=np.int64), table.meta


TABLES: Final = Tables(SYMBOLS)


def decode(body: bytes, tables: Tables = TABLES) -> Request:
    """Read a Request. Raises Malformed."""
    cut = _cut(body)
    owner, ts, v = _columns(body, cut)
    listed, places, meta = tables.read(cut)
    own = owner.tolist()

    def labels_at(index: int) -> dict[str, str] | str:
        return _labels(cut.symbols, cut.refs[own[index]])

    keys = ListedKeys(listed, places[owner], {})
    return Request(Samples(keys, labels_at, ts, v, meta), cut.histograms, cut.exemplars, cut.empty)


def _cut(body: bytes) -> _Cut:
    cut = _Cut([], [], [], [], [])
    add_refs, add_sample, add_described = cut.refs.append, cut.samples.append, cut.described.append
    at, size = 0, len(body)
    try:
        while at < size:
            tag = body[at]
            if tag not in (_SERIES, _SYMBOL):
                at = _other(body, at)
                continue
            start = at + 2
            if (length := body[at + 1]) > 127:
                length, start = varint(body, at + 1)
            at = start + length
            if at > size:
                raise Malformed(f"a field of {length} bytes begins at byte {start} of {size}")
            if tag == _SYMBOL:
                cut.symbols.append(body[start:at])
                continue
            # The usual series: references, one sample of the usual length, metadata.
            if body[start : start + 1] == b"\x0a" and (many := body[start + 1]) < 128:
                sample = start + 2 + many
                end = sample + _USUAL
                if end <= at and body[sample] == _SAMPLE and body[sample + 1] == _USUAL - 2:
                    index = len(cut.refs)
                    if end == at:
                        add_refs(body[start + 2 : sample])
                        add_sample(sample)
                        continue
                    if body[end] == _METADATA and end + 2 + body[end + 1] == at:
                        add_refs(body[start + 2 : sample])
                        add_sample(sample)
                        add_described((index, body[end + 2 : at]))
                        continue
            _odd(body[start:at], cut)
    except IndexError:
        raise Malformed(f"a field is cut off at byte {size}") from None
    return cut


def _other(body: bytes, at: int) -> int:
    """Step over a field that is neither symbol nor series; return where the next one begins."""
    tag, start = varint(body, at)
    number, kind = tag >> 3, tag & 7
    if number in (1, 2, 3):
        raise Malformed("it is a message of remote write 1.0 (prometheus.WriteRequest), announced as one of 2.0")
    if number == 0 or number in (4, 5):
        raise Malformed(f"field {number} has wire type {kind} at byte {at}")
    if kind == VARINT:
        return varint(body, start)[1]
    if kind == BYTES:
        length, start = varint(body, start)
    elif kind in (1, 5):
        length = 8 if kind == FIXED64 else 4
    else:
        raise Malformed(f"wire type {kind} at byte {at}")
    if start + length > len(body):
        raise Malformed(f"a field of {length} bytes begins at byte {start} of {len(body)}")
    return start + length


def _odd(series: bytes, cut: _Cut) -> None:
    """Read one series field by field."""
    refs: list[bytes] = []
    samples: list[tuple[int, float]] = []
    histograms = 0
    index = len(cut.refs)
    for number, kind, value in fields(series):
        if number == 1 and kind == VARINT and isinstance(value, int):
            refs.append(encoded(value))
        elif number in (1, 2, 3, 4, 5) and (kind != BYTES or not isinstance(value, bytes)):
            raise Malformed(f"field {number} of a series has wire type {kind}")
        elif isinstance(value, bytes):
            match number:
                case 1:
                    refs.append(value)
                case 2:
                    samples.append(_sample(value))
                case 3:
                    histograms += 1
                case 4:
                    cut.exemplars += 1
                case 5:
                    cut.described.append((index, value))
    cut.histograms += histograms
    cut.empty += not samples and not histograms
    cut.refs.append(b"".join(refs))
    cut.samples.append(-1)
    cut.odd.append((index, samples))


def _sample(message: bytes) -> tuple[int, float]:
    ms, number = 0, 0.0
    for field, kind, value in fields(message):
        if field == 1 and kind == FIXED64 and isinstance(value, bytes):
            number = float(np.frombuffer(value, dtype="<f8")[0])
        elif field in (2, 3) and kind == VARINT and isinstance(value, int):
            ms = signed(value) if field == 2 else ms
        elif field in (1, 2, 3):
            raise Malformed(f"field {field} of a sample has wire type {kind}")
    return ms, number


def _columns(body: bytes, cut: _Cut) -> tuple[Int64, Int64, Float64]:
    """(series int64[N], ts int64[N], v float64[N]) of all samples: the usual ones first."""
    begins = np.array(cut.samples, dtype=np.int64)
    usual = np.flatnonzero(begins >= 0)
    padded = body + bytes(_USUAL)
    rows: NDArray[Any] = np.ndarray(len(body) + 1, dtype="V18", buffer=padded, strides=(1,))[begins[usual]].view(
        _FIELDS
    )
    time = rows["time"] >> np.uint64(16)
    whole = (rows["value_tag"] == 0x09) & (rows["time_tag"] == 0x10)
    whole &= time & np.uint64(0x8080_8080_8080) == np.uint64(0x0080_8080_8080)
    ts = np.zeros(len(time), dtype=np.uint64)
    for place in range(6):
        ts |= time >> np.uint64(place) & np.uint64(0x7F << 7 * place)
    v = rows["value"].astype(np.float64)
    more = [(index, *one) for index, found in cut.odd for one in found]
    for place in np.flatnonzero(~whole).tolist():
        begin = int(begins[usual[place]])
        more.append((int(usual[place]), *_sample(body[begin + 2 : begin + _USUAL])))
    if not more:
        return usual, ts.view(np.int64), v
    owners, times, values = zip(*more, strict=True)
    return (
        np.concatenate([usual[whole], np.array(owners, dtype=np.int64)]),
        np.concatenate([ts.view(np.int64)[whole], np.array(times, dtype=np.int64)]),
        np.concatenate([v[whole], np.array(values, dtype=np.float64)]),
    )


def _keys(listed: Sequence[bytes], texts: Sequence[bytes], symbols: Symbols) -> list[bytes]:
    """A key for each list of references. Keys begin with four zero bytes, which no number of a symbol does."""
    joined = np.frombuffer(b"".join(listed), dtype=np.uint8)
    lengths = np.array([len(refs) for refs in listed], dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    last = joined < 0x80
    if len(joined) and not last[np.maximum(bounds[1:] - 1, 0)][lengths > 0].all():
        raise Malformed("a list of label references is cut off")
    ends = np.flatnonzero(last)
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if len(ends) and int((ends - begins).max()) > 4:
        raise Malformed("a label reference has more than 32 bits")
    refs = np.zeros(len(ends), dtype=np.int64)
    for place in range(int((ends - begins).max()) + 1 if len(ends) else 0):
        there = begins + place <= ends
        refs[there] |= (joined[begins[there] + place].astype(np.int64) & 0x7F) << (7 * place)
    numbers = np.concatenate([symbols.numbers(texts), np.array([-1], dtype=np.int32)])
    refs[refs >= len(texts)] = len(texts)  # outside of the table: refused when its labels are read
    counts = np.searchsorted(ends, bounds[1:], "left") - np.searchsorted(ends, bounds[:-1], "left")
    starts = np.concatenate([[0], np.cumsum(counts + 1)])
    keyed = np.zeros(int(starts[-1]), dtype="<i4")
    places = np.ones(len(keyed), dtype=bool)
    places[starts[:-1]] = False
    keyed[places] = numbers[refs]
    whole = keyed.tobytes()
    edges = (starts * 4).tolist()
    return [whole[edges[n] : edges[n + 1]] for n in range(len(listed))]


def _numbers(refs: bytes) -> list[int]:
    found, at = [], 0
    while at < len(refs):
        number, at = varint(refs, at)
        found.append(number)
    return found


def _labels(symbols: Sequence[bytes], refs: bytes) -> dict[str, str] | str:
    """The labels that references stand for, or the reason to refuse them."""
    numbers = _numbers(refs)
    if len(numbers) % 2 or any(number >= len(symbols) for number in numbers):
        return "invalid_labels"
    found: dict[str, str] = {}
    try:
        texts = [symbols[number].decode() for number in numbers]
    except UnicodeDecodeError:
        return "invalid_value"
    for name, value in zip(texts[::2], texts[1::2], strict=True):
        if name in found:
            return "duplicate_label"
        found[name] = value
    return found


def _meta(cut: _Cut, keys: Sequence[bytes]) -> dict[str, Meta]:
    """Type, help and unit by name of metric; each pair of a name and a message is read once."""
    found: dict[str, Meta] = {}
    # The first label, which is the name in nearly every series, is told by eight bytes of its key.
    first = {(keys[index][4:12], message): index for index, message in cut.described}
    for (_, message), index in first.items():
        refs = cut.refs[index]
        labels = _labels(cut.symbols, refs)
        about = _about(message, cut.symbols)
        if not isinstance(labels, str) and labels.get(NAME) and about != Meta():
            found.setdefault(labels[NAME], about)
    return found


def _about(message: bytes, symbols: Sequence[bytes]) -> Meta:
    kind, texts = 0, {3: "", 4: ""}
    for field, wire, value in fields(message):
        if wire != VARINT or not isinstance(value, int):
            continue
        if field == 1:
            kind = value
        elif field in texts and value < len(symbols):
            texts[field] = symbols[value].decode(errors="replace")
    return Meta(TYPES[kind] if kind < len(TYPES) else "unknown", texts[3], texts[4])
