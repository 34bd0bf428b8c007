"""Reads and runs scripts in the format of Prometheus' promqltest: load series, evaluate, compare.

Read are `load`, `clear`, `eval instant|range`, `expect fail|warn|info|no_warn|no_info|ordered`, and series as `1 2 _`,
`1+2x3`, `5x2`, `_x3`, `stale`. One comment means something: `# limits: samples=10 steps=5` holds for the next eval.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from apps.promql.engine import Limits, Result, instant, query_range
from apps.promql.errors import PromQLError
from apps.promql.lexer import parse_duration, unquote
from apps.promql.series import STALE
from apps.promql.source import MemorySource

_EVAL: Final = re.compile(
    r"eval (?:instant at (?P<at>\S+)|range from (?P<start>\S+) to (?P<end>\S+) step (?P<step>\S+))\s+(?P<expr>.+)"
)
_EXPECT: Final = re.compile(
    r"expect (?P<what>fail|warn|info|no_warn|no_info|ordered)(?: (?P<how>msg|regex): ?(?P<text>.+))?"
)
_SERIES: Final = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)?(?P<labels>\{.*\})?\s+(?P<values>[^{}]+)")
_LABEL: Final = re.compile(r'(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*")')
_RUN: Final = re.compile(r"(?P<first>-?[\d.e]+|NaN|-?Inf)(?P<more>[+-][\d.e]+)?(?:x(?P<times>\d+))?")
_LIMITS: Final = re.compile(r"# limits:((?: \w+=\d+)+)")

Labels = tuple[tuple[str, str], ...]
Values = list[float | None]


@dataclass(slots=True)
class Case:
    """One eval: where it stands, what was loaded before it, what is expected."""

    line: int
    expr: str
    source: MemorySource
    times: tuple[int, int, int] | None
    """start, end and step in ms of a range query."""
    at: int
    limits: Limits
    expects: list[tuple[str, str, str]] = field(default_factory=list)
    rows: list[tuple[Labels, Values]] = field(default_factory=list)
    scalar: float | None = None

    def check(self) -> None:
        """Runs it. AssertionError says what is different."""
        fails = [(how, text) for what, how, text in self.expects if what == "fail"]
        result = self._run()
        if isinstance(result, PromQLError):
            assert fails, f"{self.expr}: {result}"
            assert all(_says(result.message, how, text) for how, text in fails), f"{self.expr}: {result}"
            return
        assert not fails, f"{self.expr}: expected to fail"
        self._check_notes(result)
        self._check_rows(result)

    def _run(self) -> Result | PromQLError:
        try:
            if self.times is None:
                return instant(self.expr, self.source, self.at, limits=self.limits)
            return query_range(self.expr, self.source, *self.times, limits=self.limits)
        except PromQLError as error:
            return error

    def _check_notes(self, result: Result) -> None:
        for kind, notes in (("warn", result.warnings), ("info", result.infos)):
            for what, how, text in self.expects:
                if what == kind:
                    assert any(_says(note, how, text) for note in notes), f"{self.expr}: no {kind} {text!r} in {notes}"
                assert what != f"no_{kind}" or not notes, f"{self.expr}: {notes}"

    def _check_rows(self, result: Result) -> None:
        found: list[tuple[Labels, Values]] = [
            (tuple(sorted(labels.items())), [v if ok else None for v, ok in zip(values, present, strict=True)])
            for labels, values, present in zip(
                result.labels.dicts(), result.v.tolist(), result.ok.tolist(), strict=True
            )
        ]
        if self.scalar is not None:
            assert result.kind == "scalar", f"{self.expr}: {result.kind}"
            assert _close([self.scalar], found[0][1]), f"{self.expr}: {found}"
            return
        wanted = [(labels, _padded(values, len(result.ts))) for labels, values in self.rows]
        if not any(what == "ordered" for what, _, _ in self.expects):
            found, wanted = sorted(found, key=lambda row: row[0]), sorted(wanted, key=lambda row: row[0])
        assert [labels for labels, _ in found] == [labels for labels, _ in wanted], f"{self.expr}: {found}"
        for (labels, values), (_, expected) in zip(found, wanted, strict=True):
            assert _close(expected, values), f"{self.expr}: {labels}: {values} instead of {expected}"


def cases(path: Path) -> Iterator[Case]:
    """All evals of a script. ValueError names a line that cannot be read."""
    series: list[tuple[dict[str, str], list[int], list[float]]] = []
    limits = Limits()
    case: Case | None = None
    every = 0
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        line = raw.strip()
        limited = _LIMITS.fullmatch(line)
        if limited:
            limits = Limits(**{name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", limited[1])})
        if not line or line.startswith("#"):
            continue
        if not raw[0].isspace():
            if case is not None:
                yield case
            case = None
            if line == "clear":
                series = []
            elif line.startswith("load "):
                every = parse_duration(line.removeprefix("load "))
            else:
                case, limits = _eval(line, number, path, MemorySource(series), limits), Limits()
        elif case is None:
            labels, values = _series(line, number, path)
            there = [(k * every, v) for k, v in enumerate(values) if v is not None]
            series.append((dict(labels), [at for at, _ in there], [v for _, v in there]))
        else:
            _expectation(case, line, number, path)
    if case is not None:
        yield case


def _eval(line: str, number: int, path: Path, source: MemorySource, limits: Limits) -> Case:
    found = _EVAL.fullmatch(line)
    if not found:
        raise ValueError(f"{path.name}:{number}: {line!r} is no command")
    if found["at"]:
        return Case(number, found["expr"], source, None, _ms(found["at"]), limits)
    times = _ms(found["start"]), _ms(found["end"]), _ms(found["step"])
    return Case(number, found["expr"], source, times, 0, limits)


def _expectation(case: Case, line: str, number: int, path: Path) -> None:
    expect = _EXPECT.fullmatch(line)
    if expect:
        case.expects.append((expect["what"], expect["how"] or "", expect["text"] or ""))
    elif re.fullmatch(r"-?[\d.e+]+|NaN|[+-]?Inf", line):
        case.scalar = float(line)
    else:
        case.rows.append(_series(line, number, path))


def _series(line: str, number: int, path: Path) -> tuple[Labels, Values]:
    found = _SERIES.fullmatch(line)
    if not found:
        raise ValueError(f"{path.name}:{number}: {line!r} is no series")
    labels = {each["name"]: unquote(each["value"]) for each in _LABEL.finditer(found["labels"] or "")}
    if found["name"]:
        labels["__name__"] = found["name"]
    return tuple(sorted(labels.items())), [value for word in found["values"].split() for value in _values(word)]


def _values(word: str) -> Values:
    if word == "stale":
        return [STALE]
    if re.fullmatch(r"_(x\d+)?", word):
        return [None] * int(word[2:] or 1)
    run = _RUN.fullmatch(word)
    if not run:
        raise ValueError(f"{word!r} is no value")
    first, more = float(run["first"]), float(run["more"] or 0)
    return [first + k * more for k in range(int(run["times"] or 0) + 1)]


def _padded(values: Values, size: int) -> Values:
    assert len(values) <= size, f"{values} are more than {size} steps"
    return values + [None] * (size - len(values))


def _ms(text: str) -> int:
    return parse_duration(text) if text[-1].isalpha() else round(float(text) * 1000)


def _says(message: str, how: str, text: str) -> bool:
    return re.search(text, message) is not None if how == "regex" else not text or message == text


def _close(wanted: Values, got: Values) -> bool:
    return len(wanted) == len(got) and all(
        a is b is None
        or (a is not None and b is not None and (a == b or (math.isnan(a) and math.isnan(b))))
        or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12))
        for a, b in zip(wanted, got, strict=True)
    )
