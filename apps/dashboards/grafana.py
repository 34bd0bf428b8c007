"""Grafana's dashboard JSON (schema 30 to 41) to a document and back: what both know, and a report of the rest. Pure.

The text is somebody else's: its size, depth and counts are bounded, and nothing of it is taken but what is understood.
Source: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from apps.dashboards import document
from apps.dashboards.document import COLUMNS, Ask, BadDocument, Document, Panel, Threshold, Variable
from apps.dashboards.variables import ALL

LARGEST: Final = 2_000_000
DEEPEST: Final = 40
MOST_VALUES: Final = 200_000
MOST_LINES: Final = 200
SCHEMA: Final = 39
KINDS: Final = {
    "timeseries": "timeseries", "graph": "timeseries", "stat": "stat", "singlestat": "stat", "gauge": "gauge",
    "bargauge": "gauge", "table": "table", "table-old": "table", "heatmap": "heatmap", "text": "text",
    "alertlist": "alertlist", "row": "row",
}  # fmt: skip
UNITS: Final = {
    "none": "plain", "short": "count", "percent": "percent", "percentunit": "share", "ms": "ms", "s": "seconds",
    "dtdurations": "seconds", "bytes": "bytes", "decbytes": "bytes", "Bps": "bytes/s", "binBps": "bytes/s",
    "reqps": "req/s", "ops": "/s", "cps": "/s", "rps": "/s", "wps": "/s", "iops": "/s", "pps": "/s", "": "plain",
}  # fmt: skip
UNITS_BACK: Final = {
    "plain": "none", "count": "short", "percent": "percent", "share": "percentunit", "ms": "ms", "seconds": "s",
    "bytes": "bytes", "bytes/s": "binBps", "/s": "ops", "req/s": "reqps",
}  # fmt: skip
CALCULATIONS: Final = {
    "lastNotNull": "last", "last": "last", "mean": "mean", "min": "min", "max": "max", "sum": "sum",
    "current": "last", "avg": "mean", "total": "sum",
}  # fmt: skip
CALCULATIONS_BACK: Final = {"last": "lastNotNull", "mean": "mean", "min": "min", "max": "max", "sum": "sum"}
COLOURS: Final = {"info": "blue", "warning": "yellow", "error": "orange", "critical": "red"}
SEVERITY_OF: Final = (("red", "critical"), ("orange", "error"), ("yellow", "warning"), ("blue", "info"))
LEGEND: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
LEGEND_BACK: Final = re.compile(r"\{(\w+)\}")
OLD_REFERENCE: Final = re.compile(r"\[\[(\w+)(?::\w+)?\]\]")
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class BadGrafana(ValueError):
    """The text is no dashboard of Grafana's, or more than one may be."""


@dataclass(frozen=True)
class Imported:
    """A dashboard out of Grafana's JSON; `report` says in sentences what did not come along."""

    title: str
    description: str
    document: Document
    report: tuple[str, ...]


def parse(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object of a text, bounded in size, depth and number of values. Raises BadGrafana."""
    if len(text) > LARGEST:
        raise BadGrafana(f"The file is larger than {LARGEST // 1_000_000} MB.")
    try:
        raw = orjson.loads(text)
    except ValueError as error:
        raise BadGrafana(f"The file is no JSON: {str(error)[:200]}") from None
    todo, seen = [(raw, 1)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise BadGrafana("The file is nested too deeply or holds too much for a dashboard.")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo.extend((each, depth + 1) for each in inner)
    if isinstance(raw, dict) and isinstance(raw.get("dashboard"), dict):
        raw = raw["dashboard"]  # as Grafana's API answers
    if not isinstance(raw, dict) or not isinstance(raw.get("panels", raw.get("rows")), list):
        raise BadGrafana("The file is no dashboard of Grafana's: it has no list of panels.")
    return raw


def read(text: str | bytes) -> Imported:
    """Return what is understood of a dashboard's JSON. Raises BadGrafana."""
    return _Reader(parse(text)).dashboard()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, most: int) -> str:
    """Return a text without what no text may hold, cut to size."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value[:most] if char != "\0" and not "\ud800" <= char <= "\udfff")


def _whole(value: Any, least: int, most: int, default: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return int(min(max(value, least), most))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if -1e300 < found < 1e300 else None


def _expression(text: str) -> str:
    return OLD_REFERENCE.sub(lambda found: "${" + found[1] + "}", text)


class _Reader:
    """Goes through one dashboard and keeps the report."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.lines: dict[str, None] = {}

    def tell(self, line: str) -> None:
        if len(self.lines) < MOST_LINES:
            self.lines[line[:300]] = None

    def dashboard(self) -> Imported:
        version = self.raw.get("schemaVersion")
        if not isinstance(version, int) or not 30 <= version <= 41:
            self.tell(f"Schema {str(version)[:20]} is not one of 30 to 41; what was not understood is missing.")
        if not isinstance(self.raw.get("panels"), list):
            self.tell(
                "The file keeps its panels in rows, as Grafana did before version 5: open and save it there first."
            )
        variables = self.variables()
        panels = self.panels()
        for name, words in (("links", "Links of the dashboard"), ("annotations", "Annotations")):
            found = _mapping(self.raw.get(name)).get("list") if name == "annotations" else self.raw.get(name)
            if any(not _mapping(each).get("builtIn") for each in _list(found)):
                self.tell(f"{words} are not taken over.")
        try:
            whole = document.read(document.write(Document(panels, variables)))
        except BadDocument as error:
            raise BadGrafana(str(error)) from None
        title = _text(self.raw.get("title"), 200).strip() or "Imported dashboard"
        return Imported(title, _text(self.raw.get("description"), 500), whole, tuple(self.lines))

    def panels(self) -> tuple[Panel, ...]:
        flat: list[Any] = []
        for raw in _list(self.raw.get("panels")):
            flat.append(raw)
            if _mapping(raw).get("type") == "row":
                flat += _list(raw.get("panels"))
        if len(flat) > document.MOST_PANELS:
            self.tell(f"{len(flat) - document.MOST_PANELS} panels beyond {document.MOST_PANELS} are left out.")
        found: list[Panel] = []
        for number, raw in enumerate(flat[: document.MOST_PANELS], start=1):
            panel = self.panel(_mapping(raw), number)
            if panel is not None:
                found.append(panel)
        return tuple(found)

    def panel(self, raw: Mapping[str, Any], number: int) -> Panel | None:
        title = _text(raw.get("title"), document.LONGEST_TITLE)
        place = f"Panel {title[:60] or number}"
        kind = KINDS.get(str(raw.get("type"))[:40])
        if kind is None:
            self.tell(f"{place}: there is no kind {str(raw.get('type'))[:40]}; it is left out.")
            return None
        if raw.get("type") == "bargauge":
            self.tell(f"{place}: a bar gauge becomes a gauge.")
        for name in ("repeat", "transformations", "alert", "links", "libraryPanel", "timeFrom", "timeShift"):
            if raw.get(name):
                self.tell(f"{place}: its {name} are not taken over.")
        grid = _mapping(raw.get("gridPos"))
        width = _whole(grid.get("w"), 1, COLUMNS, 12)
        common: dict[str, Any] = {
            "id": f"p{number}", "kind": kind, "title": _expression(title), "w": width,
            "x": min(_whole(grid.get("x"), 0, COLUMNS - 1, 0), COLUMNS - width),
            "y": _whole(grid.get("y"), 0, document.DEEPEST, 0),
            "h": 1 if kind == "row" else _whole(grid.get("h"), 1, document.TALLEST, 8),
            "help": _text(raw.get("description"), 1_000),
        }  # fmt: skip
        if kind in document.MEASURING:
            return Panel(**common, **self.measured(raw, place))
        options = _mapping(raw.get("options"))
        if kind == "text":
            if options.get("mode", raw.get("mode")) == "html":
                self.tell(f"{place}: its HTML is shown as text.")
            common["text"] = _text(options.get("content", raw.get("content")), document.LONGEST_TEXT)
        elif kind == "alertlist" and any(
            options.get(name) for name in ("alertName", "alertInstanceLabelFilter", "folder")
        ):
            self.tell(f"{place}: its filters are not taken over; it lists every active alert.")
        return Panel(**common)

    def measured(self, raw: Mapping[str, Any], place: str) -> dict[str, Any]:
        config = _mapping(raw.get("fieldConfig"))
        defaults = _mapping(config.get("defaults"))
        if _list(config.get("overrides")):
            self.tell(f"{place}: overrides of single fields are not taken over.")
        unit = str(defaults.get("unit", raw.get("format")) or "")[:40]
        if unit not in UNITS:
            self.tell(f"{place}: the unit {unit} is shown as a plain number.")
        low, high = _number(defaults.get("min")), _number(defaults.get("max"))
        if low is not None and high is not None and low >= high:
            self.tell(f"{place}: its minimum is not below its maximum.")
            low = high = None
        reduce = _mapping(_mapping(raw.get("options")).get("reduceOptions"))
        calculation = next(iter(_list(reduce.get("calcs"))), raw.get("valueName") or "lastNotNull")
        if str(calculation) not in CALCULATIONS:
            self.tell(f"{place}: the calculation {str(calculation)[:40]} becomes the last value.")
        stacking = _mapping(_mapping(defaults.get("custom")).get("stacking")).get("mode")
        return {
            "queries": self.queries(raw, place),
            "unit": UNITS.get(unit, "plain"),
            "minimum": low,
            "maximum": high,
            "stacked": stacking in ("normal", "percent") or raw.get("stack") is True,
            "thresholds": self.thresholds(_mapping(defaults.get("thresholds")), place),
            "calculation": CALCULATIONS.get(str(calculation), "last"),
        }

    def queries(self, raw: Mapping[str, Any], place: str) -> tuple[Ask, ...]:
        found: list[Ask] = []
        for target in _list(raw.get("targets")):
            given = _mapping(target)
            expression = _text(given.get("expr"), document.LONGEST_EXPRESSION + 1)
            if given.get("hide"):
                self.tell(f"{place}: a hidden query is left out.")
            elif not expression.strip():
                self.tell(f"{place}: a query that is no PromQL is left out.")
            elif len(expression) > document.LONGEST_EXPRESSION or len(found) >= document.MOST_QUERIES:
                self.tell(f"{place}: a query is left out, for it is too long or there are too many.")
            else:
                legend = _text(given.get("legendFormat"), 500)
                legend = "" if legend == "__auto" else LEGEND.sub(r"{\1}", legend)
                found.append(Ask(_expression(expression), _expression(legend)))
        return tuple(found)

    def thresholds(self, raw: Mapping[str, Any], place: str) -> tuple[Threshold, ...]:
        """Steps of colours from a value on; red, orange, yellow and blue are severities, all else is fine."""
        steps = [
            (_number(_mapping(s).get("value")), _severity(_mapping(s).get("color"))) for s in _list(raw.get("steps"))
        ]
        if not steps:
            return ()
        if raw.get("mode") == "percentage":
            self.tell(f"{place}: thresholds in percent of the range are not taken over.")
            return ()
        found: list[Threshold] = []
        before = steps[0][1]
        is_falling = bool(before)  # bad from below: each step says where that which was before it ends
        for value, severity in steps[1 : document.MOST_THRESHOLDS + 1]:
            if value is not None and is_falling:
                found.append(Threshold(before, value, "<"))
            elif value is not None and severity:
                found.append(Threshold(severity, value, ">="))
            before, is_falling = severity, is_falling and bool(severity)
        return tuple(found)

    def variables(self) -> tuple[Variable, ...]:
        found: dict[str, Variable] = {}
        for raw in _list(_mapping(self.raw.get("templating")).get("list"))[:100]:
            given = _mapping(raw)
            name = _text(given.get("name"), 50)
            kind = str(given.get("type"))[:20]
            if kind == "datasource":
                continue  # there is one store
            if not document.NAME.fullmatch(name) or name.startswith("__") or name in found:
                self.tell(f"A variable called {name[:50]!r} cannot be taken over.")
                continue
            if len(found) >= document.MOST_VARIABLES:
                self.tell(f"Variables beyond {document.MOST_VARIABLES} are left out.")
                break
            variable = self.variable(given, name, kind)
            if variable is not None:
                found[name] = variable
        return tuple(found.values())

    def variable(self, given: Mapping[str, Any], name: str, kind: str) -> Variable | None:
        place = f"Variable {name}"
        asked = given.get("query")
        query = _expression(_text(_mapping(asked).get("query") if isinstance(asked, Mapping) else asked, 1_000))
        current = _mapping(given.get("current")).get("value")
        values = tuple(
            _text(v, 200) for v in (current if isinstance(current, list) else [current]) if isinstance(v, str)
        )
        values = tuple(v for v in values if v)[: document.MOST_OPTIONS]
        multi = given.get("multi") is True
        common: dict[str, Any] = {
            "name": name,
            "label": _text(given.get("label"), 200),
            "multi": multi,
            "all": given.get("includeAll") is True,
        }
        if kind == "query":
            if not query.strip().startswith("label_values("):
                self.tell(f"{place}: only label_values(…) is understood; it is left out.")
                return None
            if given.get("regex"):
                self.tell(f"{place}: its regex is not applied.")
            return Variable(kind="query", query=query, values=values if multi else values[:1], **common)
        options = tuple(dict.fromkeys(_text(part, 200).strip() for part in query.split(",") if part.strip()))
        if kind in ("custom", "interval") and options:
            if kind == "interval":
                options = tuple(option for option in options if document.INTERVAL.fullmatch(option))
                values = tuple(value for value in values if value in options)
            if options:
                options = options[: document.MOST_OPTIONS]
                return Variable(kind=kind, options=options, values=values if multi else values[:1], **common)
        if kind == "constant" and (query or values):
            return Variable(name, "constant", common["label"], values=(query[:200] or values[0],))
        if kind == "textbox":
            self.tell(f"{place}: a text box becomes a constant.")
            return Variable(name, "constant", common["label"], values=((values[0] if values else query)[:200],))
        self.tell(f"{place}: variables of the kind {kind} are left out.")
        return None


def _severity(colour: Any) -> str:
    text = str(colour)[:40].lower()
    return next((severity for word, severity in SEVERITY_OF if word in text), "")


# --- And back --------------------------------------------------------------------------------------------------------
def write(whole: Document, *, title: str, description: str = "", uid: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return Grafana's JSON of a dashboard, and what Grafana has no word for."""
    report: list[str] = []
    panels = [_panel_of(panel, number, report) for number, panel in enumerate(whole.panels, start=1)]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0}
    return {
        "uid": uid[:40], "title": title, "description": description, "schemaVersion": SCHEMA, "editable": True,
        "panels": panels, "time": {"from": "now-1h", "to": "now"}, "tags": [],
        "templating": {"list": [source, *map(_variable_of, whole.variables)]},
    }, report  # fmt: skip


def _promql(text: str) -> str:
    text = re.sub(r"\$\{?window\b\}?", "$__rate_interval", text)
    return re.sub(r"\$\{?range\b\}?", "$__range", text)


def _panel_of(panel: Panel, number: int, report: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.help,
        "gridPos": {"x": panel.x, "y": panel.y, "w": panel.w, "h": panel.h},
    }  # fmt: skip
    if panel.kind == "text":
        return found | {"options": {"mode": "markdown", "content": panel.text}}
    if panel.kind not in document.MEASURING:
        if panel.text:
            report.append(f"Panel {panel.title or number}: its matchers are not Grafana's.")
        return found | ({"collapsed": False, "panels": []} if panel.kind == "row" else {"options": {}})
    defaults: dict[str, Any] = {"unit": UNITS_BACK[panel.unit], "thresholds": _steps(panel, report)}
    if panel.stacked:
        defaults["custom"] = {"stacking": {"mode": "normal", "group": "A"}}
    edges = (("min", panel.minimum), ("max", panel.maximum))
    defaults |= {name: value for name, value in edges if value is not None}
    targets = [
        {"refId": chr(65 + at), "expr": _promql(ask.expression), "legendFormat": LEGEND_BACK.sub(r"{{\1}}", ask.legend),
         "datasource": DATASOURCE, **({"instant": True, "format": "table"} if panel.kind == "table" else {})}
        for at, ask in enumerate(panel.queries)
    ]  # fmt: skip
    return found | {
        "datasource": DATASOURCE, "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": [CALCULATIONS_BACK[panel.calculation]]}},
    }  # fmt: skip


def _steps(panel: Panel, report: list[str]) -> dict[str, Any]:
    """Grafana's steps hold from a value upwards: below a limit that must not be undercut stands its colour."""
    below = sorted((t for t in panel.thresholds if t.comparison in ("<", "<=")), key=lambda t: t.value)
    above = sorted((t for t in panel.thresholds if t.comparison in (">", ">=")), key=lambda t: t.value)
    if any(t.comparison in (">", "<=") for t in panel.thresholds):
        report.append(f"Panel {panel.title or panel.id}: Grafana's limits hold at the value itself, too.")
    steps: list[dict[str, Any]] = [{"color": COLOURS[below[0].severity] if below else "green", "value": None}]
    for at, threshold in enumerate(below):
        then = COLOURS[below[at + 1].severity] if at + 1 < len(below) else "green"
        steps.append({"color": then, "value": threshold.value})
    steps += [{"color": COLOURS[threshold.severity], "value": threshold.value} for threshold in above]
    return {"mode": "absolute", "steps": steps}


def _variable_of(variable: Variable) -> dict[str, Any]:
    text = ["All" if value == ALL else value for value in variable.values]
    values: Any = list(variable.values) if variable.multi else next(iter(variable.values), "")
    query: Any = variable.query
    if variable.kind in ("custom", "interval"):
        query = ",".join(variable.options)
    elif variable.kind == "constant":
        query = variable.values[0]
    return {
        "name": variable.name, "label": variable.label, "type": variable.kind, "query": query, "multi": variable.multi,
        "includeAll": variable.all, "current": {"text": text if variable.multi else "".join(text[:1]), "value": values},
        **({"datasource": DATASOURCE, "refresh": 2, "definition": query} if variable.kind == "query" else {}),
    }  # fmt: skip
