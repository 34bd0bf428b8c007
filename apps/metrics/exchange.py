"""Files of samples: JSON lines, CSV, OpenMetrics, Prometheus' text format and `promtool tsdb dump`, line by line. Pure.

Every reader takes lines and gives (line number, byte offset behind the line, labels, ms, value); a line that is none
is given as the sentence that says why. Writers give text. Knows no store.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from apps.metrics.samples import NAME
from apps.promql.series import STALE, Ragged, stale_mask

STALE_WORD: Final = "StaleNaN"
JSON_LINES, CSV, OPENMETRICS, PROMETHEUS, DUMP = "jsonl", "csv", "openmetrics", "prometheus", "dump"
FORMATS: Final = (JSON_LINES, CSV, OPENMETRICS, PROMETHEUS, DUMP)
WRITTEN: Final = (JSON_LINES, OPENMETRICS)
SUFFIXES: Final = {
    ".jsonl": JSON_LINES,
    ".json": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".csv": CSV,
    ".om": OPENMETRICS,
    ".openmetrics": OPENMETRICS,
    ".prom": PROMETHEUS,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line that was read: its number from 1, the offset behind it, its samples, or what is wrong with it."""

    number: int
    end: int
    labels: Mapping[str, str]
    ts: Sequence[int] = ()
    v: Sequence[float] = ()
    problem: str = ""


NO_LABELS: Final[Mapping[str, str]] = {}
Parse = Callable[[str], tuple[Mapping[str, str], Sequence[int], Sequence[float]] | None]
"""One line's (labels, ms, values), None where it holds no samples; raises ValueError with what is wrong."""


def guess(name: str, head: bytes) -> str | None:
    """The format of a file, by its name or how it begins; None: it must be said."""
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    start = head.lstrip()
    if re.match(rb'\{\s*"metric"', start):
        return JSON_LINES
    if start.startswith(b"{"):
        return DUMP
    return None


def read(lines: Iterable[bytes], kind: str, *, number: int = 0, offset: int = 0, header: str = "") -> Iterator[Line]:
    """The lines of a file from `offset` on, before which were `number` lines; `header` is a CSV's first one."""
    parse = _csv(header) if kind == CSV else PARSERS[kind]()
    for raw in lines:
        number += 1
        offset += len(raw)
        try:
            text = raw.decode()
            found = parse(text)
        except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
            yield Line(number, offset, NO_LABELS, problem=_said(error))
            continue
        if found is not None:
            yield Line(number, offset, *found)


def _said(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error.msg})"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__


# --- readers ----------------------------------------------------------------------------------------------------------


def csv_columns(header: str) -> list[str]:
    """The columns that a CSV's first line names; ValueError when one of those that are needed is missing."""
    columns = next(csv.reader([header]), [])
    missing = {"name", "timestamp", "value"} - set(columns)
    if missing:
        raise ValueError(f"The first line must name the columns; missing: {', '.join(sorted(missing))}.")
    return columns


def _csv(header: str) -> Parse:
    columns = csv_columns(header)
    others = [column for column in columns if column not in {"name", "timestamp", "value"}]

    def parse(text: str) -> tuple[Mapping[str, str], Sequence[int], Sequence[float]] | None:
        fields = next(csv.reader([text], strict=True), [])
        if not fields or not any(fields):
            return None
        if len(fields) != len(columns):
            raise ValueError(f"{len(fields)} fields where {len(columns)} columns are named")
        row = dict(zip(columns, fields, strict=True))
        labels = {NAME: row["name"], **{name: row[name] for name in others}}
        return labels, [int(row["timestamp"])], [float(row["value"])]

    return parse


def _json() -> Parse:
    def parse(text: str) -> tuple[Mapping[str, str], Sequence[int], Sequence[float]] | None:
        if not text.strip():
            return None
        row = json.loads(text)
        labels = {str(name): str(value) for name, value in row["metric"].items()}
        ts, values = [int(stamp) for stamp in row["timestamps"]], [_number(value) for value in row["values"]]
        if len(ts) != len(values):
            raise ValueError(f"{len(values)} values, but {len(ts)} timestamps")
        return labels, ts, values

    return parse


def _number(value: object) -> float:
    """A JSON value as a float; texts such as "NaN", "+Inf" and "StaleNaN" are numbers, too, null is NaN."""
    if value is None:
        return math.nan
    if value == STALE_WORD:
        return STALE
    return float(value)  # type: ignore[arg-type]


LABEL: Final = re.compile(
    r'\s*(?:([a-zA-Z_][a-zA-Z0-9_.:]*)\s*=\s*"((?:[^"\\]|\\.)*)"|"((?:[^"\\]|\\.)*)"(?:\s*=\s*"((?:[^"\\]|\\.)*)")?)\s*(,|$)'
)
SERIES: Final = re.compile(r'\s*([a-zA-Z_:][a-zA-Z0-9_:.]*)?\s*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+')
ESCAPED: Final = re.compile(r"\\(.)")
ESCAPES: Final = {"n": "\n"}


def labels_of(text: str) -> dict[str, str]:
    """What stands between braces: `a="b", "odd name"="c"`; a quoted word alone is the metric's name.

    >>> labels_of('a="x", "my.metric"')
    {'a': 'x', '__name__': 'my.metric'}
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text) and text[at:].strip():
        match = LABEL.match(text, at)
        if match is None:
            raise ValueError(f"labels expected at {text[at : at + 20]!r}")
        plain, value, quoted, other, _ = match.groups()
        name = plain if plain is not None else NAME if other is None else _unescaped(quoted)
        given = value if plain is not None else quoted if other is None else other
        if name in found:
            raise ValueError(f"the label {name} stands twice")
        found[name] = _unescaped(given)
        at = match.end()
    return found


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda match: ESCAPES.get(match[1], match[1]), text) if "\\" in text else text


def _text(*, seconds: bool) -> Callable[[], Parse]:
    """Lines `name{labels} value timestamp`: seconds as OpenMetrics has them, else ms."""

    def make() -> Parse:
        known: dict[str, dict[str, str]] = {}

        def parse(text: str) -> tuple[Mapping[str, str], Sequence[int], Sequence[float]] | None:
            if not text.strip() or text.startswith("#"):
                return None
            match = SERIES.match(text)
            if match is None:
                raise ValueError("no series and value")
            head = match[0]
            if (labels := known.get(head)) is None:
                labels = labels_of(match[2] or "")
                if match[1]:
                    labels[NAME] = match[1]
                if NAME not in labels:
                    raise ValueError("the series has no metric name")
                if len(known) < REMEMBERED:
                    known[head] = labels
            rest = text[match.end() :].partition(" # ")[0].split()
            if len(rest) != 2:
                raise ValueError("value and timestamp expected" if rest else "no value")
            at = round(float(rest[1]) * 1000) if seconds else int(rest[1])
            return labels, [at], [float(rest[0])]

        return parse

    return make


REMEMBERED: Final = 200_000
"""Series whose labels are parsed once."""
PARSERS: Final[Mapping[str, Callable[[], Parse]]] = {
    JSON_LINES: _json,
    OPENMETRICS: _text(seconds=True),
    PROMETHEUS: _text(seconds=False),
    DUMP: _text(seconds=False),
}


# --- writers ----------------------------------------------------------------------------------------------------------


def json_lines(found: Ragged) -> Iterator[str]:
    """A line for each series: {"metric": {…}, "values": […], "timestamps": [ms, …]}.

    NaN and infinities are texts, and the staleness marker is one of its own: it comes back bit for bit.
    """
    for labels, (begin, end) in zip(found.labels.dicts(), pairwise(found.off.tolist()), strict=True):
        stretch = found.v[begin:end]
        values: list[float | str] = [value if math.isfinite(value) else _word(value) for value in stretch.tolist()]
        for at in np.flatnonzero(stale_mask(stretch)).tolist():
            values[at] = STALE_WORD
        row = {"metric": labels, "values": values, "timestamps": found.ts[begin:end].tolist()}
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


PLAIN: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")


def open_metrics(found: Ragged) -> Iterator[str]:
    """A line for each sample, a series' samples one after the other, times in seconds; the end is not written.

    The format has no staleness markers: they are left out, for a NaN would be a sample.
    """
    for labels, (begin, end) in zip(found.labels.dicts(), pairwise(found.off.tolist()), strict=True):
        name = labels.pop(NAME, "")
        parts = [f"{_name(key)}={_quoted(value)}" for key, value in sorted(labels.items())]
        if not PLAIN.match(name):
            parts, name = [_quoted(name), *parts], ""
        head = f"{name}{{{','.join(parts)}}}" if parts else name
        kept = np.flatnonzero(~stale_mask(found.v[begin:end])) + begin
        for at, value in zip(found.ts[kept].tolist(), found.v[kept].tolist(), strict=True):
            shown = repr(value) if math.isfinite(value) else _word(value)
            yield f"{head} {shown} {at // 1000}.{at % 1000:03}\n"


def _name(text: str) -> str:
    return text if PLAIN.match(text) and ":" not in text else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'"{escaped}"'
