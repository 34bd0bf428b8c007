"""The unit tests that stand with rules: written here, and run whenever a rule that they concern is written."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db.models import Q

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import plainrules, ruletests
from apps.alerting.models import AlertRule, RecordingRule, RuleGroup, RuleTest
from apps.alerting.plans import GroupPlan, RecordPlan, RulePlan, question, rule_plan
from apps.alerting.rulefiles import RuleFileError
from apps.alerting.ruletests import TestFile
from apps.promql.limits import Watch

PATIENCE: Final = 20.0
"""Seconds that the tests of one save or import may take together: somebody waits, and rows are locked."""

Tests = Sequence[Mapping[str, Any]]
"""Tests as they travel: {name, text}; whoever saves a rule with tests gives all of them."""


@verb("alerting.save_rule_test", right=Right.EDIT)
def save_rule_test(
    *, by: Principal, test: RuleTest, although_tests_fail: bool = False, run: bool = True, now: datetime
) -> RuleTest:
    """Write a test that passes; one that fails is refused, with what was expected and what came, unless told not to."""
    check_rule_test(test)
    stored = RuleTest.objects.filter(pk=test.pk).first() if test.pk else None
    test.is_shipped = test.is_shipped and (stored is None or stored.text == test.text)
    test.save()
    failed = refuse_failing([test], although=although_tests_fail, field="text") if run else {}
    before, after = (None if stored is None else state_of(stored)), state_of(test) | failed
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_rule_test", target=test, before=before, after=after)
    return test


@verb("alerting.delete_rule_test", right=Right.EDIT)
def delete_rule_test(*, by: Principal, test: RuleTest, now: datetime) -> None:
    """Delete a test."""
    before, target = state_of(test), (test._meta.label_lower, str(test.pk), str(test))
    test.delete()
    record(by=by, verb="alerting.delete_rule_test", target=target, before=before)


def check_rule_test(test: RuleTest) -> None:
    """Raise ValidationError, by field, for what is no test; it is not run."""
    problems: dict[str, list[str]] = {}
    if not 1 <= len(test.name.strip()) <= 200:
        problems["name"] = ["1 to 200 characters."]
    if (test.rule_id is None) == (test.group_id is None):
        problems["rule"] = ["A test belongs to a rule or to a group, to one of them."]
    elif test.name and RuleTest.objects.exclude(pk=test.pk).filter(
        rule=test.rule_id, group=test.group_id, name=test.name
    ):
        problems["name"] = [f"There is another test {test.name} here."]
    if found := check_text(test.text):
        problems["text"] = found
    if problems:
        raise ValidationError(problems)


def check_text(text: str) -> list[str]:
    """What is wrong with the text of a test that stands with a rule."""
    try:
        file = ruletests.read(text)
    except RuleFileError as error:
        return [f"Line {problem.line}: {problem.message}." for problem in error.problems]
    if file.rule_files:
        return ["rule_files has no place here: the rules are those of the portal."]
    if not any(case.alerts or case.samples for case in file.cases):
        return ["It expects nothing: give alert_rule_test or promql_expr_test in one of its tests."]
    return []


def write_tests(rule: AlertRule, tests: Tests) -> None:
    """Make these the tests of a rule, all of them; ValidationError for what is none."""
    names = [str(test.get("name", "")) for test in tests]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValidationError({"tests": [f"There are two tests {double}."]})
    known = {test.name: test for test in rule.tests.all()}
    for values in tests:
        test = known.pop(str(values.get("name", "")), None) or RuleTest(rule=rule, name=str(values.get("name", "")))
        text = str(values.get("text", ""))
        test.text, test.is_shipped = text, test.is_shipped and test.text == text
        try:
            check_rule_test(test)
        except ValidationError as error:
            raise ValidationError({"tests": [f"{test.name}: {text}" for text in error.messages]}) from None
        test.save()
    RuleTest.objects.filter(pk__in=[test.pk for test in known.values()]).delete()
    getattr(rule, "_prefetched_objects_cache", {}).pop("tests", None)


def refuse_failing(tests: Sequence[RuleTest], *, although: bool, field: str = "tests") -> dict[str, Any]:
    """Run tests; ValidationError with what failed, or, where that shall not matter, a line for the audit.

    It does not matter either where only tests fail that were shipped: they expect the rule as it was shipped.
    """
    failed = failing(tests)
    if not although and any(test.name in failed and not test.is_shipped for test in tests):
        raise ValidationError({field: [line for lines in failed.values() for line in lines]})
    return {"saved_although_failed": sorted(failed)} if failed else {}


def failing(tests: Iterable[RuleTest]) -> dict[str, list[str]]:
    """What failed, by the test's name; tests that pass are absent. Reads rules as the database has them now."""
    rules = _Rules()
    watch = Watch(PATIENCE)
    found: dict[str, list[str]] = {}
    for test in tests:
        if lines := rules.run(test, watch):
            found.setdefault(test.name, []).extend(f"{test.name}: {line}" for line in lines)
    return found


def shipped_tests_that_fail(rule: AlertRule) -> str:
    """Name the tests of a rule just saved that expect it as it was shipped, and failed."""
    shipped = rule.tests.filter(is_shipped=True, name__in=rule.saved_although_failed)
    return ", ".join(sorted(shipped.values_list("name", flat=True)))


def tests_of_rule(rule: AlertRule) -> list[RuleTest]:
    """Tests that a change of this alert rule concerns: its own, and those of its group."""
    return list(RuleTest.objects.filter(Q(rule=rule) | Q(group=rule.group_id)).order_by("id"))


def tests_of_groups(groups: Iterable[RuleGroup]) -> list[RuleTest]:
    """Tests of these groups and of their rules."""
    wanted = [group.pk for group in groups]
    return list(RuleTest.objects.filter(Q(group__in=wanted) | Q(rule__group__in=wanted)).order_by("id"))


def tests_reading(rule: RecordingRule) -> list[RuleTest]:
    """Tests in which this recording rule takes part: those of its group, and those that read it through any others."""
    return tests_reading_any([rule])


def tests_reading_any(changed: Sequence[RecordingRule]) -> list[RuleTest]:
    """Tests in which any of these recording rules takes part."""
    wanted, groups = {rule.pk for rule in changed}, {rule.group_id for rule in changed}
    if not wanted:
        return []
    rules = _Rules()
    tests = RuleTest.objects.select_related("rule", "group").order_by("id")
    return [test for test in tests if test.group_id in groups or wanted & rules.records_of(test)]


class _Rules:
    """Rules as tests see them, read once."""

    @cached_property
    def records(self) -> list[tuple[str, RecordPlan]]:
        """(group, plan) of each recording rule that is evaluated."""
        found = RecordingRule.objects.filter(enabled=True, group__enabled=True).select_related("group").order_by("id")
        return [
            (rule.group.name, RecordPlan(rule.pk, rule.name, question(rule.expression), dict(rule.labels)))
            for rule in found
        ]

    def run(self, test: RuleTest, watch: Watch) -> list[str]:
        try:
            file = ruletests.read(test.text)
        except RuleFileError as error:
            return [f"line {problem.line}: {problem.message}" for problem in error.problems]
        rules = self.alerts(test, file)
        records = self.feeding(rules, file)
        names = dict.fromkeys([name for name, _ in rules] + [name for name, _ in records])
        groups = [
            GroupPlan(
                number,
                name,
                tuple(one for home, rule in rules if home == name for one in plainrules.split(rule)),
                tuple(record for home, record in records if home == name),
            )
            for number, name in enumerate(names)
        ]
        return ruletests.run(file, groups, watch=watch)

    def records_of(self, test: RuleTest) -> set[int]:
        """Ids of the recording rules that feed what a test looks at; none where it cannot be read."""
        try:
            file = ruletests.read(test.text)
        except RuleFileError:
            return set()
        return {record.id for _, record in self.feeding(self.alerts(test, file), file)}

    def alerts(self, test: RuleTest, file: TestFile) -> list[tuple[str, RulePlan]]:
        """The rule of the test or those of its group, and whatever else has one of the names that are asked for."""
        mine = Q(pk=test.rule_id) if test.rule_id is not None else Q(group=test.group_id, enabled=True)
        asked = Q(name__in=file.alert_names, enabled=True, group__enabled=True)
        if any(reads is None or any(name.startswith("ALERTS") for name in reads) for reads in _reads(file)):
            asked = Q(enabled=True, group__enabled=True)
        found = AlertRule.objects.filter(mine | asked).select_related("group").prefetch_related("levels")
        return [(rule.group.name, rule_plan(rule)) for rule in found.order_by("id")]

    def feeding(self, rules: Sequence[tuple[str, RulePlan]], file: TestFile) -> list[tuple[str, RecordPlan]]:
        """The recording rules that these read, directly or through others."""
        wanted: set[str] = set()
        for reads in [rule.question.reads for _, rule in rules] + _reads(file):
            if reads is None:
                return self.records
            wanted |= reads
        chosen: dict[int, tuple[str, RecordPlan]] = {}
        while True:
            more = {
                id_: entry for entry in self.records if (id_ := entry[1].id) not in chosen and entry[1].name in wanted
            }
            if not more:
                return [entry for entry in self.records if entry[1].id in chosen]
            chosen |= more
            for _, record_plan in more.values():
                if record_plan.question.reads is None:
                    return self.records
                wanted |= record_plan.question.reads


def _reads(file: TestFile) -> list[frozenset[str] | None]:
    return [question(expression).reads for expression in file.expressions]


def standalone(test: RuleTest, rule_files: Sequence[str]) -> str:
    """The test as a file for promtool, over these files of rules."""
    head = "rule_files:\n" + "".join(f"- {yaml_text}\n" for yaml_text in map(_quoted, rule_files))
    return head + test.text.strip("\n") + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
