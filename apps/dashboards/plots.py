"""Turns panels and tables into the numbers that the browser draws. Reads series only through `metrics.query`."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from apps.accounts.permissions import Scope
from apps.alerting.models import Alert, RuleLevel
from apps.alerting.units import unit_of
from apps.dashboards import shared
from apps.dashboards.panels import Panel, Query, Table
from apps.dashboards.timespan import Span
from apps.metrics import query
from apps.promql.errors import PromQLError
from apps.promql.limits import Limits
from apps.promql.result import Result

MOST_SERIES = 20
MOST_ALERTS = 200
NAME = "__name__"
Row = dict[str, Any]
Levels = Mapping[str, list[Row]]


def levels_of(expressions: Iterable[str]) -> dict[str, list[Row]]:
    """Return the limits that enabled rules put on these expressions, mildest first (one query)."""
    found: dict[str, list[Row]] = defaultdict(list)
    wanted = {text for text in expressions if text}
    if not wanted:
        return found
    levels = RuleLevel.objects.filter(
        rule__enabled=True, rule__expression__in=wanted, threshold__isnull=False
    ).select_related("rule")
    for level in levels:
        found[level.rule.expression].append(_level(level))
    for rows in found.values():
        rows.sort(key=lambda row: RANKS.get(row["severity"], 0))
    return found


def alerts_of(expressions: Iterable[str], span: Span, *, scope: Scope) -> dict[str, list[Row]]:
    """Return when rules on these expressions had fired: from, to (seconds; None: it still does) and severity.

    One query; the newest first, and at most so many that a chart is not filled with them.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    wanted = {text for text in expressions if text}
    if not wanted:
        return found
    rows = Alert.objects.history().visible_to(scope).filter(rule__expression__in=wanted)
    rows = rows.filter(fired_at__lte=span.end + span.step).exclude(resolved_at__lt=span.begin)
    named = rows.values_list("fired_at", "resolved_at", "severity", "rule__expression")
    for fired, resolved, severity, text in named[:MOST_ALERTS]:
        if fired is not None and text is not None:
            end = resolved.timestamp() if resolved else None
            found[text].append({"from": fired.timestamp(), "to": end, "severity": severity})
    return found


RANKS = {"info": 0, "warning": 1, "error": 2, "critical": 3}


def _level(level: RuleLevel) -> Row:
    return {"severity": level.severity, "comparison": level.comparison, "value": level.threshold}


def plot(panel: Panel, span: Span, levels: Levels, *, scope: Scope, limits: Limits = query.WAITED_FOR) -> Row:
    """Return one panel's answer: its series on the grid start, start + step, … (seconds), null where nothing is.

    An expression that fails makes the whole panel an error with its sentence: half a chart would be a wrong one.
    """
    answer: Row = {
        "unit": panel.unit,
        "stacked": panel.stacked,
        "min": panel.minimum,
        "max": panel.maximum,
        "sources": panel.sources,
        "empty": panel.empty,
        "levels": levels.get(panel.levels_of, []),
        "expressions": [asked(part.expression, span) for part in panel.queries],
        **grid(span),
    }
    rows: list[tuple[str, Any, Any]] = []
    warnings: dict[str, None] = {}
    try:
        for part in panel.queries:
            result = _range(part.expression, span, scope, limits)
            rows += _rows(part, result)
            warnings |= dict.fromkeys(result.warnings)
    except (PromQLError, query.Outrun) as error:
        return answer | {"error": f"{error}"}
    return answer | {"warnings": list(warnings)} | _series(rows, answer["start"], answer["step"])


def plot_alert(alert: Alert, span: Span, *, scope: Scope) -> Row:
    """Return the values of an alert's rule for exactly the labels of the alert, with the rule's limits."""
    rule = alert.rule
    answer: Row = {"unit": unit_of(rule.expression) if rule else "count", "stacked": False, "min": None, "max": None}
    answer |= {"sources": ["*"], "levels": [], "empty": "This alert was posted; it has no series.", **grid(span)}
    answer["expressions"] = [rule.expression] if rule else []
    if rule is None:
        return answer | {"series": [], "newest": None, "more": 0}
    answer["levels"] = sorted(
        (_level(level) for level in rule.levels.all() if level.threshold is not None),
        key=lambda row: RANKS.get(row["severity"], 0),
    )
    answer["empty"] = "The rule's expression has no value for this alert in this time."
    if answer["unit"] == "percent":
        answer |= {"min": 0.0, "max": 100.0}
    elif answer["levels"] and all(row["value"] >= 0 for row in answer["levels"]):
        answer["min"] = 0.0
    try:
        found = _range(rule.expression, span, scope)
    except (PromQLError, query.Outrun) as error:
        return answer | {"error": f"{error}"}
    rows = [
        (rule.name, values, present)
        for labels, values, present in zip(found.labels.dicts(), found.v, found.ok, strict=True)
        if all(alert.labels.get(name, value) == value for name, value in labels.items() if name != NAME)
    ]
    rows += _band(alert, span, scope)
    return answer | _series(rows, answer["start"], answer["step"])


def _band(alert: Alert, span: Span, scope: Scope) -> list[tuple[str, Any, Any]]:
    """The edges of the adaptive band around exactly the alert's series, where its rule has one."""
    rule = alert.rule
    if rule is None or not hasattr(rule, "band"):
        return []
    rows = []
    for name, words in (("anomaly:upper_band", "usual at most"), ("anomaly:lower_band", "usual at least")):
        try:
            found = _range(f'{name}{{band="{rule.band.slug}"}}', span, scope)
        except (PromQLError, query.Outrun):
            return []
        rows += [
            (words, values, present)
            for labels, values, present in zip(found.labels.dicts(), found.v, found.ok, strict=True)
            if all(alert.labels.get(key, value) == value for key, value in labels.items() if key not in (NAME, "band"))
        ]
    return rows


def table_of(answer: Row) -> list[list[Any]]:
    """Return a panel's answer as rows of a table, a heading first: the time in UTC, then each series' value or None.

    Where the answer is held against an earlier stretch, those series follow with "before" behind their names.
    """
    series = [(row["name"], row["values"]) for row in answer["series"]]
    series += [(f"{row['name']} before", row["values"]) for row in answer.get("before", [])]
    rows: list[list[Any]] = [["time", *(name for name, _ in series)]]
    for number in range(answer["count"]):
        at = datetime.fromtimestamp(answer["start"] + number * answer["step"], tz=UTC)
        rows.append([at.isoformat(), *(None if math.isnan(v[number]) else v[number] for _, v in series)])
    return rows


def tabulate(table: Table, span: Span, *, scope: Scope) -> Row:
    """Return the rows of a table, highest first column first: the labels of `by`, then a number per column."""
    length = max(timedelta(minutes=1), span.end - span.begin)
    texts = [column.expression.replace("$range", f"{int(length.total_seconds())}s") for column in table.columns]
    values: list[dict[tuple[str, ...], float]] = []
    for result in query.evaluate_many(texts, at=span.end, scope=scope):
        if isinstance(result, Exception):
            raise result
        names = [tuple(labels.get(name, "") for name, _ in table.by) for labels in result.labels.dicts()]
        values.append({key: float(v[0]) for key, v, ok in zip(names, result.v, result.ok, strict=True) if ok[0]})
    keys = sorted((k for k, v in values[0].items() if math.isfinite(v)), key=lambda k: -values[0][k])
    columns = [{"title": title, "unit": ""} for _, title in table.by]
    columns += [{"title": column.title, "unit": column.unit} for column in table.columns]
    rows = [
        [*key, *(_or_zero(part.get(key), column.unit) for part, column in zip(values, table.columns, strict=True))]
        for key in keys
    ]
    return {"columns": columns, "rows": rows}


def _or_zero(value: float | None, unit: str) -> float | None:
    """An endpoint without errors has no error series: that is 0 %."""
    if value is None:
        return 0.0 if unit == "percent" else None
    return value if math.isfinite(value) else None


def grid(span: Span) -> Row:
    """Return start, step (seconds) and count of the steps."""
    return {"start": int(span.start.timestamp()), "step": int(span.step.total_seconds()), "count": span.count}


def asked(expression: str, span: Span) -> str:
    """Return a panel's expression as it is asked of the store for this stretch."""
    return expression.replace("$window", span.window)


def _range(expression: str, span: Span, scope: Scope, limits: Limits = query.WAITED_FOR) -> Result:
    text = asked(expression, span)
    return shared.query_range(text, span, scope=scope, limits=limits)


def _rows(part: Query, result: Result) -> list[tuple[str, Any, Any]]:
    return [
        (legend(part.legend, labels), values, present)
        for labels, values, present in zip(result.labels.dicts(), result.v, result.ok, strict=True)
    ]


def legend(text: str, labels: Mapping[str, str]) -> str:
    """Fill the labels into "{device} read"; without a text, write the labels as PromQL does."""
    if text:
        return re.sub(r"{(\w+)}", lambda found: labels.get(found[1], "") or "other", text)
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != NAME)
    return labels.get(NAME, "") + (f"{{{inner}}}" if inner else "") or "value"


def _series(rows: list[tuple[str, Any, Any]], start: int, step: int) -> Row:
    """Return series of one name once (several hosts: the name carries a number), the largest `MOST_SERIES` of them."""
    kept = [(name, np.where(ok & np.isfinite(v), v, np.nan)) for name, v, ok in rows]
    kept = [(name, v) for name, v in kept if not np.isnan(v).all()]
    more = max(0, len(kept) - MOST_SERIES)
    if more:
        kept = sorted(kept, key=lambda pair: -float(np.nanmax(pair[1])))[:MOST_SERIES]
    seen: dict[str, int] = defaultdict(int)
    series = []
    newest = -1
    for name, values in kept:
        seen[name] += 1
        series.append({"name": name if seen[name] == 1 else f"{name} ({seen[name]})", "values": values.tolist()})
        newest = max(newest, int(np.flatnonzero(~np.isnan(values))[-1]))
    return {"series": series, "more": more, "newest": start + newest * step if newest >= 0 else None}
