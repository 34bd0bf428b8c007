"""Rules of the portal as rules of Prometheus and back: levels become plain rules, plain rules become levels. Pure.

One level is one plain rule, and no level excludes another. Each level lives exactly as a Prometheus rule of its own
(see `lifecycle`), so the plain rules fire when the levels do. An expression that excluded the higher level
(`x > 80 unless x > 90`) would not: while the higher level still waits for its `for`, the lower one would have ended,
and nobody would be told of anything. That the milder alert is silent beside the worse one is Alertmanager's
inhibition by severity, which the heading of an export names.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from apps.alerting import templates
from apps.alerting.lifecycle import Severity, Terms
from apps.alerting.plans import GroupPlan, RecordPlan, RulePlan, question
from apps.alerting.rulefiles import PlainAlert, PlainGroup, PlainRecord, Problem, RuleFileError, Texts, canonical
from apps.alerting.thresholds import Level
from apps.promql import conditions
from apps.promql.ast import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expr,
    Selector,
    String,
    unwrap,
    value_type,
    walk,
)
from apps.promql.functions import SCALAR
from apps.promql.labels import NAME
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.result import number
from apps.promql.text import IDENTIFIER, METRIC, quote

DEFAULT_SEVERITY: Final = Severity.WARNING
"""The level of an imported alert whose label `severity` says nothing that is known here."""

ALIASES: Final = {
    "page": Severity.CRITICAL,
    "critical": Severity.CRITICAL,
    "crit": Severity.CRITICAL,
    "fatal": Severity.CRITICAL,
    "emergency": Severity.CRITICAL,
    "disaster": Severity.CRITICAL,
    "p1": Severity.CRITICAL,
    "error": Severity.ERROR,
    "high": Severity.ERROR,
    "major": Severity.ERROR,
    "p2": Severity.ERROR,
    "warning": Severity.WARNING,
    "warn": Severity.WARNING,
    "medium": Severity.WARNING,
    "minor": Severity.WARNING,
    "ticket": Severity.WARNING,
    "p3": Severity.WARNING,
    "info": Severity.INFO,
    "information": Severity.INFO,
    "low": Severity.INFO,
    "none": Severity.INFO,
    "p4": Severity.INFO,
    "p5": Severity.INFO,
}
"""Words of the label `severity` and the level they stand for; the label stays as it was written."""


class Unportable(Exception):
    """A rule that plain rules cannot say; the message begins with what stands in the way."""


@dataclass(frozen=True, slots=True)
class LevelRule:
    """An alert rule as far as it matters here. Times in milliseconds."""

    slug: str
    name: str
    expression: str
    levels: tuple[Level, ...]
    pending: int = 0
    keep: int = 0
    labels: Texts = ()
    annotations: Texts = ()
    service: str = ""


# --- Out ----------------------------------------------------------------------------------------------------------


def plain(rule: LevelRule) -> tuple[PlainAlert, ...]:
    """The plain rules that fire as the rule does, mildest level first; Unportable where there are none."""
    labels = dict(rule.labels)
    if "severity" in labels and len(rule.levels) > 1:
        raise Unportable("its label severity: set by hand it is the same for all levels, whose alerts would be one")
    expression = parse(rule.expression)
    if rule.service:
        labels.setdefault("service", service_label(expression, rule.service))
    levels = sorted(rule.levels, key=lambda level: level.severity.rank)
    return tuple(
        PlainAlert(
            name=rule.name,
            expression=latched(rule.name, expression, level, {"severity": level.severity.value, **labels}),
            pending=rule.pending,
            keep=rule.keep,
            labels=shown_labels(tuple({"severity": level.severity.value, **labels}.items())),
            annotations=tuple(sorted(rule.annotations)),
            slug=rule.slug,
            level=level.severity,
        )
        for level in levels
    )


def condition(expression: Expr, level: Level) -> str:
    """The expression of the plain rule of one level, in canonical form."""
    text = render(expression)
    if not level.comparison or level.threshold is None:
        return text
    if value_type(expression) == SCALAR:
        text = f"vector({text})"  # numbers can only be compared as a vector
    elif isinstance(expression, Binary) and expression.op in COMPARISONS | SET_OPERATORS:
        text = f"({text})"
    return f"{text} {level.comparison} {number(level.threshold)}"


ALERTS: Final = "ALERTS"


def latched(name: str, expression: Expr, level: Level, labels: dict[str, str]) -> str:
    """The same with the level's recovery: what fires (by ALERTS, as Prometheus writes it) goes on while it is held.

    Unportable where a level without threshold has a recovery expression: of what is gone no labels are left.
    """
    breach = condition(expression, level)
    if not level.may_hold:
        return breach
    if not level.comparison:
        raise Unportable("its recovery expression: a level without threshold leaves nothing that could go on")
    if level.recovers:
        held = f"({render(expression)}) unless ({render(parse(level.recovers))})"
    else:
        held = condition(expression, replace(level, threshold=level.recovery))
    told = {"alertname": name, "alertstate": "firing"}
    if labels["severity"] == level.severity.value:
        told["severity"] = level.severity.value
    selector = ", ".join(f"{label}={quote(text)}" for label, text in told.items())
    added = ", ".join(dict.fromkeys(("alertname", "alertstate", *sorted(labels))))
    return render(parse(f"({breach}) or (({held}) and ignoring ({added}) {ALERTS}{{{selector}}})"))


def unlatched(text: str) -> tuple[str, Level] | None:
    """What `latched` made an expression of: (the expression, a level with threshold and recovery); None: it did not."""
    node = unwrap(parse(text))
    if not isinstance(node, Binary) or node.op != "or":
        return None
    goes_on = unwrap(node.right)
    if not isinstance(goes_on, Binary) or goes_on.op != "and":
        return None
    told = unwrap(goes_on.right)
    if not isinstance(told, Selector) or told.name != ALERTS:
        return None
    expression, comparison, threshold = conditions.split(render(unwrap(node.left)))
    if not comparison:
        return None
    level = Level(DEFAULT_SEVERITY, comparison, threshold)
    held = unwrap(goes_on.left)
    if (
        isinstance(held, Binary)
        and held.op == "unless"
        and canonical(render(unwrap(held.left))) == canonical(expression)
    ):
        return expression, replace(level, recovers=render(unwrap(held.right)))
    text, again, recovery = conditions.split(render(held))
    if again == comparison and canonical(text) == canonical(expression):
        return expression, replace(level, recovery=recovery)
    return None


def as_found(name: str) -> str:
    """The template that leaves a label as the expression gives it."""
    return f"{{{{ $labels.{name} }}}}"


def service_label(expression: Expr, service: str) -> str:
    """The label that the field `service` becomes: what the expression says comes first, as in the evaluation."""
    if _lacks_label(expression, "service"):
        return service if "{{" not in service else f"{{{{ {quote(service)} }}}}"
    other = service if "{{" not in service else f"{{{{ {quote(service)} }}}}"
    return f"{{{{ with $labels.service }}}}{{{{ . }}}}{{{{ else }}}}{other}{{{{ end }}}}"


def _lacks_label(expression: Expr, label: str) -> bool:
    """Whether no series of the result can have this label, by the looks of the expression; in doubt False."""
    node = unwrap(expression)
    if value_type(node) == SCALAR:
        return True
    if isinstance(node, Aggregate) and node.op not in ("topk", "bottomk", "limitk", "limit_ratio", "count_values"):
        return not node.without and label not in node.grouping
    return False


def shown_labels(labels: Texts) -> Texts:
    """Without labels that only repeat what the expression gives."""
    return tuple(sorted((name, text) for name, text in labels if text != as_found(name)))


# --- In -----------------------------------------------------------------------------------------------------------


def levelled(alerts: Sequence[PlainAlert]) -> LevelRule:
    """The rule of one plain rule, or of those that an export made of one rule; RuleFileError where they disagree.

    A comparison with a number at the end becomes the level's threshold, as in every rule here: the same series are
    breached at the same times with the same value, and a series that is absent is not breached either. A plain rule
    without a label `severity` leaves its alerts without one: the level is for the portal's pages and routes only.
    """
    first = alerts[0]
    rules = [_one(alert) for alert in alerts]
    for alert, rule in zip(alerts[1:], rules[1:], strict=True):
        if differing := _differing(rules[0], rule):
            message = (
                f"the alert {alert.name} is marked as a level of the rule {first.slug}, but its {differing} differs "
                f"from that in line {first.place.line}; make them equal, or remove the comments to have two rules"
            )
            raise RuleFileError([Problem(alert.place.file, alert.place.line, message)])
        if rule.levels[0].severity in [level.severity for other in rules[:1] for level in other.levels]:
            message = (
                f"the rule {first.slug} has the level {rule.levels[0].severity} twice; one of the comments is wrong"
            )
            raise RuleFileError([Problem(alert.place.file, alert.place.line, message)])
        rules[0] = replace(rules[0], levels=(*rules[0].levels, *rule.levels))
    return rules[0]


def _one(alert: PlainAlert) -> LevelRule:
    expression, comparison, threshold = conditions.split(alert.expression)
    level = Level(DEFAULT_SEVERITY, comparison or "", threshold)
    if alert.slug and (export := unlatched(alert.expression)) is not None:
        expression, level = export
    labels = dict(alert.labels)
    severity = severity_of(labels.get("severity"), alert.level)
    if "severity" not in labels:
        labels["severity"] = as_found("severity")
    elif labels["severity"] == severity.value:
        del labels["severity"]  # the level gives it
    service = labels.get("service", "")
    return LevelRule(
        slug=alert.slug,
        name=alert.name,
        expression=expression,
        levels=(replace(level, severity=severity),),
        pending=alert.pending,
        keep=alert.keep,
        labels=tuple(sorted(labels.items())),
        annotations=alert.annotations,
        service=service if len(service) <= 100 and "{{" not in service else "",
    )


def severity_of(label: str | None, marked: Severity | None) -> Severity:
    """The level of an imported alert: its label where that is a severity, else the mark of an export, else by word."""
    if label in list(Severity):
        return Severity(label)
    if marked is not None:
        return marked
    return ALIASES.get((label or "").strip().lower(), DEFAULT_SEVERITY)


def _differing(one: LevelRule, other: LevelRule) -> str:
    if canonical(one.expression) != canonical(other.expression):
        return "expression"
    fields = (("name", "name"), ("pending", "for"), ("keep", "keep_firing_for"), ("labels", "labels"),
              ("annotations", "annotations"))  # fmt: skip
    return next((word for name, word in fields if getattr(one, name) != getattr(other, name)), "")


def changing_labels(alert: PlainAlert) -> list[str]:
    """Labels that are computed from the value: in Prometheus the alert becomes another one when they change."""
    return [
        name
        for name, text in alert.labels
        if "{{" in text and any(word in text for word in ("$value", ".Value", "query"))
    ]


def gathered(group: PlainGroup) -> list[list[PlainAlert]]:
    """The alerts of a group, those together that an export made of one rule."""
    rules: dict[str, list[PlainAlert]] = {}
    for place, alert in enumerate(group.alerts):
        rules.setdefault(alert.slug or f"#{place}", []).append(alert)
    return list(rules.values())


def plans(groups: Iterable[PlainGroup]) -> list[GroupPlan]:
    """Groups of a file as the evaluation wants them, with one level to each alert; numbered from 1."""
    count = itertools.count(1)
    return [
        GroupPlan(
            next(count),
            group.name,
            tuple(one for alert in group.alerts for one in split(_plan(levelled([alert]), next(count)))),
            tuple(
                RecordPlan(next(count), record.name, question(record.expression), dict(record.labels))
                for record in group.records
            ),
        )
        for group in groups
    ]


def _plan(rule: LevelRule, number: int) -> RulePlan:
    return RulePlan(
        id=number,
        slug=rule.slug,
        name=rule.name,
        category="custom",
        question=question(rule.expression),
        terms=Terms(timedelta(milliseconds=rule.pending), timedelta(milliseconds=rule.keep)),
        levels=rule.levels,
        labels=dict(rule.labels),
        annotations=dict(rule.annotations),
        cooldown=timedelta(0),
        service=rule.service,
    )


def split(plan: RulePlan) -> list[RulePlan]:
    """A rule as one with one level each, as its plain rules are."""
    return [replace(plan, levels=(level,)) for level in reversed(plan.levels)]


# --- What a target understands --------------------------------------------------------------------------------------

Version = tuple[int, int]

OLDEST: Final[Version] = (2, 33)
"""@ and negative offsets are part of the language since then."""
DEFAULT_TARGET: Final = "3.0"
KEEP_FIRING: Final[Version] = (2, 42)
ANY_NAME: Final[Version] = (3, 0)
SINCE: Final[dict[str, Version]] = {"day_of_year": (2, 38), "histogram_fraction": (3, 4)}
"""Functions that came after OLDEST; histogram_fraction counts from where it reads classic buckets."""
SINCE_IN_TEMPLATES: Final[dict[str, Version]] = {"now": (3, 5), "toDuration": (3, 5), "urlQueryEscape": (3, 9)}
"""Functions of templates that a promtool of 2.42 does not know, from where they are surely there."""


def target(text: str) -> Version:
    """(major, minor) of a version such as 2.42, 2.53.1, v3.0 or 3.x; ValueError says what is possible."""
    parts = text.strip().removeprefix("v").removesuffix(".x").split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise ValueError(f"{text[:50]!r} is no version of Prometheus; write for example 2.42, 2.53 or 3.0")
    version = int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
    if version < OLDEST:
        raise ValueError(f"Prometheus {text} is too old: rules are written for {OLDEST[0]}.{OLDEST[1]} and later")
    return version


def lacks(rule: PlainAlert | PlainRecord, version: Version) -> list[str]:
    """What of a plain rule a Prometheus of that version does not have, each with its name."""
    found = lacks_language(parse(rule.expression), version)
    if isinstance(rule, PlainRecord):
        return found
    if rule.keep and version < KEEP_FIRING:
        found.append("keep_firing_for (since 2.42)")
    for name in sorted({name for _, text in rule.labels + rule.annotations for name in templates.functions(text)}):
        since = SINCE_IN_TEMPLATES.get(name, OLDEST)
        if version < since:
            found.append(f"{name} in a template (since {since[0]}.{since[1]})")
    return found


def lacks_language(expression: Expr, version: Version) -> list[str]:
    """Functions, aggregations, modifiers and names in an expression that the version does not have."""
    found: dict[str, None] = {}
    for node in walk(expression):
        if isinstance(node, Call):
            found |= dict.fromkeys(_call(node, version))
        elif isinstance(node, Aggregate) and node.op in ("limitk", "limit_ratio"):
            found[f"the experimental aggregation {node.op}"] = None
        elif isinstance(node, Binary) and (node.matching.fill_left is not None or node.matching.fill_right is not None):
            found["the experimental modifier fill"] = None
        if version < ANY_NAME:
            names = (name for name in names_in(node) if not IDENTIFIER.match(name))
            found |= dict.fromkeys(f"the name {quote(name)} (such names since 3.0)" for name in names)
    return list(found)


def _call(node: Call, version: Version) -> list[str]:
    name = node.func.name
    if node.func.extension:
        return [f"the portal's own function {name}"]
    if node.func.experimental:
        return [f"the experimental function {name}"]
    if version < SINCE.get(name, OLDEST):
        since = SINCE[name]
        return [f"the function {name} (since {since[0]}.{since[1]})"]
    return []


def names_in(node: Expr) -> list[str]:
    """Names of labels and metrics that stand in one node."""
    match node:
        case Selector():
            labels = [matcher.name for matcher in node.matchers if matcher.name != NAME]
            return labels + ([] if node.name is None or METRIC.match(node.name) else [node.name])
        case Aggregate():
            return list(node.grouping)
        case Binary():
            return [*node.matching.labels, *node.matching.include]
        case Call():
            if node.func.name in ("label_replace", "label_join"):
                into = node.args[1]
                return [into.value] if isinstance(into, String) else []
    return []
