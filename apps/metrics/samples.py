"""What is to be stored: samples with the identity of their series, before anybody has asked the database."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, overload

import numpy as np

from apps.core.telemetry import Reading
from apps.metrics.codec import Float64, Int64

NAME: Final = "__name__"
MAX_LABELS: Final = 30
MAX_NAME: Final = 200
MAX_VALUE: Final = 1024

REASONS: Final[Mapping[str, str]] = {
    "no_name": "the series has no metric name",
    "invalid_name": f"a metric or label name is empty, longer than {MAX_NAME} characters or holds a NUL",
    "invalid_value": "a label value holds a NUL or half a surrogate pair",
    "too_many_labels": f"the series has more than {MAX_LABELS} labels",
    "duplicate_label": "the series has a label twice",
    "invalid_labels": "the labels of the series cannot be read",
    "value_too_long": f"a label value is longer than {MAX_VALUE} bytes",
    "duplicate_series": "the series stands more than once with the same time; the first one counts",
    "label_limit": "the labels of the series go beyond the limits of its job",
    "too_old": "the sample is further behind its series' newest one than late samples may be",
    "too_far_ahead": "the sample's time is more than 10 minutes ahead of the portal's clock",
    "before_1970": "the sample's time is before 1970",
    "native_histogram": "native histograms are not kept here, only their classic form",
    "malformed": "the request cannot be read",
    "unsupported": "the request is of a kind that is not taken here",
    "inconsistent": "the push has timestamps, a series twice, more samples than a group may hold, or a reserved name",
    "group_limit": "there are as many groups of pushed metrics as there may be",
    "two_kinds": "the name is that of another kind of metric already",
    "invalid_row": "the object has a field that is missing or wrong",
    "no_samples": "the series has neither a sample nor a histogram",
    "too_large": "the request unpacks to more than is taken at once",
    "exponential_histogram": "exponential histograms are not kept here, only those with explicit bounds",
    "invalid_histogram": "the histogram has not one bucket more than bounds",
    "no_temporality": "the data point does not say whether it is a delta or cumulative",
    "no_time": "the data point has no time",
    "late_delta": "the delta ends before the newest one that was added to its series",
    "overlapping_delta": "the delta begins before the newest one that was added to its series ended",
    "series_limit": "the metric has reached its limit of series",
    "token_series_limit": "the token has reached its limit of series",
    "store_series_limit": "the portal has reached its limit of series in all",
    "no_object": "the log record is no object",
    "no_message": "the log record has no message",
    "invalid_time": "the log record's time cannot be read",
    "too_many_records": "the request has more log records than are taken at once",
    "too_old_log": "the log record is older than log records are kept",
    "service_limit": "logs come from as many services as they may",
    "out_of_scope": "the token may not speak of that service or level",
    "log_budget": "as many log records came today as may (each refused request counts once)",
    "log_share": "the token brought as many log records today as it may (each refused request counts once)",
    "rate_limit": "the token sends more samples a second than it may (each refused request counts once)",
}
"""Why a sample can be refused: the word that counters carry, and the sentence for people."""


class Meta(NamedTuple):
    """What a sender says about a metric."""

    type: str = "unknown"
    help: str = ""
    unit: str = ""


LabelSet = tuple[str, tuple[tuple[str, str], ...]]
"""A metric name and its other labels, sorted by name."""


def label_set(labels: Mapping[str, str]) -> LabelSet | str:
    """The canonical form of labels that include `__name__`, or the reason (a key of REASONS) why they are refused."""
    name = labels.get(NAME, "")
    if not name:
        return "no_name"
    rest = [(label, value) for label, value in labels.items() if value and label != NAME]
    if len(rest) > MAX_LABELS:
        return "too_many_labels"
    for text in (name, *(label for label, _ in rest)):
        if not text or len(text) > MAX_NAME or "\0" in text or not text.isprintable():
            return "invalid_name"
    for _, value in rest:
        if len(value) > MAX_VALUE // 4 and len(value.encode(errors="replace")) > MAX_VALUE:
            return "value_too_long"
        if "\0" in value or not (value.isascii() or _is_text(value)):
            return "invalid_value"
    rest.sort()
    return name, tuple(rest)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class ListedKeys(Sequence[Hashable]):
    """N keys, most of which stand in a list that only grows: whoever keeps something by their places looks up no key.

    place int64[N]: where each stands in `listed`; -1: it is one of `own`, which go by their index.
    """

    __slots__ = ("listed", "own", "place")

    def __init__(self, listed: Sequence[Hashable], place: Int64, own: Mapping[int, Hashable]) -> None:
        self.listed = listed
        self.place = place
        self.own = own

    def __len__(self) -> int:
        return len(self.place)

    @overload
    def __getitem__(self, index: int) -> Hashable: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hashable]: ...
    def __getitem__(self, index: int | slice) -> Hashable | Sequence[Hashable]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = int(self.place[index])
        return self.listed[place] if place >= 0 else self.own[index]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """N samples: ts int64[N] ms since 1970, v float64[N], and the series of each by key.

    `keys` are N hashable values that stand for label sets (raw label bytes, a tuple, whatever the sender repeats);
    `labels_of(i)` gives the labels, `__name__` among them, of the i-th sample, or the reason (a key of REASONS) why it
    has none; it is asked only for keys that this process has never seen, so a steady stream costs a look-up a sample.
    """

    keys: Sequence[Hashable]
    labels_of: Callable[[int], Mapping[str, str] | str]
    ts: Int64
    v: Float64
    meta: Mapping[str, Meta] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.ts) == len(self.v):
            raise ValueError(f"{len(self.keys)} keys for {len(self.ts)} times and {len(self.v)} values.")

    def __len__(self) -> int:
        return len(self.ts)

    @classmethod
    def from_readings(
        cls, readings: Iterable[Reading], at: datetime, labels: Mapping[str, str] | None = None
    ) -> "Samples":
        """Readings of one moment; `labels` are added to each, a reading's own label of the same name wins."""
        listed = list(readings)
        extra = dict(labels or {})
        extra_items = tuple(extra.items())
        stamp = int(at.timestamp() * 1000)
        times = [stamp if reading.timestamp_ms is None else reading.timestamp_ms for reading in listed]

        def labels_of(index: int) -> Mapping[str, str]:
            reading = listed[index]
            return {**extra, **reading.labels, NAME: reading.name}

        meta: dict[str, Meta] = {}
        for reading in listed:
            if reading.name not in meta:
                meta[reading.name] = Meta(reading.type, reading.help)
        return cls(
            keys=[(reading.name, tuple(reading.labels.items()), extra_items) for reading in listed],
            labels_of=labels_of,
            ts=np.array(times, dtype=np.int64),
            v=np.array([reading.value for reading in listed], dtype=np.float64),
            meta=meta,
        )

    @classmethod
    def of(
        cls,
        series: Sequence[Mapping[str, str]],
        ts: Sequence[int] | Int64,
        v: Sequence[float] | Float64,
        meta: Mapping[str, Meta] | None = None,
    ) -> "Samples":
        """N samples by their N label sets (with `__name__`), times in ms and values."""
        return cls(
            keys=[tuple(labels.items()) for labels in series],
            labels_of=lambda index: series[index],
            ts=np.asarray(ts, dtype=np.int64),
            v=np.asarray(v, dtype=np.float64),
            meta=meta or {},
        )
