"""Prometheus' HTTP API over rules and alerts: `/api/v1/rules` and `/api/v1/alerts`.

A level of a rule is shown as the plain rule that it stands for; an alert stands under the level that it has now, so
that each is counted once. Alerts that were posted have no rule and are among the alerts only.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from apps.accounts.permissions import Principal, Right
from apps.alerting.lifecycle import Severity, State
from apps.alerting.models import Alert, AlertRule, GroupRun, RecordingRule, RuleGroup
from apps.alerting.plainrules import condition
from apps.alerting.thresholds import Level
from apps.core.lanes import GET, Answer, Lane, Parameter, Request
from apps.metrics.envelope import enveloped, invalid, refuse, rfc3339, selectors_of, success
from apps.promql.errors import PromQLError
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.source import Matcher
from apps.promql.text import quote

FILE: Final = "portal"
"""What stands for the file of a group: rules are rows here."""
HIDDEN: Final = "The expression fails; what it says may name series that you may not see."
_ORDER: Final = {"inactive": 0, "pending": 1, "firing": 2}


# --- Alerts ---------------------------------------------------------------------------------------------------------


def _value(value: Any) -> str:
    """A value as Go's %e writes it with the fewest digits; NaN where there is none.

    >>> [_value(v) for v in (1, 0.05, None, "+inf", -1.25e30)]
    ['1e+00', '5e-02', 'NaN', '+Inf', '-1.25e+30']
    """
    found = math.nan if value is None else float(value)
    if math.isnan(found):
        return "NaN"
    if math.isinf(found):
        return "+Inf" if found > 0 else "-Inf"
    return np.format_float_scientific(found, trim="-", exp_digits=2)


def _shown(alert: Alert, value: Any) -> dict[str, Any]:
    state = "pending" if alert.state == State.PENDING else "firing"
    shown = {
        "labels": dict(sorted(alert.labels.items())),
        "annotations": dict(sorted(alert.annotations.items())),
        "state": state,
        "activeAt": rfc3339(alert.pending_at or alert.fired_at or alert.seen_at),
    }
    if alert.state == State.RECOVERING:
        shown["keepFiringSince"] = rfc3339(alert.recovering_at)
    return {**shown, "value": _value(value)}


def _open_alerts(by: Principal) -> list[Alert]:
    """What is wrong or about to be, as far as the caller may see it, oldest first."""
    found = Alert.objects.open().visible_to(by.scope).order_by("id")
    return list(
        found.only(
            *("rule", "labels", "annotations", "state", "severity", "value"),
            *("pending_at", "fired_at", "recovering_at", "seen_at"),
        )
    )


def _newest_values(runs: Sequence[GroupRun]) -> dict[str, Any]:
    """The value at the last evaluation by an alert's id."""
    return {ident: value for run in runs for ident, value in run.results.get("alerts", {}).items()}


@enveloped
def alerts(by: Principal, request: Request) -> Answer:
    """/api/v1/alerts: every alert that is pending or firing."""
    values = _newest_values(list(GroupRun.objects.only("results")))
    shown = [_shown(alert, values.get(str(alert.pk), alert.value)) for alert in _open_alerts(by)]
    return success({"alerts": shown})


# --- Rules ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """Which rules are asked for; empty sets ask for all."""

    kind: str = ""
    names: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    selectors: Sequence[tuple[Matcher, ...]] = ()
    with_alerts: bool = True
    page: int = 0
    token: str = ""

    def takes(self, kind: str, rule: Mapping[str, Any]) -> bool:
        if self.kind not in ("", kind) or (self.names and rule["name"] not in self.names):
            return False
        plain = {name: text for name, text in rule["labels"].items() if "{{" not in text}
        return not self.selectors or any(
            all(matcher.matches(plain.get(matcher.name, "")) for matcher in matchers) for matchers in self.selectors
        )


def _wanted(request: Request) -> _Wanted:
    kind = request.one("type").lower()
    if kind not in ("", "alert", "record"):
        raise invalid("type", f"not supported value {quote(kind)}")
    without = request.one("exclude_alerts").lower()
    if without not in ("", "true", "false", "1", "0", "t", "f"):
        raise invalid("exclude_alerts", f"strconv.ParseBool: parsing {quote(without)}: invalid syntax")
    page, token = request.one("group_limit"), request.one("group_next_token")
    if page and not (page.isascii() and page.isdigit() and int(page[:18]) > 0):
        raise invalid("group_limit", "group_limit needs to be greater than 0")
    if token and not page:
        raise invalid("group_limit", "group_limit needs to be present in order to paginate over the groups")
    return _Wanted(
        kind,
        frozenset(request.every("rule_name[]")),
        frozenset(request.every("rule_group[]")),
        frozenset(request.every("file[]")),
        selectors_of(request),
        without not in ("true", "1", "t"),
        int(page[:18] or 0),
        token,
    )


@dataclass
class _Known:
    """What the rules of the page are shown with."""

    by: Principal
    alerts: Mapping[int, Sequence[Alert]] = field(default_factory=dict)
    rules: Mapping[int, Sequence[AlertRule]] = field(default_factory=dict)
    records: Mapping[int, Sequence[RecordingRule]] = field(default_factory=dict)


@enveloped
def rules(by: Principal, request: Request) -> Answer:
    """/api/v1/rules: the groups with their rules, and how the last evaluation went."""
    wanted = _wanted(request)
    groups = list(RuleGroup.objects.filter(enabled=True).select_related("run").order_by("name"))
    if wanted.token:
        tokens = [_token(group) for group in groups]
        if wanted.token not in tokens:
            raise invalid("group_next_token", f"invalid group_next_token '{wanted.token}'. were rule groups changed?")
        groups = groups[tokens.index(wanted.token) :]
    if wanted.groups:
        groups = [group for group in groups if group.name in wanted.groups]
    if wanted.files and FILE not in wanted.files:
        groups = []
    known = _read(by, groups, wanted)
    shown: list[dict[str, Any]] = []
    for group in groups:
        one = _group(group, known, wanted)
        if not one["rules"]:
            continue
        if wanted.page and len(shown) == wanted.page:
            return success({"groups": shown, "groupNextToken": _token(group)})
        shown.append(one)
    return success({"groups": shown})


def _token(group: RuleGroup) -> str:
    """What a page ends with: the group that the next one begins with."""
    return hashlib.sha256(f"{FILE};{group.name}".encode()).hexdigest()[:40]


def _read(by: Principal, groups: Sequence[RuleGroup], wanted: _Wanted) -> _Known:
    alerts: dict[int, list[Alert]] = defaultdict(list)
    rules: dict[int, list[AlertRule]] = defaultdict(list)
    records: dict[int, list[RecordingRule]] = defaultdict(list)
    ids = [group.pk for group in groups]
    if wanted.kind != "record":
        for rule in AlertRule.objects.filter(group__in=ids, enabled=True).prefetch_related("levels").order_by("id"):
            rules[rule.group_id].append(rule)
        for alert in _open_alerts(by):
            if alert.rule_id is not None:
                alerts[alert.rule_id].append(alert)
    if wanted.kind != "alert":
        for record in RecordingRule.objects.filter(group__in=ids, enabled=True).order_by("id"):
            records[record.group_id].append(record)
    return _Known(by, alerts, rules, records)


def _group(group: RuleGroup, known: _Known, wanted: _Wanted) -> dict[str, Any]:
    run: GroupRun | None = getattr(group, "run", None)
    lines = {} if run is None else run.results
    rules = known.rules.get(group.pk, ())
    records = known.records.get(group.pk, ())
    seconds = 0.0 if run is None else run.duration.total_seconds()
    last = rfc3339(None if run is None else run.evaluated_at)
    share = {
        # Rules are evaluated together: what one took of it nobody knows, so each is told its share.
        "evaluationTime": seconds / max(1, len(rules) + len(records)),
        "lastEvaluation": last,
    }
    shown: list[dict[str, Any]] = []
    for record in records:
        line = lines.get("recording", {}).get(str(record.pk))
        one = {"name": record.name, "query": _canonical(record.expression), "labels": dict(record.labels)}
        shown.append({**one, **_health(line, last, known.by), **share, "type": "recording"})
    for rule in rules:
        health = _health(lines.get("rules", {}).get(str(rule.pk)), last, known.by)
        for one in _levels(rule, known.alerts.get(rule.pk, ()), lines.get("alerts", {})):
            if not wanted.with_alerts:
                one["alerts"] = []
            shown.append({**one, **health, **share, "type": "alerting"})
    kinds = {"alerting": "alert", "recording": "record"}
    return {
        "name": group.name,
        "file": FILE,
        "rules": [one for one in shown if wanted.takes(kinds[one["type"]], one)],
        "interval": group.interval.total_seconds(),
        "limit": 0,
        "evaluationTime": seconds,
        "lastEvaluation": last,
    }


def _health(line: Mapping[str, Any] | None, last: str, by: Principal) -> dict[str, str]:
    if line is None:
        return {"health": "unknown"}
    if error := line.get("error"):
        return {"health": "err", "lastError": HIDDEN if by.scope.matchers else str(error)}
    return {"health": "ok"}


def _levels(rule: AlertRule, alerts: Sequence[Alert], values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The plain rules of an alert rule, mildest level first, each with the alerts that have its severity."""
    for row in sorted(rule.levels.all(), key=lambda level: Severity(level.severity).rank):
        level = Level(Severity(row.severity), row.comparison, row.threshold)
        mine = [_shown(one, values.get(str(one.pk), one.value)) for one in alerts if one.severity == row.severity]
        service = {"service": rule.service} if rule.service else {}
        yield {
            "state": max((one["state"] for one in mine), key=_ORDER.__getitem__, default="inactive"),
            "name": rule.name,
            "query": _condition(rule.expression, level),
            "duration": rule.pending_period.total_seconds(),
            "keepFiringFor": rule.keep_firing_for.total_seconds(),
            "labels": dict(sorted({**service, "severity": row.severity, **rule.labels}.items())),
            "annotations": dict(sorted(rule.annotations.items())),
            "alerts": mine,
        }


def _condition(expression: str, level: Level) -> str:
    try:
        return condition(parse(expression), level)
    except PromQLError:
        return expression


def _canonical(expression: str) -> str:
    try:
        return render(parse(expression))
    except PromQLError:
        return expression


LANES: Final[dict[str, Lane]] = {
    "/api/v1/alerts": Lane(GET, Right.READ, alerts, refuse, "Alerts that are pending or firing."),
    "/api/v1/rules": Lane(
        GET,
        Right.READ,
        rules,
        refuse,
        "Rule groups with their rules and alerts.",
        (
            Parameter("type", "One kind of rules only.", choices=("alert", "record")),
            Parameter("rule_name[]", "Rules of these names only.", many=True),
            Parameter("rule_group[]", "These groups only.", many=True),
            Parameter("file[]", "Groups of these files only; all are of `portal`.", many=True),
            Parameter("match[]", "Rules whose labels a selector accepts.", many=True),
            Parameter("exclude_alerts", "`true` leaves the alerts out.", choices=("true", "false")),
            Parameter("group_limit", "Most groups of one answer.", "integer"),
            Parameter("group_next_token", "Where the answer before ended."),
        ),
    ),
}
