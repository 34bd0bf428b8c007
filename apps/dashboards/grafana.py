"""Grafana's dashboard JSON to a document and back: what both know, and a report of the rest. Pure.

Schema 30 to 41 is read as it is meant; of older ones the rows of panels, `graph`, `singlestat` and their axes, too.

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
from apps.promql.errors import QueryError
from apps.promql.source import compiled

LARGEST: Final = 2_000_000
DEEPEST: Final = 40
MOST_VALUES: Final = 200_000
MOST_LINES: Final = 200
NAMED: Final = 3
"""Panels that a line of the report names."""
SCHEMA: Final = 39
KINDS: Final = {
    "timeseries": "timeseries", "graph": "timeseries", "stat": "stat", "singlestat": "stat", "gauge": "gauge",
    "bargauge": "gauge", "table": "table", "table-old": "table", "heatmap": "heatmap", "text": "text",
    "alertlist": "alertlist", "row": "row", "piechart": "stat", "grafana-piechart-panel": "stat",
    "barchart": "timeseries", "state-timeline": "timeseries", "status-history": "timeseries", "trend": "timeseries",
}  # fmt: skip
CHANGED: Final = {
    "bargauge": "a bar gauge becomes a gauge", "piechart": "a pie becomes figures",
    "grafana-piechart-panel": "a pie becomes figures", "barchart": "bars become lines",
    "state-timeline": "states become lines", "status-history": "states become lines",
}  # fmt: skip
UNITS: Final = {
    "none": "plain", "short": "count", "percent": "percent", "%": "percent", "percentunit": "share",
    "ms": "ms", "s": "seconds", "seconds": "seconds", "dtdurations": "seconds", "bytes": "bytes", "decbytes": "bytes",
    "Bps": "bytes/s", "binBps": "bytes/s", "bps": "count", "binbps": "count", "bits": "count", "hertz": "count",
    "locale": "count", "reqps": "req/s", "qps": "req/s", "ops": "/s", "cps": "/s", "rps": "/s", "wps": "/s",
    "iops": "/s", "pps": "/s", "": "plain",
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
NAMELESS: Final = frozenset({"bps", "binbps", "bits", "hertz"})
"""Units whose numbers come along, and whose name does not."""
OLD_COLUMNS: Final = 12
"""Of a row, before schema 16; a row's height is in pixels of which 30 are one of the grid."""
HIDDEN: Final = 2
"""How a variable says that nobody chooses it."""
FOREIGN: Final = frozenset({"-- Mixed --", "-- Dashboard --", "-- Grafana --", "grafana", "mixed", "datasource"})
OLD_COLOURS: Final = {
    "red": ("#d44a3a", "#bf1b00", "#f53636", "rgba(245,54,54,0.9)", "#f2495c"),
    "orange": ("rgba(237,129,40,0.89)", "#ef843c", "#ff9830"),
    "green": ("#299c46", "rgba(50,172,45,0.97)", "rgba(50,172,45,0.9)", "#73bf69"),
}
SEVERITY_OF: Final = (("red", "critical"), ("orange", "error"), ("yellow", "warning"), ("blue", "info"))
SLASHED: Final = re.compile(r"/(.*)/([a-z]*)", re.S)
NAMED_GROUP: Final = re.compile(r"\(\?<(?![=!])")
PER_SECOND: Final = re.compile(r"[A-Za-z ]{1,30}/s(?:ec)?")
LEGEND: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
LEGEND_BACK: Final = re.compile(r"\{(\w+)\}")
OLD_REFERENCE: Final = re.compile(r"\[\[(\w+)(?::\w+)?\]\]")
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


DROPPED: Final = {
    "seriesOverrides": "overrides of single series are not taken over",
    "styles": "styles of columns are not taken over",
    "transformations": "transformations are not taken over",
    "alert": "alert is not taken over: make a rule of it",
    "links": "links are not taken over",
    "timeFrom": "own time range is not taken over",
    "timeShift": "shift in time is not taken over",
}


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
    if isinstance(raw, dict) and isinstance(_mapping(raw.get("spec", raw)).get("elements"), dict):
        raise BadGrafana("The file is of Grafana's schema v2: choose the classic model when you export it there.")
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
        # What is told, and of which panels.
        self.told: dict[str, list[str]] = {}
        # Variables that cannot be one here, and what stands for each in expressions.
        self.inlined: dict[str, str] = {}

    def tell(self, words: str, place: str = "") -> None:
        if words in self.told or len(self.told) < MOST_LINES:
            self.told.setdefault(words, []).append(place)

    def report(self) -> tuple[str, ...]:
        """Return what is told, what many panels have in common once."""
        found = []
        for words, places in self.told.items():
            named = [place for place in dict.fromkeys(places) if place]
            more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
            found.append((f"{', '.join(named[:NAMED])}{more}: {words}" if named else words)[:500])
        return tuple(found)

    def dashboard(self) -> Imported:
        version = self.raw.get("schemaVersion")
        if not isinstance(version, int) or not 30 <= version <= 41:
            self.tell(f"Schema {str(version)[:20]} is not one of 30 to 41; what was not understood is missing.")
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
        return Imported(title, _text(self.raw.get("description"), 500), whole, self.report())

    def panels(self) -> tuple[Panel, ...]:
        flat: list[Any] = []
        for raw in _list(self.raw.get("panels")) or self.rows():
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

    def rows(self) -> list[dict[str, Any]]:
        """Return the panels of a file that keeps them in rows (before schema 16), each with its place on the grid."""
        found: list[dict[str, Any]] = []
        y = 0
        for row in map(_mapping, _list(self.raw.get("rows"))):
            if row.get("showTitle") or row.get("collapse"):
                place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
                found.append({"type": "row", "title": row.get("title"), "gridPos": place})
                y += 1
            x = deepest = 0
            for panel in map(_mapping, _list(row.get("panels"))):
                span = _number(panel.get("span")) or OLD_COLUMNS
                width = min(COLUMNS, max(1, round(span * COLUMNS / OLD_COLUMNS)))
                if x + width > COLUMNS:
                    x, y, deepest = 0, y + deepest, 0
                height = min(document.TALLEST, max(2, _pixels(panel.get("height") or row.get("height")) // 30))
                found.append({**panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
                x, deepest = x + width, max(deepest, height)
            y += deepest
        return found

    def whole(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a panel, one of the library with what the file says of it."""
        library = _mapping(raw.get("libraryPanel"))
        kept = _mapping(_mapping(self.raw.get("__elements")).get(str(library.get("uid"))))
        model = _mapping(library.get("model")) or _mapping(kept.get("model"))
        if not library or not (model or raw.get("type")):
            return raw
        own = {name: raw[name] for name in ("gridPos", "title") if raw.get(name)}
        return {**model, **{n: v for n, v in raw.items() if n != "libraryPanel" and n not in model}, **own}

    def panel(self, raw: Mapping[str, Any], number: int) -> Panel | None:
        raw = self.whole(raw)
        title = _text(raw.get("title"), document.LONGEST_TITLE)
        place = f"Panel {title[:60] or number}"
        kind = KINDS.get(str(raw.get("type"))[:40])
        if kind is None:
            kept = "its content is kept in Grafana's library and not in the file"
            unknown = f"there is no kind {str(raw.get('type'))[:40]}"
            self.tell(f"{kept if raw.get('libraryPanel') else unknown}; it is left out.", place)
            return None
        if raw.get("type") in CHANGED:
            self.tell(f"{CHANGED[str(raw['type'])]}.", place)
        if raw.get("repeat"):
            self.tell(f"it is not repeated; it shows all that is chosen of {str(raw['repeat'])[:50]} in one.", place)
        for name, words in DROPPED.items():
            if raw.get(name):
                self.tell(f"its {words}.", place)
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
                self.tell("its HTML is shown as text.", place)
            common["text"] = _text(options.get("content", raw.get("content")), document.LONGEST_TEXT)
        elif kind == "alertlist" and any(
            options.get(name) for name in ("alertName", "alertInstanceLabelFilter", "folder")
        ):
            self.tell("its filters are not taken over; it lists every active alert.", place)
        return Panel(**common)

    def measured(self, raw: Mapping[str, Any], place: str) -> dict[str, Any]:
        options = _mapping(raw.get("options"))
        old = _mapping(options.get("fieldOptions"))  # as Grafana 6 had it
        config = _mapping(raw.get("fieldConfig")) or old
        defaults = _mapping(config.get("defaults"))
        axis = _mapping(next(iter(_list(raw.get("yaxes"))), None)) or self.gauge(raw)
        if _list(config.get("overrides")):
            self.tell("overrides of single fields are not taken over.", place)
        unit = str(defaults.get("unit", axis.get("format", raw.get("format"))) or "")[:40]
        if unit not in UNITS and PER_SECOND.fullmatch(unit):
            unit = "ops"  # any text is a unit of Grafana's, written behind the number
        if unit not in UNITS or unit in NAMELESS:
            self.tell(f"the unit {unit} is shown as a plain number.", place)
        edges = (("min", "minValue"), ("max", "maxValue"))
        low, high = (_number(defaults.get(new, axis.get(new, axis.get(before)))) for new, before in edges)
        if low is not None and high is not None and low >= high:
            self.tell("its minimum is not below its maximum.", place)
            low = high = None
        reduce = _mapping(options.get("reduceOptions")) or old
        calculation = next(iter(_list(reduce.get("calcs"))), raw.get("valueName") or "lastNotNull")
        if str(calculation) not in CALCULATIONS:
            self.tell(f"the calculation {str(calculation)[:40]} becomes the last value.", place)
        stacking = _mapping(_mapping(defaults.get("custom")).get("stacking")).get("mode")
        steps = _mapping(defaults.get("thresholds")) or {"steps": _old_steps(raw, old)}
        if _mapping(_mapping(defaults.get("custom")).get("thresholdsStyle")).get("mode") == "off":
            steps = {}  # every chart has some; these are not drawn
        return {
            "queries": self.queries(raw, place),
            "unit": UNITS.get(unit, "plain"),
            "minimum": low,
            "maximum": high,
            "stacked": stacking in ("normal", "percent") or raw.get("stack") is True,
            "thresholds": _limits(raw) or self.thresholds(steps, place),
            "calculation": CALCULATIONS.get(str(calculation), "last"),
        }

    def gauge(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the edges of a singlestat, where it draws them."""
        found = _mapping(raw.get("gauge"))
        return found if found.get("show") else {}

    def queries(self, raw: Mapping[str, Any], place: str) -> tuple[Ask, ...]:
        found: list[Ask] = []
        for target in _list(raw.get("targets")):
            given = _mapping(target)
            if kind := _foreign(given.get("datasource")) or _foreign(raw.get("datasource")):
                self.tell(f"a query of the data source {kind} is left out, for it is no PromQL.", place)
                continue
            expression = _text(given.get("expr"), document.LONGEST_EXPRESSION + 1)
            if given.get("hide"):
                self.tell("a hidden query is left out.", place)
            elif not expression.strip():
                self.tell("a query that is no PromQL is left out.", place)
            elif len(expression) > document.LONGEST_EXPRESSION or len(found) >= document.MOST_QUERIES:
                self.tell("a query is left out, for it is too long or there are too many.", place)
            else:
                legend = _text(given.get("legendFormat"), 500)
                legend = "" if legend == "__auto" else LEGEND.sub(r"{\1}", legend)
                found.append(Ask(self.filled(expression, str(raw.get("repeat") or "")), _expression(legend)))
        return tuple(found)

    def filled(self, expression: str, repeated: str) -> str:
        """Return an expression in which stands what cannot be a variable, and all that a panel was repeated for."""
        text = _expression(expression)
        for name, value in self.inlined.items():
            text = re.sub(rf"\$(?:\{{{name}(?::\w+)?\}}|{name}\b)", value.replace("\\", r"\\"), text)
        if document.NAME.fullmatch(repeated):
            text = re.sub(rf'(?<![=!~])=(\s*"\$(?:\{{{repeated}(?::\w+)?\}}|{repeated}\b)")', r"=~\1", text)
        return text

    def thresholds(self, raw: Mapping[str, Any], place: str) -> tuple[Threshold, ...]:
        """Steps of colours from a value on; red, orange, yellow and blue are severities, all else is fine."""
        steps = [
            (_number(_mapping(s).get("value")), _severity(_mapping(s).get("color"))) for s in _list(raw.get("steps"))
        ]
        if not steps:
            return ()
        if raw.get("mode") == "percentage":
            self.tell("thresholds in percent of the range are not taken over.", place)
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
        query = self.filled(_text(_mapping(asked).get("query") if isinstance(asked, Mapping) else asked, 1_000), "")
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
            if not query.strip().startswith(("label_values(", "query_result(")):
                words = f"{place}: only label_values(…) and query_result(…) are understood"
                return self.stands_still(name, common, values, words)
            regex = self.regex(given.get("regex"), place)
            return Variable(kind="query", query=query, regex=regex, values=values if multi else values[:1], **common)
        options = tuple(dict.fromkeys(_text(part, 200).strip() for part in query.split(",") if part.strip()))
        options = options or tuple(
            text
            for one in _list(given.get("options"))
            if (text := _text(_mapping(one).get("value"), 200)) and text != ALL
        )
        if kind in ("custom", "constant") and given.get("hide") == HIDDEN and (options or values):
            # Never chosen: there it may hold a regular expression, which a variable's value here never is.
            self.inlined[name] = values[0] if values and values != (ALL,) else query or ".*"
            return None
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
            self.tell("a text box becomes a constant.", place)
            return Variable(name, "constant", common["label"], values=((values[0] if values else query)[:200],))
        return self.stands_still(name, common, values, f"{place}: variables of the kind {kind} are not understood")

    def regex(self, raw: Any, place: str) -> str:
        """Return a regular expression of JavaScript's as RE2 has it: /…/ is looked for, else it is the whole value."""
        text = _text(raw, 450)
        if text in ("", "(.*)", "/.*/", "/(.*)/", ".*"):
            return ""
        whole = SLASHED.fullmatch(text)
        found = f"{'(?i)' if 'i' in whole[2] else ''}{whole[1]}" if whole else f"^(?:{text})$"
        found = NAMED_GROUP.sub("(?P<", found)
        try:
            compiled(found)
        except QueryError:
            self.tell("its regex is not applied: it is none of RE2's.", place)
            return ""
        return found

    def stands_still(self, name: str, common: Mapping[str, Any], values: tuple[str, ...], why: str) -> Variable | None:
        """A variable that cannot be asked for keeps the one value that the file has for it, where it has one."""
        if values[:1] == (ALL,) or (not values and common["all"]):
            self.inlined[name] = ".*"
            self.tell(f"{why}; it stands for all, always.")
        elif len(values) == 1:
            self.tell(f"{why}; it stays at {values[0][:60]}.")
            return Variable(name, "constant", common["label"], values=values)
        else:
            self.tell(f"{why}; it is left out.")
        return None


def _pixels(value: Any) -> int:
    """Return a height such as "250px" or 250."""
    found = re.match(r"\d{1,5}", str(value or ""))
    return int(found[0]) if found else 250


def _foreign(source: Any) -> str:
    """Return the kind of a data source that is not Prometheus', "" where it is or may be."""
    kind = str(_mapping(source).get("type") or "")[:40]
    return "" if not kind or kind == "prometheus" or kind in FOREIGN else kind


def _old_steps(raw: Mapping[str, Any], old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return thresholds as Grafana 5 and 6 had them, as steps: "80,90" with three colours, or a list."""
    if listed := _list(old.get("thresholds")):
        return [{"value": _mapping(one).get("value"), "color": _mapping(one).get("color")} for one in listed]
    text = raw.get("thresholds")
    if not isinstance(text, str) or not text.strip():
        return []
    colours = [*_list(raw.get("colors")), *("green", "orange", "red")][:3]
    colours = [_named(colour) for colour in colours]
    return [{"value": None, "color": colours[0]}] + [
        {"value": part, "color": colour} for part, colour in zip(text.split(","), colours[1:], strict=False)
    ]


def _named(colour: Any) -> str:
    """Grafana's own red, orange and green, by their names."""
    text = re.sub(r"\s", "", str(colour)[:40].lower())
    return next((name for name, codes in OLD_COLOURS.items() if text in codes), text)


def _limits(raw: Mapping[str, Any]) -> tuple[Threshold, ...]:
    """Return the thresholds of an old graph: lines with a side and a mode."""
    found = []
    for line in map(_mapping, _list(raw.get("thresholds"))[: document.MOST_THRESHOLDS]):
        value, severity = (
            _number(line.get("value")),
            {"critical": "critical", "warning": "warning"}.get(str(line.get("colorMode")), "info"),
        )
        if value is not None and line.get("colorMode") != "ok":
            found.append(Threshold(severity, value, "<" if line.get("op") == "lt" else ">"))
    return tuple(found)


def _severity(colour: Any) -> str:
    text = _named(colour)
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
    if panel.kind == "timeseries" and panel.thresholds:
        defaults.setdefault("custom", {})["thresholdsStyle"] = {"mode": "line"}
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
        **({"datasource": DATASOURCE, "refresh": 2, "definition": query, "regex": _regex_of(variable.regex)}
           if variable.kind == "query" else {}),
    }  # fmt: skip


def _regex_of(pattern: str) -> str:
    """Return RE2's regular expression as JavaScript has it, between slashes."""
    if not pattern:
        return ""
    is_small = pattern.startswith("(?i)")
    inner = pattern.removeprefix("(?i)").replace("(?P<", "(?<")
    return f"/{inner}/{'i' if is_small else ''}"
