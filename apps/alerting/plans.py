"""Rules as the evaluation wants them: frozen values, parsed once, read again only when a row has changed.

A group's digest is built from the ids and `xmin` of its rows, so any change is seen, by whatever door it came: an edit
in the admin, a fixture, a hand in the database. A tick without changes costs one small query for any number of rules.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from django.db import connection

from apps.accounts.hours import Hours
from apps.alerting.lifecycle import NO_TIME, Policy, Severity, Terms
from apps.alerting.models import AlertRule, RecordingRule, RuleGroup, RuleLevel
from apps.alerting.thresholds import Level
from apps.promql.ast import Selector, walk
from apps.promql.errors import PromQLError
from apps.promql.parser import parse

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """An expression, or why it is none. `reads` are the metrics it names, None where it may read any."""

    text: str
    error: str
    reads: frozenset[str] | None

    def may_read(self, names: frozenset[str]) -> bool:
        """Whether it could see series of these names."""
        return bool(names) if self.reads is None else not names.isdisjoint(self.reads)


@dataclass(frozen=True, slots=True)
class RulePlan:
    """An alert rule."""

    id: int
    slug: str
    name: str
    category: str
    question: Question
    terms: Terms
    levels: tuple[Level, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    cooldown: timedelta
    service: str
    error_policy: Policy = Policy.KEEP
    new_series_delay: timedelta = NO_TIME
    schedule: Hours | None = None
    recoveries: Mapping[Severity, Question] = field(default_factory=dict)

    @property
    def worst(self) -> frozenset[Severity]:
        """All its levels: as bad as it can get."""
        return frozenset(level.severity for level in self.levels)

    @property
    def mildest(self) -> frozenset[Severity]:
        """Its mildest level, as which it tells that it knows nothing."""
        return frozenset({min(self.worst, key=lambda severity: severity.rank)})

    @property
    def tells_absent_from_well(self) -> bool:
        """Whether a series that is gone can be told from one that is fine: only where levels compare."""
        return all(level.comparison for level in self.levels)


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """A recording rule."""

    id: int
    name: str
    question: Question
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A group with what is enabled in it."""

    id: int
    name: str
    rules: tuple[RulePlan, ...]
    records: tuple[RecordPlan, ...]


def question(text: str) -> Question:
    """Parse an expression (the engine finds it parsed by its text) and find out what it reads."""
    try:
        expr = parse(text)
    except PromQLError as error:
        return Question(text, str(error), frozenset())
    names: set[str] = set()
    for node in walk(expr):
        if isinstance(node, Selector):
            if node.name is None:
                return Question(text, "", None)
            names.add(node.name)
    return Question(text, "", frozenset(names))


_lock = threading.Lock()
_known: dict[int, tuple[Decimal, GroupPlan]] = {}

_DIGEST = """
SELECT group_id, sum(hashtextextended(text, 0)) FROM (
    SELECT id AS group_id, concat('g', id, ':', xmin) AS text FROM alerting_rulegroup WHERE id = ANY(%(groups)s)
    UNION ALL
    SELECT group_id, concat('r', id, ':', xmin) FROM alerting_alertrule WHERE group_id = ANY(%(groups)s)
    UNION ALL
    SELECT r.group_id, concat('l', l.id, ':', l.xmin)
      FROM alerting_rulelevel l JOIN alerting_alertrule r ON r.id = l.rule_id WHERE r.group_id = ANY(%(groups)s)
    UNION ALL
    SELECT group_id, concat('s', id, ':', xmin) FROM alerting_recordingrule WHERE group_id = ANY(%(groups)s)
    UNION ALL
    SELECT r.group_id, concat('c', r.id, ':', c.xmin)
      FROM accounts_calendar c JOIN alerting_alertrule r ON r.schedule_id = c.id WHERE r.group_id = ANY(%(groups)s)
) rows GROUP BY group_id
"""


def plans(groups: Iterable[int]) -> dict[int, GroupPlan]:
    """Return the groups' plans by id, as the database has them now; groups that are gone are absent."""
    with connection.cursor() as cursor:
        cursor.execute(_DIGEST, {"groups": list(groups)})
        digests: dict[int, Decimal] = dict(cursor.fetchall())
    with _lock:
        fresh = {
            group: _known[group][1] for group, digest in digests.items() if _known.get(group, (None,))[0] == digest
        }
    stale = [group for group in digests if group not in fresh]
    if stale:
        read = _read(stale)
        with _lock:
            for group, plan in read.items():
                _known[group] = (digests[group], plan)
        fresh |= read
    return fresh


def _read(groups: list[int]) -> dict[int, GroupPlan]:
    rules: dict[int, list[RulePlan]] = defaultdict(list)
    found = AlertRule.objects.filter(group__in=groups, enabled=True).select_related("group", "schedule")
    for rule in found.prefetch_related("levels").order_by("id"):
        rules[rule.group_id].append(rule_plan(rule))
    records: dict[int, list[RecordPlan]] = defaultdict(list)
    for record in RecordingRule.objects.filter(group__in=groups, enabled=True).order_by("id"):
        plan = RecordPlan(record.pk, record.name, question(record.expression), dict(record.labels))
        records[record.group_id].append(plan)
    return {
        group.pk: GroupPlan(group.pk, group.name, tuple(rules[group.pk]), tuple(records[group.pk]))
        for group in RuleGroup.objects.filter(pk__in=groups)
    }


def rule_plan(rule: AlertRule, levels: Iterable[RuleLevel] | None = None) -> RulePlan:
    """Return a rule as the evaluation and the preview want it; with these levels instead of its stored ones."""
    rows = sorted(rule.levels.all() if levels is None else levels, key=lambda level: -Severity(level.severity).rank)
    return RulePlan(
        id=rule.pk or 0,
        slug=rule.slug,
        name=rule.name,
        category=rule.type,
        question=question(rule.expression),
        terms=Terms(
            rule.pending_period,
            rule.keep_firing_for,
            rule.group.interval,
            rule.missing_evaluations,
            Policy(rule.no_data_policy),
            rule.detects_flapping,
        ),
        levels=tuple(
            Level(
                Severity(row.severity), row.comparison, row.threshold, row.recovery_threshold, row.recovery_expression
            )
            for row in rows
        ),
        labels=dict(rule.labels),
        annotations=dict(rule.annotations),
        cooldown=rule.cooldown,
        service=rule.service,
        error_policy=Policy(rule.error_policy),
        new_series_delay=rule.new_series_delay,
        schedule=_hours(rule),
        recoveries={
            Severity(row.severity): question(row.recovery_expression) for row in rows if row.recovery_expression
        },
    )


def _hours(rule: AlertRule) -> Hours | None:
    """The rule's schedule; one that cannot be read any more (a zone that is gone) is none: rather too loud."""
    if rule.schedule is None:
        return None
    try:
        return rule.schedule.times
    except ValueError as error:
        log.error("The schedule of rule %s is passed over, mend the calendar %s: %s", rule.slug, rule.schedule, error)
        return None


def in_stages(records: Iterable[RecordPlan]) -> list[list[RecordPlan]]:
    """Recording rules in the order in which they can see each other's result of the same tick.

    Each stage reads only what earlier stages wrote; rules that read each other in a circle come last and see the
    results of the tick before, as does a rule that reads itself.
    """
    left = list(records)
    stages: list[list[RecordPlan]] = []
    while left:
        waiting = defaultdict(set)
        for record in left:
            waiting[record.name].add(record.id)
        ready = [
            record
            for record in left
            if not record.question.may_read(frozenset(name for name, ids in waiting.items() if ids - {record.id}))
        ]
        stages.append(ready or left)
        done = {record.id for record in stages[-1]}
        left = [record for record in left if record.id not in done]
    return stages
