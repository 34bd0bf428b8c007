"""What the panels of a person's dashboard show: numbers, tables and alerts, in the reader's scope and budget.

Reads series only through `metrics.query`; a panel that cannot be answered is an error with its sentence.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from apps.accounts.permissions import Principal
from apps.alerting import matching
from apps.alerting.matching import MatcherError
from apps.alerting.models import Alert
from apps.dashboards import document, panels, plots, shared, snapshots, variables
from apps.dashboards.document import Document, Variable
from apps.dashboards.plots import Row, Watched
from apps.dashboards.timespan import Span
from apps.dashboards.variables import BadVariable, Values
from apps.metrics import budgets, query
from apps.promql.errors import PromQLError
from apps.promql.limits import Limits
from apps.promql.parser import parse_matchers
from apps.promql.source import compiled

MOST_ROWS: Final = 200
MOST_COLUMNS: Final = 24
MOST_BUCKETS: Final = 60
MOST_OPTIONS: Final = 500
LONGEST_NAME: Final = plots.LONGEST_NAME + 20
"""Characters; series of one name carry a number behind it."""
PATIENCE: Final = 2.0
"""Seconds that one variable is waited for while its page is made."""
QUERY_RESULT: Final = re.compile(r"\s*query_result\((.+)\)\s*", re.S)
LABEL_VALUES: Final = re.compile(r"\s*label_values\(\s*(?:(.+?)\s*,\s*)?([A-Za-z_][A-Za-z0-9_]*)\s*\)\s*", re.S)
SOURCES: Final = ("*",)


def answer(
    panel: document.Panel, span: Span, values: Values, *, who: Principal, watch: Watched = plots.UNWATCHED
) -> Row:
    """Return what one panel draws. `kind` says how; `error` holds a sentence instead.

    Who comes by a link is shown what is measured, not what is asked.
    """
    kind: Row = {"kind": panel.kind, "calculation": panel.calculation, "sources": SOURCES, "levels": []}
    try:
        found = kind | _measured(panel, span, values, who=who, watch=watch)
    except (PromQLError, BadVariable, MatcherError, query.Outrun) as error:
        found = kind | {"error": str(error)[:1_000]}
    if who.kind == "anonymous":
        found.pop("expressions", None)
        if "error" in found:
            found["error"] = "This panel cannot be answered at the moment."
    return found


def _measured(panel: document.Panel, span: Span, values: Values, *, who: Principal, watch: Watched) -> Row:
    if panel.kind == "alertlist":
        return _alerts(panel, who=who)
    if panel.kind not in document.MEASURING:
        return {}
    asks = asks_of(panel, span, values)
    limits = budgets.limits_for(who)
    if not asks:
        return {"error": "This panel asks for nothing yet: give it a query."}
    asked = {"expressions": [ask.expression for ask in asks]}
    if panel.kind == "table":
        return _table(panel, asks, span, who=who, limits=limits) | asked
    if panel.kind == "heatmap":
        return _heat(panel, asks[0], span, who=who, limits=limits) | asked
    return _plot(panel, asks, span, who=who, limits=limits, watch=watch)


def asks_of(panel: document.Panel, span: Span, values: Values) -> list[panels.Query]:
    """Return a panel's expressions and legends with the variables filled in. Raises BadVariable."""
    filled = variables.built_in(span) | dict(values)
    return [panels.Query(variables.fill(ask.expression, filled), _legend(ask.legend, filled)) for ask in panel.queries]


def watched(given: Iterable[document.Panel], span: Span, values: Values, *, who: Principal) -> Watched:
    """Return what rules say of the expressions of these panels; nothing to whoever comes by a link."""
    texts: list[str] = []
    for panel in given if who.kind != "anonymous" else ():
        if panel.kind == "timeseries":
            with suppress(BadVariable):
                texts += [ask.expression for ask in asks_of(panel, span, values)]
    return plots.watched(texts, span, scope=who.scope)


def table_of(answer: Row) -> list[list[Any]]:
    """Return what a panel of any kind shows as rows of a table, a heading first."""
    if "columns" in answer:
        return [[column["title"] for column in answer["columns"]], *answer["rows"]]
    if "alerts" in answer and "series" not in answer:
        names = ("severity", "name", "service", "state", "since", "message")
        return [list(names), *([row[name] for name in names] for row in answer["alerts"])]
    if "series" not in answer:
        named = zip(answer.get("names", ()), answer.get("rows", ()), strict=True)
        answer = {"start": 0, "step": 0, "count": 0, **answer, "series": [{"name": n, "values": v} for n, v in named]}
    return plots.table_of(answer)


def _legend(text: str, values: Values) -> str:
    return variables.fill_text(text, values)[:LONGEST_NAME]


def _levels(panel: document.Panel) -> list[Row]:
    rows = [{"severity": t.severity, "comparison": t.comparison, "value": t.value} for t in panel.thresholds]
    return sorted(rows, key=lambda row: plots.RANKS[str(row["severity"])])


def _plot(
    panel: document.Panel, asks: Sequence[panels.Query], span: Span, *, who: Principal, limits: Limits, watch: Watched
) -> Row:
    """Series over time. A panel's own thresholds stand for those of rules on the same expression."""
    drawn = panels.Panel(
        panel.id, panel.title, panel.unit, tuple(asks), SOURCES, "", panel.stacked, panel.minimum, panel.maximum
    )
    found = plots.plot(drawn, span, watch, scope=who.scope, limits=limits)
    if panel.thresholds or panel.kind != "timeseries":
        found["levels"] = _levels(panel)
    for part in ("series", "lower", "upper"):
        for series in found.get(part, ()):
            series["name"] = series["name"][:LONGEST_NAME]
    return found


def _table(panel: document.Panel, asks: Sequence[panels.Query], span: Span, *, who: Principal, limits: Limits) -> Row:
    """Labels of the series and a column of values for each query, joined by all labels."""
    cells: dict[tuple[tuple[str, str], ...], list[float | None]] = {}
    names: dict[str, None] = {}
    for at, result in enumerate(
        query.evaluate_many([ask.expression for ask in asks], at=span.end, scope=who.scope, limits=limits)
    ):
        if isinstance(result, Exception):
            raise result
        for labels, value, present in zip(result.labels.dicts(), result.v, result.ok, strict=True):
            if not present[0]:
                continue
            key = tuple(sorted((name, text) for name, text in labels.items() if name != plots.NAME))
            names |= dict.fromkeys(name for name, _ in key)
            cells.setdefault(key, [None] * len(asks))[at] = float(value[0]) if np.isfinite(value[0]) else None
    shown = list(names)[:MOST_COLUMNS]
    keys = sorted(cells, key=lambda key: (cells[key][0] is None, -(cells[key][0] or 0.0), key))
    rows = [[*(dict(key).get(name, "")[:LONGEST_NAME] for name in shown), *cells[key]] for key in keys[:MOST_ROWS]]
    columns = [{"title": name, "unit": ""} for name in shown]
    columns += [
        {"title": _heading(ask.legend, "Value" if len(asks) == 1 else f"Value {at}"), "unit": panel.unit}
        for at, ask in enumerate(asks, start=1)
    ]
    return {"columns": columns, "rows": rows, "more": max(0, len(cells) - MOST_ROWS), "levels": _levels(panel)}


def _heading(legend: str, otherwise: str) -> str:
    """A column is of many series: a legend that names one by its labels is no heading."""
    return otherwise if not legend or "{" in legend else legend


def _heat(panel: document.Panel, ask: panels.Query, span: Span, *, who: Principal, limits: Limits) -> Row:
    """Counts by bucket and step: series with `le` are a histogram's cumulative buckets, others rows."""
    whole = Span(span.begin, span.begin, span.end, span.step)
    result = shared.query_range(ask.expression, whole, scope=who.scope, limits=limits)
    sums: dict[str, Any] = {}
    labels = result.labels.dicts()
    is_histogram = bool(labels) and all("le" in each for each in labels)
    for each, values, present in zip(labels, result.v, result.ok, strict=True):
        name = each["le"] if is_histogram else plots.legend(ask.legend, each)
        row = np.where(present & np.isfinite(values), values, np.nan)
        sums[name] = np.where(np.isnan(sums[name]), row, sums[name] + np.nan_to_num(row)) if name in sums else row
    names = sorted(sums, key=_edge) if is_histogram else sorted(sums)
    more = max(0, len(names) - MOST_BUCKETS)
    names = names[:MOST_BUCKETS]
    rows, below = [], None
    for name in names:
        row = sums[name]
        rows.append(row if below is None or not is_histogram else np.clip(row - below, 0, None))
        below = row
    return {
        "unit": panel.unit, "bucketed": is_histogram, "names": [name[:LONGEST_NAME] for name in names],
        "rows": [row.tolist() for row in rows], "more": more, **plots.grid(whole),
    }  # fmt: skip


def _edge(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _alerts(panel: document.Panel, *, who: Principal) -> Row:
    """Active alerts that all matchers of the panel accept (one in a line), worst first."""
    matchers = matching.parse_matchers(panel.text) if panel.text.strip() else ()
    if not matchers:
        return {"alerts": snapshots.alerts(scope=who.scope)["rows"]}
    found = Alert.objects.active().visible_to(who.scope).select_related("rule").order_by("-fired_at", "-id")
    rows = [alert for alert in found[:1_000] if matching.accept(matchers, alert.routing_labels)]
    rows.sort(key=lambda alert: -plots.RANKS.get(alert.severity, 0))
    return {"alerts": [snapshots.alert_row(alert) for alert in rows[: snapshots.ROWS]]}


def options_of(given: Document, values: Values, span: Span, *, who: Principal) -> dict[str, Row]:
    """Return what can be chosen for each variable: {name: {"options": […], "error": ""}}; at most 500 each."""
    filled = variables.built_in(span) | dict(values)
    return {each.name: _options(each, filled, span, who=who) for each in given.variables if each.kind != "constant"}


def _options(variable: Variable, values: Values, span: Span, *, who: Principal) -> Row:
    if variable.kind != "query":
        return {"options": list(variable.options), "error": ""}
    try:
        text = variables.fill(variable.query, values)
        if (asked := QUERY_RESULT.fullmatch(text)) is not None:
            found = _results(asked[1], span, who=who)
        else:
            found = label_values(text, who=who)
        found = picked(found, variable.regex)
    except (PromQLError, BadVariable, query.Outrun) as error:
        return {"options": [], "error": str(error)[:500]}
    return {"options": [text[: variables.LONGEST_VALUE] for text in found[:MOST_OPTIONS]], "error": ""}


def label_values(text: str, *, who: Principal) -> list[str]:
    """Answer `label_values(metric{…}, label)` or `label_values(label)`. Raises BadVariable, PromQLError."""
    found = LABEL_VALUES.fullmatch(text)
    if found is None:
        raise BadVariable(f"{text[:100]} is no question for values: label_values(up, instance)")
    matchers = parse_matchers(found[1]) if found[1] else ()
    return query.label_values(found[2], matchers, scope=who.scope)


def _results(expression: str, span: Span, *, who: Principal) -> list[str]:
    """Answer `query_result(expression)`: each series as Grafana writes it, name{label="value"} value time."""
    limits = budgets.limits_for(who)
    limits = replace(limits, seconds=min(limits.seconds or PATIENCE, PATIENCE))
    found = query.instant(expression, at=span.end, scope=who.scope, limits=limits)
    at = int(span.end.timestamp() * 1000)
    texts = []
    for labels, row, has in zip(found.labels.dicts(), found.v.tolist(), found.ok.tolist(), strict=True):
        if has[0]:
            name = labels.pop("__name__", "")
            inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
            texts.append(f"{name}{{{inner}}} {row[0]:g} {at}")
    return sorted(texts)


def picked(texts: Iterable[str], regex: str) -> list[str]:
    """Return of the texts in which the regular expression is found what its group holds, each once. Raises QueryError.

    >>> picked(["mon.a", "mon.b", "osd.1"], "^mon.(.*)$")
    ['a', 'b']
    """
    if not regex:
        return list(texts)
    program = compiled(regex)
    found: dict[str, None] = {}
    for text in texts:
        if (match := program.search(text)) is not None:
            groups = match.groups()
            found[match.groupdict().get("value") or (groups[0] or "" if groups else text)] = None
    return [text for text in found if text]
