"""Reads what is quiet now into the values that suppression decides on, and what it says of given alerts."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from apps.alerting import matching
from apps.alerting.lifecycle import Severity
from apps.alerting.matching import MatcherError
from apps.alerting.models import Alert, Inhibition, MaintenanceWindow, Service, Silence
from apps.alerting.recurrence import RecurrenceError
from apps.alerting.suppression import Inhibition as Rule
from apps.alerting.suppression import Quiet, Subject, Suppressor, Verdict


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
