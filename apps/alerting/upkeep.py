"""What rules need from a person: how noisy each was, what would help, and which match nothing, lack a runbook or wait
for a review. Reads only; `hygiene` judges."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from apps.accounts.permissions import EVERYTHING, Principal, Scope
from apps.alerting import hygiene
from apps.alerting.hygiene import Firing, Noise, Proposal
from apps.alerting.models import Alert, AlertRule, GroupRun, RuleLevel
from apps.alerting.plans import rule_plan
from apps.alerting.preview import Preview, Refused, check_span, preview
from apps.alerting.services.rules import as_proposed
from apps.metrics import query
from apps.promql.ast import Selector, walk
from apps.promql.errors import PromQLError
from apps.promql.parser import parse

LONGEST: Final = timedelta(days=366)
TRIED: Final = timedelta(days=7)
"""How far back a proposal is tried."""
PAGING: Final = ("error", "critical")
"""Severities of which somebody is woken: their message must say in a line what is wrong."""
MOST_FIRINGS: Final = 100_000
EXPLAINED: Final = 50
"""Rules without series of which one report looks for the reason."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """One rule and what it needs."""

    rule: AlertRule
    noise: Noise
    proposals: tuple[Proposal, ...] = ()
    nothing: tuple[str, ...] = ()
    matches: int | None = None
    lacks_runbook: bool = False
    lacks_summary: bool = False
    due: bool = False

    @property
    def is_fine(self) -> bool:
        """Whether nobody has to look at it."""
        return not (self.proposals or self.matches == 0 or self.lacks_runbook or self.lacks_summary or self.due)


@dataclass(slots=True)
class Report:
    """All rules, the noisiest first; `cut` where there were more firings than are counted."""

    start: datetime
    end: datetime
    rules: list[Upkeep] = field(default_factory=list)
    cut: bool = False


def report(*, start: datetime, end: datetime, today: date, scope: Scope = EVERYTHING) -> Report:
    """Look at every rule that is switched on, over firings that began in [start, end]; a fixed number of queries."""
    found = Report(start, end)
    fired = Alert.objects.visible_to(scope).filter(rule__isnull=False, fired_at__range=(start, end))
    rows = list(
        fired.order_by("fired_at").values_list(
            "rule_id", "fingerprint", "fired_at", "resolved_at", "acknowledged_at", "resolve_reason", "value"
        )[: MOST_FIRINGS + 1]
    )
    found.cut = len(rows) > MOST_FIRINGS
    firings: dict[int, list[Firing]] = defaultdict(list)
    for key, series, begin, over, acknowledged, reason, value in rows[:MOST_FIRINGS]:
        if key is not None and begin is not None:
            acted = acknowledged is not None or reason == "manual"
            firings[key].append(Firing(bytes(series), begin, over, acted, value))
    lines: dict[str, Mapping[str, Any]] = {}
    for results in GroupRun.objects.values_list("results", flat=True):
        lines |= results.get("rules", {})
    names: list[str] | None = None
    explained = 0
    rules = AlertRule.objects.filter(enabled=True, group__enabled=True)
    for rule in rules.select_related("group", "schedule", "band").prefetch_related("levels").order_by("slug"):
        line = lines.get(str(rule.pk))
        matches = None if line is None or "error" in line else int(line.get("series", 0))
        reasons: list[str] = []
        if matches == 0 and not scope.matchers and explained < EXPLAINED:
            names = query.metric_names() if names is None else names
            reasons = _why_nothing(rule.expression, names)
            explained += bool(reasons)
        mine = firings.get(rule.pk, [])
        found.rules.append(
            Upkeep(
                rule,
                hygiene.count(mine, end),
                tuple(hygiene.proposals(mine, rule.pending_period, rule_plan(rule).levels, end)),
                tuple(reasons),
                matches,
                lacks_runbook=not (rule.runbook.strip() or _says(rule, "runbook") or _says(rule, "runbook_url")),
                lacks_summary=not _says(rule, "summary") and any(lv.severity in PAGING for lv in rule.levels.all()),
                due=rule.review_on is not None and rule.review_on <= today,
            )
        )
    found.rules.sort(key=lambda each: (-(each.noise.self_resolved + each.noise.ignored), each.is_fine, each.rule.slug))
    return found


def _says(rule: AlertRule, annotation: str) -> bool:
    return bool(str(rule.annotations.get(annotation) or "").strip())


def proposals_of(rule: AlertRule, *, start: datetime, end: datetime) -> list[Proposal]:
    """What is proposed for one rule, by its firings that began in [start, end]."""
    fired = Alert.objects.filter(rule=rule, fired_at__range=(start, end)).order_by("fired_at")
    firings = [
        Firing(
            bytes(each.fingerprint),
            each.fired_at,
            each.resolved_at,
            each.acknowledged_at is not None or each.resolve_reason == "manual",
            each.value,
        )
        for each in fired[:MOST_FIRINGS]
        if each.fired_at is not None
    ]
    return hygiene.proposals(firings, rule.pending_period, rule_plan(rule).levels, end)


def compare(rule: AlertRule, proposal: Proposal, *, by: Principal, now: datetime) -> dict[str, Any]:
    """The rule as it is and as proposed, replayed over the last days: rows of (what, before, after), or a problem."""
    changed, levels = as_proposed(rule, proposal)
    rows = [RuleLevel(rule=rule, **level) for level in levels]
    tried: list[Preview] = []
    answer: dict[str, Any] = {"days": TRIED.days, "wait": changed.pending_period, "rows": [], "problem": ""}
    try:
        for plan in (rule_plan(rule), rule_plan(changed, rows)):
            *_, last = preview(plan, check_span(now - TRIED, now), by=by)
            if isinstance(last, Preview):
                tried.append(last)
    except (Refused, PromQLError) as problem:
        return answer | {"problem": str(problem)}
    before, after = tried
    answer["rows"] = [
        ("Alerts", len(before.firings), len(after.firings)),
        ("Minutes of firing", *(round(each.firing_time.total_seconds() / 60) for each in tried)),
        ("Flaps", before.flaps, after.flaps),
    ]
    return answer


def _why_nothing(expression: str, names: list[str]) -> list[str]:
    """Which metric or label value of an expression does not exist."""
    try:
        nodes = list(walk(parse(expression)))
    except PromQLError:
        return []
    reads: dict[str, list[tuple[str, str]]] = {}
    for node in nodes:
        if isinstance(node, Selector) and node.name:
            equal = [(each.name, each.value) for each in node.matchers if each.op == "=" and each.name != "__name__"]
            reads.setdefault(node.name, []).extend(equal)
    labels = {label for metric, matchers in reads.items() if metric in names for label, _ in matchers}
    return hygiene.why_nothing(reads, names, {label: query.label_values(label) for label in sorted(labels)[:5]})


def as_dict(found: Upkeep) -> dict[str, Any]:
    """One rule for the API and the table in a file."""
    return {
        "rule": found.rule.slug,
        "name": found.rule.name,
        "fired": found.noise.fired,
        "acted_on": found.noise.acted_on,
        "self_resolved": found.noise.self_resolved,
        "ignored": found.noise.ignored,
        "flapped": found.noise.flapped,
        "firing_seconds": round(found.noise.firing.total_seconds()),
        "noise": round(found.noise.noise, 3),
        "series": found.matches,
        "nothing": list(found.nothing),
        "lacks_runbook": found.lacks_runbook,
        "lacks_summary": found.lacks_summary,
        "review_on": found.rule.review_on.isoformat() if found.rule.review_on else None,
        "due": found.due,
        "proposals": [
            {
                "kind": each.kind,
                "severity": each.severity,
                "value": each.value,
                "reason": each.reason,
                "spared": each.spared,
            }
            for each in found.proposals
        ],
    }
