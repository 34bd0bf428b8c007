"""Unit tests of rules in promtool's format: a simulated clock, series from the test, and the evaluation's own steps.

Pure: samples live in memory, time is counted from the test's start, and what becomes of a series is decided by the
same `judging.judge` and `recording.results` as in live evaluation. Rules are plain ones (a level each, see
`plainrules`), so that a test means here what it means to promtool.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

import numpy as np

from apps.alerting import yamltext
from apps.alerting.judging import Circumstances, judge
from apps.alerting.lifecycle import ACTIVE, OPEN, Life, State
from apps.alerting.plans import GroupPlan, RecordPlan, RulePlan, in_stages
from apps.alerting.recording import Answer, results
from apps.alerting.rulefiles import Problem, RuleFileError, items, known, mapping, needed, span, text_of, texts
from apps.alerting.template_functions import Sample, TemplateError
from apps.alerting.templates import Context, expand
from apps.alerting.yamltext import Mapping as Fields
from apps.alerting.yamltext import Node, YamlError
from apps.promql import engine
from apps.promql.errors import DeadlineExceeded, PromQLError, QueryError
from apps.promql.labels import NAME, Labels
from apps.promql.lexer import parse_number
from apps.promql.limits import Limits, Watch
from apps.promql.parser import parse, parse_matchers
from apps.promql.result import Result, number
from apps.promql.series import STALE, Ragged, offsets
from apps.promql.source import Matcher, MemorySource, matching
from apps.promql.text import duration, label_set

MOST_SAMPLES: Final = 1_000_000
"""Samples that the series of one file may unfold to; a few letters (`1x999999`) are 30 MB of them."""
MOST_EVALUATIONS: Final = 10_000
"""Rules times instants of one file; beyond it is refused, so that saving a rule cannot take minutes."""
UNHURRIED: Final = Watch()

Names: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class ExpectedAlerts:
    """The alerts of that name that fire at that time (ms from the start): labels and annotations of each."""

    at: int
    name: str
    alerts: tuple[tuple[Names, Names], ...]


@dataclass(frozen=True, slots=True)
class ExpectedSamples:
    """What an expression gives at that time (ms from the start): labels and value of each series."""

    at: int
    expression: str
    samples: tuple[tuple[Names, float], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of `tests`. Times in milliseconds."""

    name: str
    interval: int
    series: tuple[tuple[Names, tuple[float | None, ...]], ...]
    alerts: tuple[ExpectedAlerts, ...]
    samples: tuple[ExpectedSamples, ...]
    external_labels: Names
    external_url: str
    start: int

    @property
    def end(self) -> int:
        """The latest time that is looked at."""
        return max([wanted.at for wanted in self.alerts] + [wanted.at for wanted in self.samples], default=0)


@dataclass(frozen=True, slots=True)
class TestFile:
    """A file of tests; the rules under test are not in it."""

    __test__ = False  # for pytest: a class of the portal, no test

    rule_files: tuple[str, ...]
    interval: int
    group_order: tuple[str, ...]
    fuzzy: bool
    cases: tuple[Case, ...]

    @property
    def alert_names(self) -> set[str]:
        """Alerts that are asked for."""
        return {wanted.name for case in self.cases for wanted in case.alerts}

    @property
    def expressions(self) -> list[str]:
        """Expressions that are asked."""
        return [wanted.expression for case in self.cases for wanted in case.samples]


# --- Reading ------------------------------------------------------------------------------------------------------


def read(text: str, file: str = "test") -> TestFile:
    """The tests of a file; RuleFileError names file, line and what is wrong."""
    try:
        return _file(yamltext.read(text))
    except YamlError as error:
        raise RuleFileError([Problem(file, error.line, error.message)]) from None


def _file(root: Node | None) -> TestFile:
    top = mapping(root, "a file of tests")
    names = ("rule_files", "evaluation_interval", "fuzzy_compare", "group_eval_order", "tests")
    known(top, names, "a file of tests")
    order = tuple(text_of(node, "group_eval_order") for node in items(top.pairs.get("group_eval_order"), "the order"))
    for name in order:
        if order.count(name) > 1:
            raise YamlError(f"group name repeated in evaluation order: {name}", top.keys["group_eval_order"].line)
    fuzzy = text_of(top.pairs.get("fuzzy_compare"), "fuzzy_compare").lower() or "false"
    if fuzzy not in ("true", "false"):
        raise YamlError("fuzzy_compare is true or false", top.keys["fuzzy_compare"].line)
    interval = span(top.pairs.get("evaluation_interval"), "evaluation_interval") or 60_000
    cases: list[Case] = []
    left = MOST_SAMPLES
    for node in items(top.pairs.get("tests"), "tests"):
        cases.append(_case(node, interval, left))
        left -= sum(len(values) for _, values in cases[-1].series)
    return TestFile(
        rule_files=tuple(text_of(node, "rule_files") for node in items(top.pairs.get("rule_files"), "rule_files")),
        interval=interval,
        group_order=order,
        fuzzy=fuzzy == "true",
        cases=tuple(cases),
    )


def _case(node: Node, interval: int, left: int) -> Case:
    """One test, whose series may have `left` samples."""
    top = mapping(node, "a test")
    names = ("name", "interval", "input_series", "alert_rule_test", "promql_expr_test", "external_labels",
             "external_url", "start_timestamp")  # fmt: skip
    known(top, names, "a test")
    series = []
    for child in items(top.pairs.get("input_series"), "input_series"):
        fields = mapping(child, "an input series")
        known(fields, ("series", "values"), "an input series")
        labels = _labels(needed(fields, "series", "an input series"), fields.keys["series"].line)
        try:
            values = tuple(sequence(text_of(fields.pairs.get("values"), "values"), left))
        except ValueError as error:
            raise YamlError(f"values: {error}", fields.keys.get("values", fields).line) from None
        left -= len(values)
        series.append((labels, values))
    return Case(
        name=text_of(top.pairs.get("name"), "name"),
        interval=span(top.pairs.get("interval"), "interval") or interval,
        series=tuple(series),
        alerts=tuple(map(_alerts, items(top.pairs.get("alert_rule_test"), "alert_rule_test"))),
        samples=tuple(map(_samples, items(top.pairs.get("promql_expr_test"), "promql_expr_test"))),
        external_labels=dict(texts(top.pairs.get("external_labels"), "external_labels")),
        external_url=text_of(top.pairs.get("external_url"), "external_url"),
        start=_start(top),
    )


def _alerts(node: Node) -> ExpectedAlerts:
    top = mapping(node, "an alert_rule_test")
    known(top, ("eval_time", "alertname", "exp_alerts"), "an alert_rule_test")
    name = needed(top, "alertname", "an alert_rule_test")
    wanted = []
    for child in items(top.pairs.get("exp_alerts"), "exp_alerts"):
        fields = mapping(child, "an expected alert")
        known(fields, ("exp_labels", "exp_annotations"), "an expected alert")
        labels = dict(texts(fields.pairs.get("exp_labels"), "exp_labels"))
        notes = dict(texts(fields.pairs.get("exp_annotations"), "exp_annotations"))
        wanted.append((_present({**labels, "alertname": name}), _present(notes)))
    return ExpectedAlerts(span(top.pairs.get("eval_time"), "eval_time") or 0, name, tuple(wanted))


def _samples(node: Node) -> ExpectedSamples:
    top = mapping(node, "a promql_expr_test")
    known(top, ("expr", "eval_time", "exp_samples"), "a promql_expr_test")
    expression = needed(top, "expr", "a promql_expr_test")
    try:
        parse(expression)
    except PromQLError as error:
        raise YamlError(f"expr: {error}", top.keys["expr"].line) from None
    wanted = []
    for child in items(top.pairs.get("exp_samples"), "exp_samples"):
        fields = mapping(child, "an expected sample")
        if "histogram" in fields.pairs:
            raise YamlError("native histograms are not kept here, so none can be expected", fields.line)
        known(fields, ("labels", "value"), "an expected sample")
        labels = _labels(text_of(fields.pairs.get("labels"), "labels"), fields.line)
        wanted.append((labels, _number(fields)))
    return ExpectedSamples(span(top.pairs.get("eval_time"), "eval_time") or 0, expression, tuple(wanted))


def _number(fields: Fields) -> float:
    text = text_of(fields.pairs.get("value"), "value") or "0"
    try:
        return _float(text)
    except ValueError:
        raise YamlError(f"value: {text[:50]!r} is no number", fields.keys["value"].line) from None


def _float(text: str) -> float:
    """A number with or without a sign, as Go and YAML write it."""
    digits = text.lower().lstrip("+-").removeprefix(".")
    if digits in ("inf", "nan"):
        value = float(digits)
    else:
        try:
            value = parse_number(text.lstrip("+-"))
        except OverflowError as error:
            raise ValueError(str(error)) from None
    return -value if text.startswith("-") else value


def _start(top: Fields) -> int:
    text = text_of(top.pairs.get("start_timestamp"), "start_timestamp")
    if not text:
        return 0
    try:
        if re.fullmatch(r"-?\d{1,12}(\.\d+)?", text):
            return round(float(text) * 1000)
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return round(at.timestamp() * 1000)
    except ValueError:
        message = (
            f"start_timestamp: {text[:50]!r} is neither seconds since 1970 nor a time such as 2021-01-01T00:00:00Z"
        )
        raise YamlError(message, top.keys["start_timestamp"].line) from None


def _labels(text: str, line: int) -> Names:
    """The labels of a series as it is written: name{label="value", …}."""
    if text.strip() in ("", "{}"):
        return {}
    try:
        matchers = parse_matchers(text)
    except PromQLError as error:
        raise YamlError(f"{text[:100]!r} is no series: {error}", line) from None
    if any(matcher.op != "=" for matcher in matchers):
        raise YamlError(f"{text[:100]!r} is no series: its labels are given with =", line)
    return _present({matcher.name: matcher.value for matcher in matchers})


def _present(names: Mapping[str, str]) -> Names:
    """Without empty ones: an empty label is no label."""
    return {name: text for name, text in names.items() if text}


# No hexadecimal numbers: 0x10 is eleven times 0.
_VALUE: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_ITEM: Final = re.compile(
    rf"(?P<gap>_)(?:x(?P<gaps>\d+))?|(?P<stale>stale)|(?P<word>[+-]?(?:[iI]nf|[nN]a[nN]))"
    rf"|(?P<value>{_VALUE})(?:(?P<step>[+-]{_VALUE.removeprefix('[+-]?')})?x(?P<times>\d+))?"
)


def sequence(text: str, most: int = MOST_SAMPLES) -> Iterator[float | None]:
    """The values of a series in promtool's notation, None where there is no sample; ValueError names the item.

    `a+bxn` is a, a+b, … a+nb and `axn` is a, n+1 times each; `_` and `_xn` are no sample, once and n times; `stale`
    ends the series.
    """
    for item in text.split():
        found = _ITEM.fullmatch(item)
        if found is None:
            raise ValueError(f"{item[:50]!r} is none of a, axn, a+bxn, a-bxn, _, _xn, stale")
        repeats = found["gaps"] or found["times"] or "0"
        times = int(repeats) if len(repeats) <= 9 else most
        most -= times + 1
        if most < 0:
            raise ValueError(f"with {item[:50]!r} the series of the file have more than {MOST_SAMPLES} samples")
        if found["gap"]:
            yield from [None] * (times if found["gaps"] else 1)
        elif found["stale"]:
            yield STALE
        elif found["word"]:
            yield _float(found["word"])
        else:
            value, step = _float(found["value"]), _float(found["step"] or "0")
            for _ in range(times + 1):
                yield value
                value += step


# --- Running ------------------------------------------------------------------------------------------------------


def run(
    tests: TestFile, groups: Sequence[GroupPlan], *, most: int = MOST_EVALUATIONS, watch: Watch = UNHURRIED
) -> list[str]:
    """What failed, each as a text of several lines; empty where all is as expected. Rules have one level each.

    A test that is not through when the time of `watch` is up has failed.
    """
    here = {rule.name for group in groups for rule in group.rules}
    if missing := sorted(tests.alert_names - here):
        known_names = ", ".join(sorted(here)[:20]) or "none"
        return [f"There is no alert {name} among the rules under test ({known_names})." for name in missing]
    rules = sum(len(group.rules) + len(group.records) for group in groups)
    # A tick costs something without rules, too.
    evaluations = sum(case.end // tests.interval + 1 for case in tests.cases) * max(1, rules)
    if evaluations > most:
        return [f"It would take {evaluations} evaluations of rules, more than {most}: use a shorter eval_time."]
    ordered = _ordered(groups, tests.group_order)
    failures: list[str] = []
    for case in tests.cases:
        try:
            failures += _Trial(case, tests, ordered, watch).run()
        except DeadlineExceeded:
            return [*failures, f"It was given up after {watch.seconds:g} seconds: use fewer series or a shorter time."]
    return failures


def _ordered(groups: Sequence[GroupPlan], order: Sequence[str]) -> list[list[GroupPlan]]:
    """Groups that are evaluated together, one set after the other: all at once where the test asks for no order."""
    place = {name: number for number, name in enumerate(order)}
    named = sorted((group for group in groups if group.name in place), key=lambda group: place[group.name])
    rest = [group for group in groups if group.name not in place]
    return [[group] for group in named] + ([rest] if rest else [])


@dataclass(slots=True)
class _Watched:
    """One alert: its life, labels, and what its texts are expanded from."""

    life: Life
    labels: Names
    since: int
    found: Names = field(default_factory=dict)
    value: float = math.nan


class _Tape:
    """The store of a test: the series of the test as far as time has come, and what rules have written."""

    def __init__(self, case: Case) -> None:
        self.now = case.start
        given = []
        for labels, values in case.series:
            present = [(case.start + n * case.interval, v) for n, v in enumerate(values) if v is not None]
            given.append((labels, [at for at, _ in present], [value for _, value in present]))
        self.given = MemorySource(given)
        self.inputs = {frozenset(labels.items()) for labels, _, _ in given}
        self.rows: dict[frozenset[tuple[str, str]], tuple[list[int], list[float]]] = {}
        self.labels = Labels.empty()

    def write(self, labels: Names, value: float) -> None:
        """One sample of now; ValueError for a series that the test gives itself."""
        key = frozenset(labels.items())
        if key in self.inputs:
            raise ValueError(f"a rule writes the series {label_set(labels)}, which is an input series of the test, too")
        times, values = self.rows.setdefault(key, ([], []))
        if times and times[-1] == self.now:
            values[-1] = value
            return
        times.append(self.now)
        values.append(value)

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        tmax = min(tmax, self.now)
        if tmin >= tmax:
            return Ragged.empty()
        given = self.given.select(matchers, tmin, tmax)
        if not self.rows:
            return given
        if self.labels.size != len(self.rows):
            self.labels = Labels.from_dicts([dict(key) for key in self.rows])
        chosen = np.flatnonzero(matching(self.labels, matchers))
        if not len(chosen):
            return given
        columns = list(self.rows.values())
        times: list[int] = []
        values: list[float] = []
        counts = []
        for row in chosen.tolist():
            ts, vs = columns[row]
            low, high = bisect_right(ts, tmin), bisect_right(ts, tmax)
            times += ts[low:high]
            values += vs[low:high]
            counts.append(high - low)
        written = Ragged(
            self.labels.take(chosen),
            np.array(times, dtype=np.int64),
            np.array(values, dtype=np.float64),
            offsets(np.array(counts, dtype=np.int64)),
        )
        return Ragged.concat([given, written]) if given.size else written


class _Broken(Exception):
    """A rule that cannot be evaluated: the test ends here, as in promtool."""


class _Trial:
    """One case on its clock."""

    def __init__(self, case: Case, tests: TestFile, ordered: Sequence[Sequence[GroupPlan]], watch: Watch) -> None:
        self.case, self.tests, self.watch = case, tests, watch
        self.tape = _Tape(case)
        self.steps: list[tuple[list[list[RecordPlan]], list[RulePlan]]] = [
            (
                in_stages(record for group in groups for record in group.records),
                [rule for group in groups for rule in group.rules],
            )
            for groups in ordered
        ]
        self.alerts: dict[int, dict[bytes, _Watched]] = {}
        self.written: dict[int, list[Names]] = {}
        self.told: list[Names] = []
        self.failures: list[str] = []

    def run(self) -> list[str]:
        waiting = sorted(self.case.alerts, key=lambda wanted: wanted.at)
        try:
            for passed in range(0, self.case.end + 1, self.tests.interval):
                self.tape.now = self.case.start + passed
                self.tick()
                while waiting and waiting[0].at < passed + self.tests.interval:
                    self.check_alerts(waiting.pop(0))
        except _Broken as broken:
            return [*self.failures, self.titled(f"at {duration(self.tape.now - self.case.start)}: {broken}")]
        for wanted in self.case.samples:
            self.check_samples(wanted)
        return self.failures

    def titled(self, text: str) -> str:
        return f"{self.case.name}: {text}" if self.case.name else text

    # The evaluation

    def tick(self) -> None:
        """All rules at one instant: recording rules in stages, then alerts, as a tick of the portal does it."""
        self.watch.check()
        try:
            for stages, rules in self.steps:
                for stage in stages:
                    for record, answer in zip(stage, self.ask([rule.question.text for rule in stage]), strict=True):
                        self.record(record, answer)
                for rule, answer in zip(rules, self.ask([rule.question.text for rule in rules]), strict=True):
                    self.judge(rule, answer)
            self.tell()
        except ValueError as error:
            raise _Broken(str(error)) from None

    def ask(self, texts: Sequence[str]) -> list[Answer]:
        if not texts:
            return []
        answers = engine.evaluate_many(texts, self.tape, self.tape.now, limits=self.limits())
        self.watch.check()
        return answers

    def limits(self) -> Limits:
        """What one expression may take of the time that is left."""
        return Limits(seconds=self.watch.left)

    def record(self, rule: RecordPlan, answer: Answer) -> None:
        try:
            labels, values = results(rule, answer)
        except PromQLError as error:
            raise _Broken(f"the recording rule {rule.name} fails: {error}") from None
        rows = labels.dicts()
        for row, value in zip(rows, values, strict=True):
            self.tape.write(row, value)
        self.end([row for row in self.written.get(id(rule), ()) if row not in rows])
        self.written[id(rule)] = rows

    def end(self, series: Iterable[Names]) -> None:
        """Series that are not written any more get the marker that ends them, unless another rule writes them now."""
        for labels in series:
            times, _ = self.tape.rows[frozenset(labels.items())]
            if times[-1] != self.tape.now:
                self.tape.write(labels, STALE)

    def judge(self, rule: RulePlan, answer: Answer) -> None:
        now = datetime.fromtimestamp(self.tape.now / 1000, tz=UTC)
        watched = self.alerts.setdefault(id(rule), {})
        try:
            if isinstance(answer, PromQLError):
                raise answer
            lives = {identity: alert.life for identity, alert in watched.items()}
            found = judge(rule, answer, lives, {}, Circumstances(now))
        except PromQLError as error:
            raise _Broken(f"the alert {rule.name} fails: {error}") from None
        for verdict in found.verdicts:
            after = verdict.step.after
            if after is None or after.state not in OPEN:
                watched.pop(verdict.fingerprint, None)
                continue
            alert = watched.get(verdict.fingerprint)
            if alert is None:
                alert = watched[verdict.fingerprint] = _Watched(after, {}, self.tape.now)
            alert.life = after
            if verdict.value is not None and after.state in (State.PENDING, State.FIRING):
                alert.found, alert.value = dict(verdict.labels), verdict.value
            if not alert.labels:
                alert.labels = alert_labels(rule, verdict.labels, self.context(alert))

    def tell(self) -> None:
        """ALERTS and ALERTS_FOR_STATE of this instant; markers where an alert is no more or changed its state."""
        told = []
        for watched in self.alerts.values():
            for alert in watched.values():
                state = "pending" if alert.life.state is State.PENDING else "firing"
                told.append((alert.labels | {NAME: "ALERTS", "alertstate": state}, 1.0))
                told.append((alert.labels | {NAME: "ALERTS_FOR_STATE"}, float(alert.since // 1000)))
        for labels, value in told:
            self.tape.write(labels, value)
        self.end(self.told)
        self.told = [labels for labels, _ in told]

    def context(self, alert: _Watched) -> Context:
        self.watch.check()
        now = datetime.fromtimestamp(self.tape.now / 1000, tz=UTC)
        return Context(alert.found, alert.value, now, self.query, self.case.external_url, self.case.external_labels)

    def query(self, expression: str) -> list[Sample]:
        """`query` of templates."""
        try:
            answer = engine.instant(expression, self.tape, self.tape.now, limits=self.limits())
            return [Sample(labels, value) for labels, value in _rows(answer)]
        except PromQLError as error:
            raise TemplateError(str(error)) from None

    # What is expected

    def check_alerts(self, wanted: ExpectedAlerts) -> None:
        got = []
        for _, rules in self.steps:
            for rule in rules:
                if rule.name != wanted.name:
                    continue
                for alert in self.alerts.get(id(rule), {}).values():
                    if alert.life.state in ACTIVE:
                        context = self.context(alert)
                        notes = {key: expand(text, context, name=rule.name) for key, text in rule.annotations.items()}
                        got.append((alert.labels, _present(notes)))
        if _sorted(got) == _sorted(wanted.alerts):
            return
        self.failures.append(
            self.titled(
                f"alertname: {wanted.name}, time: {duration(wanted.at)}\n"
                f"  expected: {_listed(map(_shown, _sorted(wanted.alerts)))}\n"
                f"  got:      {_listed(map(_shown, _sorted(got)))}"
            )
        )

    def check_samples(self, wanted: ExpectedSamples) -> None:
        self.tape.now = max(self.tape.now, self.case.start + self.case.end)
        where = f"expr: {wanted.expression}, time: {duration(wanted.at)}"
        try:
            got = _rows(engine.instant(wanted.expression, self.tape, self.case.start + wanted.at, limits=self.limits()))
        except PromQLError as error:
            self.watch.check()
            self.failures.append(self.titled(f"{where}\n  fails: {error}"))
            return
        got.sort(key=lambda sample: sorted(sample[0].items()))
        expected = sorted(wanted.samples, key=lambda sample: sorted(sample[0].items()))
        if len(got) == len(expected) and all(
            one[0] == other[0] and self.same(one[1], other[1]) for one, other in zip(got, expected, strict=True)
        ):
            return
        shown: Callable[[tuple[Names, float]], str] = lambda sample: f"{_series(sample[0])} {number(sample[1])}"  # noqa: E731
        self.failures.append(
            self.titled(f"{where}\n  expected: {_listed(map(shown, expected))}\n  got:      {_listed(map(shown, got))}")
        )

    def same(self, one: float, other: float) -> bool:
        """Equal; with fuzzy_compare neighbours count as equal, too."""
        if one == other or (math.isnan(one) and math.isnan(other)):
            return True
        return self.tests.fuzzy and other in (math.nextafter(one, math.inf), math.nextafter(one, -math.inf))


def alert_labels(rule: RulePlan, found: Mapping[str, str], context: Context) -> Names:
    """The labels of a new alert of a rule with one level: those of the expression, of the level, of the rule."""
    labels = {"service": rule.service, **found}
    if "severity" not in rule.labels:
        labels["severity"] = rule.levels[0].severity.value
    labels |= {name: expand(text, context, name=rule.name) for name, text in rule.labels.items()}
    labels["alertname"] = rule.name
    return _present(labels)


def _rows(answer: Result) -> list[tuple[Names, float]]:
    if answer.kind not in ("vector", "scalar"):
        raise QueryError(f"the expression gives a {answer.kind}; a test compares a vector or a number")
    return [
        (labels, float(value[0]))
        for labels, value, ok in zip(answer.labels.dicts(), answer.v, answer.ok, strict=True)
        if ok[0]
    ]


def _sorted(alerts: Iterable[tuple[Names, Names]]) -> list[tuple[Names, Names]]:
    return sorted(alerts, key=lambda alert: (sorted(alert[0].items()), sorted(alert[1].items())))


def _shown(alert: tuple[Names, Names]) -> str:
    labels, notes = alert
    return f"labels {label_set(labels)}" + (f", annotations {label_set(notes)}" if notes else "")


def _series(labels: Names) -> str:
    rest = {name: text for name, text in labels.items() if name != NAME}
    return labels.get(NAME, "") + (label_set(rest) if rest or NAME not in labels else "")


def _listed(lines: Iterable[str]) -> str:
    shown = list(lines)
    if not shown:
        return "nothing"
    return "".join(f"\n    {line}" for line in shown[:50]) + (f"\n    and {len(shown) - 50} more" if shown[50:] else "")
