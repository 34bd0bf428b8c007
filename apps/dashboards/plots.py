"""Turns panels and tables into the numbers that the browser draws. Reads series only through `metrics.query`."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.db.models import Q
from numpy.typing import NDArray

from apps.accounts.permissions import Scope
from apps.alerting.models import AdaptiveBand, Alert, AlertRule, RuleLevel
from apps.alerting.units import unit_of
from apps.dashboards import spikes
from apps.dashboards.panels import Panel, Table
from apps.dashboards.timespan import Span
from apps.metrics import query
from apps.promql.errors import PromQLError
from apps.promql.limits import Limits
from apps.promql.result import Result
from apps.promql.text import quote

MOST_SERIES = 20
LONGEST_NAME = 1_000
MOST_ALERTS = 200
NAME = "__name__"
LOWER, UPPER = "anomaly:lower_band", "anomaly:upper_band"
DIGITS = 10
"""Significant digits of what is drawn: exact for seconds since 1970, and half the bytes of a float's seventeen."""
RANKS = {"info": 0, "warning": 1, "error": 2, "critical": 3}
Row = dict[str, Any]


@dataclass(frozen=True)
class Watched:
    """What enabled rules say, by expression: their limits, when they had fired, the slugs of their adaptive bands."""

    levels: Mapping[str, list[Row]] = field(default_factory=dict)
    alerts: Mapping[str, list[Row]] = field(default_factory=dict)
    bands: Mapping[str, list[str]] = field(default_factory=dict)

    def of(self, texts: Iterable[str]) -> Row:
        """Return levels (mildest first) and alerts of all these expressions."""
        once = tuple(dict.fromkeys(texts))
        levels = [row for text in once for row in self.levels.get(text, ())]
        alerts = [row for text in once for row in self.alerts.get(text, ())]
        return {"levels": sorted(levels, key=lambda row: RANKS.get(row["severity"], 0)), "alerts": alerts}


UNWATCHED = Watched()


@dataclass(frozen=True)
class Line:
    """One series of a chart. `values`: NaN where there is none."""

    name: str
    expression: str
    labels: Mapping[str, str]
    values: NDArray[np.float64]

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """Its labels, as the band around it has them, too."""
        return _key(self.labels)


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if name not in (NAME, "band")))


def watched(expressions: Iterable[str], span: Span, *, scope: Scope) -> Watched:
    """Return what enabled rules say of these expressions (three queries, however many there are).

    Alerts are from and to (seconds; None: it still fires) and severity, the newest first, and at most so many that a
    chart is not filled with them.
    """
    wanted = {text for text in expressions if text}
    if not wanted:
        return UNWATCHED
    levels, alerts, bands = defaultdict(list), defaultdict(list), defaultdict(list)
    of_rules = RuleLevel.objects.filter(
        rule__enabled=True, rule__expression__in=wanted, threshold__isnull=False
    ).select_related("rule")
    for level in of_rules:
        levels[level.rule.expression].append(_level(level))
    rows = Alert.objects.history().visible_to(scope).filter(rule__expression__in=wanted)
    rows = rows.filter(fired_at__lte=span.end + span.step).exclude(resolved_at__lt=span.begin)
    named = rows.values_list("fired_at", "resolved_at", "severity", "rule__expression")
    for fired, resolved, severity, text in named[:MOST_ALERTS]:
        if fired is not None and text is not None:
            alerts[text].append(_fired(fired, resolved, severity))
    of_bands = AdaptiveBand.objects.filter(enabled=True).filter(
        Q(rule__expression__in=wanted) | Q(expression__in=wanted)
    )
    for band in of_bands.select_related("rule").order_by("slug"):
        bands[band.watched].append(band.slug)
    return Watched(levels, alerts, bands)


def _fired(fired: datetime, resolved: datetime | None, severity: str) -> Row:
    return {"from": fired.timestamp(), "to": resolved.timestamp() if resolved else None, "severity": severity}


def _level(level: RuleLevel) -> Row:
    return {"severity": level.severity, "comparison": level.comparison, "value": level.threshold}


def levels_of_rule(rule: AlertRule) -> list[Row]:
    """Return a rule's own limits, mildest first, whether or not it is switched on."""
    rows = [_level(level) for level in rule.levels.all() if level.threshold is not None]
    return sorted(rows, key=lambda row: RANKS.get(row["severity"], 0))


def texts_of(panel: Panel, span: Span) -> list[str]:
    """Return the expressions of a panel, as rules may have them, too."""
    return [panel.levels_of, *(asked(part.expression, span) for part in panel.queries)]


def plot(panel: Panel, span: Span, watch: Watched, *, scope: Scope, limits: Limits = query.WAITED_FOR) -> Row:
    """Return one panel's answer: its series on the grid start, start + step, … (seconds), null where nothing is.

    `lower` and `upper` are the edges of what is usual, under the name of the series that they are around.
    An expression that fails makes the whole panel an error with its sentence: half a chart would be a wrong one.
    """
    texts = texts_of(panel, span)
    answer: Row = {
        "unit": panel.unit,
        "stacked": panel.stacked,
        "min": panel.minimum,
        "max": panel.maximum,
        "sources": panel.sources,
        "empty": panel.empty,
        "expressions": texts[1:],
        "condensed": any(spikes.selector_of(text, span) for text in texts[1:]),
        **watch.of(texts),
        **grid(span),
    }
    lines: list[Line] = []
    warnings: dict[str, None] = {}
    try:
        for part, text in zip(panel.queries, texts[1:], strict=True):
            result = _range(text, span, scope, limits)
            lines += _lines(part.legend, text, result)
            warnings |= dict.fromkeys(result.warnings)
    except (PromQLError, query.Outrun) as error:
        return answer | {"error": f"{error}"}
    named, more = _named(lines)
    # In a stack a series does not lie where its band would; the band of the whole does.
    around = [] if panel.stacked else named
    usual = _usual(watch, texts, around, span, scope, limits)
    return answer | {"warnings": list(warnings)} | usual | _series(named, more, answer["start"], answer["step"])


def plot_alert(alert: Alert, span: Span, *, scope: Scope) -> Row:
    """Return the values of an alert's rule for exactly the labels of the alert, with the rule's limits and its band."""
    rule = alert.rule
    answer: Row = {"unit": unit_of(rule.expression) if rule else "count", "stacked": False, "min": None, "max": None}
    answer |= {"sources": ["*"], "levels": [], "empty": "This alert was posted; it has no series.", **grid(span)}
    answer["expressions"] = [rule.expression] if rule else []
    answer["alerts"] = [_fired(alert.fired_at, alert.resolved_at, alert.severity)] if alert.fired_at else []
    if rule is None:
        return answer | {"series": [], "newest": None, "more": 0}
    answer["levels"] = levels_of_rule(rule)
    answer["empty"] = "The rule's expression has no value for this alert in this time."
    if answer["unit"] == "percent":
        answer |= {"min": 0.0, "max": 100.0}
    elif answer["levels"] and all(row["value"] >= 0 for row in answer["levels"]):
        answer["min"] = 0.0
    try:
        found = _lines(rule.name, rule.expression, _range(rule.expression, span, scope))
    except (PromQLError, query.Outrun) as error:
        return answer | {"error": f"{error}"}
    own = [line for line in found if all(alert.labels.get(name, value) == value for name, value in line.key)]
    named, more = _named(own)
    watch = Watched(bands={rule.expression: [rule.band.slug]} if hasattr(rule, "band") else {})
    usual = _usual(watch, [rule.expression], named, span, scope, query.WAITED_FOR)
    return answer | usual | _series(named, more, answer["start"], answer["step"])


def counted(panel: Panel, span: Span, series: list[Row]) -> Row:
    """Return the answer of a panel that counts rows, not samples: none could be late, so `newest` says nothing."""
    return {
        "unit": panel.unit, "stacked": panel.stacked, "min": panel.minimum, "max": panel.maximum, "levels": [],
        "alerts": [], "sources": panel.sources, "expressions": [], "empty": panel.empty, "series": series, "more": 0,
        "newest": None, "warnings": [], **grid(span),
    }  # fmt: skip


def _usual(
    watch: Watched, texts: list[str], lines: list[Line], span: Span, scope: Scope, limits: Limits
) -> dict[str, list[Row]]:
    """Return the edges of the adaptive bands: of a chart's own series, and of the rule that it is held against.

    A band that cannot be read is left out: the chart is true without it.
    """
    found: dict[str, list[Row]] = {"lower": [], "upper": []}
    for text in dict.fromkeys(texts):
        for slug in watch.bands.get(text, ()):
            is_own = text in texts[1:] or len(texts) == 1
            names = {line.key: line.name for line in lines if line.expression == text}
            try:
                edges = _range(f'{{__name__=~"{LOWER}|{UPPER}",band={quote(slug)}}}', span, scope, limits)
            except (PromQLError, query.Outrun):
                continue
            for labels, values, present in zip(edges.labels.dicts(), edges.v, edges.ok, strict=True):
                key = _key(labels)
                name = names.get(key, "" if is_own else text)
                side = found["lower" if labels[NAME] == LOWER else "upper"]
                if name and (is_own or sum(row["name"] == text for row in side) == 0) and len(side) < MOST_SERIES:
                    side.append({"name": name, "values": _or_nan(values, present).tolist()})
    return found if found["lower"] or found["upper"] else {}


def slim(answers: Mapping[str, Row]) -> Mapping[str, Row]:
    """Return the answers with no more digits than a chart needs."""
    for row in answers.values():
        for part in ("series", "before", "lower", "upper"):
            if part in row:
                row[part] = [each | {"values": rounded(each["values"])} for each in row[part]]
    return answers


def rounded(values: Sequence[float]) -> NDArray[np.float64]:
    """Return float64[n] with `DIGITS` significant digits; what is no number stays so."""
    v = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.clip(DIGITS - 1 - np.floor(np.log10(np.abs(v))), -290, 290)
        scale = 10.0 ** np.abs(places)
        found = np.where(places >= 0, np.round(v * scale) / scale, np.round(v / scale) * scale)
    return np.where(np.isfinite(found), found, v)


def table_of(answer: Row) -> list[list[Any]]:
    """Return a panel's answer as rows of a table, a heading first: the time in UTC, then each series' value or None.

    Bands follow with "usual at least" and "usual at most" behind the names of their series; where the answer is held
    against an earlier stretch, those series with "before".
    """
    series = [(row["name"], row["values"]) for row in answer["series"]]
    for part, words in (("lower", "usual at least"), ("upper", "usual at most"), ("before", "before")):
        series += [(f"{row['name']} {words}", row["values"]) for row in answer.get(part, [])]
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


def _range(text: str, span: Span, scope: Scope, limits: Limits = query.WAITED_FOR) -> Result:
    return spikes.query_range(text, span, scope=scope, limits=limits)


def _lines(words: str, text: str, result: Result) -> list[Line]:
    return [
        Line(legend(words, labels), text, labels, _or_nan(values, present))
        for labels, values, present in zip(result.labels.dicts(), result.v, result.ok, strict=True)
    ]


def _or_nan(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(present & np.isfinite(values), values, np.nan)


def legend(text: str, labels: Mapping[str, str]) -> str:
    """Fill the labels into "{device} read"; without a text, write the labels as PromQL does. Bounded."""
    if text:
        return re.sub(r"{(\w+)}", lambda found: labels.get(found[1], "") or "other", text)[:LONGEST_NAME]
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != NAME)
    return (labels.get(NAME, "") + (f"{{{inner}}}" if inner else "") or "value")[:LONGEST_NAME]


def _named(lines: list[Line]) -> tuple[list[Line], int]:
    """Return the lines that have values, the largest `MOST_SERIES` of them, and how many more there are.

    Lines of one name (of several hosts) carry a number.
    """
    kept = [line for line in lines if not np.isnan(line.values).all()]
    more = max(0, len(kept) - MOST_SERIES)
    if more:
        kept = sorted(kept, key=lambda line: -float(np.nanmax(line.values)))[:MOST_SERIES]
    seen: dict[str, int] = defaultdict(int)
    found = []
    for line in kept:
        seen[line.name] += 1
        found.append(line if seen[line.name] == 1 else replace(line, name=f"{line.name} ({seen[line.name]})"))
    return found, more


def _series(lines: list[Line], more: int, start: int, step: int) -> Row:
    newest = max((int(np.flatnonzero(~np.isnan(line.values))[-1]) for line in lines), default=-1)
    series = [{"name": line.name, "values": line.values.tolist()} for line in lines]
    return {"series": series, "more": more, "newest": start + newest * step if newest >= 0 else None}
