"""Rule files of Prometheus: text to plain values, with file and line in every error, and plain values to text. Pure.

What a file may hold and what it means follows Prometheus' documentation of recording and alerting rules. Values are
kept as they are written; what the portal makes of them is decided in `plainrules`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from apps.alerting import templates, yamltext
from apps.alerting.lifecycle import Severity
from apps.alerting.yamltext import Items, Mapping, Node, Scalar, YamlError, scalar
from apps.promql.ast import value_type
from apps.promql.errors import ParseError, PromQLError
from apps.promql.functions import SCALAR, VECTOR
from apps.promql.lexer import parse_duration
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.text import duration

Texts: TypeAlias = tuple[tuple[str, str], ...]
"""Names and texts, sorted by name."""

MOST_PROBLEMS: Final = 50
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_ORIGIN: Final = re.compile(r" *# rule: (?P<slug>[-a-zA-Z0-9_]{1,100})(?:, level: (?P<level>[a-z]+))?\s*\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class RuleFileError(Exception):
    """A file that is not taken; `problems` names every place that is wrong, up to a limit."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands; takes no part in comparisons."""

    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class PlainAlert:
    """One alerting rule of a file. Times in milliseconds; `expression` as written.

    `slug` and `level` come from the comment above it, where an export of a portal left one.
    """

    name: str
    expression: str
    pending: int = 0
    keep: int = 0
    labels: Texts = ()
    annotations: Texts = ()
    slug: str = field(default="", compare=False)
    level: Severity | None = field(default=None, compare=False)
    place: Place = field(default=Place(), compare=False)

    @property
    def canonical(self) -> "PlainAlert":
        """The same rule with its expression in the one form that the printer gives it."""
        return replace(self, expression=canonical(self.expression))


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """One recording rule of a file."""

    name: str
    expression: str
    labels: Texts = ()
    place: Place = field(default=Place(), compare=False)

    @property
    def canonical(self) -> "PlainRecord":
        """The same rule with its expression in the one form that the printer gives it."""
        return replace(self, expression=canonical(self.expression))


@dataclass(frozen=True, slots=True)
class PlainGroup:
    """A group; `interval` in milliseconds, None where the file leaves it to the server. Its labels are in its rules."""

    name: str
    interval: int | None
    records: tuple[PlainRecord, ...] = ()
    alerts: tuple[PlainAlert, ...] = ()
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True)
class RuleFile:
    """What a file says, and what its reader should know about it."""

    groups: tuple[PlainGroup, ...]
    notes: tuple[str, ...] = ()


def canonical(expression: str) -> str:
    """An expression as the printer writes it: two texts of one meaning become equal. ParseError."""
    return render(parse(expression))


# --- Reading ------------------------------------------------------------------------------------------------------


def read(text: str, file: str = "rules") -> RuleFile:
    """The groups of a rule file; RuleFileError names all that is wrong by file and line."""
    return _Reader(text, file).read()


def read_all(texts: Iterable[tuple[str, str]]) -> RuleFile:
    """The groups of several (name, text); a group may stand in one file only, as groups have no other name here."""
    groups: dict[str, PlainGroup] = {}
    notes: list[str] = []
    problems: list[Problem] = []
    for name, text in texts:
        try:
            found = read(text, name)
        except RuleFileError as error:
            problems += error.problems
            continue
        notes += found.notes
        for group in found.groups:
            if group.name in groups:
                first = groups[group.name].place
                message = f"the group {group.name!r} stands in {first.file} (line {first.line}) already"
                problems.append(Problem(name, group.place.line, message))
            groups[group.name] = group
    if problems:
        raise RuleFileError(problems[:MOST_PROBLEMS])
    return RuleFile(tuple(groups.values()), tuple(notes))


class _Reader:
    """One file."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.origins: dict[tuple[int, int], tuple[str, Severity | None]] = {}

    def read(self) -> RuleFile:
        groups: list[PlainGroup] = []
        try:
            root = yamltext.read(self.text)
            self.find_origins()
            read = [self.group(node) for node in self.groups(root)]
            groups = [group for group in read if group is not None]
        except YamlError as error:
            self.wrong(error)
        seen: dict[str, int] = {}
        for group in groups:
            first = seen.setdefault(group.name, group.place.line)
            if first != group.place.line:
                self.wrong(YamlError(f"the group {group.name!r} stands in line {first} already", group.place.line))
        if self.problems:
            raise RuleFileError(sorted(self.problems, key=lambda problem: problem.line)[:MOST_PROBLEMS])
        return RuleFile(tuple(groups), tuple(self.notes))

    def find_origins(self) -> None:
        """Comments that an export left: which line and column begins a rule of which slug and level."""
        if "# rule: " not in self.text:
            return
        for number, line in enumerate(self.text.split("\n"), 1):
            if (found := _ORIGIN.match(line)) is not None:
                level = found["level"]
                indent = len(line) - len(line.lstrip())
                severity = Severity(level) if level in list(Severity) else None
                self.origins[number + 1, indent + 2] = (found["slug"], severity)

    def wrong(self, error: YamlError) -> None:
        self.problems.append(Problem(self.file, error.line, error.message))

    def groups(self, root: Node | None) -> tuple[Node, ...]:
        if root is None:
            raise YamlError("the file is empty; a rule file begins with `groups:`")
        top = mapping(root, "a rule file")
        known(top, ("groups",), "a rule file")
        return items(top.pairs.get("groups"), "groups")

    def group(self, node: Node) -> PlainGroup | None:
        try:
            top = mapping(node, "a group")
            name = needed(top, "name", "a group")
            what = f"the group {name!r}"
            known(top, ("name", "interval", "limit", "query_offset", "labels", "rules"), what)
            interval = span(top.pairs.get("interval"), "interval")
            self.refuse_unkept(top, what)
            shared = dict(texts(top.pairs.get("labels"), "labels", self.label))
            nodes = items(top.pairs.get("rules"), "rules")
        except YamlError as error:
            self.wrong(error)
            return None
        if shared:
            self.notes.append(f"{self.file}: the labels of {what} were copied into each of its rules.")
        records: list[PlainRecord] = []
        alerts: list[PlainAlert] = []
        for child in nodes:
            try:
                rule = self.rule(child, shared)
            except YamlError as error:
                self.wrong(error)
                continue
            (alerts if isinstance(rule, PlainAlert) else records).append(rule)  # type: ignore[arg-type]
        return PlainGroup(name, interval or None, tuple(records), tuple(alerts), Place(self.file, top.line))

    def refuse_unkept(self, top: Mapping, what: str) -> None:
        """What the portal has no place for is refused by name; its neutral value says nothing and passes."""
        limit = text_of(top.pairs.get("limit"), "limit") or "0"
        if limit != "0":
            message = (
                f"{what} has `limit: {limit}`, which the portal does not apply: a rule of more than 20000 alerts is an "
                "error here; remove the line"
            )
            raise YamlError(message, top.keys["limit"].line)
        if span(top.pairs.get("query_offset"), "query_offset"):
            message = f"{what} has a `query_offset`, which the portal does not apply; write `offset` in its expressions"
            raise YamlError(message, top.keys["query_offset"].line)

    def rule(self, node: Node, shared: dict[str, str]) -> PlainAlert | PlainRecord:
        top = mapping(node, "a rule")
        record, alert = (text_of(top.pairs.get(name), name) for name in ("record", "alert"))
        if bool(record) == bool(alert):
            raise YamlError("a rule has either `record` or `alert`" + (", not both" if record else ""), top.line)
        what = f"the recording rule {record}" if record else f"the alert {alert}"
        fields = ("record", "expr", "labels") if record else (
            "alert", "expr", "for", "keep_firing_for", "labels", "annotations"
        )  # fmt: skip
        known(top, fields, what)
        expression = needed(top, "expr", what)
        if problem := check_expression(expression):
            raise YamlError(f"expr of {what}: {problem}", top.keys["expr"].line)
        place = Place(self.file, top.line)
        own = texts(top.pairs.get("labels"), "labels", self.label if alert else self.recorded_label)
        labels = tuple(sorted({**shared, **dict(own)}.items()))
        if record:
            if not METRIC.match(record):
                raise YamlError(f"{record!r} is no name that a recording rule can write here: letters, digits, "
                                "underscores and colons, no digit first", top.keys["record"].line)  # fmt: skip
            return PlainRecord(record, expression.strip(), labels, place)
        slug, level = self.origins.get((top.line, top.column), ("", None))
        return PlainAlert(
            name=alert,
            expression=expression.strip(),
            pending=span(top.pairs.get("for"), "for") or 0,
            keep=span(top.pairs.get("keep_firing_for"), "keep_firing_for") or 0,
            labels=labels,
            annotations=texts(top.pairs.get("annotations"), "annotations", self.annotation),
            slug=slug,
            level=level,
            place=place,
        )

    @staticmethod
    def label(name: str, text: str) -> str:
        """What is wrong with a label of an alert, or the empty string."""
        if name in ("__name__", "alertname", "alertstate"):
            return f"the label {name} is set by the evaluation"
        return _Reader.annotation(name, text, "label")

    @staticmethod
    def recorded_label(name: str, _: str) -> str:
        if name == "__name__" or not LABEL.match(name):
            return f"{name!r} is no label name here: letters, digits and underscores, no digit first"
        return ""

    @staticmethod
    def annotation(name: str, text: str, what: str = "annotation") -> str:
        if not LABEL.match(name):
            return f"{name!r} is no {what} name here: letters, digits and underscores, no digit first"
        problem = templates.check(text)
        return f"the template of {name}: {problem}" if problem else ""


def check_expression(text: str) -> str:
    """What is wrong with a rule's expression, or the empty string."""
    try:
        kind = value_type(parse(text))
    except PromQLError as error:
        return str(error)
    return "" if kind in (VECTOR, SCALAR) else f"a rule needs a vector or a number, this is a {kind}"


# --- Typed nodes, shared with the files of tests ---------------------------------------------------------------------


def mapping(node: Node | None, what: str) -> Mapping:
    """The node as a mapping; YamlError says what should stand there."""
    if isinstance(node, Mapping):
        return node
    raise YamlError(f"{what} is a mapping of names to values", node.line if node else 1)


def known(top: Mapping, names: Sequence[str], what: str) -> None:
    """YamlError for a field that is not among these."""
    for name, key in top.keys.items():
        if name not in names:
            raise YamlError(f"{what} has the unknown field {name!r}; there are: {', '.join(names)}", key.line)


def items(node: Node | None, what: str) -> tuple[Node, ...]:
    """The nodes of a list; nothing is an empty list."""
    if node is None or (isinstance(node, Scalar) and node.null):
        return ()
    if not isinstance(node, Items):
        raise YamlError(f"{what} is a list", node.line)
    return node.nodes


def text_of(node: Node | None, what: str) -> str:
    """The text of a scalar, "" where there is none."""
    if node is None:
        return ""
    if not isinstance(node, Scalar):
        raise YamlError(f"{what} is a text, not a list or mapping", node.line)
    return node.text


def needed(top: Mapping, name: str, what: str) -> str:
    """The text of a field that must be there."""
    text = text_of(top.pairs.get(name), name)
    if not text.strip():
        raise YamlError(f"{what} needs `{name}`", top.keys[name].line if name in top.keys else top.line)
    return text


def span(node: Node | None, what: str) -> int | None:
    """Milliseconds of a duration such as 1h30m, None where there is none."""
    text = text_of(node, what)
    if not text:
        return None
    try:
        return 0 if text == "0" else parse_duration(text)
    except (ValueError, ParseError):
        line = node.line if node else 1
        raise YamlError(f"{what}: {text[:50]!r} is no duration; write for example 5m or 1h30m", line) from None


def texts(node: Node | None, what: str, check: Callable[[str, str], str] | None = None) -> Texts:
    """Names and texts of a mapping, sorted; each is checked by `check(name, text)`, which returns what is wrong."""
    if node is None or (isinstance(node, Scalar) and node.null):
        return ()
    top = mapping(node, what)
    found = {}
    for name, value in top.pairs.items():
        found[name] = text_of(value, f"{what}: {name}")
        if check is not None and (problem := check(name, found[name])):
            raise YamlError(problem, top.keys[name].line)
    return tuple(sorted(found.items()))


# --- Writing ------------------------------------------------------------------------------------------------------


def write(groups: Iterable[PlainGroup], heading: str = "") -> str:
    """The text of a rule file. Groups and rules stay in their order; everything else has one form.

    Expressions are written as the printer gives them, so that a difference of two files is a difference in meaning.
    The comment above an alert names the rule that it comes from; `read` finds it again.
    """
    lines = [f"# {line}" for line in heading.splitlines()]
    lines.append("groups:")
    for group in groups:
        lines += [f"- name: {scalar(group.name, 2)}"]
        if group.interval is not None:
            lines.append(f"  interval: {duration(group.interval)}")
        lines.append("  rules:")
        for record in group.records:
            lines += [f"  - record: {record.name}", f"    expr: {scalar(canonical(record.expression), 6)}"]
            lines += _texts("labels", record.labels)
        for alert in group.alerts:
            lines += _alert(alert)
    if lines[-1] == "groups:":
        lines[-1] = "groups: []"
    return "\n".join(lines) + "\n"


def _alert(alert: PlainAlert) -> list[str]:
    lines = []
    if alert.slug:
        lines.append(f"  # rule: {alert.slug}" + (f", level: {alert.level}" if alert.level else ""))
    lines += [f"  - alert: {scalar(alert.name, 6)}", f"    expr: {scalar(canonical(alert.expression), 6)}"]
    if alert.pending:
        lines.append(f"    for: {duration(alert.pending)}")
    if alert.keep:
        lines.append(f"    keep_firing_for: {duration(alert.keep)}")
    return lines + _texts("labels", alert.labels) + _texts("annotations", alert.annotations)


def _texts(name: str, pairs: Texts) -> list[str]:
    if not pairs:
        return []
    return [f"    {name}:", *(f"      {scalar(key, 8)}: {scalar(text, 8)}" for key, text in pairs)]
