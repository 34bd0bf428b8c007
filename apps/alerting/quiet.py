"""Reads what is quiet now into the values that suppression decides on, and what it says of given alerts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q

from apps.accounts.permissions import Scope
from apps.alerting import matching
from apps.alerting.lifecycle import Severity
from apps.alerting.matching import MatcherError
from apps.alerting.models import Alert, Inhibition, MaintenanceWindow, Service, Silence
from apps.alerting.recurrence import RecurrenceError, Times
from apps.alerting.suppression import Inhibition as Rule
from apps.alerting.suppression import Quiet, Subject, Suppressor, Verdict
from apps.promql.source import Matcher


def subject_of(alert: Alert) -> Subject:
    """Return the alert as suppression sees it."""
    labels = alert.routing_labels
    return Subject(alert.pk, labels, alert.service or labels.get("service", ""), Severity(alert.severity).rank)


def suppressor(*, now: datetime) -> Suppressor:
    """Return everything that mutes at this moment. What cannot be read any more mutes nothing."""
    inhibitions = [rule for row in Inhibition.objects.filter(enabled=True) if (rule := rule_of(row)) is not None]
    graph = depends_on()
    parents = {parent for behind in graph.values() for parent in behind}
    fails_at = {
        name: Severity(severity).rank
        for name, severity in Service.objects.filter(name__in=parents).values_list("name", "fails_at")
    }
    sources: Iterable[Subject] = ()
    active = Alert.objects.active().only("pk", "type", "category", "severity", "service", "labels").order_by("pk")
    if inhibitions:
        sources = (subject_of(alert) for alert in active.iterator(chunk_size=2000))
    elif fails_at:
        sources = (subject_of(alert) for alert in active.filter(service__in=fails_at).iterator(chunk_size=2000))
    return Suppressor(quiets(now=now), inhibitions, sources, graph, fails_at)


def verdicts(alerts: Iterable[Alert], *, now: datetime) -> dict[int, Verdict]:
    """Return by key whether and why nobody is paged for each of these alerts."""
    chosen = list(alerts)
    if not chosen:
        return {}
    ask = suppressor(now=now)
    return {alert.pk: ask.verdict(subject_of(alert)) for alert in chosen}


def quiets(*, now: datetime) -> list[Quiet]:
    """Return the silences and maintenance windows that hold now."""
    found = []
    for silence in Silence.objects.current(now).filter(starts_at__lte=now).order_by("created_at", "id"):
        try:
            until = silence.times.holds_until(now)
            matchers = silence.parsed
        except (RecurrenceError, MatcherError):
            continue
        if until is not None:
            words = f"silenced by {silence.created_by}: {silence.comment[:80]}"
            found.append(Quiet(str(silence.pk), words, matchers, until))
    windows = MaintenanceWindow.objects.current(now).filter(starts_at__lte=now).select_related("service")
    for window in windows:
        try:
            until = window.times.holds_until(now)
            matchers = window.parsed
        except (RecurrenceError, MatcherError):
            continue
        if until is not None:
            whole = window.service.name if window.service and not window.matchers else ""
            words = f"maintenance “{window.name[:80]}”"
            found.append(Quiet(window.name, words, matchers, until, is_window=True, service=whole))
    return found


def rule_of(row: Inhibition) -> Rule | None:
    """Return the inhibition rule as suppression sees it; None where it cannot be read."""
    try:
        source, target = matching.from_json(row.source_matchers), matching.from_json(row.target_matchers)
    except MatcherError:
        return None
    return Rule(row.pk or 0, row.name, source, target, tuple(row.equal))


def depends_on() -> Mapping[str, set[str]]:
    """Return which services each service depends on itself; those that depend on none are left out."""
    graph: dict[str, set[str]] = {}
    for name, parent in Service.depends_on.through.objects.values_list("from_service__name", "to_service__name"):
        graph.setdefault(name, set()).add(parent)
    return graph


# --- Previews: what would be muted -----------------------------------------------------------------------------------
WEEK: Final = timedelta(days=7)
MOST_LOOKED_AT: Final = 20_000
"""Alerts of the last week that a preview looks at, the newest."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be muted: alerts that are active now, and those that fired within the last week, newest first.

    `spans`: when it would have held within that week; `is_whole`: whether all alerts of the week were looked at.
    """

    active: tuple[Alert, ...]
    week: tuple[Alert, ...]
    spans: tuple[tuple[datetime, datetime], ...]
    is_whole: bool


def would_mute(matchers: Sequence[Matcher], *, scope: Scope, now: datetime, times: Times | None = None) -> Preview:
    """Return what these matchers mute now and would have muted in the last week; what recurs, in its hours only."""
    since = now - WEEK
    spans: tuple[tuple[datetime, datetime], ...] = ((since, now),)
    if times is not None and times.rule is not None:
        # A year earlier by whole weeks, so that its weekdays stay: it need not have begun yet.
        earlier = replace(times, starts_at=times.starts_at - timedelta(weeks=52), rule=replace(times.rule, count=None))
        spans = tuple((max(begin, since), min(end, now)) for begin, end in earlier.spans(since, now))
    seen = Alert.objects.visible_to(scope).select_related("rule")
    active = [alert for alert in seen.active().order_by("-fired_at", "-id") if _accepts(matchers, alert)]
    recent = Q(resolved_at__gte=since) | Q(resolved_at__isnull=True)
    rows = list(seen.history().filter(recent)[: MOST_LOOKED_AT + 1])
    week = [alert for alert in rows[:MOST_LOOKED_AT] if _accepts(matchers, alert) and _touches(alert, spans, now)]
    return Preview(tuple(active), tuple(week), spans, len(rows) <= MOST_LOOKED_AT)


def would_inhibit(row: Inhibition, *, scope: Scope) -> list[tuple[Alert, Alert]]:
    """Return (muted, because of) for what the rule, saved or not, mutes now."""
    rule = rule_of(row)
    active = {alert.pk: alert for alert in Alert.objects.active().select_related("rule").order_by("-fired_at", "-id")}
    visible = set(Alert.objects.visible_to(scope).active().values_list("pk", flat=True))
    if rule is None:
        return []
    subjects = {pk: subject_of(alert) for pk, alert in active.items()}
    ask = Suppressor(inhibitions=[rule], sources=subjects.values())
    found = []
    for pk, subject in subjects.items():
        verdict = ask.verdict(subject)
        if verdict.inhibited_by and pk in visible:
            found.append((active[pk], active[verdict.inhibited_by[0]]))
    return found


def _accepts(matchers: Sequence[Matcher], alert: Alert) -> bool:
    return matching.accept(matchers, alert.routing_labels)


def _touches(alert: Alert, spans: Sequence[tuple[datetime, datetime]], now: datetime) -> bool:
    begin, end = alert.fired_at or now, alert.resolved_at or now
    return any(begin < until and end >= since for since, until in spans)
