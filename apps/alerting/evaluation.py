"""One tick of alerting: what is due is asked of the store in one go, judged, and written group by group.

A group is one transaction: its clock, its alerts, their transitions and incidents, and the series that tell of them.
Whatever dies at whatever moment, the group was either evaluated for that tick or it was not.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import F, Min, Q
from django.db.models.fields.json import KeyTransform

from apps.accounts.permissions import EVERYTHING, Principal
from apps.alerting import adaptive, flapping, recording
from apps.alerting.judging import Circumstances, Identities, Judgement, Verdict, identities, judge, judge_failure
from apps.alerting.lifecycle import (
    ACTIVE,
    OPEN,
    Life,
    Phase,
    Reason,
    Severity,
    State,
    close,
    is_news,
    is_telling,
)
from apps.alerting.models import Alert, GroupRun, Incident, RuleGroup, Transition
from apps.alerting.placing import finish, place
from apps.alerting.plans import GroupPlan, Question, RulePlan, plans
from apps.alerting.recording import Answer, Recorded, milliseconds
from apps.alerting.telling import close_incidents, keep_series, short, told_series
from apps.alerting.template_functions import Sample, TemplateError
from apps.alerting.templates import Context, expand
from apps.core import live, tasks
from apps.core.telemetry import Counter, Reading
from apps.core.text import storable
from apps.metrics import query
from apps.promql.errors import PromQLError, QueryError
from apps.promql.result import Result
from apps.promql.series import STALE

log = logging.getLogger(__name__)

BY: Final = Principal.system("alerting.evaluate")
SETTLING: Final = timedelta(minutes=5)
"""After a gap, how long a series that is not back yet is waited for: the lookback of a selector."""
ATTEMPTS: Final = 3
UNKNOWN: Final = {
    Reason.NO_DATA: "its expression gives no data",
    Reason.ERROR: "its expression cannot be evaluated",
    Reason.MISSING_SERIES: "its series is missing",
}
"""What is said of an alert that has no value."""

EVALUATIONS = Counter("portal_rule_evaluations_total", "Rules that were evaluated.", ("kind",))
FAILURES = Counter("portal_rule_evaluation_failures_total", "Rules whose expression failed.", ("kind",))
MISSED = Counter("portal_rule_group_missed_ticks_total", "Ticks of rule groups that were skipped.", ("group",))


Answers = dict[tuple[int, Severity | None], Answer]
"""By rule: the answer to its expression (None) and to the recovery expressions of its levels."""


class Overtaken(Exception):
    """Somebody changed an alert in the meantime; look again."""


class Done(Exception):
    """Another process evaluated the group for this tick; there is nothing left to do."""


class TickFailed(Exception):
    """Groups that could not be written; they are tried again at the next tick."""


# --- The clock --------------------------------------------------------------------------------------------------


def settle(interval: timedelta) -> timedelta:
    """How long a tick waits for the samples of its own instant: our collectors stamp theirs with the same instants."""
    return min(interval / 10, timedelta(seconds=2)) if interval >= timedelta(seconds=5) else timedelta(0)


def tick_of(now: datetime, interval: timedelta) -> datetime:
    """The newest multiple of the interval (since 1970) that has settled."""
    step = interval / timedelta(milliseconds=1)
    return datetime.fromtimestamp(math.floor(milliseconds(now - settle(interval)) / step) * step / 1000, tz=UTC)


def due_at(tick: datetime, interval: timedelta) -> datetime:
    """When the tick after this one is due."""
    return tick + interval + settle(interval)


def due_groups(now: datetime) -> list[RuleGroup]:
    """Groups whose time has come; a due time far ahead means that the clock was set back."""
    ahead = Q(run__due_at__gt=now + F("interval") * 2)
    waiting = Q(run__isnull=True) | Q(run__due_at__lte=now) | ahead
    due = RuleGroup.objects.filter(waiting, enabled=True).select_related("run").order_by("id")
    # Of the results, which have a line for each rule, only the names that were recorded are wanted here.
    return list(due.defer("run__results").annotate(recorded=KeyTransform("names", "run__results")))


def evaluate(*, now: datetime) -> int:
    """Evaluate every group that is due and return how many were.

    1. Recording rules first, in stages, so that alert rules of the same tick see their results.
    2. Alert rules: one question to the store for all of them.
    3. Group by group: decide outside of a transaction, write in one, look again if somebody was faster.
    A tick that was missed is counted, never made up for.
    """
    groups = due_groups(now)
    if not groups:
        return 0
    by_tick: dict[datetime, list[RuleGroup]] = defaultdict(list)
    for group in groups:
        by_tick[tick_of(now, group.interval)].append(group)
    known = plans(group.pk for group in groups)
    failures: list[str] = []
    for tick, due in sorted(by_tick.items()):
        failures += _evaluate_at(tick, [group for group in due if group.pk in known], known)
    if failures:
        raise TickFailed("; ".join(failures))
    return len(groups)


def next_due(now: datetime) -> datetime | None:
    """When the next group is due, if that is not now and not beyond two ticks of the clock."""
    soon = GroupRun.objects.filter(group__enabled=True, due_at__gt=now, due_at__lte=now + timedelta(seconds=2))
    found: datetime | None = soon.aggregate(due=Min("due_at"))["due"]
    return found


def is_awaited() -> bool:
    """Whether a group wants to be woken by samples."""
    return RuleGroup.objects.filter(on_arrival=True, enabled=True).exists()


def arrive(*, now: datetime) -> int:
    """Evaluate the groups that samples wake, as of now and whatever their clock says; return how many.

    Their regular ticks go on from here, so that they also notice when nothing arrives. Where nothing changes no series
    is written: five points a second would say no more than one at each tick.
    """
    groups = list(
        RuleGroup.objects.filter(on_arrival=True, enabled=True)
        .select_related("run")
        .order_by("id")
        .defer("run__results")
        .annotate(recorded=KeyTransform("names", "run__results"))
    )
    known = plans(group.pk for group in groups) if groups else {}
    behind = [group for group in groups if group.pk in known and _is_behind(group, now)]
    if behind and (failures := _evaluate_at(now, behind, known, arrived=True)):
        raise TickFailed("; ".join(failures))
    return len(behind)


def _is_behind(group: RuleGroup, now: datetime) -> bool:
    run: GroupRun | None = getattr(group, "run", None)
    return run is None or run.evaluated_at is None or run.evaluated_at < now


def _evaluate_at(
    tick: datetime, groups: Sequence[RuleGroup], known: Mapping[int, GroupPlan], *, arrived: bool = False
) -> list[str]:
    started = time.perf_counter()
    chosen = [known[group.pk] for group in groups]

    def ask(questions: Sequence[Question]) -> list[Answer]:
        return _ask(questions, tick)

    recorded = recording.record(chosen, milliseconds(tick), ask=ask, write=_write)
    EVALUATIONS.inc(len(recorded.lines), kind="recording")
    FAILURES.inc(sum("error" in line for line in recorded.lines.values()), kind="recording")
    drawn = adaptive.draw(chosen, milliseconds(tick), ask=ask, write=_write, done=recorded)
    rules = [rule for plan in chosen for rule in plan.rules]
    asked: dict[tuple[int, Severity | None], Question] = {
        (rule.id, None): rule.question for rule in rules if rule.id not in drawn
    }
    asked |= {(rule.id, level): text for rule in rules for level, text in rule.recoveries.items()}
    answers: Answers = dict(zip(asked, ask(list(asked.values())), strict=True))
    answers |= {(rule, None): band.result for rule, band in drawn.items()}
    EVALUATIONS.inc(len(rules), kind="alert")
    shared = (time.perf_counter() - started) / max(1, len(groups))
    tracked = _tracked([group.pk for group in groups], tick)
    failures = []
    for group, plan in zip(groups, chosen, strict=True):
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    tracked[group.pk] = _tracked([group.pk], tick)[group.pk]
                _Round(group, plan, tick, answers, recorded, tracked[group.pk], drawn, arrived=arrived).run(shared)
                break
            except Done:
                log.info("Rule group %s was evaluated elsewhere", group.name)
                break
            except Overtaken as why:
                log.info("Rule group %s is looked at again: %s", group.name, why)
            except Exception as error:
                log.exception("Rule group %s could not be evaluated", group.name)
                failures.append(f"{group.name}: {type(error).__name__}: {error}")
                break
        else:
            failures.append(f"{group.name}: its alerts were changed {ATTEMPTS} times while it was evaluated")
    return failures


def _ask(questions: Sequence[Question], at: datetime) -> list[Answer]:
    """Answers in the order of the questions; those that could not be parsed are answered by their error."""
    asked = [question.text for question in questions if not question.error]
    answers = iter(_evaluated(asked, at) if asked else ())
    return [QueryError(question.error) if question.error else next(answers) for question in questions]


def _evaluated(asked: Sequence[str], at: datetime) -> list[Answer]:
    """Answers to all at once; where that breaks, one by one, so that one expression cannot stop the other rules."""
    try:
        return query.evaluate_many(asked, at=at, scope=EVERYTHING, limits=query.OF_A_RULE)
    except (Error, query.Outrun):
        raise  # the store cannot be read now: nothing is known of any rule, and the next tick tries again
    except Exception:
        log.exception("%d expressions could not be evaluated together; each is asked by itself.", len(asked))
    answers: list[Answer] = []
    for text in asked:
        try:
            answers += query.evaluate_many([text], at=at, scope=EVERYTHING, limits=query.OF_A_RULE)
        except (Error, query.Outrun):
            raise
        except Exception as error:
            log.exception("The engine broke on the expression %s", text)
            answers.append(QueryError(f"the engine broke on it ({type(error).__name__}); the worker's log says where"))
    return answers


def _write(readings: Sequence[Reading]) -> None:
    """Keep recorded results: committed before anybody reads them."""
    _ingest(readings, readings[0].timestamp_ms or 0, push="recorded")


def _ingest(readings: Sequence[Reading], tick_ms: int, push: str | None = None) -> None:
    keep_series(readings, by=BY, now=datetime.fromtimestamp(tick_ms / 1000, tz=UTC), push=push)


def _tracked(groups: Sequence[int], tick: datetime) -> dict[int, list[Alert]]:
    """What is open, held or still remembered in each group."""
    found: dict[int, list[Alert]] = {group: [] for group in groups}
    rows = Alert.objects.filter(rule__group__in=groups).filter(
        Q(state__in=[state.value for state in OPEN])
        | Q(held_until__isnull=False)
        | Q(flapping_since__isnull=False)
        | Q(remembered_until__gte=tick)
    )
    for alert in rows.annotate(home=F("rule__group_id")).order_by("id"):
        found[vars(alert)["home"]].append(alert)
    return found


# --- One group --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Outcome:
    """Everything that one group's transaction will write."""

    at: datetime
    new: list[Alert] = field(default_factory=list)
    changed: list[Alert] = field(default_factory=list)
    transitions: list[tuple[Alert, Transition]] = field(default_factory=list)
    firing: list[Alert] = field(default_factory=list)
    worse: dict[int, Severity] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    series: list[Reading] = field(default_factory=list)
    lines: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    failed: int = 0


class _Round:
    """One group at one tick: `run` decides and writes."""

    def __init__(
        self,
        group: RuleGroup,
        plan: GroupPlan,
        tick: datetime,
        answers: Answers,
        recorded: Recorded,
        tracked: Iterable[Alert],
        drawn: Mapping[int, adaptive.Drawn],
        *,
        arrived: bool = False,
    ) -> None:
        self.arrived = arrived
        self.group, self.plan, self.tick = group, plan, tick
        self.tick_ms = milliseconds(tick)
        self.answers, self.recorded, self.drawn = answers, recorded, drawn
        self.run_row: GroupRun | None = getattr(group, "run", None)
        self.previous = None if self.run_row is None else self.run_row.evaluated_at
        self.out = _Outcome(tick)
        self.queries: dict[str, list[Sample]] = {}
        self.earlier: dict[tuple[str, timedelta], Identities | None] = {}
        self.changed: set[int] = set()
        self.open: dict[int, dict[bytes, Alert]] = defaultdict(dict)
        self.held: dict[int, dict[bytes, Alert]] = defaultdict(dict)
        self.past: dict[int, dict[bytes, Alert]] = defaultdict(dict)
        self.flapping: dict[int, dict[bytes, list[Alert]]] = defaultdict(lambda: defaultdict(list))
        for alert in tracked:
            rule, identity = alert.rule_id or 0, bytes(alert.fingerprint)
            home = self.open if alert.state in OPEN else self.past
            home[rule][identity] = alert
            if alert.held_until is not None:
                self.held[rule][identity] = alert
            if alert.flapping_since is not None:
                self.flapping[rule][identity].append(alert)

    def run(self, shared: float) -> None:
        started = time.perf_counter()
        around, resumed_at, missed = self.circumstances()
        for rule in self.plan.rules:
            self.rule(rule, around)
        self.orphans()
        before = recording.written_before(
            self.group.pk,
            vars(self.group).get("recorded") or (),
            None if self.previous is None else milliseconds(self.previous),
            self.tick_ms,
        )
        endings = recording.endings(self.group.pk, self.recorded, before, self.tick_ms)
        self.out.series += endings.markers
        results = {
            "rules": self.out.lines,
            "recording": {str(rule.id): self.recorded.lines[rule.id] for rule in self.plan.records},
            "alerts": self.out.values,
            "names": sorted(endings.written),
        }
        with transaction.atomic():
            self.claim(resumed_at, missed, results, shared + time.perf_counter() - started)
            _save(self.out)
            if self.out.series and (not self.arrived or self.out.new or self.out.changed):
                _ingest(self.out.series, self.tick_ms)
            self.publish()
        recording.remember(self.group.pk, self.tick_ms, endings.written)
        FAILURES.inc(self.out.failed, kind="alert")
        if missed:
            MISSED.inc(missed, group=self.group.name)

    def circumstances(self) -> tuple[Circumstances, datetime | None, int]:
        """What lies between this tick and the one before: (circumstances, the end of the last gap, ticks missed)."""
        interval, resumed_at = self.group.interval, self.run_row.resumed_at if self.run_row else None
        if self.previous is None:
            return Circumstances(self.tick), None, 0
        gap = self.tick - self.previous
        missed = max(0, round(gap / interval) - 1)
        unobserved = timedelta(0)
        # A tick or two left out under load is Prometheus' everyday; an outage is something else.
        if gap > max(interval * 3, timedelta(minutes=1)):
            unobserved, resumed_at = gap - interval, self.tick
        settling = resumed_at is not None and timedelta(0) <= self.tick - resumed_at < SETTLING
        return Circumstances(self.tick, unobserved, settling), resumed_at, missed

    def claim(self, resumed_at: datetime | None, missed: int, results: dict[str, Any], seconds: float) -> None:
        """Take this tick: of two evaluations at once the second finds the clock moved on."""
        fields = {
            "due_at": due_at(self.tick, self.group.interval),
            "evaluated_at": self.tick,
            "resumed_at": resumed_at,
            "duration": timedelta(seconds=seconds),
            "results": results,
        }
        if self.run_row is None:
            _, created = GroupRun.objects.get_or_create(group=self.group, defaults={**fields, "missed": missed})
            if not created:
                raise Done
            return
        same = GroupRun.objects.filter(pk=self.run_row.pk, evaluated_at=self.previous)
        if self.previous is None:
            same = GroupRun.objects.filter(pk=self.run_row.pk, evaluated_at__isnull=True)
        if not same.update(missed=F("missed") + missed, **fields):
            raise Done

    def publish(self) -> None:
        out = self.out
        if out.new or out.changed:
            live.publish("alerts")
        if out.firing or out.ended or out.worse:
            live.publish("incidents")
        if any(transition.told_at is None for _, transition in out.transitions):
            tasks.wake("oncall.tell")

    # Rules

    def rule(self, rule: RulePlan, around: Circumstances) -> None:
        """Judge one rule; what an expression that fails means is the rule's policy, and its line says so."""
        alerts, held = self.open.pop(rule.id, {}), self.held.pop(rule.id, {})
        ended = self.past.pop(rule.id, {})
        lives = {identity: life_of(alert) for identity, alert in alerts.items()} if alerts else {}
        past = {identity: life_of(alert) for identity, alert in ended.items()} if ended else {}
        until = {identity: alert.held_until or around.now for identity, alert in held.items()} if held else {}
        try:
            around = self.of_rule(rule, around)
            band = self.drawn.get(rule.id)
            outside = None if band is None else band.outside
            found = judge(rule, self.answer(rule, None), lives, until, around, past, outside)
        except PromQLError as error:
            self.out.lines[str(rule.id)] = {"error": str(error)}
            self.out.failed += 1
            verdicts = judge_failure(rule, lives, around, past)
            for identity in alerts.keys() - {verdict.fingerprint for verdict in verdicts}:
                self.tell(alerts[identity])
        else:
            self.out.lines[str(rule.id)] = _line(found, self.answer(rule, None).warnings)
            verdicts = found.verdicts
            for identity in found.released:
                held[identity].held_until = None
                self.change(held[identity])
        for verdict in verdicts:
            identity = verdict.fingerprint
            self.apply(rule, verdict, alerts.get(identity), held.get(identity), ended.get(identity))

    def answer(self, rule: RulePlan, level: Severity | None) -> Result:
        """The answer to a rule's expression or to a recovery expression of it; raises the error that it is."""
        answer = self.answers[rule.id, level]
        if isinstance(answer, PromQLError):
            raise answer
        return answer

    def of_rule(self, rule: RulePlan, around: Circumstances) -> Circumstances:
        """The circumstances with what only this rule asks about."""
        if not rule.recoveries and not rule.new_series_delay:
            return around
        recovered = {level: identities(self.answer(rule, level)) for level in rule.recoveries}
        return replace(around, recovered=recovered, grown=partial(self.grown, rule))

    def grown(self, rule: RulePlan) -> Identities | None:
        """The series that were there when a new one of now had to be; None where that cannot be told."""
        key = rule.question.text, rule.new_series_delay
        if key not in self.earlier:
            (answer,) = _ask([rule.question], self.tick - rule.new_series_delay)
            self.earlier[key] = None if isinstance(answer, PromQLError) else identities(answer)
        return self.earlier[key]

    def apply(
        self, rule: RulePlan, verdict: Verdict, alert: Alert | None, held: Alert | None, ended: Alert | None
    ) -> None:
        """Move one alert by its verdict, and note what has to be written for it."""
        after, reason, before = verdict.step.after, verdict.step.reason, verdict.before
        if after is None:
            return
        if after == before:
            if alert is not None:
                self.tell(alert, verdict.value)
            return
        if alert is None and after.state not in OPEN:  # what is over has ceased to flap
            if ended is not None:
                self.flap(rule, ended, after, False)
            return
        told = None if alert is None else told_series(alert)
        detail = ""
        if alert is None:
            alert = self.begin(rule, verdict)
            self.out.new.append(alert)
            before = None
            if held is not None:
                detail = _again(held)
                held.held_until = None
                self.change(held)
        else:
            self.change(alert)
        if verdict.value is not None:
            alert.value = verdict.value
        self.move(alert, before, after, reason, detail)
        self.describe(rule, alert, verdict, after)
        is_active = before is not None and before.state in ACTIVE and after.state in ACTIVE
        if alert.state in ACTIVE and alert.incident_id is None:
            self.out.firing.append(alert)
        elif before is not None and is_active and after.severity.rank > before.severity.rank and alert.incident_id:
            self.out.worse[alert.incident_id] = after.severity
        if verdict.step.flapping is not None:
            self.flap(rule, alert, after, verdict.step.flapping)
        if after.state in OPEN:
            self.tell(alert, verdict.value)
        if told is not None:
            self.end_series(told, [] if after.state not in OPEN else told_series(alert))

    def describe(self, rule: RulePlan, alert: Alert, verdict: Verdict, after: Life) -> None:
        """The alert's labels and words, as it stands now."""
        if after.state in OPEN:
            self.label(rule, alert, verdict)
        if verdict.value is not None and after.state in (State.PENDING, State.FIRING):
            self.word(rule, alert, verdict.labels)
        elif not alert.message:
            alert.message = f"{rule.name}: {UNKNOWN.get(verdict.step.reason or Reason.VALUE, 'no value')}"
            alert.annotations = {"summary": alert.message}

    def end_series(self, told: Sequence[Reading], still: Sequence[Reading]) -> None:
        """Mark the end of what the alert's series were and are no more."""
        go_on = {_key(series) for series in still}
        self.out.series += [
            Reading(series.name, STALE, series.labels, timestamp_ms=self.tick_ms)
            for series in told
            if _key(series) not in go_on
        ]

    def change(self, alert: Alert) -> None:
        """Have a known alert written, once."""
        if alert.pk not in self.changed:
            self.changed.add(alert.pk)
            self.out.changed.append(alert)

    def flap(self, rule: RulePlan, alert: Alert, life: Life, begins: bool) -> None:
        """An alert begins to flap, or ceases to: then so do the earlier ones of its series, whose ends were held."""
        alert.flapping_since = life.flapping_since
        if alert.pk is not None:
            self.change(alert)
        if not begins:
            for earlier in self.flapping[rule.id].get(bytes(alert.fingerprint), ()):
                earlier.flapping_since = None
                self.change(earlier)
        old, new = ("steady", "flapping") if begins else ("flapping", "steady")
        share = flapping.share(life.changes, now=self.tick, interval=rule.terms.interval)
        self.note(alert, "flapping", old, new, Reason.VALUE, True, f"{share:.0%} of the last {flapping.CHECKS} checks.")

    def begin(self, rule: RulePlan, verdict: Verdict) -> Alert:
        return Alert(
            rule_id=rule.id,
            source="rule",
            type=rule.slug,
            category=rule.category,
            fingerprint=verdict.fingerprint,
            service=storable(rule.service or verdict.labels.get("service", ""))[:100],
            pending_at=self.tick,
            seen_at=self.tick,
        )

    def move(self, alert: Alert, before: Life | None, after: Life, reason: Reason | None, detail: str) -> None:
        """Write a life into the row, and a transition for what is news."""
        old = State.INACTIVE if before is None else before.state
        alert.state, alert.severity = after.state.value, after.severity.value
        alert.levels = {
            level.value: [phase.state.value, phase.since.isoformat()] for level, phase in after.levels.items()
        }
        alert.seen_at = self.tick
        alert.absent_since, alert.flapping_since = after.absent_since, after.flapping_since
        alert.changes = [at.isoformat() for at in after.changes]
        if reason is None:
            return
        if after.state is State.FIRING and alert.fired_at is None:
            alert.fired_at = self.tick
        if after.state is State.RECOVERING and old is not State.RECOVERING:
            alert.recovering_at = self.tick
        if after.state is State.PENDING and reason is Reason.RESTART:
            alert.pending_at = min(phase.since for phase in after.levels.values())
        if after.state not in OPEN:
            alert.resolved_at, alert.resolve_reason = self.tick, reason.value
            if after.changes:
                alert.remembered_until = flapping.forgotten_at(after.changes[-1], self.group.interval)
        state, severity = is_news(before, after, reason)
        if state:
            self.note(alert, "state", old, after.state, reason, is_telling(old, after.state), detail)
        if severity and before is not None:
            self.note(alert, "severity", before.severity, after.severity, reason, True, detail)

    def note(
        self, alert: Alert, kind: str, before: str, after: str, reason: Reason, telling: bool, detail: str
    ) -> None:
        transition = Transition(
            at=self.tick,
            kind=kind,
            before=before,
            after=after,
            reason=reason,
            severity=alert.severity,
            value=alert.value,
            by=BY.name,
            detail=detail,
            told_at=None if telling else self.tick,
        )
        self.out.transitions.append((alert, transition))

    def label(self, rule: RulePlan, alert: Alert, verdict: Verdict) -> None:
        """The labels of a new alert; of a known one only the severity changes, so that its series stay its own."""
        severity = {} if "severity" in rule.labels else {"severity": alert.severity}
        level = next((level for level in rule.levels if level.severity == alert.severity), None)
        alert.threshold = level.threshold if level else None
        if alert.labels:
            alert.labels = {**alert.labels, **severity}
            return
        alert.labels = labels_of(rule, verdict.labels, alert.severity, self.context(alert, verdict.labels))

    def word(self, rule: RulePlan, alert: Alert, labels: Mapping[str, str]) -> None:
        """Annotations and message, as the alert stands now."""
        context = self.context(alert, labels)
        notes = {name: storable(expand(text, context, name=rule.name)) for name, text in rule.annotations.items()}
        usual = self.usual(rule, alert, labels)
        plain = f"{rule.name}: {context.value:g}"
        if alert.threshold is not None:
            plain += f" (threshold {alert.threshold:g})"
        alert.annotations = notes | usual
        alert.message = notes.get("summary") or notes.get("description") or plain

    def usual(self, rule: RulePlan, alert: Alert, labels: Mapping[str, str]) -> dict[str, str]:
        """What its band says of it; the edge it went over is its threshold where its level has none."""
        band = self.drawn.get(rule.id)
        row = None if band is None else band.row(labels)
        if band is None or row is None:
            return {}
        if alert.threshold is None:
            alert.threshold = band.edge(row)
        return band.words(row)

    def context(self, alert: Alert, labels: Mapping[str, str]) -> Context:
        value = math.nan if alert.value is None else alert.value
        return Context(labels, value, self.tick, self.query, settings.PORTAL_URL)

    def query(self, expression: str) -> list[Sample]:
        """`query` of templates: at the tick, each expression once."""
        if expression not in self.queries:
            try:
                result = query.instant(expression, at=self.tick, scope=EVERYTHING, limits=query.OF_A_RULE)
            except PromQLError as error:
                raise TemplateError(str(error)) from None
            if result.kind not in ("vector", "scalar"):
                raise TemplateError("unhandled result value type")
            self.queries[expression] = [
                Sample(labels, float(value[0]))
                for labels, value, ok in zip(result.labels.dicts(), result.v, result.ok, strict=True)
                if ok[0]
            ]
        return self.queries[expression]

    def orphans(self) -> None:
        """End what belongs to a rule that is not evaluated any more, however that came about."""
        for alerts in self.open.values():
            for alert in alerts.values():
                self.end_series(told_series(alert), [])
                before = life_of(alert)
                self.change(alert)
                self.move(alert, before, close(before), Reason.RULE, "")
        for rule in self.flapping.keys() - {rule.id for rule in self.plan.rules}:
            for alert in (alert for alerts in self.flapping[rule].values() for alert in alerts):
                alert.flapping_since = None
                self.change(alert)
                self.note(alert, "flapping", "flapping", "steady", Reason.RULE, True, "")

    def tell(self, alert: Alert, value: float | None = None) -> None:
        """Keep an open alert's series going, and its value for the pages."""
        if value is not None and alert.pk is not None:
            self.out.values[str(alert.pk)] = _json(value)
        self.out.series += [
            Reading(series.name, series.value, series.labels, timestamp_ms=self.tick_ms)
            for series in told_series(alert)
        ]


def labels_of(rule: RulePlan, found: Mapping[str, str], severity: str, context: Context) -> dict[str, str]:
    """The labels of a new alert: what the expression gave, severity, service, the rule's own and the rule's name."""
    labels = {"service": rule.service, **found, **({} if "severity" in rule.labels else {"severity": severity})}
    labels |= {name: expand(text, context, name=rule.name) for name, text in rule.labels.items()}
    labels["alertname"] = rule.name
    return {name: short(storable(text)) for name, text in labels.items() if text}


# --- Rows -------------------------------------------------------------------------------------------------------


def life_of(alert: Alert) -> Life:
    """The life that a row holds."""
    levels = {
        Severity(severity): Phase(State(state), datetime.fromisoformat(since))
        for severity, (state, since) in alert.levels.items()
    }
    changes = tuple(datetime.fromisoformat(at) for at in alert.changes)
    return Life(State(alert.state), Severity(alert.severity), levels, alert.absent_since, changes, alert.flapping_since)


def _key(series: Reading) -> tuple[str, tuple[tuple[str, str], ...]]:
    return series.name, tuple(sorted(series.labels.items()))


def _again(held: Alert) -> str:
    who = held.resolved_by or "somebody"
    when = f"{held.resolved_at:%Y-%m-%d %H:%M:%S} UTC" if held.resolved_at else "before"
    return f"Still wrong after {who} resolved {held.key} at {when}; the cooldown is over."


def _json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else "NaN" if math.isnan(value) else f"{value:+}"


def _line(found: Judgement, warnings: Sequence[str]) -> dict[str, Any]:
    line: dict[str, Any] = {"value": _json(found.value), "series": found.series}
    if found.breached:
        line["breached"] = found.breached
    if warnings:
        line["warnings"] = list(warnings)[:3]
    return line


_UPDATE = """
UPDATE alerting_alert a
   SET state = x.state, severity = x.severity, levels = x.levels, value = x.value, threshold = x.threshold,
       labels = x.labels, annotations = x.annotations, message = x.message, pending_at = x.pending_at,
       fired_at = x.fired_at, recovering_at = x.recovering_at, resolved_at = x.resolved_at,
       resolve_reason = x.resolve_reason, held_until = x.held_until, seen_at = x.seen_at,
       incident_id = x.incident_id, placement = x.placement, absent_since = x.absent_since, changes = x.changes,
       flapping_since = x.flapping_since, remembered_until = x.remembered_until, version = a.version + 1
  FROM jsonb_to_recordset(%s::jsonb) AS x(
       id bigint, version bigint, state text, severity text, levels jsonb, value double precision,
       threshold double precision, labels jsonb, annotations jsonb, message text, pending_at timestamptz,
       fired_at timestamptz, recovering_at timestamptz, resolved_at timestamptz, resolve_reason text,
       held_until timestamptz, seen_at timestamptz, incident_id bigint, placement text,
       absent_since timestamptz, changes jsonb, flapping_since timestamptz, remembered_until timestamptz)
 WHERE a.id = x.id AND a.version = x.version
"""


def _row(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.pk,
        "version": alert.version,
        "state": alert.state,
        "severity": alert.severity,
        "levels": alert.levels,
        "value": _json(alert.value),
        "threshold": _json(alert.threshold),
        "labels": alert.labels,
        "annotations": alert.annotations,
        "message": alert.message,
        "pending_at": alert.pending_at,
        "fired_at": alert.fired_at,
        "recovering_at": alert.recovering_at,
        "resolved_at": alert.resolved_at,
        "resolve_reason": alert.resolve_reason,
        "held_until": alert.held_until,
        "seen_at": alert.seen_at,
        "incident_id": alert.incident_id,
        "absent_since": alert.absent_since,
        "changes": alert.changes,
        "flapping_since": alert.flapping_since,
        "remembered_until": alert.remembered_until,
        "placement": alert.placement,
    }


def _save(out: _Outcome) -> None:
    """Write alerts, incidents and transitions; every changed alert by compare-and-swap on its version."""
    placed = place(out.firing, at=out.at) if out.firing else None
    if out.changed:
        with connection.cursor() as cursor:
            cursor.execute(_UPDATE, [orjson.dumps([_row(alert) for alert in out.changed]).decode()])
            if cursor.rowcount != len(out.changed):
                raise Overtaken("somebody changed one of its alerts")
    if out.new:
        Alert.objects.bulk_create(out.new, batch_size=1000)
    for alert, transition in out.transitions:
        transition.alert_id, transition.incident_id = alert.pk, alert.incident_id
    Transition.objects.bulk_create([transition for _, transition in out.transitions], batch_size=1000)
    if placed is not None:
        finish(placed)
    for worse, severity in out.worse.items():
        milder = [other for other in Severity if other.rank < severity.rank]
        Incident.objects.filter(pk=worse, severity__in=milder).update(severity=severity)
    resolved = [alert for alert in out.changed if alert.state == State.RESOLVED and alert.resolved_at == out.at]
    out.ended |= {alert.incident_id for alert in resolved if alert.incident_id is not None}
    close_incidents(out.ended, out.at)
