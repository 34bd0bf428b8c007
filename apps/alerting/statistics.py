"""Counts over alerts and what happened lately, for the overview, the seed's API and reports."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Q

from apps.accounts.permissions import EVERYTHING, Scope
from apps.alerting.lifecycle import ACTIVE, Severity
from apps.alerting.models import Alert, Transition


def stats(*, start: datetime, end: datetime, scope: Scope = EVERYTHING) -> dict[str, Any]:
    """Count the alerts that began to fire in [start, end]: {total, active, resolved, bySeverity, byType}.

    `active` are those of them that are still wrong. Severities are the seed's words, all of them; types are as found.
    """
    active = Q(state__in=[state.value for state in ACTIVE])
    fired = Alert.objects.visible_to(scope).filter(fired_at__range=(start, end))
    by_severity = {severity.name: 0 for severity in Severity}
    by_type: dict[str, int] = {}
    total = still = 0
    for row in (
        fired.order_by().values("severity", "type").annotate(count=Count("id"), still=Count("id", filter=active))
    ):
        total += row["count"]
        still += row["still"]
        by_severity[Severity(row["severity"]).name] += row["count"]
        by_type[row["type"]] = by_type.get(row["type"], 0) + row["count"]
    return {
        "total": total,
        "active": still,
        "resolved": total - still,
        "bySeverity": by_severity,
        "byType": dict(sorted(by_type.items())),
    }


@dataclass(frozen=True, slots=True)
class Activity:
    """One line of what happened: when, to which alert, what, why and by whom."""

    at: datetime
    alert: Alert
    kind: str
    before: str
    after: str
    severity: str
    reason: str
    by: str

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        match self.kind, self.after:
            case "state", "firing":
                return "fired again" if self.before == "recovering" else "fired"
            case "state", "resolved":
                return f"resolved ({self.reason.replace('_', ' ')})"
            case "severity", _:
                return f"went from {self.before} to {self.after}"
            case ("acknowledged", _) | ("unacknowledged", _):
                return f"{self.kind} by {self.by}"
        return f"{self.kind} {self.after}".strip()


def recent_activity(*, limit: int = 20, scope: Scope = EVERYTHING) -> list[Activity]:
    """The newest transitions that anybody cares about: not pending and back."""
    rows = (
        Transition.objects.visible_to(scope)
        .exclude(kind="state", after__in=("pending", "inactive", "recovering"))
        .select_related("alert")
        .order_by("-at", "-id")
    )
    return [
        Activity(row.at, row.alert, row.kind, row.before, row.after, row.severity, row.reason, row.by)
        for row in rows[:limit]
    ]
