"""Reads what a target shows: Prometheus' text format 0.0.4 and OpenMetrics 1.0.

A target shows the same series each time, and of a line only the number behind the last space changes. So a `Reader`,
one for each source, remembers what stood before that number; a line that begins with a remembered text is cut there
and not read any further. That is sound: name and labels are read from the left and end in one place only, so a text
that was a whole series once is one wherever a line begins with it and a space. New lines, and those with a time or an
exemplar, are read by the rules.

A line that cannot be read is a `Problem` and the others are kept: every line of these formats stands for itself. What
does not end in `# EOF` where it has to may have been cut off anywhere, and is refused whole, as is what is too large.
Exemplars are skipped. Knows nothing of targets, limits of labels, or the store.

Sources: prometheus.io/docs/instrumenting/exposition_formats, the OpenMetrics 1.0 specification,
prometheus.io/docs/instrumenting/content_negotiation (names in quotes).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from apps.metrics.codec import Float64, Int64
from apps.metrics.samples import NAME, Meta

MOST_LINES: Final = 500_000
"""An exposition with more is refused before it is cut into lines."""
MOST_LINE_BYTES: Final = 131_072
MOST_PROBLEMS: Final = 100
"""Problems that are kept with their line; the rest is counted."""
MOST_BAD: Final = 10_000
"""Bad lines after which the rest is not tried."""
SHOWN: Final = 80
"""Characters of a bad line that its problem shows."""
NO_TIME: Final = np.iinfo(np.int64).min
"""The time of a sample that came without one."""
MOST_MS: Final = 2**53

_HASH: Final = ord("#")
_EOF: Final = b"# EOF"
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_BETWEEN: Final = re.compile(r"[ \t]*")
_QUOTED: Final = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_PAIR: Final = re.compile(rf"[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_]*)|{_QUOTED})[ \t]*(?:=[ \t]*{_QUOTED}[ \t]*)?(,|(?=}}))")
_ABOUT: Final = re.compile(rf"#[ \t]+(HELP|TYPE|UNIT)[ \t]+(?:{_QUOTED}|([^ \t]+))(?:[ \t]+(.*))?", re.S)
_ESCAPE: Final = re.compile(r'\\([\\"n])')
_KINDS: Final = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "summary": "summary",
    "gaugehistogram": "histogram",
    "info": "gauge",
    "stateset": "gauge",
}
"""Our type by that of a family; others, and `untyped`, are unknown here."""
_SUFFIXES: Final = {
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "summary": ("", "_sum", "_count", "_created"),
    "info": ("_info",),
}


class Format(Enum):
    """How an exposition is written."""

    TEXT = "text"
    OPENMETRICS = "openmetrics"


class Unreadable(Exception):
    """The exposition as a whole is refused; the text says why and where."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was refused: its number from 1, why, and how it begins."""

    line: int
    why: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}: {self.text}"


@dataclass(frozen=True, slots=True)
class Family:
    """What the comments say of a family: its type as it is written there, help and unit."""

    type: str = "unknown"
    help: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Exposition:
    """The N samples of a body in its order: numbers int64[N] of series of the reader, ts int64[N] ms or NO_TIME,
    v float64[N]; `new` are the numbers that no earlier body had.

    `families` is what the comments say, where it differs from the last body's; problems beyond MOST_PROBLEMS are only
    in `refused`, the count of all.
    """

    numbers: Int64
    ts: Int64
    v: Float64
    new: range
    families: Mapping[str, Family]
    format: Format
    problems: Sequence[Problem]
    refused: int
    body: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def meta(self) -> dict[str, Meta]:
        """Type, help and unit by the name of samples, as `Samples` wants them."""
        return {
            name: Meta(_KINDS.get(about.type, "unknown"), about.help, about.unit)
            for family, about in self.families.items()
            for name in sample_names(family, about.type, self.format)
        }


def format_of(content_type: str) -> Format:
    """The format that a Content-Type header names; text where it names neither."""
    kind = content_type.partition(";")[0].strip().lower()
    return Format.OPENMETRICS if kind == "application/openmetrics-text" else Format.TEXT


def sample_names(family: str, kind: str, form: Format) -> list[str]:
    """The names that samples of a family may have.

    >>> sample_names("rpc", "summary", Format.TEXT)
    ['rpc', 'rpc_sum', 'rpc_count', 'rpc_created']
    """
    if kind == "counter" and form is Format.OPENMETRICS:
        return [f"{family}_total", f"{family}_created"]
    return [family + suffix for suffix in _SUFFIXES.get(kind, ("",))]


class _Numbers(dict[bytes, int]):
    """Series by the text before a sample's value; -1 for one never seen."""

    def __missing__(self, text: bytes) -> int:
        return -1


class Reader:
    """Reads the bodies of one source and remembers its series. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._texts: list[bytes] = []
        self._comments: list[bytes] = []
        self._fresh: dict[int, dict[str, str]] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def labels(self, number: int) -> dict[str, str]:
        """The labels of a series, `__name__` among them."""
        found = self._fresh.get(number)
        return _series(self._texts[number].decode(), 0)[0] if found is None else found

    def text(self, number: int) -> bytes:
        """The series as the body has it."""
        return self._texts[number]

    def read(self, body: bytes, form: Format = Format.TEXT, most: int | None = None) -> Exposition:
        """Read a body of `most` samples or fewer. Raises Unreadable."""
        if body.count(b"\n") > MOST_LINES:
            raise Unreadable(f"It has more than {MOST_LINES} lines.")
        lines = body.split(b"\n")
        comments = [line for line in lines if line[:1] == b"#"]
        if form is Format.OPENMETRICS:
            _check_end(lines, comments)
        rows = [line for line in lines if line and line[0] != _HASH]
        if most is not None and len(rows) > most:
            raise Unreadable(f"It has {len(rows)} samples, and {most} are taken at most.")
        known = len(self._texts)
        self._fresh = {}
        numbers, ts, v, bad = self._samples(rows, form)
        if len(numbers) and int(numbers.min()) < 0:
            kept = np.flatnonzero(numbers >= 0)
            numbers, ts, v = numbers[kept], ts[kept], v[kept]
        new = range(known, len(self._texts))
        return Exposition(numbers, ts, v, new, self._families(comments), form, _located(bad, lines), len(bad), body)

    def _samples(self, rows: list[bytes], form: Format) -> tuple[Int64, Int64, Float64, dict[int, str]]:
        """(number, -1 where it is no sample; ms; value) of each row, and why by row where it is refused."""
        cut = [row.rpartition(b" ") for row in rows]
        heads, texts = [head for head, _, _ in cut], [last for _, _, last in cut]
        numbers, ts = self._find(heads), np.full(len(rows), NO_TIME, dtype=np.int64)
        odd = np.flatnonzero(numbers < 0)
        if len(odd):
            odd = self._find_stamped(odd, heads, texts, numbers, ts, form)
        v = None if len(odd) > len(rows) // 2 else _floats(texts if not len(odd) else _without(texts, odd))
        if v is None:
            odd, v = np.arange(len(rows)), np.full(len(rows), math.nan)
        bad: dict[int, str] = {}
        for index in odd.tolist():
            try:
                found = self._known(rows[index], form) or self._learn(rows[index], form)
            except ValueError as error:
                bad[index] = str(error)
                found = None
                if len(bad) > MOST_BAD:
                    raise Unreadable(f"More than {MOST_BAD} of its lines cannot be read, the last: {error}.") from None
            if found is None:
                numbers[index] = -1
            else:
                numbers[index], v[index], ts[index] = found
        return numbers, ts, v, bad

    def _find(self, texts: Sequence[bytes]) -> Int64:
        return np.fromiter(map(self._numbers.__getitem__, texts), np.int64, len(texts))

    def _find_stamped(
        self, odd: Int64, heads: list[bytes], texts: list[bytes], numbers: Int64, ts: Int64, form: Format
    ) -> Int64:
        """Set number, value and time of those odd rows that are a known series, a value and a time; return the rest."""
        cut = [heads[index].rpartition(b" ") for index in odd.tolist()]
        found = self._find([head for head, _, _ in cut])
        known = np.flatnonzero(found >= 0)
        times = _floats([texts[index] for index in odd[known].tolist()])
        if times is None or not len(known):
            return odd
        ms = times * 1000 if form is Format.OPENMETRICS else times
        with np.errstate(invalid="ignore"):
            if not (np.abs(ms) < MOST_MS).all() or (form is Format.TEXT and (ms != np.trunc(ms)).any()):
                return odd
        rows = odd[known]
        numbers[rows], ts[rows] = found[known], np.rint(ms).astype(np.int64)
        for index, place in zip(rows.tolist(), known.tolist(), strict=True):
            texts[index] = cut[place][2]
        return np.delete(odd, known)

    def _known(self, row: bytes, form: Format) -> tuple[int, float, int] | None:
        """(number, value, ms) of a row whose series is known; None: it is to be read from its left."""
        try:
            if form is Format.OPENMETRICS:
                row = row.partition(b" # ")[0]
            head, _, last = row.rpartition(b" ")
            if (number := self._numbers[head]) >= 0:
                return number, _number(last), NO_TIME
            head, _, value = head.rpartition(b" ")
            if (number := self._numbers[head]) >= 0:
                return number, _number(value), _time(last, form)
        except ValueError:
            pass
        return None

    def _learn(self, row: bytes, form: Format) -> tuple[int, float, int] | None:
        """The same of a row that is read from its left; None where nothing stands on it. Raises ValueError."""
        if len(row) > MOST_LINE_BYTES:
            raise ValueError(f"it is longer than {MOST_LINE_BYTES} bytes")
        try:
            text = row.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"its byte {error.start + 1} is not UTF-8") from None
        begin = _skip(text, 0)
        if not text[begin:].strip(" \t\r") or text[begin] == "#":
            return None
        labels, end = _series(text, begin)
        at = _skip(text, end)
        value, time = _values(text[at:].encode(), form)
        # What stands before the last blank: so the next body's line is found by its head.
        number = self._number_of(text[: max(at - 1, end)].encode(), labels)
        return number, value, time

    def _number_of(self, text: bytes, labels: dict[str, str]) -> int:
        number = self._numbers[text]
        if number < 0:
            number = self._numbers[text] = len(self._texts)
            self._texts.append(text)
            self._fresh[number] = labels
        return number

    def _families(self, comments: list[bytes]) -> dict[str, Family]:
        """What the comments say, where they differ from the last body's."""
        if comments == self._comments:
            return {}
        told: dict[str, dict[str, str]] = {}
        for line in comments:
            about = _ABOUT.fullmatch(line[:MOST_LINE_BYTES].decode(errors="replace").rstrip("\r"))
            if about is not None:
                what, quoted, plain, text = about.groups(default="")
                family = told.setdefault(_unescaped(quoted) or plain, {})
                family.setdefault(what.lower(), _unescaped(text) if what == "HELP" else text.strip())
        self._comments = comments
        return {name: Family(**about) for name, about in told.items()}


def _floats(texts: list[bytes]) -> Float64 | None:
    """The values, or None where one of them is not a number."""
    try:
        found = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        return None
    return None if b"_" in b" ".join(texts) else found


def _without(texts: list[bytes], odd: Int64) -> list[bytes]:
    """The same with NaN where a row is read by itself."""
    some = list(texts)
    for index in odd.tolist():
        some[index] = b"nan"
    return some


def _number(text: bytes) -> float:
    """A value as Go reads it; Python would take underscores too. Raises ValueError."""
    try:
        if b"_" not in text:
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"{_shown(text)!r} is no number")


def _time(text: bytes, form: Format) -> int:
    """Milliseconds of a time: whole ones in text, seconds in OpenMetrics. Raises ValueError."""
    seconds = _number(text)
    ms = seconds * 1000 if form is Format.OPENMETRICS else seconds
    if not abs(ms) < MOST_MS or (form is Format.TEXT and not ms.is_integer()):
        raise ValueError(f"{_shown(text)!r} is no time")
    return round(ms)


def _values(rest: bytes, form: Format) -> tuple[float, int]:
    """(value, ms or NO_TIME) of what follows a series. Raises ValueError."""
    if form is Format.OPENMETRICS:
        rest = rest.partition(b"#")[0]
    parts = rest.split()
    if not parts:
        raise ValueError("it has no value")
    if len(parts) > 2:
        raise ValueError(f"{_shown(parts[2])!r} follows its value and time")
    return _number(parts[0]), _time(parts[1], form) if len(parts) == 2 else NO_TIME


def _skip(text: str, at: int) -> int:
    """Where the blanks that begin there end."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _series(text: str, begin: int) -> tuple[dict[str, str], int]:
    """(labels, where they end) of the series that begins there. Raises ValueError."""
    begin = _skip(text, begin)
    labels: dict[str, str] = {}
    name = _NAME.match(text, begin)
    end = begin
    if name is not None:
        labels[NAME] = name.group()
        end = name.end()
        if end < len(text) and text[end] not in " \t{":
            raise ValueError(f"{text[end]!r} cannot stand in a name without quotes")
    brace = _skip(text, end)
    if text[brace : brace + 1] == "{":
        end = _labels(text, brace + 1, labels)
    if NAME not in labels:
        raise ValueError("it has no metric name")
    return labels, end


def _labels(text: str, at: int, labels: dict[str, str]) -> int:
    """Add the labels that begin behind the brace; return where they end. Raises ValueError."""
    while True:
        if (found := _PAIR.match(text, at)) is None:
            at = _skip(text, at)
            if text[at : at + 1] == "}":
                return at + 1
            raise ValueError(f"no label can be read at {text[at : at + 20]!r}, character {at + 1}")
        plain, quoted, value, _ = found.groups()
        name = plain if quoted is None else _unescaped(quoted)
        if value is None:  # a name of its own in the braces is the metric's
            if quoted is None:
                raise ValueError(f"the label {name} has no value")
            name, value = NAME, quoted
        if name in labels:
            raise ValueError(f"it has {'two names' if name == NAME else f'the label {_shown(name.encode())} twice'}")
        labels[name] = _unescaped(value)
        at = found.end()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text) if "\\" in text else text


def _check_end(lines: Sequence[bytes], comments: Sequence[bytes]) -> None:
    """Raise Unreadable unless the last line, and no other, is `# EOF`."""
    last = lines[-1] or (lines[-2] if len(lines) > 1 else b"")
    if last.rstrip(b"\r") != _EOF:
        raise Unreadable("It does not end in “# EOF”, so that it may have been cut off anywhere.")
    if comments.count(_EOF) > 1:
        raise Unreadable(f"Something follows “# EOF” in line {lines.index(_EOF) + 1}.")


def _located(bad: Mapping[int, str], lines: Iterable[bytes]) -> list[Problem]:
    """The first problems with the numbers of their lines."""
    if not bad:
        return []
    rows = [at for at, line in enumerate(lines, start=1) if line and line[0] != _HASH]
    text = list(lines)
    return [
        Problem(rows[index], why, _shown(text[rows[index] - 1])) for index, why in list(bad.items())[:MOST_PROBLEMS]
    ]


def _shown(text: bytes) -> str:
    """Enough of it to be recognised."""
    return text[:SHOWN].decode(errors="replace") + ("…" if len(text) > SHOWN else "")
