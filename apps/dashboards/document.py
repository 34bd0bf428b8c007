"""What a dashboard says, as a checked value: panels on a grid of 24 columns and variables. Values in, values out.

A document comes from editors, fixtures and other people's files, so everything in it is bounded and named where wrong.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Final

from apps.promql.errors import QueryError
from apps.promql.source import compiled

COLUMNS: Final = 24
MOST_PANELS: Final = 250
MOST_QUERIES: Final = 12
MOST_THRESHOLDS: Final = 8
MOST_VARIABLES: Final = 20
MOST_OPTIONS: Final = 200
LONGEST_TITLE: Final = 200
LONGEST_EXPRESSION: Final = 8_000
LONGEST_TEXT: Final = 20_000
TALLEST: Final = 60
DEEPEST: Final = 2_000
"""The lowest row at which a panel may begin."""

KINDS: Final = {
    "timeseries": "Time series",
    "stat": "Stat",
    "gauge": "Gauge",
    "table": "Table",
    "heatmap": "Heat map",
    "text": "Text",
    "alertlist": "Alert list",
    "row": "Heading",
}
MEASURING: Final = frozenset({"timeseries", "stat", "gauge", "table", "heatmap"})
"""Kinds that ask the store."""
UNITS: Final = ("plain", "count", "percent", "share", "ms", "seconds", "bytes", "bytes/s", "/s", "req/s")
CALCULATIONS: Final = ("last", "mean", "min", "max", "sum")
SEVERITIES: Final = ("info", "warning", "error", "critical")
COMPARISONS: Final = (">", ">=", "<", "<=")
VARIABLE_KINDS: Final = {
    "query": "Values of a label",
    "custom": "A list of its own",
    "constant": "Constant",
    "interval": "Interval",
}
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")
IDENT: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
INTERVAL: Final = re.compile(r"(\d{1,6}(ms|[smhdwy]))+")


class BadDocument(ValueError):
    """A dashboard says something that there is not; the sentence names the place."""


@dataclass(frozen=True)
class Ask:
    """One expression of a panel. `legend` names its series, with labels in braces: "{device} read"."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Threshold:
    """From where on a value is of this severity."""

    severity: str
    value: float
    comparison: str = ">"


@dataclass(frozen=True)
class Panel:
    """A panel: its kind, its place (x, y, w of 24 columns, h of rows) and what it shows.

    `calculation`: which number of the range a stat or gauge shows. `text`: what a text panel says (a little Markdown),
    or the matchers of an alert list, one in a line.
    """

    id: str
    kind: str
    title: str = ""
    x: int = 0
    y: int = 0
    w: int = 12
    h: int = 8
    queries: tuple[Ask, ...] = ()
    unit: str = "plain"
    minimum: float | None = None
    maximum: float | None = None
    stacked: bool = False
    thresholds: tuple[Threshold, ...] = ()
    calculation: str = "last"
    text: str = ""
    help: str = ""


@dataclass(frozen=True)
class Variable:
    """A word that expressions and titles leave open: `$name` or `${name}`.

    `query`: `label_values(metric, label)`, `label_values(label)` or `query_result(expression)`. `regex` (RE2): answers
    that it is found in, of them what its first group or the one called `value` holds. `values`: what is chosen unless
    the address says otherwise. `multi`: several at once; `all`: all of them, too.
    """

    name: str
    kind: str
    label: str = ""
    query: str = ""
    regex: str = ""
    options: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    multi: bool = False
    all: bool = False


@dataclass(frozen=True)
class Document:
    """A whole dashboard apart from its title."""

    panels: tuple[Panel, ...] = ()
    variables: tuple[Variable, ...] = field(default=())

    def panel(self, ident: str) -> Panel | None:
        """Return the panel of that id."""
        return next((panel for panel in self.panels if panel.id == ident), None)


def write(document: Document) -> dict[str, Any]:
    """Return the document as JSON keeps it; `read` gives it back."""
    found: dict[str, Any] = _listed(asdict(document))
    return found


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, tuple | list) else value


def read(raw: Any) -> Document:
    """Return the document of parsed JSON. Raises BadDocument."""
    given = _Given(raw, "The dashboard")
    given.only("panels", "variables")
    panels = tuple(
        _panel(_Given(one, f"Panel {number}"), number)
        for number, one in enumerate(given.list("panels", MOST_PANELS), start=1)
    )
    variables = tuple(
        _variable(_Given(one, f"Variable {number}"))
        for number, one in enumerate(given.list("variables", MOST_VARIABLES), start=1)
    )
    _once([panel.id for panel in panels], "panels have the id")
    _once([variable.name for variable in variables], "variables are called")
    return Document(panels, variables)


def read_panel(raw: Any) -> Panel:
    """Return one panel, as an editor previews it. Raises BadDocument."""
    return _panel(_Given(raw, "The panel"), 1)


def read_variables(raw: Any) -> tuple[Variable, ...]:
    """Return variables alone. Raises BadDocument."""
    return read({"variables": raw}).variables


def _once(names: list[str], words: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadDocument(f"Two {words} {name}.")


class _Given:
    """A mapping from outside, read field by field; what is wrong is told with its place."""

    def __init__(self, raw: Any, place: str) -> None:
        if not isinstance(raw, Mapping):
            raise BadDocument(f"{place} must be an object.")
        self.raw, self.place = raw, place

    def only(self, *names: str) -> None:
        if unknown := [str(name) for name in self.raw if name not in names]:
            raise BadDocument(f"{self.place} has no field {unknown[0][:60]!r}.")

    def text(self, name: str, most: int = LONGEST_TITLE, default: str = "") -> str:
        value = self.raw.get(name, default)
        if not isinstance(value, str) or len(value) > most:
            raise BadDocument(f"{self.place}: {name} must be a text of up to {most} characters.")
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise BadDocument(f"{self.place}: {name} holds a character that no text may hold.")
        return value

    def number(self, name: str) -> float | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
            raise BadDocument(f"{self.place}: {name} must be a number.")
        return float(value)

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        value = self.raw.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BadDocument(f"{self.place}: {name} must be a whole number from {least} to {most}.")
        return value

    def flag(self, name: str) -> bool:
        value = self.raw.get(name, False)
        if not isinstance(value, bool):
            raise BadDocument(f"{self.place}: {name} must be true or false.")
        return value

    def one_of(self, name: str, known: Any, default: str) -> str:
        value = self.raw.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise BadDocument(f"{self.place}: {name} must be one of {', '.join(known)}.")
        return value

    def list(self, name: str, most: int) -> list[Any]:
        value = self.raw.get(name) or []
        if not isinstance(value, list) or len(value) > most:
            raise BadDocument(f"{self.place}: {name} must be a list of up to {most}.")
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        found = self.list(name, most)
        if not all(isinstance(value, str) and len(value) <= LONGEST_TITLE and "\0" not in value for value in found):
            raise BadDocument(f"{self.place}: {name} must be texts of up to {LONGEST_TITLE} characters.")
        return tuple(found)

    def parts(self, name: str, most: int, build: "Callable[[_Given], Any]") -> tuple[Any, ...]:
        rows = self.list(name, most)
        return tuple(build(_Given(row, f"{self.place}, {name} {at}")) for at, row in enumerate(rows, start=1))


FIELDS: Final = tuple(Panel.__dataclass_fields__)


def _panel(given: _Given, number: int) -> Panel:
    given.only(*FIELDS)
    ident = given.text("id", default=f"p{number}")
    if not IDENT.fullmatch(ident):
        raise BadDocument(f"{given.place}: its id may have letters, digits, _ and -, up to 40.")
    kind = given.one_of("kind", KINDS, "")
    width = given.whole("w", 1, COLUMNS, 12)
    panel = Panel(
        id=ident,
        kind=kind,
        title=given.text("title"),
        x=given.whole("x", 0, COLUMNS - 1, 0),
        y=given.whole("y", 0, DEEPEST, 0),
        w=width,
        h=given.whole("h", 1, TALLEST, 8),
        queries=given.parts("queries", MOST_QUERIES, _ask),
        unit=given.one_of("unit", UNITS, "plain"),
        minimum=given.number("minimum"),
        maximum=given.number("maximum"),
        stacked=given.flag("stacked"),
        thresholds=given.parts("thresholds", MOST_THRESHOLDS, _threshold),
        calculation=given.one_of("calculation", CALCULATIONS, "last"),
        text=given.text("text", LONGEST_TEXT),
        help=given.text("help", 1_000),
    )
    if panel.x + panel.w > COLUMNS:
        raise BadDocument(f"{given.place} sticks out of the {COLUMNS} columns: x + w is {panel.x + panel.w}.")
    if panel.queries and kind not in MEASURING:
        raise BadDocument(f"{given.place}: a panel of the kind {kind} has no queries.")
    if panel.minimum is not None and panel.maximum is not None and panel.minimum >= panel.maximum:
        raise BadDocument(f"{given.place}: its minimum must be below its maximum.")
    return panel


def _ask(given: _Given) -> Ask:
    given.only("expression", "legend")
    expression = given.text("expression", LONGEST_EXPRESSION)
    if not expression.strip():
        raise BadDocument(f"{given.place}: the expression is empty.")
    return Ask(expression, given.text("legend", 500))


def _threshold(given: _Given) -> Threshold:
    given.only("severity", "value", "comparison")
    value = given.number("value")
    if value is None or not isfinite(value):
        raise BadDocument(f"{given.place}: value must be a number.")
    return Threshold(given.one_of("severity", SEVERITIES, ""), value, given.one_of("comparison", COMPARISONS, ">"))


def _variable(given: _Given) -> Variable:
    given.only(*Variable.__dataclass_fields__)
    name = given.text("name")
    if not NAME.fullmatch(name) or name.startswith("__"):
        raise BadDocument(f"{given.place}: its name may have letters, digits and _, up to 50, and not begin with __.")
    given.place = f"Variable {name}"
    variable = Variable(
        name=name,
        kind=given.one_of("kind", VARIABLE_KINDS, ""),
        label=given.text("label"),
        query=given.text("query", 1_000),
        regex=given.text("regex", 500),
        options=given.texts("options", MOST_OPTIONS),
        values=given.texts("values", MOST_OPTIONS),
        multi=given.flag("multi"),
        all=given.flag("all"),
    )
    if variable.kind == "query" and not variable.query.strip():
        raise BadDocument(f"{given.place}: which label's values? label_values(up, instance)")
    if variable.regex:
        try:
            compiled(variable.regex)
        except QueryError as error:
            raise BadDocument(f"{given.place}: {error}") from None
    if variable.kind in ("custom", "interval") and not variable.options:
        raise BadDocument(f"{given.place}: its options are missing.")
    if variable.kind == "interval" and not all(INTERVAL.fullmatch(option) for option in variable.options):
        raise BadDocument(f"{given.place}: intervals are written as 30s, 5m, 1h.")
    if variable.kind == "constant" and len(variable.values) != 1:
        raise BadDocument(f"{given.place}: a constant has one value.")
    return variable
