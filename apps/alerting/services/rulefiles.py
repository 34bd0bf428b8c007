"""Rule files come in and go out: an import is one transaction with a report, an export the same bytes each time."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify

from apps.accounts.audit import record, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import plainrules, rulefiles
from apps.alerting.lifecycle import Severity
from apps.alerting.models import AlertRule, RecordingRule, RuleGroup, RuleTest
from apps.alerting.plainrules import LevelRule, Unportable, levelled, plain
from apps.alerting.plans import RecordPlan, in_stages, question
from apps.alerting.rulefiles import Place, PlainAlert, PlainGroup, PlainRecord, Problem, RuleFileError, canonical
from apps.alerting.services.rules import (
    RESERVED_SLUGS,
    delete_group,
    delete_recording_rule,
    delete_rule,
    save_group,
    save_recording_rule,
    save_rule,
)
from apps.alerting.services.ruletests import failing, tests_of_groups, tests_reading_any
from apps.alerting.thresholds import Level
from apps.promql.errors import PromQLError
from apps.promql.parser import parse
from apps.promql.text import duration

REMOVALS: Final = ("nothing", "groups", "all")
"""What an import removes: nothing; rules of the groups in the file that are not in it; every rule that is not in it."""
LARGEST: Final = 4 * 2**20
"""Characters of all files of one import."""
MOST_RULES: Final = 1_000
"""Rules of one import for which a request is answered: each takes some twenty milliseconds."""
SHOWN: Final = 400
"""Characters of a problem that are told: names in it may be as long as the file."""
NEUTRAL: Final[dict[str, Any]] = {
    "no_data_policy": "ok",
    "error_policy": "keep",
    "missing_evaluations": 1,
    "new_series_delay": timedelta(0),
}
"""Settings with which a rule does what its plain rules do."""


# --- Out ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Export:
    """A rule file; what was left out of it since the target does not have it, and what else its reader should know."""

    text: str
    refused: tuple[str, ...]
    notes: tuple[str, ...]


@verb("alerting.export_rules", right=Right.READ)
def export_rules(
    *, by: Principal, target: str, groups: Iterable[RuleGroup] | None = None, partial: bool = False
) -> Export:
    """Return the rule file of these groups (None: all) for a version of Prometheus.

    What that version does not have, or plain rules cannot say, is refused by name; with `partial` only those rules are
    left out. Rules that are switched off are never in it: Prometheus has no word for them.
    """
    try:
        version = plainrules.target(target)
    except ValueError as error:
        raise ValidationError({"target": [f"{error}."]}) from None
    chosen = RuleGroup.objects.order_by("name")
    if groups is not None:
        chosen = chosen.filter(pk__in=[group.pk for group in groups])
    refused: list[str] = []
    notes: list[str] = []
    written = [_plain_group(group, version, refused, notes) for group in _with_rules(chosen)]
    if refused and not partial:
        raise ValidationError({"rules": refused})
    filled = [group for group in written if group.alerts or group.records]
    label = f"{version[0]}.{version[1]}"
    heading = f"Rules for Prometheus {label} and later."
    if any(alert.level and len(_same_origin(group, alert)) > 1 for group in filled for alert in group.alerts):
        heading += (
            "\nA rule with several levels is one alert for each of them. To hear of the worst only, give Alertmanager"
            "\nan inhibition: source severity critical, target severity warning, equal alertname and other labels."
        )
    after = {"target": label, "groups": [group.name for group in filled], "refused": len(refused)}
    record(by=by, verb="alerting.export_rules", target=("alerting.rulegroup", "", "rule file"), after=after)
    return Export(rulefiles.write(filled, heading), tuple(refused), tuple(notes))


def _same_origin(group: PlainGroup, alert: PlainAlert) -> list[PlainAlert]:
    return [other for other in group.alerts if other.slug == alert.slug]


def _with_rules(groups: Any) -> Any:
    return groups.prefetch_related("rules__levels", "recording_rules")


def _plain_group(group: RuleGroup, version: plainrules.Version, refused: list[str], notes: list[str]) -> PlainGroup:
    """A group in canonical order: recording rules as they feed each other, then alerts by slug and level."""
    if not group.enabled:
        notes.append(f"The group {group.name} is switched off and was left out.")
        return PlainGroup(group.name, None)
    records = []
    for row in group.recording_rules.all():
        one = PlainRecord(row.name, row.expression, tuple(sorted(row.labels.items())))
        if not row.enabled:
            notes.append(f"The recording rule {row.name} is switched off and was left out.")
        elif not _refuse(f"The recording rule {row.name}", one, version, refused):
            records.append(one)
    alerts: list[PlainAlert] = []
    for rule in sorted(group.rules.all(), key=lambda rule: rule.slug):
        if not rule.enabled:
            notes.append(f"The rule {rule.slug} is switched off and was left out.")
            continue
        try:
            found = plain(level_rule(rule))
        except Unportable as why:
            refused.append(f"The rule {rule.slug} has no plain counterpart for {why}.")
            continue
        except PromQLError as error:
            refused.append(f"The rule {rule.slug} cannot be read: {error}.")
            continue
        if not _refuse(f"The rule {rule.slug}", found[0], version, refused):
            alerts += found
            notes += _unsaid(rule)
    return PlainGroup(group.name, _ms(group.interval), tuple(_in_order(records)), tuple(alerts))


def _refuse(what: str, one: PlainAlert | PlainRecord, version: plainrules.Version, refused: list[str]) -> bool:
    try:
        missing = plainrules.lacks(one, version)
    except PromQLError as error:
        refused.append(f"{what} cannot be read: {error}.")
        return True
    if missing:
        refused.append(f"{what} uses {', '.join(missing)}; Prometheus {version[0]}.{version[1]} does not have that.")
    return bool(missing)


def _in_order(records: list[PlainRecord]) -> list[PlainRecord]:
    """Each after those that it reads: Prometheus evaluates a group from top to bottom."""
    ordered = sorted(records, key=lambda one: (one.name, one.labels, canonical(one.expression)))
    plans = [
        RecordPlan(number, one.name, question(one.expression), dict(one.labels)) for number, one in enumerate(ordered)
    ]
    return [ordered[plan.id] for stage in in_stages(plans) for plan in stage]


def _unsaid(rule: AlertRule) -> list[str]:
    """Settings of a rule that change what it does and have no place in a rule file."""
    found = []
    for name, neutral in NEUTRAL.items():
        if getattr(rule, name) != neutral:
            found.append(f"The rule {rule.slug} was written without its {name.replace('_', ' ')}.")
    return found


def level_rule(rule: AlertRule) -> LevelRule:
    """A stored rule as a plain value."""
    levels = list(rule.levels.all())
    return LevelRule(
        slug=rule.slug,
        name=rule.name,
        expression=rule.expression,
        levels=tuple(
            Level(
                Severity(level.severity),
                level.comparison,
                level.threshold,
                level.recovery_threshold,
                level.recovery_expression,
            )
            for level in levels
        ),
        pending=_ms(rule.pending_period),
        keep=_ms(rule.keep_firing_for),
        labels=tuple(sorted(rule.labels.items())),
        annotations=tuple(sorted(rule.annotations.items())),
        service=rule.service,
    )


def _ms(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


# --- In -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Change:
    """What an import does to one thing: new, changed, unchanged, removed or kept; `details` say what differs."""

    action: str
    kind: str
    group: str
    name: str
    slug: str = ""
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What an import did, or would do: `failing` are tests of rules that fail after it."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)
    dry_run: bool = False

    def counts(self) -> dict[str, int]:
        """How many rules and groups of each action."""
        actions = ("new", "changed", "unchanged", "removed", "kept")
        return {action: sum(change.action == action for change in self.changes) for action in actions}

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-safe values."""
        return {
            "dry_run": self.dry_run,
            "counts": self.counts(),
            "changes": [asdict(change) for change in self.changes],
            "notes": self.notes,
            "failing_tests": self.failing,
        }


@verb("alerting.import_rules", right=Right.EDIT)
def import_rules(
    *,
    by: Principal,
    files: Sequence[tuple[str, str]],
    now: datetime,
    dry_run: bool = False,
    remove: str = "nothing",
    although_tests_fail: bool = False,
) -> Report:
    """Take over rule files given as (name, text): all of it or, with ValidationError by file and line, nothing.

    A rule is found again by the comment of an export, else by its group, name and severity; what a file cannot say
    (type, owner, runbook, cooldown, …) stays as it is. The same files twice change nothing the second time.
    """
    if remove not in REMOVALS:
        raise ValidationError({"remove": [f"{remove!r} is none of {', '.join(REMOVALS)}."]})
    if sum(len(text) for _, text in files) > LARGEST:
        raise ValidationError({"file": [f"More than {LARGEST} characters in one import; import them in parts."]})
    with transaction.atomic():
        try:
            found = rulefiles.read_all(files)
            count = sum(len(group.records) + len(group.alerts) for group in found.groups)
            if by.via != "command" and count > MOST_RULES:
                why = (
                    f"{count} rules are more than the {MOST_RULES} that can be waited for: use manage.py rules import."
                )
                raise ValidationError({"file": [why]})
            report = _Import(by, now, remove).run(found)
        except RuleFileError as error:
            raise ValidationError({"file": [str(problem)[:SHOWN] for problem in error.problems]}) from None
        report.dry_run = dry_run
        if report.failing and not (although_tests_fail or dry_run):
            raise ValidationError({"tests": report.failing})
        if dry_run:
            transaction.set_rollback(True)
        else:
            after: dict[str, Any] = {"files": [name for name, _ in files], **report.counts()}
            if report.failing:
                after["saved_although_failed"] = report.failing[:20]
            record(by=by, verb="alerting.import_rules", target=("alerting.rulegroup", "", "rule file"), after=after)
    return report


class _Import:
    """One import, within its transaction."""

    def __init__(self, by: Principal, now: datetime, remove: str) -> None:
        self.by, self.now, self.remove = by, now, remove
        self.report = Report()
        self.problems: list[Problem] = []
        rules = AlertRule.objects.select_related("group").prefetch_related("levels").order_by("id")
        self.stored = {rule.slug: rule for rule in rules}
        self.left = dict(self.stored)
        self.slugs = set(self.stored) | set(RESERVED_SLUGS)
        self.touched: list[RuleGroup] = []
        self.recorded: list[RecordingRule] = []

    def run(self, found: rulefiles.RuleFile) -> Report:
        self.report.notes += found.notes
        marked = {alert.slug for group in found.groups for alert in group.alerts if alert.slug}
        for wanted in found.groups:
            self.group(wanted, marked)
        if self.problems:
            raise RuleFileError(self.problems[: rulefiles.MOST_PROBLEMS])
        if self.remove != "nothing":
            self.remove_rest([group.name for group in found.groups])
        tests = {test.pk: test for test in tests_of_groups(self.touched)} if self.touched else {}
        tests |= {test.pk: test for test in tests_reading_any(self.recorded)}
        own = [test for test in tests.values() if not test.is_shipped]
        self.report.failing = [line for lines in failing(own).values() for line in lines]
        return self.report

    def say(self, action: str, kind: str, group: str, name: str, slug: str = "", details: Iterable[str] = ()) -> None:
        self.report.changes.append(Change(action, kind, group, name, slug, tuple(details)))

    def wrong(self, place: Place, what: str, error: ValidationError) -> None:
        self.problems += [
            Problem(place.file, place.line, f"{what}: {name}: {message}")
            for name, messages in error.message_dict.items()
            for message in messages
        ]

    # Groups

    def group(self, wanted: PlainGroup, marked: set[str]) -> None:
        group = RuleGroup.objects.filter(name=wanted.name).first()
        interval = None if wanted.interval is None else timedelta(milliseconds=wanted.interval)
        details: list[str] = []
        action = "unchanged"
        if group is None:
            group, action = RuleGroup(name=wanted.name), "new"
        elif interval is not None and interval != group.interval:
            action = "changed"
            details.append(f"interval: {duration(_ms(group.interval))} → {duration(_ms(interval))}")
        if action != "unchanged":
            group.interval = interval or group.interval
            try:
                save_group(by=self.by, group=group, now=self.now)
            except ValidationError as error:
                self.wrong(wanted.place, f"the group {wanted.name!r}", error)
                return
        if not group.enabled:
            self.report.notes.append(f"The group {group.name} is switched off: its rules are kept, not evaluated.")
        self.say(action, "group", group.name, group.name, details=details)
        before = len(self.report.changes)
        self.records(group, wanted)
        self.alerts(group, plainrules.gathered(wanted), marked)
        if any(change.action != "unchanged" for change in self.report.changes[before:]):
            self.touched.append(group)

    # Recording rules

    def records(self, group: RuleGroup, wanted: PlainGroup) -> None:
        left = list(group.recording_rules.order_by("id"))
        waiting: list[PlainRecord] = []
        for one in wanted.records:
            same = next((row for row in left if _plain_record(row) == one.canonical), None)
            if same is None:
                waiting.append(one)
                continue
            left.remove(same)
            self.say("unchanged", "recording rule", group.name, one.name)
        for one in waiting:
            row = next((row for row in left if (row.name, row.labels) == (one.name, dict(one.labels))), None)
            details = []
            if row is None:
                row = RecordingRule(group=group, name=one.name, labels=dict(one.labels))
                action = "new"
            else:
                left.remove(row)
                action = "changed"
                details.append(_differs("expression", row.expression, one.expression))
            row.expression = one.expression
            try:
                save_recording_rule(by=self.by, rule=row, now=self.now, run_tests=False)
            except ValidationError as error:
                self.wrong(one.place, f"the recording rule {one.name}", error)
                continue
            self.recorded.append(row)
            self.say(action, "recording rule", group.name, one.name, details=details)
        for row in left:
            self.drop_record(row)

    def drop_record(self, row: RecordingRule) -> None:
        if self.remove == "nothing":
            return
        if not row.enabled:
            self.say("kept", "recording rule", row.group.name, row.name, details=["it is switched off"])
            return
        self.say("removed", "recording rule", row.group.name, row.name)
        delete_recording_rule(by=self.by, rule=row, now=self.now)

    # Alerts

    def alerts(self, group: RuleGroup, found: Sequence[list[PlainAlert]], marked: set[str]) -> None:
        waiting: list[tuple[LevelRule, list[PlainAlert]]] = []
        for alerts in found:
            first = alerts[0]
            try:
                wanted = levelled(alerts)
            except RuleFileError as error:
                self.problems += error.problems
                continue
            except PromQLError as error:  # what only the expression without its comparison shows to be wrong
                self.problems.append(Problem(first.place.file, first.place.line, f"the alert {first.name}: {error}"))
                continue
            # Those that are surely meant first, so that a changed rule is not taken for an unchanged one of its name.
            rule = self.left.get(wanted.slug) or self.equal(group, wanted, marked)
            if rule is None:
                waiting.append((wanted, alerts))
            else:
                self.alert(group, wanted, alerts, rule)
        for wanted, alerts in waiting:
            self.alert(group, wanted, alerts, None if wanted.slug else self.alike(group, wanted, marked))

    def equal(self, group: RuleGroup, wanted: LevelRule, marked: set[str]) -> AlertRule | None:
        """A stored rule that says the same."""
        return next((rule for rule in self.named(group, wanted.name, marked) if _same(rule, wanted)), None)

    def alike(self, group: RuleGroup, wanted: LevelRule, marked: set[str]) -> AlertRule | None:
        """A stored rule of that name and severity, or the only one of that name."""
        here = self.named(group, wanted.name, marked)
        severities = {level.severity for level in wanted.levels}
        found = [rule for rule in here if {level.severity for level in rule.levels.all()} == severities]
        return next(iter(found or (here if len(here) == 1 else [])), None)

    def named(self, group: RuleGroup, name: str, marked: set[str]) -> list[AlertRule]:
        return [
            rule
            for rule in self.left.values()
            if rule.group_id == group.pk and rule.name == name and rule.slug not in marked
        ]

    def alert(self, group: RuleGroup, wanted: LevelRule, alerts: list[PlainAlert], rule: AlertRule | None) -> None:
        first = alerts[0]
        details = [] if rule is None else _details(rule, group, wanted)
        if rule is not None:
            self.left.pop(rule.slug, None)
            if not details:
                self.say("unchanged", "alert rule", group.name, rule.name, rule.slug)
                return
        action = "new" if rule is None else "changed"
        for alert in alerts:
            self.report.notes += [
                f"{alert.place.file}:{alert.place.line}: the label {name} of {alert.name} follows the value. In "
                "Prometheus another text makes another alert; here an alert keeps the labels that it began with."
                for name in plainrules.changing_labels(alert)
            ]
        rule = rule or AlertRule(slug=self.new_slug(wanted), type="custom")
        levels = _put(rule, group, wanted)
        try:
            save_rule(by=self.by, rule=rule, levels=levels, now=self.now, run_tests=False)
        except ValidationError as error:
            self.wrong(first.place, f"the alert {first.name}", error)
            return
        self.say(action, "alert rule", group.name, rule.name, rule.slug, details)

    def new_slug(self, wanted: LevelRule) -> str:
        """The slug of a comment, else one from the name that nobody has."""
        base = slugify(wanted.name)[:80] or "rule"
        choices = [wanted.slug, base, f"{base}-{wanted.levels[0].severity}"]
        choices += [f"{base}-{number}" for number in range(2, len(self.slugs) + 3)]
        slug = next(slug for slug in choices if slug and slug not in self.slugs)
        self.slugs.add(slug)
        return slug

    # What is not in the files

    def remove_rest(self, groups: Sequence[str]) -> None:
        for rule in self.left.values():
            if self.remove == "groups" and rule.group.name not in groups:
                continue
            if not rule.enabled:
                self.say("kept", "alert rule", rule.group.name, rule.name, rule.slug, ["it is switched off"])
                continue
            self.say("removed", "alert rule", rule.group.name, rule.name, rule.slug)
            self.touched.append(rule.group)
            delete_rule(by=self.by, rule=rule, now=self.now)
        if self.remove != "all":
            return
        for row in RecordingRule.objects.exclude(group__name__in=groups).select_related("group").order_by("id"):
            self.drop_record(row)
        for group in RuleGroup.objects.exclude(name__in=groups).order_by("name"):
            if not group.rules.exists() and not group.recording_rules.exists():
                self.say("removed", "group", group.name, group.name)
                delete_group(by=self.by, group=group, now=self.now)


def _plain_record(row: RecordingRule) -> PlainRecord | None:
    try:
        return PlainRecord(row.name, row.expression, tuple(sorted(row.labels.items()))).canonical
    except PromQLError:
        return None


def _same(rule: AlertRule, wanted: LevelRule) -> bool:
    """Whether a stored rule and a file's are the same plain rules."""
    try:
        return plain(level_rule(rule)) == plain(wanted)
    except (Unportable, PromQLError):
        return False


def _details(rule: AlertRule, group: RuleGroup, wanted: LevelRule) -> list[str]:
    """What differs between a stored rule and a file's, empty where nothing does."""
    moved = [] if rule.group_id == group.pk else [f"group: {rule.group.name} → {group.name}"]
    if _same(rule, wanted):
        return moved
    stored = level_rule(rule)
    details = [
        _differs(word, before, after)
        for word, before, after in (
            ("name", stored.name, wanted.name),
            ("expression", _canonical(stored.expression), canonical(wanted.expression)),
            ("levels", _levels(stored), _levels(wanted)),
            ("for", duration(stored.pending), duration(wanted.pending)),
            ("keep_firing_for", duration(stored.keep), duration(wanted.keep)),
            ("labels", _texts(stored.labels), _texts(wanted.labels)),
            ("annotations", _texts(stored.annotations), _texts(wanted.annotations)),
        )
        if before != after
    ]
    return moved + (details or ["labels"])


def _canonical(expression: str) -> str:
    try:
        return canonical(expression)
    except PromQLError:
        return expression


def _levels(rule: LevelRule) -> str:
    ordered = sorted(rule.levels, key=lambda level: level.severity.rank)
    return ", ".join(f"{level.severity} {level}" for level in ordered)


def _texts(pairs: rulefiles.Texts) -> str:
    return ", ".join(f"{name}={text!r}" for name, text in pairs) or "none"


def _differs(word: str, before: str, after: str) -> str:
    return f"{word}: {before} → {after}"


def _put(rule: AlertRule, group: RuleGroup, wanted: LevelRule) -> list[dict[str, Any]]:
    """Write a file's values into a rule and return its levels; what files cannot say stays."""
    labels = dict(wanted.labels)
    service = wanted.service
    if rule.service and labels.get("service") == plainrules.service_label(parse(wanted.expression), rule.service):
        service = rule.service
        del labels["service"]
    if not rule.pk:
        rule.detects_flapping = False  # Prometheus tells each time
    if not rule.pk or _canonical(rule.expression) != canonical(wanted.expression):
        rule.expression = wanted.expression
    rule.group, rule.name, rule.service, rule.labels = group, wanted.name, service, labels
    rule.annotations = dict(wanted.annotations)
    rule.pending_period = timedelta(milliseconds=wanted.pending)
    rule.keep_firing_for = timedelta(milliseconds=wanted.keep)
    return [
        {
            "severity": level.severity.value,
            "comparison": level.comparison,
            "threshold": level.threshold,
            "recovery_threshold": level.recovery,
            "recovery_expression": level.recovers,
        }
        for level in wanted.levels
    ]


def promtool_tests(groups: Iterable[RuleGroup] | None) -> list[RuleTest]:
    """Every test that stands with these groups (None: all) or their rules, by name."""
    chosen = RuleGroup.objects.all() if groups is None else groups
    return sorted(tests_of_groups(chosen), key=lambda test: (test.name, test.pk))
