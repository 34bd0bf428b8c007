"""Asks a real Prometheus and our engine the same random questions and counts where their answers differ, and why.

    python -m tests.promql.differential --expressions 5000 --seed 1 [--prometheus BIN]

A difference counts as known only with a proof: our engine, with the one rule that changed between the versions turned
back (RULES), answers as the peer does; or our own answer moves as far when samples are shifted by one part in 10^13.
"""

import argparse
import http.client
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Self
from unittest.mock import patch
from urllib.parse import urlencode

import numpy as np

from apps.promql import aggregate, ast, binary, elementwise, engine, evaluator, windows
from apps.promql.arrays import Floats, Mask
from apps.promql.errors import PromQLError
from apps.promql.labels import METADATA
from apps.promql.series import Ragged, Vec
from apps.promql.source import MemorySource
from tests.metrics import remote_write
from tests.promql.expressions import BASE, END, Expressions, Series, demo

RELATIVE: Final = 1e-9
ABSOLUTE: Final = 1e-12
SHIFT: Final = 1e-13
"""Samples are moved by this part to see whether an expression is well conditioned."""

_COUNTED: Final = re.compile(r"-?[0-9]+\.[0-9]+")
Labels = tuple[tuple[str, str], ...]


# -- the peer --------------------------------------------------------------------------------------------------------


class Prometheus:
    """A Prometheus process of its own on loopback, filled by remote write."""

    def __init__(self, program: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        (root / "prometheus.yml").write_text("global: {}\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = (root / "log").open("wb+")
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={root / 'prometheus.yml'}",
                f"--storage.tsdb.path={root / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-remote-write-receiver",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def __enter__(self) -> Self:
        for _ in range(300):
            try:
                if self.request("GET", "/-/ready")[0] == 200:
                    return self
            except OSError:
                self.connection.close()
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.log.seek(0)
        said = self.log.read().decode(errors="replace")[-2000:]
        self.__exit__()
        raise RuntimeError(f"Prometheus did not become ready:\n{said}")

    def __exit__(self, *_error: object) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    @property
    def version(self) -> str:
        return str(json.loads(self.request("GET", "/api/v1/status/buildinfo")[1])["data"]["version"])

    def load(self, series: Sequence[Series]) -> None:
        """All samples, in slices of time: a fresh head takes any past, but nothing much older than its newest."""
        for low in range(BASE, END, 1_800_000):
            body = write_request(series, low, low + 1_800_000)
            status, answer = self.request(
                "POST",
                "/api/v1/write",
                body,
                {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
            )
            if status >= 300:
                raise RuntimeError(f"Prometheus refused the samples with {status}: {answer.decode(errors='replace')}")

    def ask(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer: dict[str, Any] = json.loads(self.request("POST", path, urlencode(parameters).encode(), headers)[1])
        return answer


def write_request(series: Sequence[Series], low: int, high: int) -> bytes:
    """A packed prometheus.WriteRequest of the samples with low <= time < high."""
    messages = []
    for one in series:
        samples = [(at, v) for at, v in zip(one.times, one.values, strict=True) if low <= at < high]
        if samples:
            messages.append(remote_write.series(sorted(one.labels.items()), samples))
    return remote_write.packed(*messages)


# -- answers ---------------------------------------------------------------------------------------------------------


Rows = dict[Labels, dict[int, float]]


@dataclass(frozen=True)
class Answer:
    """What came back: an error's kind and text, or series of labels and {ms: value}."""

    error: str = ""
    kind: str = ""
    series: tuple[tuple[dict[str, str], dict[int, float]], ...] = ()

    @property
    def doubled(self) -> bool:
        return len({tuple(sorted(labels.items())) for labels, _ in self.series}) < len(self.series)

    def rows(self, digits: int) -> Rows:
        """By labels; of a number that count_values made a label of, so many digits count, and what is then the same
        is added up."""
        rows: Rows = {}
        for labels, points in self.series:
            text = labels.get("value", "")
            counted = {"value": f"{float(text):.{digits - 1}e}"} if _COUNTED.fullmatch(text) else {}
            row = rows.setdefault(tuple(sorted({**labels, **counted}.items())), {})
            for t, value in points.items():
                row[t] = row[t] + value if t in row else value
        return rows


@dataclass(frozen=True)
class Question:
    """One expression at one time, or over a range when step is not 0; milliseconds."""

    text: str
    start: int
    end: int
    step: int

    def __str__(self) -> str:
        when = f"at {self.start / 1000:.0f}"
        return f"{self.text}   [{f'{when} to {self.end / 1000:.0f} by {self.step / 1000:.0f}' if self.step else when}]"


def theirs(peer: Prometheus, question: Question) -> Answer:
    # The function was renamed, not changed, when Prometheus 3 came.
    text = question.text.replace("double_exponential_smoothing", "holt_winters")
    if question.step:
        asked = {"query": text, "start": str(question.start / 1000), "end": str(question.end / 1000)}
        answer = peer.ask("/api/v1/query_range", {**asked, "step": str(question.step / 1000)})
    else:
        answer = peer.ask("/api/v1/query", {"query": text, "time": str(question.start / 1000)})
    if answer["status"] != "success":
        return Answer(answer["error"], answer["errorType"])
    data = answer["data"]
    if data["resultType"] == "scalar":
        return Answer(series=(({}, {question.start: float(data["result"][1])}),))
    series = []
    for one in data["result"]:
        points = one["values"] if "values" in one else [one["value"]]
        series.append((one["metric"], {round(float(t) * 1000): float(v) for t, v in points}))
    return Answer(series=tuple(series))


def ours(source: MemorySource, question: Question) -> Answer:
    try:
        if question.step:
            result = engine.query_range(question.text, source, question.start, question.end, question.step)
        else:
            result = engine.instant(question.text, source, question.start)
    except PromQLError as error:
        return Answer(str(error), error.kind)
    times = result.ts.tolist()
    return Answer(
        series=tuple(
            (labels, {t: x for t, x, here in zip(times, v, ok, strict=True) if here})
            for labels, v, ok in zip(result.labels.dicts(), result.v.tolist(), result.ok.tolist(), strict=True)
        )
    )


def difference(left: Answer, right: Answer) -> str:
    """What is not the same, in a few words; "" where nothing is."""
    if left.doubled or right.doubled:
        return "the same label set twice"
    if left.error or right.error:
        if left.error and right.error:
            return "" if left.kind == right.kind else f"errors of two kinds: {left.error} | {right.error}"
        return f"an error on one side: {left.error or right.error}"
    found = _difference(left.rows(9), right.rows(9))
    # A counted value may lie where nine digits are rounded up or down; then it does not lie there for seven.
    return found and _difference(left.rows(7), right.rows(7))


def _difference(left: Rows, right: Rows) -> str:
    if left.keys() != right.keys():
        return f"label sets: {[dict(labels) for labels in left.keys() ^ right.keys()][:2]} on one side only"
    for labels, points in left.items():
        other = right[labels]
        if points.keys() != other.keys():
            return f"steps of {dict(labels)}: {sorted(points.keys() ^ other.keys())[:3]} on one side only"
        for t, value in points.items():
            if not close(value, other[t]):
                return f"values of {dict(labels)} at {t / 1000:.0f}: {value!r} | {other[t]!r}"
    return ""


def close(left: float, right: float) -> bool:
    return (
        left == right
        or (math.isnan(left) and math.isnan(right))
        or math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    )


# -- known differences between 2.42 and 3.x --------------------------------------------------------------------------


@contextmanager
def names_at_once() -> Iterator[None]:
    """Up to 2.x a function takes the name away at once, not when the query ends."""
    whole = evaluator.Evaluator.eval

    def eager(self: evaluator.Evaluator, *arguments: Any) -> evaluator.Value:
        value = whole(self, *arguments)
        if not isinstance(value, Vec) or not value.drop.any():
            return value
        labels = value.labels.drop_where(METADATA, value.drop)
        rows = value.ok.any(axis=1)
        kept = Vec(labels, value.v, value.ok, np.zeros(value.size, dtype=np.bool_)).take(np.flatnonzero(rows))
        return binary.merged(kept)

    with patch.object(evaluator.Evaluator, "eval", eager):
        yield


@contextmanager
def lone_variance() -> Iterator[None]:
    """Up to 2.x the variance of a single infinity or NaN was 0."""
    whole = aggregate._variance

    def old(groups: aggregate.Groups, v: Floats, ok: Mask, present: Floats) -> Floats:
        return np.where(present == 1, 0.0, whole(groups, v, ok, present))

    with patch.object(aggregate, "_variance", old):
        yield


@contextmanager
def named_atan2() -> Iterator[None]:
    """Up to 2.x atan2 was the one arithmetic operator that left the metric its name."""
    scalar, vector = binary.with_scalar, binary.vectors

    def named(node: ast.Binary, vec: Vec) -> Vec:
        return Vec(vec.labels, vec.v, vec.ok, vec.drop & (node.op != "atan2"))

    def with_scalar(node: ast.Binary, *arguments: Any, **how: Any) -> Vec:
        return named(node, scalar(node, *arguments, **how))

    def vectors(node: ast.Binary, *arguments: Any) -> Vec:
        return named(node, vector(node, *arguments))

    with patch.object(binary, "with_scalar", with_scalar), patch.object(binary, "vectors", vectors):
        yield


@contextmanager
def lenient_matches() -> Iterator[None]:
    """Up to 2.x two matches were no error where a comparison kept at most one of them."""
    vectors, refuse = binary.vectors, binary._refuse_many_to_one

    def old(node: ast.Binary, *arguments: Any) -> Vec:
        if node.op not in ast.COMPARISONS or node.bool_modifier or node.matching.group:
            return vectors(node, *arguments)
        with patch.object(binary, "_refuse_many_to_one", lambda keys, ok: None):
            vec = vectors(node, *arguments)
        refuse(binary.signatures(vec.labels, node.matching), vec.ok)
        return vec

    with patch.object(binary, "vectors", old):
        yield


@contextmanager
def old_extrapolation() -> Iterator[None]:
    """Up to 2.x a counter's zero decided first whether the window's start is near, and only then how far to go."""
    whole = windows.extrapolated

    def old(found: windows.Windows, *, counter: bool, per_second: bool) -> windows.Answer:
        if not counter:
            return whole(found, counter=counter, per_second=per_second)
        increase = found.value(found.hi - 1) - found.value(found.lo)
        with np.errstate(all="ignore"):
            windows._add_resets(found, increase)
            first, last = found.time(found.lo), found.time(found.hi - 1)
            spanned = (last - first) / 1000
            spacing = spanned / (found.count - 1)
            to_start, to_end = (first - (found.ends - found.width)) / 1000, (found.ends - last) / 1000
            to_zero = spanned * (found.value(found.lo) / increase)
            nearer = (increase > 0) & (found.value(found.lo) >= 0) & (to_zero < to_start)
            to_start = np.where(nearer, to_zero, to_start)
            to_start = np.where(to_start < spacing * 1.1, to_start, spacing / 2)
            to_end = np.where(to_end < spacing * 1.1, to_end, spacing / 2)
            increase *= (spanned + to_start + to_end) / spanned
        return increase / (found.width / 1000 if per_second else 1), found.count >= 2

    table = {name: partial(old, counter=True, per_second=name == "rate") for name in ("rate", "increase")}
    with patch.dict(evaluator._WINDOW, table):
        yield


@contextmanager
def any_date() -> Iterator[None]:
    """What is no time has a date in Prometheus: that of the least 64-bit integer, where processors end up."""
    dates = {"minute": 30, "hour": 15, "day_of_week": 0, "day_of_month": 4, "day_of_year": 339}
    dates |= {"days_in_month": 31, "month": 12, "year": 292277026596}

    def made(part: elementwise.Elementwise, date: int) -> elementwise.Elementwise:
        return lambda v: np.where(np.abs(v) < 9.2e18, part(v), date)

    with patch.dict(elementwise.CALENDAR, {name: made(elementwise.CALENDAR[name], dates[name]) for name in dates}):
        yield


@contextmanager
def early_overflow() -> Iterator[None]:
    """Go takes sinh and cosh of large numbers from exp, which overflows before they do."""
    half: dict[str, elementwise.Elementwise] = {
        "sinh": lambda v: np.where(np.abs(v) > 21, np.sign(v) * np.exp(np.abs(v)) * 0.5, np.sinh(v)),
        "cosh": lambda v: np.where(np.abs(v) > 21, np.exp(np.abs(v)) * 0.5, np.cosh(v)),
    }
    with patch.dict(elementwise.MATHEMATICS, half):
        yield


RULES: Final[dict[str, tuple[str, Callable[[], Any]]]] = {
    "names": ("2.x drops names at once, 3.x when the query ends", names_at_once),
    "variance": ("2.x: the variance of a lone infinity or NaN is 0, 3.x: NaN", lone_variance),
    "atan2": ("2.x: atan2 keeps the metric's name", named_atan2),
    "extrapolation": ("2.x: a counter that began in the window is extrapolated by another rule", old_extrapolation),
    "matches": ("2.x: two matches are no error where a comparison keeps at most one", lenient_matches),
    "dates": ("NaN, infinities and far times have an arbitrary date in Prometheus, NaN here", any_date),
    "overflow": (
        "sinh and cosh between 709.78 and 710.47 are infinite in Go, which takes them from exp",
        early_overflow,
    ),
}
OTHER: Final = {
    "peer": "the peer's range query contradicts its own instant queries, which agree with ours",
    "rounding": "our own answer moves as far when samples are shifted by one part in 10^13",
}


def why(names: str) -> str:
    return "; ".join(RULES[name][0] for name in names.split("+"))


def shifted(series: Sequence[Series]) -> list[MemorySource]:
    """The same samples, all a hair larger, all a hair smaller, and each by its own hair."""
    ragged = MemorySource(series).ragged
    own = np.random.default_rng(1).uniform(-SHIFT, SHIFT, len(ragged.v))
    sources = []
    for hair in (np.full(len(own), SHIFT), np.full(len(own), -SHIFT), own, -own):
        numbers = np.isfinite(ragged.v)
        v = ragged.v.copy()
        v[numbers] *= 1 + hair[numbers]
        sources.append(MemorySource.of(Ragged(ragged.labels, ragged.ts, v, ragged.off)))
    return sources


@dataclass
class Report:
    """Questions asked, how many answers were alike, known differences by rule, and those that nobody can explain."""

    asked: int = 0
    answered: int = 0
    refused: int = 0
    known: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.asked} questions: {self.answered} with values, {self.refused} refused by both",
            f"{self.known.total()} differ for a known reason, {len(self.unexplained)} for none",
        ]
        for name, count in self.known.most_common():
            lines.append(f"  {count:5} {name}: {OTHER[name] if name in OTHER else why(name)}")
            lines.append(f"        {self.examples[name]}")
        return "\n".join([*lines, *self.unexplained])


class Judge:
    """Puts questions to both and sorts the answers."""

    def __init__(self, peer: Prometheus, series: Sequence[Series]) -> None:
        self.peer = peer
        self.source = MemorySource(series)
        self.shifted = shifted(series)
        self.report = Report()

    def put(self, question: Question) -> None:
        report = self.report
        report.asked += 1
        expected, got = theirs(self.peer, question), ours(self.source, question)
        found = difference(expected, got)
        if not found:
            report.answered += bool(expected.series)
            report.refused += bool(expected.error)
            return
        reason = self.reason(question, expected, got)
        if reason:
            report.known[reason] += 1
            report.examples.setdefault(reason, f"{question}: {found}")
        else:
            report.unexplained.append(f"{question}\n    {found}")

    def reason(self, question: Question, expected: Answer, got: Answer) -> str:
        """The fewest rules that explain it, joined by +; or a name in OTHER; or "" ."""
        for size in range(1, len(RULES) + 1):
            for names in combinations(RULES, size):
                with ExitStack() as stack:
                    for name in names:
                        stack.enter_context(RULES[name][1]())
                    if not difference(expected, ours(self.source, question)):
                        return "+".join(names)
        if question.step and not difference(self.step_by_step(question), got):
            return "peer"
        if not got.error and any(difference(got, ours(source, question)) for source in self.shifted):
            return "rounding"
        return ""

    def step_by_step(self, question: Question) -> Answer:
        """The peer's answer to a range query from one instant query a step."""
        text = question.text.replace("start()", f"{question.start / 1000}").replace("end()", f"{question.end / 1000}")
        rows: dict[Labels, dict[int, float]] = {}
        for at in range(question.start, question.end + 1, question.step):
            answer = theirs(self.peer, Question(text, at, at, 0))
            if answer.error:
                return answer
            for labels, points in answer.series:
                rows.setdefault(tuple(sorted(labels.items())), {}).update(points)
        return Answer(series=tuple((dict(labels), points) for labels, points in rows.items()))


def questions(count: int, seed: int) -> Iterator[Question]:
    """Each expression once at one time and once over ten minutes."""
    expressions = Expressions(seed)
    for _ in range(count):
        text, at = expressions.query(), expressions.moment()
        yield Question(text, at, at, 0)
        yield Question(text, at, at + 600_000, 60_000)


def run(program: str, count: int, seed: int) -> Report:
    series = demo()
    with Prometheus(program) as peer:
        peer.load(series)
        judge = Judge(peer, series)
        for question in questions(count, seed):
            judge.put(question)
        return judge.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prometheus", default=shutil.which("prometheus"), help="default: the one in PATH")
    options = parser.parse_args()
    if not options.prometheus:
        parser.error("no prometheus in PATH: install the package or name the program with --prometheus")
    report = run(options.prometheus, options.expressions, options.seed)
    sys.stdout.write(f"{report}\n")
    return bool(report.unexplained)


if __name__ == "__main__":
    sys.exit(main())
