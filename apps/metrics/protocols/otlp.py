"""OTLP metrics: a protobuf ExportMetricsServiceRequest becomes samples, without parsing attributes of known series.

A data point of a gauge or a sum begins, as every SDK writes it, with the same 27 bytes: start, time and value, each of
eight bytes; what follows are its attributes. So a point is cut in two by looking at its beginning: all beginnings of a
request become columns at once, and what follows is the key of its series, together with a number for resource, scope
and metric (`Contexts`). Attributes are parsed for a key that was never seen, and bytes that are not attributes to
their last one show that the cut was wrong: then the whole point is read field by field, as is everything irregular.
Histograms are cut the same way, and their buckets become rows of a matrix.

What is refused is counted by data point, as the protocol's partial success wants it. JSON is turned into protobuf
before (`otlp_json`), so that there is one reading of both.

Sources: opentelemetry.io/docs/specs/otlp (1.x), opentelemetry-proto's metrics.proto, names by `otlp_names`.
"""

import struct
import threading
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Container, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64
from apps.metrics.protocols.otlp_attributes import Resource, attributes, resource_of, scope_labels
from apps.metrics.protocols.otlp_names import labels_of, metric_name
from apps.metrics.protocols.protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed, encoded, fields, varint
from apps.metrics.samples import NAME, Meta, Samples
from apps.promql.series import STALE

DELTA, CUMULATIVE = 1, 2
"""Temporalities, as OTLP numbers them."""
GAUGE: Final = 0
NO_VALUE: Final = 1
"""The flag of a data point that says: there is nothing recorded any more."""
MOST_CONTEXTS: Final = 200_000
"""Resources with scope and metric that one process numbers; beyond it starts anew."""
MOST_RESOURCES: Final = 2_000
MS: Final = 1_000_000
"""Nanoseconds."""

_HEAD: Final = np.dtype(
    {
        "names": [
            "first",
            "start",
            "second",
            "time",
            "third",
            "double",
            "whole",
            "early",
            "early_double",
            "early_whole",
        ],
        "formats": ["u1", "<i8", "u1", "<i8", "u1", "<f8", "<i8", "u1", "<f8", "<i8"],
        "offsets": [0, 1, 9, 10, 18, 19, 19, 9, 10, 10],
        "itemsize": 27,
    }
)
"""The beginning of a number's data point, with a start and without one (then time is in `start`, and value early)."""
_WITH_START: Final = 27
_WITHOUT: Final = 18
_HISTOGRAM: Final = struct.Struct("<BqBqBQBd")
_TAGS: Final = (0x11, 0x19, 0x21, 0x29)

Key: TypeAlias = tuple[Any, ...]
"""(context, bytes of the attributes), and which part of a histogram or a summary it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request holds: N samples of P data points.

    owner int64[N] is the point that a sample belongs to (-1: it was made here, as target_info is); starts and ends
    int64[N] in ns (start 0: unknown); delta bool[N]: the value is what was added between start and end, and counts
    bool[N]: it goes on counting from start. `refused` are data points that could not be read, by reason; `names` the
    metrics whose kind is not taken; `senders` the bytes of resource and scope by context.
    """

    samples: Samples
    owner: Int64
    starts: Int64
    ends: Int64
    delta: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    points: int
    refused: Tally[str]
    names: tuple[str, ...]
    senders: Mapping[int, bytes]

    def sender(self, index: int) -> bytes:
        """The resource and scope that a sample comes from, as bytes."""
        return self.senders[self.samples.keys[index][0]]  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class _Metric:
    """What a context stands for. `bounds` of a histogram's buckets, `quantiles` of a summary."""

    name: str
    labels: Mapping[str, str]
    edges: tuple[float, ...] = ()
    form: str = "number"
    sender: bytes = b""


class Contexts:
    """A number for each resource, scope and metric that is sent; shared by threads, never used twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Hashable, int] = {}
        self._next = count(1)
        self._resources: OrderedDict[bytes, Resource] = OrderedDict()

    def number(self, key: Hashable) -> int:
        """The number of that context."""
        if (found := self._numbers.get(key)) is not None:
            return found
        with self._lock:
            if len(self._numbers) >= MOST_CONTEXTS:
                self._numbers = {}
            return self._numbers.setdefault(key, next(self._next))

    def resource(self, message: bytes) -> Resource:
        """What the attributes of a Resource message say. Raises Malformed."""
        with self._lock:
            found = self._resources.get(message)
        if found is None:
            found = resource_of(message)
            with self._lock:
                self._resources[message] = found
                while len(self._resources) > MOST_RESOURCES:
                    self._resources.popitem(last=False)
        return found


CONTEXTS: Final = Contexts()


@dataclass(slots=True)
class _Reading:
    """A request in the making: number points by where they begin, all other samples in columns of their own."""

    body: bytes
    contexts: Contexts
    metrics: dict[int, _Metric] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    kinds: list[tuple[int, int, bool]] = field(default_factory=list)
    """(number of points so far, temporality, whether it counts) at the end of each metric of number points."""
    more_keys: list[Key] = field(default_factory=list)
    more: list[tuple[Float64, Int64, Int64, Int64, int, bool]] = field(default_factory=list)
    """(values, owners, starts, ends, temporality, counts) of columns whose keys stand in `more_keys`."""
    points: int = 0
    refused: Tally[str] = field(default_factory=Tally)
    names: dict[str, None] = field(default_factory=dict)
    meta: dict[str, Meta] = field(default_factory=dict)
    targets: list[tuple[int, slice, slice]] = field(default_factory=list)
    """(context of its target_info, its number points, its other columns) of each resource that has one."""

    def add(
        self, key: Key, value: float, owner: int, start: int, end: int, temporality: int = GAUGE, counts: bool = False
    ) -> None:
        """Add one sample."""
        self.more_keys.append(key)
        ints = np.array([[owner], [start], [end]], dtype=np.int64)
        self.more.append((np.array([value]), ints[0], ints[1], ints[2], temporality, counts))


def decode(body: bytes, known: Container[Hashable] = (), contexts: Contexts = CONTEXTS) -> Request:
    """Read an ExportMetricsServiceRequest. `known` holds keys whose attributes are proven. Raises Malformed."""
    reading = _Reading(body, contexts)
    try:
        for tag, begin, end in _spans(body, 0, len(body)):
            if tag == 0x0A:
                _read_resource(reading, begin, end)
    except (IndexError, struct.error):
        raise Malformed(f"a field is cut off at byte {len(body)}") from None
    return _whole(reading, known)


# --- Walking --------------------------------------------------------------------------------------------------------


def _spans(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, begin, end) of each field of a message; of a number (value, where it ends). Raises Malformed."""
    while at < end:
        tag = body[at]
        at += 1
        if tag > 127:
            tag, at = varint(body, at - 1)
        kind = tag & 7
        if kind == BYTES:
            length = body[at]
            at += 1
            if length > 127:
                length, at = varint(body, at - 1)
        elif kind == VARINT:
            value, at = varint(body, at)
            if at > end:
                raise Malformed(f"a number goes on beyond byte {end}")
            yield tag, value, at
            continue
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Malformed(f"wire type {kind} before byte {at}")
        if tag < 8:
            raise Malformed(f"field number 0 before byte {at}")
        if length > end - at:
            raise Malformed(f"a field of {length} bytes at byte {at} of {end}")
        yield tag, at, at + length
        at += length


def _read_resource(reading: _Reading, begin: int, end: int) -> None:
    """ResourceMetrics: one resource and its scopes."""
    body = reading.body
    message, scopes = b"", []
    for tag, at, past in _spans(body, begin, end):
        if tag == 0x0A:
            message = body[at:past]
        elif tag == 0x12:
            scopes.append((at, past))
    resource = reading.contexts.resource(message)
    numbers, others = len(reading.begins), len(reading.more)
    for at, past in scopes:
        _read_scope(reading, message, resource, at, past)
    if resource.identity and resource.others:
        context = reading.contexts.number((message, "target_info"))
        reading.metrics[context] = _Metric("target_info", {**resource.others, **resource.identity})
        reading.targets.append((context, slice(numbers, len(reading.begins)), slice(others, len(reading.more))))


def _read_scope(reading: _Reading, message: bytes, resource: Resource, begin: int, end: int) -> None:
    """ScopeMetrics: one scope and its metrics."""
    body = reading.body
    scope, url, metrics = b"", b"", []
    for tag, at, past in _spans(body, begin, end):
        if tag == 0x0A:
            scope = body[at:past]
        elif tag == 0x12:
            metrics.append((at, past))
        elif tag == 0x1A:
            url = body[at:past]
    for at, past in metrics:
        _read_metric(reading, (message, scope, url), resource, at, past)


def _read_metric(
    reading: _Reading, where: tuple[bytes, bytes, bytes], resource: Resource, begin: int, end: int
) -> None:
    """Metric: name, help, unit and the data of one kind."""
    body = reading.body
    texts = {0x0A: b"", 0x12: b"", 0x1A: b""}
    data: tuple[int, int, int] | None = None
    for tag, at, past in _spans(body, begin, end):
        if tag in texts:
            texts[tag] = body[at:past]
        elif tag in _KINDS:
            data = tag, at, past
    if data is None:
        return
    kind, at, past = data
    name, about, unit = (text.decode(errors="replace") for text in texts.values())
    points, temporality, monotonic = [], 0, False
    for tag, start, stop in _spans(body, at, past):
        if tag == 0x0A:
            points.append((start, stop))
        elif tag == 0x10 and kind != _GAUGE:
            temporality = start
        elif tag == 0x18 and kind == _SUM:
            monotonic = bool(start)
    if kind == _EXPONENTIAL or (kind in (_SUM, _HISTOGRAMS) and temporality not in (DELTA, CUMULATIVE)):
        reading.refused["exponential_histogram" if kind == _EXPONENTIAL else "no_temporality"] += len(points)
        reading.points += len(points)
        reading.names[name] = None
        return
    is_counter = kind == _SUM and monotonic
    family = metric_name(name, unit, is_counter=is_counter, is_gauge=kind == _GAUGE)
    kept = _Kept(reading, (*where, texts[0x0A], texts[0x1A], kind, monotonic), family, where, resource)
    if points:
        _describe(reading, family, kind, monotonic, about, unit)
    if kind in (_GAUGE, _SUM):
        _read_numbers(kept, points, GAUGE if kind == _GAUGE else temporality, is_counter)
    elif kind == _HISTOGRAMS:
        _read_histograms(kept, points, temporality)
    else:
        _read_summaries(kept, points)


_GAUGE, _SUM, _HISTOGRAMS, _EXPONENTIAL, _SUMMARY = 0x2A, 0x3A, 0x4A, 0x52, 0x5A
_KINDS: Final = frozenset({_GAUGE, _SUM, _HISTOGRAMS, _EXPONENTIAL, _SUMMARY})
"""Fields of Metric that hold its data."""


def _describe(reading: _Reading, family: str, kind: int, monotonic: bool, about: str, unit: str) -> None:
    """Keep type, help and unit of the series that the metric becomes."""
    names = [family]
    word = {_GAUGE: "gauge", _SUM: "counter" if monotonic else "gauge", _HISTOGRAMS: "histogram"}.get(kind, "summary")
    if word == "histogram":
        names = [f"{family}{end}" for end in ("_bucket", "_sum", "_count")]
    elif word == "summary":
        names += [f"{family}_sum", f"{family}_count"]
    reading.meta |= dict.fromkeys(names, Meta(word, about, unit[:40]))


@dataclass(slots=True)
class _Kept:
    """A metric that is read: where it goes, and the contexts of its series."""

    reading: _Reading
    identity: Key
    family: str
    where: tuple[bytes, bytes, bytes]
    resource: Resource
    _labels: dict[str, str] | None = None

    def context(self, edges: bytes = b"", form: str = "number") -> int:
        """The number of this metric's series; `edges` are the float64 of buckets or quantiles."""
        number = self.reading.contexts.number((*self.identity, edges))
        if number not in self.reading.metrics:
            if self._labels is None:
                self._labels = scope_labels(self.where[1], self.where[2]) | dict(self.resource.identity)
            shape = tuple(np.frombuffer(edges, dtype="<f8").tolist()) if edges else ()
            self.reading.metrics[number] = _Metric(self.family, self._labels, shape, form, b"\0".join(self.where))
        return number


# --- Points ---------------------------------------------------------------------------------------------------------


def _read_numbers(kept: _Kept, points: list[tuple[int, int]], temporality: int, counts: bool) -> None:
    """NumberDataPoints: cut, to be looked at all at once."""
    reading, body = kept.reading, kept.reading.body
    context = kept.context()
    for begin, end in points:
        head = _WITH_START if body[begin : begin + 1] == b"\x11" else _WITHOUT
        reading.keys.append((context, body[begin + head : end]))
        reading.begins.append(begin)
        reading.ends.append(end)
    reading.kinds.append((len(reading.begins), temporality, counts))
    reading.points += len(points)


@dataclass(slots=True)
class _Point:
    """A data point that is read field by field."""

    start: int = 0
    time: int = 0
    value: float = 0.0
    attributes: list[bytes] = field(default_factory=list)
    flags: int = 0
    count: float = 0.0
    sum: float | None = None
    parts: list[bytes] = field(default_factory=list)
    edges: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """Its attributes as they stand in a point that is cut."""
        return b"".join(b"\x3a" + encoded(len(text)) + text for text in self.attributes)


def _number_point(message: bytes) -> _Point:
    point = _Point()
    for number, kind, value in fields(message):
        match number, kind, value:
            case 2, 1, bytes():
                point.start = int.from_bytes(value, "little", signed=True)
            case 3, 1, bytes():
                point.time = int.from_bytes(value, "little", signed=True)
            case 4, 1, bytes():
                point.value = float(np.frombuffer(value, dtype="<f8")[0])
            case 6, 1, bytes():
                point.value = float(int.from_bytes(value, "little", signed=True))
            case 7, 2, bytes():
                point.attributes.append(value)
            case 8, 0, int():
                point.flags = value
            case ((2 | 3 | 4 | 6 | 7 | 8), _, _):
                raise Malformed(f"field {number} of a number's data point has wire type {kind}")
    return point


def _histogram_point(message: bytes, *, summary: bool = False) -> _Point:
    """A histogram's point, or a summary's, which differs from it in where its parts stand."""
    point = _Point()
    attributes, flags = (7, 8) if summary else (9, 10)
    for number, kind, value in fields(message):
        if number == attributes and isinstance(value, bytes) and kind == BYTES:
            point.attributes.append(value)
        elif number == flags and kind == VARINT and isinstance(value, int):
            point.flags = value
        elif number in (2, 3, 4, 5) and kind == FIXED64 and isinstance(value, bytes):
            whole = int.from_bytes(value, "little", signed=number != 4)
            match number:
                case 2:
                    point.start = whole
                case 3:
                    point.time = whole
                case 4:
                    point.count = float(whole)
                case _:
                    point.sum = float(np.frombuffer(value, dtype="<f8")[0])
        elif number == 6 and isinstance(value, bytes) and kind in (BYTES, FIXED64):
            point.parts.append(value)
        elif number == 7 and not summary and isinstance(value, bytes) and kind in (BYTES, FIXED64):
            point.edges.append(value)
        elif number in (2, 3, 4, 5, 6, 7, attributes, flags) and (number != 7 or not summary):
            raise Malformed(f"field {number} of a {'summary' if summary else 'histogram'}'s point has wire type {kind}")
    return point


@dataclass(slots=True)
class _Histograms:
    """Points of one histogram with the same bounds."""

    context: int
    attributes: list[bytes] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    buckets: list[bytes] = field(default_factory=list)


def _read_histograms(kept: _Kept, points: list[tuple[int, int]], temporality: int) -> None:
    """HistogramDataPoints: those of the usual form by matrices, one for each list of bounds."""
    reading, body = kept.reading, kept.reading.body
    by_edges: dict[bytes, _Histograms] = {}
    for begin, end in points:
        owner = reading.points
        reading.points += 1
        usual = _usual_histogram(body, begin, end)
        if usual is None:
            _odd_histogram(kept, _histogram_point(body[begin:end]), owner, temporality)
            continue
        start, time, total, value, buckets, edges, attributes = usual
        if (group := by_edges.get(edges)) is None:
            group = by_edges[edges] = _Histograms(kept.context(edges, "histogram"))
        group.attributes.append(attributes)
        group.owners.append(owner)
        group.starts.append(start)
        group.times.append(time)
        group.counts.append(total)
        group.sums.append(value)
        group.buckets.append(buckets)
    for edges, group in by_edges.items():
        wide = len(edges) // 8
        matrix = np.frombuffer(b"".join(group.buckets), dtype="<u8").reshape(len(group.owners), wide + 1)
        values = np.empty((len(group.owners), wide + 3))
        np.cumsum(matrix[:, :wide], axis=1, out=values[:, :wide])
        values[:, wide] = values[:, wide + 2] = group.counts
        values[:, wide + 1] = group.sums
        places = range(wide + 3)
        reading.more_keys += [(group.context, key, place) for key in group.attributes for place in places]
        columns = (
            np.repeat(np.array(one, dtype=np.int64), wide + 3) for one in (group.owners, group.starts, group.times)
        )
        owners, starts, times = columns
        reading.more.append((values.ravel(), owners, starts, times, temporality, True))


def _usual_histogram(body: bytes, begin: int, end: int) -> tuple[int, int, int, float, bytes, bytes, bytes] | None:
    """(start, time, count, sum, buckets, bounds, attributes) as SDKs write them; None: read it by the rules."""
    if end - begin < _HISTOGRAM.size + 2:
        return None
    first, start, second, time, third, total, fourth, value = _HISTOGRAM.unpack_from(body, begin)
    if (first, second, third, fourth) != _TAGS:
        return None
    at = begin + _HISTOGRAM.size
    if body[at] != 0x32:
        return None
    size, at = varint(body, at + 1)
    buckets = body[at : at + size]
    at += size
    if at >= end or body[at] != 0x3A or size % 8:
        return None
    size, at = varint(body, at + 1)
    edges = body[at : at + size]
    at += size
    if len(edges) + 8 != len(buckets) or size % 8:
        return None
    attributes = at
    while at < end and body[at] == 0x4A:
        size, at = varint(body, at + 1)
        at += size
    past = at
    while at < end and body[at] in (0x59, 0x61):  # least and greatest, which have no series
        at += 9
    if at != end:
        return None
    return start, time, total, value, buckets, edges, body[attributes:past]


def _odd_histogram(kept: _Kept, point: _Point, owner: int, temporality: int) -> None:
    reading = kept.reading
    edges, buckets = b"".join(point.edges), b"".join(point.parts)
    if len(edges) % 8 or len(buckets) % 8 or (buckets and len(buckets) != len(edges) + 8):
        reading.refused["invalid_histogram"] += 1
        return
    wide = len(edges) // 8
    key = b"".join(b"\x4a" + encoded(len(text)) + text for text in point.attributes)
    context = kept.context(edges, "histogram")
    counts = np.cumsum(np.frombuffer(buckets, dtype="<u8")).astype(np.float64)[:wide] if buckets else np.zeros(wide)
    values = [*counts.tolist(), point.count, 0.0 if point.sum is None else point.sum, point.count]
    for place, value in enumerate(values):
        if place == wide + 1 and point.sum is None:
            continue
        gone = bool(point.flags & NO_VALUE)
        reading.add(
            (context, key, place), STALE if gone else value, owner, point.start, point.time,
            GAUGE if gone else temporality, not gone,
        )  # fmt: skip


def _read_summaries(kept: _Kept, points: list[tuple[int, int]]) -> None:
    """SummaryDataPoints: a sample for each quantile, the sum and the count."""
    reading = kept.reading
    for begin, end in points:
        owner = reading.points
        reading.points += 1
        point = _histogram_point(reading.body[begin:end], summary=True)
        pairs = [_quantile(message) for message in point.parts]
        edges = np.array([quantile for quantile, _ in pairs], dtype="<f8").tobytes()
        context = kept.context(edges, "summary")
        gone = bool(point.flags & NO_VALUE)
        values = [value for _, value in pairs] + [point.sum or 0.0, point.count]
        for place, value in enumerate(values):
            counts = place >= len(pairs) and not gone
            shown = STALE if gone else value
            reading.add((context, point.key, place), shown, owner, point.start, point.time, CUMULATIVE, counts)


def _quantile(message: bytes) -> tuple[float, float]:
    found = {1: 0.0, 2: 0.0}
    for number, kind, value in fields(message):
        if number in found and kind == FIXED64 and isinstance(value, bytes):
            found[number] = float(np.frombuffer(value, dtype="<f8")[0])
        elif number in found:
            raise Malformed(f"field {number} of a quantile has wire type {kind}")
    return found[1], found[2]


# --- Columns --------------------------------------------------------------------------------------------------------


def _whole(reading: _Reading, known: Container[Hashable]) -> Request:
    """All that was read, as columns."""
    begins = np.array(reading.begins, dtype=np.int64)
    starts, times, values, regular = _heads(reading.body, begins, np.array(reading.ends, dtype=np.int64))
    keys = reading.keys
    for index, (well, key) in enumerate(zip(regular.tolist(), keys, strict=True)):
        if well and key not in known and attributes(key[1], 0x3A) is None:
            regular[index] = False
    delta, counts = np.zeros(len(keys), dtype=bool), np.zeros(len(keys), dtype=bool)
    done = 0
    for upto, temporality, counting in reading.kinds:
        delta[done:upto], counts[done:upto] = temporality == DELTA, counting
        done = upto
    for index in np.flatnonzero(~regular).tolist():
        point = _number_point(reading.body[reading.begins[index] : reading.ends[index]])
        gone = bool(point.flags & NO_VALUE)
        keys[index] = (keys[index][0], point.key)
        starts[index], times[index], values[index] = point.start, point.time, STALE if gone else point.value
        if gone:
            delta[index] = counts[index] = False
    owner = _owners(reading)
    for context, numbers, others in reading.targets:
        newest = [int(times[numbers].max(initial=0)), *(int(part[3].max(initial=0)) for part in reading.more[others])]
        reading.add((context, b""), 1.0, -1, 0, max(newest))
        reading.meta["target_info"] = Meta("gauge", "Target metadata.")
    more = reading.more
    keys += reading.more_keys
    sizes = [len(part[0]) for part in more]
    ends = np.concatenate([times, *(part[3] for part in more)])

    def labels_at(index: int) -> dict[str, str] | str:
        return _labels(reading.metrics, keys[index])

    return Request(
        samples=Samples(
            keys,
            labels_at,
            ends // MS,
            np.concatenate([values, *(part[0] for part in more)]),
            reading.meta,
        ),
        owner=np.concatenate([owner, *(part[1] for part in more)]),
        starts=np.concatenate([starts, *(part[2] for part in more)]),
        ends=ends,
        delta=np.concatenate([delta, np.repeat([part[4] == DELTA for part in more], sizes).astype(bool)]),
        counts=np.concatenate([counts, np.repeat([part[5] for part in more], sizes).astype(bool)]),
        points=reading.points,
        refused=reading.refused,
        names=tuple(reading.names),
        senders={context: metric.sender for context, metric in reading.metrics.items()},
    )


def _owners(reading: _Reading) -> Int64:
    """The numbers of the data points that are numbers: above all others', which were given as they were read."""
    return np.arange(len(reading.begins), dtype=np.int64) + reading.points


def _heads(body: bytes, begins: Int64, ends: Int64) -> tuple[Int64, Int64, Float64, NDArray[np.bool_]]:
    """(starts int64[N], times int64[N] in ns, values float64[N], which of the points begin in the usual form)."""
    padded = body + bytes(_WITH_START)
    rows: NDArray[Any] = np.ndarray(len(body) + 1, dtype="V27", buffer=padded, strides=(1,))[begins].view(_HEAD)
    size = ends - begins
    third, early = rows["third"], rows["early"]
    full = (rows["first"] == 0x11) & (rows["second"] == 0x19) & ((third == 0x21) | (third == 0x31))
    full &= size >= _WITH_START
    short = (rows["first"] == 0x19) & ((early == 0x21) | (early == 0x31)) & (size >= _WITHOUT)
    values = np.where(third == 0x21, rows["double"], rows["whole"].astype(np.float64))
    if short.any():
        told = np.where(early == 0x21, rows["early_double"], rows["early_whole"].astype(np.float64))
        values = np.where(short, told, values)
    starts = np.where(full, rows["start"], 0)
    times = np.where(full, rows["time"], rows["start"])
    return starts, times, values, full | short


# --- Labels ---------------------------------------------------------------------------------------------------------


def _labels(metrics: Mapping[int, _Metric], key: Key) -> dict[str, str] | str:
    """The labels of a key, or the reason to refuse them."""
    metric, text = metrics[key[0]], key[1]
    pairs = attributes(text, 0x4A if metric.form == "histogram" else 0x3A)
    if pairs is None:
        return "invalid_labels"
    name, more = (metric.name, {}) if metric.form == "number" else _part(metric, key[2])
    return {**labels_of(pairs), **metric.labels, **more, NAME: name}


def _part(metric: _Metric, place: int) -> tuple[str, dict[str, str]]:
    """The name and the extra label of a histogram's or a summary's part: its edges in order, then sum and count."""
    wide = len(metric.edges)
    if metric.form == "histogram":
        if place <= wide:
            return f"{metric.name}_bucket", {"le": repr(metric.edges[place]) if place < wide else "+Inf"}
        return f"{metric.name}{'_sum' if place == wide + 1 else '_count'}", {}
    if place < wide:
        return metric.name, {"quantile": repr(metric.edges[place])}
    return f"{metric.name}{'_sum' if place == wide else '_count'}", {}
