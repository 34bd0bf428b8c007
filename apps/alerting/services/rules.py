"""Rules are written here and nowhere else: by the admin, the API, the fixtures. What is wrong is said by field.

`Level` values travel as dicts {severity, comparison, threshold}; whoever saves a rule gives all its levels. The unit
tests that a change concerns are run on every save, and one that fails refuses it.
"""

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils.text import slugify

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import templates
from apps.alerting.evaluation import BY
from apps.alerting.hygiene import Proposal
from apps.alerting.lifecycle import Reason, Severity
from apps.alerting.models import (
    METRIC_NAME,
    AdaptiveBand,
    Alert,
    AlertRule,
    BandSeries,
    GroupRun,
    RecordingRule,
    RuleGroup,
    RuleLevel,
    RuleTest,
    categories,
    error_policies,
    no_data_policies,
)
from apps.alerting.plans import RulePlan, rule_plan
from apps.alerting.services.alerts import end
from apps.alerting.services.ruletests import Tests, refuse_failing, tests_of_rule, tests_reading, write_tests
from apps.alerting.thresholds import COMPARE
from apps.core import live
from apps.core.registry import extensions
from apps.promql import conditions
from apps.promql.ast import value_type
from apps.promql.errors import PromQLError
from apps.promql.functions import SCALAR, VECTOR
from apps.promql.parser import parse

Levels = Sequence[Mapping[str, Any]]

LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
RESERVED: Final = {
    "__name__": "the name of a series",
    "alertname": "the rule's name",
    "alertstate": "the alert's state",
}
LONGEST: Final[Mapping[str, timedelta]] = {
    "pending_period": timedelta(days=90),
    "keep_firing_for": timedelta(days=90),
    "cooldown": timedelta(days=7),
    "new_series_delay": timedelta(days=7),
}
SLOWEST: Final = timedelta(days=1)
DEFAULT_GROUP: Final = "default"
RESERVED_SLUGS: Final = ("export", "import", "preview")
"""Addresses of the API beside those of the rules."""


# --- Alert rules ------------------------------------------------------------------------------------------------
@verb("alerting.save_rule", right=Right.EDIT)
def save_rule(
    *,
    by: Principal,
    rule: AlertRule,
    levels: Levels,
    tests: Tests | None = None,
    although_tests_fail: bool = False,
    run_tests: bool = True,
    now: datetime,
) -> AlertRule:
    """Write a new or changed rule with all its levels and tests (None: as they are); ValidationError names each field.

    Without `run_tests` the caller runs them, once all that belongs together is written.

    A condition written as an expression (`responseTime > 5000`, one level without threshold) is taken apart. A rule
    that is switched off ends its open alerts, with that reason.
    """
    rule.slug = rule.slug or slugify(rule.name)[:100]
    rule.expression, levels = take_apart(rule.expression, levels)
    check_rule(rule, levels)
    stored = AlertRule.objects.filter(pk=rule.pk).first() if rule.pk else None
    before = None if stored is None else _state(stored)
    rule.created_at = rule.created_at or now
    rule.updated_at = now
    rule.save()
    if stored is not None and stored.expression != rule.expression:
        BandSeries.objects.filter(band__rule=rule).delete()  # what it learned was of something else
        AdaptiveBand.objects.filter(rule=rule).update(learned_until=None, revision=F("revision") + 1)
    _write_levels(rule, levels)
    if tests is not None:
        write_tests(rule, tests)
    failed = refuse_failing(tests_of_rule(rule), although=although_tests_fail) if run_tests else {}
    rule.saved_although_failed = failed.get("saved_although_failed", ())
    after = _state(rule) | failed
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_rule", target=rule, before=before, after=after)
    if not rule.enabled:
        _end_alerts(Alert.objects.filter(rule=rule), by, now, "The rule was switched off.")
    live.publish("alerts")
    return rule


def keep_rule(*, by: Principal, rule: AlertRule, now: datetime) -> AlertRule:
    """Write a rule of which something else than its condition was changed: levels and tests stay, and are not run."""
    levels = [_stored(level) for level in rule.levels.all()]
    return save_rule(by=by, rule=rule, levels=levels, run_tests=False, now=now)


@verb("alerting.apply_proposal", right=Right.EDIT)
def apply_proposal(*, by: Principal, rule: AlertRule, proposal: Proposal, now: datetime) -> AlertRule:
    """Change a rule as proposed: its wait, the threshold of a level, or a level's recovery threshold.

    It was tried over what really happened, so a unit test that expects the rule as it was does not hold it up.
    """
    changed, levels = as_proposed(rule, proposal)
    return save_rule(by=by, rule=changed, levels=levels, although_tests_fail=True, now=now)


def as_proposed(rule: AlertRule, proposal: Proposal) -> tuple[AlertRule, list[dict[str, Any]]]:
    """A copy of the rule, unsaved, and its levels, as a proposal wants them."""
    changed = copy.copy(rule)
    levels = [_stored(level) for level in rule.levels.all()]
    if proposal.kind == "wait":
        changed.pending_period = timedelta(seconds=proposal.value)
    for level in levels:
        if level["severity"] == proposal.severity:
            level["threshold" if proposal.kind == "threshold" else "recovery_threshold"] = proposal.value
    return changed, levels


@verb("alerting.delete_rule", right=Right.EDIT)
def delete_rule(*, by: Principal, rule: AlertRule, now: datetime) -> None:
    """Delete a rule; its open alerts end with that reason and stay in the history."""
    _end_alerts(Alert.objects.filter(rule=rule), by, now, "The rule was deleted.")
    Alert.objects.filter(rule=rule, held_until__isnull=False).update(held_until=None)
    before, target = _state(rule), _target(rule)
    rule.delete()
    record(by=by, verb="alerting.delete_rule", target=target, before=before)
    live.publish("alerts")


def take_apart(expression: str, levels: Levels) -> tuple[str, list[dict[str, Any]]]:
    """Return (expression, levels): a comparison at the end of the expression becomes the threshold of a lone level."""
    plain = [_level(level) for level in levels]
    if len(plain) == 1 and not plain[0]["comparison"] and plain[0]["threshold"] is None:
        try:
            expression, comparison, threshold = conditions.split(expression)
        except PromQLError:
            return expression, plain  # check_rule says what is wrong with it
        plain[0] |= {"comparison": comparison or "", "threshold": threshold}
    return expression.strip(), plain


def check_rule(rule: AlertRule, levels: Levels | None) -> None:
    """Raise ValidationError, by field, where a rule could not do what it says; levels None are judged elsewhere."""
    problems: dict[str, list[str]] = {}

    def refuse(name: str, problem: str) -> None:
        if problem:
            problems.setdefault(name, []).append(problem)

    if not re.fullmatch(r"[-a-zA-Z0-9_]{1,100}", rule.slug):
        refuse("slug", "1 to 100 letters, digits, hyphens and underscores.")
    elif rule.slug in RESERVED_SLUGS:
        refuse("slug", f"{rule.slug} is an address of the API; choose another.")
    elif AlertRule.objects.exclude(pk=rule.pk).filter(slug=rule.slug).exists():
        refuse("slug", f"There is another rule {rule.slug}.")
    if not 1 <= len(rule.name) <= 200:
        refuse("name", "1 to 200 characters.")
    refuse("expression", check_expression(rule.expression))
    for name, problem in _out_of_bounds(rule).items():
        refuse(name, problem)
    refuse("labels", check_texts(rule.labels, "label"))
    refuse("annotations", check_texts(rule.annotations, "annotation"))
    if levels is not None:
        adaptive = rule.pk is not None and hasattr(rule, "band")
        refuse("levels", check_levels(levels, adaptive=adaptive))
        for name, problem in ({} if adaptive else _without_comparison(rule, levels)).items():
            refuse(name, problem)
    if problems:
        raise ValidationError(problems)


def _out_of_bounds(rule: AlertRule) -> dict[str, str]:
    """Choices that are none, times and counts that are too small or too large."""
    found = {}
    choices = {"type": categories(), "no_data_policy": no_data_policies(), "error_policy": error_policies()}
    for name, known in choices.items():
        if getattr(rule, name) not in dict(known):
            found[name] = f"{getattr(rule, name)!r} is none of {', '.join(dict(known))}."
    for name, longest in LONGEST.items():
        if not timedelta(0) <= getattr(rule, name) <= longest:
            found[name] = f"Between 0 seconds and {longest.days} days."
    if not 1 <= rule.missing_evaluations <= 1000:
        found["missing_evaluations"] = "Between 1 and 1000."
    return found


def _without_comparison(rule: AlertRule, levels: Levels) -> dict[str, str]:
    """What a rule cannot ask for whose results are all breaches: where there is none, all is well."""
    if all(level["comparison"] for level in levels):
        return {}
    found = {}
    if rule.no_data_policy in ("alert", "fire"):
        found["no_data_policy"] = "Without a threshold no result means that all is well; give the level a comparison."
    if rule.new_series_delay:
        found["new_series_delay"] = "Without a threshold every result is a breach; give the level a comparison."
    return found


def check_expression(text: str) -> str:
    """Return what is wrong with an expression, with its line and column, or the empty string."""
    if not text.strip():
        return "An expression is needed."
    try:
        kind = value_type(parse(text))
    except PromQLError as error:
        return str(error)
    return "" if kind in (VECTOR, SCALAR) else f"A rule needs a vector or a number; this is a {kind}."


def check_texts(texts: Any, what: str) -> str:
    """Return what is wrong with labels or annotations, or the empty string."""
    if not isinstance(texts, dict):
        return f'A mapping of names to texts, for example {{"{what}": "text"}}.'
    for name, text in texts.items():
        if not LABEL.match(str(name)):
            return f"{name!r} is no {what} name: letters, digits and underscores, not beginning with a digit."
        if what == "label" and name in RESERVED:
            return f"{name} is {RESERVED[name]} and cannot be set."
        if not isinstance(text, str):
            return f"{name} must be a text."
        if problem := templates.check(text):
            return f"{name}: {problem}"
    return ""


def check_levels(levels: Levels, *, adaptive: bool = False) -> str:
    """Return what is wrong with a rule's levels, or the empty string; adaptive: there is a band for those without."""
    if not levels:
        return "At least one level is needed: a severity with a comparison and a threshold."
    severities = [level["severity"] for level in levels]
    for level in levels:
        severity, comparison, threshold = level["severity"], level["comparison"], level["threshold"]
        if severity not in list(Severity):
            return f"{severity!r} is no severity: {', '.join(Severity)}."
        if severities.count(severity) > 1:
            return f"There are two levels {severity}."
        if comparison and comparison not in COMPARE:
            return f"{comparison!r} is no comparison: {', '.join(COMPARE)}."
        if bool(comparison) != (threshold is not None):
            return f"The level {severity} needs both a comparison and a threshold, or neither."
        if threshold is not None and math.isnan(threshold):
            return f"The threshold of {severity} is not a number."
        if not comparison and len(levels) > 1 and not adaptive:
            return f"The level {severity} has no threshold; that makes sense for a lone level only."
        if problem := _check_recovery(level):
            return f"The level {severity}: {problem}"
    return ""


def _check_recovery(level: Mapping[str, Any]) -> str:
    """What is wrong with a level's recovery, or the empty string."""
    comparison, threshold, recovery = level["comparison"], level["threshold"], level.get("recovery_threshold")
    expression = level.get("recovery_expression") or ""
    if recovery is not None and expression:
        return "a recovery threshold or a recovery expression, not both."
    if expression:
        problem = check_expression(expression)
        if not problem and value_type(parse(expression)) != VECTOR:
            problem = "it has to give series, such as temperature < 70."
        return problem and f"its recovery expression: {problem}"
    if recovery is None:
        return ""
    if math.isnan(recovery):
        return "its recovery threshold is not a number."
    if comparison not in (">", ">=", "<", "<="):
        return "a recovery threshold needs a comparison with >, >=, < or <=."
    if (recovery > threshold) if comparison.startswith(">") else (recovery < threshold):
        side = "above" if comparison.startswith(">") else "below"
        return f"its recovery threshold lies {side} the threshold: it would never fire for longer than without."
    return ""


def _level(level: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "severity": str(level.get("severity", "")).lower(),
        "comparison": level.get("comparison") or "",
        "threshold": _number(level.get("threshold")),
        "recovery_threshold": _number(level.get("recovery_threshold")),
        "recovery_expression": str(level.get("recovery_expression") or "").strip(),
    }


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValidationError({"levels": [f"{str(value)[:50]!r} is not a number."]}) from None


def _write_levels(rule: AlertRule, levels: Levels) -> None:
    known = {level.severity: level for level in rule.levels.all()}
    for values in levels:
        level = known.pop(values["severity"], None) or RuleLevel(rule=rule)
        for name, value in values.items():
            setattr(level, name, value)
        level.save()
    RuleLevel.objects.filter(pk__in=[level.pk for level in known.values()]).delete()
    getattr(rule, "_prefetched_objects_cache", {}).pop("levels", None)


def _state(rule: AlertRule) -> dict[str, Any]:
    """A stored rule for the audit: its row, levels and tests."""
    tests = {test.name: test.text for test in RuleTest.objects.filter(rule=rule).order_by("name")}
    return {**state_of(rule), "levels": _levels_of(rule), "tests": tests}


def _levels_of(rule: AlertRule) -> list[str]:
    return sorted(
        f"{level} recovery {level.recovery_threshold if level.recovery_threshold is not None else ''}"
        f"{level.recovery_expression}"
        if level.recovery_threshold is not None or level.recovery_expression
        else str(level)
        for level in RuleLevel.objects.filter(rule=rule)
    )


# --- Recording rules --------------------------------------------------------------------------------------------
@verb("alerting.save_recording_rule", right=Right.EDIT)
def save_recording_rule(
    *, by: Principal, rule: RecordingRule, although_tests_fail: bool = False, run_tests: bool = True, now: datetime
) -> RecordingRule:
    """Write a new or changed recording rule; its series end at the next tick where it does not write them any more.

    Without `run_tests` the caller runs the unit tests that it concerns.
    """
    check_recording_rule(rule)
    stored = RecordingRule.objects.filter(pk=rule.pk).first() if rule.pk else None
    rule.save()
    failed = refuse_failing(tests_reading(rule), although=although_tests_fail) if run_tests else {}
    before, after = (None if stored is None else state_of(stored)), state_of(rule) | failed
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_recording_rule", target=rule, before=before, after=after)
    return rule


@verb("alerting.delete_recording_rule", right=Right.EDIT)
def delete_recording_rule(*, by: Principal, rule: RecordingRule, now: datetime) -> None:
    """Delete a recording rule; what it recorded stays until its retention ends."""
    before, target = state_of(rule), _target(rule)
    rule.delete()
    record(by=by, verb="alerting.delete_recording_rule", target=target, before=before)


def check_recording_rule(rule: RecordingRule) -> None:
    """Raise ValidationError, by field, where a recording rule could not write what it says."""
    problems = {}
    try:
        METRIC_NAME(rule.name)
    except ValidationError as error:
        problems["name"] = error.messages
    if len(rule.name) > 200:
        problems["name"] = ["At most 200 characters."]
    if problem := check_expression(rule.expression):
        problems["expression"] = [problem]
    if not isinstance(rule.labels, dict) or not all(isinstance(text, str) for text in rule.labels.values()):
        problems["labels"] = ['A mapping of names to texts, for example {"team": "web"}.']
    elif wrong := [name for name in rule.labels if not LABEL.match(name) or name == "__name__"]:
        problems["labels"] = [f"{wrong[0]!r} is no name for a label here."]
    same = RecordingRule.objects.exclude(pk=rule.pk).filter(
        group=rule.group_id, name=rule.name, labels=rule.labels, expression=rule.expression
    )
    if not problems and same.exists():
        problems["name"] = [f"The group has this very rule already ({rule.name})."]
    if problems:
        raise ValidationError(problems)


# --- Groups -----------------------------------------------------------------------------------------------------
@verb("alerting.save_group", right=Right.EDIT)
def save_group(*, by: Principal, group: RuleGroup, now: datetime) -> RuleGroup:
    """Write a new or changed group; switched off, it ends the open alerts of its rules, with that reason."""
    check_group(group)
    stored = RuleGroup.objects.filter(pk=group.pk).first() if group.pk else None
    group.save()
    GroupRun.objects.get_or_create(group=group, defaults={"due_at": now})
    if stored is not None and stored.interval != group.interval:
        GroupRun.objects.filter(group=group).update(due_at=now)
    if stored is not None and group.enabled and not stored.enabled:
        # Nobody looked because nobody wanted to: that is no gap to be wary of, and no tick was missed.
        GroupRun.objects.filter(group=group).update(due_at=now, evaluated_at=None, resumed_at=None)
    before, after = (None if stored is None else state_of(stored)), state_of(group)
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_group", target=group, before=before, after=after)
    if not group.enabled:
        _end_alerts(Alert.objects.filter(rule__group=group), by, now, "The rule's group was switched off.")
    return group


@verb("alerting.delete_group", right=Right.EDIT)
def delete_group(*, by: Principal, group: RuleGroup, now: datetime) -> None:
    """Delete an empty group."""
    if group.rules.exists() or group.recording_rules.exists():
        raise ValidationError(f"{group.name} still has rules: move or delete them first.")
    before, target = state_of(group), _target(group)
    group.delete()
    record(by=by, verb="alerting.delete_group", target=target, before=before)


def check_group(group: RuleGroup) -> None:
    """Raise ValidationError, by field, where a group could not be evaluated."""
    problems = {}
    if not group.name.strip() or len(group.name) > 200:
        problems["name"] = ["1 to 200 characters."]
    elif RuleGroup.objects.exclude(pk=group.pk).filter(name=group.name).exists():
        problems["name"] = [f"There is another group {group.name}."]
    if not timedelta(seconds=1) <= group.interval <= SLOWEST:
        problems["interval"] = ["Between 1 second and 1 day."]
    if problems:
        raise ValidationError(problems)


# --- Other spellings --------------------------------------------------------------------------------------------
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?\Z")


def duration(value: Any, name: str) -> timedelta:
    """Seconds, or a text such as 1h30m, as a timedelta; ValidationError names the field."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.match(value) if isinstance(value, str) and value else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return timedelta(seconds=value)
        if found is not None:
            days, hours, minutes, seconds, ms = (int(part or 0) for part in found.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=ms)
    except (OverflowError, ValueError):  # beyond what a timedelta, or int() of a text, can hold
        pass
    raise ValidationError({name: [f"{str(value)[:50]!r} is no duration: give seconds, or a text such as 1h30m."]})


def group_named(name: str, interval: timedelta | None, *, by: Principal, now: datetime) -> RuleGroup:
    """The group of that name, made where there is none."""
    group = RuleGroup.objects.filter(name=name).first()
    if group is None:
        group = RuleGroup(name=name, interval=interval or timedelta(seconds=30))
        save_group(by=by, group=group, now=now)
    return group


DURATIONS: Final = ("pending_period", "keep_firing_for", "cooldown", "new_series_delay")
PLAIN: Final = (
    "slug", "name", "type", "expression", "labels", "annotations", "no_data_policy", "error_policy",
    "missing_evaluations", "service", "runbook", "review_on", "owner", "team", "schedule",
    "detects_flapping", "enabled",
)  # fmt: skip


def rule_from_dict(row: Mapping[str, Any], *, group: RuleGroup, rule: AlertRule | None = None) -> AlertRule:
    """Put the values of a mapping (a fixture's row, an API's body) into a new rule or one that exists; unsaved."""
    rule = rule or AlertRule(group=group)
    rule.group = group
    for name in PLAIN:
        if name in row:
            setattr(rule, name, row[name])
    for name in DURATIONS:
        if name in row:
            setattr(rule, name, duration(row[name], name))
    return rule


def rule_from_condition(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the seed's `{id, name, condition, severity, notifications[]}` into the fields and levels of a rule."""
    condition = row.get("condition")
    if not isinstance(condition, str):
        raise ValidationError({"condition": ["A text such as `responseTime > 5000`."]})
    try:
        expression, comparison, threshold = conditions.split(condition)
    except PromQLError as error:
        raise ValidationError({"condition": [str(error)]}) from None
    level = {"severity": row.get("severity", "warning"), "comparison": comparison, "threshold": threshold}
    rest = {name: value for name, value in row.items() if name not in ("id", "condition", "severity")}
    return {"slug": row.get("id") or "", **rest, "expression": expression, "levels": [level]}


def write_rule(*, by: Principal, values: Mapping[str, Any], rule: AlertRule | None, now: datetime) -> AlertRule:
    """Make a rule of these values, or change one by them: what is absent stays. In one transaction."""
    interval = duration(values["interval"], "interval") if "interval" in values else None
    with transaction.atomic():
        if rule is None or "group" in values:
            group = group_named(values.get("group") or DEFAULT_GROUP, interval, by=by, now=now)
        else:
            group = rule.group
        levels: Levels = values.get("levels", () if rule is None else [_stored(level) for level in rule.levels.all()])
        changed = rule_from_dict(values, group=group, rule=rule)
        changed.name = changed.name or changed.slug
        although = bool(values.get("although_tests_fail"))
        tests = values.get("tests")
        save_rule(by=by, rule=changed, levels=levels, tests=tests, although_tests_fail=although, now=now)
        send_to(rule=changed, names=values.get("notifications", ()), by=by, now=now)
    return changed


def draft(*, values: Mapping[str, Any], rule: AlertRule | None) -> RulePlan:
    """What these values, over those of a saved rule if there is one, would be as a rule; nothing is written.

    ValidationError by field, as on saving; a draft may lack a name and share its slug.
    """
    group = rule.group if rule is not None else RuleGroup(name=DEFAULT_GROUP)
    if name := values.get("group"):
        group = RuleGroup.objects.filter(name=name).first() or RuleGroup(name=name)
    if "interval" in values:
        group.interval = duration(values["interval"], "interval")
    check_group_interval(group)
    known: Levels = [] if rule is None else [_stored(level) for level in rule.levels.all()]
    wanted = rule_from_dict(values, group=group, rule=rule)
    wanted.name = wanted.name or "Draft"
    wanted.slug = wanted.slug or "draft"
    wanted.expression, levels = take_apart(wanted.expression, values.get("levels", known))
    try:
        check_rule(wanted, levels)
    except ValidationError as error:
        problems = {name: found for name, found in error.message_dict.items() if name not in ("slug", "name")}
        if problems:
            raise ValidationError(problems) from None
    return rule_plan(wanted, [RuleLevel(**level) for level in levels])


def check_group_interval(group: RuleGroup) -> None:
    """Raise ValidationError where nothing could be evaluated that often or that seldom."""
    if not timedelta(seconds=1) <= group.interval <= SLOWEST:
        raise ValidationError({"interval": ["Between 1 second and 1 day."]})


def _stored(level: RuleLevel) -> dict[str, Any]:
    names = ("severity", "comparison", "threshold", "recovery_threshold", "recovery_expression")
    return {name: getattr(level, name) for name in names}


def send_to(*, rule: AlertRule, names: Iterable[str], by: Principal, now: datetime) -> None:
    """Hand the seed's `notifications[]` to the room that knows contacts: `extend(AlertRule, "notifications", take)`."""
    wanted = list(names)
    if not wanted:
        return
    takers: list[Callable[..., None]] = extensions(AlertRule, "notifications")
    if not takers:
        raise ValidationError({"notifications": ["Nothing here can notify anybody."]})
    for take in takers:
        take(rule=rule, names=wanted, by=by, now=now)


def _end_alerts(alerts: Any, by: Principal, now: datetime, why: str) -> None:
    locked = alerts.open().select_for_update(of=("self",)).order_by("id")
    end(list(locked), reason=Reason.RULE, by=by.name or BY.name, now=now, detail=why)


def _target(thing: Any) -> tuple[str, str, str]:
    return thing._meta.label_lower, str(thing.pk), str(thing)
