"""Writes Prometheus' text format 0.0.4.

A pure function of readings: `flushed` gives it the portal's own, the wheel for other projects what they counted.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from apps.core.telemetry import Reading

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SUFFIXES: Final = ("_bucket", "_sum", "_count")
"""The series of a histogram, in the order in which they are written."""


def family_of(reading: Reading) -> str:
    """Return the name that HELP and TYPE stand under: that of a histogram is without the suffix of its series."""
    if reading.type == "histogram":
        for suffix in SUFFIXES:
            if reading.name.endswith(suffix):
                return reading.name.removesuffix(suffix)
    return reading.name


def number(value: float) -> str:
    """
    >>> [number(v) for v in (3.0, 0.25, float("inf"), float("nan"), 1e300)]
    ['3', '0.25', '+Inf', 'NaN', '1e+300']
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def write(readings: Iterable[Reading]) -> bytes:
    """Return the readings as text, grouped by family; timestamps are left out, the reader stamps what it gets."""
    families: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        families[family_of(reading)].append(reading)
    lines = []
    for family in sorted(families):
        members = families[family]
        help_text = next((one.help for one in members if one.help), "")
        if help_text:
            lines.append(f"# HELP {family} {_escape(help_text)}")
        kind = members[0].type
        lines.append(f"# TYPE {family} {'untyped' if kind == 'unknown' else kind}")
        lines += [_line(one) for one in sorted(members, key=_order)]
    return "".join(line + "\n" for line in lines).encode()


def _order(reading: Reading) -> tuple[list[tuple[str, str]], int, float]:
    """Series by labels; the buckets of one histogram by their edge, then its sum and count."""
    labels = sorted(pair for pair in reading.labels.items() if pair[0] != "le")
    part = next((i for i, suffix in enumerate(SUFFIXES) if reading.name.endswith(suffix)), 0)
    edge = reading.labels.get("le", "")
    return labels, part, float(edge) if edge and reading.type == "histogram" else 0.0


def _line(reading: Reading) -> str:
    labels = ",".join(f'{name}="{_quote(value)}"' for name, value in sorted(reading.labels.items()))
    return (
        f"{reading.name}{{{labels}}} {number(reading.value)}" if labels else f"{reading.name} {number(reading.value)}"
    )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', '\\"')
