"""StatsD and DogStatsD: a line is a name, a value and a kind, and may have a rate and tags.

    name:value|kind[|@rate][|#tag:value,tag]

What stands beside the value is the same each time, so callers remember what it meant (`head_of`) and read the value
only. Pure.

Sources: github.com/statsd/statsd docs/metric_types.md, docs.datadoghq.com/developers/dogstatsd/datagram_shell; names as
prometheus/statsd_exporter has them.
"""

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

MOST_BYTES: Final = 8_192
"""A longer line is refused."""
_ODD: Final = re.compile(r"[^a-zA-Z0-9_:]")
_ODD_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")


class Kind(Enum):
    """What is done with the values of a series."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SECONDS = "seconds"
    """A timer: told in milliseconds, kept in seconds."""
    HISTOGRAM = "histogram"
    SET = "set"


KINDS: Final = {
    b"c": Kind.COUNTER,
    b"g": Kind.GAUGE,
    b"ms": Kind.SECONDS,
    b"h": Kind.HISTOGRAM,
    b"d": Kind.HISTOGRAM,
    b"s": Kind.SET,
}


class Refused(ValueError):
    """The line is not taken; the text is a key of `samples.REASONS`."""


@dataclass(frozen=True, slots=True)
class Head:
    """All of a line but its value: the series, its kind, and how many events one line stands for."""

    name: str
    labels: tuple[tuple[str, str], ...]
    kind: Kind
    weight: float


def head_of(name: bytes, tail: bytes) -> Head:
    """Read what stands before the value's colon and behind its bar. Raises Refused.

    >>> head_of(b"web.hits", b"c|@0.1|#route:/a,beta")
    Head(name='web_hits', labels=(('beta', 'true'), ('route', '/a')), kind=<Kind.COUNTER: 'counter'>, weight=10.0)
    """
    if name.startswith((b"_e{", b"_sc|")):
        raise Refused("unsupported")
    kind, *sections = tail.split(b"|")
    if kind not in KINDS or not name:
        raise Refused("malformed")
    weight, labels = 1.0, {}
    for section in sections:
        if section.startswith(b"@"):
            weight = 1.0 / _rate(section[1:])
        elif section.startswith(b"#"):
            labels = _tags(section[1:])
    return Head(metric_name(_text(name)), tuple(sorted(labels.items())), KINDS[kind], weight)


def metric_name(name: str) -> str:
    """The name under which a metric is kept.

    >>> metric_name("web.hits-total"), metric_name("2xx")
    ('web_hits_total', '_2xx')
    """
    found = _ODD.sub("_", name)
    return f"_{found}" if found[:1].isdigit() else found


def _text(told: bytes) -> str:
    try:
        return told.decode()
    except UnicodeDecodeError:
        raise Refused("malformed") from None


def _rate(told: bytes) -> float:
    try:
        rate = float(told)
    except ValueError:
        raise Refused("malformed") from None
    if not 0 < rate <= 1:
        raise Refused("malformed")
    return rate


def _tags(told: bytes) -> dict[str, str]:
    """Tags as labels; one without a value is true. Those that a histogram needs itself, and names, are set aside."""
    found = {}
    for tag in _text(told).split(","):
        name, colon, value = tag.partition(":")
        label = _ODD_LABEL.sub("_", name)
        if not label:
            continue
        if label[:1].isdigit():
            label = f"_{label}"
        if label in ("le", "quantile") or label.startswith("__"):
            label = f"tag_{label}"
        found[label] = value if colon else "true"
    return found


def number_of(told: bytes) -> float:
    """A value. Raises Refused."""
    try:
        value = float(told)
    except ValueError:
        raise Refused("malformed") from None
    if not math.isfinite(value):
        raise Refused("malformed")
    return value
